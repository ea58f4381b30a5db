"""What must not get worse while attributes get better: seams between regions, copies of training pictures,
pictures that are all alike."""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F

from newbie_image.binding.regions import regions_of
from newbie_image.nano.captions import xml_caption
from newbie_image.nano.dataset import Store
from newbie_image.nano.world.scene import Scene
from newbie_image.prompt import parse

DESCRIPTION_SIDE: Final = 16


@dataclass(frozen=True)
class Border:
    """A line along which two people's regions meet, in fractions of the picture.

    Args:
        upright: at an x, from y `low` to y `high`; else at a y, from x to x.
        place: where it is.
        low, high: from where to where it goes.
    """

    upright: bool
    place: float
    low: float
    high: float


def region_borders(scene: Scene) -> tuple[Border, ...]:
    """Where the regions meet that the engine gives the people of a scene."""
    # Only where people stand matters: one scene of each arrangement is looked at.
    positions = tuple(character.position for character in scene.characters)
    if positions not in _BORDERS:
        _BORDERS[positions] = tuple(_borders(scene))
    return _BORDERS[positions]


_BORDERS: Final[dict[tuple[str, ...], tuple[Border, ...]]] = {}


def _borders(scene: Scene) -> list[Border]:
    regions, _ = regions_of(parse(xml_caption(scene)))
    found: list[Border] = []
    for one, two in itertools.permutations([region.box for region in regions], 2):
        for upright, (across, along) in ((True, (0, 1)), (False, (1, 0))):
            low, high = max(one[along], two[along]), min(one[along + 2], two[along + 2])
            if math.isclose(one[across + 2], two[across]) and low < high:
                found.append(Border(upright, two[across], low, high))
    return found


def seam_ratio(picture: np.ndarray, scene: Scene) -> float | None:
    """How steep the picture is across the lines where regions meet, over how steep it is everywhere; None for
    one person. It is compared with that of renders of the same prompts.

    Args:
        picture: (height, width, 3) uint8.
    """
    borders = region_borders(scene)
    if not borders:
        return None
    light = picture.astype(np.float64).mean(-1)
    across, down = np.abs(np.diff(light, axis=1)), np.abs(np.diff(light, axis=0))
    at: list[float] = []
    for border in borders:
        steps = across.T if border.upright else down
        middle = round(border.place * (len(steps) + 1)) - 1
        low, high = (round(end * steps.shape[1]) for end in (border.low, border.high))
        at.append(float(steps[max(0, middle - 1) : middle + 2, low : max(high, low + 1)].mean()))
    everywhere = (across.mean() + down.mean()) / 2
    return float(np.mean(at) / max(everywhere, 1e-6))


def describe(pictures: np.ndarray) -> np.ndarray:
    """(count, 768) float32 in 0 to 1: the pictures (count, height, width, 3) uint8 averaged to 16 × 16."""
    tensor = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 255
    return F.adaptive_avg_pool2d(tensor, DESCRIPTION_SIDE).flatten(1).numpy()


def look_of(description: np.ndarray) -> str:
    """A description (768,) in whole levels of 255, as base64: what a reading keeps of its picture."""
    return base64.b64encode((description * 255).round().astype(np.uint8).tobytes()).decode()


def descriptions_of(looks: Sequence[str]) -> np.ndarray:
    """(count, 768) float32 in 0 to 1 of what :func:`look_of` gave."""
    levels = np.frombuffer(b"".join(map(base64.b64decode, looks)), np.uint8)
    return levels.reshape(len(looks), -1 if looks else 3 * DESCRIPTION_SIDE**2).astype(np.float32) / 255


def nearest_distances(descriptions: np.ndarray, bank: np.ndarray, block: int = 4096) -> np.ndarray:
    """For each description (count, 768) the root mean square distance to the nearest of a bank (any, 768)."""
    best = np.full(len(descriptions), np.inf)
    squares = (descriptions**2).sum(1)[:, None]
    for start in range(0, len(bank), block):
        part = bank[start : start + block]
        distance = squares + (part**2).sum(1)[None] - 2 * descriptions @ part.T
        best = np.minimum(best, distance.min(1))
    return np.sqrt(np.maximum(best, 0) / descriptions.shape[1])


def diversity(descriptions: np.ndarray) -> float:
    """Mean root mean square distance of two pictures; NaN for fewer than two."""
    count = len(descriptions)
    if count < 2:
        return float("nan")
    squares = (descriptions**2).sum(1)
    distance = squares[:, None] + squares[None] - 2 * descriptions @ descriptions.T
    distance = np.sqrt(np.maximum(distance, 0) / descriptions.shape[1])
    return float(distance.sum() / (count * (count - 1)))


def describe_store(store: Store, block: int = 256) -> Iterator[np.ndarray]:
    """The descriptions of a store's finished pictures, block by block."""
    pictures, done = store.pictures(), store.finished()
    for start in range(0, len(done), block):
        yield describe(pictures[done[start : start + block]])
