"""The head and the face: skin, eyes, brows, nose, mouth, blush, tears and glasses.

Everything is drawn in the character's own coordinates (origin on the ground between the feet, y down, a
standing figure is 400 units tall): face centre (0, -288), eyes at (±37, -272), mouth at (0, -228). `dx` moves
the features sideways for a three-quarter view.
"""

from __future__ import annotations

import random
from typing import Final

from newbie_image.nano.world import palette
from newbie_image.nano.world.scene import Character

SKIN_LINE: Final = palette.mix(palette.line(palette.SKIN), "#7a3f3a", 0.35)
SKIN_SHADE: Final = "#f6bfa6"
LASH: Final = "#2c2030"
MOUTH_LINE: Final = "#7a2b36"
TEAR: Final = "#8fdcff"
SAD: Final = ("frown", "tears")
EAR_STYLES: Final = ("short_hair",)
FACE_GIRL: Final = (
    "M-84,-292C-86,-252 -68,-228 -30,-211Q0,-197 30,-211C68,-228 86,-252 84,-292"
    "C84,-350 50,-386 0,-386C-50,-386 -84,-350 -84,-292Z"
)
FACE_BOY: Final = (
    "M-82,-292C-84,-252 -70,-230 -36,-211Q0,-196 36,-211C70,-230 84,-252 82,-292"
    "C82,-350 50,-386 0,-386C-50,-386 -82,-350 -82,-292Z"
)


def draw_head(character: Character, uid: str, rng: random.Random, dx: float) -> str:
    """The head without hair: ears, face, eyes, nose, mouth, blush and tears, as SVG elements.

    Args:
        character: whose face it is; gender, eye_color and expression are read.
        uid: prefix of every id in the fragment; unique within the picture.
        rng: drawn from for what has no label; unused here, part of the layer's signature.
        dx: sideways shift of the features, -16 to 16 units.
    """
    boy = character.gender == "1boy"
    blush = 0.22 if boy else 0.8
    # Every other style covers the ears with locks.
    sides = (-84, 84) if character.hair_style in EAR_STYLES else ()
    ears = "".join(
        f'<ellipse cx="{x}" cy="-276" rx="13" ry="18" fill="{palette.SKIN}" stroke="{SKIN_LINE}" '
        'stroke-width="4"/>'
        f'<ellipse cx="{x}" cy="-274" rx="5" ry="9" fill="{SKIN_SHADE}"/>'
        for x in sides
    )
    return (
        f'<path d="M-14,-212H14V-190Q0,-180 -14,-190Z" fill="{SKIN_SHADE}"/>{ears}'
        f'<path d="{FACE_BOY if boy else FACE_GIRL}" fill="{palette.SKIN}" stroke="{SKIN_LINE}" '
        'stroke-width="4"/>'
        '<path d="M-80,-286Q-76,-306 -60,-307Q0,-315 60,-307Q76,-306 80,-286Q82,-372 0,-382Q-82,-372 '
        '-80,-286Z" '
        f'fill="{SKIN_SHADE}" opacity="0.7"/>'
        f'<g fill="#ff8f96" opacity="{blush}"><ellipse cx="{max(-60, -56 + dx):g}" cy="-239" rx="15" ry="8"/>'
        f'<ellipse cx="{min(60, 56 + dx):g}" cy="-239" rx="15" ry="8"/></g>'
        + _eyes(character, uid, dx)
        + f'<ellipse cx="{dx * 1.25:g}" cy="-247" rx="2.6" ry="2" fill="#d98a78"/>'
        + _mouth(character.expression, dx * 1.1)
        + (_tears(dx) if character.expression == "tears" else "")
    )


