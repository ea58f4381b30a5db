"""Renders with mistakes at a known rate: what the evaluators must find before their figures are believed.

The scene that is asked for stays; the one that is rendered has a person's value replaced by another person's
(a leak) or exchanged with it (a swap). The truth is what a faultless reader would say of the render.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from newbie_image.nano.benchmark.reading import READ_ATTRIBUTES, PersonReading, PictureReading
from newbie_image.nano.readers import CHARACTER_HEADS, HIDDEN, character_targets
from newbie_image.nano.world.scene import Character, Scene

INJECTABLE: Final = ("hair_color", "eye_color", "top_color", "bottom_color", "hair_style", "held")
"""Attributes that hide nothing else when they change."""


def leaked(scene: Scene, rate: float, rng: random.Random, attributes: Sequence[str] = INJECTABLE) -> Scene:
    """The scene where each person has, with probability `rate` an attribute, the value of another person who
    was asked to have a different one."""
    people = list(scene.characters)
    for attribute in attributes:
        for index, person in enumerate(scene.characters):
            own = getattr(person, attribute)
            others = {getattr(o, attribute) for o in scene.characters} - {own, None}
            if own is not None and others and rng.random() < rate:
                people[index] = _with(people[index], attribute, rng.choice(sorted(others)))
    return replace(scene, characters=tuple(people))


def swapped(scene: Scene, rate: float, rng: random.Random, attributes: Sequence[str] = INJECTABLE) -> Scene:
    """The scene where pairs of people have exchanged a value, each pair with probability `rate` an attribute;
    a person takes part in one exchange of an attribute at most."""
    people = list(scene.characters)
    for attribute in attributes:
        busy: set[int] = set()
        pairs = list(itertools.combinations(range(len(people)), 2))
        rng.shuffle(pairs)
        for one, two in pairs:
            first, second = (getattr(scene.characters[i], attribute) for i in (one, two))
            free = one not in busy and two not in busy and None not in (first, second) and first != second
            if free and rng.random() < rate:
                people[one] = _with(people[one], attribute, second)
                people[two] = _with(people[two], attribute, first)
                busy |= {one, two}
    return replace(scene, characters=tuple(people))


def _with(character: Character, attribute: str, value: str) -> Character:
    change: dict[str, Any] = {attribute: value}
    return replace(character, **change)


def faultless_reading(asked: Scene, shown: Scene) -> PictureReading:
    """What an evaluator without mistakes reads in a picture that shows one scene and was asked for another
    with as many people at the same places."""
    people: list[PersonReading] = []
    for wanted, there in zip(asked.characters, shown.characters, strict=True):
        targets = dict(zip(CHARACTER_HEADS, character_targets(wanted), strict=True))
        seen = dict(zip(CHARACTER_HEADS, character_targets(there), strict=True))
        read = {name: seen[name] for name in READ_ATTRIBUTES if seen[name] != HIDDEN}
        asked_for = {name: targets[name] for name in READ_ATTRIBUTES}
        people.append(PersonReading(wanted.position, asked_for, True, True, read, read))
    return PictureReading(len(people), tuple(people))
