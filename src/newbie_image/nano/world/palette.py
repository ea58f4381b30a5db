"""The world's colours: one base colour a tag, and how a light, a shadow and a line follow from it."""

from __future__ import annotations

import colorsys
from typing import Final

HAIR: Final = {
    "black": "#3a3644",
    "brown": "#8a5a3c",
    "blonde": "#f5d56b",
    "red": "#c9333f",
    "orange": "#f08a3c",
    "pink": "#f79ac0",
    "purple": "#8f63c9",
    "blue": "#3f6fd8",
    "aqua": "#4fd0d0",
    "green": "#58b368",
    "white": "#f2f1f6",
    "grey": "#9a9cab",
}
EYES: Final = {
    "blue": "#2f6fe0",
    "red": "#d8263a",
    "green": "#2fa84f",
    "yellow": "#f0b90f",
    "purple": "#8a3fd0",
    "brown": "#8a5428",
    "aqua": "#1fc4c8",
    "pink": "#f56aa8",
}
CLOTHES: Final = {
    "white": "#f6f4f2",
    "black": "#34323e",
    "red": "#d8404a",
    "blue": "#3f68c8",
    "green": "#4fa35c",
    "yellow": "#f2c744",
    "pink": "#f49ab8",
    "purple": "#8a5fc0",
}
SKIN: Final = "#ffe3d0"
LINE: Final = "#33283a"


def _rgb(color: str) -> tuple[float, float, float]:
    return int(color[1:3], 16) / 255, int(color[3:5], 16) / 255, int(color[5:7], 16) / 255


def _hex(rgb: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(min(1, max(0, c)) * 255):02x}" for c in rgb)


def mix(a: str, b: str, amount: float) -> str:
    """Linear mixture of two `#rrggbb` colours; amount 0 gives a, 1 gives b."""
    x, y = _rgb(a), _rgb(b)
    return _hex((x[0] + (y[0] - x[0]) * amount, x[1] + (y[1] - x[1]) * amount, x[2] + (y[2] - x[2]) * amount))


def shadow(color: str, amount: float = 0.28) -> str:
    """The cel shadow of a colour: darker, a little more saturated, its hue drawn towards violet."""
    h, light, s = colorsys.rgb_to_hls(*_rgb(mix(color, "#5a4a8a", amount * 0.6)))
    return _hex(colorsys.hls_to_rgb(h, light * (1 - amount * 0.45), min(1.0, s * 1.05)))


def highlight(color: str, amount: float = 0.45) -> str:
    """The lit side of a colour: towards a warm white."""
    return mix(color, "#fffaf0", amount)


def line(color: str) -> str:
    """The outline of a shape of this colour: a deep tone of it, near to LINE."""
    return mix(shadow(color, 0.6), LINE, 0.65)
