"""Adapters merged into a model's files: every kind, every layout, said in the files, and refused by name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from newbie_image.bundle import content_hash
from newbie_image.checkpoints.adapters import merge_adapters
from newbie_image.checkpoints.convert import WRITTEN, convert
from newbie_image.checkpoints.merging import merge_into_files
from newbie_image.checkpoints.opening import open_model
from newbie_image.checkpoints.recognise import recognise
from newbie_image.cli.app import app
from newbie_image.errors import CheckpointError, OutputError, RequestError
from tests import tiny
from tests.adapters import LAYERS, write_lora

SHORT = ["attention.qkv", "attention.out", "feed_forward.w2", "time_text_embed.1", "adaLN_modulation.1"]
KINDS = {
    "lora": peft.LoraConfig(r=3, lora_alpha=6, target_modules=SHORT),
    "lokr": peft.LoKrConfig(r=2, alpha=4, target_modules=SHORT),
    "loha": peft.LoHaConfig(r=2, alpha=3, target_modules=SHORT),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of each kind: peft's three in folders, a LyCORIS norm, a full difference."""
    place = tmp_path_factory.mktemp("kinds")
    for name, config in KINDS.items():
        adapted = peft.get_peft_model(tiny.transformer(), config)
        torch.manual_seed(4)
        with torch.no_grad():
            for key, parameter in adapted.named_parameters():
                if any(mark in key for mark in ("lora_", "lokr_", "hada_")):
                    parameter.normal_(std=0.2)
        adapted.save_pretrained(place / name)
    write_lora(place / "norm.safetensors", norm="layers.0.ffn_norm1")
    shape = tiny.transformer().get_parameter("layers.1.attention.out.weight").shape
    save_file({"lycoris_layers_1_attention_out.diff": torch.randn(shape)}, place / "full.safetensors")
    return place


def transformer_file(model: Path) -> Path:
    return next(file for file in model.rglob("*.safetensors") if "transformer" in str(file) or
                "diffusion_models" in str(file))  # fmt: skip


def history(model: Path) -> list[dict[str, object]]:
    with safe_open(transformer_file(model), "pt") as opened:
        return json.loads(opened.metadata().get("newbie_merged", "[]"))


@pytest.mark.parametrize("layout", WRITTEN)
def test_every_kind_into_every_layout_to_the_bit(
    tiny_bundle: Path, folder: Path, tmp_path: Path, layout: str
) -> None:
    adapters: list[tuple[str | Path, float]] = [(folder / "lora", 0.5), (folder / "lokr", -1.0)]
    adapters += [
        (folder / "loha", 0.3),
        (folder / "norm.safetensors", 1.0),
        (folder / "full.safetensors", 0.2),
    ]
    before = content_hash(tiny_bundle)
    report = merge_into_files(recognise(tiny_bundle), adapters, tmp_path / "merged", layout)
    assert all(file.is_file() for file in report.files)
    assert report.dtypes == ("fp32",)
    assert report.rounding < 1e-6
    expected = open_model(tiny_bundle).components["transformer"]
    plain = {name: value.clone() for name, value in expected.state_dict().items()}
    merge_adapters(expected, adapters)
    merged = open_model(tmp_path / "merged")
    changed = 0
    for name, value in expected.state_dict().items():
        if name != "norm_final.weight":
            assert torch.equal(merged.components["transformer"].state_dict()[name], value), name
            changed += not torch.equal(value, plain[name])
    assert changed == report.weights > 10
    assert merged.settings.name == "tiny+lora+lokr+loha+norm+full"
    assert recognise(tmp_path / "merged").layout == layout
    assert [(entry["file"], entry["scale"]) for entry in history(tmp_path / "merged")] == [
        ("lora/adapter_model.safetensors", 0.5),
        ("lokr/adapter_model.safetensors", -1.0),
        ("loha/adapter_model.safetensors", 0.3),
        ("norm.safetensors", 1.0),
        ("full.safetensors", 0.2),
    ]
    assert content_hash(tiny_bundle) == before != content_hash(tmp_path / "merged")


def test_the_files_keep_saying_it(tiny_bundle: Path, folder: Path, tmp_path: Path) -> None:
    norm = folder / "norm.safetensors"
    merge_into_files(recognise(tiny_bundle), [(norm, 0.5)], tmp_path / "once")
    merge_into_files(recognise(tmp_path / "once"), [(folder / "full.safetensors", 2.0)], tmp_path / "twice")
    convert(recognise(tmp_path / "twice"), tmp_path / "other", "diffusers")
    said = [(entry["name"], entry["scale"]) for entry in history(tmp_path / "other")]
    assert said == [("norm", 0.5), ("full", 2.0)]
    assert history(tmp_path / "other")[0]["sha256"] == hashlib.sha256(norm.read_bytes()).hexdigest()
    assert history(tiny_bundle) == []
    done = run("inspect", str(tmp_path / "other"))
    assert "adapters in its weights: norm.safetensors × 0.5, full.safetensors × 2.0" in done.stdout


