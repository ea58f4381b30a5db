"""Bare SVG shapes in canvas units (256 × 256, y down). Many small shapes of one colour share one path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

CANVAS: Final = 256.0

Point = tuple[float, float]


def number(value: float) -> str:
    """A coordinate with at most one decimal."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def _paint(fill: str, opacity: float) -> str:
    return f' fill="{fill}"' + (f' opacity="{opacity:.2f}"' if opacity < 1 else "")


def rect(
    x: float, y: float, width: float, height: float, fill: str, opacity: float = 1, radius: float = 0
) -> str:
    """A rectangle by its upper left corner."""
    corner = f' rx="{number(radius)}"' if radius else ""
    return (
        f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
        f"{corner}{_paint(fill, opacity)}/>"
    )


def ellipse(x: float, y: float, rx: float, ry: float, fill: str, opacity: float = 1) -> str:
    """An ellipse by its centre."""
    where = f'cx="{number(x)}" cy="{number(y)}" rx="{number(rx)}" ry="{number(ry)}"'
    return f"<ellipse {where}{_paint(fill, opacity)}/>"


def path(data: str, fill: str, opacity: float = 1) -> str:
    """A filled path."""
    return f'<path d="{data}"{_paint(fill, opacity)}/>'


def strokes(data: str, color: str, width: float, opacity: float = 1) -> str:
    """Open lines with round ends."""
    faint = f' opacity="{opacity:.2f}"' if opacity < 1 else ""
    pen = f'stroke="{color}" stroke-width="{number(width)}" stroke-linecap="round"'
    return f'<path d="{data}" fill="none" {pen}{faint}/>'


def polygon(points: Sequence[Point]) -> str:
    """Path data of a closed polygon."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points) + "Z"


def discs(circles: Iterable[tuple[float, float, float]]) -> str:
    """Path data of circles given as (x, y, radius); all turn the same way, so overlaps stay filled."""
    return "".join(
        f"M{number(x - r)} {number(y)}a{number(r)} {number(r)} 0 1 1 {number(2 * r)} 0"
        f"a{number(r)} {number(r)} 0 1 1 {number(-2 * r)} 0Z"
        for x, y, r in circles
    )


def boxes(rectangles: Iterable[tuple[float, float, float, float]]) -> str:
    """Path data of rectangles given as (x, y, width, height)."""
    return "".join(
        f"M{number(x)} {number(y)}h{number(w)}v{number(h)}h{number(-w)}Z" for x, y, w, h in rectangles
    )


def star(x: float, y: float, radius: float, thin: float = 0.28) -> str:
    """Path data of a four-pointed star."""
    t = radius * thin
    return polygon(
        [
            (x, y - radius), (x + t, y - t), (x + radius, y), (x + t, y + t),
            (x, y + radius), (x - t, y + t), (x - radius, y), (x - t, y - t),
        ]
    )  # fmt: skip


def gradient(uid: str, stops: Sequence[tuple[float, str, float]], horizontal: bool = False) -> str:
    """A linear gradient definition; stops are (offset 0–1, colour, opacity). Use it as `url(#uid)`."""
    x2, y2 = ("1", "0") if horizontal else ("0", "1")
    inner = "".join(f'<stop offset="{o:.2f}" stop-color="{c}" stop-opacity="{a:.2f}"/>' for o, c, a in stops)
    return f'<linearGradient id="{uid}" x1="0" y1="0" x2="{x2}" y2="{y2}">{inner}</linearGradient>'


def glow(uid: str, color: str, opacity: float, solid: float = 0) -> str:
    """A radial gradient definition fading to nothing; `solid` is the share of the radius that stays full."""
    return (
        f'<radialGradient id="{uid}">'
        f'<stop offset="{solid:.2f}" stop-color="{color}" stop-opacity="{opacity:.2f}"/>'
        f'<stop offset="1" stop-color="{color}" stop-opacity="0"/></radialGradient>'
    )
