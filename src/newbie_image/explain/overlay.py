"""Heat maps and regions drawn over pictures, with numpy and Pillow alone."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from newbie_image.request import UsedRegions

Colour = tuple[int, int, int]

_INFERNO: Final = np.array(
    [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ],
    dtype=np.float32,
)
"""Nine colours of the map `inferno` (van der Walt and Smith, CC0): its lightness rises evenly, so it is read
without telling hues apart."""
CHARACTER_COLOURS: Final[tuple[Colour, ...]] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
)
"""Okabe and Ito's colours, which people with any colour vision tell apart."""
LEGIBLE: Final = 512
"""Overlays are drawn at least so wide, in pixels."""


def level(heat: Tensor) -> np.ndarray:
    """A map as shares of its own peak: (rows, columns) float32 in [0, 1]."""
    values = heat.numpy().astype(np.float32)
    peak = float(values.max(initial=0.0))
    return values / peak if peak > 0 else values


def colours(levels: np.ndarray) -> np.ndarray:
    """The colour of each level: (…,) in [0, 1] → (…, 3) uint8."""
    places = np.clip(levels, 0, 1) * (len(_INFERNO) - 1)
    low = np.minimum(places.astype(np.int64), len(_INFERNO) - 2)
    part = (places - low)[..., None]
    return np.rint(_INFERNO[low] * (1 - part) + _INFERNO[low + 1] * part).astype(np.uint8)


def heat_layer(heat: Tensor) -> Image.Image:
    """A map as a small RGBA picture, a pixel an image token, to be laid over the picture and stretched."""
    levels = level(heat)
    alpha = np.rint(255 * _cover(levels)).astype(np.uint8)
    return Image.fromarray(np.dstack([colours(levels), alpha]))


def heat_picture(picture: Image.Image, heat: Tensor) -> Image.Image:
    """A map over the picture, which is dimmed and grey, so that colour means heat alone.

    Args:
        picture: RGB.
        heat: (image tokens downwards, across), at least 0.
    Returns:
        RGB, at least LEGIBLE wide.
    """
    ground = enlarged(picture)
    grey = np.asarray(ground.convert("L"), dtype=np.float32)[..., None] * 0.6
    stretched = Image.fromarray(level(heat)).resize(ground.size, Image.Resampling.BICUBIC)
    levels = np.clip(np.asarray(stretched, dtype=np.float32), 0, 1)
    cover = _cover(levels)[..., None]
    return Image.fromarray(np.rint(grey * (1 - cover) + colours(levels) * cover).astype(np.uint8))


def enlarged(picture: Image.Image) -> Image.Image:
    """The picture, a whole number of times as large where it is narrower than LEGIBLE."""
    times = max(1, -(-LEGIBLE // picture.width))
    size = (picture.width * times, picture.height * times)
    return (
        picture.convert("RGB").resize(size, Image.Resampling.LANCZOS) if times > 1 else picture.convert("RGB")
    )


def _cover(levels: np.ndarray) -> np.ndarray:
    """How far the heat hides the picture: little where it is low."""
    return 0.85 * np.sqrt(np.clip(levels, 0, 1))


def regions_picture(picture: Image.Image, regions: UsedRegions) -> Image.Image:
    """The picture with its characters' regions: shaded masks, boxes or outlines, and numbers.

    Args:
        picture: RGB.
        regions: of this picture.
    Returns:
        RGB, at least LEGIBLE wide.
    """
    ground = enlarged(picture)
    pixels = np.asarray(ground, dtype=np.float32)
    masks = [
        np.asarray(
            Image.fromarray(mask.numpy().astype(np.float32)).resize(ground.size, Image.Resampling.BILINEAR)
        )
        for mask in regions.masks
    ]
    for number, mask in enumerate(masks):
        shade = np.array(character_colour(number), dtype=np.float32)
        cover = 0.35 * mask[..., None]
        pixels = pixels * (1 - cover) + shade * cover
        if not regions.boxes:
            pixels[_edge(mask >= 0.5)] = shade
    drawn = Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(drawn)
    width, height = drawn.size
    for number, (left, top, right, bottom) in enumerate(regions.boxes):
        x, y = left * width, top * height
        corners = (x, y, max(x, right * width - 1), max(y, bottom * height - 1))
        pen.rectangle(corners, outline=character_colour(number), width=max(2, width // 256))
    for place, mask in enumerate(masks):
        number = regions.labels[place] if regions.labels else place + 1
        if mask.max() > 0:
            _label(pen, str(number), _above(mask, width // 16), character_colour(place), width // 16)
    return drawn


def character_colour(place: int) -> Colour:
    """Of the character at a place from 0."""
    return CHARACTER_COLOURS[place % len(CHARACTER_COLOURS)]


def _edge(inside: np.ndarray) -> np.ndarray:
    """The rim, two pixels wide, of what is inside."""
    core = inside.copy()
    for axis in (0, 1):
        for shift in (-2, 2):
            core &= np.roll(inside, shift, axis)
    return inside & ~core


def _above(mask: np.ndarray, size: int) -> tuple[float, float]:
    """At the top of a region, in its middle, where a number hides no face."""
    inside = mask >= min(0.5, float(mask.max()))
    rows = np.flatnonzero(inside.any(1))
    columns = inside[rows[0] : rows[0] + 2 * size].any(0)
    return float(np.flatnonzero(columns).mean()), float(rows[0] + size)


def _label(pen: ImageDraw.ImageDraw, text: str, at: tuple[float, float], colour: Colour, size: int) -> None:
    x, y = at
    radius = size * 0.7
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(0, 0, 0), outline=colour, width=3)
    pen.text((x, y), text, fill=(255, 255, 255), font=ImageFont.load_default(size), anchor="mm")
