"""A whole pipeline with quantised weights: drawn, recorded, made again, with adapters, and refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from newbie_image.cli.app import app
from newbie_image.errors import CheckpointError, RequestError
from newbie_image.memory.plan import Plan
from newbie_image.pipeline import NewbiePipeline
from newbie_image.provenance import read_picture
from newbie_image.request import GenerationRequest, PictureDone
from tests.adapters import write_lora

pytest.importorskip("torchao", reason="torchao is not installed: pip install 'newbie-image[quant]'")
REQUEST = GenerationRequest("1girl, smile", "bad", width=32, height=32, seed=3, steps=2)


def latents(pipe: NewbiePipeline) -> torch.Tensor:
    *_, last = pipe.stream(REQUEST)
    assert isinstance(last, PictureDone)
    assert last.latents is not None
    return last.latents


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_drawn_with_adapters_and_under_offloading(tiny_bundle: Path, tmp_path: Path) -> None:
    plain = latents(NewbiePipeline.from_pretrained(tiny_bundle))
    pipe = NewbiePipeline.from_pretrained(tiny_bundle, quantisation="int8", encoder_quantisation="fp8")
    assert (pipe.quantisation, pipe.encoder_quantisation) == ("int8", "fp8")
    assert pipe.sizes().transformer.quantised == "int8"
    whole = latents(pipe)
    assert 1e-4 < float((whole - plain).norm() / plain.norm()) < 0.1
    pipe.apply_plan(Plan("blocks", 1))
    assert torch.equal(latents(pipe), whole)
    pipe.offload("encoders")
    assert torch.equal(latents(pipe), whole)
    # Beside the weights an adapter works as ever; into them it cannot go.
    style = write_lora(tmp_path / "style.safetensors", seed=1)
    pipe.load_lora_weights(style)
    adapted = latents(pipe)
    assert not torch.allclose(adapted, whole, rtol=1e-2)
    with pytest.raises(CheckpointError, match="quantised"):
        pipe.fuse_lora()
    assert torch.equal(latents(pipe), adapted)
    pipe.unload_lora_weights()
    assert torch.equal(latents(pipe), whole)


def test_what_cannot_be_done_to_them(tiny_bundle: Path, tmp_path: Path) -> None:
    pipe = NewbiePipeline.from_pretrained(tiny_bundle, quantisation="fp8")
    with pytest.raises(RequestError, match="cannot be cast"):
        pipe.to(torch.bfloat16)
    pipe.to("cpu", torch.float32)
    with pytest.raises(RequestError, match="no layout here holds"):
        pipe.save_pretrained(tmp_path / "saved")
    with pytest.raises(RequestError, match="load it again"):
        pipe.quantise("int8")
    other = NewbiePipeline.from_pretrained(tiny_bundle)
    other.load_lora_weights(write_lora(tmp_path / "style.safetensors", seed=1))
    other.fuse_lora()
    with pytest.raises(RequestError, match="unfuse_lora"):
        other.quantise("int8")
    other.unfuse_lora()
    with pytest.raises(RequestError, match="rows of 16"):
        other.quantise("int8", "int4")
    assert other.quantised_with == {}
    with pytest.raises(RequestError, match="'int2'"):
        other.quantise("int2")


def test_recorded_and_replayed(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    common = ["--model", str(tiny_bundle), "--device", "cpu"]
    drawn = run(
        "generate", "1girl", "--seed", "3", "--dtype", "fp32", "-o", str(path), "--quantise", "int4", *common
    )
    assert drawn.exit_code == 0, drawn.stderr
    environment = read_picture(path)[1].environment
    assert environment["quantise"] == "int4"
    assert "torchao" in environment
    assert "quantise_encoders" not in environment
    again = run("replay", str(path), *common)
    assert again.exit_code == 0, again.stderr
    assert again.stdout.startswith("identical")
    other = run("replay", str(path), "--quantise", "none", *common)
    assert other.exit_code == 1
    assert "quantise int4 → none" in other.stdout
    refused = run("generate", "1girl", "--dtype", "fp16", "--quantise", "int8", *common)
    assert refused.exit_code == 2
    assert "fp16" in refused.stderr
    unknown = run("generate", "1girl", "--quantise", "int3", *common)
    assert unknown.exit_code == 2
    assert "none, fp8, int8, int4" in unknown.stderr


def test_plan_and_info_know_them() -> None:
    plan = ["plan", "--vram", "6GB"]
    plain, int8 = run(*plan), run(*plan, "--quantise", "int8", "--quantise-encoders", "int8")
    assert "16-bit weights, 6.00 GB" in plain.stdout
    assert "int8 in the transformer's blocks, int8 in the encoders" in int8.stdout
    assert int8.stdout.rstrip().endswith("--quantise int8 --quantise-encoders int8")
    assert "leave it or the quantisation out" in run(*plan, "--track", "--quantise", "int8").stderr
    info = run("info", "--device", "cpu", "--dtype", "fp16")
    assert "none, encoders none: fp8, int4 work here" in info.stdout
