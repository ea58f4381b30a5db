"""Weights in fewer bits: which layers, in which format, and where that works.

Only weights are quantised. Each matrix is brought back to the activations' format for its own multiplication,
so what is saved is memory, not time.

======  ==========================================================  =============
format  what is kept                                                bytes a weight
======  ==========================================================  =============
fp8     float8 (4 bits of exponent, 3 of mantissa), a scale a row   1
int8    whole numbers from −128 to 127, a scale a row               1
int4    `newbie_image.memory.packed4`                               0.625
======  ==========================================================  =============

fp8 and int8 are torchao's. In the transformer, all matrices of every block are quantised, AdaLN among them;
the embedders and the final layer are not: 0.4 % of the published model's weights, and a third of the error
that there would be (docs/memory.md has the figures). In the text encoders all matrices of the layers are;
token tables and norms are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from newbie_image.devices import dtype_name
from newbie_image.errors import DeviceError, MissingDependencyError, RequestError
from newbie_image.memory.formats import GROUP, check_format
from newbie_image.memory.tensors import held_bytes, is_quantised
from newbie_image.models.gemma_text import GemmaTextModel
from newbie_image.models.jina_text import JinaTextModel
from newbie_image.models.next_dit import NextDiT

INSTALL = "pip install 'newbie-image[quant]'"


def check_quantisation(
    kind: str, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> None:
    """Refuse a format that is unknown, not installed, or does not work here.

    Args:
        kind: one of QUANTISATIONS.
        dtype: of the activations; None where it is not known yet.
        device: where to compute; None likewise.

    Raises:
        RequestError: an unknown format.
        DeviceError: a dtype or device on which the format does not work.
        MissingDependencyError: torchao is not installed.
    """
    check_format(kind, None if dtype is None else dtype_name(dtype), None if device is None else device.type)
    if kind != "none":
        _torchao()


def check_model(model: nn.Module, kind: str) -> None:
    """Refuse a format that a model cannot have.

    Raises:
        RequestError, DeviceError, MissingDependencyError: see :func:`check_quantisation`; or the model is
            quantised already, is of another kind, or has rows that int4's groups do not divide.
    """
    check_quantisation(kind)
    if kind == "none":
        return
    layers, name = dict(matrices(model)), type(model).__name__
    if not layers:
        raise RequestError(f"a {name} cannot be quantised; the transformer and the text encoders can")
    first = next(iter(layers.values()))
    check_quantisation(kind, _dtype_of(first), first.weight.device)
    if any(is_quantised(layer.weight) for layer in layers.values()):
        raise RequestError(f"the {name} is quantised already; load it again to quantise it otherwise")
    uneven = [layer.in_features for layer in layers.values() if layer.in_features % GROUP]
    if kind == "int4" and uneven:
        raise RequestError(
            f"int4 takes {GROUP} weights of a row together, but the {name} has rows of {uneven[0]}; take int8"
        )


def quantise_model(model: nn.Module, kind: str) -> int:
    """Quantise a model's matrices in place, one after the other.

    Args:
        model: the transformer, Gemma's or Jina's text model, weights in their place (not streamed).
        kind: one of QUANTISATIONS.

    Returns:
        How many matrices were quantised.

    Raises:
        RequestError, DeviceError, MissingDependencyError: see :func:`check_model`.
    """
    check_model(model, kind)
    if kind == "none":
        return 0
    make, layers = _maker(kind), dict(matrices(model))
    with torch.no_grad():
        for layer in layers.values():
            layer.weight = nn.Parameter(make(layer.weight.detach()), requires_grad=False)
    return len(layers)


def matrices(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The layers whose weights are quantised, by name; none in a model of another kind."""
    stacks: tuple[Any, ...] = ()
    if isinstance(model, NextDiT):
        stacks = (model.noise_refiner, model.context_refiner, model.layers)
    elif isinstance(model, GemmaTextModel):
        stacks = (model.layers,)
    elif isinstance(model, JinaTextModel):
        stacks = (model.encoder.layers,)
    inside = {id(module) for stack in stacks for module in stack.modules()}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and id(module) in inside:
            yield name, module


def quantisation_of(model: nn.Module) -> str:
    """The format of a model's matrices, one of QUANTISATIONS."""
    for _, layer in matrices(model):
        return _NAMES[type(layer.weight).__name__] if is_quantised(layer.weight) else "none"
    return "none"


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters, scales of quantised ones included; what is shared counts once."""
    return sum(held_bytes(parameter) for parameter in model.parameters())


_NAMES = {"Float8Tensor": "fp8", "Int8Tensor": "int8", "Packed4Tensor": "int4"}


def _dtype_of(layer: nn.Linear) -> torch.dtype:
    dtype = layer.weight.dtype
    if dtype not in (torch.bfloat16, torch.float16, torch.float32):
        raise DeviceError(f"weights in {dtype_name(dtype)} cannot be quantised; load them as bf16 or fp32")
    return dtype


def _maker(kind: str) -> Callable[[Tensor], Tensor]:
    torchao = _torchao()
    if kind == "int4":
        from newbie_image.memory.packed4 import Packed4Tensor

        return Packed4Tensor.pack
    made: Any = torchao.Int8Tensor if kind == "int8" else torchao.Float8Tensor
    row = torchao.PerRow()
    return lambda weight: made.from_hp(weight, granularity=row)


def _torchao() -> Any:
    try:
        import torchao.quantization
    except ImportError:
        raise MissingDependencyError(
            f"quantised weights need torchao, which is not installed; install it with: {INSTALL}"
        ) from None
    return torchao.quantization
