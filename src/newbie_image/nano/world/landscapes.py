"""Wide outdoor backdrops: open sky, beach, mountain, snowfield and starry sky."""

from __future__ import annotations

import math
import random

from newbie_image.nano.world.drawing import (
    CANVAS,
    Point,
    boxes,
    discs,
    ellipse,
    glow,
    gradient,
    number,
    path,
    polygon,
    rect,
    strokes,
)
from newbie_image.nano.world.heavens import BETWEEN_PEAKS, clouds, night_sky, sky
from newbie_image.nano.world.light import Light, ground
from newbie_image.nano.world.palette import mix


def hill(y: float, height: float, phase: float, waves: float = 1.0) -> str:
    """Path data of a wavy rise whose lower edge is the picture's; `y` is the foot of its waves."""
    points: list[Point] = [(0, CANVAS), (0, y)]
    points += [
        (x, y - height * (0.5 + 0.5 * math.sin(phase + waves * 2 * math.pi * x / CANVAS)))
        for x in range(0, 257, 16)
    ]
    return polygon([*points, (CANVAS, CANVAS)])


def _fir(x: float, foot: float, height: float) -> str:
    w = height * 0.3
    top = foot - height
    tiers = [(0.0, 0.42, 0.55), (0.22, 0.72, 0.8), (0.48, 1.0, 1.0)]
    return "".join(
        polygon([(x, top + a * height), (x + w * s, top + b * height), (x - w * s, top + b * height)])
        for a, b, s in tiers
    )


def _fir_snow(x: float, foot: float, height: float) -> str:
    w = height * 0.3
    top = foot - height
    out = ""
    for a, b, s in ((0.0, 0.42, 0.55), (0.22, 0.72, 0.8), (0.48, 1.0, 1.0)):
        tip, low = top + a * height, top + (a + (b - a) * 0.62) * height
        half = w * s * 0.62
        out += polygon(
            [
                (x, tip - 1),
                (x + half, low),
                (x + half * 0.4, low - height * 0.05),
                (x, low + height * 0.03),
                (x - half * 0.45, low - height * 0.05),
                (x - half, low),
            ]
        )
    return out


def open_sky(light: Light, uid: str, rng: random.Random, free_x: float) -> str:
    """Nothing but sky: towering clouds around, a sea of clouds underfoot."""
    parts = [sky(light, uid, rng, CANVAS, free_x, cloudy=False)]
    if light.hour == "sunset":
        # The sun of an open sky stands above the clouds, where it can be seen.
        parts.append(
            f"<defs>{glow(uid + 'high', '#fff2b0', 0.9, 0.2)}</defs>"
            + ellipse(free_x, 64, 80, 70, f"url(#{uid}high)")
            + ellipse(free_x, 64, 26, 26, "#ff9a4a")
        )
    above = [] if light.hour == "night" else [(136, 40, 64)]
    around = [*above, (18, 62, 84), (236, 92, 92), (110, 110, 60), (10, 150, 96), (250, 168, 90)]
    parts.append(
        clouds([(x + rng.uniform(-8, 8), y + rng.uniform(-6, 6), w) for x, y, w in around], light, rng, 0.92)
    )
    floor = [(20, 236, 130), (118, 246, 140), (222, 238, 130)]
    parts.append(clouds([(x + rng.uniform(-10, 10), y, w) for x, y, w in floor], light, rng, 1))
    white = {"day": "#ffffff", "sunset": "#ffd9c4", "night": "#6b78bd"}[light.hour]
    parts.append(rect(0, 236, CANVAS, 20, mix(white, "#8d97a6", 0.35) if light.weather == "rain" else white))
    return "".join(parts)


