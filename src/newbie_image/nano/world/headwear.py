"""What a character wears on the head: nine things, six of them in a colour of clothes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from newbie_image.nano.world import palette
from newbie_image.nano.world.hair_back import both_sides
from newbie_image.nano.world.scene import Character

GOLD: Final = "#f7c93e"
PINK: Final = "#ffa3bd"


def draw_back_part(character: Character, uid: str, rng: random.Random, dx: float) -> str:
    """What lies behind the head: the far half of a witch hat's brim."""
    if character.headwear != "witch_hat":
        return ""
    color = palette.CLOTHES[character.headwear_color or "black"]
    return (
        f'<ellipse cy="-370" rx="128" ry="28" fill="{palette.shadow(color)}" stroke="{palette.line(color)}" '
        f'stroke-width="4"/>'
    )


def draw(character: Character, uid: str, rng: random.Random, dx: float) -> str:
    """The headwear over hair and face, as SVG elements in the character's coordinates; empty for none."""
    if character.headwear is None:
        return ""
    if character.headwear == "cat_ears":
        color = palette.HAIR[character.hair_color]
    else:
        color = palette.CLOTHES[character.headwear_color or "white"]
    line = palette.line(color)
    shape = _SHAPES[character.headwear](color, line)
    return (
        f'<g transform="translate({dx * 0.35:g},0)" stroke="{line}" stroke-width="4" stroke-linejoin="round" '
        f'stroke-linecap="round">{shape}</g>'
    )


def _bow(color: str, line: str) -> str:
    shade = palette.shadow(color, 0.35)
    loop = (
        f'<path d="M8,-404Q34,-446 66,-440Q78,-436 76,-404Q78,-372 66,-368Q34,-366 8,-396Z" fill="{color}"/>'
        f'<path d="M16,-402Q38,-414 56,-410Q40,-404 58,-392Q36,-390 16,-400Z" fill="{shade}" stroke="none"/>'
    )
    return (
        f'<g transform="rotate(-5 0 -400)">'
        '<path d="M-6,-396L-34,-360L-14,-362L-6,-352L4,-392L14,-352L20,-362L38,-362L8,-398Z" '
        f'fill="{shade}"/>'
        + both_sides(loop)
        + f'<rect x="-14" y="-417" width="28" height="34" rx="10" fill="{color}"/></g>'
    )


def _hairband(color: str, line: str) -> str:
    d = "M-95,-316C-84,-372 -44,-389 0,-389C44,-389 84,-372 95,-316"
    return (
        f'<path d="{d}" fill="none" stroke-width="24"/>'
        f'<path d="{d}" fill="none" stroke="{color}" stroke-width="16"/>'
        f'<path d="M-50,-377Q-20,-391 16,-391" fill="none" stroke="{palette.highlight(color, 0.5)}" '
        'stroke-width="4"/>'
    )


def _flower(color: str, line: str) -> str:
    petals = "".join(
        f'<ellipse cx="-72" cy="-379" rx="17" ry="20" transform="rotate({angle} -72 -354)"/>'
        for angle in (0, 72, 144, 216, 288)
    )
    heart = "#f08a3c" if color == palette.CLOTHES["yellow"] else "#ffd94a"
    leaf = '<path d="M-46,-338Q-20,-340 -16,-322Q-40,-316 -50,-332Z" fill="#5fb060"/>'
    return f'{leaf}<g fill="{color}">{petals}</g><circle cx="-72" cy="-354" r="12" fill="{heart}"/>'


def _beret(color: str, line: str) -> str:
    shade = palette.shadow(color, 0.3)
    return (
        '<g transform="rotate(-9 0 -380)">'
        f'<path d="M-10,-428L-14,-444" fill="none" stroke-width="8"/>'
        f'<path d="M-118,-386C-124,-428 -60,-436 -6,-434C56,-432 104,-412 98,-376C94,-356 56,-366 0,-368'
        f'C-60,-368 -114,-352 -118,-386Z" fill="{color}"/>'
        f'<path d="M-112,-378C-60,-392 50,-388 96,-372C88,-358 56,-366 0,-368C-60,-368 -106,-356 -112,-378Z" '
        f'fill="{shade}" stroke="none"/>'
        f'<path d="M-84,-412Q-60,-424 -34,-425" fill="none" stroke="{palette.highlight(color, 0.4)}" '
        'stroke-width="6"/>'
        "</g>"
    )


