"""Weights counted from configs are those of the real classes."""

from __future__ import annotations

import torch

from newbie_image.memory.sizes import published_sizes, sizes_from_configs
from newbie_image.memory.tracking import published_parts
from tests import tiny


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_published_model_to_the_weight() -> None:
    sizes, parts = published_sizes(), published_parts(torch.bfloat16)
    assert sizes.transformer.weights == count(parts["transformer"]) == 3_486_636_096
    assert sizes.gemma.weights == count(parts["text_encoder"])
    assert sizes.jina.weights == count(parts["clip_model"])
    assert sizes.vae.weights == count(parts["vae"])
    rotary = sum(buffer.nbytes for buffer in parts["transformer"].buffers())
    assert sizes.transformer.rotary == rotary


def test_other_configs_too() -> None:
    models = (tiny.transformer(), tiny.text_encoder(300), tiny.clip_model(200), tiny.vae())
    configs = [dict(model.config.to_dict() if i == 1 else model.config) for i, model in enumerate(models)]
    sizes = sizes_from_configs("tiny", *configs)
    counted = (sizes.transformer.weights, sizes.gemma.weights, sizes.jina.weights, sizes.vae.weights)
    assert counted == tuple(count(model) for model in models)
    assert sizes.transformer.block == sum(
        parameter.numel()
        for name, parameter in models[0].layers[0].named_parameters()
        if parameter.ndim > 1 and "adaLN" not in name
    )
