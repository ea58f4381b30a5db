"""Damaged files: each is named and refused in one line, on loading, by `verify` and by the command line."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from newbie_image.checkpoints.components import load_component
from newbie_image.checkpoints.convert import convert
from newbie_image.checkpoints.files import open_source
from newbie_image.checkpoints.foreign import load_part
from newbie_image.checkpoints.inspection import verify
from newbie_image.checkpoints.recognise import Checkpoint, recognise
from newbie_image.cli.app import app
from newbie_image.errors import CheckpointError, NewbieError
from tests.checkpoints.damage import CASES

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")
LAYOUTS = ("newbie", "published")
NOBODY = 65534


@pytest.fixture(scope="module")
def sound(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model's transformer in a layout of ours and in a foreign one."""
    place = tmp_path_factory.mktemp("sound")
    checkpoint = recognise(tiny_bundle)
    alone = Checkpoint(
        checkpoint.path, checkpoint.layout, {"transformer": checkpoint.parts["transformer"]}, {}
    )
    for layout in LAYOUTS:
        convert(alone, place / layout, layout)
    return {layout: place / layout / "transformer" for layout in LAYOUTS}


@contextmanager
def without_rights() -> Iterator[None]:
    """As somebody to whom file modes apply, which they do not to root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def spoilt(folder: Path, case: str) -> Iterator[Path]:
    """A damaged copy where others may read; rights taken away are given back for cleaning up."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(shutil.copytree(folder, Path(place) / "transformer"))
        Path(place).chmod(0o755)
        CASES[case].spoil(copy)
        if case == "no permission":
            with without_rights():
                yield copy
        else:
            yield copy


def load(folder: Path, layout: str) -> object:
    if layout == "newbie":
        return load_component(folder, "newbie_image", "NextDiT", None)
    return load_part("transformer", folder, open_source(folder), None)


def complaints(folder: Path, layout: str) -> list[str]:
    checkpoint = Checkpoint(folder.parent, layout, {"transformer": folder}, {})
    return [line for line in verify(checkpoint) if line.startswith("transformer")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_sound_is_taken(sound: dict[str, Path], layout: str) -> None:
    load(sound[layout], layout)
    assert complaints(sound[layout], layout) == []


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_each_damage_is_named_and_refused_in_one_line(sound: dict[str, Path], layout: str, case: str) -> None:
    with spoilt(sound[layout], case) as folder:
        said = complaints(folder, layout)
        if not CASES[case].values:
            with pytest.raises(NewbieError) as caught:
                load(folder, layout)
            said.append(str(caught.value))
        assert not (folder / "ran").exists()  # code in a pickle
        assert said, "verify found nothing"
        for line in said:
            assert "\n" not in line
            assert all(word in line for word in CASES[case].words), line
            assert str(folder) in line or CASES[case].values


@pytest.mark.parametrize(
    "case",
    ["truncated data", "one key renamed", "a pickle with code in it", "a link in a circle", "NaN"],
)
def test_the_command_line_says_one_line_and_leaves_with_2(
    tiny_bundle: Path, tmp_path: Path, case: str
) -> None:
    model = Path(shutil.copytree(tiny_bundle, tmp_path / "model"))
    CASES[case].spoil(model / "transformer")
    runner = CliRunner()
    said = [runner.invoke(app, ["weights", "verify", str(model)])]
    if not CASES[case].values:
        out = ["--out", str(tmp_path / "a.png"), "--model", str(model)]
        said.append(runner.invoke(app, ["generate", "1girl", *out]))
    for answer in said:
        assert answer.exit_code == 2
        assert answer.stderr.startswith("error: ")
        assert answer.stderr.count("\n") == 1
        assert all(word in answer.stderr for word in CASES[case].words)
        assert isinstance(answer.exception, SystemExit)
    assert not (tmp_path / "a.png").exists()


def test_a_folder_without_rights_is_one_line(sound: dict[str, Path]) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        shutil.copytree(sound["published"], Path(place) / "model" / "transformer")
        (Path(place) / "model").chmod(0)
        with without_rights(), pytest.raises(CheckpointError, match="Permission denied"):
            recognise(Path(place) / "model")
        (Path(place) / "model").chmod(0o755)


def test_the_page_names_every_case() -> None:
    page = (Path(__file__).parents[2] / "docs" / "layouts.md").read_text(encoding="utf-8")
    assert [case for case in CASES if f"| {case} |" not in page] == []
