"""Outdoor backdrops: each a sky (except the starry one) and a ground with what tells the place from any other."""

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
from newbie_image.nano.world.heavens import clouds, night_sky, petal, sky
from newbie_image.nano.world.light import Light
from newbie_image.nano.world.palette import mix


def _ground(light: Light, uid: str, y: float, far: str, near: str) -> str:
    stops = [(0.0, light(far), 1.0), (1.0, light(near), 1.0)]
    return f"<defs>{gradient(uid + 'ground', stops)}</defs>" + rect(
        0, y, CANVAS, CANVAS - y, f"url(#{uid}ground)"
    )


def _hill(y: float, height: float, phase: float, waves: float = 1.0) -> str:
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
    around = [(18, 62, 84), (136, 40, 64), (236, 92, 92), (110, 110, 60), (10, 150, 96), (250, 168, 90)]
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
    x, y = rng.uniform(222, 234), rng.uniform(190, 196)
    parts.append(
        path(
            polygon(
                [
                    (x, y),
                    *(
                        (x + 8 * math.sin(0.6 + k * 1.257), y + 7 * math.cos(0.6 + k * 1.257))
                        for k in range(0)
                    ),
                ]
            ),
            sand,
        )
    )
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
        return f"M{cx} {cy}Q{number(mx)} {number(my - 9)} {number(ex)} {number(ey)}Q{number(mx)} {number(my + 9)} {cx} {cy}Z"

    drawn = (
        path("M-4 200Q0 110 9 34L20 36Q14 120 12 200Z", trunk)
        + strokes("M-1 180l12 2M1 158l12 2M3 136l11 2M5 114l10 2M6 92l10 2M8 70l9 2", light("#94693e"), 1.6)
        + path("".join(frond(dx, dy, 22) for dx, dy in fronds[::2]), shade)
        + path("".join(frond(dx, dy, 24) for dx, dy in fronds[1::2]), leaf)
        + path(discs([(10, 40, 5), (20, 41, 5)]), light("#9a6a40"))
    )
    return drawn if side > 0 else f'<g transform="matrix(-1 0 0 1 256 0)">{drawn}</g>'


def forest(light: Light, uid: str, rng: random.Random, free_x: float) -> str:
    """Trunks in rows, deeper green behind, a leafy roof above, shafts of light."""
    parts = [
        rect(0, 0, CANVAS, 200, light("#b5dca4")),
        f"<defs>{glow(uid + 'clearing', light('#f4fbd4'), 0.95, 0.1)}</defs>",
        ellipse(128, 96, 120, 100, f"url(#{uid}clearing)"),
    ]
    if light.hour != "day":
        top, middle, low = light.sky()
        color = low if light.hour == "sunset" else middle
        parts = [rect(0, 0, CANVAS, 200, color)]
        body = {"sunset": "#ff8a4a", "night": "#fff0bd"}[light.hour]
        parts.append(
            f"<defs>{glow(uid + 'clearing', body, 0.75, 0.1)}</defs>"
            + ellipse(free_x, 84, 70, 70, f"url(#{uid}clearing)")
            + ellipse(free_x, 84, 18, 18, body)
        )
        if light.hour == "night":
            parts.append(
                path(
                    discs(
                        (rng.uniform(0, 256), rng.uniform(50, 120), rng.uniform(0.8, 1.5)) for _ in range(20)
                    ),
                    "#fdf6d8",
                )
            )
    parts.append(
        path(
            boxes((x + rng.uniform(-5, 5), 30, rng.uniform(6, 9), 140) for x in range(8, 256, 27)),
            light("#8fae86"),
            0.8,
        )
    )
    parts.append(
        path(
            discs(
                (x + rng.uniform(-6, 6), 150 + rng.uniform(-8, 8), rng.uniform(18, 26))
                for x in range(0, 270, 24)
            ),
            light("#86c07c"),
        )
    )
    parts.append(_ground(light, uid, 160, "#8cc76f", "#6cae5c"))
    bark, dark = light("#96704f"), light("#7a593f")
    trunks = [
        (10.0, 22.0),
        (128 + rng.uniform(-5, 5), 16.0),
        (244.0, 22.0),
        (66 + rng.uniform(-6, 6), 12.0),
        (190 + rng.uniform(-6, 6), 12.0),
    ]
    data = "".join(
        f"M{number(x - w / 2)} 0h{number(w)}Q{number(x + w * 0.42)} 120 {number(x + w * 0.9)} 192Q{number(x)} 184 {number(x - w * 0.9)} 192Q{number(x - w * 0.42)} 120 {number(x - w / 2)} 0Z"
        for x, w in trunks
    )
    parts.append(path(data, bark))
    parts.append(
        strokes(
            "".join(
                f"M{number(x + w * 0.22)} 40Q{number(x + w * 0.2)} 120 {number(x + w * 0.4)} 182"
                for x, w in trunks
            ),
            dark,
            3,
            0.7,
        )
    )
    for y, size, color in ((26.0, 26.0, "#4f9c58"), (12.0, 25.0, "#66b565"), (-4.0, 22.0, "#83ca76")):
        parts.append(
            path(
                discs(
                    (x + rng.uniform(-7, 7), y + rng.uniform(-7, 7), size * rng.uniform(0.8, 1.1))
                    for x in range(0, 270, 26)
                ),
                light(color),
            )
        )
    blades = "".join(
        f"M{number(x)} {number(y)}l3 -8l3 8Z"
        for x, y in ((rng.uniform(0, 250), rng.uniform(180, 254)) for _ in range(24))
    )
    parts.append(path(blades, light("#57994d")))
    return "".join(parts)


