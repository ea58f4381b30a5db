"""Quantised weights: how exact, how large, streamed to the bit, and refused where they do not work."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from newbie_image.errors import DeviceError, MissingDependencyError, RequestError
from newbie_image.memory.offload import stage_components
from newbie_image.memory.plan import Workload, choose_plan, read_memory
from newbie_image.memory.quantisation import (
    check_quantisation,
    matrices,
    quantisation_of,
    quantise_model,
    weight_bytes,
)
from newbie_image.memory.sizes import ModelSizes, published_sizes, sizes_from_configs
from newbie_image.memory.tensors import copy_into, held_bytes, is_quantised, room_like
from tests import tiny

pytest.importorskip("torchao", reason="torchao is not installed: pip install 'newbie-image[quant]'")
# Root mean square error of a product with random matrices: about what the steps between two numbers give.
ERRORS = {"fp8": (0.01, 0.03), "int8": (0.004, 0.009), "int4": (0.06, 0.09)}
KINDS = list(ERRORS)
CPU = torch.device("cpu")


def models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "transformer": tiny.transformer(),
        "text_encoder": tiny.text_encoder(300),
        "clip_model": tiny.clip_model(200, width=32),
        "vae": tiny.vae(),
    }


def sizes_of(parts: dict[str, Any]) -> ModelSizes:
    configs = [dict(m.config.to_dict() if hasattr(m.config, "to_dict") else m.config) for m in parts.values()]
    return sizes_from_configs("tiny", *configs)


@torch.no_grad()
def velocity(transformer: nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    dtype = transformer.norm_final.weight.dtype

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    mask = torch.ones(2, 7)
    mask[1, 5:] = 0
    latents, times = normal(2, 16, 6, 8), torch.tensor([0.2, 0.7])
    return transformer(latents, times, normal(2, 7, 32), mask, normal(2, 16)).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_as_exact_as_the_format(kind: str, dtype: torch.dtype) -> None:
    transformer = tiny.transformer().to(dtype)
    plain = {name: layer.weight.detach().clone() for name, layer in matrices(transformer)}
    assert quantise_model(transformer, kind) == len(plain) == 4 * 5 + 3
    assert quantisation_of(transformer) == kind
    states = torch.randn(3, 8, 64, dtype=dtype)
    for name, layer in matrices(transformer):
        assert is_quantised(layer.weight)
        assert layer.weight.shape == plain[name].shape
        assert layer.weight.dtype == dtype
        if layer.in_features == 64:
            exact = F.linear(states.float(), plain[name].float())
            made = F.linear(states, layer.weight)
            assert made.dtype == dtype
            error = float((made.float() - exact).norm() / exact.norm())
            assert ERRORS[kind][0] < error < ERRORS[kind][1]
            bias = torch.randn(layer.out_features, dtype=dtype)
            with_bias = F.linear(states, layer.weight, bias)
            assert torch.allclose(with_bias, made + bias, rtol=2e-2, atol=2e-2)
    assert "layers.0.adaLN_modulation.1" in plain
    # What reads latents, time and caption, and what makes the output, stays as it was.
    for name, layer in transformer.named_modules():
        if isinstance(layer, nn.Linear) and name not in plain:
            assert not is_quantised(layer.weight)
            assert name.startswith(("x_", "t_", "cap_", "clip_", "time_", "final_"))


@pytest.mark.parametrize("kind", KINDS)
def test_predicted_bytes_are_those_that_are_held(kind: str) -> None:
    parts = models()
    plain = {name: weight_bytes(part) for name, part in parts.items()}
    for name in ("transformer", "text_encoder", "clip_model"):
        quantise_model(parts[name], kind)
    sizes = sizes_of(parts).quantised(kind, kind)
    for name, predicted in (
        ("transformer", sizes.transformer),
        ("text_encoder", sizes.gemma),
        ("clip_model", sizes.jina),
    ):
        counted = weight_bytes(parts[name])
        assert abs(predicted.weight_bytes(4) - counted) <= 0.02 * counted
        assert counted < plain[name]
    block = sum(held_bytes(p) for p in parts["transformer"].layers[0].parameters() if is_quantised(p))
    assert block == sizes.transformer.block_bytes(4) + sizes.transformer.modulation_bytes(4)


def test_a_plan_takes_them_only_when_asked() -> None:
    sizes, work, memory = published_sizes(), Workload(), read_memory("6GB")
    plain, int8 = (choose_plan(each, work, memory) for each in (sizes, sizes.quantised("int8", "int8")))
    assert plain is not None
    assert int8 is not None
    assert plain.offload == "blocks"
    assert (plain.resident or 0) < sizes.transformer.modulated
    # All blocks stay, or nothing has to be streamed at all.
    assert int8.resident in (None, sizes.transformer.modulated)
    steps = {
        kind: sizes.quantised(kind).transformer.weight_bytes(2) for kind in ("none", "int8", "fp8", "int4")
    }
    assert steps["none"] == sizes.transformer.weights * 2
    assert steps["int4"] < 0.5 * steps["none"] < steps["fp8"] < steps["int8"] < 0.6 * steps["none"]


@pytest.mark.parametrize("kind", KINDS)
def test_streamed_and_moved_they_give_the_same_to_the_bit(kind: str) -> None:
    parts = models()
    for name in ("transformer", "text_encoder"):
        quantise_model(parts[name], kind)
    ids, mask = torch.arange(24).reshape(2, 12), torch.ones(2, 12)
    with torch.no_grad():
        before = [velocity(parts["transformer"]), parts["text_encoder"](ids, mask)]
        staged = stage_components(parts, CPU, resident=1)
        for _ in range(2):
            after = [velocity_of(parts), parts["text_encoder"](ids, mask)]
            assert all(map(torch.equal, before, after))
            staged.release()
        staged.detach()
        parts["transformer"].to("cpu")
        assert quantisation_of(parts["transformer"]) == kind
        assert torch.equal(velocity(parts["transformer"]), before[0])
    weight = next(matrices(parts["transformer"]))[1].weight
    copied = copy_into(room_like(weight, CPU), weight)
    assert type(copied) is type(weight.detach())
    assert torch.equal(F.linear(torch.eye(64), copied), F.linear(torch.eye(64), weight))


def velocity_of(parts: dict[str, Any]) -> torch.Tensor:
    return velocity(parts["transformer"])


@pytest.mark.parametrize("width", [1.0, 1e-30, 0.0])
def test_int4_keeps_the_ends_and_flat_rows(width: float) -> None:
    from newbie_image.memory.packed4 import Packed4Tensor

    weight = torch.linspace(-1, 1, 64).expand(3, 64) * width + 2.0
    again = Packed4Tensor.pack(weight).dequantize()
    assert torch.isfinite(again).all()
    assert (again - weight).abs().max() <= 0.5 * width / 15 + 0.02


def test_what_does_not_work_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    cases: list[tuple[Any, type[Exception], str]] = [
        (lambda: check_quantisation("int2"), RequestError, "none, fp8, int8, int4"),
        (lambda: check_quantisation("int8", torch.float16), DeviceError, "--dtype bf16"),
        (lambda: check_quantisation("fp8", None, torch.device("mps")), DeviceError, "int8 or int4"),
        (lambda: quantise_model(tiny.clip_model(200), "int4"), RequestError, "rows of 16"),
        (lambda: quantise_model(tiny.vae(), "int8"), RequestError, "AutoencoderKL cannot be quantised"),
        (lambda: quantise_model(tiny.transformer().half(), "int8"), DeviceError, "fp16"),
    ]
    twice = tiny.transformer()
    quantise_model(twice, "fp8")
    cases.append((lambda: quantise_model(twice, "int8"), RequestError, "load it again"))
    for refused, kind, words in cases:
        with pytest.raises(kind, match=words) as caught:
            refused()
        assert "\n" not in str(caught.value)

    plain_import = builtins.__import__

    def without_torchao(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("torchao"):
            raise ImportError(name)
        return plain_import(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_torchao)
    with pytest.raises(MissingDependencyError, match=r"pip install 'newbie-image\[quant\]'"):
        check_quantisation("int8")
    check_quantisation("none")
