"""The ten things a character can hold, drawn about the hand at HAND. Each has its own fixed colours."""

from __future__ import annotations

import math
from typing import Final

from newbie_image.nano.world import palette
from newbie_image.nano.world.strokes import disc, number, polygon, shape, stroke

HAND: Final = (64.0, -130.0)


def draw(held: str) -> str:
    """The object itself, before the fingers are laid over it."""
    return _DRAWINGS[held]()


def _umbrella() -> str:
    teal, white = "#2fb5b0", "#f7fbfb"
    canopy = "M42,-318C44,-410 134,-410 138,-318"
    canopy += "Q127,-328 114,-318Q102,-328 90,-318Q78,-328 66,-318Q54,-328 42,-318Z"
    gore = "M90,-387C74,-384 66,-350 66,-318Q78,-328 90,-318Q102,-328 114,-318C114,-350 106,-384 90,-387Z"
    middle = "M90,-387L90,-318M90,-387C74,-384 66,-350 66,-318M90,-387C106,-384 114,-350 114,-318"
    handle = "M90,-320L66,-112Q62,-96 50,-102"
    edge = palette.line(teal)
    return (
        stroke(handle, "#4a3a34", 11)
        + stroke(handle, "#c89a66", 4)
        + '<g transform="rotate(8 90 -318)">'
        + stroke("M90,-387L90,-400", edge, 7)
        + shape(canopy, teal, "none")
        + shape(gore, white, "none")
        + stroke(middle, edge, 3)
        + stroke(canopy, edge)
        + "</g>"
    )


def _book() -> str:
    cover = shape("M30,-154L68,-146L106,-154L106,-98L68,-90L30,-98Z", "#8a4b2c")
    left = shape("M35,-161Q54,-162 68,-150L68,-98Q54,-108 35,-106Z", "#fffaf0")
    right = shape("M101,-161Q82,-162 68,-150L68,-98Q82,-108 101,-106Z", "#efe6d6")
    text = "M42,-148L60,-143M42,-136L60,-131M42,-124L60,-119M76,-143L94,-148M76,-131L94,-136M76,-119L94,-124"
    return f'<g transform="translate(2,-34)">{cover}{left}{right}{stroke(text, "#8f8296", 4)}</g>'


def _sword() -> str:
    blade = "M56,-166L92,-352L102,-364L107,-350L74,-164Z"
    light = "M64,-166L102,-362L107,-350L74,-164Z"
    return (
        stroke("M60,-112L66,-156", "#3b2a2a", 14)
        + stroke("M60,-112L66,-156", "#7a3f2a", 7)
        + shape(blade, "#c4d0e2", "none")
        + shape(light, "#f4f8ff", "none")
        + stroke(blade + "Z", "#3d4560")
        + stroke("M40,-168L92,-158", "#6a4a10", 17)
        + stroke("M40,-168L92,-158", "#f2c02e", 9)
        + disc(59, -106, 8, "#f2c02e")
    )


def _cup() -> str:
    handle = stroke("M98,-152Q118,-154 116,-138Q112,-124 96,-128", "#4b4656", 13)
    handle += stroke("M98,-152Q118,-154 116,-138Q112,-124 96,-128", "#ffffff", 6)
    mug = shape("M50,-162L100,-162L97,-114Q75,-106 53,-114Z", "#ffffff", "#4b4656")
    side = shape("M84,-160L98,-160L95,-115Q88,-111 82,-111Z", "#d5d3e2", "none")
    band = shape("M52,-144L99,-144L98,-128L53,-128Z", "#3fa7e0", "none")
    coffee = disc(75, -162, 25, "#6b3f22", 8)
    steam = "M66,-178q-8,-9 0,-17q8,-8 0,-17M86,-178q-8,-9 0,-17q8,-8 0,-17"
    return handle + mug + side + band + coffee + stroke(steam, "#6f7488", 11) + stroke(steam, "#ffffff", 6)


def _balloon() -> str:
    red = "#e8323c"
    return (
        stroke("M64,-130Q84,-190 92,-286", "#4b4656", 4)
        + shape("M92,-294L84,-282L100,-282Z", red)
        + disc(92, -332, 36, red, 40)
        + shape("M112,-362Q134,-330 108,-300Q92,-292 80,-296Q112,-312 112,-362Z", "#b91f3a", "none")
        + disc(80, -348, 9, "#ffc9c4", 12, "none")
    )


