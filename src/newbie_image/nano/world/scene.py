"""Scenes as data: who stands where, looks how, in front of what — and the seeded sampler that invents
them."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace
from typing import Final

from newbie_image.nano.world import attributes as a


@dataclass(frozen=True)
class Character:
    """One person, completely described. A field that cannot be seen is None (see
    attributes.CHARACTER_FIELDS)."""

    gender: str
    hair_style: str
    hair_color: str
    eye_color: str | None
    expression: str
    glasses: bool
    top: str | None
    top_color: str | None
    bottom: str
    bottom_color: str
    legwear: str | None
    headwear: str | None
    headwear_color: str | None
    held: str | None
    pose: str
    position: str
    name: str | None = None

    def labels(self) -> dict[str, str | bool | None]:
        """All scored attributes by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in a.CHARACTER_FIELDS}


@dataclass(frozen=True)
class Scene:
    """A whole picture. `jitter` seeds what has no label: exact places, sizes, clouds, strands of hair.

    `interaction` is None or one of attributes.INTERACTIONS and then concerns the first two characters.
    `time` and `weather` are None where the background has none (plain and indoor backgrounds); a weather of
    None is clear otherwise.
    """

    characters: tuple[Character, ...]
    background: str
    time: str | None
    weather: str | None
    interaction: str | None
    jitter: int


WEIGHTED_BOY_STYLES: Final = ("short_hair", "spiked_hair", "bob_cut", "ponytail", "wavy_hair")


def see(character: Character) -> Character:
    """The same character with what cannot be seen set to None (a dress hides the top, trousers the legwear,
    …)."""
    changes: dict[str, str | None] = {}
    if character.bottom == "dress":
        changes |= {"top": None, "top_color": None}
    if character.bottom in a.LEGWEAR_HIDING_BOTTOMS:
        changes["legwear"] = None
    if character.expression in a.EYE_HIDING_EXPRESSIONS:
        changes["eye_color"] = None
    if character.headwear not in a.COLORED_HEADWEAR:
        changes["headwear_color"] = None
    return replace(character, **changes)  # pyright: ignore[reportArgumentType]


def sample_character(rng: random.Random, position: str) -> Character:
    """One character with independent attributes; now and then one of the named figures."""
    gender = "1boy" if rng.random() < 0.3 else "1girl"
    style = rng.choice(a.HAIR_STYLES)
    if gender == "1boy" and rng.random() < 0.6:
        style = rng.choice(WEIGHTED_BOY_STYLES)
    character = Character(
        gender=gender,
        hair_style=style,
        hair_color=rng.choice(a.HAIR_COLORS),
        eye_color=rng.choice(a.EYE_COLORS),
        expression=rng.choice(a.EXPRESSIONS),
        glasses=rng.random() < 0.25,
        top=rng.choice(a.TOPS),
        top_color=rng.choice(a.CLOTHES_COLORS),
        bottom=rng.choice(a.BOTTOMS),
        bottom_color=rng.choice(a.CLOTHES_COLORS),
        legwear=rng.choice(a.LEGWEAR),
        headwear=rng.choice(a.HEADWEAR) if rng.random() < 0.75 else None,
        headwear_color=rng.choice(a.CLOTHES_COLORS),
        held=rng.choice(a.HELD) if rng.random() < 0.6 else None,
        pose=rng.choice(a.POSES),
        position=position,
    )
    if rng.random() < 0.08:
        name = rng.choice(tuple(a.FIGURES))
        character = replace(character, name=name, **a.FIGURES[name])
    return see(character)


def sample_scene(seed: int, count: int | None = None, counts: dict[int, float] | None = None) -> Scene:
    """Invents a scene. The same seed gives the same scene on every machine.

    Args:
        seed: any integer.
        count: number of characters, 1 to 6; drawn from `counts` if None.
        counts: probability of each number of characters; default 1: 0.4, 2: 0.45, 3: 0.15.
    """
    rng = random.Random(seed)
    counts = counts or {1: 0.4, 2: 0.45, 3: 0.15}
    drawn = rng.choices(tuple(counts), weights=tuple(counts.values()))[0]
    count = count or drawn
    layouts = a.POSITIONS[count]
    positions = layouts[0] if rng.random() < 0.7 else rng.choice(layouts)
    characters = tuple(sample_character(rng, position) for position in positions)
    background = rng.choice(a.BACKGROUNDS)
    outdoors = background not in a.PLAIN_BACKGROUNDS and background not in a.INDOOR_BACKGROUNDS
    time = rng.choice(a.TIMES) if outdoors else None
    weather = rng.choice(a.WEATHERS) if outdoors and rng.random() < 0.4 else None
    if background == "starry_sky":
        time = "night"
    interaction = rng.choice(a.INTERACTIONS) if count == 2 and rng.random() < 0.2 else None
    if interaction is not None:
        characters = interact(interaction, characters)
    return Scene(characters, background, time, weather, interaction, jitter=rng.randrange(2**31))


def interact(interaction: str, characters: tuple[Character, ...]) -> tuple[Character, ...]:
    """The first two characters with what their interaction leaves room for: hands that hold each other hold
    nothing else and take no pose, and people who stand close hide what they would carry between them."""
    first, second = (replace(c, held=None) for c in characters[:2])
    if interaction == "holding_hands" and second.pose not in a.HANDLESS_POSES:
        second = replace(second, pose="standing")
    return (first, second, *characters[2:])