def _eyes(character: Character, uid: str, dx: float) -> str:
    expression = character.expression
    boy = character.gender == "1boy"
    color = palette.EYES[character.eye_color or "brown"]
    gradient = (
        f'<linearGradient id="{uid}iris" x1="0" y1="0" x2="0" y2="1">'
        f'<stop offset="0.05" stop-color="{palette.shadow(color, 0.55)}"/><stop offset="0.42" '
        f'stop-color="{color}"/>'
        f'<stop offset="1" stop-color="{palette.mix(color, "#ffffff", 0.3)}"/></linearGradient>'
    )
    parts = [f"<defs>{gradient}</defs>"]
    for side in (-1, 1):
        # The eye on the far side of a turned head is a little narrower.
        far = dx * side > 0
        width, place = (0.86, 32) if far else (1.0, 37)
        closed = expression == "closed_eyes" or (expression == "one_eye_closed" and side == 1)
        # Drawn as the picture-right eye about (0, 0); the other one is its mirror image but for the lights.
        inner = _closed_eye(boy) if closed else _open_eye(boy, expression, color, uid, side)
        parts.append(
            f'<g transform="translate({place * side + dx:g},-272) scale({side * width:g},1)">{inner}</g>'
        )
    return "".join(parts)


def _closed_eye(boy: bool) -> str:
    wing = "" if boy else '<path d="M19,0L27,-2M15,-7L24,-11" stroke-width="4"/>'
    width = 5 if boy else 6
    return (
        f'<g fill="none" stroke="{LASH}" stroke-linecap="round"><path d="M-21,5Q0,-23 21,5" '
        f'stroke-width="{width}"/>'
        f"{wing}</g>"
    )


def _open_eye(boy: bool, expression: str, color: str, uid: str, side: int) -> str:
    ry = 17.5 if boy else 23
    top = -ry + 1
    if expression == "angry":  # the lid falls towards the nose
        lid = f"M-23,{top + 13:g}Q-6,{top + 2:g} 22,{top - 3:g}"
        cut = f"M-26,{top + 13:g}Q-6,{top + 1:g} 26,{top - 3:g}V-34H-26Z"
    elif expression in SAD:  # the lid falls outwards
        lid = f"M-20,{top - 2:g}Q4,{top - 4:g} 24,{top + 14:g}"
        cut = ""
    elif boy:
        lid = f"M-21,{top + 6:g}Q-12,{top - 3:g} 2,{top - 3:g}Q15,{top - 2:g} 23,{top + 6:g}"
        cut = ""
    else:
        lid = f"M-20,{top + 9:g}Q-14,{top - 4:g} 1,{top - 4:g}Q17,{top - 3:g} 24,{top + 12:g}"
        cut = ""
    wing = "" if boy else f'<path d="M21,{top + 9:g}L31,{top + 5:g}L25,{top + 16:g}Z" fill="{LASH}"/>'
    surprised = expression == ":o"
    rx = 14 if surprised else 16.5
    iris_ry = ry * (0.84 if surprised else 1)
    lights = (
        f'<g fill="#fff"><ellipse cx="{-5 * side}" cy="{-ry * 0.36:g}" rx="5.6" ry="6.4"/>'
        f'<circle cx="{6.5 * side}" cy="{ry * 0.5:g}" r="3.1"/></g>'
    )
    cover = f'<path d="{cut}" fill="{palette.SKIN}"/>' if cut else ""
    return (
        f'<ellipse rx="21" ry="{ry + 1:g}" fill="#fff"/>'
        f'<path d="M-12,{ry - 1:g}Q1,{ry + 5:g} 15,{ry - 3:g}" fill="none" stroke="{LASH}" '
        f'stroke-width="{1.6 if boy else 2.8}"/>'
        f'<ellipse rx="{rx}" ry="{iris_ry:g}" fill="url(#{uid}iris)" stroke="{palette.shadow(color, 0.7)}" '
        f'stroke-width="2.5"/>'
        f'<ellipse cy="1" rx="5.5" ry="{iris_ry * 0.36:g}" '
        f'fill="{palette.mix(palette.shadow(color, 0.9), LASH, 0.5)}"/>'
        f"{lights}{cover}"
        f'<path d="{lid}" fill="none" stroke="{LASH}" stroke-width="{5.5 if boy else 8}" '
        f'stroke-linecap="round"/>{wing}'
    )