def cherry_blossoms(light: Light, uid: str, rng: random.Random, free_x: float) -> str:
    """Blossoming crowns overhead, branches from both sides, pale hills of more of them, petals on the grass."""
    parts = [sky(light, uid, rng, 150, free_x, cloudy=False)]
    parts.append(
        path(
            discs(
                (x + rng.uniform(-6, 6), 146 + rng.uniform(-10, 6), rng.uniform(15, 24))
                for x in range(0, 270, 22)
            ),
            light("#fbcfe0"),
        )
    )
    parts.append(_ground(light, uid, 158, "#b9dc9a", "#98c87f"))
    bark = light("#8a6060")
    parts.append(path("M-8 200Q8 150 4 90Q2 50 -10 20H14Q18 60 22 96Q24 160 34 200Q14 192 -8 200Z", bark))
    parts.append(
        path(
            "M264 200Q248 150 250 100Q252 60 262 30H244Q238 70 236 100Q234 160 222 200Q244 192 264 200Z", bark
        )
    )
    parts.append(strokes("M12 84Q44 60 92 44M246 92Q216 62 168 46M20 62Q40 40 60 26", bark, 5))
    crowns = [(x + rng.uniform(-7, 7), y + rng.uniform(-5, 5), r) for x, y, r in (
        (0, 20, 34), (34, 10, 30), (70, 6, 28), (106, 2, 26), (140, 0, 25), (176, 4, 28), (212, 8, 30), (250, 18, 34),
        (8, 62, 24), (36, 44, 22), (66, 38, 19), (94, 34, 16), (166, 36, 17), (196, 42, 20), (226, 48, 22), (252, 66, 24),
    )]  # fmt: skip
    parts.append(path(discs(crowns), light("#f08cb2")))
    parts.append(path(discs((x - 3, y - 5, r * 0.84) for x, y, r in crowns), light("#fbaeca")))
    parts.append(
        path(
            discs((x - 8 + rng.uniform(-6, 6), y - 10 + rng.uniform(-4, 4), r * 0.42) for x, y, r in crowns),
            light("#ffd3e2"),
        )
    )
    dots = [
        (x + rng.uniform(-0.8, 0.8) * r, y + rng.uniform(-0.8, 0.8) * r, 2.2)
        for x, y, r in crowns
        for _ in range(2)
    ]
    parts.append(path(discs(dots), light("#fff2f6")))
    parts.append(ellipse(128, 236, 130, 26, light("#fbc9da"), 0.7))
    parts.append(
        path(
            "".join(petal(rng.uniform(0, 256), rng.uniform(176, 252), rng) for _ in range(18)),
            light("#f9a8c4"),
        )
    )
    return "".join(parts)


