"""`newbie explain` and `--show-regions` through a bundle of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest
from typer.testing import CliRunner, Result

from newbie_image.cli.app import app
from newbie_image.cli.create import Loop
from newbie_image.cli.entry import PipedEntry
from newbie_image.cli.options import ModelChoice
from newbie_image.cli.session import Session
from newbie_image.provenance import read_picture
from tests.tiny import XML_PROMPT

PLACED = XML_PROMPT.replace("glasses</appearance>", "glasses</appearance><position>right</position>")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_prompt_and_the_picture_of_it_are_explained_alike(tiny_bundle: Path, tmp_path: Path) -> None:
    model = ("--model", str(tiny_bundle))
    first = tmp_path / "first"
    done = run(
        "explain", PLACED, "--seed", "7", "--dtype", "fp32", "--out", str(first), "--previews", "1", *model
    )
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{first / 'index.html'}\n"
    record = read_picture(first / "picture.png")[1]
    assert (record.request.prompt, record.seed) == (PLACED, 7)
    again = tmp_path / "again"
    done = run("explain", str(first / "picture.png"), "--out", str(again), "--previews", "1", *model)
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""  # the same to the bit
    assert (again / "explain.json").read_bytes() == (first / "explain.json").read_bytes()
    assert (again / "picture.png").read_bytes() == (first / "picture.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such.png"], "there is no picture"),
        (["bare.png"], "no record of what made it"),
        (["bare.png", "--steps", "3"], "a picture's own record says that"),
        ([], "none was given"),
        ([" ", "--out", "new"], "no tags to look at"),
        (["1girl", "--kind", "heat"], "attention, similarity"),
        (["1girl", "--blocks", "5", "--out", "new"], "there are 0 to 1"),
        (["1girl", "--at-steps", "9", "--out", "new"], "there are 1 to 3"),
        (["1girl", "--previews", "99"], "0 to 50"),
        (["1girl", "--out", "."], "holds other files"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    PIL.Image.new("RGB", (16, 16)).save("bare.png")
    done = run("explain", *arguments, "--model", str(tiny_bundle))
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr
    assert not any(file.suffix in (".html", ".json") for file in tmp_path.rglob("*"))


def test_regions_are_written_beside_the_picture(tiny_bundle: Path, tmp_path: Path) -> None:
    usual = ("--model", str(tiny_bundle), "--seed", "7", "--out", str(tmp_path / "a.png"), "--show-regions")
    done = run("generate", PLACED, "--binding", "full", "--json", *usual)
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["regions"] == str(tmp_path / "a-regions.png")
    with PIL.Image.open(answer["regions"]) as shown:
        assert shown.size == (512, 384)
    plain = run(
        "generate", PLACED, "--binding", "text", *usual[:-2], str(tmp_path / "b.png"), "--show-regions"
    )
    assert plain.exit_code == 0
    assert plain.stdout == f"{tmp_path / 'b.png'}\n"
    assert "binding 'text', which uses no regions; give --binding" in plain.stderr
    assert not (tmp_path / "b-regions.png").exists()
    one = run("generate", "<character_1><n>a</n></character_1>", "--binding", "full", *usual)
    assert "under binding 'full' no regions acted; give each character a <position>" in one.stderr


def test_the_loop_shows_regions_while_that_is_on(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    session = Session(choice=ModelChoice(str(tiny_bundle), device="cpu", dtype="fp32"), out=str(tmp_path))
    session.change("binding", "region")
    entry = PipedEntry(io.BytesIO(f":show-regions on\n{PLACED}\n\n:show-regions off\n:again\n".encode()))
    assert Loop(session, entry).run()
    said = capsys.readouterr().out.splitlines()
    assert [line.endswith("-regions.png") for line in said if line.endswith(".png")] == [False, True, False]
    assert "show-regions True" in said
    assert len(list(tmp_path.glob("*-regions.png"))) == 1
