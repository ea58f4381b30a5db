"""Where people stand in the picture: centre, ground line, size, facing, and whose hands meet.

Everything is in canvas units (256 × 256, y down); a figure's own coordinates have their origin on the ground
between its feet and are multiplied by `scale`. Standing, it is about 400 of them tall, 470 with a hat.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Final

from newbie_image.nano.world.drawing import CANVAS
from newbie_image.nano.world.scene import Scene

X_JITTER: Final = 4.0
SCALE_JITTER: Final = 0.04
GROUND_JITTER: Final = 3.0
HAND_REACH: Final = 112.0
"""How far from its middle, in its own units, a figure that holds hands reaches."""

# (number of people, two rows or one) → position → (centre x, ground y, scale)
ONE: Final = {"center": (128.0, 250.0, 0.505), "left": (82.0, 250.0, 0.505), "right": (174.0, 250.0, 0.505)}
TWO: Final = {"left": (67.0, 248.0, 0.47), "right": (189.0, 248.0, 0.47)}
THREE: Final = {"left": (46.0, 243.0, 0.38), "center": (128.0, 243.0, 0.38), "right": (210.0, 243.0, 0.38)}
FOUR_IN_A_ROW: Final = {
    "left": (34.0, 232.0, 0.3), "center_left": (97.0, 232.0, 0.3),
    "center_right": (159.0, 232.0, 0.3), "right": (222.0, 232.0, 0.3),
}  # fmt: skip
FOUR_IN_CORNERS: Final = {
    "upper_left": (70.0, 131.0, 0.27), "upper_right": (186.0, 131.0, 0.27),
    "lower_left": (70.0, 250.0, 0.27), "lower_right": (186.0, 250.0, 0.27),
}  # fmt: skip
FIVE: Final = {
    "upper_left": (52.0, 131.0, 0.27), "upper_right": (204.0, 131.0, 0.27), "center": (128.0, 190.0, 0.27),
    "lower_left": (52.0, 250.0, 0.27), "lower_right": (204.0, 250.0, 0.27),
}  # fmt: skip
SIX: Final = {
    "upper_left": (46.0, 131.0, 0.27), "upper_center": (128.0, 131.0, 0.27),
    "upper_right": (210.0, 131.0, 0.27), "lower_left": (46.0, 250.0, 0.27),
    "lower_center": (128.0, 250.0, 0.27), "lower_right": (210.0, 250.0, 0.27),
}  # fmt: skip

FACING_DISTANCE: Final = 108.0
BACK_TO_BACK_DISTANCE: Final = 84.0


@dataclass(frozen=True)
class Place:
    """One figure's place: centre x and ground y in canvas units, canvas units per figure unit, where it looks
    (`front`, `left` or `right` of the picture) and the picture side of the hand it gives (None: neither)."""

    x: float
    y: float
    scale: float
    facing: str = "front"
    hold_hand: str | None = None


def _plan(scene: Scene) -> dict[str, tuple[float, float, float]]:
    count = len(scene.characters)
    if count == 4:
        return FOUR_IN_A_ROW if scene.characters[0].position in FOUR_IN_A_ROW else FOUR_IN_CORNERS
    return {0: {}, 1: ONE, 2: TWO, 3: THREE, 5: FIVE, 6: SIX}[count]


def in_other_plans(scene: Scene) -> list[Scene]:
    """The scene, and for four people the same with its people in their order at the places of the other plan
    for four."""
    if len(scene.characters) != 4:
        return [scene]
    other = FOUR_IN_CORNERS if _plan(scene) is FOUR_IN_A_ROW else FOUR_IN_A_ROW
    people = zip(scene.characters, other, strict=True)
    return [scene, replace(scene, characters=tuple(replace(c, position=place) for c, place in people))]


def places(scene: Scene) -> tuple[Place, ...]:
    """The place of each character, in the order of `scene.characters`; a function of the scene alone."""
    rng = random.Random(f"{scene.jitter}:places")
    found: list[Place] = []
    for place in _named_places(scene):
        scale = place.scale * (1 + rng.uniform(-SCALE_JITTER, SCALE_JITTER))
        x = place.x + rng.uniform(-X_JITTER, X_JITTER)
        found.append(Place(x, place.y + rng.uniform(-GROUND_JITTER, GROUND_JITTER), scale))
    return _brought_together(scene, tuple(found))


def asked_places(scene: Scene) -> tuple[Place, ...]:
    """The place that each character's position (and the interaction) names, without the jitter of a
    picture."""
    return _brought_together(scene, _named_places(scene))


def _named_places(scene: Scene) -> tuple[Place, ...]:
    plan = _plan(scene)
    return tuple(Place(*plan[character.position]) for character in scene.characters)


def _brought_together(scene: Scene, found: tuple[Place, ...]) -> tuple[Place, ...]:
    if scene.interaction is None:
        return found
    return (*_pair(scene, found[0], found[1]), *found[2:])


def _pair(scene: Scene, first: Place, second: Place) -> tuple[Place, Place]:
    """Brings the first two characters together; the one standing further left keeps to the left."""
    middle = CANVAS / 2 + (first.x + second.x - CANVAS) / 4
    ground, scale = first.y, first.scale
    if scene.interaction == "holding_hands":
        # Equal size and one ground line, so that the hands meet.
        half = HAND_REACH * scale
        left = Place(middle - half, ground, scale, hold_hand="right")
        right = Place(middle + half, ground, scale, hold_hand="left")
    elif scene.interaction == "facing_another":
        half = FACING_DISTANCE / 2
        left = Place(middle - half, ground, scale, facing="right")
        right = Place(middle + half, second.y, second.scale, facing="left")
    else:
        half = BACK_TO_BACK_DISTANCE / 2
        left = Place(middle - half, ground, scale, facing="left")
        right = Place(middle + half, second.y, second.scale, facing="right")
    return (left, right) if first.x <= second.x else (right, left)


def drawing_order(found: tuple[Place, ...]) -> tuple[int, ...]:
    """Indices from the furthest (highest ground line) to the nearest figure."""
    return tuple(sorted(range(len(found)), key=lambda index: (found[index].y // 20, index)))
