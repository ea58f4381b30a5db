"""Where characters stand, as training tells it: what the engine's `region` and `full` add to attention, for
many captions at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from newbie_image.binding.bias import BARRED, owners, soft_masks
from newbie_image.binding.regions import regions_of
from newbie_image.binding_modes import MODES
from newbie_image.prompt import parse

MOST_PEOPLE: Final = 6
Boxes = tuple[tuple[float, float, float, float], ...]


def caption_boxes(caption: str) -> Boxes:
    """The regions of a caption's characters, in their order; none where one of them has no place."""
    regions, _ = regions_of(parse(caption))
    return tuple(region.box for region in regions)


def stacked(boxes: Sequence[Boxes]) -> Tensor:
    """(captions, MOST_PEOPLE, 4) float32; a box of nothing where there is no region."""
    found = torch.zeros(len(boxes), MOST_PEOPLE, 4)
    for row, each in zip(found, boxes, strict=True):
        if each:
            row[: len(each)] = torch.tensor(each)
    return found


def region_rules(boxes: Tensor, full: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """What each image token gains or loses in reading each character, and whose it is.

    Args:
        boxes: (batch, characters, 4): left, top, right, bottom in fractions; of no size where there is none.
        full: (batch,) bool, where binding `full` acts and not `region`; nothing where there are no boxes.
        side: image tokens across and downwards.
    Returns:
        (batch, characters + 1, side · side): 0 for the general text, then β⁺·m − β⁻·(1 − m) for each
        character with m its soft region, 0 where it has none, barred in `full` for what is nobody's;
        (batch, side · side) int64: −1 throughout where `full` does not act, else 0 for nobody's, or the
        number of the character.
    """
    parts = MODES["region"]
    there = boxes[..., 2] > boxes[..., 0]
    mask = soft_masks(boxes, side, side) * there[..., None]
    scores = (parts.beta_plus + parts.beta_minus) * mask - parts.beta_minus
    owner = owners(mask)
    full = full & there.any(-1)
    scores = scores + BARRED * (full[:, None] & (owner == 0))[:, None]
    scores = scores * there[..., None]
    rules = torch.where(full[:, None], owner, -1)
    return torch.cat([torch.zeros_like(scores[:, :1]), scores], dim=1), rules
