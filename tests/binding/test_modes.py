"""How a binding is written and refused."""

from __future__ import annotations

import math

import pytest

from newbie_image.binding_modes import MODES, read_binding
from newbie_image.errors import RequestError


def test_modes_and_their_parts() -> None:
    assert read_binding("auto") is None
    assert not MODES["off"].changes
    full = read_binding("full")
    assert full is not None
    assert full.encode
    assert full.text
    assert full.region
    assert full.apart
    assert full.background
    assert read_binding("sealed") == MODES["sealed"]
    assert math.isinf(MODES["sealed"].beta_minus)


def test_regions_rest_at_the_end_of_region_and_full_but_never_of_sealed() -> None:
    for text in ("region", "full", "full,background=off"):
        parts = read_binding(text)
        assert parts is not None
        assert (parts.start, parts.end) == (0.0, 0.6)
    for text in ("sealed", "full,sealed=on", "sealed,window=0-1", "region,window=0-1", "off,region=on"):
        parts = read_binding(text)
        assert parts is not None
        assert (parts.start, parts.end) == (0.0, 1.0)


def test_parts_and_numbers_are_set_apart() -> None:
    parts = read_binding("full, background=off,beta_minus=inf ,window=0.2-0.7,layers=middle, beta_plus=0.7")
    assert parts is not None
    assert not parts.background
    assert parts.apart
    assert math.isinf(parts.beta_minus)
    assert (parts.start, parts.end, parts.layers, parts.beta_plus) == (0.2, 0.7, "middle", 0.7)
    alone = read_binding("off,region=on")
    assert alone is not None
    assert alone.region
    assert not alone.encode


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("tight", "unknown binding 'tight'"),
        ("auto,region=on", "auto chooses its parts itself"),
        ("full,blind=maybe", "'blind=maybe'"),
        ("full,beta_plus=inf", "'beta_plus=inf'"),
        ("full,beta_minus=-1", "'beta_minus=-1'"),
        ("full,window=0.6-0.2", "'window=0.6-0.2'"),
        ("full,window=0.6", "'window=0.6'"),
        ("full,layers=some", "'layers=some'"),
        ("full,colour=red", "'colour=red'"),
        ("sealed,window=0-0.5", "leave window and layers away"),
    ],
)
def test_what_is_refused_is_named(text: str, named: str) -> None:
    with pytest.raises(RequestError) as refused:
        read_binding(text)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)
