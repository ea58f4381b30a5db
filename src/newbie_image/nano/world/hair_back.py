"""The hair behind head and body: what gives each of the twelve styles its silhouette."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from newbie_image.nano.world import palette
from newbie_image.nano.world.scene import Character

TIE: Final = "#fff4f0"


@dataclass(frozen=True)
class Tones:
    """The four tones of one head of hair, as `#rrggbb`."""

    base: str
    shade: str
    light: str
    line: str

    @classmethod
    def of(cls, hair_color: str) -> Tones:
        """The tones of a colour of attributes.HAIR_COLORS."""
        base = palette.HAIR[hair_color]
        if hair_color == "white":  # no lighter tone is left: its ring of light is a cool one
            light = palette.mix(base, "#b4bfe8", 0.6)
        else:
            light = palette.highlight(base, 0.34 if hair_color == "black" else 0.6)
        return cls(
            base=base,
            shade="#282430" if hair_color == "black" else palette.shadow(base, 0.36),
            light=light,
            line="#15121b" if hair_color == "black" else palette.line(base),
        )


def outlined(d: str, fill: str) -> str:
    """A path in the stroke of the group around it."""
    return f'<path d="{d}" fill="{fill}"/>'


def strands(d: str, color: str, width: float = 3) -> str:
    """Open strand lines."""
    return f'<path d="{d}" fill="none" stroke="{color}" stroke-width="{width:g}"/>'


def both_sides(fragment: str) -> str:
    """A fragment drawn for picture-right and its mirror image."""
    return f'{fragment}<g transform="scale(-1,1)">{fragment}</g>'


def layer(tone: Tones, fragment: str) -> str:
    """The group that gives every shape of a hair layer its outline."""
    return (
        f'<g stroke="{tone.line}" stroke-width="4" stroke-linejoin="round" '
        f'stroke-linecap="round">{fragment}</g>'
    )


def draw_back(character: Character, uid: str, rng: random.Random, dx: float) -> str:
    """The layer behind the body, as SVG elements in the character's coordinates (see face.draw_head)."""
    tone = Tones.of(character.hair_color)
    return layer(tone, _BACKS[character.hair_style](tone, rng))


def _nape(tone: Tones) -> str:
    """Close hair behind the head, for styles whose length is gathered elsewhere."""
    return outlined(
        "M-92,-320C-96,-250 -74,-214 -44,-208Q0,-198 44,-208C74,-214 96,-250 92,-320Z", tone.shade
    )


def _bob(tone: Tones, rng: random.Random) -> str:
    d = (
        "M-98,-330C-118,-280 -120,-228 -96,-200Q-76,-190 -52,-198Q0,-186 52,-198Q76,-190 96,-200"
        "C120,-228 118,-280 98,-330Z"
    )
    inner = "M-74,-300C-84,-240 -70,-206 -50,-200Q0,-190 50,-200C70,-206 84,-240 74,-300Z"
    return outlined(d, tone.base) + f'<path d="{inner}" fill="{tone.shade}" stroke="none"/>'


def _long(tone: Tones, rng: random.Random) -> str:
    tip = rng.uniform(-3, 3)
    d = (
        f"M-80,-345C-108,-270 -110,-160 -114,-104Q-100,-108 -94,-116Q-88,{-96 + tip:.0f} -78,-88Q-66,-98 "
        "-62,-110"
        f"Q-40,-92 0,-94Q40,-92 62,-110Q66,-98 78,-88Q88,{-96 - tip:.0f} 94,-116Q100,-108 114,-104"
        "C110,-160 108,-270 80,-345Z"
    )
    inner = "M-72,-300Q-80,-180 -66,-112Q0,-96 66,-112Q80,-180 72,-300Z"
    lines = strands("M-94,-240Q-98,-170 -95,-122M94,-240Q98,-170 95,-122", tone.shade, 4)
    return outlined(d, tone.base) + f'<path d="{inner}" fill="{tone.shade}" stroke="none"/>' + lines


def _hime(tone: Tones, rng: random.Random) -> str:
    d = "M-84,-345Q-108,-260 -108,-92H108Q108,-260 84,-345Z"
    inner = "M-74,-300Q-80,-180 -74,-94H74Q80,-180 74,-300Z"
    lines = strands("M-92,-220V-96M92,-220V-96", tone.shade, 4)
    lines += strands("M-101,-150V-120M101,-150V-120", tone.light, 5)
    return outlined(d, tone.base) + f'<path d="{inner}" fill="{tone.shade}" stroke="none"/>' + lines


