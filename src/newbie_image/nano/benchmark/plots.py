"""Plots as SVG text: shares with their intervals, beside each other or over a weight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from newbie_image.nano.benchmark.intervals import Estimate

COLORS: Final = (
    "#3f68c8", "#d8404a", "#4fa35c", "#c98a1b", "#8a5fc0",
    "#2fa7a3", "#7a5c4a", "#d86aa0", "#6b7280", "#20242c",
)  # fmt: skip
WIDTH: Final = 760
ROW: Final = 18


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" '
        f'stroke-width="{width:g}"/>'
    )


def _page(height: float, title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" font-family="sans-serif" fill="#20242c">'
    )
    drawn = _text(12, 20, title, size=14) + "".join(parts)
    return f'{head}<rect width="100%" height="100%" fill="#fff"/>{drawn}</svg>\n'


def interval_plot(title: str, groups: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Group (a set, an attribute) → arm → share, as points with intervals on a line from 0 to 100 %; the
    scale widens to what there is where shares are small or below 0."""
    shown = [e for arms in groups.values() for e in arms.values() if not math.isnan(e.value)]
    lowest = min([0.0, *(e.low for e in shown)])
    highest = max([0.01, *(e.high for e in shown)])
    top = 1.0 if highest > 0.4 else highest
    left, right = 210.0, WIDTH - 60.0

    def along(value: float) -> float:
        return left + (value - lowest) / (top - lowest) * (right - left)

    y, parts = 44.0, list[str]()
    arms = list(dict.fromkeys(arm for group in groups.values() for arm in group))
    for group, estimates in groups.items():
        parts.append(_text(12, y + 4, group, size=12))
        for arm, estimate in estimates.items():
            color = COLORS[arms.index(arm) % len(COLORS)]
            if not math.isnan(estimate.value):
                parts.append(_line(along(estimate.low), y, along(estimate.high), y, color, 3))
                parts.append(f'<circle cx="{along(estimate.value):.1f}" cy="{y:.1f}" r="4" fill="{color}"/>')
                parts.append(_text(WIDTH - 8, y + 4, f"{100 * estimate.value:.1f}", "end", 11))
            parts.append(_text(left - 8, y + 4, arm, "end", 11))
            y += ROW
        y += 8
    for step in range(5):
        value = lowest + (top - lowest) * step / 4
        parts.insert(0, _line(along(value), 34, along(value), y, "#d7dae0"))
        parts.append(_text(along(value), y + 14, f"{100 * value:.3g} %", "middle", 11))
    return _page(y + 26, title, parts)


def response_plot(title: str, responses: Mapping[str, Mapping[float, Estimate]]) -> str:
    """Attribute → weight → share, as lines with intervals over the weight."""
    weights = sorted({weight for points in responses.values() for weight in points})
    span = max(1e-9, weights[-1] - weights[0])
    left, right, top, bottom = 60.0, WIDTH - 170.0, 40.0, 340.0

    def at(weight: float, value: float) -> tuple[float, float]:
        return left + (weight - weights[0]) / span * (right - left), bottom - value * (bottom - top)

    parts: list[str] = []
    for step in range(5):
        y = at(weights[0], step / 4)[1]
        parts += [_line(left, y, right, y, "#d7dae0"), _text(left - 8, y + 4, f"{25 * step} %", "end", 11)]
    for weight in weights:
        parts.append(_text(at(weight, 0)[0], bottom + 18, f"{weight:g}", "middle", 11))
    for number, (name, points) in enumerate(responses.items()):
        color = COLORS[number % len(COLORS)]
        known = [(w, points[w]) for w in sorted(points) if not math.isnan(points[w].value)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(w, e.value) for w, e in known))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        for weight, estimate in known:
            (x, low), (_, high) = at(weight, estimate.low), at(weight, estimate.high)
            parts.append(_line(x, low, x, high, color))
        parts.append(_text(right + 14, top + 16 * number + 8, name, size=11))
        parts.append(_line(right + 2, top + 16 * number + 4, right + 12, top + 16 * number + 4, color, 3))
    return _page(bottom + 34, title, parts)
