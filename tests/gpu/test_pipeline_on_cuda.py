"""The pipeline on a CUDA device: the same picture as on the CPU, offloading, cancelling and running out."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from newbie_image.devices import choose_device
from newbie_image.errors import OutOfMemoryError
from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import GenerationRequest
from tests.adapters import write_lora
from tests.tiny import XML_PROMPT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
TWO_CHARACTERS = (
    "<character_1><appearance>blue_hair</appearance><position>left</position></character_1>"
    "<character_2><appearance>red_hair</appearance><position>right</position></character_2>"
    "<general_tags><count>2girls</count></general_tags>"
)
REQUEST = GenerationRequest(XML_PROMPT, "bad", width=64, height=32, seed=2)


def latents(pipe: NewbiePipeline) -> torch.Tensor:
    *_, last = pipe.stream(REQUEST)
    return last.latents


def test_the_picture_is_that_of_the_cpu(tiny_bundle: Path) -> None:
    pipe = NewbiePipeline.from_pretrained(tiny_bundle)
    on_cpu = latents(pipe)
    pipe.to("cuda")
    torch.testing.assert_close(latents(pipe), on_cpu, rtol=1e-2, atol=1e-2)
    again = latents(pipe)
    assert torch.equal(again, latents(pipe))


@pytest.mark.parametrize("mode", ["encoders", "model"])
def test_offloading_changes_no_picture_and_leaves_the_device(tiny_bundle: Path, mode: str) -> None:
    pipe = NewbiePipeline.from_pretrained(tiny_bundle).to("cuda")
    plain = latents(pipe)
    pipe.offload(mode, "cuda")
    assert torch.equal(latents(pipe), plain)
    parts = [pipe.text_encoder, pipe.clip_model]
    if mode == "model":
        parts += [pipe.transformer, pipe.vae]
    assert {parameter.device.type for part in parts for parameter in part.parameters()} == {"cpu"}


@pytest.mark.parametrize("kind", ["fp8", "int8", "int4"])
def test_quantised_weights_move_with_every_offloading(tiny_bundle: Path, kind: str) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed")
    pipe = NewbiePipeline.from_pretrained(tiny_bundle, quantisation=kind, encoder_quantisation="int8")
    on_cpu = latents(pipe)
    plain = latents(pipe.to("cuda"))
    torch.testing.assert_close(plain, on_cpu, rtol=1e-2, atol=1e-2)
    for mode in ("encoders", "model", "blocks", "none"):
        pipe.offload(mode, "cuda")
        assert torch.equal(latents(pipe), plain), mode


def test_cancelling_leaves_no_memory_behind(tiny_bundle: Path) -> None:
    pipe = NewbiePipeline.from_pretrained(tiny_bundle).to("cuda")
    latents(pipe)
    gc.collect()
    before = torch.cuda.memory_allocated()
    events = pipe.stream(REQUEST)
    next(events)
    step = next(events)
    assert torch.cuda.memory_allocated() > before
    events.close()
    del step, events
    gc.collect()
    assert torch.cuda.memory_allocated() == before


def test_running_out_is_said_and_the_process_goes_on(tiny_bundle: Path) -> None:
    pipe = NewbiePipeline.from_pretrained(tiny_bundle).to("cuda")
    plain = latents(pipe)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total + 2e7 / total)
    try:
        with pytest.raises(OutOfMemoryError, match="tiled decoding"):
            list(pipe.stream(GenerationRequest(XML_PROMPT, width=512, height=512, count=16, batch=16)))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.equal(latents(pipe), plain)


def test_bf16_is_chosen_where_it_is_native() -> None:
    choice = choose_device()
    native = torch.cuda.get_device_capability() >= (8, 0)
    assert choice.device.type == "cuda"
    assert choice.dtype == (torch.bfloat16 if native else torch.float16)


@pytest.mark.parametrize("mode", ["none", "encoders", "model", "blocks"])
def test_adapters_come_and_go_under_offloading(tiny_bundle: Path, tmp_path: Path, mode: str) -> None:
    style = write_lora(tmp_path / "style.safetensors", norm="layers.0.attention_norm1")
    pipe = NewbiePipeline.from_pretrained(tiny_bundle).to("cuda")
    plain = latents(pipe)
    pipe.load_lora_weights(style)
    adapted = latents(pipe)
    pipe.offload(mode, "cuda")
    assert torch.equal(latents(pipe), adapted)
    pipe.fuse_lora()
    torch.testing.assert_close(latents(pipe), adapted, rtol=1e-2, atol=1e-2)
    pipe.unload_lora_weights()
    assert torch.equal(latents(pipe), plain)
    pipe.load_lora_weights(style)
    assert torch.equal(latents(pipe), adapted)


@pytest.mark.parametrize("mode", ["encode", "region", "full", "sealed"])
def test_a_bound_picture_is_that_of_the_cpu(tiny_bundle: Path, mode: str) -> None:
    request = replace(REQUEST, prompt=TWO_CHARACTERS, binding=mode)
    pipe = NewbiePipeline.from_pretrained(tiny_bundle)
    *_, on_cpu = pipe.stream(request)
    pipe.to("cuda")
    *_, on_cuda = pipe.stream(request)
    torch.testing.assert_close(on_cuda.latents, on_cpu.latents, rtol=1e-2, atol=1e-2)
