"""A character below the head: poses, legs, clothed trunk, arms and what they hold.

Coordinates: the character's units, origin on the ground between the feet, y down, 400 tall when standing.
The free arm (the picture's left) makes the pose; the other one holds the object or rests.
"""

from __future__ import annotations

import random
from typing import Final

from newbie_image.nano.world import garments, held, palette
from newbie_image.nano.world.scene import Character
from newbie_image.nano.world.strokes import Point, disc, number, shape, stroke

SHOE: Final = "#5a3a34"
SEAT: Final = "#c79a6b"

_OFFSETS: Final = {"sitting": 34.0, "jumping": -32.0}
_LEGS: Final[dict[str, tuple[Point, ...]]] = {
    "sitting": ((22, -72), (30, -56), (30, -12)),
    "jumping": ((17, -144), (23, -98), (56, -64)),
}
_STANDING_LEG: Final[tuple[Point, ...]] = ((18, -112), (19, -60), (20, -12))
_SKIRTS: Final = {"sitting": (-98.0, -56.0, 13.0), "jumping": (-164.0, -106.0, 8.0)}
_FREE_ARMS: Final[dict[str, tuple[Point, Point]]] = {
    "standing": ((-54, -150), (-59, -114)),
    "waving": ((-88, -154), (-108, -222)),
    "arm_up": ((-100, -214), (-108, -352)),
    "hand_on_own_hip": ((-96, -152), (-42, -121)),
    "salute": ((-112, -222), (-82, -296)),
    "outstretched_arm": ((-70, -180), (-102, -178)),
    "sitting": ((-56, -150), (-26, -112)),
    "jumping": ((-78, -192), (-104, -232)),
}
_OPEN_HANDS: Final = ("waving", "outstretched_arm", "jumping")


def pose_offset(character: Character) -> float:
    """How far head and trunk lie below (positive) or above their standing place, in units."""
    return _OFFSETS.get(character.pose, 0.0)


def draw_behind(character: Character, uid: str, rng: random.Random, hold_hand: str | None = None) -> str:
    """What lies behind the hair: a seat and the shadow on the ground."""
    parts: list[str] = []
    spread = {"jumping": 46, "sitting": 86}.get(character.pose, 58)
    parts.append(f'<ellipse cx="0" cy="2" rx="{spread}" ry="9" fill="{palette.LINE}" fill-opacity="0.22"/>')
    if character.pose == "sitting":
        parts.append(
            shape("M-80,-66L80,-66L80,2L-80,2Z", SEAT)
            + shape("M-80,-48L80,-48L80,2L-80,2Z", palette.shadow(SEAT))
        )
    return "".join(parts)


def draw_body(character: Character, uid: str, rng: random.Random, hold_hand: str | None = None) -> str:
    """Legs, bottom, trunk and the arms that hang down."""
    dy = pose_offset(character)
    arms = "".join(
        garments.draw_arm(character, arm) for arm, in_front, _ in _arms(character, hold_hand) if not in_front
    )
    return _draw_legs(character) + _moved(garments.draw_top(character) + arms, dy)


def draw_front(character: Character, uid: str, rng: random.Random, hold_hand: str | None = None) -> str:
    """Arms that lie in front of head and hair, and the held object."""
    dy = pose_offset(character)
    parts: list[str] = []
    for arm, in_front, hand in _arms(character, hold_hand):
        if not in_front:
            continue
        if hand == "held" and character.held:
            parts.append(
                garments.draw_arm(character, arm)
                + held.draw(character.held)
                + disc(*held.HAND, 12.5, palette.SKIN)
            )
        elif hand == "open":
            parts.append(_open_hand(arm[-1], character.pose) + garments.draw_arm(character, arm, fist=False))
        elif hand == "flat":
            parts.append(_flat_hand(arm[-1]) + garments.draw_arm(character, arm, fist=False))
        else:
            parts.append(garments.draw_arm(character, arm))
    return _moved("".join(parts), dy)


def _moved(fragment: str, dy: float) -> str:
    return f'<g transform="translate(0,{number(dy)})">{fragment}</g>' if dy and fragment else fragment


