"""One file or folder alone: each part and adapter, sound and not, and what is said to be missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from newbie_image.bundle import find_bundle
from newbie_image.checkpoints.convert import convert
from newbie_image.checkpoints.recognise import recognise
from newbie_image.checkpoints.single_part import is_single, verify_part
from newbie_image.cli.app import app
from newbie_image.errors import CheckpointError
from newbie_image.models.next_dit import NextDiT

SINGLE = {
    "transformer": "diffusion_models/NewBie-image.safetensors",
    "text_encoder": "text_encoders/gemma_3_4b_it.safetensors",
    "clip_model": "text_encoders/jina_clip_v2.safetensors",
    "vae": "vae/ae.safetensors",
}


@pytest.fixture(scope="module")
def comfyui(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("single") / "comfyui"
    convert(recognise(tiny_bundle), target, "comfyui")
    return target


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A LoRA for the published transformer's first block, as PEFT names it."""
    stem = "base_model.model.layers.0.attention.out"
    folder = tmp_path / "adapter"
    folder.mkdir()
    factors = {f"{stem}.lora_A.weight": torch.ones(4, 2304), f"{stem}.lora_B.weight": torch.ones(2304, 4)}
    save_file(factors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    return folder


def said(*arguments: str | Path) -> tuple[int, str, str]:
    answer = CliRunner().invoke(app, ["weights", "verify", *map(str, arguments)])
    assert "Traceback" not in answer.output
    return answer.exit_code, answer.stdout, answer.stderr


@pytest.mark.parametrize("part", SINGLE)
def test_a_single_file_is_sound_by_itself(comfyui: Path, part: str) -> None:
    file = next(comfyui.rglob(Path(SINGLE[part]).name.replace(".safetensors", "*.safetensors")))
    code, out, err = said(file)
    assert code == 0, err
    assert out.startswith(f"{file}: {part} (")
    assert "sound" in out
    assert err == ""


@pytest.mark.parametrize("part", SINGLE)
def test_a_folder_of_one_part_is_read_with_its_config(tiny_bundle: Path, part: str) -> None:
    assert is_single(tiny_bundle / part)
    verdict = verify_part(tiny_bundle / part)
    assert (verdict.kind, verdict.wrong, verdict.notes) == (part, (), ())
    file = next((tiny_bundle / part).glob("*.safetensors"))
    assert verify_part(file).wrong == ()


def test_a_model_is_no_single_part(tiny_bundle: Path, comfyui: Path) -> None:
    assert not is_single(tiny_bundle)
    assert not is_single(comfyui)


def test_an_autoencoder_of_another_class_needs_the_config_beside_it(tmp_path: Path) -> None:
    file = find_bundle("nano") / "vae" / "diffusion_pytorch_model.safetensors"
    assert verify_part(file).wrong == ()
    alone = Path(shutil.copy(file, tmp_path))
    code, _, err = said(alone)
    assert code == 2
    assert "give its folder with the config" in err
    assert err.count("\n") == 1


def test_what_is_missing_is_the_reason(tiny_bundle: Path, tmp_path: Path) -> None:
    state = load_file(tiny_bundle / "transformer" / "diffusion_pytorch_model.safetensors")
    del state["layers.0.ffn_norm1.weight"]
    save_file(state, tmp_path / "t.safetensors")
    (tmp_path / "config.json").write_text((tiny_bundle / "transformer" / "config.json").read_text())
    code, _, err = said(tmp_path / "t.safetensors")
    assert code == 2
    assert "(transformer)" in err
    assert "1 missing (layers.0.ffn_norm1.weight)" in err
    shard = find_bundle("nano") / "transformer" / "diffusion_pytorch_model-00001-of-00003.safetensors"
    code, _, err = said(shard)
    assert code == 2
    assert "give the folder" in err
    code, _, err = said(tmp_path / "no.safetensors")
    assert code == 2
    assert "no.safetensors" in err


def test_a_text_encoder_without_tokenizer_is_sound_and_says_what_it_needs(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_bundle / "text_encoder", tmp_path / "gemma"))
    code, out, err = said(folder)
    assert code == 0
    assert "sound" in out
    assert err.count("\n") == 1
    assert "tokenizer.json" in err
    shutil.copy(tiny_bundle / "tokenizer" / "tokenizer.json", folder)
    assert said(folder)[2] == ""


def test_values_are_read(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle / "clip_model", tmp_path / "clip_model"))
    file = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["emb_ln.weight"][0] = float("nan")
    save_file(state, file)
    assert verify_part(folder).wrong == (
        "emb_ln.weight holds NaN; the file is damaged or was trained to death: take another",
    )


def test_an_adapter_alone_is_checked_against_the_published_transformer(adapter: Path) -> None:
    code, out, err = said(adapter)
    assert (code, err) == (0, "")
    assert out == f"{adapter}: adapter, sound; no checksums known\n"
    file = adapter / "adapter_model.safetensors"
    state = load_file(file)
    stem = "base_model.model.layers.0.attention.out"
    save_file({f"{stem}.lora_A.weight": state[f"{stem}.lora_A.weight"]}, file)
    code, _, err = said(adapter)
    assert code == 2
    assert "lora_A" in err
    state[f"{stem}.lora_B.weight"][0, 0] = float("inf")
    save_file(state, file)
    code, _, err = said(file)
    assert code == 2
    assert "lora_B.weight holds infinity" in err


def test_an_adapter_for_another_transformer_is_checked_against_that_one(
    adapter: Path, tmp_path: Path
) -> None:
    wide = NextDiT(
        dim=96, n_layers=1, n_refiner_layers=1, n_heads=4, n_kv_heads=2, multiple_of=32, axes_dims=(8, 8, 8)
    )
    wide.save_pretrained(str(tmp_path / "transformer"))
    code, _, err = said(adapter, "--transformer", tmp_path / "transformer")
    assert code == 2
    assert "the layer needs 96×96" in err
    assert str(tmp_path / "transformer") in err
    stem = "lora_unet_layers_0_attention_out"
    factors = {
        f"{stem}.lora_down.weight": torch.ones(4, 96),
        f"{stem}.lora_up.weight": torch.ones(96, 4),
        f"{stem}.alpha": torch.tensor(4.0),
    }
    save_file(factors, tmp_path / "small.safetensors")
    assert said(tmp_path / "small.safetensors", "--transformer", tmp_path / "transformer")[0] == 0
    code, _, err = said(tmp_path / "small.safetensors")
    assert code == 2
    assert "--transformer PATH" in err


def test_an_all_in_one_checkpoint_is_refused_by_the_names_beside_the_transformer(tmp_path: Path) -> None:
    """ComfyUI's CheckpointSave with text encoders and VAE, around a transformer that it saved itself."""
    fixtures = Path(__file__).parents[1] / "parity" / "fixtures" / "layouts"
    together = load_file(fixtures / "comfyui.safetensors")
    together |= {"vae.decoder.conv_in.weight": torch.ones(2), "text_encoders.jina.logit_scale": torch.ones(2)}
    save_file(together, tmp_path / "all.safetensors")
    wrong = verify_part(tmp_path / "all.safetensors").wrong
    assert len(wrong) == 1
    assert "2 unexpected" in wrong[0]
    assert "vae.decoder.conv_in.weight" in wrong[0]


def test_something_else_is_named_by_what_is_in_it(tmp_path: Path) -> None:
    save_file({"down_blocks.0.weight": torch.ones(2)}, tmp_path / "unet.safetensors")
    with pytest.raises(CheckpointError, match=r"nor an adapter; its tensors are down_blocks\.0\.weight"):
        verify_part(tmp_path / "unet.safetensors")
