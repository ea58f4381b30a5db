"""From what was collected by token to heat maps by tag and character, and where their mass lies.

A map that :class:`newbie_image.binding.sight.Sight` collects has a floor: every image token reads every word
a little. Where a word acts is what stands out of that floor, so `excess` takes a map's own mean away and
keeps what is above it. All masses are of that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from newbie_image.binding.groups import TagSpan


def tag_maps(maps: Tensor, spans: Sequence[TagSpan]) -> Tensor:
    """The mean map of each tag's tokens.

    Args:
        maps: (caption tokens, image tokens), one picture's of `Sight.maps`.
        spans: the tags' tokens.
    Returns:
        (tags, image tokens).
    """
    if not spans:
        return maps.new_zeros(0, maps.shape[1])
    return torch.stack([maps[span.start : span.end].mean(0) for span in spans])


def excess(maps: Tensor) -> Tensor:
    """What of each map is above its own mean over the picture.

    Args:
        maps: (…, image tokens).
    Returns:
        The same shape, at least 0; nothing but 0 where a map is the same everywhere.
    """
    return (maps - maps.mean(-1, keepdim=True)).clamp_min(0)


def contrast(maps: Tensor) -> Tensor:
    """What of each map is above the mean of all of them, each taken against its own mean over the picture.

    Args:
        maps: (tags, image tokens).
    Returns:
        The same shape, at least 0; nothing but 0 for a single map.
    """
    against = maps / maps.mean(-1, keepdim=True).clamp_min(1e-12)
    return (against - against.mean(0, keepdim=True)).clamp_min(0)


def mass_inside(heat: Tensor, mask: Tensor) -> float | None:
    """The share of a map's mass inside a region.

    Args:
        heat: (image tokens,), at least 0.
        mask: (image tokens,) in [0, 1].
    Returns:
        0 to 1; None where the map has no mass.
    """
    whole = float(heat.sum())
    return None if whole <= 0 else float((heat * mask).sum()) / whole


def centre(heat: Tensor, grid: tuple[int, int]) -> tuple[float, float] | None:
    """A map's centre of mass.

    Args:
        heat: (image tokens,), at least 0.
        grid: image tokens downwards and across.
    Returns:
        x and y in fractions of the picture; None where the map has no mass.
    """
    rows, columns = grid
    whole = float(heat.sum())
    if whole <= 0:
        return None
    table = heat.view(rows, columns)
    x = float((table.sum(0) * (torch.arange(columns) + 0.5)).sum()) / whole / columns
    y = float((table.sum(1) * (torch.arange(rows) + 0.5)).sum()) / whole / rows
    return x, y


def box_mask(box: tuple[float, float, float, float], grid: tuple[int, int]) -> Tensor:
    """How much of each image token lies in a box.

    Args:
        box: left, top, right, bottom in fractions of the picture.
        grid: image tokens downwards and across.
    Returns:
        (image tokens,) in [0, 1]; its mean is the box's area.
    """
    left, top, right, bottom = box
    down = _covered(top, bottom, grid[0])
    across = _covered(left, right, grid[1])
    return (down[:, None] * across[None, :]).flatten()


def _covered(low: float, high: float, count: int) -> Tensor:
    edges = torch.arange(count, dtype=torch.float32)
    upper = (edges + 1).clamp_max(high * count)
    return (upper - edges.clamp_min(low * count)).clamp(0, 1)
