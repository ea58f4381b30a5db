"""The command as a whole: what it imports, and that every mistake is one line and exit code 2."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from newbie_image import __version__
from newbie_image.cli.app import COMMANDS, app


def without_torch(*arguments: str) -> str:
    """Run the command in a fresh interpreter and refuse it the heavy packages."""
    code = (
        "import sys\n"
        "for name in ('torch', 'diffusers', 'transformers'): sys.modules[name] = None\n"
        "from newbie_image.cli.app import app\n"
        f"app({list(arguments)!r}, prog_name='newbie')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_names_every_command_without_torch() -> None:
    said = without_torch("--help")
    for name, command in COMMANDS.items():
        assert name in said
        assert command.help in said


@pytest.mark.parametrize("name", ["generate", "create", "explain", "replay", "info"])
def test_help_of_each_command_comes_without_torch(name: str) -> None:
    assert "--help" in without_torch(name, "--help")


def test_brief_info_comes_without_torch() -> None:
    said = without_torch("info", "--brief")
    assert "torch" in said  # its version, read from what is installed
    assert __version__ in said


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"newbie-image {__version__}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gnerate"], "Did you mean 'generate'"),
        (["generate", "a", "--setps", "3"], "--steps"),
        (["generate", "a", "--steps", "many"], "--steps"),
        (["generate"], "none was given"),
        (["generate", "a", "--prompt-file", "b"], "both were given"),
        (["generate", "a", "--seed", "-1"], "9223372036854775807"),
        (["generate", "a", "--seed", str(2**63)], "9223372036854775807"),
        (["generate", "a", "--seed", str(2**63 - 1), "--count", "2"], "give a smaller one"),
        (["generate", "a", "--sampler", "ddim"], "res_multistep"),
        (["generate", "a", "--resolution", "100x64"], "96 and 112"),
        (["generate", "a", "--resolution", "64"], "256x256"),
        (["generate", "a", "--resolution", "64x0"], "256x256"),
        (["generate", "a", "--steps", "0"], "from 1 to 1000"),
        (["generate", "a", "--batch", "0"], "batch 0"),
        (["generate", "a", "--cfg", "nan"], "guidance_scale nan"),
        (["generate", "a", "--dtype", "int8"], "bf16"),
        (["generate", "a", "--attention", "magic"], "sdpa"),
        (["generate", "a", "--offload=disk"], "encoders"),
        (["generate", "a", "--offload", "disk"], "unknown offload 'disk'; choose one of none, encoders"),
        (["create", "--offload", "disk"], "unknown offload 'disk'"),
        (["generate", "a", "--offload", "b", "c"], "unexpected extra"),
        (["generate", "a", "--out", "no/such/folder/a.png"], "there is no folder"),
        (["generate", "a", "--out", "a.jpg"], "ends in .png"),
        (["generate", "a", "--model", "no-such-model"], "no-such-model"),
        (["generate", "--prompt-file", "no-such-file"], "no such file"),
        (["generate", "<character_1><n>a</character_1>"], "line 1, column 14"),
        (["replay", "no-such.png"], "there is no picture"),
        (["replay"], "PICTURE.png"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert said.lower() in done.stderr.lower()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["info", "--brief"], ["--help"], ["prompt", "template", "list"]])
def test_an_answer_that_does_not_fit_on_the_disk_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "newbie_image", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: cannot write the answer: the disk is full")


def test_an_answer_that_nobody_reads_to_its_end_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "newbie_image", "info", "--brief"],
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "")


def test_the_fixed_picture_takes_no_arguments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["test.py", "--steps", "3"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(Path(__file__).parents[2] / "test.py"), run_name="__main__")
    assert left.value.code == 2
    assert capsys.readouterr().err == (
        "error: test.py takes no arguments (--steps); edit the names in capitals, or run newbie generate\n"
    )


def test_the_fixed_picture_leaves_with_exit_code_2_where_its_model_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "test.py").read_text(encoding="utf-8")
    edited = tmp_path / "edited.py"
    edited.write_text(
        text.replace('MODEL = "nano"', f"MODEL = {str(tiny_bundle / 'vae')!r}"), encoding="utf-8"
    )
    monkeypatch.setattr(sys, "argv", [str(edited)])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(edited), run_name="__main__")
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["edited.py"]
