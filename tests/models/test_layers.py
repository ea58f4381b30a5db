"""Norms, gates and the block, against their formulas written out."""

from __future__ import annotations

import math

import torch

from newbie_image.models.layers import FeedForward, RMSNorm, TimestepEmbedder, TransformerBlock
from newbie_image.models.rope import RotaryTables, sequence_positions


def test_norm_is_computed_in_float32_and_rounded_once() -> None:
    norm = RMSNorm(64, eps=1e-5)
    torch.nn.init.normal_(norm.weight)
    norm.to(torch.bfloat16)
    states = (100 * torch.randn(5, 64)).to(torch.bfloat16)
    wide = states.double()
    exact = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5) * norm.weight.double()
    assert norm(states).dtype == torch.bfloat16
    torch.testing.assert_close(norm(states).double(), exact, rtol=2**-8, atol=0)


def test_timestep_embedding_is_cosines_then_sines() -> None:
    embedder = TimestepEmbedder(dim=256)
    embedder.mlp = torch.nn.Sequential(torch.nn.Identity())
    embedded = embedder(torch.tensor([0.25, 1.0]), torch.float32)
    assert embedded.shape == (2, 256)
    for column in (0, 1, 127):
        frequency = math.exp(-math.log(10000.0) * column / 128)
        torch.testing.assert_close(embedded[:, column], torch.tensor([0.25, 1.0]).mul(frequency).cos())
        torch.testing.assert_close(embedded[:, 128 + column], torch.tensor([0.25, 1.0]).mul(frequency).sin())


def test_feed_forward_width_is_rounded_up() -> None:
    assert FeedForward(32, 256, None).w1.out_features == 256
    assert FeedForward(2304, 256, None).w1.out_features == 9216
    assert FeedForward(32, 16, 0.7).w1.out_features == 96


def block_and_inputs() -> tuple[TransformerBlock, tuple]:
    torch.manual_seed(0)
    block = TransformerBlock(24, 3, 1, 16, None, 1e-5, modulated=True)
    for weight in block.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    rotary = RotaryTables((4, 2, 2), (8, 8, 8))(sequence_positions(torch.tensor([3]), 2, 2, 3))
    return block, (torch.randn(1, 7, 24), torch.randn(1, 24), rotary, None)


def test_block_equals_the_formula() -> None:
    block, (states, conditioning, rotary, padding) = block_and_inputs()
    scale, gate, ffn_scale, ffn_gate = block.adaLN_modulation(conditioning)[:, None].chunk(4, dim=-1)
    inner = block.attention(block.attention_norm1(states) * (1 + scale), rotary, padding, "math", None)
    expected = states + gate.tanh() * block.attention_norm2(inner)
    inner = block.feed_forward(block.ffn_norm1(expected) * (1 + ffn_scale))
    expected = expected + ffn_gate.tanh() * block.ffn_norm2(inner)
    torch.testing.assert_close(block(states, conditioning, rotary, padding), expected, rtol=1e-5, atol=1e-5)


def test_keeping_the_first_tokens_equals_cutting_the_result() -> None:
    block, inputs = block_and_inputs()
    torch.testing.assert_close(block(*inputs, keep=4), block(*inputs)[:, :4])


def test_residuals_of_bfloat16_and_float32_do_not_mix() -> None:
    """Classic failure: a float32 gate or norm makes the stream float32, and a bfloat16 layer stops."""
    block, (states, conditioning, rotary, padding) = block_and_inputs()
    half = block.to(torch.bfloat16)
    assert half(states.bfloat16(), conditioning.bfloat16(), rotary, padding).dtype == torch.bfloat16
    block.to(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert block(states, conditioning, rotary, padding).dtype == torch.float32
