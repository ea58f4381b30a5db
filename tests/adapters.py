"""Adapters for the tiny transformer of `tests.tiny`, with random weights, as trainers write them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from tests import tiny

LAYERS = ("layers.0.attention.qkv", "layers.1.feed_forward.w2", "noise_refiner.0.adaLN_modulation.1",
          "context_refiner.0.attention.out", "time_text_embed.1")  # fmt: skip
"""Layers of every kind: steps, AdaLN, caption, time."""


def write_lora(
    path: Path, *, seed: int = 0, layers: tuple[str, ...] = LAYERS, norm: str | None = None, rank: int = 4
) -> Path:
    """A plain LoRA file, and with `norm` a LyCORIS change of that norm's weight."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {name: parameter.shape for name, parameter in tiny.transformer().named_parameters()}
    tensors = {}
    for layer in layers:
        rows, columns = shapes[layer + ".weight"]
        tensors[f"{layer}.lora_A.weight"] = torch.randn(rank, columns, generator=draw) * 0.3
        tensors[f"{layer}.lora_B.weight"] = torch.randn(rows, rank, generator=draw) * 0.3
        tensors[f"{layer}.alpha"] = torch.tensor(float(rank))
    if norm is not None:
        tensors[f"{norm}.w_norm"] = torch.randn(shapes[norm + ".weight"], generator=draw) * 0.3
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path