def _wavy(tone: Tones, rng: random.Random) -> str:
    # Four outward scallops down each side, wider towards the tips.
    right = (
        "Q130,-316 110,-280Q136,-256 114,-226Q142,-200 118,-172Q144,-142 112,-112Q98,-94 74,-108Q58,-86 "
        "36,-104"
    )
    left = (
        "Q-58,-86 -74,-108Q-98,-94 -112,-112Q-144,-142 -118,-172Q-142,-200 -114,-226"
        "Q-136,-256 -110,-280Q-130,-316 -96,-340"
    )
    d = f"M96,-340{right}Q0,-84 -36,-104{left}Z"
    inner = "M-72,-300Q-92,-200 -66,-122Q0,-100 66,-122Q92,-200 72,-300Z"
    lines = both_sides(strands("M98,-284Q112,-258 98,-230Q122,-202 100,-172Q118,-148 98,-124", tone.shade, 4))
    return outlined(d, tone.base) + f'<path d="{inner}" fill="{tone.shade}" stroke="none"/>' + lines


def _ponytail(tone: Tones, rng: random.Random) -> str:
    sway = rng.uniform(-3, 3)
    d = (
        f"M10,-392C0,-430 -62,-438 -98,-400C-136,-358 -134,-262 -122,-214Q-116,-176 {-128 + sway:.0f},-150"
        "Q-96,-160 -86,-190Q-78,-176 -84,-160Q-62,-182 -64,-226C-66,-290 -60,-330 -30,-360Z"
    )
    lines = strands(
        "M-20,-398C-84,-402 -108,-330 -104,-214M-56,-376C-84,-336 -88,-270 -86,-212", tone.shade, 4
    )
    shine = strands("M-112,-352Q-118,-326 -117,-302", tone.light, 8)
    return outlined(d, tone.base) + lines + shine + _nape(tone)


def _side_ponytail(tone: Tones, rng: random.Random) -> str:
    return _nape(tone)


def _twintails(tone: Tones, rng: random.Random) -> str:
    d = (
        "M84,-372C126,-384 142,-330 136,-270C132,-220 140,-160 126,-102Q112,-112 110,-126Q104,-106 92,-98"
        "Q96,-150 92,-200C86,-262 92,-310 78,-340Z"
    )
    lines = strands("M104,-352C124,-310 112,-220 114,-150M94,-330C106,-290 98,-240 102,-180", tone.shade, 4)
    shine = strands("M126,-318Q130,-296 126,-274", tone.light, 7)
    return _nape(tone) + both_sides(outlined(d, tone.base) + lines + shine)


def _braids(tone: Tones, rng: random.Random) -> str:
    return _nape(tone)


def _buns(tone: Tones, rng: random.Random) -> str:
    bun = (
        f'<circle cx="76" cy="-386" r="38" fill="{tone.base}"/>'
        + strands(
            "M52,-376Q64,-352 92,-362M60,-398Q76,-414 94,-398Q104,-382 88,-374Q74,-374 76,-386", tone.line, 3
        )
        + strands("M62,-408Q74,-418 88,-413", tone.light, 6)
    )
    return _nape(tone) + both_sides(bun)


def _drills(tone: Tones, rng: random.Random) -> str:
    # A spiral curl: slanted turns, each narrower than the one above it, so that the whole is a drill.
    turns: list[str] = []
    dark = palette.mix(tone.base, tone.shade, 0.75)
    for i in range(6, -1, -1):
        y, x = -336 + i * 29, 97 + i * 1.8
        rx, ry = (38, 38, 35, 30, 23, 16, 8)[i], 20 if i < 6 else 22
        fill = tone.base if i % 2 == 0 else dark
        turns.append(
            f'<ellipse cx="{x:g}" cy="{y}" rx="{rx}" ry="{ry}" fill="{fill}" transform="rotate(-20 {x:g} '
            f'{y})"/>'
        )
    shine = strands(
        "M122,-344Q127,-336 122,-330M124,-284Q128,-276 122,-270M118,-224Q120,-219 116,-213", tone.light, 6
    )
    return _nape(tone) + both_sides("".join(turns) + shine)


def _spikes(tone: Tones, rng: random.Random) -> str:
    d = (
        "M-90,-330L-110,-222L-84,-232L-78,-204L-52,-218L-34,-196L0,-212L34,-196L52,-218L78,-204L84,-232"
        "L110,-222"
        "L90,-330Z"
    )
    return outlined(d, tone.shade)


def _short(tone: Tones, rng: random.Random) -> str:
    d = (
        "M-88,-330C-92,-270 -80,-244 -62,-226L-46,-214L-24,-222L0,-208L24,-222L46,-214L62,-226"
        "C80,-244 92,-270 88,-330Z"
    )
    return outlined(d, tone.shade)


_BACKS: Final[dict[str, Callable[[Tones, random.Random], str]]] = {
    "bob_cut": _bob,
    "long_hair": _long,
    "hime_cut": _hime,
    "wavy_hair": _wavy,
    "ponytail": _ponytail,
    "side_ponytail": _side_ponytail,
    "twintails": _twintails,
    "twin_braids": _braids,
    "double_bun": _buns,
    "twin_drills": _drills,
    "spiked_hair": _spikes,
    "short_hair": _short,
}
