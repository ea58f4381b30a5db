"""What comes off the card is what lay there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from newbie_image.cli.nano_benchmark import read_doses
from newbie_image.nano.benchmark.arms import ARMS, read_arms
from newbie_image.nano.benchmark.prompt_sets import KINDS

SCRIPT = Path(__file__).parent.parent.parent.parent / "benchmarks" / "binding_on_card.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("binding_on_card", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["binding_on_card"] = module
    spec.loader.exec_module(module)
    return module


def _folder(work: Path, name: str, pictures: int) -> dict[str, bytes]:
    """A run's folder, and what must come back of it: path → content."""
    run = work / name
    (run / "pictures" / "xml").mkdir(parents=True)
    for file in ("run.json", "pictures.jsonl", "readings.jsonl"):
        (run / file).write_text(f"{name} {file}\n" * 50)
    rng = np.random.default_rng(0)
    for number in range(pictures):
        noise = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(run / "pictures" / "xml" / f"{number}.png")
    (work / "commands.txt").write_text("newbie --out held --report-only\n")
    return {str(path.relative_to(work)): path.read_bytes() for path in work.rglob("*") if path.is_file()}


def test_what_is_packed_in_parts_is_unpacked(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    work, out, to = tmp_path / "work", tmp_path / "out", tmp_path / "to"
    wanted = _folder(work, "held", 3) | _folder(work, "sweep", 2)
    (work / "unfinished").mkdir()
    assert script.pack(work, out, part=2**20 // 2, parts=5) == {}
    script.unpack(out, to)
    found = {str(path.relative_to(to)): path.read_bytes() for path in to.rglob("*") if path.is_file()}
    assert found == wanted
    assert capsys.readouterr().out == f"newbie --out {to / 'held'} --report-only\n"


def test_pictures_that_do_not_fit_are_left_out_and_said(script: ModuleType, tmp_path: Path):
    work, out = tmp_path / "work", tmp_path / "out"
    _folder(work, "held", 3)
    assert script.pack(work, out, part=2**18, parts=4) == {"held": 3}
    script.unpack(out, tmp_path / "to")
    assert (tmp_path / "to" / "held" / "readings.jsonl").exists()
    parts = sorted(path.name for path in out.iterdir())
    assert parts == [f"binding-{number:02}" for number in range(len(parts))]
    assert all(path.stat().st_size <= 2**18 for path in out.iterdir())


def test_every_run_asks_for_what_there_is(script: ModuleType):
    for asked in script.RUNS:
        arms = read_arms(asked.arms)
        assert len(read_doses(asked.weights, arms)) == (84 if asked.weights else 0)
        assert set(asked.sets.split(",")) <= set(KINDS)


def test_the_report_of_a_folder_has_all_that_its_runs_drew(script: ModuleType):
    command = script.report_command([asked for asked in script.RUNS if asked.out == "reported"])
    assert " --set seen,swapped,unplaced " in command
    assert set(command.split("--arms ")[1].split(" ")[0].split(",")) == set(ARMS) - {"sealed"}
    assert command.endswith("--out reported --skip 200 --report-only")
