"""Outdoor backdrops full of growing things: forest, cherry trees and a field of flowers."""

from __future__ import annotations

import math
import random

from newbie_image.nano.world.drawing import (
    CANVAS,
    boxes,
    discs,
    ellipse,
    glow,
    number,
    path,
    rect,
    strokes,
)
from newbie_image.nano.world.heavens import petal, sky
from newbie_image.nano.world.landscapes import hill
from newbie_image.nano.world.light import Light, ground


def forest(light: Light, uid: str, rng: random.Random, free_x: float) -> str:
    """Trunks in rows, deeper green behind, a leafy roof above, shafts of light."""
    deep = 1.7 if light.hour == "sunset" else 1.2
    parts = [
        rect(0, 0, CANVAS, 200, light("#b5dca4")),
        f"<defs>{glow(uid + 'clearing', light('#f4fbd4'), 0.95, 0.1)}</defs>",
        ellipse(128, 96, 120, 100, f"url(#{uid}clearing)"),
    ]
    if light.hour != "day":
        _, middle, low = light.sky()
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
            light("#8fae86", deep),
            0.8,
        )
    )
    parts.append(
        path(
            discs(
                (x + rng.uniform(-6, 6), 150 + rng.uniform(-8, 8), rng.uniform(18, 26))
                for x in range(0, 270, 24)
            ),
            light("#86c07c", deep),
        )
    )
    parts.append(ground(light, uid, 160, "#8cc76f", "#6cae5c"))
    bark, dark = light("#96704f"), light("#7a593f")
    trunks = [
        (10.0, 22.0),
        (128 + rng.uniform(-5, 5), 16.0),
        (244.0, 22.0),
        (66 + rng.uniform(-6, 6), 12.0),
        (190 + rng.uniform(-6, 6), 12.0),
    ]
    data = "".join(
        f"M{number(x - w / 2)} 0h{number(w)}Q{number(x + w * 0.42)} 120 {number(x + w * 0.9)} 192"
        f"Q{number(x)} 184 {number(x - w * 0.9)} 192Q{number(x - w * 0.42)} 120 {number(x - w / 2)} 0Z"
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
                light(color, deep),
            )
        )
    blades = "".join(
        f"M{number(x)} {number(y)}l3 -8l3 8Z"
        for x, y in ((rng.uniform(0, 250), rng.uniform(180, 254)) for _ in range(24))
    )
    parts.append(path(blades, light("#57994d")))
    return "".join(parts)


def cherry_blossoms(light: Light, uid: str, rng: random.Random, free_x: float) -> str:
    """Blossoming crowns overhead, branches from both sides, more of them afar, petals on the grass."""
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
    parts.append(ground(light, uid, 158, "#b9dc9a", "#98c87f"))
    bark = light("#8a6060")
    parts.append(path("M-8 200Q8 150 4 90Q2 50 -10 20H14Q18 60 22 96Q24 160 34 200Q14 192 -8 200Z", bark))
    parts.append(
        path(
            "M264 200Q248 150 250 100Q252 60 262 30H244Q238 70 236 100Q234 160 222 200Q244 192 264 200Z", bark
        )
    )
    parts.append(strokes("M12 84Q44 60 92 44M246 92Q216 62 168 46M20 62Q40 40 60 26", bark, 5))
    crowns = [(x + rng.uniform(-7, 7), y + rng.uniform(-5, 5), r) for x, y, r in (
        (0, 20, 34), (34, 10, 30), (70, 6, 28), (106, 2, 26), (140, 0, 25), (176, 4, 28), (212, 8, 30),
        (250, 18, 34),
        (8, 62, 24), (36, 44, 22), (66, 38, 19), (94, 34, 16), (166, 36, 17), (196, 42, 20),
        (226, 48, 22), (252, 66, 24),
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


def flower_field(light: Light, uid: str, rng: random.Random, free_x: float) -> str:
    """Hills in bands of flowers, bigger towards the front, and tall stems at both edges."""
    parts = [sky(light, uid, rng, 100, free_x)]
    parts.append(path(hill(100, 18, rng.uniform(0, 6)), light("#a8d8a0")))
    parts.append(ground(light, uid, 104, "#9ad27c", "#62b058"))
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
    parts += [path(data, light(color, 0.75)) for color, data in near.items() if data]
    parts.append(path(discs(hearts), light("#ffb52e")))
    return "".join(parts)
