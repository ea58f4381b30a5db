"""The detector's maps and places are each other's inverse, and the trained one finds people without being
told."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from newbie_image.nano.detector import (
    CELLS,
    SIDE,
    _peaks,
    detector_loss,
    detector_targets,
    figures_of,
    load_detector,
)
from newbie_image.nano.readers import crop
from newbie_image.nano.world.layout import places
from newbie_image.nano.world.render import render
from newbie_image.nano.world.scene import sample_scene

READERS = Path(__file__).parent.parent.parent / "assets" / "readers"
WHOLE = (0.0, 0.0, 1.0, 1.0)


def _maps(heat: np.ndarray, values: np.ndarray) -> torch.Tensor:
    sure = np.where(heat == 1, 8.0, -8.0)
    return torch.from_numpy(np.concatenate([sure[None], np.nan_to_num(values)])).float()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_the_maps_of_a_scene_say_where_its_people_stand(count: int):
    scene = sample_scene(40 + count, count)
    found = _peaks(_maps(*detector_targets(figures_of(scene), WHOLE)))
    assert len(found) == count
    for place in places(scene):
        near = min(found, key=lambda d: math.hypot(d.place.x - place.x, d.place.y - place.y))
        assert near.place.x == pytest.approx(place.x, abs=0.01)
        assert near.place.y == pytest.approx(place.y, abs=0.01)
        assert near.place.scale == pytest.approx(place.scale, rel=1e-4)


def test_the_loss_is_small_only_for_the_right_maps():
    heat, values = detector_targets(figures_of(sample_scene(3, 3)), WHOLE)
    wanted = torch.from_numpy(heat)[None], torch.from_numpy(values)[None]
    right = _maps(heat, values)[None]
    assert detector_loss(right, *wanted) < 0.01
    assert detector_loss(right.roll(3, dims=-1), *wanted) > 5
    assert detector_loss(torch.cat([right[:, :1], right[:, 1:] + 0.5], 1), *wanted) > 1
    everywhere = torch.cat([torch.full_like(right[:, :1], 8.0), right[:, 1:]], 1)
    assert detector_loss(everywhere, *wanted) > 100


def test_a_part_of_a_picture_has_the_people_whose_heads_are_in_it():
    scene = sample_scene(8, 3)
    heat, values = detector_targets(figures_of(scene), (0.0, 0.3, 0.4, 0.7))
    assert (heat == 1).sum() == 1
    row, column = np.argwhere(heat == 1)[0]
    left = min(figures_of(scene), key=lambda f: f.x)
    assert (column + values[0, row, column]) / CELLS * 0.4 * 256 == pytest.approx(left.x, abs=0.01)
    assert values[2, row, column] == pytest.approx(math.log(2.5 * left.scale / 0.38), abs=1e-4)


def test_the_trained_detector_finds_everybody_also_where_the_plan_has_no_place():
    detector = load_detector(READERS / "detector.safetensors")
    scenes = [sample_scene(1_450_000_000 + i, 1 + i % 6) for i in range(24)]
    pictures = torch.from_numpy(np.stack([render(s, 256) for s in scenes])).permute(0, 3, 1, 2) / 127.5 - 1
    found = detector.find(pictures)
    assert sum(len(f) == len(s.characters) for f, s in zip(found, scenes, strict=True)) >= 23
    errors: list[float] = []
    for detections, scene in zip(found, scenes, strict=True):
        for figure in figures_of(scene):
            near = min(detections, key=lambda d: math.hypot(d.place.x - figure.x, d.head - figure.head))
            errors.append(math.hypot(near.place.x - figure.x, near.head - figure.head))
            assert abs(near.place.y - figure.ground) < 25  # where a jump ends is hard to see
    assert max(errors) < 8
    assert np.mean(errors) < 2
    moved = crop(pictures[1:2], torch.tensor([[0.12, 0.1, 0.92, 0.9]]), (SIDE, SIDE))
    shifted = sorted(detector.find(moved)[0], key=lambda d: d.place.x)
    for detection, place in zip(shifted, sorted(places(scenes[1]), key=lambda p: p.x), strict=True):
        assert detection.place.x == pytest.approx((place.x - 0.12 * 256) / 0.8, abs=8)
    assert detector.find(torch.full((1, 3, SIDE, SIDE), 0.2)) == [[]]
