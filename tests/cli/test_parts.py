"""Parts from different places on every command that takes a model, and `--vram` where it was missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from newbie_image.checkpoints.convert import convert
from newbie_image.checkpoints.recognise import recognise
from newbie_image.cli.app import app
from newbie_image.cli.replay import compare
from newbie_image.cli.session import Session
from newbie_image.provenance import read_picture


@pytest.fixture(scope="module")
def options(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tiny model's parts, two as ComfyUI has them and two as published, by their options."""
    place = tmp_path_factory.mktemp("parts")
    for layout in ("comfyui", "published"):
        convert(recognise(tiny_bundle), place / layout, layout)
    return {
        "--transformer": str(place / "comfyui" / "diffusion_models" / "NewBie-image.safetensors"),
        "--text-encoder": str(place / "published" / "text_encoder"),
        "--clip-model": str(place / "comfyui" / "text_encoders" / "jina_clip_v2.safetensors"),
        "--vae": str(place / "published" / "vae"),
    }


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def flat(options: dict[str, str]) -> list[str]:
    return [word for pair in options.items() for word in pair]


def drawn(path: Path, *arguments: str) -> Path:
    done = run("generate", "1girl", "--seed", "3", "--dtype", "fp32", "-o", str(path), *arguments)
    assert done.exit_code == 0, done.stderr
    return path


def test_four_files_make_the_picture_of_the_whole_bundle(
    options: dict[str, str], tiny_bundle: Path, tmp_path: Path
) -> None:
    whole, _ = read_picture(drawn(tmp_path / "a.png", "--model", str(tiny_bundle)))
    path = drawn(tmp_path / "b.png", *flat(options))
    picture, record = read_picture(path)
    # Where weights lie in a mapped file decides on some processors in which order kernels add up.
    assert compare(whole, picture).largest <= 1
    assert record.bundle.name == "tiny"
    assert record.environment["text_encoder"].startswith("text_encoder sha256:")
    assert record.environment["clip_model"].startswith("jina_clip_v2.safetensors sha256:")
    assert str(tmp_path) not in path.read_bytes().decode("latin-1")
    # Only names are recorded, so each part is asked for, and taken where it is said.
    forgotten = dict(options)
    del forgotten["--clip-model"]
    refused = run("replay", str(path), *flat(forgotten))
    assert refused.exit_code == 2
    assert "jina_clip_v2.safetensors" in refused.stderr
    assert "--clip-model PATH" in refused.stderr
    again = run("replay", str(path), *flat(options), "--vram", "1GB")
    assert again.exit_code == 0, again.stdout + again.stderr


def test_a_part_that_is_missing_or_wrong_is_one_line(options: dict[str, str], tmp_path: Path) -> None:
    alone = run("generate", "1girl", "--transformer", options["--transformer"], "-o", str(tmp_path / "a.png"))
    assert alone.exit_code == 2
    assert "--text-encoder FILE --clip-model FILE --vae FILE" in alone.stderr
    for change in ({"--text-encoder": "/nowhere"}, {"--text-encoder": options["--vae"]}):
        wrong = run("generate", "1girl", *flat({**options, **change}), "-o", str(tmp_path / "a.png"))
        assert wrong.exit_code == 2
        assert wrong.stderr.count("\n") == 1
        assert change["--text-encoder"] in wrong.stderr


def test_plan_and_info_take_parts(options: dict[str, str], tiny_bundle: Path) -> None:
    common = ("plan", "--vram", "8GB", "--json")
    whole = json.loads(run(*common, "--model", str(tiny_bundle)).stdout)
    parts = run(*common, "--model", options["--transformer"], *flat(options))
    assert parts.exit_code == 0, parts.stderr
    assert json.loads(parts.stdout)["plan"]["peak"] == whole["plan"]["peak"]
    published = json.loads(run(*common).stdout)
    smaller = json.loads(run(*common, "--transformer", options["--transformer"]).stdout)
    assert 0 < smaller["plan"]["peak"] < published["plan"]["peak"]
    refused = run("plan", "--vram", "8GB", "--model", options["--transformer"])
    assert refused.exit_code == 2
    assert "--text-encoder PATH" in refused.stderr
    facts = json.loads(run("info", "--brief", "--json", *flat(options)).stdout)
    assert [part["name"] for part in facts["parts"]] == ["transformer", "text_encoder", "clip_model", "vae"]
    assert {part["path"] for part in facts["parts"]} == set(options.values())
    assert "missing" in run("info", "--brief", "--transformer", options["--transformer"]).stdout


def test_the_loop_takes_parts_and_vram(options: dict[str, str], tiny_bundle: Path, tmp_path: Path) -> None:
    said = run(
        *("create", *flat(options), "--out", str(tmp_path), "--vram", "1GB", "--dtype", "fp32"),
        stdin=":vram\n:clip-model\n:seed 3\n1girl\n:text-encoder /nowhere\n",
    )
    assert said.exit_code == 2
    assert "vram 1GB" in said.stdout
    assert f"clip-model {options['--clip-model']}" in said.stdout
    assert "/nowhere" in said.stderr
    assert len(list(tmp_path.glob("*.png"))) == 1


def test_parts_and_vram_are_settings_that_load_anew() -> None:
    session = Session()
    assert session.change("text-encoder", "x")
    assert session.choice.parts == {"text_encoder": "x"}
    assert session.change("text-encoder", "default")
    assert session.choice.parts == {}
    assert session.change("vram", "8GB")
    rows = dict(session.describe())
    assert rows["vram"] == "8GB"
    assert rows["transformer"] == "the bundle's"


@pytest.mark.parametrize("option", ["--model", "--transformer", "--text-encoder", "--vae", "--lora"])
def test_a_link_in_a_circle_is_called_so(tmp_path: Path, option: str) -> None:
    loop = tmp_path / "loop.safetensors"
    loop.symlink_to(loop)
    done = run("generate", "1girl", option, str(loop), "-o", str(tmp_path / "a.png"))
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert f"{loop} is a link that leads nowhere or in a circle" in done.stderr
