"""`newbie generate` and `newbie replay` through a bundle of random weights."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest
import torch
from typer.testing import CliRunner, Result

from newbie_image.cli.app import app
from newbie_image.cli.replay import compare
from newbie_image.provenance import encode_png, read_picture
from tests.tiny import XML_PROMPT, vae


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


@pytest.fixture
def drawn(tiny_bundle: Path, tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    done = run(
        "generate", XML_PROMPT, "--model", str(tiny_bundle), "--seed", "7", "--dtype", "fp32", "-o", str(path)
    )
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{path}\n"
    assert done.stderr == ""
    return path


def test_a_picture_holds_what_made_it(drawn: Path) -> None:
    image, record = read_picture(drawn)
    assert image.size == (64, 48)
    assert record.request.prompt == XML_PROMPT
    assert (record.seed, record.request.steps, record.request.sampler) == (7, 3, "euler")
    assert record.bundle.name == "tiny"
    assert record.bundle.content_hash.startswith("sha256:")
    assert record.environment["dtype"] == "fp32"
    assert "torch" in record.versions


def test_the_same_call_writes_the_same_bytes(drawn: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    again = tmp_path / "b.png"
    run(
        "generate",
        XML_PROMPT,
        "--model",
        str(tiny_bundle),
        "--seed",
        "7",
        "--dtype",
        "fp32",
        "-o",
        str(again),
    )
    assert again.read_bytes() == drawn.read_bytes()


def test_several_pictures_as_json(tiny_bundle: Path, tmp_path: Path) -> None:
    done = run(
        *("generate", "-", "--model", str(tiny_bundle), "--seed", "3", "--count", "3", "--batch", "2"),
        *("--resolution", "32x48", "--preset", "quick", "--negative", "hat", "--cfg", "3", "--json"),
        *("--out", str(tmp_path / "new") + "/"),
        stdin="1girl, smile",
    )
    assert done.exit_code == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["seed"] for answer in answers] == [3, 4, 5]
    for answer in answers:
        path = Path(answer["path"])
        assert hashlib.sha256(path.read_bytes()).hexdigest() == answer["sha256"]
        assert (answer["width"], answer["height"]) == (32, 48)
        assert set(answer["seconds"]) == {"loading", "text", "sampling", "decoding", "writing"}
        assert all(seconds >= 0 for seconds in answer["seconds"].values())
        assert read_picture(path)[1].pixels == answer["pixels_sha256"]
    last = read_picture(answers[2]["path"])[1]
    assert (last.request.steps, last.request.preset, last.request.guidance_scale) == (2, "quick", 3.0)
    assert len({answer["pixels_sha256"] for answer in answers}) == 3
    assert run("replay", answers[1]["path"], "--model", str(tiny_bundle)).exit_code == 0


def test_nothing_is_written_when_the_prompt_is_broken(tiny_bundle: Path, tmp_path: Path) -> None:
    done = run("generate", "<n>a", "--model", str(tiny_bundle), "--out", str(tmp_path / "a.png"))
    assert done.exit_code == 2
    assert list(tmp_path.iterdir()) == []
    assert (
        run(
            "generate", "<n>a", "--tolerant", "--model", str(tiny_bundle), "-o", str(tmp_path / "a.png")
        ).exit_code
        == 0
    )


def test_replay_says_identical(drawn: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    done = run("replay", str(drawn), "--model", str(tiny_bundle), "--out", str(tmp_path / "again.png"))
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("identical: ")
    assert (tmp_path / "again.png").read_bytes() == drawn.read_bytes()


def test_a_resolution_that_is_not_the_pictures_is_said(tiny_bundle: Path, tmp_path: Path) -> None:
    prompt = XML_PROMPT.replace("</general_tags>", "<resolution>1024x1024</resolution></general_tags>")
    assert "<resolution>" in prompt
    here = ("--model", str(tiny_bundle), "-o", str(tmp_path / "a.png"))
    by_default = run("generate", prompt, *here, "--json")
    assert "the picture is 64x48" in by_default.stderr
    assert "(resolution-disagrees)" in json.loads(by_default.stdout)["warnings"][0]
    assert "the picture is 32x32" in run("generate", prompt, *here, "--resolution", "32x32").stderr
    assert (
        run(
            "generate",
            XML_PROMPT.replace("</general_tags>", "<resolution>64x48</resolution></general_tags>"),
            *here,
        ).stderr
        == ""
    )
    refused = run("generate", prompt, *here[:-1], str(tmp_path / "b.png"), "--warnings-as-errors")
    assert refused.exit_code == 1
    assert not (tmp_path / "b.png").exists()


def test_warnings_stop_a_picture_only_when_asked(tiny_bundle: Path, tmp_path: Path) -> None:
    here = ("--model", str(tiny_bundle), "-o", str(tmp_path / "a.png"))
    for prompt in ("1girl, bleu_hair", "a <!-- weight:9 -->b"):
        refused = run("generate", prompt, *here, "--warnings-as-errors")
        assert refused.exit_code == 1
        assert refused.stdout == ""
        assert "warning:" in refused.stderr
        assert all(line.count("warning") == 1 for line in refused.stderr.splitlines())
        assert not (tmp_path / "a.png").exists()
    assert run("generate", "1girl, blue_hair", *here, "--warnings-as-errors").exit_code == 0


def test_a_parsers_warning_is_called_one_once_and_is_the_same_line_either_way(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    here = ("--model", str(tiny_bundle), "-o", str(tmp_path / "a.png"), "--cfg", "2")
    line = "line 1, column 3: weight 9 is outside 0 to 3 and acts as 3 (weight-range)"
    for strict in ((), ("--warnings-as-errors",)):
        said = run("generate", "a <!-- weight:9 -->b", "--negative", "a <!-- weight:9 -->b", *here, *strict)
        lines = said.stderr.splitlines()
        assert lines == [f"warning: {line}", f"warning: negative prompt, {line}"], strict


def test_two_people_in_one_place_are_said_once(tiny_bundle: Path, tmp_path: Path) -> None:
    someone = "<gender>1girl</gender><appearance>pink_hair</appearance><position>left</position>"
    prompt = "".join(f"<character_{n}>{someone}</character_{n}>" for n in (1, 2))
    prompt += "<general_tags><count>2girls</count></general_tags>"
    nowhere = prompt + "<character_3><gender>1girl</gender><appearance>glasses</appearance></character_3>"
    nowhere = nowhere.replace("2girls", "3girls")
    seen = "character_2 stands where character_1 stands (left) (shared-position)"
    done = "warning: character_1, character_2 have one place; they share a region"
    here = ("--model", str(tiny_bundle), "-o", str(tmp_path / "a.png"))
    for strict in ((), ("--warnings-as-errors",)):
        (told,) = run("generate", prompt, *here, "--binding", "region", *strict).stderr.splitlines()
        assert told == done
    # Where no regions act, and where the place is not used, the prompt's own check says it.
    for setting in ("auto", "text"):
        (told,) = run("generate", prompt, *here, "--binding", setting).stderr.splitlines()
        assert told.endswith(seen)
    first, second = run("generate", nowhere, *here, "--binding", "region").stderr.splitlines()
    assert first.endswith(seen)
    assert "character_3 has no position that can be used" in second
    told = run(
        "generate", XML_PROMPT, "--negative", prompt, *here, "--cfg", "2", "--binding", "region"
    ).stderr
    assert "negative prompt, line 1" in told
    assert "(shared-position)" in told


def test_a_negative_prompt_needs_no_people(tiny_bundle: Path, tmp_path: Path) -> None:
    negative = "<general_tags><quality>worst_quality</quality></general_tags>"
    here = ("--model", str(tiny_bundle), "-o", str(tmp_path / "a.png"), "--cfg", "2")
    assert run("generate", XML_PROMPT, "--negative", negative, *here).stderr == ""


def test_the_flat_text_form_is_another_picture_recorded_and_replayed(
    drawn: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "flat.png"
    flat = (
        "--text-form",
        "flat",
        "--model",
        str(tiny_bundle),
        "--seed",
        "7",
        "--dtype",
        "fp32",
        "-o",
        str(out),
    )
    assert run("generate", XML_PROMPT, *flat).exit_code == 0
    record = read_picture(out)[1]
    assert record.request.text_form == "flat"
    assert record.pixels != read_picture(drawn)[1].pixels
    assert run("replay", str(out), "--model", str(tiny_bundle)).exit_code == 0
    wrong = run("generate", XML_PROMPT, "--text-form", "round", "-o", str(out))
    assert wrong.exit_code == 2
    assert "unknown text form 'round'; choose one of typed, flat" in wrong.stderr


def test_replay_says_what_differs_and_what_changed(drawn: Path, tiny_bundle: Path) -> None:
    done = run("replay", str(drawn), "--model", str(tiny_bundle), "--dtype", "bf16")
    assert done.exit_code == 1
    assert done.stdout.startswith("differs: ")
    assert "dtype fp32 → bf16" in done.stdout
    answer = json.loads(
        run("replay", str(drawn), "--model", str(tiny_bundle), "--dtype", "bf16", "--json").stdout
    )
    assert answer["identical"] is False
    assert 0 < answer["differing_pixels"] <= 1
    assert answer["changed_since"] == ["dtype fp32 → bf16"]


def test_replay_computes_with_the_recorded_number_of_threads(drawn: Path, tiny_bundle: Path) -> None:
    image, record = read_picture(drawn)
    before = torch.get_num_threads()
    recorded = replace(record, environment={**record.environment, "threads": str(before + 1)})
    drawn.write_bytes(encode_png(image, recorded))
    try:
        run("replay", str(drawn), "--model", str(tiny_bundle))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_replay_sees_a_retouched_picture(drawn: Path, tiny_bundle: Path) -> None:
    image, record = read_picture(drawn)
    image.putpixel((3, 4), tuple(255 - value for value in image.getpixel((3, 4))))  # type: ignore[union-attr]
    drawn.write_bytes(encode_png(image, record))
    done = run("replay", str(drawn), "--model", str(tiny_bundle))
    assert done.exit_code == 1
    assert "nothing that is recorded has changed" in done.stdout


def test_replay_without_its_bundle_says_which(drawn: Path) -> None:
    done = run("replay", str(drawn))
    assert done.exit_code == 2
    assert "'tiny'" in done.stderr


def test_how_far_pictures_are_apart() -> None:
    grey = PIL.Image.new("RGB", (10, 10), (100, 100, 100))
    other = grey.copy()
    other.putpixel((0, 0), (100, 90, 100))
    difference = compare(grey, other)
    assert difference is not None
    assert (difference.pixels, difference.largest) == (0.01, 10)
    assert math.isclose(difference.psnr, 10 * math.log10(255**2 / (100 / 300)))
    assert compare(grey, PIL.Image.new("RGB", (10, 11))) is None


def damaged(bundle: Path, folder: Path, kind: str) -> Path:
    shutil.copytree(bundle, folder)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    config = folder / "vae" / "config.json"
    match kind:
        case "missing weights":
            weights.unlink()
        case "truncated weights":
            weights.write_bytes(weights.read_bytes()[:-1000])
        case "misnamed weights":
            weights.rename(weights.with_name("weights.safetensors"))
        case "unknown key":
            config.write_text(config.read_text().replace("{", '{"colour": 1,', 1))
        case "no JSON":
            (folder / "newbie.json").write_text("{")
        case "missing folder":
            shutil.rmtree(folder / "tokenizer")
    return folder


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing weights", "transformer"),
        ("truncated weights", "diffusion_pytorch_model.safetensors"),
        ("misnamed weights", "weights.safetensors"),
        ("unknown key", "colour"),
        ("no JSON", "newbie.json"),
        ("missing folder", "tokenizer"),
    ],
)
def test_a_damaged_bundle_is_one_line(tiny_bundle: Path, tmp_path: Path, kind: str, said: str) -> None:
    folder = damaged(tiny_bundle, tmp_path / "copy", kind)
    done = run("generate", "1girl", "--model", str(folder), "--out", str(tmp_path / "a.png"))
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert not list(tmp_path.glob("*.png"))


def test_another_vae_by_its_name_is_recorded_and_replayed(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(5)
    vae().save_pretrained(str(tmp_path / "crisp"))
    registry = tmp_path / "vaes.toml"
    registry.write_text('[vae.crisp]\npath = "crisp"\n', encoding="utf-8")
    monkeypatch.setenv("NEWBIE_VAES", str(registry))
    path = tmp_path / "a.png"
    common = ("--model", str(tiny_bundle))
    done = run("generate", "1girl", *common, "--seed", "1", "--vae", "crisp", "-o", str(path))
    assert done.exit_code == 0, done.stderr
    environment = read_picture(path)[1].environment
    assert environment["vae"] == "crisp"
    assert environment["vae_hash"].startswith("sha256:")
    assert run("replay", str(path), *common).exit_code == 0
    registry.write_text('[vae.crisp]\npath = "crisp"\nscaling_factor = 0.2\n', encoding="utf-8")
    done = run("replay", str(path), *common)
    assert done.exit_code == 1
    assert "vae_hash" in done.stdout
    registry.write_text("", encoding="utf-8")
    done = run("replay", str(path), *common)
    assert done.exit_code == 2
    assert "--vae PATH" in done.stderr
    assert "crisp" in run("generate", "1girl", *common, "--vae", str(tmp_path / "crispy")).stderr
