"""Skies with sun, moon, stars and clouds behind a landscape; rain, snow and petals in the air."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from newbie_image.nano.world.drawing import (
    CANVAS,
    boxes,
    discs,
    ellipse,
    glow,
    gradient,
    number,
    path,
    polygon,
    rect,
    star,
    strokes,
)
from newbie_image.nano.world.light import Light
from newbie_image.nano.world.palette import mix

BETWEEN_PEAKS: Final = 177.0
"""Where the mountains leave the moon to be seen."""

PETAL: Final = "#ff8fb8"
FALLING_BEHIND: Final = {"rain": 60, "snowing": 46, "falling_petals": 38}
FALLING_IN_FRONT: Final = {"rain": 16, "snowing": 16, "falling_petals": 14}

Box = tuple[float, float, float, float]


def cloud(x: float, y: float, width: float, rng: random.Random) -> str:
    """Path data of a heaped cloud with a flat underside; (x, y) is the middle of that underside."""
    bumps = [
        (x - width * 0.36, 0.15),
        (x - width * 0.14, 0.24),
        (x + width * 0.12, 0.29),
        (x + width * 0.35, 0.16),
    ]
    circles = [(bx, y - r * width * 0.8, r * width * rng.uniform(0.9, 1.1)) for bx, r in bumps]
    lowest = max(cy + r for _, cy, r in circles)
    foot = lowest - y
    return discs(circles) + boxes([(x - width * 0.46, y, width * 0.92, foot)])


def clouds(
    places: Sequence[tuple[float, float, float]], light: Light, rng: random.Random, opacity: float = 0.9
) -> str:
    """Clouds given as (x, y of the underside, width), with a shaded lower side."""
    white = {"day": "#ffffff", "sunset": "#ffd9c4", "night": "#6b78bd"}[light.hour]
    shade = {"day": "#cfe3f6", "sunset": "#e89a96", "night": "#4a569c"}[light.hour]
    if light.weather == "rain":
        white, shade = light(mix(white, "#8d97a6", 0.55)), light(mix(shade, "#717c8e", 0.6))
    elif light.weather == "snowing":
        white, shade = mix(white, "#93a5bf", 0.3), mix(shade, "#8295b3", 0.4)
    state = rng.getstate()
    lower = "".join(cloud(x, y + width * 0.05, width, rng) for x, y, width in places)
    rng.setstate(state)
    upper = "".join(cloud(x, y, width * 0.94, rng) for x, y, width in places)
    return path(lower, shade, opacity) + path(upper, white, opacity)


def stars(rng: random.Random, count: int, height: float, biggest: float = 1.6) -> str:
    """Points of light down to `height`."""
    return path(
        discs(
            (rng.uniform(0, CANVAS), height * rng.random() ** 1.2, rng.uniform(0.7, biggest))
            for _ in range(count)
        ),
        "#fdf6d8",
        0.9,
    )


def sky(
    light: Light, uid: str, rng: random.Random, horizon: float, free_x: float, cloudy: bool = True
) -> str:
    """A sky down to `horizon` with sun or moon; `free_x` is a place that nobody covers."""
    top, middle, low = light.sky()
    parts = [
        f"<defs>{gradient(uid + 'sky', [(0, top, 1), (0.55, middle, 1), (1, low, 1)])}</defs>",
        # Its lowest colour goes on below, so that no backdrop leaves a gap under the horizon.
        rect(0, horizon, CANVAS, CANVAS - horizon, low),
        rect(0, 0, CANVAS, horizon + 4, f"url(#{uid}sky)"),
    ]
    wet = light.weather == "rain"
    if light.hour == "night":
        parts.append(stars(rng, 14 if wet else 46, horizon * 0.9))
        x, y = (free_x if free_x in (128.0, BETWEEN_PEAKS) else 222.0), 30.0
        parts.append(f"<defs>{glow(uid + 'moon', '#fff3c4', 0.5, 0.3)}</defs>")
        parts.append(ellipse(x, y, 38, 38, f"url(#{uid}moon)"))
        parts.append(ellipse(x, y, 16, 16, "#fff0bd", 0.7 if wet else 1))
        parts.append(path(discs([(x - 5, y - 3, 3.5), (x + 5, y + 5, 2.5), (x + 4, y - 7, 2)]), "#e9d798"))
    elif light.hour == "sunset":
        y = horizon - 20
        parts.append(f"<defs>{glow(uid + 'sun', '#fff2b0', 0.9, 0.2)}</defs>")
        parts.append(ellipse(free_x, y, 90, 70, f"url(#{uid}sun)", 0.5 if wet else 1))
        parts.append(ellipse(free_x, y, 27, 27, "#ff7a3c" if not wet else "#e08a6a"))
        parts.append(ellipse(free_x, y, 22, 22, "#ffb04a" if not wet else "#eaa27a"))
    elif not wet and light.weather != "snowing":
        parts.append(f"<defs>{glow(uid + 'sun', '#fff8cf', 0.95, 0.3)}</defs>")
        parts.append(ellipse(230, 22, 36, 36, f"url(#{uid}sun)"))
    if wet:
        row = [(-8.0, 30.0, 100.0), (78.0, 22.0, 110.0), (170.0, 27.0, 110.0), (250.0, 24.0, 100.0)]
        parts.append(
            clouds([(x + rng.uniform(-14, 14), y + rng.uniform(-4, 4), w) for x, y, w in row], light, rng)
        )
    elif cloudy:
        x = rng.uniform(16, 46)
        row = [(x, rng.uniform(34, 50), 62.0), (x + 150, rng.uniform(56, 76), 54.0)]
        if light.hour == "day":
            row.append((x + 92, rng.uniform(22, 32), 46.0))
        parts.append(clouds(row, light, rng, 0.85))
    return "".join(parts)


def falling(weather: str, rng: random.Random, avoid: Sequence[Box], front: bool) -> str:
    """What falls through the air, behind the people (many) or in front of them (few, not over `avoid`).

    Args:
        weather: one of attributes.WEATHERS.
        rng: places and sizes.
        avoid: (left, top, right, bottom) in canvas units.
        front: whether this lies over the people.
    """
    count = (FALLING_IN_FRONT if front else FALLING_BEHIND)[weather]
    spots: list[tuple[float, float]] = []
    for _ in range(count):
        x, y = rng.uniform(-4, CANVAS + 8), rng.uniform(-6, CANVAS)
        margin = 14 if weather == "rain" else 5
        if front and any(
            left - margin < x < right + margin and top - margin < y < low + margin
            for left, top, right, low in avoid
        ):
            continue
        spots.append((x, y))
    if weather == "rain":
        lines = "".join(
            f"M{number(x)} {number(y)}l{number(-length * 0.28)} {number(length)}"
            for x, y, length in ((x, y, rng.uniform(10, 19)) for x, y in spots)
        )
        return strokes(lines, "#f4faff", 1.5, 0.75)
    if weather == "snowing":
        flakes = [(x, y, rng.uniform(2.0, 4.2)) for x, y in spots]
        return path(discs((x + 0.7, y + 0.9, r) for x, y, r in flakes), "#8fa6c8", 0.5) + path(
            discs(flakes), "#ffffff"
        )
    return path("".join(petal(x, y, rng) for x, y in spots), PETAL)


def petal(x: float, y: float, rng: random.Random) -> str:
    """Path data of one notched petal about seven units long, turned at random."""
    size = rng.uniform(4.6, 7.0)
    unit = complex(*_direction(rng))

    def at(along: float, across: float) -> str:
        turned = unit * complex(along * size, across * size)
        return f"{number(x + turned.real)} {number(y + turned.imag)}"

    notch = f"{at(1, -0.35)}L{at(0.7, 0)}L{at(1, 0.35)}"
    return f"M{at(-1, 0)}Q{at(-0.1, -0.95)} {notch}Q{at(-0.1, 0.95)} {at(-1, 0)}Z"


def _direction(rng: random.Random) -> tuple[float, float]:
    x, y = rng.uniform(-1, 1), rng.uniform(-1, 1)
    length = max(0.1, (x * x + y * y) ** 0.5)
    return x / length, y / length


def night_sky(uid: str, rng: random.Random) -> str:
    """The starry sky itself: deep blue, the Milky Way aslant, bright stars and a crescent moon."""
    band = polygon([(-30, 130), (-30, 70), (120, -30), (290, -30), (290, 10), (110, 74)])
    parts = [
        "<defs>",
        gradient(
            uid + "sky", [(0, "#0b1038", 1), (0.5, "#232a72", 1), (0.8, "#51459c", 1), (1, "#8c62b0", 1)]
        ),
        glow(uid + "way", "#b7a8f5", 0.5),
        glow(uid + "moon", "#fff3c4", 0.45, 0.3),
        "</defs>",
        rect(0, 0, CANVAS, CANVAS, f"url(#{uid}sky)"),
        path(band, "#8f86e0", 0.2),
    ]
    for x, y, size in ((10, 84, 60), (70, 54, 66), (132, 30, 66), (200, 4, 70)):
        parts.append(
            f'<ellipse cx="{x}" cy="{y}" rx="{size}" ry="{size * 0.55:.0f}" fill="url(#{uid}way)" '
            f'transform="rotate(-30 {x} {y})"/>'
        )
    parts.append(stars(rng, 90, 230, 1.7))
    parts.append(
        path(
            discs((t, 112 - 0.6 * t + rng.uniform(-22, 22), rng.uniform(0.7, 1.5)) for t in range(0, 200, 5)),
            "#ffffff",
        )
    )
    bright = [
        (24, 28, 8),
        (66, 14, 5.5),
        (128, 18, 7),
        (166, 50, 6),
        (14, 100, 6),
        (128, 92, 6),
        (244, 96, 7),
        (104, 44, 5),
    ]
    parts.append(
        path(
            "".join(star(x + rng.uniform(-6, 6), y + rng.uniform(-5, 5), r) for x, y, r in bright), "#fff6cf"
        )
    )
    x, y = 222, 34
    parts.append(ellipse(x, y, 42, 42, f"url(#{uid}moon)"))
    parts.append(
        path(f"M{x - 2} {y - 20}A20 20 0 1 0 {x + 18} {y + 8}A17 17 0 0 1 {x - 2} {y - 20}Z", "#ffe9a0")
    )
    return "".join(parts)
