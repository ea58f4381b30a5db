"""Captions of scenes: XML in the project's own format, flat tags, and short sentences.

`xml_caption(scene)` without a random generator says everything in a fixed order, which is what evaluation
asks for; with one it leaves attributes out and shuffles, which is what training sees.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

from newbie_image.nano.world import attributes as a
from newbie_image.nano.world.scene import Character, Scene

LEAVE_OUT: Final = 0.1
"""Probability with which training leaves one attribute of a character unsaid."""

FIGURE_FIELDS: Final = frozenset(next(iter(a.FIGURES.values())))

COUNT_WORDS: Final = ("no", "one", "two", "three", "four", "five", "six")


def hair_tag(character: Character) -> str:
    return f"{character.hair_color}_hair"


def character_tags(character: Character) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Attribute group → (XML field, tags). An attribute that is hidden or absent has no tags and is not in
    it.

    Groups: gender, hair_style, hair_color, eye_color, glasses, top, bottom, legwear, headwear, expression,
    pose, held.
    """
    c = character
    tags: dict[str, tuple[str, tuple[str, ...]]] = {
        "gender": ("gender", (c.gender,)),
        "hair_color": ("appearance", (hair_tag(c),)),
        "hair_style": ("appearance", (c.hair_style,)),
    }
    if c.eye_color:
        tags["eye_color"] = ("appearance", (f"{c.eye_color}_eyes",))
    if c.glasses:
        tags["glasses"] = ("appearance", ("glasses",))
    if c.headwear:
        field = "appearance" if c.headwear in ("cat_ears", "rabbit_ears") else "clothing"
        colored = f"{c.headwear_color}_{c.headwear}" if c.headwear_color else c.headwear
        tags["headwear"] = (field, (colored,))
    if c.top:
        tags["top"] = ("clothing", (f"{c.top_color}_{c.top}",))
    tags["bottom"] = ("clothing", (f"{c.bottom_color}_{c.bottom}",))
    if c.legwear:
        tags["legwear"] = ("clothing", (c.legwear,))
    tags["expression"] = ("expression", (c.expression,))
    tags["pose"] = ("pose", (c.pose,))
    if c.held:
        tags["held"] = ("action", (f"holding_{c.held}",))
    return tags


FIELD_ORDER: Final = ("gender", "appearance", "clothing", "expression", "pose", "action", "position")


def count_tags(scene: Scene) -> list[str]:
    """`2girls`, `1girl, 1boy`, with `solo` for one person."""
    girls = sum(c.gender == "1girl" for c in scene.characters)
    boys = len(scene.characters) - girls
    tags = []
    if girls:
        tags.append("1girl" if girls == 1 else f"{girls}girls")
    if boys:
        tags.append("1boy" if boys == 1 else f"{boys}boys")
    if girls + boys == 1:
        tags.append("solo")
    return tags


def scene_tags(scene: Scene) -> dict[str, tuple[str, ...]]:
    """XML field of general_tags → tags, without the count."""
    tags: dict[str, tuple[str, ...]] = {"background": (scene.background,)}
    if scene.time:
        tags["lighting"] = (scene.time,)
    if scene.weather:
        tags["weather"] = (scene.weather,)
    if scene.interaction:
        tags["composition"] = (scene.interaction,)
    return tags


def _spoken(character: Character, rng: random.Random | None) -> dict[str, tuple[str, tuple[str, ...]]]:
    tags = character_tags(character)
    if character.name and (rng is None or rng.random() < 0.6):
        hidden = {
            "gender",
            "hair_style",
            "hair_color",
            "eye_color",
            "glasses",
            "headwear",
            "top",
            "bottom",
            "legwear",
        }
        if rng is None or rng.random() < 0.7:
            tags = {k: v for k, v in tags.items() if k not in hidden or k == "gender"}
    if rng is None:
        return tags
    return {k: v for k, v in tags.items() if rng.random() >= LEAVE_OUT}