def _arms(character: Character, hold_hand: str | None) -> list[tuple[tuple[Point, ...], bool, str]]:
    """Both arms as (shoulder, elbow, hand), whether they lie in front of the hair, and the kind of hand."""
    reach = 42.0 if character.gender == "1boy" else 37.0
    shoulder = (-reach, -184.0)
    pose = character.pose
    elbow, hand = _FREE_ARMS[pose]
    free: tuple[tuple[Point, ...], bool, str]
    if hold_hand == "left":
        free = ((shoulder, (-78, -152), (-112, -120 - pose_offset(character))), True, "fist")
    else:
        kind = "flat" if pose == "salute" else ("open" if pose in _OPEN_HANDS else "fist")
        free = ((shoulder, elbow, hand), pose != "standing", kind)
    shoulder = (reach, -184.0)
    if hold_hand == "right":
        other = ((shoulder, (78, -152), (112, -120 - pose_offset(character))), True, "fist")
    elif character.held:
        other = ((shoulder, (62, -158), held.HAND), True, "held")
    elif pose == "jumping":
        other = ((shoulder, (78, -192), (104, -232)), True, "open")
    elif pose == "sitting":
        other = ((shoulder, (56, -150), (26, -112)), True, "fist")
    else:
        other = ((shoulder, (54, -150), (59, -114)), False, "fist")
    return [other, free]


def _open_hand(at: Point, pose: str) -> str:
    """A palm with spread fingers, pointing outwards and up."""
    x, y = at
    turn = {"waving": -12, "outstretched_arm": -80}.get(pose, -38)
    if x > 0:
        turn = -turn
    fingers = "M-9,-4L-17,-17M-3,-8L-6,-24M4,-8L6,-24M9,-4L17,-16"
    edge = palette.line(palette.SKIN)
    return (
        f'<g transform="translate({number(x)},{number(y)}) rotate({turn})">'
        + stroke(fingers, edge, 13)
        + disc(0, 0, 14, palette.SKIN)
        + stroke(fingers, palette.SKIN, 6)
        + "</g>"
    )


def _flat_hand(at: Point) -> str:
    x, y = at
    palm = shape("M-10,6Q-12,-10 4,-18L30,-30Q36,-24 30,-17L10,4Q0,14 -10,6Z", palette.SKIN)
    return f'<g transform="translate({number(x)},{number(y)})">{palm}</g>'


def _draw_legs(character: Character) -> str:
    pose, bottom = character.pose, character.bottom
    right = _LEGS.get(pose, _STANDING_LEG)
    left = tuple((-x, y) for x, y in right)
    boy = character.gender == "1boy"
    half = 37.0 if boy else 34.0
    cover = 27.0 if pose == "sitting" else 39.0
    waist, hem, spread = _SKIRTS.get(pose, (-132.0, -74.0, 3.0))
    parts = [garments.draw_legwear(character.legwear, leg, cover) for leg in (left, right)]
    parts += [_shoe(leg, pose) for leg in (left, right)]
    if bottom in ("shorts", "pants"):
        parts.append(garments.draw_trousers(bottom, character.bottom_color, (left, right), waist + 4, half))
    else:
        if bottom == "long_skirt":
            hem = {"jumping": -80.0}.get(pose, -20.0)
        parts.append(garments.draw_skirt(bottom, character.bottom_color, waist, hem, spread, half))
    return "".join(parts)


def _shoe(leg: tuple[Point, ...], pose: str) -> str:
    x, y = leg[-1]
    turn = (-48 if x > 0 else 48) if pose == "jumping" else 0
    sole = shape("M-17,9Q-19,-5 -12,-7L12,-7Q19,-5 17,9Z", SHOE) + shape(
        "M-10,-3Q-13,0 -12,4L-2,4Q-4,-2 -10,-3Z", palette.highlight(SHOE, 0.4), "none"
    )
    return f'<g transform="translate({number(x)},{number(y + 3)}) rotate({turn})">{sole}</g>'
