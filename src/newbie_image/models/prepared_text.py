"""What a caption contributes to every step, and the checks that stand before the transformer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from newbie_image.errors import RequestError
from newbie_image.models.attention import KeyPadding
from newbie_image.models.layers import Modulation
from newbie_image.models.rope import Rotary

IMAGE: Final = -2
"""Group of the picture's tokens."""


@dataclass(frozen=True)
class PreparedText:
    """What a caption contributes to every step, computed once.

    Attributes:
        text: (batch, length, dim), projected and refined caption tokens; padding is zero.
        pooled: (batch, clip_text_dim), projected pooled caption.
        rotary: tables of [image][caption], (batch, image tokens + length, 1, head_dim).
        padding: which of these tokens are keys; None when all are.
        grid: image tokens downwards and across.
        lengths: valid caption tokens of each sample, known on the host; None where they were not read back.
        image_padding: what the noise refiners are told of the picture's tokens; None for nothing.
        inner, inner_padding: blocks first … last − 1 of the joint ones that are told something else than
            `padding`, and what; None where all are told the same.
    """

    text: Tensor
    pooled: Tensor
    rotary: Rotary
    padding: KeyPadding | None
    grid: tuple[int, int]
    lengths: tuple[int, ...] | None
    image_padding: KeyPadding | None = None
    inner: tuple[int, int] | None = None
    inner_padding: KeyPadding | None = None

    def padding_at(self, block: int) -> KeyPadding | None:
        """What joint block number `block` is told."""
        if self.inner is not None and self.inner[0] <= block < self.inner[1]:
            return self.inner_padding
        return self.padding

    @property
    def batch(self) -> int:
        """Number of captions."""
        return self.text.shape[0]

    def rows(self, start: int, stop: int) -> PreparedText:
        """The captions start … stop − 1 alone, with no more padding than they need."""
        image = self.grid[0] * self.grid[1]
        part = replace(
            self,
            text=self.text[start:stop],
            pooled=self.pooled[start:stop],
            rotary=self.rotary.rows(start, stop),
            padding=None if self.padding is None else _rows(self.padding, start, stop),
            lengths=None if self.lengths is None else self.lengths[start:stop],
        )
        if part.lengths is None:
            return part
        longest = max(part.lengths)
        padding = None
        if part.padding is not None and part.padding.bias is not None:
            tokens = image + longest
            bias = part.padding.bias[:, :, :tokens, :tokens]
            padding = KeyPadding(part.padding.valid[:, :tokens], bias=bias)
        elif part.padding is not None and min(part.lengths) != longest:
            padding = KeyPadding(part.padding.valid[:, : image + longest])
            if self.padding is not None and self.padding.packed is not None:
                padding = KeyPadding.pack(padding.valid)
        return replace(
            part, text=part.text[:, :longest], rotary=part.rotary.tokens(0, image + longest), padding=padding
        )


def _rows(padding: KeyPadding, start: int, stop: int) -> KeyPadding:
    bias = None if padding.bias is None else padding.bias[start:stop]
    return KeyPadding(padding.valid[start:stop], bias=bias)


def group_bias(valid: Tensor, groups: Tensor) -> Tensor:
    """Added scores that keep the characters' texts apart.

    What is no character's (the picture, the general text, the system prompt) is a key for all; a character's
    text is one for its own tokens and for the picture.

    Args:
        valid: (batch, tokens) bool.
        groups: (batch, tokens) integers: IMAGE, PREFIX, 0 for general text, 1, 2, … for characters.
    Returns:
        (batch, 1, tokens, tokens) float32: 0 or −inf; every row has its diagonal.
    """
    asks, asked = groups[:, :, None], groups[:, None, :]
    allowed = ((asks == IMAGE) | (asked <= 0) | (asks == asked)) & valid[:, None, :]
    allowed = allowed | torch.eye(groups.shape[1], dtype=torch.bool, device=groups.device)
    return torch.zeros_like(allowed, dtype=torch.float32).masked_fill(~allowed, float("-inf"))[:, None]


@dataclass(frozen=True)
class StepModulation:
    """AdaLN factors of every block at one timestep, for one prepared text; see `NextDiT.prepare_schedule`."""

    noise_refiner: tuple[Modulation, ...]
    layers: tuple[Modulation, ...]
    final: Tensor


def check_text(tokens: Tensor, mask: Tensor, pooled: Tensor, token_width: int, pooled_width: int) -> None:
    """Raises RequestError unless (batch, length, width), (batch, length), (batch, width) fit together."""
    if tokens.ndim != 3 or tokens.shape[1] == 0 or tokens.shape[2] != token_width:
        raise RequestError(
            f"text_tokens of shape {tuple(tokens.shape)}; the transformer takes "
            f"(batch, length, {token_width}) (cap_feat_dim): is this its text encoder?"
        )
    if mask.shape != tokens.shape[:2]:
        raise RequestError(
            f"text_mask of shape {tuple(mask.shape)} beside text_tokens of shape {tuple(tokens.shape)}; "
            f"it must be {tuple(tokens.shape[:2])}"
        )
    if pooled.shape != (tokens.shape[0], pooled_width):
        raise RequestError(
            f"pooled_text of shape {tuple(pooled.shape)}; the transformer takes "
            f"{(tokens.shape[0], pooled_width)} (batch, clip_text_dim): is this its CLIP tower?"
        )


def check_latents(latents: Tensor, channels: int, patch: int) -> None:
    """Raises RequestError unless latents are (batch, channels, height/8, width/8) in whole patches."""
    if latents.ndim != 4:
        raise RequestError(
            f"latents of shape {tuple(latents.shape)}; give (batch, {channels}, height/8, width/8)"
        )
    if latents.shape[1] != channels:
        raise RequestError(
            f"latents with {latents.shape[1]} channels for a transformer with in_channels {channels}: "
            "the VAE and the transformer are not of the same model"
        )
    if latents.shape[2] % patch or latents.shape[3] % patch:
        raise RequestError(
            f"latents of {latents.shape[2]}×{latents.shape[3]}; "
            f"both sides must be multiples of {patch} (patch_size)"
        )


def check_prepared(latents: Tensor, timestep: Tensor, prepared: PreparedText, patch: int) -> None:
    """Raises RequestError unless latents and timestep (batch,) are those that the text was prepared for."""
    grid = (latents.shape[2] // patch, latents.shape[3] // patch)
    if latents.shape[0] != prepared.batch or grid != prepared.grid:
        raise RequestError(
            f"latents of shape {tuple(latents.shape)} for captions prepared for a batch of {prepared.batch} "
            f"and latents of {prepared.grid[0] * patch}×{prepared.grid[1] * patch}: "
            "prepare the text for this size"
        )
    if timestep.shape != (latents.shape[0],):
        raise RequestError(
            f"timestep of shape {tuple(timestep.shape)}; give ({latents.shape[0]},), one per sample"
        )


def right_padded_lengths(valid: Tensor) -> tuple[int, ...]:
    """Lengths of captions from their mask (batch, length), read back from the device.

    Raises:
        RequestError: a caption without tokens, or padding that is not on the right.
    """
    # One transfer for both questions: how many tokens, and where is the last one.
    places = torch.arange(1, valid.shape[1] + 1, device=valid.device)
    counts, ends = torch.stack([valid.sum(dim=1), (valid * places).amax(dim=1)]).tolist()
    if counts != ends or min(counts) == 0:
        raise RequestError(
            f"text_mask with {counts} valid tokens ending at {ends}; "
            "captions need at least one token and padding on the right only"
        )
    return tuple(counts)
