"""How many people a prompt has: by its names, its genders, its count and its blocks."""

from __future__ import annotations

import pytest

from newbie_image.prompt import parse
from newbie_image.prompt.lint import check, fix
from newbie_image.prompt.people_words import People, people_in

BLOCK = "<character_1>{}</character_1>"


def codes(text: str) -> set[str]:
    return {d.code for d in check(parse(text)) if d.severity == "warning"}


@pytest.mark.parametrize(
    "names",
    ["hatsune_miku, vocaloid", "初音未来, V家", "momo_(my_game), my_game", "momo, tale_(series)", "vocaloid"],
)
def test_a_series_is_no_person(names: str):
    assert codes(BLOCK.format(f"<n>{names}</n>")) == set()
    assert codes(BLOCK.format("".join(f"<n>{n}</n>" for n in names.split(", ")))) == set()


def test_people_taken_apart_keep_their_series():
    text = BLOCK.format("<n>kagamine_rin, kagamine_len, vocaloid</n>")
    mended, _ = fix(parse(text))
    assert [c.get("n") for c in mended.characters] == [
        ("kagamine_rin", "vocaloid"),
        ("kagamine_len", "vocaloid"),
    ]


@pytest.mark.parametrize("gender", ["2girls", "two girls", "两个女孩", "1girl, 1girl"])
def test_two_girls_in_one_block_are_taken_apart(gender: str):
    text = BLOCK.format(f"<gender>{gender}</gender><appearance>red_hair, blue_hair</appearance>")
    assert "merged-characters" in codes(text)
    mended, _ = fix(parse(text))
    assert [c.get("gender") for c in mended.characters] == [("1girl",), ("1girl",)]
    assert [c.get("appearance") for c in mended.characters] == [("red_hair",), ("blue_hair",)]
    assert "merged-characters" not in codes(mended.source)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2girls", People(2, "girl")),
        ("1 girl", People(1, "girl")),
        ("one_girl", People(1, "girl")),
        ("a woman", People(1, "girl")),
        ("three boys", People(3, "boy")),
        ("6+girls", People(6, "girl", True)),
        ("两个女孩", People(2, "girl")),
        ("3名少年", People(3, "boy")),
        ("女の子二人", People(2, "girl")),
        ("girl", None),
        ("one_side_up", None),
        ("man_in_black", None),
        ("女子高生", None),
    ],
)
def test_how_many_people_a_tag_says(text: str, said: People | None):
    assert people_in(text) == said


@pytest.mark.parametrize(
    ("count", "wrong"),
    [
        ("1 girl", True),
        ("one girl", True),
        ("一个女孩", True),
        ("单人", True),
        ("2 girls", False),
        ("two girls", False),
        ("两个女孩", False),
        ("2girls, solo_focus", False),
    ],
)
def test_a_count_in_words_is_compared_with_the_blocks(count: str, wrong: bool):
    girl = "<gender>1girl</gender>"
    text = f"<character_1>{girl}</character_1><character_2>{girl}</character_2><general_tags><count>{count}</count></general_tags>"
    assert ("count-disagrees" in codes(text)) == wrong
    if wrong:
        assert "<count>2girls</count>" in fix(parse(text))[0].source


def test_a_block_in_a_block_is_said():
    text = "<character_1><n>a</n><character_2><n>b</n></character_2></character_1><character_3><n>c</n></character_3>"
    found = [d for d in check(parse(text)) if d.code == "nested-character"]
    assert [(d.path, text[d.start : d.end]) for d in found] == [("character_2", "<character_2>")]
