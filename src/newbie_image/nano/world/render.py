"""A scene as SVG, as pixels, and as boxes that say where its people are."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from typing import Final

import numpy as np
import resvg_py
from PIL import Image

from newbie_image.nano.world import attributes as a
from newbie_image.nano.world.background import draw_background, draw_weather_front
from newbie_image.nano.world.body import pose_offset
from newbie_image.nano.world.drawing import CANVAS, ellipse, glow
from newbie_image.nano.world.figure import draw_figure
from newbie_image.nano.world.layout import Place, drawing_order, places
from newbie_image.nano.world.scene import Character, Scene

FIGURE: Final = (-118.0, -470.0, 118.0, 8.0)
HEAD: Final = (-98.0, -400.0, 98.0, -198.0)
EYES: Final = (-64.0, -302.0, 64.0, -244.0)
LEGS: Final = (-60.0, -120.0, 60.0, 6.0)
FACE_SHIFT: Final = {"front": 0.0, "left": -16.0, "right": 16.0}
FIGURE_WEIGHT: Final = 2.5
HEAD_WEIGHT: Final = 3.5
LEGS_WEIGHT: Final = 3.5
EYES_WEIGHT: Final = 6.0

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class CharacterBoxes:
    """Where one character is seen: (left, top, right, bottom) in fractions of the picture, 0 to 1."""

    figure: Box
    head: Box
    eyes: Box


def _placed(box: Box, place: Place, dx: float, dy: float) -> Box:
    def along(origin: float, value: float) -> float:
        return min(1.0, max(0.0, (origin + place.scale * value) / CANVAS))

    left, top, right, bottom = box
    return (
        along(place.x, left + dx),
        along(place.y, top + dy),
        along(place.x, right + dx),
        along(place.y, bottom + dy),
    )


def _boxes(character: Character, place: Place) -> CharacterBoxes:
    dy = pose_offset(character)
    left, top, right, bottom = FIGURE
    return CharacterBoxes(
        figure=_placed((left, top + dy, right, bottom), place, 0, 0),
        head=_placed(HEAD, place, 0, dy),
        eyes=_placed(EYES, place, FACE_SHIFT[place.facing], dy),
    )


def geometry(scene: Scene) -> tuple[CharacterBoxes, ...]:
    """The boxes of each character, in the order of `scene.characters`."""
    return tuple(_boxes(c, p) for c, p in zip(scene.characters, places(scene), strict=True))


def _stand(scene: Scene, found: tuple[Place, ...]) -> str:
    """Before a busy backdrop, a soft light behind each figure, so that it stands off."""
    if scene.background in a.PLAIN_BACKGROUNDS:
        return ""
    strength = 0.34 if scene.time == "night" else 0.3
    light = f"<defs>{glow('halo', '#fffaf0', strength, 0.35)}</defs>"
    return light + "".join(
        ellipse(p.x, p.y - 240 * p.scale, 150 * p.scale, 235 * p.scale, "url(#halo)") for p in found
    )


def scene_svg(scene: Scene) -> str:
    """The whole scene as an SVG document of 256 × 256 units. The same scene gives the same text."""
    found = places(scene)
    parts = [draw_background(scene, random.Random(f"{scene.jitter}:background")), _stand(scene, found)]
    for index in drawing_order(found):
        place = found[index]
        figure = draw_figure(
            scene.characters[index],
            f"c{index}",
            random.Random(f"{scene.jitter}:figure:{index}"),
            facing=place.facing,
            hold_hand=place.hold_hand,
        )
        parts.append(
            f'<g transform="translate({place.x:.2f} {place.y:.2f}) scale({place.scale:.4f})">{figure}</g>'
        )
    faces = [tuple(CANVAS * edge for edge in boxes.head) for boxes in geometry(scene)]
    avoid: list[Box] = [(left, top, right, bottom) for left, top, right, bottom in faces]
    parts.append(draw_weather_front(scene, random.Random(f"{scene.jitter}:weather"), avoid))
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 256 256">{"".join(parts)}</svg>'


def render(scene: Scene, size: int = 128) -> np.ndarray:
    """The scene as pixels: uint8 (size, size, 3), red green blue."""
    drawn = resvg_py.svg_to_bytes(
        svg_string=scene_svg(scene), width=size, height=size, skip_system_fonts=True
    )
    with Image.open(io.BytesIO(bytes(drawn))) as picture:
        return np.asarray(picture.convert("RGB"))


def importance(scene: Scene, size: int = 128) -> np.ndarray:
    """How much each pixel matters to the autoencoder: float32 (size, size), from 1 to EYES_WEIGHT."""
    weights = np.ones((size, size), dtype=np.float32)
    found = geometry(scene)
    for weight, boxes in (
        (FIGURE_WEIGHT, [c.figure for c in found]),
        (LEGS_WEIGHT, [_placed(LEGS, place, 0, 0) for place in places(scene)]),
        (HEAD_WEIGHT, [c.head for c in found]),
        (EYES_WEIGHT, [c.eyes for c in found]),
    ):
        for left, top, right, bottom in boxes:
            rows = slice(round(top * size), round(bottom * size))
            columns = slice(round(left * size), round(right * size))
            weights[rows, columns] = np.maximum(weights[rows, columns], weight)
    return weights