def cityscape(light: Light, uid: str, rng: random.Random, free_x: float) -> str:
    """Two rows of towers with windows, lit at night, over a street with a crossing."""
    parts = [sky(light, uid, rng, 150, free_x)]
    night = light.hour == "night"
    far = "".join(
        polygon([(x, 196), (x, y), (x + 22, y), (x + 22, 196)])
        for x, y in ((x, rng.uniform(48, 84)) for x in range(-6, 256, 22))
    )
    parts.append(path(far, light("#a9bfd8"), 0.85))
    towers = [
        (-4, 44, 36),
        (36, 84, 28),
        (66, 62, 22),
        (102, 34, 34),
        (140, 70, 26),
        (168, 90, 24),
        (194, 56, 28),
        (224, 30, 38),
    ]
    colors = ("#93a9c9", "#c9b8ae", "#a3b7cf")
    windows: list[tuple[float, float, float, float]] = []
    dark: list[tuple[float, float, float, float]] = []
    for k, color in enumerate(colors):
        data = ""
        for x, y, w in towers[k::3]:
            top = y + rng.uniform(-7, 7)
            data += polygon([(x, 206), (x, top), (x + w, top), (x + w, 206)])
            columns = int(w // 9)
            gap = (w - columns * 5) / (columns + 1)
            for row in range(int((200 - top) // 11)):
                for column in range(columns):
                    window = (x + gap + column * (5 + gap), top + 6 + row * 11, 5.0, 6.0)
                    (windows if rng.random() < 0.62 else dark).append(window)
        parts.append(path(data, light(color)))
    parts.append(
        path(
            boxes(windows), "#ffe28a" if night else "#ffd590" if light.hour == "sunset" else light("#e9f4fb")
        )
    )
    parts.append(path(boxes(dark), light("#6f86a8")))
    parts.append(rect(0, 202, CANVAS, 8, light("#d4d2d6")) + _ground(light, uid, 209, "#8f93a2", "#7d8190"))
    stripes = "".join(
        polygon(
            [
                (128 + d * 0.8, 222),
                (128 + (d + 16) * 0.8, 222),
                (128 + (d + 16) * 1.3, 254),
                (128 + d * 1.3, 254),
            ]
        )
        for d in range(-152, 150, 32)
    )
    parts.append(path(stripes, light("#eceaf0"), 0.8))
    return "".join(parts)


def flower_field(light: Light, uid: str, rng: random.Random, free_x: float) -> str:
    """Hills in bands of flowers, bigger towards the front, and tall stems at both edges."""
    parts = [sky(light, uid, rng, 100, free_x)]
    parts.append(path(_hill(100, 18, rng.uniform(0, 6)), light("#a8d8a0")))
    parts.append(_ground(light, uid, 104, "#9ad27c", "#62b058"))
    for y, color in ((108, "#f9a9c6"), (118, "#fbe08a"), (129, "#f58fa0"), (141, "#d9b2f0")):
        parts.append(
            path(
                discs((x + rng.uniform(-2, 2), y + rng.uniform(-2.5, 2.5), 3.4) for x in range(0, 260, 8)),
                light(color),
            )
        )
    colors = ("#ff7fa8", "#fff4f4", "#ffd23f", "#e05a6e", "#b98af0")
    near: dict[str, str] = dict.fromkeys(colors, "")
    hearts: list[tuple[float, float, float]] = []
    stems = ""
    spots = [
        (x + rng.uniform(-7, 7), y + rng.uniform(-5, 5), size)
        for y, step, size in ((154, 24, 4.0), (174, 28, 5.0), (197, 32, 6.0), (224, 36, 7.5), (248, 38, 8.5))
        for x in range(-4, 262, step)
    ]
    spots += [
        (x, y + rng.uniform(-6, 6), 10.0)
        for x, y in ((8, 150), (246, 156), (128, 168), (20, 196), (238, 206))
    ]
    for x, y, size in spots:
        stems += f"M{number(x)} {number(y)}v{number(size * 2.2)}"
        color = rng.choice(colors)
        near[color] += discs(
            (x + size * 0.62 * math.cos(k * 1.2566), y + size * 0.62 * math.sin(k * 1.2566), size * 0.5)
            for k in range(5)
        )
        hearts.append((x, y, size * 0.36))
    parts.append(strokes(stems, light("#4a9a4c"), 1.8))
    parts += [path(data, light(color)) for color, data in near.items() if data]
    parts.append(path(discs(hearts), light("#ffb52e")))
    return "".join(parts)


def mountain(light: Light, uid: str, rng: random.Random, free_x: float) -> str:
    """Snow-capped peaks over firs and a meadow."""
    parts = [sky(light, uid, rng, 150, free_x)]
    far = polygon(
        [(-20, 160), (20, 74), (58, 118), (92, 66), (130, 110), (176, 60), (212, 112), (244, 78), (280, 160)]
    )
    parts.append(path(far, light("#b4c6e4"), 0.9))
    for x, top, half, base in (
        (26 + rng.uniform(-6, 6), 34, 86, 170),
        (226 + rng.uniform(-6, 6), 26, 90, 170),
        (128 + rng.uniform(-6, 6), 14, 92, 172),
    ):
        parts.append(path(polygon([(x - half, base), (x, top), (x + half, base)]), light("#8c9fc8")))
        parts.append(
            path(
                polygon(
                    [(x, top), (x + half, base), (x + half * 0.2, base), (x + 8, top + 70), (x - 4, top + 40)]
                ),
                light("#7488b6"),
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
    parts.append(path(_hill(176, 14, rng.uniform(0, 6)), light("#8fbf8a")))
    parts.append(
        path(
            "".join(
                _fir(x + rng.uniform(-5, 5), 178 + rng.uniform(-4, 4), rng.uniform(28, 44))
                for x in range(2, 260, 18)
            ),
            light("#4f8a6e"),
        )
    )
    parts.append(_ground(light, uid, 176, "#9ccf7e", "#74b562"))
    parts.append(
        path(discs((rng.uniform(0, 256), rng.uniform(188, 250), 2.0) for _ in range(20)), light("#f6f2c8"))
    )
    return "".join(parts)


def snowfield(light: Light, uid: str, rng: random.Random, free_x: float) -> str:
    """White hills and firs heavy with snow."""
    pale = Light(light.time, light.weather or ("snowing" if light.hour == "day" else None))
    parts = [sky(pale, uid, rng, 140, free_x, cloudy=False)]
    parts.append(path(_hill(136, 26, rng.uniform(0, 6)), light("#d3e1f2", 0.8)))
    parts.append(
        path(
            "".join(_fir(x + rng.uniform(-6, 6), 140, rng.uniform(26, 42)) for x in range(6, 260, 20)),
            light("#8fb0c0", 0.9),
        )
    )
    parts.append(path(_hill(150, 16, rng.uniform(0, 6), 1.5), light("#e6eef9", 0.75)))
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
    grass = path(_hill(238, 12, rng.uniform(0, 6)), "#1d2258") + path(
        _hill(250, 8, rng.uniform(0, 6)), "#151944"
    )
    veil = ""
    if light.weather == "rain":
        row = [(10.0, 30.0, 100.0), (96.0, 24.0, 110.0), (180.0, 30.0, 110.0)]
        veil = clouds(
            [(x + rng.uniform(-14, 14), y, w) for x, y, w in row], Light("night", "rain"), rng, 0.55
        )
    return night_sky(uid, rng) + veil + grass
