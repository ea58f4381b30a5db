"""Texts of options become values, and places to write to are looked at beforehand."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from newbie_image.cli import options
from newbie_image.errors import DeviceError, OutputError, PromptError, RequestError
from newbie_image.memory.formats import QUANTISATIONS
from newbie_image.request import MAX_SEED


def test_seeds() -> None:
    assert options.read_seed("0") == 0
    assert options.read_seed(str(MAX_SEED)) == MAX_SEED
    drawn = {options.read_seed("random") for _ in range(8)}
    assert len(drawn) > 1
    assert all(0 <= seed < 2**32 for seed in drawn)
    for text in ("-1", str(MAX_SEED + 1), "1.5", "", "seven"):
        with pytest.raises(RequestError, match="give random or a whole number"):
            options.read_seed(text)


def test_resolutions() -> None:
    assert options.read_resolution("256x128") == (256, 128)
    assert options.read_resolution("256X128") == options.read_resolution("256×128") == (256, 128)
    for text in ("", "x", "256", "axb", "-16x16", "16x16x16"):
        with pytest.raises(RequestError, match="as in 256x256"):
            options.read_resolution(text)
    with pytest.raises(RequestError, match=r"height 250 .* 240 and 256"):
        options.read_resolution("256x250")


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        (["--offload"], ["--offload=model"]),
        (["--offload", "--steps", "3"], ["--offload=model", "--steps", "3"]),
        (["--offload", "encoders", "a"], ["--offload", "encoders", "a"]),
        (["--offload", "1girl"], ["--offload=model", "1girl"]),
        (["--offload=none"], ["--offload=none"]),
        (["--", "--offload"], ["--", "--offload"]),
    ],
)
def test_a_bare_offload_means_model(given: list[str], completed: list[str]) -> None:
    assert options.complete_offload(given) == completed


def test_choices_are_checked() -> None:
    assert options.read_offload("") == "model"
    assert options.QUANTISATIONS == QUANTISATIONS
    for name in ("dtype", "attention", "offload", "quantise", "quantise_encoders"):
        with pytest.raises(DeviceError, match="choose one of"):
            options.ModelChoice(**{name: "other"})


def test_a_prompt_file_is_read_to_the_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "prompt.xml"
    file.write_bytes("\ufeff<n>水色</n>\r\n  \n".encode())
    assert options.read_prompt(None, str(file)) == "<n>水色</n>\r\n  \n"
    for arguments in (("-", None), (None, "-")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"1girl\n")))
        assert options.read_prompt(*arguments) == "1girl\n"
    file.write_bytes(b"one\ntw\xff")
    with pytest.raises(PromptError, match="byte 0xff in line 2"):
        options.read_prompt(None, str(file))
    file.write_bytes(b"a" * (options.MAX_PROMPT_BYTES + 1))
    with pytest.raises(PromptError, match="longer than"):
        options.read_prompt(None, str(file))
    with pytest.raises(PromptError, match="is a directory"):
        options.read_prompt(None, str(tmp_path))


def test_where_pictures_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert options.plan_paths(None, [7]) == [Path("newbie-7.png")]
    assert options.plan_paths("a.png", [7]) == [Path("a.png")]
    assert options.plan_paths("a.png", [7, 8]) == [Path("a-7.png"), Path("a-8.png")]
    assert options.plan_paths("made/here/", [7]) == [Path("made/here/newbie-7.png")]
    assert options.plan_paths("made", [7]) == [Path("made/newbie-7.png")]
    Path("newbie-7.png").touch()
    assert options.plan_paths(None, [7]) == [Path("newbie-7-2.png")]
    with pytest.raises(OutputError, match="cannot make the folder"):
        options.plan_paths("newbie-7.png/folder/", [7])
