"""The three prompts that the language was specified with, exactly as it says: flattening, diagnostics, weights."""

from __future__ import annotations

import pytest

from newbie_image.prompt import flatten, parse
from newbie_image.prompt.flatten import encoder_text, group_texts
from newbie_image.prompt.lint import check, fix

MIKU = (
    "<scene> <character_1> <n>miku</n> <gender>1girl</gender> <appearance>blue_hair, long_twintails, teal_eyes, "
    "sailor_uniform</appearance> <action>holding_umbrella</action> </character_1> <environment> "
    "<weather>rainy_day</weather> <lighting>soft_rain_light</lighting> </environment> <general_tags> "
    "<style>anime_style, high_quality</style> </general_tags> </scene>"
)
MERGED = "<character><n>rin</n><n>len</n><appearance>yellow_hair, twin_braids, green_hair, short_cut</appearance></character>"
WEIGHED = (
    "<character_1><appearance> blue_hair, long_twintails <!-- weight:0.6 -->teal_eyes "
    "<!-- keep the light on the face --> </appearance></character_1>"
)


def test_rain_scene_is_flattened_with_prefixes_for_the_character_only():
    prompt = parse(MIKU)
    assert prompt.kind == "xml"
    assert prompt.root == "scene"
    assert flatten(prompt).text == (
        "[char1]miku, [char1]1girl, [char1]blue_hair, [char1]long_twintails, [char1]teal_eyes, [char1]sailor_uniform, "
        "[char1]holding_umbrella, rainy_day, soft_rain_light, anime_style, high_quality"
    )
    assert prompt.character(1).name == "miku"
    assert prompt.character(1).get("appearance") == (
        "blue_hair",
        "long_twintails",
        "teal_eyes",
        "sailor_uniform",
    )
    assert [s.path for s in prompt.general.sections] == [
        "environment.weather",
        "environment.lighting",
        "general_tags.style",
    ]
    assert {tag.weight for tag in prompt.tags} == {1.0}
    assert prompt.encoder_text == MIKU
    assert check(prompt) == ()


def test_flat_places_lead_back_to_the_source():
    prompt = parse(MIKU)
    flat = flatten(prompt)
    for place in flat.places:
        assert flat.text[place.start : place.end] == place.tag.text
        assert MIKU[place.tag.start : place.tag.end] == place.tag.text
    assert prompt.tag("character_1.appearance[2]").text == "teal_eyes"


def test_classic_mistake_is_named_and_mended():
    prompt = parse(MERGED)
    assert flatten(prompt).text == (
        "[char1]rin, [char1]len, [char1]yellow_hair, [char1]twin_braids, [char1]green_hair, [char1]short_cut"
    )
    found = [(d.code, d.severity, d.path) for d in check(prompt)]
    assert found == [
        ("merged-characters", "warning", "character_1"),
        ("unnumbered-character", "warning", "character_1"),
        ("missing-field", "hint", "character_1"),
        ("missing-field", "hint", ""),
        ("contradiction", "warning", "character_1.appearance[2]"),
    ]
    mended, _ = fix(prompt)
    assert [(c.number, c.name, c.get("appearance")) for c in mended.characters] == [
        (1, "rin", ("yellow_hair", "twin_braids")),
        (2, "len", ("green_hair", "short_cut")),
    ]
    assert not [d for d in check(mended) if d.severity != "hint"]


def test_weight_comment_weighs_the_next_tag_and_ends_the_one_before():
    prompt = parse(WEIGHED)
    assert [(t.text, t.weight, t.own_weight) for t in prompt.tags] == [
        ("blue_hair", 1.0, None),
        ("long_twintails", 1.0, None),
        ("teal_eyes", 0.6, 0.6),
    ]
    assert prompt.tag("character_1.appearance[2]").raw == "teal_eyes"
    assert prompt.encoder_text == (
        "<character_1><appearance> blue_hair, long_twintails, teal_eyes  </appearance></character_1>"
    )
    assert flatten(prompt).text == "[char1]blue_hair, [char1]long_twintails, [char1]teal_eyes"
    assert not [d for d in check(prompt) if d.severity != "hint"]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("a <!-- weight:0.6 -->b", "a, b"),
        ("a<!-- weight:0.6 -->b", "a, b"),
        ("a <!-- note --> <!-- weight:2 --> b, c", "a,   b, c"),
        ("a\n<!-- weight:2 -->b", "a\nb"),
        ("a, <!-- weight:2 -->b", "a, b"),
        ("a <!-- weight:0 -->b, <!-- weight:2 -->c", "a, c"),
        ("a <!-- weight:2 --><x>b</x> c", "a <x>b</x> c"),
    ],
)
def test_tags_that_only_a_comment_keeps_apart_get_a_comma_in_the_encoders_text(typed: str, told: str):
    prompt = parse(f"<character_1><appearance>{typed}</appearance></character_1><style>s</style>")
    whole = encoder_text(prompt)
    assert f"<appearance>{told}</appearance>" in whole.text
    assert f"<appearance>{told}</appearance>" in group_texts(prompt)["character_1"].text
    for text in (whole, *group_texts(prompt).values(), *group_texts(prompt, "flat").values()):
        assert [text.text[p.start : p.end] for p in text.places] == [p.tag.text for p in text.places]


def test_a_caption_gets_no_comma_where_its_words_stand_apart():
    prompt = parse("<caption>A girl <!-- weight:1.2 -->in the rain.</caption>")
    assert prompt.encoder_text == "<caption>A girl in the rain.</caption>"
