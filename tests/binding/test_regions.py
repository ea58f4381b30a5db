"""Where characters stand, from words and boxes."""

from __future__ import annotations

import pytest

from newbie_image.binding.regions import regions_of
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
