"""Where characters stand, from words and boxes."""

from __future__ import annotations

import pytest

from newbie_image.binding.binding import place
from newbie_image.binding.regions import labels, regions_of
from newbie_image.binding_modes import read_binding
from newbie_image.prompt import parse


def prompt_of(*positions: str | None) -> str:
    blocks = [
        f"<character_{number}><gender>1girl</gender>"
        + (f"<position>{position}</position>" if position else "")
        + f"</character_{number}>"
        for number, position in enumerate(positions, start=1)
    ]
    return "\n".join(blocks)


def boxes(*positions: str | None) -> list[tuple[float, ...]]:
    regions, _ = regions_of(parse(prompt_of(*positions)))
    return [region.box for region in regions]


def test_two_share_the_width() -> None:
    assert boxes("left", "right") == [(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)]
    assert boxes("right", "left") == [(0.5, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0)]


def test_rows_and_columns() -> None:
    found = boxes("upper_left", "upper_right", "lower_left", "lower_right")
    assert found[0] == (0.0, 0.0, 0.5, 0.5)
    assert found[3] == (0.5, 0.5, 1.0, 1.0)
    left, center, right = boxes("left", "center", "right")
    assert left[2] == center[0]
    assert center[2] == right[0]
    assert right[2] == 1.0


def test_one_in_the_middle_of_four_corners_has_a_column_of_its_own() -> None:
    corners = ("upper_left", "upper_right", "lower_left", "lower_right")
    *around, middle = boxes(*corners, "center")
    assert middle == pytest.approx((0.35, 0.0, 0.65, 1.0))
    assert around[0] == pytest.approx((0.0, 0.0, 0.35, 0.5))
    assert around[3] == pytest.approx((0.65, 0.5, 1.0, 1.0))
    # Rows that are high enough stay rows: the words' halves of the picture hold.
    assert boxes("upper_left", "lower_right") == [
        pytest.approx((0.0, 0.0, 0.55, 0.5)),
        pytest.approx((0.45, 0.5, 1.0, 1.0)),
    ]
    assert boxes(*corners[:2], "bottom")[2] == pytest.approx((0.15, 0.5, 0.85, 1.0))


def test_boxes_and_other_languages() -> None:
    assert boxes("0.1,0.2,0.4,0.9", "右") == [(0.1, 0.2, 0.4, 0.9), pytest.approx((0.45, 0.0, 1.0, 1.0))]


def test_without_a_place_there_are_no_regions() -> None:
    regions, remarks = regions_of(parse(prompt_of("left", None)))
    assert regions == ()
    assert remarks == ()
    regions, remarks = regions_of(parse(prompt_of("left", "behind the moon")))
    assert regions == ()
    assert "behind the moon" in remarks[0]


def test_what_contradicts_is_said() -> None:
    _, remarks = regions_of(parse(prompt_of("left", "left")))
    assert "character_1, character_2 have one place" in remarks[0]
    _, remarks = regions_of(parse(prompt_of("0,0,0.6,1", "0.1,0,0.7,1")))
    assert "overlap by more than half" in remarks[0]
    # Two pairs of places are two remarks, and one place is no overlap besides.
    _, remarks = regions_of(parse(prompt_of("left", "left", "right", "right")))
    assert [remark.partition(" have")[0] for remark in remarks] == [
        "character_1, character_2",
        "character_3, character_4",
    ]
    twice = prompt_of("left", "right").replace("</position>", "</position><position>top</position>", 1)
    regions, remarks = regions_of(parse(twice))
    assert remarks == ("character_1 has the positions 'left' and 'top'; the first one is used",)
    assert regions[0].box == (0.0, 0.0, 0.5, 1.0)


def test_characters_have_their_numbers_in_what_is_said() -> None:
    text = prompt_of("left", "nowhere")
    turned = text.replace("character_1", "character_3").replace("character_2", "character_1")
    _, remarks = regions_of(parse(turned))
    assert "character_1: position 'nowhere'" in remarks[0]
    assert labels(parse(turned)) == (3, 1)
    assert labels(parse(text.replace("character_2", "character_1"))) == (1, 2)


SOUGHT = "regions are looked for in the picture and act in steps 5 to 12"


@pytest.mark.parametrize(
    ("setting", "positions", "steps", "said"),
    [
        ("region", (None, None), 20, f"character_1, character_2 have no position that can be used: {SOUGHT}"),
        (
            "region",
            ("left", None),
            20,
            f"character_2 has no position that can be used, so those of the others are not used: {SOUGHT}",
        ),
        ("sealed", (None, None), 20, "before it, nothing but the texts is sealed"),
        (
            "full",
            (None,),
            20,
            "character_1 has no position that can be used: the parts of the binding that need",
        ),
        ("region,window=0-1", (None, None), 20, "and act from step 5 on"),
        ("region", (None, None), 1, "1 steps leave none to look for regions and use them; give positions"),
        ("region,window=0-0.2", (None, None), 20, "give positions or a wider window=0-0.2"),
        ("region,window=0-0.2", ("left", "right"), 2, "window=0-0.2 holds none of 2 steps: no regions act"),
        ("sealed", ("left", "left"), 20, "nothing reads the words of character_2"),
        (
            "region",
            ("0.5,0.5,0.501,0.501", "right"),
            20,
            "the box of character_1 is smaller than an image token",
        ),
    ],
)
def test_regions_that_do_not_act_as_asked_are_said(
    setting: str, positions: tuple[str | None, ...], steps: int, said: str
) -> None:
    parts = read_binding(setting)
    assert parts is not None
    _, remarks = place(parts, parse(prompt_of(*positions)), (16, 16), steps)
    assert any(said in remark for remark in remarks), remarks
    assert not any("\n" in remark for remark in remarks)


def test_regions_that_act_as_asked_need_no_word() -> None:
    for setting in ("full", "sealed", "region,window=0.2-0.7"):
        parts = read_binding(setting)
        assert parts is not None
        assert place(parts, parse(prompt_of("left", "right")), (16, 16), 20)[1] == ()
