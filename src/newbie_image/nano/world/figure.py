"""The composer: one whole character from back to front, head and body artists' parts in their layers."""

from __future__ import annotations

import random

from newbie_image.nano.world import body, face, hair, headwear
from newbie_image.nano.world.scene import Character

_TURN = {"front": 0.0, "left": -16.0, "right": 16.0}


def draw_figure(
    character: Character, uid: str, rng: random.Random, facing: str = "front", hold_hand: str | None = None
) -> str:
    """SVG elements of one character in its own coordinates (origin on the ground between the feet, 400 tall).

    Args:
        character: who it is.
        uid: prefix of every id in the fragment, unique within a picture.
        rng: varies only what no label names.
        facing: "front", "left" or "right"; turns the face to three quarters.
        hold_hand: None, "left" or "right": the arm on that side of the picture goes to a neighbour's hand,
            at (-112, -120) or (112, -120), instead of posing or holding its object.
    """
    dx = _TURN[facing]
    dy = body.pose_offset(character)

    def lowered(fragment: str) -> str:
        return f'<g transform="translate(0,{dy:g})">{fragment}</g>' if dy else fragment

    layers = [
        body.draw_behind(character, uid, rng, hold_hand),
        lowered(headwear.draw_back_part(character, uid, rng, dx) + hair.draw_back(character, uid, rng, dx)),
        body.draw_body(character, uid, rng, hold_hand),
        lowered(
            face.draw_head(character, uid, rng, dx)
            + hair.draw_front(character, uid, rng, dx)
            + (face.draw_glasses(character, uid, rng, dx) if character.glasses else "")
            + headwear.draw(character, uid, rng, dx)
        ),
        body.draw_front(character, uid, rng, hold_hand),
    ]
    return "".join(layers)