def _witch_hat(color: str, line: str) -> str:
    band = palette.CLOTHES["purple"] if color == palette.CLOTHES["yellow"] else GOLD
    shade = palette.shadow(color, 0.3)
    return (
        '<path d="M-128,-368Q-66,-384 0,-384Q66,-384 128,-368Q80,-346 0,-346Q-80,-346 -128,-368Z" '
        f'fill="{color}"/>'
        '<path d="M-72,-370Q-50,-440 -8,-466Q18,-470 40,-452Q22,-456 24,-446Q50,-410 72,-370Q0,-356 '
        '-72,-370Z" '
        f'fill="{color}"/>'
        f'<path d="M24,-446Q46,-410 66,-370L30,-366Q28,-410 8,-446Z" fill="{shade}" stroke="none"/>'
        f'<path d="M-72,-370L-64,-392Q0,-378 62,-392L72,-370Q0,-354 -72,-370Z" fill="{band}"/>'
    )


def _headphones(color: str, line: str) -> str:
    arc = "M-100,-300C-108,-450 108,-450 100,-300"
    light = palette.highlight(color, 0.45)
    cup = (
        f'<rect x="84" y="-312" width="36" height="66" rx="15" fill="{color}"/>'
        f'<rect x="78" y="-304" width="14" height="50" rx="6" fill="{palette.shadow(color, 0.4)}"/>'
        f'<path d="M109,-298V-276" fill="none" stroke="{light}" stroke-width="6"/>'
    )
    return (
        f'<path d="{arc}" fill="none" stroke-width="23"/><path d="{arc}" fill="none" stroke="{color}" '
        f'stroke-width="15"/><path d="M-58,-398Q-30,-412 4,-412" fill="none" stroke="{light}" '
        'stroke-width="5"/>' + both_sides(cup)
    )


def _cat_ears(color: str, line: str) -> str:
    ear = (
        f'<path d="M26,-386Q48,-436 82,-452Q98,-412 90,-352Q60,-360 26,-386Z" fill="{color}" stroke="none"/>'
        f'<path d="M43,-386Q56,-418 76,-432Q84,-402 78,-366Q62,-370 43,-386Z" fill="{PINK}" stroke="none"/>'
        f'<path d="M24,-392Q48,-438 82,-452Q98,-412 91,-352" fill="none"/>'
    )
    return both_sides(ear)


def _rabbit_ears(color: str, line: str) -> str:
    ear = (
        '<path d="M22,-380C8,-430 30,-470 52,-468C78,-464 74,-412 54,-374Z" fill="#fdfbfb"/>'
        f'<path d="M34,-390C28,-430 40,-456 50,-454C62,-452 58,-420 46,-388Z" fill="{PINK}" stroke="none"/>'
    )
    return both_sides(ear)


def _tiara(color: str, line: str) -> str:
    return (
        '<g stroke="#8a5a1e"><path d="M-64,-362L-62,-398L-40,-384L-26,-414L-8,-396L0,-430L8,-396L26,-414'
        "L40,-384"
        f'L62,-398L64,-362Q0,-384 -64,-362Z" fill="{GOLD}"/>'
        '<path d="M-52,-372Q0,-388 52,-372" fill="none" stroke="#fff3b8" stroke-width="4"/>'
        '<path d="M0,-408L11,-394L0,-378L-11,-394Z" fill="#f0487c"/></g>'
    )


_SHAPES: Final[dict[str, Callable[[str, str], str]]] = {
    "hair_bow": _bow,
    "hairband": _hairband,
    "hair_flower": _flower,
    "beret": _beret,
    "witch_hat": _witch_hat,
    "headphones": _headphones,
    "cat_ears": _cat_ears,
    "rabbit_ears": _rabbit_ears,
    "tiara": _tiara,
}
