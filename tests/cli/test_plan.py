"""`newbie plan` refuses what running would refuse, in the same words."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from newbie_image.cli.app import app
from newbie_image.errors import DeviceError, RequestError
from newbie_image.memory.formats import check_format
from newbie_image.pipeline import NewbiePipeline
from newbie_image.provenance import read_picture
from newbie_image.request import GenerationRequest, TextEncoded
from tests.tiny import XML_PROMPT


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(("width", "height"), [(1040, 32), (32, 1040), (4096, 4096)])
def test_a_picture_beyond_the_rotary_tables_is_refused_in_the_transformers_words(
    tiny_bundle: Path, width: int, height: int
) -> None:
    pipe = NewbiePipeline.from_pretrained(tiny_bundle)
    seen: list[object] = []
    with pytest.raises(RequestError, match=r"end at 64×64 \(axes_lens\)") as refused:
        seen.extend(pipe.stream(GenerationRequest(XML_PROMPT, width=width, height=height)))
    assert not any(isinstance(event, TextEncoded) for event in seen)
    size = ("--resolution", f"{width}x{height}")
    for command in (("plan", "--vram", "8GB"), ("generate", XML_PROMPT)):
        said = run(*command, "--model", str(tiny_bundle), *size)
        assert said.exit_code == 2
        assert said.stdout == ""
        assert said.stderr == f"error: {refused.value}\n"


def test_the_tables_of_the_published_model() -> None:
    plan = ("plan", "--vram", "80GB")
    assert run(*plan, "--resolution", "8192x16").exit_code == 0
    beyond = run(*plan, "--resolution", "8208x1024")
    assert beyond.exit_code == 2
    assert "128×1026 are 64×513 tokens; the model's rotary tables end at 512×512" in beyond.stderr
    assert run(*plan, "--tokens", "1023").exit_code == 0
    assert (
        "caption of 1024 tokens; the model's rotary table allows 1023"
        in run(*plan, "--tokens", "1024").stderr
    )
    assert "tokens 0" in run(*plan, "--tokens", "0").stderr


def test_the_table_says_which_sizes_are_beyond(tiny_bundle: Path) -> None:
    table = run("plan", "--table", "--model", str(tiny_bundle)).stdout
    assert "| 1024² |" in table
    assert "| 1536² |" not in table
    assert "1536²: latents of 192×192 are 96×96 tokens" in table


@pytest.mark.parametrize("option", ["--quantise", "--quantise-encoders"])
def test_int8_in_fp16_is_refused_as_running_refuses_it(option: str) -> None:
    with pytest.raises(DeviceError) as refused:
        check_format("int8", "fp16")
    said = run("plan", "--vram", "8GB", "--dtype", "fp16", option, "int8")
    assert (said.exit_code, said.stdout, said.stderr) == (2, "", f"error: {refused.value}\n")
    assert run("plan", "--vram", "8GB", "--dtype", "bf16", option, "int8").exit_code == 0
    assert run("plan", "--vram", "8GB", "--dtype", "fp16", option, "fp8").exit_code == 0
    pytest.importorskip("torchao", reason="torchao is not installed: pip install 'newbie-image[quant]'")
    running = run("generate", "1girl", "--device", "cpu", "--dtype", "fp16", option, "int8")
    assert (running.exit_code, running.stderr) == (2, said.stderr)


def test_the_command_that_is_shown_draws_what_was_planned(tiny_bundle: Path, tmp_path: Path) -> None:
    asked = ("--model", str(tiny_bundle), "--resolution", "64x32", "--batch", "2", "--dtype", "fp32")
    asked += ("--steps", "2", "--sampler", "heun", "--trims", "adaln", "--vae", str(tiny_bundle / "vae"))
    said = run("plan", "--vram", "2GB", *asked).stdout
    command = shlex.split(said.splitlines()[-1].removeprefix("to run it so: "))
    assert command[:3] == ["newbie", "generate", "PROMPT"]
    done = run(*command[1:], "--seed", "1", "-o", str(tmp_path / "a.png"))
    assert done.exit_code == 0, done.stderr
    pictures = [read_picture(Path(line))[1] for line in done.stdout.splitlines()]
    assert len(pictures) == 2
    request = pictures[0].request
    assert (request.width, request.height, request.batch) == (64, 32, 2)
    assert (request.steps, request.sampler) == (2, "heun")
    assert pictures[0].environment["dtype"] == "fp32"
    published = run("plan", "--vram", "80GB").stdout.splitlines()[-1]
    assert "--model newbie-exp0.1 --resolution 1024x1024" in published
    assert "--dtype" not in published
