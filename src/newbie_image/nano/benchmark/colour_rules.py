"""The second evaluator: colours of hair, eyes, top and bottom by rule, from pixels at the detected figure.

Nothing here is trained. Each region's pixels vote for the colour of the world's palette that has a tone (as
lit, as drawn, in shadow) nearest to them, in the Oklab space (Björn Ottosson, 2020); pixels that are nearer
to skin, outline or the white of an eye do not vote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from newbie_image.nano.detector import HEAD_CENTER, Detection
from newbie_image.nano.readers import HIDDEN
from newbie_image.nano.world import attributes as a
from newbie_image.nano.world import palette
from newbie_image.nano.world.drawing import CANVAS
from newbie_image.nano.world.hair_back import Tones

RULES_VERSION: Final = 1
"""Raised with every change of a rule: it is part of the evaluator's hash."""
FARTHEST: Final = 0.09
"""Oklab distance beyond which a pixel is no colour of the palette."""
FEWEST: Final = 3
"""Votes below which a colour is not seen."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ColourRule:
    """How one attribute's colour is read.

    Args:
        values: the attribute's values, in their order.
        tones: Oklab tones of each value, and those of what else is there (`None`).
        boxes: where to look, in figure units about the ground between the feet of a standing figure: left,
            top, right, bottom. They move with the head.
    """

    values: Sequence[str]
    tones: Sequence[tuple[int | None, np.ndarray]]
    boxes: Sequence[Box]


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Oklab of sRGB colours (…, 3) in 0 to 255."""
    x = np.asarray(rgb, np.float32) / 255
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ],
        np.float32,
    )
    return np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ],
        np.float32,
    )


def _tone(color: str) -> np.ndarray:
    return oklab(np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], np.float32))


def _tones(
    by_value: Mapping[str, Sequence[str]], others: Sequence[str]
) -> list[tuple[int | None, np.ndarray]]:
    tones: list[tuple[int | None, np.ndarray]] = []
    for index, colors in enumerate(by_value.values()):
        tones += [(index, _tone(color)) for color in colors]
    return tones + [(None, _tone(color)) for color in others]


def _hair(color: str) -> tuple[str, str, str]:
    tones = Tones.of(color)
    return tones.base, tones.shade, palette.mix(tones.base, tones.light, 0.5)


def _dark_iris(color: str) -> str:
    return palette.mix(color, palette.shadow(color, 0.55), 0.5)


_SKIN: Final = (palette.SKIN, "#f6bfa6")
_CLOTHES: Final = {name: (color, palette.shadow(color)) for name, color in palette.CLOTHES.items()}
RULES: Final[Mapping[str, ColourRule]] = {
    "hair_color": ColourRule(
        a.HAIR_COLORS,
        _tones({name: _hair(name) for name in a.HAIR_COLORS}, (*_SKIN, palette.LINE)),
        ((-62.0, -376.0, 62.0, -330.0), (-92.0, -330.0, -72.0, -270.0), (72.0, -330.0, 92.0, -270.0)),
    ),
    "eye_color": ColourRule(
        a.EYE_COLORS,
        _tones(
            {
                name: (color, palette.mix(color, "#ffffff", 0.2), _dark_iris(color))
                for name, color in palette.EYES.items()
            },
            (*_SKIN, "#ffffff", "#2c2030", palette.mix(palette.SKIN, "#ffffff", 0.5), "#f7b0a8"),
        ),
        ((-50.0, -282.0, -24.0, -256.0), (24.0, -282.0, 50.0, -256.0)),
    ),
    "top_color": ColourRule(
        a.CLOTHES_COLORS,
        _tones(_CLOTHES, (*_SKIN, palette.LINE)),
        ((-34.0, -172.0, -10.0, -118.0), (10.0, -172.0, 34.0, -118.0)),
    ),
    "bottom_color": ColourRule(
        a.CLOTHES_COLORS,
        _tones(_CLOTHES, (*_SKIN, palette.LINE)),
        ((-32.0, -122.0, 32.0, -88.0),),
    ),
}  # fmt: skip
EYE_SHIFTS: Final = (0.0, -16.0, 16.0)
"""How far the features of a turned face lie to the side; the eyes are read where they are found best."""


def read_colours(picture: np.ndarray, found: Detection) -> dict[str, int]:
    """Attribute → index of the colour that is seen at a figure, HIDDEN where none is.

    Args:
        picture: (height, width, 3) uint8.
        found: the figure.
    """
    return {name: _read(picture, found, name, rule) for name, rule in RULES.items()}


def _read(picture: np.ndarray, found: Detection, name: str, rule: ColourRule) -> int:
    best = np.zeros(len(rule.values))
    for shift in EYE_SHIFTS if name == "eye_color" else (0.0,):
        pixels = [_pixels(picture, found, box, shift) for box in rule.boxes]
        votes = count_votes(np.concatenate(pixels), rule)
        if votes.sum() > best.sum():
            best = votes
    return int(best.argmax()) if best.max() >= FEWEST else HIDDEN


def _pixels(picture: np.ndarray, found: Detection, box: Box, shift: float) -> np.ndarray:
    """(count, 3) pixels of a box about a figure; none where it lies outside the picture."""
    place, (left, top, right, bottom) = found.place, box
    height, width, _ = picture.shape
    # The ground that a standing figure with this head would have: sitting and jumping move all of it.
    ground = found.head - HEAD_CENTER * place.scale

    def along(origin: float, value: float, side: int) -> int:
        return min(side, max(0, round((origin + value * place.scale) / CANVAS * side)))

    rows = slice(along(ground, top, height), along(ground, bottom, height))
    columns = slice(along(place.x, left + shift, width), along(place.x, right + shift, width))
    return picture[rows, columns].reshape(-1, 3)


def count_votes(pixels: np.ndarray, rule: ColourRule) -> np.ndarray:
    """(values,) how many of the pixels (count, 3) uint8 have each value's colour."""
    tones, values = _table(rule)
    distance = np.linalg.norm(oklab(pixels)[:, None] - tones[None], axis=-1)
    nearest = values[distance.argmin(1)]
    heard = nearest[(nearest != HIDDEN) & (distance.min(1) <= FARTHEST)]
    return np.bincount(heard, minlength=len(rule.values)).astype(float)


def _table(rule: ColourRule) -> tuple[np.ndarray, np.ndarray]:
    """(tones, 3) all tones, and the value of each; HIDDEN for what else is there."""
    name = id(rule)
    if name not in _TABLES:
        values = [HIDDEN if value is None else value for value, _ in rule.tones]
        _TABLES[name] = rule, np.stack([tone for _, tone in rule.tones]), np.array(values)
    return _TABLES[name][1:]


_TABLES: Final[dict[int, tuple[ColourRule, np.ndarray, np.ndarray]]] = {}
