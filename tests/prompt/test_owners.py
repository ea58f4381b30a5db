"""Whose a tag is where the text says it: the prefixes of the flat form, and `BREAK`."""

from __future__ import annotations

import pytest

from newbie_image.prompt import parse
from newbie_image.prompt.convert import convert
from newbie_image.prompt.flatten import flatten

TWO = (
    "[char1]miku, [char1]1girl, [char1]blue_hair, [char1]left, [char2]rin, [char2]1girl, [char2]blonde_hair, "
    "[char2]黒髪, [char2]zonked_thing, [char1]umbrella, rain"
)


def test_prefixed_tags_stay_with_their_character():
    done = convert(TWO, "xml")
    one, two = done.prompt.characters
    assert (one.name, one.gender, one.position) == ("miku", "1girl", "left")
    assert (two.name, two.gender) == ("rin", "1girl")
    assert one.get("appearance") == ("blue_hair",)
    assert one.get("action") == ("umbrella",)
    assert two.get("appearance") == ("blonde_hair", "black_hair", "zonked_thing")
    assert [t.text for t in done.prompt.general.tags] == ["rain"]
    assert done.unknown == ("zonked_thing",)
    assert done.remarks == ("not understood, kept as it is: zonked_thing",)
    assert "[char" not in done.text


def test_xml_to_flat_and_back_keeps_chinese_people():
    text = (
        "<character_1><n>小明</n><gender>少女</gender><appearance>蓝发, 长发</appearance><clothing>水手服</clothing>"
        "<position>左边</position></character_1><character_2><n>初音未来</n><gender>少年</gender><appearance>黒髪</appearance>"
        "<position>0,0,1,1</position></character_2><general_tags><weather>雨</weather></general_tags>"
        "<caption>A girl, and another one, stand in rain.</caption>"
    )
    for flat in (
        convert(text, "flat").text,
        flatten(parse(text.replace("<caption>", "<!--c--><caption>"))).text,
    ):
        back = convert(flat, "xml").prompt
        one, two = back.characters
        assert (one.name, one.gender, one.position) == ("小明", "1girl", "左边")
        assert (two.name, two.gender, two.position) == ("hatsune_miku", "1boy", "0,0,1,1")
        assert one.get("appearance") == ("blue_hair", "long_hair")
        assert one.get("clothing") == ("serafuku",)
        assert two.get("appearance") == ("black_hair",)
        assert back.general.get("weather") == ("rain",)
    caption = convert(convert(text, "flat").text, "xml").prompt.general.get("caption")
    assert caption == ("A girl, and another one, stand in rain.",)


def test_a_second_block_of_one_number_gets_a_number_of_its_own():
    text = "<character_1><n>a</n><appearance>red_hair</appearance></character_1><character_1><appearance>hat</appearance></character_1>"
    flat = convert(text, "flat", strict=False).text
    assert "[char1#2]hat" in flat
    done = convert(flat, "xml")
    assert done.prompt.character(1).get("appearance") == ("red_hair",)
    assert done.prompt.character(2).get("clothing") == ("hat",)
    assert "[char1#2] became character 2" in done.remarks


def test_prefixes_beside_brackets_that_weigh():
    done = convert("[char1](blue_hair:1.3), ([char2]red_hair:1.2), 2girls", "xml")
    assert [[(t.text, t.weight) for t in c.tags] for c in done.prompt.characters] == [
        [("1girl", 1.0), ("blue_hair", 1.3)],
        [("1girl", 1.0), ("red_hair", 1.2)],
    ]


@pytest.mark.parametrize(
    "text",
    [
        "1girl, aqua hair BREAK 1boy, red hair",
        "1girl, aqua hair, BREAK, 1boy, red hair",
        "1girl, aqua hair\nBREAK\n1boy, red hair",
        "masterpiece BREAK 1girl, (aqua hair:1.0) BREAK 1boy, red hair",
    ],
)
def test_break_parts_people(text: str):
    done = convert(text, "xml").prompt
    assert [(c.gender, c.get("appearance")) for c in done.characters] == [
        ("1girl", ("aqua_hair",)),
        ("1boy", ("red_hair",)),
    ]
    assert done.general.get("count") == ("1girl", "1boy")
    assert done.general.get("other") == ()


def test_break_is_never_a_tag():
    done = convert("1girl, blue_hair BREAK hat, BREAK masterpiece", "xml").prompt
    assert done.character(1).get("clothing") == ("hat",)
    assert convert("1girl, aqua hair BREAK hat", "tags").text == "1girl, aqua hair, hat\n"
    assert convert("1girl, (aqua hair:1.2) BREAK hat", "a1111").text == "1girl, (aqua hair:1.2), hat\n"


def test_an_artist_between_breaks_is_an_artist():
    made = convert("1girl, aqua hair BREAK 1boy, red hair, artist:wlop, by sakimi", "xml")
    assert [t.text for t in made.prompt.tags if t.section == "general_tags.artists"] == ["wlop", "sakimi"]
