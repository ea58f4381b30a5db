"""The hair before the face: crown, fringe, side locks, ring of light, and tails that fall forward."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from newbie_image.nano.world import palette
from newbie_image.nano.world.face import draw_brows
from newbie_image.nano.world.hair_back import TIE, Tones, both_sides, layer, outlined, strands
from newbie_image.nano.world.scene import Character


@dataclass(frozen=True)
class Front:
    """How the hair falls before one face.

    Attributes:
        fringe: tips of the fringe as (x, y), from picture-right to picture-left.
        rise: how far the edge rises between two tips, in units.
        lock: y of the lower end of the side locks, or None for cropped sides that leave the ears free.
        lock_end: "point", "blunt" or "inward".
        width: half-width of the crown, in units.
        crown: y of the top of the hair.
        spiked: whether the crown breaks out into spikes all round.
    """

    fringe: tuple[tuple[float, float], ...]
    rise: float = 16
    lock: float | None = -214
    lock_end: str = "point"
    width: float = 96
    crown: float = -404
    spiked: bool = False


SPIKES: Final = (
    "M-90,-278L-130,-240Q-112,-268 -101,-296L-134,-292Q-116,-312 -103,-326L-132,-356Q-108,-358 -93,-366"
    "L-108,-412Q-78,-402 -60,-392L-50,-429Q-32,-418 -14,-402L10,-430Q20,-412 36,-400L70,-426Q68,-406 76,-384"
    "L120,-402Q104,-374 101,-350L134,-338Q114,-322 102,-296L132,-244Q108,-258 90,-278"
)
"""The outline of spiked hair, from the picture-left temple over the crown to the picture-right one."""

_PARTED: Final = ((54, -306), (30, -316), (2, -298), (-26, -314), (-52, -304))
_SWEPT: Final = ((60, -316), (36, -322), (12, -314), (-16, -304), (-48, -294))
_ROUND: Final = ((52, -313), (26, -309), (0, -307), (-26, -309), (-52, -313))
_MESSY: Final = ((60, -300), (38, -322), (22, -298), (-4, -318), (-20, -298), (-40, -320), (-58, -298))
_JAGGED: Final = ((58, -292), (30, -320), (10, -286), (-22, -318), (-50, -290))

FRONTS: Final = {
    "bob_cut": Front(_ROUND, rise=5, lock=-200, lock_end="inward", width=102),
    "long_hair": Front(_PARTED, lock=-168),
    "hime_cut": Front(((40, -309), (0, -309), (-40, -309)), rise=1, lock=-218, lock_end="blunt", width=98),
    "wavy_hair": Front(_SWEPT, rise=8, lock=-196, width=100),
    "ponytail": Front(_PARTED, lock=-226),
    "side_ponytail": Front(_SWEPT, rise=8, lock=-222),
    "twintails": Front(_PARTED, lock=-204),
    "twin_braids": Front(((40, -312), (14, -318), (-14, -318), (-40, -312)), rise=12, lock=-232),
    "double_bun": Front(_ROUND, rise=9, lock=-222),
    "twin_drills": Front(_PARTED, lock=-226),
    "spiked_hair": Front(_JAGGED, rise=26, lock=-246, width=94, spiked=True),
    "short_hair": Front(_MESSY, rise=10, lock=None, width=89, crown=-396),
}


def draw_front(character: Character, uid: str, rng: random.Random, dx: float) -> str:
    """The layer before the face, brows included, as SVG elements in the character's coordinates."""
    tone = Tones.of(character.hair_color)
    front = FRONTS[character.hair_style]
    parts = _EXTRA_BEFORE.get(character.hair_style, _nothing)(tone)
    parts += outlined(_path(front, rng, dx), tone.base)
    parts += _shading(front, tone, dx)
    parts += _EXTRA_AFTER.get(character.hair_style, _nothing)(tone)
    ring = _ring(front, tone, dx)
    return layer(tone, parts) + ring + draw_brows(character, dx)


def _path(front: Front, rng: random.Random, dx: float) -> str:
    w, top = front.width, front.crown
    temple = -278 if front.lock is not None else -306
    if front.spiked:
        d = [SPIKES]
    else:
        d = [f"M{-w + 4:g},{temple}C{-w - 10:g},-352 {-w * 0.72:g},{top:g} 0,{top:g}"]
        d.append(f"C{w * 0.72:g},{top:g} {w + 10:g},-352 {w - 4:g},{temple}")
    start = -334.0
    if front.lock is None:
        d.append(f"L{w - 8:g},-286L78,-304L72,-292Q70,-318 66,{start:g}")
    else:
        d.append(_lock(front, 1) + f"Q70,-300 68,{start:g}")
    previous = 68.0
    for x, y in front.fringe:
        x, y = x + dx * 0.7, y + rng.uniform(-1.5, 1.5)
        d.append(f"Q{previous + (x - previous) * 0.35:.1f},{y - 4:.1f} {x:.1f},{y:.1f}")
        previous = x - 8
        d.append(f"Q{x - 2:.1f},{y - front.rise * 0.6:.1f} {previous:.1f},{y - front.rise:.1f}")
    if front.lock is None:
        d.append(f"L-66,{start:g}Q-70,-318 -72,-292L-78,-304L{-w + 8:g},-286Z")
    else:
        d.append(f"L-68,{start:g}" + _lock(front, -1) + "Z")
    return "".join(d)


