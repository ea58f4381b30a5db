"""What stands behind the people: backdrop, hour and weather; and what falls in front of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from newbie_image.nano.world import attributes as a
from newbie_image.nano.world import buildings, groves, landscapes
from newbie_image.nano.world.heavens import Box, falling
from newbie_image.nano.world.light import Light
from newbie_image.nano.world.scene import Scene

LANDSCAPES: Final[dict[str, Callable[[Light, str, random.Random, float], str]]] = {
    "sky": landscapes.open_sky,
    "beach": landscapes.beach,
    "forest": groves.forest,
    "cherry_blossoms": groves.cherry_blossoms,
    "cityscape": buildings.cityscape,
    "flower_field": groves.flower_field,
    "mountain": landscapes.mountain,
    "snowfield": landscapes.snowfield,
    "starry_sky": landscapes.starry_sky,
}
ROOMS: Final = {"classroom": buildings.classroom, "bedroom": buildings.bedroom}
FREE_X: Final = {"left": 196.0, "center": 214.0, "right": 60.0}


def free_x(scene: Scene) -> float:
    """The x (canvas units) of a strip that nobody covers, for what should be seen low in the sky."""
    if len(scene.characters) == 1:
        return FREE_X[scene.characters[0].position]
    if scene.interaction is not None:
        return 214.0
    return 128.0 if len(scene.characters) % 2 == 0 else 87.0


def draw_background(scene: Scene, rng: random.Random, uid: str = "b") -> str:
    """The backdrop of a scene with everything behind the people, as SVG elements filling 256 × 256 units."""
    if scene.background in a.PLAIN_BACKGROUNDS:
        return buildings.plain(scene.background, uid)
    if scene.background in ROOMS:
        return ROOMS[scene.background](uid, rng)
    drawn = LANDSCAPES[scene.background](Light(scene.time, scene.weather), uid, rng, free_x(scene))
    if scene.weather is not None:
        drawn += falling(scene.weather, rng, (), front=False)
    return drawn


def draw_weather_front(scene: Scene, rng: random.Random, avoid: Sequence[Box]) -> str:
    """What falls in front of the people, sparing `avoid`: (left, top, right, bottom) in canvas units."""
    return "" if scene.weather is None else falling(scene.weather, rng, avoid, front=True)
