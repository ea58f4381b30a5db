"""Plain backgrounds, rooms, and the city."""

from __future__ import annotations

import random
from typing import Final

from newbie_image.nano.world.drawing import (
    CANVAS,
    boxes,
    ellipse,
    glow,
    gradient,
    number,
    path,
    polygon,
    rect,
    strokes,
)
from newbie_image.nano.world.heavens import sky
from newbie_image.nano.world.light import Light, ground

PLAIN: Final = {
    "white_background": ("#ffffff", "#f7f7f9"),
    "pink_background": ("#ffc6da", "#fbb3cc"),
    "blue_background": ("#a9d3ff", "#93c3f8"),
    "yellow_background": ("#ffeb96", "#fbe07c"),
}
QUILT_PATCHES: Final = ((124, 162), (154, 176), (186, 162), (218, 176), (128, 188), (190, 188))


def plain(name: str, uid: str) -> str:
    """One colour, the slightest shade deeper at the foot."""
    top, low = PLAIN[name]
    return f"<defs>{gradient(uid + 'bg', [(0, top, 1), (1, low, 1)])}</defs>" + rect(
        0, 0, CANVAS, CANVAS, f"url(#{uid}bg)"
    )


def classroom(uid: str, rng: random.Random) -> str:
    """A wide green blackboard with chalk marks over wooden panels, desks before it, a window at the side."""
    wall, frame, wood = "#f6ead2", "#c79a63", "#dfb682"
    parts = [
        "<defs>",
        gradient(uid + "board", [(0, "#4b8c75", 1), (1, "#3a7561", 1)]),
        "</defs>",
        rect(0, 0, CANVAS, 176, wall),
        rect(0, 132, CANVAS, 44, "#e8cfa2"),
        path(boxes((x, 132, 1.6, 44) for x in range(16, 256, 28)), "#d6b988"),
        rect(0, 129, CANVAS, 5, "#cfa873"),
        rect(-4, 14, 210, 108, frame, radius=3),
        rect(0, 20, 200, 96, f"url(#{uid}board)"),
        rect(30, 116, 140, 6, "#e2bd88"),
        # Daylight from a window at the right edge.
        rect(214, 8, 46, 116, "#fffdf6"),
        rect(219, 13, 40, 106, "#aedcf8"),
        path(boxes([(214, 62, 46, 5), (240, 8, 4, 116)]), "#fffdf6"),
        path(boxes([(256 - 8, 4, 12, 124)]), "#fbf3e4"),
    ]
    chalk = "".join(
        f"M{number(x)} {number(y)}q{number(w * 0.25)} {number(-5)} {number(w * 0.5)} 0t{number(w * 0.5)} 0"
        for x, y, w in (
            (14, 36, 40),
            (14, 50, 28),
            (112, 34, 30),
            (112, 48, 38),
            (112, 62, 22),
            (160, 36, 30),
        )
    )
    parts.append(strokes(chalk, "#f2f7ee", 2.4, 0.85))
    parts.append(strokes("M66 58l14 -26l14 26Z M106 92h44M162 70a10 10 0 1 0 .1 0", "#ffe9a8", 2.2, 0.8))
    parts.append(path(boxes([(60, 112, 9, 4), (76, 113, 7, 3), (128, 111, 18, 5)]), "#fff6f0"))
    parts.append(rect(0, 174, CANVAS, 84, "#d9b184"))
    parts.append(
        path(
            "".join(
                polygon([(x0, 176), (x0 + 2, 176), (x1 + 3, 256), (x1, 256)])
                for x0, x1 in ((20, -30), (70, 40), (128, 128), (184, 214), (236, 290))
            ),
            "#c69a6b",
        )
    )
    shift = rng.uniform(-4, 4)
    for middle in (-2.0, 128.0, 258.0):
        x = middle + shift
        parts.append(path(boxes([(x - 24, 178, 4, 34), (x + 20, 178, 4, 34)]), "#8d8f9c"))
        parts.append(
            rect(x - 31, 166, 62, 14, wood, radius=2) + rect(x - 31, 176, 62, 6, "#b98a56", radius=1)
        )
    parts.append(
        path(
            boxes(
                [
                    (64 + shift - 20, 172, 3, 30),
                    (64 + shift + 17, 172, 3, 30),
                    (192 + shift - 20, 172, 3, 30),
                    (192 + shift + 17, 172, 3, 30),
                ]
            ),
            "#9d9fab",
        )
    )
    parts.append(path(boxes([(64 + shift - 25, 160, 50, 12), (192 + shift - 25, 160, 50, 12)]), "#cda06a"))
    return "".join(parts)


