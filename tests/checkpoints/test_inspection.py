"""What a checkpoint is said to be, and every kind of unsoundness found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from newbie_image.checkpoints.inspection import describe, verify
from newbie_image.checkpoints.opening import open_model
from newbie_image.checkpoints.recognise import recognise


@pytest.fixture
def copy(tmp_path: Path, tiny_bundle: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def test_parts_are_described_from_their_headers(tiny_bundle: Path) -> None:
    reports = {report.name: report for report in describe(recognise(tiny_bundle))}
    assert set(reports) == {"transformer", "text_encoder", "clip_model", "vae"}
    file = tiny_bundle / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    transformer = reports["transformer"]
    assert transformer.parameters == sum(value.numel() for value in state.values())
    assert transformer.tensors == len(state)
    assert transformer.dtypes == {"fp32": len(state)}
    assert transformer.size == file.stat().st_size
    assert transformer.config == "file"


def test_a_sound_model_has_nothing_to_say(tiny_bundle: Path) -> None:
    assert list(verify(recognise(tiny_bundle))) == []


def test_all_that_is_wrong_is_told_at_once(copy: Path) -> None:
    file = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["layers.0.ffn_norm1.weight"][3] = float("nan")
    state["x_embedder.bias"][0] = float("inf")
    save_file(state, file)
    jina = copy / "clip_model" / "diffusion_pytorch_model.safetensors"
    state = load_file(jina)
    state["emb_norm.weight"] = state.pop("emb_ln.weight")
    save_file(state, jina)
    (copy / "tokenizer" / "tokenizer.json").unlink()
    shutil.rmtree(copy / "vae")
    lines = list(verify(recognise(copy)))
    assert all("\n" not in line for line in lines)
    for words in (
        ("vae: missing",),
        ("transformer: layers.0.ffn_norm1.weight holds NaN",),
        ("transformer: x_embedder.bias holds infinity",),
        ("clip_model:", "1 missing (emb_ln.weight)"),
        ("text_encoder: its tokenizer is missing",),
    ):
        assert any(all(word in line for word in words) for line in lines), words


def test_tensors_of_whole_numbers_are_unsound(copy: Path) -> None:
    file = copy / "clip_model" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["emb_ln.weight"] = state["emb_ln.weight"].to(torch.int8)
    save_file(state, file)
    assert any(
        "1 of no floating point dtype (emb_ln.weight int8)" in line for line in verify(recognise(copy))
    )


def test_what_verify_calls_sound_is_loaded_also_as_a_pickle_and_a_wrong_name_by_neither(copy: Path) -> None:
    folder = copy / "clip_model"
    file = folder / "diffusion_pytorch_model.safetensors"
    wanted = load_file(file)
    file.rename(folder / "weights.safetensors")
    assert any("rename it" in line for line in verify(recognise(copy)))
    (folder / "weights.safetensors").unlink()
    torch.save(wanted, folder / "pytorch_model.bin")
    assert list(verify(recognise(copy))) == []
    loaded = open_model(copy).components["clip_model"].state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in wanted.items())
