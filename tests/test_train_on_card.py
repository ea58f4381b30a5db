"""The script's dry run: every part at tiny size, the time kept, and a second call that goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "train_on_card"


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.slow
def test_a_dry_run_leaves_everything_in_time_and_a_second_call_goes_on(tmp_path: Path) -> None:
    out, folders = tmp_path / "out", ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    began = time.monotonic()
    first = call("--tiny", "--minutes", "2.4", *folders, "--skip", "tests", "--autoencoder-minutes", "0.1")
    spent = time.monotonic() - began
    assert first.returncode == 0, first.stdout + first.stderr
    assert spent < 2.4 * 60 + 5
    found = {file.name for file in out.iterdir()}
    assert found == {"results.json", "log.txt", "evaluation.json", "sheet.png", "parcel-00", "readers"}
    told = json.loads((out / "results.json").read_text())
    assert told["versions"]["cores"] >= 1
    assert told["step"]["pipeline"]["step_s"] > 0
    assert set(told["calls"][0]["parts"]) == {"versions", "step", "render", "readers", "train", "evaluate"}
    assert not [row for row in told["step"]["binding"] if "error" in row]
    assert (out / "readers" / "parcel-00").exists()
    assert told["autoencoder"][-1]["minutes"] >= 0.1
    seen = told["transformer"][-1]["seen"]
    assert seen > 0

    second = call("--tiny", "--minutes", "0.9", *folders, "--only", "train,evaluate")
    assert second.returncode == 0, second.stdout + second.stderr
    again = json.loads((out / "results.json").read_text())
    assert len(again["autoencoder"]) == len(told["autoencoder"])  # it was done
    assert again["transformer"][-1]["seen"] > seen
    assert again["versions"] == told["versions"]

    bundle = tmp_path / "bundle"
    assert call("--unpack", str(out), "--to", str(bundle)).returncode == 0
    assert "nano: the embedded model" in (bundle / "README.md").read_text()
    assert not (bundle / "training.json").exists()


def test_a_bundle_is_packed_to_travel(tmp_path: Path) -> None:
    packed = call("--pack", "nano", "--out", str(tmp_path))
    assert packed.returncode == 0, packed.stderr
    sizes = [file.stat().st_size for file in sorted(tmp_path.iterdir())]
    assert len(sizes) >= 3
    assert max(sizes) <= 15 * 2**20
    weights = sum(file.stat().st_size for file in (ROOT / "bundles" / "nano").rglob("*.safetensors"))
    assert sum(sizes) < 0.72 * weights