def draw_brows(character: Character, dx: float) -> str:
    """The brows. The hair layer draws them over the fringe, as anime does: they tell the mood."""
    expression = character.expression
    boy = character.gender == "1boy"
    color = palette.mix(palette.shadow(palette.HAIR[character.hair_color], 0.6), palette.LINE, 0.6)
    width = 7.5 if boy else 4.2
    if expression == "angry":
        d, width = "M-20,-297L20,-312", width + 3
    elif expression in SAD:
        d = "M-19,-312Q0,-310 18,-299"
    elif expression == ":o":
        d = "M-15,-313Q2,-321 17,-312"
    elif boy:
        d = "M-17,-301Q0,-307 19,-300"
    else:
        d = "M-15,-306Q2,-313 17,-304"
    return "".join(
        f'<path transform="translate({37 * side + dx:g},0) scale({side},1)" d="{d}" fill="none" '
        f'stroke="{color}" '
        f'stroke-width="{width}" stroke-linecap="round"/>'
        for side in (-1, 1)
    )


def _mouth(expression: str, dx: float) -> str:
    line = (
        f'fill="none" stroke="{MOUTH_LINE}" stroke-width="4.5" stroke-linecap="round" stroke-linejoin="round"'
    )
    if expression in ("smile", "closed_eyes"):
        shape = f'<path d="M-17,-233Q0,-215 17,-233" {line}/>'
    elif expression in (":d", "one_eye_closed"):
        wide = 1.0 if expression == ":d" else 0.72
        shape = (
            f'<g transform="translate(0,-238) scale({wide},{wide})">'
            f'<path d="M-22,0Q0,5 22,0Q21,28 0,28Q-21,28 -22,0Z" fill="#b5283c"/>'
            f'<path d="M-13,20Q0,10 13,20Q8,28 0,28Q-8,28 -13,20Z" fill="#ff8f98"/>'
            f'<path d="M-18,2Q0,6 18,2L16,8Q0,12 -16,8Z" fill="#fff"/>'
            f'<path d="M-22,0Q0,5 22,0Q21,28 0,28Q-21,28 -22,0Z" {line}/></g>'
        )
    elif expression == ":o":
        shape = f'<ellipse cy="-225" rx="9" ry="12" fill="#b5283c" stroke="{MOUTH_LINE}" stroke-width="4"/>'
    elif expression == "angry":
        shape = (
            '<path d="M-17,-219Q-10,-236 0,-233Q10,-236 17,-219Q0,-226 -17,-219Z" fill="#fff"/>'
            f'<path d="M-17,-219Q-10,-236 0,-233Q10,-236 17,-219Q0,-226 -17,-219Z" {line}/>'
        )
    elif expression == "tears":
        shape = f'<path d="M-16,-222Q-11,-233 -5,-226T5,-226T16,-222" {line}/>'
    else:
        shape = f'<path d="M-15,-220Q0,-237 15,-220" {line}/>'
    return f'<g transform="translate({dx:g},0)">{shape}</g>'


def _tears(dx: float) -> str:
    stream = "M-11,-251Q0,-246 12,-252Q15,-232 11,-218Q7,-207 -1,-208Q-9,-210 -11,-222Z"
    return "".join(
        f'<g transform="translate({side * 41 + dx:g},0) scale({side},1)">'
        f'<path d="{stream}" fill="{TEAR}" stroke="#3f93d8" stroke-width="3"/>'
        '<path d="M3,-244Q6,-230 3,-217" fill="none" stroke="#fff" stroke-width="4" '
        'stroke-linecap="round"/></g>'
        for side in (-1, 1)
    )


def draw_glasses(character: Character, uid: str, rng: random.Random, dx: float) -> str:
    """Round dark-framed glasses over fringe and eyes, or nothing when the character wears none."""
    if not character.glasses:
        return ""
    lenses = "".join(
        f'<rect x="{side * 37 + dx - 29:g}" y="-296" width="58" height="52" rx="22" fill="#dff3ff" '
        f'fill-opacity="0.08"/>'
        for side in (-1, 1)
    )
    return (
        f'<g stroke="#2a2233" stroke-width="5.5" fill="none" stroke-linecap="round">{lenses}'
        f'<path d="M{-9 + dx:g},-276Q{dx:g},-282 {9 + dx:g},-276M{-66 + dx:g},-278L-84,-283'
        f'M{66 + dx:g},-278L84,-283"/>'
        f"</g>"
    )
