"""Adapters on a whole pipeline: at work, scaled, fused and gone again, under every kind of offloading."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from newbie_image.bundle import content_hash, read_settings
from newbie_image.errors import CheckpointError, DeviceError, RequestError
from newbie_image.memory.plan import Plan
from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import GenerationRequest, PictureDone
from tests.adapters import write_lora

REQUEST = GenerationRequest("1girl, smile", "bad", width=32, height=32, seed=3, steps=2)
NORM = "layers.0.attention_norm1"


@pytest.fixture
def pipe(tiny_bundle: Path) -> NewbiePipeline:
    return NewbiePipeline.from_pretrained(tiny_bundle)


@pytest.fixture(scope="module")
def style(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tmp_path_factory.mktemp("adapters") / "style.safetensors", seed=1, norm=NORM)


@pytest.fixture(scope="module")
def light(style: Path) -> Path:
    return write_lora(style.parent / "light" / "adapter_model.safetensors", seed=2)


def drawn(pipe: NewbiePipeline, request: GenerationRequest = REQUEST) -> PictureDone:
    *_, last = pipe.stream(request)
    assert isinstance(last, PictureDone)
    return last


def latents(pipe: NewbiePipeline) -> torch.Tensor:
    found = drawn(pipe).latents
    assert found is not None
    return found


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_on_scaled_off_and_gone_to_the_bit(pipe: NewbiePipeline, style: Path, light: Path) -> None:
    plain = latents(pipe)
    assert pipe.load_lora_weights(style).lines() == []
    one = latents(pipe)
    assert distance(one, plain) > 1e-2
    pipe.load_lora_weights(light.parent, scale=0.5)
    both = latents(pipe)
    assert distance(both, one) > 1e-2
    assert pipe.get_list_adapters() == {"transformer": ["style", "light"]}

    pipe.set_adapters("style")
    assert pipe.get_active_adapters() == ["style"]
    assert torch.equal(latents(pipe), one)
    pipe.set_adapters(["light", "style"], [0.5, 1.0])
    assert torch.equal(latents(pipe), both)
    pipe.set_adapters(["style", "light"], 0.0)
    assert torch.equal(latents(pipe), plain)
    pipe.unload_lora_weights("light")
    pipe.set_adapters("style")
    assert torch.equal(latents(pipe), one)
    pipe.unload_lora_weights()
    assert pipe.adapters == ()
    assert pipe.get_list_adapters() == {}
    assert torch.equal(latents(pipe), plain)


def test_fused_differs_by_rounding_and_leaves_to_the_bit(
    pipe: NewbiePipeline, style: Path, light: Path, tiny_bundle: Path
) -> None:
    before = content_hash(tiny_bundle)
    plain = latents(pipe)
    pipe.load_lora_weights(style, "a", 0.7)
    beside = latents(pipe)
    pipe.fuse_lora()
    fused = latents(pipe)
    assert distance(fused, beside) < 1e-4
    pipe.load_lora_weights(light, "b")
    pipe.set_adapters(["a", "b"], [0.7, 0.0])
    assert torch.equal(latents(pipe), fused)
    pipe.unfuse_lora()
    assert torch.equal(latents(pipe), beside)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    assert torch.equal(latents(pipe), plain)
    assert content_hash(tiny_bundle) == before  # weights are mapped from these files


@pytest.mark.parametrize("fused", [False, True])
def test_under_every_plan_the_picture_is_the_same_to_the_bit(
    pipe: NewbiePipeline, style: Path, light: Path, fused: bool
) -> None:
    plain = latents(pipe)
    pipe.load_lora_weights(style)
    one = latents(pipe)
    pipe.load_lora_weights(light)
    if fused:
        pipe.fuse_lora()
    both = latents(pipe)
    pipe.offload("encoders", "cpu")
    assert torch.equal(latents(pipe), both)
    pipe.apply_plan(Plan("blocks", 1), "cpu")  # adapters come before the blocks are streamed …
    assert torch.equal(latents(pipe), both)
    pipe.unfuse_lora()
    pipe.unload_lora_weights("light")  # … and go while they are
    assert torch.equal(latents(pipe), one)
    pipe.unload_lora_weights()
    assert torch.equal(latents(pipe), plain)
    pipe.offload("blocks", "cpu")
    pipe.load_lora_weights(style)
    pipe.load_lora_weights(light)
    if fused:
        pipe.fuse_lora()
    assert torch.equal(latents(pipe), both)
    pipe.offload("none", "cpu")
    assert torch.equal(latents(pipe), both)
    pipe.unload_lora_weights()
    assert torch.equal(latents(pipe), plain)


def test_a_plan_counts_what_runs_beside_the_weights(pipe: NewbiePipeline, style: Path) -> None:
    before = pipe.sizes().transformer.weights
    pipe.load_lora_weights(style)
    numbers = sum(u.numel() for n, u in pipe.transformer.named_buffers() if "adapter_updates" in n)
    assert numbers > 1000
    assert pipe.sizes().transformer.weights == before + numbers
    pipe.fuse_lora()
    assert pipe.sizes().transformer.weights == before


def test_the_factors_follow_a_cast_from_their_file(
    pipe: NewbiePipeline, tiny_bundle: Path, style: Path
) -> None:
    pipe.load_lora_weights(style, scale=0.7)
    pipe.to(torch.bfloat16)
    half = NewbiePipeline.from_pretrained(tiny_bundle, torch_dtype=torch.bfloat16)
    half.load_lora_weights(style, scale=0.7)
    assert torch.equal(latents(pipe), latents(half))


def test_pictures_say_what_was_at_work(pipe: NewbiePipeline, style: Path, light: Path) -> None:
    (light.parent / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 4}')
    pipe.load_lora_weights(style, scale=0.25)
    pipe.load_lora_weights(light.parent, "glow")
    first, second = drawn(pipe).images[0].settings["adapters"]
    assert (first.name, first.file, first.scale, first.fused) == ("style", "style.safetensors", 0.25, False)
    assert first.sha256 == hashlib.sha256(style.read_bytes()).hexdigest()
    assert first.config_sha256 is None
    assert (second.name, second.file) == ("glow", "light/adapter_model.safetensors")
    config = (light.parent / "adapter_config.json").read_bytes()
    assert second.config_sha256 == hashlib.sha256(config).hexdigest()
    pipe.set_adapters("glow", -1)
    pipe.fuse_lora()
    (only,) = drawn(pipe).images[0].settings["adapters"]
    assert (only.name, only.scale, only.fused) == ("glow", -1.0, True)


def test_no_change_while_a_picture_is_drawn(pipe: NewbiePipeline, style: Path) -> None:
    plain = latents(pipe)
    pipe.load_lora_weights(style)
    changed = latents(pipe)
    events = pipe.stream(REQUEST)
    next(events)
    next(events)
    for change in (pipe.unload_lora_weights, pipe.fuse_lora, lambda: pipe.set_adapters("style", 0.5)):
        with pytest.raises(RequestError, match=r"while a picture is being drawn.*close\(\)"):
            change()
    *_, last = events
    assert torch.equal(last.latents, changed)
    events = pipe.stream(REQUEST)
    next(events)
    events.close()
    pipe.unload_lora_weights()
    assert torch.equal(latents(pipe), plain)


def test_mistakes_are_named_and_change_nothing(pipe: NewbiePipeline, style: Path, tmp_path: Path) -> None:
    plain = latents(pipe)
    other = write_lora(tmp_path / "other.safetensors", layers=("layers.0.attention.out",))
    other.write_bytes(other.read_bytes().replace(b"layers.0.attention.out", b"layers.9.attention.out"))
    with pytest.raises(CheckpointError, match=r"other changes no layer of this model: none of its 3 keys"):
        pipe.load_lora_weights(other)
    with pytest.raises(CheckpointError, match="does not exist"):
        pipe.load_lora_weights(style.parent, weight_name="nothing.safetensors")
    with pytest.raises(RequestError, match="nothing to fuse"):
        pipe.fuse_lora()
    with pytest.raises(RequestError, match="no adapter 'style' is loaded; loaded are: none"):
        pipe.set_adapters("style")
    pipe.load_lora_weights(style.parent, weight_name=style.name)
    for scale in (float("nan"), 1000.0, "strong", True):
        with pytest.raises(RequestError, match="a number from -100 to 100"):
            pipe.set_adapters("style", scale)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="2 weights for 1 adapters"):
        pipe.set_adapters(["style"], [1.0, 2.0])
    with pytest.raises(RequestError, match="loaded already"):
        pipe.load_lora_weights(style, "style")
    pipe.unload_lora_weights("style")
    assert torch.equal(latents(pipe), plain)


def test_weights_that_are_away_are_said(pipe: NewbiePipeline, style: Path) -> None:
    pipe.transformer.to("meta")
    with pytest.raises(DeviceError, match=r"offload\('blocks'\)"):
        pipe.load_lora_weights(style)


def test_saving_writes_fused_adapters_and_refuses_others(
    pipe: NewbiePipeline, style: Path, tmp_path: Path
) -> None:
    pipe.load_lora_weights(style)
    with pytest.raises(RequestError, match=r"style.*fuse_lora\(\) first"):
        pipe.save_pretrained(tmp_path / "saved")
    pipe.fuse_lora()
    pipe.save_pretrained(tmp_path / "saved")
    assert read_settings(tmp_path / "saved").name == "tiny+style"
    assert torch.equal(latents(NewbiePipeline.from_pretrained(tmp_path / "saved")), latents(pipe))