def _flower() -> str:
    petal, x, y = "#f0509a", 84.0, -200.0
    petals = "".join(
        disc(x + 22 * math.cos(angle), y + 22 * math.sin(angle), 17, petal)
        for angle in (math.radians(a) for a in range(-90, 270, 60))
    )
    return (
        stroke("M62,-104Q70,-140 84,-190", "#1f5a34", 12)
        + stroke("M62,-104Q70,-140 84,-190", "#45b35c", 5)
        + shape("M76,-156Q96,-172 110,-152Q94,-138 76,-156Z", "#45b35c")
        + petals
        + disc(x, y, 20, petal, edge="none")
        + disc(x, y, 13, "#ffd53d")
    )


def _microphone() -> str:
    return (
        polygon([(52, -104), (68, -101), (88, -178), (66, -184)], "#34323e")
        + stroke("M65,-186L90,-179", "#1f1d28", 14)
        + stroke("M65,-186L90,-179", "#ef476f", 7)
        + disc(82, -206, 26, "#c3c8d6")
        + stroke(
            "M68,-218L96,-194M64,-204L86,-187M78,-227L102,-206M96,-220L70,-192M84,-228L62,-203", "#7c8296", 3
        )
        + disc(75, -214, 6, "#ffffff", edge="none")
    )


def _lollipop() -> str:
    x, y, r = 88.0, -208.0, 36.0

    def rim(angle: float, radius: float = r) -> str:
        return f"{number(x + radius * math.cos(angle))},{number(y + radius * math.sin(angle))}"

    arms = "".join(
        f"M{x},{y}Q{rim(a - 0.5, r * 0.75)} {rim(a)}A{r},{r} 0 0 1 {rim(a + 0.63)}"
        f"Q{rim(a + 0.13, r * 0.75)} {x},{y}Z"
        for a in (math.radians(k * 72) for k in range(5))
    )
    return (
        stroke("M60,-104L82,-184", "#4b4656", 11)
        + stroke("M60,-104L82,-184", "#ffffff", 5)
        + disc(x, y, r, "#fff4fa", edge="none")
        + shape(arms, "#f0468c", "none")
        + f'<circle cx="{x}" cy="{y}" r="{r}" fill="none" stroke="#5a2348" stroke-width="4"/>'
    )


def _stuffed_toy() -> str:
    fur, pale = "#c98a4e", "#f6dcb4"
    return (
        disc(48, -98, 10, fur)
        + disc(92, -98, 10, fur)
        + disc(70, -116, 25, fur, 24)
        + disc(70, -112, 14, pale, 14, "none")
        + disc(48, -176, 12, fur)
        + disc(92, -176, 12, fur)
        + disc(70, -158, 29, fur, 26)
        + disc(70, -149, 13, pale, 10, "none")
        + disc(70, -154, 5, "#3a2620", 4, "none")
        + disc(58, -163, 4.5, "#3a2620", edge="none")
        + disc(82, -163, 4.5, "#3a2620", edge="none")
    )


def _wand() -> str:
    x, y = 90.0, -216.0
    star = [
        (
            x + (38 if i % 2 == 0 else 17) * math.sin(math.pi * i / 5),
            y - (38 if i % 2 == 0 else 17) * math.cos(math.pi * i / 5),
        )
        for i in range(10)
    ]
    return (
        stroke("M56,-100L84,-196", "#6a3a80", 13)
        + stroke("M56,-100L84,-196", "#ffb3d9", 6)
        + polygon(star, "#ffcf2e", "#7a4a10")
        + polygon([star[0], star[1], (x, y), star[9]], "#fff3b0", "none")
    )


_DRAWINGS: Final = {
    "umbrella": _umbrella,
    "book": _book,
    "sword": _sword,
    "cup": _cup,
    "balloon": _balloon,
    "flower": _flower,
    "microphone": _microphone,
    "lollipop": _lollipop,
    "stuffed_toy": _stuffed_toy,
    "wand": _wand,
}