def bedroom(uid: str, rng: random.Random) -> str:
    """A curtained window, a bed with pillow and quilt, a glowing lamp, a shelf of books."""
    wall, stripe, floor = "#e6dcf4", "#ddd0ef", "#d8b78f"
    curtain, fold = "#f6b3c4", "#e596ad"
    parts = [
        "<defs>",
        glow(uid + "lamp", "#fff3bf", 0.95, 0.1),
        gradient(uid + "pane", [(0, "#8fc9f4", 1), (1, "#dff2fc", 1)]),
        "</defs>",
        rect(0, 0, CANVAS, 200, wall),
        path(boxes((x, 0, 10, 200) for x in range(4, 256, 24)), stripe),
        rect(0, 196, CANVAS, 60, floor),
        path(boxes([(0, 214, 256, 1.5), (0, 234, 256, 1.5)]), "#c6a177"),
        rect(0, 193, CANVAS, 5, "#fbf6ef"),
        # Window with curtains.
        rect(70, 10, 92, 92, "#fffaf2", radius=2),
        rect(76, 16, 80, 80, f"url(#{uid}pane)"),
        path(boxes([(114, 16, 4, 80), (76, 54, 80, 4)]), "#fffaf2"),
        rect(56, 4, 120, 5, "#b98a5e", radius=2),
        path("M60 8H98Q96 60 74 84Q72 104 76 124H58Z", curtain),
        path("M172 8H134Q136 60 158 84Q160 104 156 124H174Z", curtain),
        strokes(
            "M72 10Q72 60 64 120M84 10Q84 54 70 80M160 10Q160 60 168 120M148 10Q148 54 162 80", fold, 2.5
        ),
        path(boxes([(60, 82, 16, 6), (156, 82, 16, 6)]), "#fff2c8"),
        # Shelf of books and a picture.
        rect(4, 50, 46, 5, "#b98a5e", radius=1),
    ]
    x = 7.0
    for color in ("#d98a94", "#8fb0de", "#e8ce86", "#94c4a0", "#b79bd6"):
        height = rng.uniform(18, 25)
        parts.append(rect(x, 50 - height, 7.4, height, color, radius=1))
        x += 8
    # Bedside lamp, then the bed across the lower wall.
    parts += [
        ellipse(222, 46, 50, 50, f"url(#{uid}lamp)"),
        rect(220.5, 0, 3, 30, "#a88a70"),
        path("M208 28H236L246 54H198Z", "#ffd97a"),
        path(boxes([(198, 51, 48, 4)]), "#f2b95c"),
        rect(-6, 124, 18, 96, "#b98a5e", radius=5),
        rect(244, 150, 18, 70, "#b98a5e", radius=5),
        rect(6, 160, 246, 44, "#fdf7f2", radius=6),
        path("M84 156Q150 146 250 156V206H76Q72 176 84 156Z", "#9fb8ea"),
        path("M84 156Q94 150 108 153L100 206H76Q72 176 84 156Z", "#c6d6f6"),
        path("M14 160Q10 140 24 138H66Q82 138 80 156Q80 166 66 166H24Q16 166 14 160Z", "#ffffff"),
        strokes("M20 160Q46 166 74 158", "#d9d2e4", 2),
        path("".join(f"M{px} {py}l5 5l-5 5l-5 -5Z" for px, py in QUILT_PATCHES), "#dfe8fb"),
        ellipse(128, 234, 104, 17, "#f3c6d2", 0.85),
        ellipse(128, 234, 84, 12, "#f9dce3", 0.85),
    ]
    return "".join(parts)


def cityscape(light: Light, uid: str, rng: random.Random, free_x: float) -> str:
    """Two rows of towers with windows, lit at night, over a street with a crossing."""
    parts = [sky(light, uid, rng, 150, free_x)]
    night = light.hour == "night"
    far = "".join(
        polygon([(x, 207), (x, y), (x + 22, y), (x + 22, 207)])
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
    parts.append(rect(0, 202, CANVAS, 8, light("#d4d2d6")) + ground(light, uid, 210, "#8f93a2", "#7d8190"))
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
