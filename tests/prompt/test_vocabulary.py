"""The vocabulary's consistency, and its guesses at misspelt tags."""

from __future__ import annotations

import re

import pytest

from newbie_image.nano.world import attributes as world
from newbie_image.prompt import grammar
from newbie_image.prompt.sorting import figures
from newbie_image.prompt.vocabulary import BLENDS, FIRM_GROUPS, IMPLIED, implied, read, vocabulary

WORDS = vocabulary()


def test_size_and_shape():
    assert len(WORDS) >= 1500
    for entry in WORDS.entries.values():
        assert re.fullmatch(r"[!-~]+", entry.tag), entry
        assert entry.tag == entry.tag.lower()
        assert "," not in entry.tag
        assert entry.field in grammar.CHARACTER_FIELDS or entry.field in grammar.GENERAL_FIELDS, entry
        assert re.fullmatch(r"[a-z_]+", entry.category), entry
        assert re.fullmatch(r"[a-z_-]*", entry.group), entry
        assert entry.zh and all(name and name == name.strip() for name in entry.zh), entry
        assert entry.ja and all(name and name == name.strip() for name in entry.ja), entry


def test_each_name_means_one_tag_in_its_language():
    for language in ("zh", "ja"):
        names = [name for entry in WORDS.entries.values() for name in getattr(entry, language)]
        assert len(names) == len(set(names))


def test_groups_have_several_members_and_one_field():
    groups: dict[str, list[str]] = {}
    for entry in WORDS.entries.values():
        if entry.group:
            groups.setdefault(entry.group, []).append(entry.field)
    for group, fields in groups.items():
        assert len(fields) > 1, group
        assert len(set(fields)) == 1, group
    assert set(groups) >= FIRM_GROUPS
    for group, blends in BLENDS.items():
        assert group in groups
        assert all(tag in WORDS for tag in blends)


def test_everything_of_the_embedded_world_is_in_it():
    colours = world.CLOTHES_COLORS
    needed = {f"{c}_hair" for c in world.HAIR_COLORS} | {f"{c}_eyes" for c in world.EYE_COLORS}
    needed |= {f"{c}_{t}" for c in colours for t in (*world.TOPS, *world.BOTTOMS, *world.COLORED_HEADWEAR)}
    needed |= {f"holding_{thing}" for thing in world.HELD} | set(world.FIGURES) | {"glasses", "solo"}
    for values in (world.GENDERS, world.HAIR_STYLES, world.EXPRESSIONS, world.LEGWEAR, world.HEADWEAR, world.POSES,
                   world.INTERACTIONS, world.BACKGROUNDS, world.TIMES, world.WEATHERS):  # fmt: skip
        needed |= set(values)
    assert needed - set(WORDS.entries) == set()


def test_figures_are_tags():
    assert all(name in WORDS for name in figures())


@pytest.mark.parametrize(
    ("written", "meant"),
    [("bleu_hair", "blue_hair"), ("twin_tails", "twintails"), ("catears", "cat_ears"), ("long_hiar", "long_hair"),
     ("holdng_umbrela", "holding_umbrella"), ("serafuk", "serafuku"), ("blue_hair", None), ("Blue Hair", None),
     ("short_cut", None), ("pole", None), ("blue_hat", None), ("red_cot", None), ("x" * 500, None), ("蓝发", None)],
)  # fmt: skip
def test_correction(written: str, meant: str | None):
    assert WORDS.correction(written) == meant


@pytest.mark.parametrize("text", ["a\tb\tc", "a\tb\tc\td\te\tf\na\tb\tc\td\te\tf"])
def test_a_damaged_file_is_refused(text: str):
    with pytest.raises(ValueError, match="six columns"):
        read(text)


def test_implied_tags_are_of_one_firm_group():
    for tag, wider in IMPLIED.items():
        assert WORDS.group(tag) == WORDS.group(wider) in FIRM_GROUPS, tag
    assert implied("absurdly_long_hair") == {"absurdly_long_hair", "very_long_hair", "long_hair"}
