"""The pinned tree covers what the package declares, and a wheel carries the embedded model."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def pins(name: str) -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return {canonical(found.name): found for found in (Requirement(line) for line in lines if line)}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def project() -> dict[str, list[str]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]  # type: ignore[no-any-return]


def test_every_pin_is_exact_and_within_the_declared_range() -> None:
    pinned = pins("requirements.txt") | pins("requirements-dev.txt")
    for pin in pinned.values():
        assert [spec.operator for spec in pin.specifier] == ["=="], pin
    for line in project()["dependencies"]:
        declared = Requirement(line)
        pin = pinned[canonical(declared.name)]
        version = next(iter(pin.specifier)).version
        assert declared.specifier.contains(version), f"{pin} is outside of {declared}"


def test_the_pinned_tree_is_closed() -> None:
    """What a pinned package needs on this platform is pinned too: nothing else gets installed."""
    pinned = pins("requirements.txt")
    for name, pin in pinned.items():
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
                continue
            if name == "torch" and canonical(needed.name).startswith(("nvidia", "triton", "cuda")):
                continue  # torch is installed by its own rules, which differ by platform
            assert canonical(needed.name) in pinned, f"{name} needs {needed}"


def test_heavy_extras_are_never_required() -> None:
    names = {canonical(Requirement(line).name) for line in project()["dependencies"]} | set(
        pins("requirements.txt")
    )
    assert not names & {"flash-attn", "apex", "xformers", "triton", "peft", "resvg-py", "torchao", "gguf"}


@pytest.mark.skipif(not (ROOT / "bundles" / "nano").is_dir(), reason="no embedded model in this checkout")
def test_a_wheel_carries_the_embedded_model_and_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        assert "newbie = newbie_image.cli.main:main" in archive.read(entry_points).decode()
    for file in (ROOT / "bundles" / "nano").rglob("*"):
        if file.is_file() and not file.name.startswith("."):
            assert f"newbie_image/bundles/{file.relative_to(ROOT / 'bundles').as_posix()}" in names
    assert "newbie_image/cli/app.py" in names
    assert not any(name.startswith(("tests/", "bundles/")) for name in names)
