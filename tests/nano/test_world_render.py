"""Whole scenes: the sampler's promises, layout, rendering, and where the boxes say the people are."""

from __future__ import annotations

import io
import itertools
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import resvg_py
from PIL import Image

from newbie_image.nano.world import attributes as a
from newbie_image.nano.world import palette
from newbie_image.nano.world.background import draw_background, draw_weather_front
from newbie_image.nano.world.layout import HAND_REACH, drawing_order, places
from newbie_image.nano.world.render import (
    EYES_WEIGHT,
    FIGURE_WEIGHT,
    HEAD_WEIGHT,
    geometry,
    importance,
    render,
    scene_svg,
)
from newbie_image.nano.world.scene import Character, Scene, sample_character, sample_scene, see
from newbie_image.nano.world.sheet import backdrops, tile


def _chi_square(first: list[object], second: list[object]) -> tuple[float, int]:
    """Pearson's statistic of a table of two attributes and its degrees of freedom."""
    rows, columns, cells = Counter(first), Counter(second), Counter(zip(first, second, strict=True))
    total = len(first)
    statistic = sum(
        (cells[r, c] - rows[r] * columns[c] / total) ** 2 / (rows[r] * columns[c] / total)
        for r in rows
        for c in columns
    )
    return statistic, (len(rows) - 1) * (len(columns) - 1)


def _both_seen(people: list[Character], one: str, two: str) -> tuple[list[object], list[object]]:
    optional = {field for field in (one, two) if None in a.CHARACTER_FIELDS[field]}
    seen = [(getattr(c, one), getattr(c, two)) for c in people]
    seen = [
        (x, y) for x, y in seen if (x is not None or one in optional) and (y is not None or two in optional)
    ]
    return [pair[0] for pair in seen], [pair[1] for pair in seen]


def _settings() -> list[tuple[str, str | None, str | None]]:
    found: list[tuple[str, str | None, str | None]] = []
    for background in a.BACKGROUNDS:
        if background in a.PLAIN_BACKGROUNDS or background in a.INDOOR_BACKGROUNDS:
            found.append((background, None, None))
        else:
            times = ("night",) if background == "starry_sky" else a.TIMES
            found += [(background, time, weather) for time in times for weather in (None, *a.WEATHERS)]
    return found


def test_same_seed_same_picture():
    assert sample_scene(11) == sample_scene(11)
    assert scene_svg(sample_scene(11)) == scene_svg(sample_scene(11))
    assert render(sample_scene(11), 64).tobytes() == render(sample_scene(11), 64).tobytes()
    assert sample_scene(11) != sample_scene(12)


def test_jitter_moves_but_does_not_change_the_scene():
    scene = sample_scene(5, 2)
    other = replace(scene, jitter=scene.jitter + 1)
    assert places(scene) != places(other)
    assert geometry(scene)[0].head == pytest.approx(geometry(other)[0].head, abs=0.08)


def test_every_setting_looks_different():
    scene = sample_scene(3, 2)
    pictures = {
        setting: render(
            replace(scene, background=setting[0], time=setting[1], weather=setting[2]), 48
        ).astype(float)
        for setting in _settings()
    }
    for (one, first), (two, second) in itertools.combinations(pictures.items(), 2):
        assert np.abs(first - second).mean() > 0.4, (one, two)


@pytest.mark.parametrize("background", a.BACKGROUNDS)
def test_backdrops_leave_no_gap(background: str):
    outdoors = background not in a.PLAIN_BACKGROUNDS and background not in a.INDOOR_BACKGROUNDS
    for seed in range(4):
        scene = replace(
            sample_scene(seed, 1), background=background, time="day" if outdoors else None, weather=None
        )
        drawn = draw_background(scene, random.Random(seed))
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 256 256">{drawn}</svg>'
        png = resvg_py.svg_to_bytes(svg_string=svg, width=128, height=128, skip_system_fonts=True)
        with Image.open(io.BytesIO(bytes(png))) as picture:
            assert np.asarray(picture.convert("RGBA"))[..., 3].min() == 255


@pytest.mark.parametrize("background", a.BACKGROUNDS)
def test_backdrops_are_light_and_whole(background: str):
    outdoors = background not in a.PLAIN_BACKGROUNDS and background not in a.INDOOR_BACKGROUNDS
    scene = replace(
        sample_scene(1, 1),
        background=background,
        time="night" if outdoors else None,
        weather="rain" if outdoors else None,
    )
    drawn = draw_background(scene, random.Random(0)) + draw_weather_front(scene, random.Random(0), ())
    assert drawn.count("<") - drawn.count("</") < 120
    assert "filter" not in drawn


@pytest.mark.parametrize("count", range(1, 7))
def test_people_stand_inside_and_boxes_hold_their_faces(count: int):
    skin = np.array([int(palette.SKIN[i : i + 2], 16) for i in (1, 3, 5)])
    for seed in range(3):
        scene = sample_scene(100 * count + seed, count)
        picture = render(scene, 128)
        assert picture.shape == (128, 128, 3)
        assert picture.dtype == np.uint8
        found = geometry(scene)
        assert len(found) == count
        for boxes in found:
            for left, top, right, bottom in (boxes.figure, boxes.head, boxes.eyes):
                assert 0 <= left < right <= 1
                assert 0 <= top < bottom <= 1
            assert boxes.figure[1] <= boxes.head[1] < boxes.eyes[1] < boxes.eyes[3] < boxes.head[3]
            left, top, right, bottom = (round(128 * edge) for edge in boxes.head)
            near_skin = np.abs(picture[top:bottom, left:right].astype(int) - skin).max(-1) < 40
            assert near_skin.mean() > 0.06, (seed, scene)