def test_a_dtype_rounds_once_and_says_how_much(tiny_bundle: Path, folder: Path, tmp_path: Path) -> None:
    pair: list[tuple[str | Path, float]] = [(folder / "norm.safetensors", 0.01)]
    report = merge_into_files(recognise(tiny_bundle), pair, tmp_path / "half", dtype=torch.bfloat16)
    assert report.dtypes == ("bf16",)
    assert 1e-3 < report.rounding < 1
    whole = open_model(tiny_bundle).components["transformer"]
    merge_adapters(whole, pair)
    half = open_model(tmp_path / "half").components["transformer"].state_dict()
    assert all(torch.equal(half[name], value.bfloat16()) for name, value in whole.state_dict().items())

    convert(recognise(tiny_bundle), tmp_path / "from_half", "newbie", torch.bfloat16)
    again = merge_into_files(recognise(tmp_path / "from_half"), pair, tmp_path / "kept")
    assert again.dtypes == ("bf16",)  # each tensor keeps its own


def test_what_would_be_lost_is_refused_and_nothing_is_left(
    tiny_bundle: Path, folder: Path, tmp_path: Path
) -> None:
    norm = folder / "norm.safetensors"
    model = recognise(tiny_bundle)
    target = tmp_path / "out"
    layer = LAYERS[0]
    tensors = load_file(write_lora(tmp_path / "huge.safetensors", layers=(layer,)))
    tensors[f"{layer}.alpha"] = torch.tensor(1e9)
    save_file(tensors, tmp_path / "huge.safetensors")
    with pytest.raises(CheckpointError, match=rf"{layer}.weight holds infinity .* in fp16 .* --dtype bf16"):
        merge_into_files(model, [(tmp_path / "huge.safetensors", 1.0)], target, dtype=torch.float16)
    with pytest.raises(RequestError, match="nothing to merge"):
        merge_into_files(model, [], target)
    comfy = tmp_path / "comfy"
    convert(model, comfy, "comfyui")
    with pytest.raises(CheckpointError, match="has no transformer to merge"):
        merge_into_files(recognise(comfy / "vae" / "ae.safetensors"), [(norm, 1.0)], target)
    file = comfy / "diffusion_models" / "NewBie-image.safetensors"
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    small = {name: value.to(torch.float8_e4m3fn) for name, value in load_file(file).items()}
    save_file(small, file, metadata)
    with pytest.raises(CheckpointError, match=r"float8_e4m3fn, in which most .* --dtype bf16"):
        merge_into_files(recognise(comfy), [(norm, 1.0)], target)
    assert not target.exists()
    assert not list(tmp_path.glob(".*partial"))
    assert merge_into_files(recognise(comfy), [(norm, 1.0)], target, dtype=torch.bfloat16).weights == 6
    with pytest.raises(OutputError, match="is there already"):
        merge_into_files(model, [(norm, 1.0)], target)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["weights", *arguments])


def test_from_the_command_line(tiny_bundle: Path, folder: Path, tmp_path: Path) -> None:
    lora, out = folder / "lora", tmp_path / "merged"
    both = ("--lora", f"{lora}:0.5", "--lora", str(folder / "norm.safetensors"))
    done = run("merge", str(tiny_bundle), *both, "--out", str(out), "--dtype", "bf16", "--to", "comfyui")
    assert done.exit_code == 0, done.stderr
    assert all(Path(line).is_file() for line in done.stdout.splitlines())
    assert "weights changed and rounded once to bf16; rounding is " in done.stderr
    assert run("verify", str(out)).exit_code == 0
    done = run("merge", str(out), "--lora", str(lora), "--out", str(tmp_path / "again"), "--json")
    assert json.loads(done.stdout)["adapters"] == ["lora"]
    assert recognise(tmp_path / "again").layout == "comfyui"
    new = ("--out", str(tmp_path / "new"))
    alien = write_lora(tmp_path / "alien.safetensors", layers=("layers.0.attention.out",))
    alien.write_bytes(alien.read_bytes().replace(b"layers.0.attention", b"blocks.0.attention"))
    for arguments, said in (
        ((str(tiny_bundle), "--lora", f"{lora}:lots", *new), "scale 'lots'"),
        ((str(tiny_bundle), "--lora", str(tmp_path / "no.safetensors"), *new), "does not exist"),
        ((str(tiny_bundle), "--lora", str(alien), *new), "none of its 3 keys fits"),
        ((str(tiny_bundle), "--lora", str(lora), *new, "--to", "gguf"), "'gguf' is not written"),
        ((str(tiny_bundle), "--lora", str(lora), *new, "--dtype", "int3"), "unknown dtype 'int3'"),
        (("no-such-model", "--lora", str(lora), *new), "no-such-model"),
        ((str(tiny_bundle), "--lora", str(lora), "--out", str(out)), "is there already"),
    ):
        done = run("merge", *arguments)
        assert done.exit_code == 2
        assert len(done.stderr.splitlines()) == 1
        assert said in done.stderr
    assert not (tmp_path / "new").exists()