def beach(light: Light, uid: str, rng: random.Random, free_x: float) -> str:
    """Sea to the horizon, surf, sand, a palm leaning in from the side."""
    horizon = 118.0
    sea_far, sea_near = light("#2f8fd0"), light("#5fd0dc")
    parts = [
        sky(light, uid, rng, horizon, free_x),
        f"<defs>{gradient(uid + 'sea', [(0, sea_far, 1), (1, sea_near, 1)])}</defs>",
        rect(0, horizon, CANVAS, 70, f"url(#{uid}sea)"),
    ]
    glints = "".join(
        f"M{number(rng.uniform(0, 250))} {number(y)}h{number(rng.uniform(8, 20))}" for y in range(124, 172, 3)
    )
    parts.append(strokes(glints, light("#e8fbff", 0.6), 1.6, 0.7))
    if light.hour == "sunset":
        parts.append(
            strokes(
                "".join(
                    f"M{number(free_x - w)} {y}h{number(2 * w)}"
                    for y, w in ((123, 26), (129, 20), (136, 15), (144, 11), (153, 7))
                ),
                "#ffcf7a",
                2.6,
                0.9,
            )
        )
    sand, deep = light("#f7e2b0"), light("#eccf92")
    shore = "M0 178Q30 168 64 176T128 174T192 178T256 172V256H0Z"
    parts.append(path(shore, light("#ffffff", 0.6)))
    parts.append(path("M0 186Q30 175 64 183T128 181T192 185T256 179V256H0Z", deep))
    parts.append(path("M0 194Q60 184 128 190T256 187V256H0Z", sand))
    parts.append(path(discs((rng.uniform(0, 256), rng.uniform(198, 252), 1.3) for _ in range(16)), deep))
    side = 1 if rng.random() < 0.5 else -1
    parts.append(_palm(light, side))
    return "".join(parts)


def _palm(light: Light, side: int) -> str:
    """A palm at the left edge, mirrored to the right for side = -1."""
    trunk, leaf, shade = light("#b58a58"), light("#58b85c"), light("#3c9a52")
    crown = (14, 34)
    fronds = [(-30, 8), (-18, 46), (22, 52), (52, 40), (66, 8), (50, -26), (6, -34)]

    def frond(dx: float, dy: float, droop: float) -> str:
        cx, cy = crown
        ex, ey = cx + dx, cy + dy
        mx, my = cx + dx * 0.55, cy + dy * 0.5 - droop
        out = f"M{cx} {cy}Q{number(mx)} {number(my - 9)} {number(ex)} {number(ey)}"
        return f"{out}Q{number(mx)} {number(my + 9)} {cx} {cy}Z"

    drawn = (
        path("M-4 200Q0 110 9 34L20 36Q14 120 12 200Z", trunk)
        + strokes("M-1 180l12 2M1 158l12 2M3 136l11 2M5 114l10 2M6 92l10 2M8 70l9 2", light("#94693e"), 1.6)
        + path("".join(frond(dx, dy, 22) for dx, dy in fronds[::2]), shade)
        + path("".join(frond(dx, dy, 24) for dx, dy in fronds[1::2]), leaf)
        + path(discs([(10, 40, 5), (20, 41, 5)]), light("#9a6a40"))
    )
    return drawn if side > 0 else f'<g transform="matrix(-1 0 0 1 256 0)">{drawn}</g>'