def _lock(front: Front, side: int) -> str:
    """The side lock's outline: from temple to fringe on picture-right, the other way on picture-left."""
    w, y = front.width, front.lock or -230.0
    temple = f"{(w - 4) * side:g},-278"
    if front.lock_end == "blunt":
        points = [f"{(w + 1) * side:g},{y:g}", f"{62 * side},{y:g}", f"{66 * side},-296"]
        return "L" + "L".join(points if side == 1 else [*points[::-1], temple])
    if front.lock_end == "inward":
        if side == 1:
            return f"Q{w + 14:g},{y - 34:g} {w - 32:g},{y:g}Q{w - 24:g},{y - 50:g} 68,-296"
        return f"L-68,-296Q{-w + 24:g},{y - 50:g} {-w + 32:g},{y:g}Q{-w - 14:g},{y - 34:g} {temple}"
    if side == 1:
        return f"Q{w + 3:g},{y - 30:g} 80,{y:g}Q78,{y - 34:g} 67,{max(y - 44, -262):g}Q72,-280 69,-296"
    return (
        f"L-69,-296Q-72,-280 -67,{max(y - 44, -262):g}Q-78,{y - 34:g} -80,{y:g}Q{-w - 3:g},{y - 30:g} "
        f"{temple}"
    )


def _shading(front: Front, tone: Tones, dx: float) -> str:
    x, w = dx * 0.5, front.width
    top = front.crown + 7
    lines = (
        f"M{x:.0f},{top:g}Q{x + 14:.0f},-366 {x + 18:.0f},-336M{x - 4:.0f},{top:g}Q{x - 30:.0f},-364 "
        f"{x - 36:.0f},-334"
    )
    sides = (
        f"M{w - 4:g},-330Q{w - 6:g},-300 {w - 14:g},-262L{w - 8:g},-240Q{w:g},-290 {w - 2:g},-330Z"
        if front.lock is not None
        else f"M{w - 4:g},-340L{w - 10:g},-300L{w - 20:g},-322Z"
    )
    crescent = (
        f"M30,{top:g}C{w - 16:g},{top + 12:g} {w + 6:g},-350 {w - 6:g},-288Q{w - 14:g},-352 30,{top:g}Z"
    )
    return (
        (f'<path d="{crescent}" fill="{tone.shade}" stroke="none"/>' if not front.spiked else "")
        + strands(lines, tone.shade, 3.5)
        + f'<g fill="{tone.shade}" stroke="none">{both_sides(f"<path d={chr(34)}{sides}{chr(34)}/>")}</g>'
    )


def _ring(front: Front, tone: Tones, dx: float) -> str:
    """The ring of light: a band over the crown, broken in the middle, its edges in zigzag."""
    x = dx * 0.5
    color = tone.light
    d = (
        f"M{-66 + x:g},-340Q{-54 + x:g},-366 {-26 + x:g},-374L{-30 + x:g},-362L{-38 + x:g},-364"
        f"L{-44 + x:g},-350"
        f"L{-52 + x:g},-354L{-60 + x:g},-334ZM{-14 + x:g},-377Q{24 + x:g},-380 {48 + x:g},-362"
        f"L{44 + x:g},-352"
        f"L{36 + x:g},-360L{28 + x:g},-354L{18 + x:g},-365L{8 + x:g},-358L{-2 + x:g},-367L{-12 + x:g},-362Z"
        f"M{55 + x:g},-356L{66 + x:g},-338L{60 + x:g},-334L{52 + x:g},-348Z"
    )
    return f'<path d="{d}" fill="{color}"/>'


def _nothing(tone: Tones) -> str:
    return ""


def _side_tail(tone: Tones) -> str:
    """One big tail from a tie at picture-right, before the shoulder."""
    d = (
        "M76,-352C110,-378 140,-344 136,-290C132,-232 138,-176 112,-118Q104,-126 104,-138Q96,-120 80,-112"
        "Q90,-160 86,-206C80,-262 96,-300 80,-326Z"
    )
    lines = strands("M100,-346C124,-300 108,-220 108,-164M94,-322C104,-280 94,-240 96,-182", tone.shade, 4)
    shine = strands("M122,-312Q127,-290 123,-268", tone.light, 8)
    return outlined(d, tone.base) + lines + shine + f'<circle cx="86" cy="-342" r="14" fill="{TIE}"/>'


def _ropes(tone: Tones) -> str:
    """Two braids before the shoulders: overlapping segments, a tie and a brush of hair below it."""
    parts = [outlined("M66,-128L54,-98Q66,-106 68,-94Q72,-106 86,-98L78,-128Z", tone.base)]
    middle = palette.mix(tone.base, tone.shade, 0.5)
    for i in range(5, -1, -1):
        x, y = 84 - i * 2.2, -240 + i * 20
        lean = 32 if i % 2 else -32
        fill = tone.base if i % 2 == 0 else middle
        parts.append(
            f'<ellipse cx="{x:g}" cy="{y}" rx="19" ry="13" fill="{fill}" transform="rotate({lean} {x:g} '
            f'{y})"/>'
        )
    parts.append(f'<rect x="60" y="-134" width="24" height="11" rx="5" fill="{TIE}"/>')
    return both_sides("".join(parts))


def _crown_spikes(tone: Tones) -> str:
    ridges = "M-116,-286L-84,-304M-116,-346L-80,-342M-92,-396L-64,-372M-44,-414L-36,-386M14,-416L8,-388"
    return strands(
        ridges + "M64,-412L46,-382M106,-390L74,-362M120,-334L88,-328M116,-262L92,-292", tone.shade, 4
    )


def _ties(tone: Tones) -> str:
    return both_sides(f'<circle cx="89" cy="-354" r="13" fill="{TIE}"/>')


def _cowlick(tone: Tones) -> str:
    return outlined("M-10,-394Q-16,-412 4,-418Q2,-408 16,-394Z", tone.base)


_EXTRA_BEFORE: Final = {"twin_braids": _ropes, "short_hair": _cowlick}
_EXTRA_AFTER: Final = {"side_ponytail": _side_tail, "spiked_hair": _crown_spikes, "twintails": _ties}
