"""The prompts of the benchmark: every one is a function of its set's name, its number of people and its
index.

Easy prompts are at the ceiling without any mechanism, so people differ from each other in every attribute
that has enough values, and all attributes are asked for.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from newbie_image.errors import RequestError
from newbie_image.nano.captions import sentence_caption, tag_caption, xml_caption
from newbie_image.nano.world import attributes as a
from newbie_image.nano.world.held_out import HELD_OUT_PAIRS, HeldOutPair, held_out_pairs
from newbie_image.nano.world.scene import Character, Scene, interact, sample_scene, see

FORMS: Final = ("xml", "tags", "sentence")
FIRST_SEED: Final = 1_500_000_000
"""Seeds from here on belong to the benchmark. Neither training, nor the readers, nor the score use them."""
LONGEST: Final = 961
"""Prompts in every set: a paired difference is known to ±2 points at 10 % discordance."""
TRIES: Final = 10_000


@dataclass(frozen=True)
class Kind:
    """One sort of prompt.

    Args:
        words: what it asks, in a line.
        people: the numbers of people that it comes in.
        of: the kind whose scenes it asks in another way, with the same noise; None for scenes of its own.
    """

    words: str
    people: tuple[int, ...]
    of: str | None = None


KINDS: Final[Mapping[str, Kind]] = {
    "seen": Kind("all attributes differ, no held-out pair", (1, 2, 3, 4, 5, 6)),
    "held-out": Kind("all attributes differ, each person has a held-out pair", (1, 2, 3, 4, 5, 6)),
    "twins": Kind("people who differ in one attribute alone", (2, 3, 4, 5, 6)),
    "interactions": Kind("two people who hold hands, face each other or stand back to back", (2,)),
    "swapped": Kind("the scenes of seen, people named in reverse order", (2, 3, 4, 5, 6), of="seen"),
    "unplaced": Kind("the scenes of seen, without positions", (2, 3, 4, 5, 6), of="seen"),
    "equal": Kind("everybody has the same attributes: the control", (2, 3, 4, 5, 6)),
}

DIFFERING: Final[Mapping[str, Sequence[Any]]] = {
    "hair_style": a.HAIR_STYLES,
    "hair_color": a.HAIR_COLORS,
    "eye_color": a.EYE_COLORS,
    "expression": a.EXPRESSIONS,
    "top": a.TOPS,
    "top_color": a.CLOTHES_COLORS,
    "bottom": a.BOTTOMS,
    "bottom_color": a.CLOTHES_COLORS,
    "legwear": a.LEGWEAR,
    "headwear": a.HEADWEAR,
    "headwear_color": a.CLOTHES_COLORS,
    "held": a.HELD,
    "pose": a.POSES,
}
"""Attributes that have a value for each of six people. Gender and glasses have two and are drawn freely."""


@dataclass(frozen=True)
class BenchmarkPrompt:
    """One prompt.

    Args:
        kind, people, index: which it is; `key` has them in one word.
        scene: what is asked for, its characters in the order of the prompt.
        noise_seed: seed of the noise, the same in every arm.
        positions: whether the prompt says where people stand.
    """

    kind: str
    people: int
    index: int
    scene: Scene
    noise_seed: int
    positions: bool = True

    @property
    def key(self) -> str:
        """`seen-2-0007`."""
        return f"{self.kind}-{self.people}-{self.index:04d}"

    @property
    def twin_key(self) -> str:
        """The key of the prompt that asks for the same scene in the plain way."""
        return f"{KINDS[self.kind].of or self.kind}-{self.people}-{self.index:04d}"

    def says_where(self, form: str) -> bool:
        """Whether it says where people stand, written in that form; tags say their order alone."""
        return self.positions and form != "tags"

    def text(self, form: str) -> str:
        """The prompt as `xml`, `tags` or `sentence`.

        Raises:
            RequestError: another form.
        """
        if form == "xml":
            return xml_caption(self.scene, positions=self.positions)
        if form == "tags":
            return tag_caption(self.scene)
        if form == "sentence":
            return sentence_caption(self.scene, positions=self.positions)
        raise RequestError(f"unknown form {form!r}; choose one of {', '.join(FORMS)}")


def first_seed(kind: str, people: int) -> int:
    """The seed of prompt 0 of a set, from the seeds that belong to the benchmark."""
    number = list(KINDS).index(KINDS[kind].of or kind)
    return FIRST_SEED + 100_000_000 * number + 10_000_000 * people


def make_prompt(kind: str, people: int, index: int) -> BenchmarkPrompt:
    """Prompt `index` of a set. The same three give the same prompt on every machine.

    Raises:
        RequestError: a kind or a number of people that there is not.
    """
    check_set(kind, people)
    seed = first_seed(kind, people) + index
    scene = _scene(KINDS[kind].of or kind, people, seed)
    if kind == "swapped":
        scene = replace(scene, characters=scene.characters[::-1])
    return BenchmarkPrompt(kind, people, index, scene, seed, positions=kind != "unplaced")


def check_set(kind: str, people: int) -> None:
    """Refuse (RequestError) a set that there is not."""
    if kind not in KINDS:
        raise RequestError(f"unknown prompt set {kind!r}; choose one of {', '.join(KINDS)}")
    if people not in KINDS[kind].people:
        allowed = ", ".join(map(str, KINDS[kind].people))
        raise RequestError(f"the set {kind!r} has no prompts with {people} people; choose one of {allowed}")


def _scene(kind: str, people: int, seed: int) -> Scene:
    rng = random.Random(f"{seed}:benchmark")
    base = replace(sample_scene(seed, people), interaction=None)
    for _ in range(TRIES):
        scene = _MAKERS[kind](base, rng)
        if scene is not None:
            return scene
    raise AssertionError(f"no scene for {kind} with {people} people and seed {seed}")


def different_people(base: Scene, rng: random.Random, pairs: Sequence[HeldOutPair] = ()) -> Scene:
    """The scene with people who differ in all of DIFFERING; person i has `pairs[i]`.

    What a dress, trousers or closed eyes hide is hidden, and not asked for.
    """
    count = len(base.characters)
    columns = {field: rng.sample(list(values), count) for field, values in DIFFERING.items()}
    for person, pair in enumerate(pairs):
        for field, value in ((pair.first_field, pair.first), (pair.second_field, pair.second)):
            column = columns[field]
            if value in column:
                column[column.index(value)] = column[person]
            column[person] = value
    people: list[Character] = []
    for person, old in enumerate(base.characters):
        changes: dict[str, Any] = {field: column[person] for field, column in columns.items()}
        changes |= {
            "gender": "1boy" if rng.random() < 0.3 else "1girl",
            "glasses": rng.random() < 0.25,
            "name": None,
        }
        people.append(see(replace(old, **changes)))
    return replace(base, characters=tuple(people))


def _seen(base: Scene, rng: random.Random) -> Scene | None:
    scene = different_people(base, rng)
    return None if held_out_pairs(scene) else scene


def _held_out(base: Scene, rng: random.Random) -> Scene | None:
    pairs = rng.sample(HELD_OUT_PAIRS, len(base.characters))
    scene = different_people(base, rng, pairs)
    seen = all(pair.fits(person) for pair, person in zip(pairs, scene.characters, strict=True))
    return scene if seen else None


def _equal(base: Scene, rng: random.Random) -> Scene | None:
    one = different_people(replace(base, characters=base.characters[:1]), rng).characters[0]
    scene = replace(base, characters=tuple(replace(one, position=c.position) for c in base.characters))
    return None if held_out_pairs(scene) else scene


def _twins(base: Scene, rng: random.Random) -> Scene | None:
    scene = _equal(base, rng)
    if scene is None:
        return None
    field = rng.choice(list(DIFFERING))
    values = rng.sample(list(DIFFERING[field]), len(scene.characters))
    twins: list[Character] = []
    for twin, value in zip(scene.characters, values, strict=True):
        change: dict[str, Any] = {field: value}
        twins.append(see(replace(twin, **change)))
    scene = replace(scene, characters=tuple(twins))
    seen = all(value is not None for value in (getattr(twin, field) for twin in twins))
    return scene if seen and differing_fields(scene) == {field} and not held_out_pairs(scene) else None


def _interactions(base: Scene, rng: random.Random) -> Scene | None:
    scene = different_people(base, rng)
    interaction = rng.choice(a.INTERACTIONS)
    scene = replace(scene, interaction=interaction, characters=interact(interaction, scene.characters))
    return None if held_out_pairs(scene) else scene


_MAKERS: Final = {
    "seen": _seen,
    "held-out": _held_out,
    "twins": _twins,
    "interactions": _interactions,
    "equal": _equal,
}


def differing_fields(scene: Scene) -> set[str]:
    """The attributes that not everybody in the scene has alike."""
    return {
        field
        for field in a.CHARACTER_FIELDS
        if len({getattr(character, field) for character in scene.characters}) > 1
    }
