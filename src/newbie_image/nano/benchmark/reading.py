"""Reads pictures back: who is where, and what each person has, by two evaluators.

A detector that sees nothing but the picture finds the people; each person asked for is matched with a found
one by place alone, never by attributes; then the trained reader and the colour rules read at the found place.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from newbie_image.errors import CheckpointError
from newbie_image.nano.benchmark.colour_rules import RULES_VERSION, read_colours
from newbie_image.nano.detector import Detection, Detector, load_detector
from newbie_image.nano.readers import (
    CHARACTER_HEADS,
    CROP_SIZE,
    HIDDEN,
    Reader,
    character_reader,
    character_targets,
    crop,
    figure_box,
    load_reader,
)
from newbie_image.nano.world.layout import Place, asked_places, in_other_plans
from newbie_image.nano.world.scene import Scene

READ_ATTRIBUTES: Final = tuple(name for name in CHARACTER_HEADS if name != "present")
LONE_REACH: Final = 60.0
"""Canvas units around the place of a single person within which it stands where it should."""


@dataclass(frozen=True)
class PersonReading:
    """One person asked for.

    Args:
        position: where it was asked to stand.
        asked: attribute → index of the value asked for; HIDDEN was not asked.
        found: whether somebody is there for it.
        placed: whether it stands at its place: nearer than half the way to the next one.
        read: attribute → index read by the trained reader; empty where nobody was found.
        colours: attribute → index read by the colour rules, HIDDEN where no colour is seen; likewise.
    """

    position: str
    asked: dict[str, int]
    found: bool
    placed: bool
    read: dict[str, int] = field(default_factory=dict)
    colours: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PictureReading:
    """One picture: how many people were found, and each person asked for."""

    found: int
    people: tuple[PersonReading, ...]

    def as_json(self) -> dict[str, Any]:
        """Numbers and strings alone."""
        return {"found": self.found, "people": [vars(person) for person in self.people]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PictureReading:
        """What :meth:`as_json` gave."""
        return cls(data["found"], tuple(PersonReading(**person) for person in data["people"]))


@dataclass(frozen=True)
class Evaluator:
    """The detector, the trained reader, and the sha256 by which a reading can be known to be theirs."""

    detector: Detector
    reader: Reader
    sha256: str

    @property
    def device(self) -> torch.device:
        """Where it reads."""
        return next(self.detector.parameters()).device

    def to(self, device: torch.device) -> Evaluator:
        """The same on another device."""
        return Evaluator(self.detector.to(device), self.reader.to(device), self.sha256)

    def read(
        self,
        pictures: np.ndarray,
        scenes: Sequence[Scene],
        chunk: int = 64,
        placed: Sequence[bool] | None = None,
    ) -> list[PictureReading]:
        """Readings of pictures (count, height, width, 3) uint8 of what the scenes ask for.

        Args:
            chunk: pictures on the device at a time.
            placed: whether each picture's prompt said where people stand, all where left out; where it did
                not, four of them are asked for in a row or in the corners, whichever is nearer.
        """
        readings: list[PictureReading] = []
        for start in range(0, len(pictures), chunk):
            part = slice(start, start + chunk)
            said = [True] * len(scenes[part]) if placed is None else placed[part]
            readings += self._read(np.array(pictures[part]), scenes[part], said)
        return readings

    def _read(
        self, pictures: np.ndarray, scenes: Sequence[Scene], placed: Sequence[bool]
    ) -> list[PictureReading]:
        on_device = torch.from_numpy(pictures).to(self.device)
        tensor = on_device.permute(0, 3, 1, 2).float() / 127.5 - 1
        found = self.detector.find(tensor)
        scenes = [
            scene if said else nearest_plan(scene, [d.place for d in people])
            for scene, people, said in zip(scenes, found, placed, strict=True)
        ]
        matches = [match_people(s, [d.place for d in f]) for s, f in zip(scenes, found, strict=True)]
        rows = [(i, j) for i, match in enumerate(matches) for j in match if j is not None]
        read: dict[tuple[int, int], dict[str, int]] = {}
        if rows:
            boxes = torch.tensor([figure_box(found[i][j].place) for i, j in rows], device=self.device)
            values = self.reader.read(crop(tensor[[i for i, _ in rows]], boxes, CROP_SIZE))
            for row, key in enumerate(rows):
                read[key] = {name: int(values[name][row]) for name in READ_ATTRIBUTES}
        return [
            _picture_reading(picture, scene, detections, match, read, index)
            for index, (picture, scene, detections, match) in enumerate(
                zip(pictures, scenes, found, matches, strict=True)
            )
        ]


def _picture_reading(
    picture: np.ndarray,
    scene: Scene,
    detections: Sequence[Detection],
    match: Sequence[int | None],
    read: dict[tuple[int, int], dict[str, int]],
    index: int,
) -> PictureReading:
    wanted, reach = asked_places(scene), reach_of(scene)
    people: list[PersonReading] = []
    for character, place, number in zip(scene.characters, wanted, match, strict=True):
        targets = dict(zip(CHARACTER_HEADS, character_targets(character), strict=True))
        asked = {name: targets[name] for name in READ_ATTRIBUTES}
        if number is None:
            people.append(PersonReading(character.position, asked, False, False))
            continue
        detection = detections[number]
        near = _distance(place, detection.place) <= reach
        people.append(
            PersonReading(
                character.position, asked, True, near, read[index, number], read_colours(picture, detection)
            )
        )
    return PictureReading(len(detections), tuple(people))


def _distance(one: Place, two: Place) -> float:
    return math.hypot(one.x - two.x, one.y - two.y)


def reach_of(scene: Scene) -> float:
    """How far from its place a person may stand and still be at it, in canvas units: half the way between the
    two nearest places, LONE_REACH for one person."""
    wanted = asked_places(scene)
    if len(wanted) < 2:
        return LONE_REACH
    return min(_distance(one, two) for one, two in itertools.combinations(wanted, 2)) / 2


def nearest_plan(scene: Scene, found: Sequence[Place]) -> Scene:
    """The scene as it was asked for, or its people in their order at the places of the other plan for four,
    whichever is nearer to the found ones: a prompt without positions does not say which plan it means."""

    def distance(asked: Scene) -> float:
        places = asked_places(asked)
        match = match_people(asked, found)
        return sum(_distance(places[i], found[j]) for i, j in enumerate(match) if j is not None)

    return min(in_other_plans(scene), key=distance)


def match_people(scene: Scene, found: Sequence[Place]) -> list[int | None]:
    """For each person asked for the index of the found one, so that the sum of the distances is smallest;
    None for those who are left when fewer were found."""
    wanted = asked_places(scene)
    fewer = min(len(wanted), len(found))
    if fewer == 0:
        return [None] * len(wanted)
    best: tuple[float, dict[int, int]] = (math.inf, {})

    def extend(person: int, taken: dict[int, int], cost: float, skips: int) -> None:
        nonlocal best
        if cost >= best[0]:
            return
        if person == len(wanted):
            best = (cost, dict(taken))
            return
        used = set(taken.values())
        for number, place in sorted(enumerate(found), key=lambda each: _distance(wanted[person], each[1])):
            if number not in used:
                taken[person] = number
                extend(person + 1, taken, cost + _distance(wanted[person], place), skips)
                del taken[person]
        if skips:
            extend(person + 1, taken, cost, skips - 1)

    extend(0, {}, 0.0, len(wanted) - fewer)
    return [best[1].get(person) for person in range(len(wanted))]


def evaluator_sha256(folder: Path) -> str:
    """The sha256 of the evaluator of a folder, without loading it.

    Raises:
        CheckpointError: a file is missing, and how it is made.
    """
    digest = hashlib.sha256(f"colour rules {RULES_VERSION}".encode())
    for name in ("character", "detector"):
        file = folder / f"{name}.safetensors"
        if not file.exists():
            raise CheckpointError(f"{file} is not there; run `newbie nano train --stage readers`")
        digest.update(file.read_bytes())
    return digest.hexdigest()


def load_evaluator(folder: Path) -> Evaluator:
    """The evaluator from a folder with `character.safetensors` and `detector.safetensors`.

    Raises:
        CheckpointError: a file is missing, and how it is made.
    """
    digest = evaluator_sha256(folder)
    reader = load_reader(character_reader(), folder / "character.safetensors")
    return Evaluator(load_detector(folder / "detector.safetensors"), reader, digest)


def is_asked(person: PersonReading, attribute: str) -> bool:
    """Whether the person was asked to have a value of the attribute."""
    return person.asked.get(attribute, HIDDEN) != HIDDEN