def mountain(light: Light, uid: str, rng: random.Random, free_x: float) -> str:
    """Snow-capped peaks over firs and a meadow."""
    parts = [sky(light, uid, rng, 150, BETWEEN_PEAKS, cloudy=False)]
    far = polygon(
        [(-20, 160), (20, 74), (58, 118), (92, 66), (130, 110), (176, 60), (212, 112), (244, 78), (280, 160)]
    )
    parts.append(path(far, light("#b4c6e4"), 0.9))
    for x, top, half, base in (
        (26 + rng.uniform(-6, 6), 34, 92, 186),
        (226 + rng.uniform(-6, 6), 26, 96, 186),
        (128 + rng.uniform(-6, 6), 14, 98, 186),
    ):
        parts.append(path(polygon([(x - half, base), (x, top), (x + half, base)]), light("#8399cc")))
        parts.append(
            path(
                polygon(
                    [(x, top), (x + half, base), (x + half * 0.2, base), (x + 8, top + 70), (x - 4, top + 40)]
                ),
                light("#667db3"),
            )
        )
        slope = half / (base - top)
        snow = [
            (x, top),
            (x + 52 * slope, top + 52),
            (x + 20 * slope, top + 40),
            (x + 6 * slope, top + 60),
            (x - 12 * slope, top + 42),
            (x - 30 * slope, top + 58),
            (x - 48 * slope, top + 48),
        ]
        parts.append(path(polygon(snow), light("#ffffff", 0.75)))
        parts.append(
            path(polygon([(x, top), snow[1], snow[2], snow[3], (x - 3, top + 26)]), light("#d6e2f4", 0.85))
        )
    parts.append(path(hill(176, 14, rng.uniform(0, 6)), light("#8fbf8a")))
    parts.append(
        path(
            "".join(
                _fir(x + rng.uniform(-5, 5), 178 + rng.uniform(-4, 4), rng.uniform(28, 44))
                for x in range(2, 260, 18)
            ),
            light("#4f8a6e"),
        )
    )
    parts.append(ground(light, uid, 176, "#9ccf7e", "#74b562"))
    parts.append(
        path(discs((rng.uniform(0, 256), rng.uniform(188, 250), 2.0) for _ in range(20)), light("#f6f2c8"))
    )
    return "".join(parts)


def snowfield(light: Light, uid: str, rng: random.Random, free_x: float) -> str:
    """White hills and firs heavy with snow."""
    pale = Light(light.time, light.weather or ("snowing" if light.hour == "day" else None))
    parts = [sky(pale, uid, rng, 140, free_x, cloudy=False)]
    parts.append(path(hill(136, 26, rng.uniform(0, 6)), light("#d3e1f2", 0.8)))
    parts.append(
        path(
            "".join(_fir(x + rng.uniform(-6, 6), 140, rng.uniform(26, 42)) for x in range(6, 260, 20)),
            light("#8fb0c0", 0.9),
        )
    )
    parts.append(path(hill(150, 16, rng.uniform(0, 6), 1.5), light("#e6eef9", 0.75)))
    firs = [(12.0, 196.0, 168.0), (246.0, 194.0, 158.0), (128 + rng.uniform(-4, 4), 170.0, 138.0)]
    parts.append(path(boxes((x - 5, foot - 4, 10, 12) for x, foot, _ in firs), light("#8a6a58")))
    parts.append(path("".join(_fir(*fir) for fir in firs), light("#4f8a80")))
    parts.append(path("".join(_fir_snow(*fir) for fir in firs), light("#ffffff", 0.7)))
    stops = [(0.0, light("#ffffff", 0.7), 1.0), (1.0, light("#cfdff4", 0.8), 1.0)]
    parts.append(
        f"<defs>{gradient(uid + 'snow', stops)}</defs>"
        + path("M0 186Q64 168 128 180T256 178V256H0Z", f"url(#{uid}snow)")
    )
    parts.append(
        strokes(
            "M20 216q20 -7 44 0M150 208q24 -7 46 0M70 240q26 -8 54 0M190 238q20 -6 40 0",
            light("#b5cbea", 0.8),
            2.4,
        )
    )
    return "".join(parts)


def starry_sky(light: Light, uid: str, rng: random.Random, free_x: float) -> str:
    """The Milky Way and a crescent over a dark hill."""
    grass = path(hill(238, 12, rng.uniform(0, 6)), "#1d2258") + path(
        hill(250, 8, rng.uniform(0, 6)), "#151944"
    )
    veil = ""
    if light.weather == "rain":
        row = [(10.0, 30.0, 100.0), (96.0, 24.0, 110.0), (180.0, 30.0, 110.0)]
        veil = clouds(
            [(x + rng.uniform(-14, 14), y, w) for x, y, w in row], Light("night", "rain"), rng, 0.55
        )
    return night_sky(uid, rng) + veil + grass