def test_eye_boxes_hold_the_eye_colour():
    person = replace(
        sample_character(random.Random(0), "center"), expression="smile", glasses=False, eye_color="red",
        pose="standing",
        hair_color="blue", hair_style="bob_cut", headwear=None, headwear_color=None, held=None, name=None,
    )  # fmt: skip
    scene = Scene((person,), "white_background", None, None, None, jitter=0)
    blue = replace(scene, characters=(replace(person, eye_color="blue"),))
    changed = np.abs(render(scene, 128).astype(int) - render(blue, 128).astype(int)).max(-1) > 12
    left, top, right, bottom = (round(128 * edge) for edge in geometry(scene)[0].eyes)
    inside = changed[top:bottom, left:right].sum()
    assert inside > 40
    assert inside > 0.95 * changed.sum()


def test_importance_marks_heads_and_eyes():
    scene = sample_scene(8, 2)
    weights = importance(scene, 128)
    assert weights.shape == (128, 128)
    assert weights.dtype == np.float32
    assert set(np.unique(weights)) == {1.0, FIGURE_WEIGHT, HEAD_WEIGHT, EYES_WEIGHT}
    left, top, right, bottom = geometry(scene)[0].eyes
    assert weights[int(64 * (top + bottom)), int(64 * (left + right))] == EYES_WEIGHT


def test_interactions_bring_two_together():
    scene = replace(sample_scene(4, 2), interaction=None)
    apart = places(scene)
    left, right = places(replace(scene, interaction="holding_hands"))
    assert (left.hold_hand, right.hold_hand) == ("right", "left")
    assert left.y == right.y
    assert left.x + HAND_REACH * left.scale == pytest.approx(right.x - HAND_REACH * right.scale)
    assert [p.facing for p in places(replace(scene, interaction="facing_another"))] == ["right", "left"]
    away = places(replace(scene, interaction="back-to-back"))
    assert [p.facing for p in away] == ["left", "right"]
    assert away[1].x - away[0].x < apart[1].x - apart[0].x


def test_held_hands_are_free_of_objects_and_gestures():
    pairs = [
        scene.characters for scene in map(sample_scene, range(3000)) if scene.interaction == "holding_hands"
    ]
    assert len(pairs) > 40
    assert all(left.held is None and right.pose in a.HANDLESS_POSES for left, right in pairs)


def test_nearer_rows_are_drawn_later():
    found = places(sample_scene(0, 6))
    order = drawing_order(found)
    assert sorted(order) == list(range(6))
    assert {found[index].y < 160 for index in order[:3]} == {True}


def test_rain_spares_the_boxes_it_is_given():
    scene = replace(sample_scene(0, 1), background="beach", time="day", weather="rain")
    assert "l-" in draw_weather_front(scene, random.Random(1), ())
    assert "l-" not in draw_weather_front(scene, random.Random(1), [(-50.0, -50.0, 350.0, 350.0)])


def test_attributes_are_drawn_independently():
    people = [c for seed in range(2500) for c in sample_scene(seed, 2).characters if c.name is None]
    for one, two in (
        ("hair_color", "eye_color"), ("hair_color", "top_color"), ("top_color", "bottom_color"),
        ("expression", "hair_color"), ("pose", "held"), ("headwear", "hair_color"), ("gender", "hair_color"),
    ):  # fmt: skip
        statistic, freedom = _chi_square(*_both_seen(people, one, two))
        assert statistic < freedom + 4.5 * (2 * freedom) ** 0.5, (one, two, statistic, freedom)


def test_the_two_of_a_pair_are_drawn_independently():
    pairs = [sample_scene(seed, 2).characters for seed in range(2500)]
    for field in ("hair_color", "expression", "hair_style"):
        statistic, freedom = _chi_square(
            [getattr(x, field) for x, _ in pairs], [getattr(y, field) for _, y in pairs]
        )
        assert statistic < freedom + 4.5 * (2 * freedom) ** 0.5, (field, statistic, freedom)


def test_see_hides_what_cannot_be_seen():
    person = replace(
        sample_character(random.Random(2), "center"), name=None, top="kimono", top_color="red",
        legwear="white_socks",
        eye_color="blue", headwear="beret", headwear_color="red", bottom="shorts", expression="smile",
    )  # fmt: skip
    assert see(person) == person
    assert see(replace(person, bottom="dress")).top is None
    assert see(replace(person, bottom="dress")).top_color is None
    for bottom in a.LEGWEAR_HIDING_BOTTOMS:
        assert see(replace(person, bottom=bottom)).legwear is None
    assert see(replace(person, expression="closed_eyes")).eye_color is None
    assert see(replace(person, headwear="cat_ears")).headwear_color is None
    assert see(replace(person, headwear=None)).headwear_color is None


def test_hidden_fields_leave_no_trace_in_samples():
    for seed in range(400):
        for person in sample_scene(seed).characters:
            assert see(person) == person
            for field, values in a.CHARACTER_FIELDS.items():
                value = getattr(person, field)
                assert value is None or value in values


def test_sheets_have_their_cells():
    scenes = [sample_scene(seed, 1) for seed in range(3)]
    page = np.asarray(tile([render(scene, 32) for scene in scenes], columns=2))
    assert page.shape == (64, 64, 3)
    assert (page[32:, 32:] == 255).all()
    assert (page[:32, 32:] == render(scenes[1], 32)).all()
    assert {scene.background for scene in backdrops(0, 1)} == set(a.BACKGROUNDS)
