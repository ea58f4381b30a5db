"""Differences say all that changed, also on prompts they were not made from; editing adds what is missing."""

from __future__ import annotations

import pytest

from newbie_image.errors import PromptError
from newbie_image.prompt import parse
from newbie_image.prompt.diff import apply, diff


def look(tags: str, rest: str = "") -> str:
    return f"<character_1><appearance>{tags}</appearance>{rest}</character_1>"


def said(a: str, b: str) -> list[str]:
    return [str(change) for change in diff(parse(a), parse(b)).changes]


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (
            "blue_hair",
            "<!-- weight:1.2 -->red_hair",
            [
                "character 1, appearance: blue_hair → red_hair",
                "character 1, appearance: weight of red_hair 1 → 1.2",
            ],
        ),
        (
            "<!-- weight:1.5 -->blue_hair",
            "red_hair",
            [
                "character 1, appearance: blue_hair → red_hair",
                "character 1, appearance: weight of red_hair 1.5 → 1",
            ],
        ),
        (
            "x, y, z",
            "z, w, x",
            ["character 1, appearance: y → w", "character 1, appearance: other order: z, w, x"],
        ),
        ("x, y", "x, y, w", ["character 1, appearance: + w"]),
        ("x, <!-- weight:2 -->x", "x, x", ["character 1, appearance: weight of x 2 → 1"]),
    ],
)
def test_each_change_is_said_and_made_on_other_prompts(a: str, b: str, words: list[str]):
    assert said(look(a), look(b)) == words
    patch = diff(parse(look(a)), parse(look(b)))
    other = apply(parse(look(a, "<pose>standing</pose>")), patch)
    assert other.meaning() == parse(look(b, "<pose>standing</pose>")).meaning()


def test_a_new_block_keeps_its_weight_on_other_prompts():
    a, block = look("red_hair"), "<!-- weight:1.5 --><character_2><n>rin</n></character_2>"
    patch = diff(parse(a), parse(a + block))
    assert [str(c) for c in patch.changes] == ["character 2: added, weight 1.5"]
    made = apply(parse(look("green_hair")), patch)
    assert made.tag("character_2.n[0]").weight == 1.5


@pytest.mark.parametrize(
    ("block", "path"),
    [
        ("<environment><time>night</time></environment>", "environment.time[0]"),
        ("<environment><weather>rain</weather></environment>", "environment.weather[0]"),
        ("<danbooru_tags>night</danbooru_tags>", "danbooru_tags[0]"),
        ("<mood>night</mood>", "mood[0]"),
        ("<general_tags><mood>night</mood></general_tags>", "general_tags.mood[0]"),
    ],
)
def test_a_patch_adds_to_any_element(block: str, path: str):
    a = look("red_hair")
    patch = diff(parse(a, strict=False), parse(a + block, strict=False))
    others = (
        "",
        "<general_tags><style>x</style></general_tags>",
        "<environment><time>y</time></environment>",
    )
    for rest in (*others, block):
        made = apply(parse(look("green_hair") + rest, strict=False), patch)
        section = path.removesuffix("[0]")
        assert patch.changes[0].new in [t.text for t in made.tags if t.section == section]
        assert made.character(1).get("appearance") == ("green_hair",)


def test_surroundings_are_set_where_they_belong():
    prompt = parse(look("red_hair") + "<environment><time>day</time></environment>")
    made = prompt.set("time", "night").set("location", "school").set("weather", "rain").set("style", "sketch")
    assert [t.path for t in made.tags[1:]] == [
        "environment.time[0]",
        "environment.location[0]",
        "environment.weather[0]",
        "general_tags.style[0]",
    ]
    bare = parse(look("red_hair")).set("weather", "rain").set("time", "night")
    assert [t.path for t in bare.tags[1:]] == ["general_tags.weather[0]", "environment.time[0]"]


def test_a_set_keeps_the_weights_typed():
    made = parse(look("x")).character(1).set("appearance", "<!-- weight:0.5 -->blue_hair, red")
    assert [(t.text, t.weight) for t in made.tags] == [("blue_hair", 0.5), ("red", 1.0)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        look("x"),
        f"<scene>{look('x')}</scene>",
        "<scene/>",
        "<!-- weight:2 --><general_tags><style>y</style></general_tags>",
    ],
)
def test_a_character_is_added(text: str):
    before = parse(text)
    made = before.with_character(gender="1girl", appearance=["red_hair", "a, b"])
    number = len(before.characters) + 1
    assert made.character(number).gender == "1girl"
    assert made.character(number).get("appearance") == ("red_hair", "a, b")
    assert [t.weight for t in made.character(number).tags] == [1.0] * 3
    assert [(t.text, t.weight) for t in before.tags] == [
        (t.text, t.weight) for t in made.tags if not t.section.startswith(f"character_{number}.")
    ]


def test_a_character_that_cannot_be_added_is_refused():
    with pytest.raises(PromptError, match="convert it"):
        parse("a, b").with_character(gender="1girl")
    with pytest.raises(PromptError, match="taken"):
        parse(look("x")).with_character(1, gender="1girl")
    with pytest.raises(PromptError, match="no field 'hair'"):
        parse(look("x")).with_character(hair="x")
