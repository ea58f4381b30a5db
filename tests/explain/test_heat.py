"""Masses and centres of maps, by numbers that can be said in advance."""

from __future__ import annotations

import pytest
import torch

from newbie_image.binding.groups import TagSpan
from newbie_image.binding.sight import character_maps
from newbie_image.explain.heat import (
    box_mask,
    centre,
    contrast,
    excess,
    mass_inside,
    tag_maps,
)


def test_maps_of_tags_and_characters_are_means_of_their_tokens() -> None:
    maps = torch.tensor([[1.0, 3.0], [3.0, 5.0], [10.0, 0.0], [7.0, 7.0]])  # the last row is padding
    spans = [
        TagSpan("a", "character_1.appearance[0]", 1, 0, 2, 1.0),
        TagSpan("b", "general[0]", 0, 2, 3, 1.0),
    ]
    assert tag_maps(maps, spans).tolist() == [[2.0, 4.0], [10.0, 0.0]]
    assert character_maps(maps, (1, 2, 1), 2).tolist() == [[5.5, 1.5], [3.0, 5.0]]
    assert tag_maps(maps, []).shape == (0, 2)
    assert character_maps(maps, (0, 0, 0), 0).shape == (0, 2)
    assert character_maps(maps, (2, 2, 0), 2).tolist() == [[0.0, 0.0], [2.0, 4.0]]  # nothing is said of 1


def test_mass_is_what_stands_out_of_a_maps_floor() -> None:
    heat = excess(torch.tensor([1.0, 1.0, 1.0, 5.0]))  # mean 2
    assert heat.tolist() == [0.0, 0.0, 0.0, 3.0]
    assert mass_inside(heat, torch.tensor([0.0, 0.0, 0.0, 0.5])) == 0.5
    flat = excess(torch.full((4,), 0.25))
    assert mass_inside(flat, torch.ones(4)) is None
    assert centre(flat, (2, 2)) is None


def test_contrast_is_what_a_map_has_that_the_others_have_not() -> None:
    maps = torch.tensor([[4.0, 2.0, 0.0], [2.0, 1.0, 3.0]])  # against their means: 2, 1, 0 and 1, 0.5, 1.5
    assert contrast(maps).tolist() == [[0.5, 0.25, 0.0], [0.0, 0.0, 0.75]]


def test_the_centre_is_in_fractions_of_the_picture() -> None:
    heat = torch.zeros(2, 4)
    heat[1, 3] = 2.0
    assert centre(heat.flatten(), (2, 4)) == pytest.approx((0.875, 0.75))
    assert centre(torch.ones(8), (2, 4)) == pytest.approx((0.5, 0.5))


def test_a_boxes_mask_has_the_boxes_area() -> None:
    for box in ((0.0, 0.0, 1.0, 1.0), (0.1, 0.25, 0.77, 0.9), (0.3, 0.3, 0.31, 0.32)):
        left, top, right, bottom = box
        mask = box_mask(box, (7, 5))
        assert float(mask.mean()) == pytest.approx((right - left) * (bottom - top), abs=1e-6)
    assert box_mask((0.5, 0.0, 1.0, 0.5), (2, 2)).tolist() == [0.0, 1.0, 0.0, 0.0]
