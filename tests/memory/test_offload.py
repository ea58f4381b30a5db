"""Streaming and cutting change no number, and leave everything as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from newbie_image.errors import DeviceError
from newbie_image.memory.offload import (
    BlockStream,
    cut_into_chunks,
    places,
    stage_components,
    streamed_blocks,
)
from tests import tiny

CPU = torch.device("cpu")


@pytest.fixture
def parts() -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "transformer": tiny.transformer(),
        "text_encoder": tiny.text_encoder(300),
        "clip_model": tiny.clip_model(200),
        "vae": tiny.vae(),
        "tokenizer": None,
    }


@torch.no_grad()
def outputs(parts: dict[str, Any]) -> list[torch.Tensor]:
    """One of everything: both encoders, the schedule, a scheduled and a plain step twice, a picture."""
    ids = torch.arange(24).reshape(2, 12) % 190 + 3
    mask = torch.ones(2, 12, dtype=torch.int64)
    mask[1, 7:] = 0
    tokens, pooled = parts["text_encoder"](ids, mask), parts["clip_model"](ids, mask)
    latents = torch.randn(2, 16, 6, 8, generator=torch.Generator().manual_seed(1))
    transformer = parts["transformer"]
    prepared = transformer.prepare_text(tokens, mask, pooled, (6, 8))
    schedule = transformer.prepare_schedule([0.25, 0.5], prepared)
    times = [torch.full((2,), t) for t in (0.25, 0.5)]
    steps = [transformer.velocity(latents, t, prepared, s) for t, s in zip(times, schedule, strict=True)] + [
        transformer.velocity(latents, times[0], prepared)
    ]
    picture = parts["vae"].decode(steps[0], return_dict=False)[0]
    return [tokens[mask.bool()], pooled, *steps, picture]


def held(parts: dict[str, Any]) -> list[int]:
    modules = [part for part in parts.values() if isinstance(part, nn.Module)]
    return [place.get().data_ptr() for part in modules for place in places(part)]


@pytest.mark.parametrize("resident", [0, 1, 3])
@pytest.mark.parametrize("trims", [True, False])
def test_staged_components_give_the_same_to_the_bit_and_leave_as_they_were(
    parts: dict[str, Any], resident: int, trims: bool
) -> None:
    plain, before = outputs(parts), held(parts)
    staged = stage_components(parts, CPU, resident=resident, stream_modulation=trims, tables_on_host=trims)
    for _ in range(2):
        assert all(map(torch.equal, outputs(parts), plain))
        staged.release()
        assert held(parts) == before
    staged.enter("transformer")
    assert held(parts) != before
    staged.detach()
    assert held(parts) == before
    assert all(map(torch.equal, outputs(parts), plain))
    assert not any(hasattr(part, "_hf_hook") for part in parts.values())


def test_only_two_places_hold_what_is_streamed(parts: dict[str, Any]) -> None:
    transformer = parts["transformer"]
    blocks = [*transformer.noise_refiner, *transformer.context_refiner, *transformer.layers]

    def pointers() -> set[int]:
        return {block.feed_forward.w1.weight.data_ptr() for block in blocks}

    host, outside = pointers(), []
    staged = stage_components(parts, CPU)
    for block in blocks:
        block.feed_forward.register_forward_pre_hook(lambda *_: outside.append(pointers() - host))
    outputs(parts)
    assert outside
    assert all(1 <= len(found) <= 2 for found in outside)
    assert len(set().union(*outside)) == 2
    staged.detach()


def test_a_stream_learns_what_follows() -> None:
    blocks = [nn.Linear(4, 4, bias=False) for _ in range(5)]
    given = torch.randn(2, 4)
    expected = [block(given) for block in blocks]
    stream = BlockStream(blocks, CPU)
    for index in (4, 1, 3, 4, 1, 3, 0):
        assert torch.equal(blocks[index](given), expected[index])
    assert (stream._after[4], stream._after[1], stream._after[3]) == (1, 3, 0)
    stream.detach()
    assert torch.equal(blocks[2](given), expected[2])


def test_blocks_of_two_shapes_are_refused() -> None:
    with pytest.raises(DeviceError, match="2 shapes"):
        BlockStream([nn.Linear(2, 2), nn.Linear(2, 3)], CPU)


def test_streamed_blocks_are_spread() -> None:
    assert streamed_blocks(10, 8) == [0, 5]
    assert streamed_blocks(4, 0) == [0, 1, 2, 3]
    assert streamed_blocks(4, 9) == []


@pytest.mark.parametrize("chunk", [1, 5, 24, 1000])
def test_chunks_change_nothing_but_rounding(parts: dict[str, Any], chunk: int) -> None:
    plain = outputs(parts)
    cut_into_chunks(parts["transformer"], chunk)
    for cut, whole in zip(outputs(parts), plain, strict=True):
        torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-5)
    cut_into_chunks(parts["transformer"], None)
    assert all(map(torch.equal, outputs(parts), plain))


def test_chunks_leave_gradients_alone(parts: dict[str, Any]) -> None:
    transformer = parts["transformer"]
    arguments = (torch.randn(1, 16, 4, 4), torch.tensor([0.5]), torch.randn(1, 8, 32), torch.ones(1, 8))
    for chunk in (None, 3):
        cut_into_chunks(transformer, chunk)
        transformer.zero_grad()
        transformer(*arguments, torch.ones(1, 16)).square().sum().backward()
        gradient = transformer.layers[0].feed_forward.w1.weight.grad.clone()
        if chunk is None:
            expected = gradient
    assert torch.equal(gradient, expected)
