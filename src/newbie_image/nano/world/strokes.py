"""The few drawing strokes of a body: outlined shapes, limbs as thick lines, and parts of a polyline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from newbie_image.nano.world import palette

Point = tuple[float, float]
OUTLINE = 4.0


def number(value: float) -> str:
    """A coordinate in SVG, to a tenth of a unit."""
    return f"{value:.1f}".removesuffix(".0")


def shape(d: str, fill: str, edge: str | None = None, width: float = OUTLINE) -> str:
    """A filled path with an outline; `edge` None takes the line of the fill, "none" leaves it out."""
    edge = palette.line(fill) if edge is None else edge
    outline = (
        "" if edge == "none" else f' stroke="{edge}" stroke-width="{number(width)}" stroke-linejoin="round"'
    )
    return f'<path d="{d}" fill="{fill}"{outline}/>'


def stroke(d: str, color: str, width: float = OUTLINE, cap: str = "round", dash: str = "") -> str:
    """An open path drawn as a line."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<path d="{d}" fill="none" stroke="{color}" stroke-width="{number(width)}" stroke-linecap="{cap}" '
        f'stroke-linejoin="round"{dashes}/>'
    )


def disc(x: float, y: float, rx: float, fill: str, ry: float | None = None, edge: str | None = None) -> str:
    """An outlined ellipse; `edge` as in `shape`."""
    edge = palette.line(fill) if edge is None else edge
    outline = "" if edge == "none" else f' stroke="{edge}" stroke-width="{number(OUTLINE)}"'
    ry = rx if ry is None else ry
    place = f'cx="{number(x)}" cy="{number(y)}" rx="{number(rx)}" ry="{number(ry)}"'
    return f'<ellipse {place} fill="{fill}"{outline}/>'


def polygon(points: Sequence[Point], fill: str, edge: str | None = None) -> str:
    """A closed straight-edged shape; `edge` as in `shape`."""
    return shape(polyline(points) + "Z", fill, edge)


def polyline(points: Sequence[Point]) -> str:
    """The path data of a polyline."""
    return "M" + "L".join(f"{number(x)},{number(y)}" for x, y in points)


def bend(points: Sequence[Point]) -> str:
    """Path data of a line from the first to the last of three points, rounded at the middle one."""
    if len(points) != 3:
        return polyline(points)
    (ax, ay), (bx, by), (cx, cy) = points
    n = number
    p, q = (ax + (bx - ax) * 0.65, ay + (by - ay) * 0.65), (cx + (bx - cx) * 0.65, cy + (by - cy) * 0.65)
    return f"M{n(ax)},{n(ay)}L{n(p[0])},{n(p[1])}Q{n(bx)},{n(by)} {n(q[0])},{n(q[1])}L{n(cx)},{n(cy)}"


def length(points: Sequence[Point]) -> float:
    """Length of a polyline, in units."""
    return sum(math.dist(p, q) for p, q in pairwise(points))


def cut(points: Sequence[Point], start: float, end: float) -> list[Point]:
    """The part of a polyline between two distances (units) from its beginning."""
    part: list[Point] = []
    at = 0.0
    for p, q in pairwise(points):
        span = math.dist(p, q)
        low, high = max(start, at), min(end, at + span)
        if low < high:
            ends = [
                ((p[0] + (q[0] - p[0]) * f), (p[1] + (q[1] - p[1]) * f))
                for f in ((low - at) / span, (high - at) / span)
            ]
            part += ends if not part else ends[1:]
        at += span
    return part


def limb(points: Sequence[Point], width: float, fill: str, cap: str = "butt", shade: bool = True) -> str:
    """A limb or sleeve along a polyline: outline, shadow on its right and lower side, light."""
    d = bend(points)
    parts = [stroke(d, palette.line(fill), width + 2 * OUTLINE, cap)]
    parts.append(stroke(d, palette.shadow(fill) if shade else fill, width, cap))
    if shade:
        light = bend([(x - width * 0.12, y - width * 0.08) for x, y in points])
        parts.append(stroke(light, fill, width * 0.72, cap))
    return "".join(parts)


def flared(points: Sequence[Point], widths: Sequence[float], fill: str) -> str:
    """A bell sleeve along a polyline, `widths` wide at each of its points."""
    left: list[Point] = []
    right: list[Point] = []
    for i, (x, y) in enumerate(points):
        before, after = points[max(0, i - 1)], points[min(len(points) - 1, i + 1)]
        dx, dy = after[0] - before[0], after[1] - before[1]
        norm = math.hypot(dx, dy) or 1.0
        nx, ny = -dy / norm * widths[i] / 2, dx / norm * widths[i] / 2
        left.append((x + nx, y + ny))
        right.append((x - nx, y - ny))
    lower = left if left[-1][1] > right[-1][1] else right
    dark = polygon([*points, *lower[::-1]], palette.shadow(fill), "none")
    outline = stroke(polyline([*left, *right[::-1]]) + "Z", palette.line(fill))
    return polygon([*left, *right[::-1]], fill, "none") + dark + outline