def xml_caption(scene: Scene, rng: random.Random | None = None, *, positions: bool = True) -> str:
    """The scene as an XML prompt; complete and in fixed order without `rng`, varied with it. Without
    `positions` no character says where it stands."""
    lines: list[str] = []
    numbers = list(range(len(scene.characters)))
    position_known = positions and (rng is None or len(scene.characters) == 1 or rng.random() < 0.85)
    if rng is not None and position_known and rng.random() < 0.3:
        rng.shuffle(numbers)
    for number, index in enumerate(numbers, start=1):
        character = scene.characters[index]
        spoken = _spoken(character, rng)
        fields: dict[str, list[str]] = {}
        for field, tags in spoken.values():
            fields.setdefault(field, []).extend(tags)
        if position_known and (rng is None or len(scene.characters) > 1 or rng.random() < 0.5):
            fields["position"] = [character.position]
        lines.append(f"<character_{number}>")
        if character.name and (rng is None or len(spoken) < 8 or rng.random() < 0.5):
            lines.append(f"  <n>{character.name}</n>")
        for field in FIELD_ORDER:
            tags = fields.get(field)
            if tags:
                if rng is not None:
                    rng.shuffle(tags)
                lines.append(f"  <{field}>{', '.join(tags)}</{field}>")
        lines.append(f"</character_{number}>")
    lines.append("<general_tags>")
    if rng is None or rng.random() < 0.85:
        lines.append(f"  <count>{', '.join(count_tags(scene))}</count>")
    for field, tags in scene_tags(scene).items():
        if rng is None or rng.random() >= LEAVE_OUT:
            lines.append(f"  <{field}>{', '.join(tags)}</{field}>")
    lines.append("</general_tags>")
    return "\n".join(lines)


def tag_caption(scene: Scene, rng: random.Random | None = None) -> str:
    """The scene as one list of Danbooru tags: count first, character by character, then the background."""
    tags = count_tags(scene)
    for character in scene.characters:
        spoken = [
            tag for field, group in _spoken(character, rng).values() if field != "gender" for tag in group
        ]
        if rng is not None and len(scene.characters) == 1:
            rng.shuffle(spoken)
        if character.name:
            spoken.insert(0, character.name)
        tags += spoken
    for group in scene_tags(scene).values():
        tags += group
    return ", ".join(tags)


def _phrase(character: Character, spoken: dict[str, tuple[str, tuple[str, ...]]]) -> str:
    person = {"1girl": "a girl", "1boy": "a boy"}[character.gender]
    words = [character.name.replace("_", " ") if character.name else person]
    features = [
        tag.replace("_", " ")
        for group in ("hair_color", "hair_style", "eye_color", "glasses")
        if group in spoken
        for tag in spoken[group][1]
    ]
    if features:
        words.append("with " + " and ".join(features))
    clothes = [
        tag.replace("_", " ")
        for group in ("headwear", "top", "bottom", "legwear")
        if group in spoken
        for tag in spoken[group][1]
    ]
    if clothes:
        words.append("wearing " + " and ".join(clothes))
    for group in ("expression", "pose", "held"):
        if group in spoken:
            words.append(spoken[group][1][0].replace("_", " "))
    return " ".join(words)


def sentence_caption(scene: Scene, rng: random.Random | None = None, *, positions: bool = True) -> str:
    """The scene in one short English sentence, characters in their order; without `positions` nobody is said
    to stand anywhere."""
    people = []
    for character in scene.characters:
        phrase = _phrase(character, _spoken(character, rng))
        if positions and len(scene.characters) > 1:
            phrase = f"on the {character.position.replace('_', ' ')} {phrase}"
        people.append(phrase)
    place = " ".join(tag.replace("_", " ") for group in scene_tags(scene).values() for tag in group)
    return f"{', and '.join(people)}, {place}."


def in_any_order(scene: Scene, rng: random.Random, share: float) -> Scene:
    """The scene with its people named in another order in a share of the cases; where they stand stays.

    People who are always named from left to right are found by their order, not by their positions: see
    docs/LOG.md, fourth run.
    """
    if rng.random() >= share:
        return scene
    people = list(scene.characters)
    rng.shuffle(people)
    return replace(scene, characters=tuple(people))


def complete_caption(scene: Scene, rng: random.Random, shuffled: float, unplaced: float) -> str:
    """One caption to learn from in which all is said, fields in one order: XML in 94 of 100 cases, flat tags
    in 4, a sentence in 2.

    Of the XML the share `unplaced` has no positions, and its people stand in the order in which they are
    named; of the rest the share `shuffled` names people in any order.
    """
    kind = rng.random()
    if kind < 0.94:
        if rng.random() < unplaced:
            return xml_caption(scene, positions=False)
        return xml_caption(in_any_order(scene, rng, shuffled))
    return tag_caption(scene) if kind < 0.98 else sentence_caption(scene)


def varied_caption(scene: Scene, rng: random.Random) -> str:
    """One caption to learn from with attributes left out and tags in any order: XML in 84 of 100 cases, flat
    tags in 10, a sentence in 6. Where no positions are given, people are named from left to right."""
    kind = rng.random()
    if kind < 0.84:
        return xml_caption(scene, rng)
    return tag_caption(scene, rng) if kind < 0.94 else sentence_caption(scene, rng)
