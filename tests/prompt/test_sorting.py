"""Sorting a list: artists, what only one gender has, and what nothing says whose it is."""

from __future__ import annotations

import pytest

from newbie_image.prompt.convert import convert


@pytest.mark.parametrize(
    ("text", "artist"),
    [
        ("artist:wlop, 1girl, blue_hair", "wlop"),
        ("1girl, by wlop, blue_hair", "wlop"),
        ("1girl, artist:ask (askzy), blue_hair", "ask (askzy)"),
        ("1girl, artist: ask_(askzy), blue_hair", "ask_(askzy)"),
        ("1girl, wlop (artist), blue_hair", "wlop (artist)"),
        ("1girl, wlop_(artist), blue_hair", "wlop_(artist)"),
    ],
)
def test_artists_are_no_people(text: str, artist: str):
    done = convert(text, "xml")
    assert done.prompt.general.get("artists") == (artist,)
    assert len(done.prompt.characters) == 1
    assert done.prompt.character(1).name is None
    assert done.unknown == ()


def test_what_only_one_gender_has_and_what_nothing_says():
    done = convert(
        "1boy, 1girl, muscular_male, facial_hair, breasts, blue_hair, red_hair, hat, black_jacket, white_dress",
        "xml",
    )
    boy, girl = done.prompt.characters
    assert (boy.gender, boy.get("appearance"), boy.get("body_type")) == (
        "1boy",
        ("facial_hair", "blue_hair"),
        ("muscular_male",),
    )
    assert (girl.gender, girl.get("appearance"), girl.get("body_type")) == (
        "1girl",
        ("red_hair",),
        ("breasts",),
    )
    assert done.prompt.general.get("other") == ("hat", "black_jacket", "white_dress")
    assert done.remarks == ("nothing says whose, kept with the picture: hat, black_jacket, white_dress",)


def test_a_list_person_by_person_is_dealt_by_its_stretches():
    done = convert("1girl, 1boy, blue_hair, long_hair, dress, red_hair, short_hair, suit, beard", "xml")
    girl, boy = done.prompt.characters
    assert girl.get("clothing") == ("dress",)
    assert boy.get("clothing") == ("suit",)
    assert boy.get("appearance") == ("red_hair", "short_hair", "beard")
    assert done.remarks == ()
