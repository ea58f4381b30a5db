"""Rotary position embedding over three axes: place in the caption, row, column.

A caption token i has the position (i, 0, 0); an image token has (caption length, row, column). Each axis
turns its own part of the head by angles position · theta^(−2j/d). Channels (2j, 2j+1) are one pair. Cosines
and sines are real float32 tables, made in float64 and kept in float32 whatever the model's dtype: a bfloat16
angle at position 500 is wrong by more than a radian.

Source: RoFormer (arXiv 2104.09864); the axes are those of Lumina-Image 2.0 (arXiv 2503.21758).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Rotary(NamedTuple):
    """Cosines and sines of a sequence, each (batch, tokens, 1, head_dim) in float32.

    Both channels of a pair have the cosine; the first has the sine with a minus.
    """

    cos: Tensor
    sin: Tensor

    def tokens(self, start: int, stop: int) -> Rotary:
        """The part for tokens start … stop − 1."""
        return Rotary(self.cos[:, start:stop], self.sin[:, start:stop])

    def rows(self, start: int, stop: int) -> Rotary:
        """The part for the batch rows start … stop − 1."""
        return Rotary(self.cos[start:stop], self.sin[start:stop])


class RotaryTables(nn.Module):
    """Tables of cosines and sines for each axis; no parameters, nothing in the state dict.

    Args:
        axes_dims: channels of a head that each axis turns; even; their sum is the head's size.
        axes_lens: number of positions of each axis.
        theta: base of the frequencies.
    """

    def __init__(self, axes_dims: Sequence[int], axes_lens: Sequence[int], theta: float = 10000.0) -> None:
        super().__init__()
        self.axes_dims = tuple(axes_dims)
        self.axes_lens = tuple(axes_lens)
        self.theta = theta
        self._place(torch.device("cpu"))

    def stretch(self, image_scale: float) -> None:
        """Makes rows and columns `image_scale` positions apart, for training alone: nothing records it."""
        for axis in (1, 2):
            cos, sin = self._table(axis, image_scale)
            self.get_buffer(f"cos_{axis}").copy_(cos)
            self.get_buffer(f"sin_{axis}").copy_(sin)

    def _table(self, axis: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        # Made on the CPU by name: a `torch.device("meta")` context must not turn the tables into shapes.
        channels, length = self.axes_dims[axis], self.axes_lens[axis]
        exponents = torch.arange(0, channels, 2, dtype=torch.float64, device="cpu") / channels
        positions = scale * torch.arange(length, dtype=torch.float64, device="cpu")
        angles = torch.outer(positions, self.theta**-exponents).float()
        return angles.cos(), angles.sin()

    def _place(self, device: torch.device) -> None:
        for axis in range(len(self.axes_dims)):
            cos, sin = self._table(axis)
            self.register_buffer(f"cos_{axis}", cos.to(device), persistent=False)
            self.register_buffer(f"sin_{axis}", sin.to(device), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RotaryTables:
        # Follows the model to another device, but neither to another dtype nor to uninitialised memory.
        held = self.get_buffer("cos_0").device
        device = fn(torch.empty(0, device=held)).device
        if device.type != "meta" and device != held:
            self._place(device)
        return self

    def forward(self, positions: Tensor) -> Rotary:
        """Looks up positions.

        Args:
            positions: (batch, tokens, axes) integers, each within its axis.
        Returns:
            Tables of these tokens.
        """
        axes = range(len(self.axes_dims))
        cos = torch.cat([self.get_buffer(f"cos_{axis}")[positions[..., axis]] for axis in axes], dim=-1)
        sin = torch.cat([self.get_buffer(f"sin_{axis}")[positions[..., axis]] for axis in axes], dim=-1)
        cos, sin = torch.stack([cos, cos], dim=-1), torch.stack([-sin, sin], dim=-1)
        return Rotary(cos.flatten(-2).unsqueeze(2), sin.flatten(-2).unsqueeze(2))


def sequence_positions(lengths: Tensor, rows: int, columns: int, text_length: int) -> Tensor:
    """Positions of [image tokens][caption tokens], without a loop over samples.

    Args:
        lengths: (batch,) int64, valid caption tokens of each sample.
        rows, columns: image tokens downwards and across.
        text_length: caption tokens with padding.
    Returns:
        (batch, rows·columns + text_length, 3) int64.
    """
    device, batch = lengths.device, lengths.shape[0]
    row = torch.arange(rows, device=device).repeat_interleave(columns).expand(batch, -1)
    column = torch.arange(columns, device=device).repeat(rows).expand(batch, -1)
    start = lengths[:, None].expand(-1, rows * columns)
    image = torch.stack([start, row, column], dim=-1)
    order = torch.arange(text_length, device=device).expand(batch, -1)
    text = torch.stack([order, torch.zeros_like(order), torch.zeros_like(order)], dim=-1)
    return torch.cat([image, text], dim=1)


def rotate(states: Tensor, rotary: Rotary) -> Tensor:
    """Turns each pair of channels by its angle.

    Args:
        states: (batch, tokens, heads, head_dim) in float32.
        rotary: tables for these tokens.
    Returns:
        (batch, tokens, heads, head_dim) in float32.
    """
    # Rolling by one within pairs exchanges their channels, at a quarter of what taking them apart costs.
    exchanged = states.unflatten(-1, (-1, 2)).roll(1, dims=-1).flatten(-2)
    return torch.addcmul(states * rotary.cos, exchanged, rotary.sin)
