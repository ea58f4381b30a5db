"""Chinese and Japanese words, who stands where, and what an English sentence says of everybody."""

from __future__ import annotations

import pytest

from newbie_image.prompt.convert import convert


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("蓝色长发", ["blue_hair", "long_hair"]),
        ("白色短发少女", ["white_hair", "short_hair", "1girl"]),
        ("银色的双马尾", ["silver_hair", "twintails"]),
        ("黑长直+黑丝", ["black_hair", "long_hair", "straight_hair", "black_pantyhose"]),
        ("白毛，碧眼，萝莉", ["white_hair", "blue_eyes", "female_child"]),
        ("白毛衣，黑丝带，白丝", ["white_sweater", "black_ribbon", "white_pantyhose"]),
        ("透明雨伞", ["transparent_umbrella"]),
        ("黑发，金发碧眼", ["black_hair", "blonde_hair", "blue_eyes"]),
    ],
)
def test_words_of_hair_and_dress(text: str, tags: list[str]):
    done = convert(text, "xml")
    assert [e.tag for e in done.explained] == tags
    assert done.unknown == ()
    assert done.prompt.general.get("caption") == ()


@pytest.mark.parametrize(
    "text",
    [
        "左边的蓝发少女穿着水手服，右边的红发少年微笑，雨天",
        "左侧蓝发少女，水手服+右侧红发少年，微笑，雨天",
        "左の青い髪の少女、セーラー服、右の赤い髪の少年、笑顔、雨",
    ],
)
def test_each_side_has_its_person(text: str):
    done = convert(text, "xml").prompt
    girl, boy = done.characters
    assert (girl.gender, girl.position, girl.get("appearance")) == ("1girl", "left", ("blue_hair",))
    assert (boy.gender, boy.position, boy.get("appearance")) == ("1boy", "right", ("red_hair",))
    assert girl.get("clothing") == ("serafuku",)
    assert boy.get("expression") == ("smile",)
    assert done.general.get("weather") == ("rain",)
    assert done.general.get("count") == ("1girl", "1boy")
    assert done.general.get("caption") == ()


def test_a_tree_on_the_left_is_nobody():
    done = convert("左边有一棵树，少女", "xml")
    assert done.prompt.character(1).position is None


def test_what_is_not_understood_is_in_one_caption_and_named():
    done = convert("左边的少女，蓝发，右边的少年，怪兽雷电，蒸汽鲸鱼号", "xml")
    assert done.prompt.general.get("caption") == ("，".join(done.unknown),)
    assert "怪兽雷电" in done.unknown
    assert done.remarks == (f"not understood, kept as it is: {', '.join(done.unknown)}",)


@pytest.mark.parametrize(
    "text",
    [
        "Two girls are standing. One has blue hair and the other red hair.",
        "A girl with blue hair and a girl with red hair are standing.",
        "A girl with blue hair and a girl with red hair. They are both standing.",
        "左边的蓝发少女和右边的红发少女。她们站在雨中。",
    ],
)
def test_what_is_said_of_all_is_everybodys(text: str):
    one, two = convert(text, "xml").prompt.characters
    assert one.get("pose") == two.get("pose") == ("standing",)
    assert (one.get("appearance"), two.get("appearance")) == (("blue_hair",), ("red_hair",))
