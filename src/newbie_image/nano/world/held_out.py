"""Attribute pairs that one character never has where they are held out, so that a score on them is a score on
combinations that training did not show.

Each value alone is common; only the two together are rare. Within a field no value stands in two pairs, so
six people can each have a pair of their own and still differ in everything.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any, Final

from newbie_image.nano.world import attributes as a
from newbie_image.nano.world.scene import Character, Scene, see


@dataclass(frozen=True)
class HeldOutPair:
    """Two values of one character: `first_field` is `first` and `second_field` is `second`."""

    first_field: str
    first: str
    second_field: str
    second: str

    def fits(self, character: Character) -> bool:
        """Whether the character has both values, to be seen."""
        return (
            getattr(character, self.first_field) == self.first
            and getattr(character, self.second_field) == self.second
        )

    def given_to(self, character: Character) -> Character:
        """The character with both values; what they hide or need is left to :func:`see`."""
        changes: dict[str, Any] = {self.first_field: self.first, self.second_field: self.second}
        return replace(character, **changes)


HELD_OUT_PAIRS: Final = (
    HeldOutPair("hair_style", "twin_drills", "hair_color", "green"),
    HeldOutPair("hair_style", "bob_cut", "hair_color", "aqua"),
    HeldOutPair("hair_color", "blue", "eye_color", "yellow"),
    HeldOutPair("hair_color", "pink", "eye_color", "green"),
    HeldOutPair("top", "hoodie", "top_color", "pink"),
    HeldOutPair("top", "kimono", "top_color", "green"),
    HeldOutPair("bottom", "shorts", "bottom_color", "yellow"),
    HeldOutPair("bottom", "pleated_skirt", "bottom_color", "purple"),
    HeldOutPair("headwear", "beret", "headwear_color", "blue"),
    HeldOutPair("headwear", "witch_hat", "headwear_color", "red"),
)


def held_out_pairs(scene: Scene) -> tuple[HeldOutPair, ...]:
    """The held-out pairs that somebody in the scene has."""
    return tuple(pair for pair in HELD_OUT_PAIRS if any(pair.fits(c) for c in scene.characters))


def without_held_out_pairs(scene: Scene) -> Scene:
    """The same scene where nobody has a held-out pair: the second value of each is drawn again.

    A scene that has none comes back as it is, so all other pictures stay those of their seeds. The named
    figures have none.
    """
    if not held_out_pairs(scene):
        return scene
    rng = random.Random(f"{scene.jitter}:held out")
    return replace(scene, characters=tuple(_redrawn(c, rng) for c in scene.characters))


def _redrawn(character: Character, rng: random.Random) -> Character:
    while pair := next((each for each in HELD_OUT_PAIRS if each.fits(character)), None):
        changes: dict[str, Any] = {pair.second_field: rng.choice(a.CHARACTER_FIELDS[pair.second_field])}
        character = see(replace(character, **changes))
    return character
