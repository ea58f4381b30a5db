"""Evaluators on real renders: they read what is there, and find swaps and leaks that were put in."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from newbie_image.errors import CheckpointError
from newbie_image.nano.benchmark.dose_response import SPILLS, spill
from newbie_image.nano.benchmark.figures import (
    EVALUATORS,
    all_right,
    attributes_right,
    counted_right,
    excess_leakage,
    missing_people,
    placed_right,
    raw_leakage,
    swapped_pairs,
)
from newbie_image.nano.benchmark.injection import INJECTABLE, faultless_reading, leaked, swapped
from newbie_image.nano.benchmark.intervals import share_of
from newbie_image.nano.benchmark.prompt_sets import make_prompt
from newbie_image.nano.benchmark.reading import (
    Evaluator,
    PersonReading,
    PictureReading,
    load_evaluator,
    match_people,
    nearest_plan,
    reach_of,
)
from newbie_image.nano.benchmark.validation import condition_json, injected_json, read_condition
from newbie_image.nano.readers import CHARACTER_HEADS
from newbie_image.nano.world.layout import FOUR_IN_A_ROW, FOUR_IN_CORNERS, Place, asked_places
from newbie_image.nano.world.render import render
from newbie_image.nano.world.scene import Scene

READERS = Path(__file__).parent.parent.parent.parent / "assets" / "readers"
SIZE = 128
PAIRS = [make_prompt("seen", 2, index).scene for index in range(70)]
HAIR = CHARACTER_HEADS["hair_color"]


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return load_evaluator(READERS)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.stack([render(scene, SIZE) for scene in PAIRS])


@pytest.fixture(scope="module")
def honest(evaluator: Evaluator, pictures: np.ndarray) -> list[PictureReading]:
    return evaluator.read(pictures, PAIRS)


def _reading(hair: list[str], read: list[str]) -> PictureReading:
    return PictureReading(
        len(hair),
        tuple(
            PersonReading(
                "left",
                {"hair_color": HAIR.index(asked)},
                True,
                True,
                {"hair_color": HAIR.index(seen)},
            )
            for asked, seen in zip(hair, read, strict=True)
        ),
    )


def test_real_renders_are_read_as_they_are_by_both(honest: list[PictureReading]):
    assert share_of([counted_right(r, "reader") for r in honest]).value > 0.98
    assert share_of([placed_right(r, "reader") for r in honest]).value > 0.98
    for name, least in (("reader", 0.93), ("colours", 0.93)):
        assert share_of([attributes_right(r, name) for r in honest]).value > least
        excess = share_of([excess_leakage(r, name, ("hair_color", "eye_color")) for r in honest])
        assert abs(excess.value) < 0.02


@pytest.mark.parametrize("sort", ["leak", "swap"])
def test_injected_mistakes_are_found_at_their_rate(evaluator: Evaluator, sort: str):
    found = injected_json(evaluator, PAIRS, SIZE, 0.15, sort, seed=3)
    for name in EVALUATORS:
        real, read = found[name]["true"], found[name]["read"]
        assert 0.08 < real["value"] < 0.25
        assert read["low"] <= real["value"] <= read["high"], (name, real, read)
        assert read["low"] > 0.04
        if sort == "leak":
            corrected = found[name]["corrected"]
            assert corrected["low"] <= real["value"] <= corrected["high"], (name, real, corrected)


def test_nothing_is_found_where_nothing_was_put_in(evaluator: Evaluator):
    for sort in ("leak", "swap"):
        found = injected_json(evaluator, PAIRS[:30], SIZE, 0.0, sort)
        for name in EVALUATORS:
            assert found[name]["true"]["value"] == 0
            assert found[name]["read"]["value"] < 0.02


def test_an_empty_picture_has_nobody_and_nothing_right(evaluator: Evaluator):
    scene = PAIRS[0]
    empty = render(replace(scene, characters=()), SIZE)
    reading = evaluator.read(empty[None], [scene])[0]
    assert reading.found == 0
    assert missing_people(reading, "reader") == (2, 2)
    right, asked = attributes_right(reading, "reader")
    assert right == 0
    assert asked > 20
    assert all_right(reading, "reader") == (0, 1)
    assert excess_leakage(reading, "reader") == (0, 0)


def test_two_who_exchanged_places_are_read_where_they_stand(evaluator: Evaluator):
    scene = PAIRS[2]
    left, right = scene.characters
    exchanged = (replace(left, position="right"), replace(right, position="left"))
    reading = evaluator.read(render(replace(scene, characters=exchanged), SIZE)[None], [scene])[0]
    hair = "hair_color"
    assert placed_right(reading, "reader") == (2, 2)
    for name in EVALUATORS:
        assert attributes_right(reading, name, (hair,))[0] == 0
        assert swapped_pairs(reading, name, (hair,)) == (1, 1)


def test_people_are_matched_by_place_alone_and_the_left_over_is_missing():
    scene = make_prompt("seen", 3, 0).scene
    left, center, right = asked_places(scene)
    assert match_people(scene, [right, left, center]) == [1, 2, 0]
    assert match_people(scene, [right, left]) == [1, None, 0]
    assert match_people(scene, []) == [None, None, None]
    near = [Place(p.x + 20, p.y, p.scale) for p in (left, center, right)]
    assert match_people(scene, [Place(300.0, 20.0, 0.3), *near]) == [1, 2, 3]
    assert 30 < reach_of(scene) < 50
    # A greedy pairing would give the middle one to the left place.
    assert match_people(scene, [Place(87.0, left.y, 0.38), Place(128.0, left.y, 0.38)])[0] == 0


def test_leaks_are_counted_against_decoys():
    # Red and blue are asked for; of the twelve colours ten are absent.
    assert raw_leakage(_reading(["red", "blue"], ["blue", "blue"]), "reader", ("hair_color",)) == (1, 2)
    assert excess_leakage(_reading(["red", "blue"], ["blue", "blue"]), "reader", ("hair_color",)) == (1, 2)
    excess, places = excess_leakage(_reading(["red", "blue"], ["green", "blue"]), "reader", ("hair_color",))
    assert (excess, places) == (pytest.approx(-1 / 10), 2)
    # Three people: two others' values against the same share of nine absent ones.
    excess, places = excess_leakage(
        _reading(["red", "blue", "pink"], ["green", "pink", "pink"]), "reader", ("hair_color",)
    )
    assert (excess, places) == (pytest.approx(1 - 2 / 9), 3)
    same = _reading(["red", "red"], ["blue", "red"])
    assert excess_leakage(same, "reader", ("hair_color",)) == (0, 0)


def test_swaps_need_both_and_random_answers_leak_nothing_on_average():
    assert swapped_pairs(_reading(["red", "blue"], ["blue", "red"]), "reader", ("hair_color",)) == (1, 1)
    assert swapped_pairs(_reading(["red", "blue"], ["blue", "blue"]), "reader", ("hair_color",)) == (0, 1)
    rng = random.Random(0)
    guesses = [_reading(["red", "blue", "pink"], rng.choices(HAIR, k=3)) for _ in range(1500)]
    excess = share_of([excess_leakage(r, "reader", ("hair_color",)) for r in guesses])
    raw = share_of([raw_leakage(r, "reader", ("hair_color",)) for r in guesses])
    assert excess.contains(0)
    assert raw.value == pytest.approx(2 / 12, abs=0.03)


def test_a_faultless_reading_finds_the_injected_mistakes_exactly():
    rng = random.Random(5)
    scene = make_prompt("seen", 4, 3).scene
    assert leaked(scene, 0.0, rng) == scene == swapped(scene, 0.0, rng)
    everything = leaked(scene, 1.0, rng, ("hair_color",))
    reading = faultless_reading(scene, everything)
    assert raw_leakage(reading, "reader", ("hair_color",)) == (4, 4)
    exchanged = swapped(scene, 1.0, rng, ("hair_color",))
    assert swapped_pairs(faultless_reading(scene, exchanged), "colours", ("hair_color",)) == (2, 6)
    colors = sorted(c.hair_color for c in scene.characters)
    assert sorted(c.hair_color for c in exchanged.characters) == colors
    untouched = {f for f in CHARACTER_HEADS if f not in ("present", *INJECTABLE)}
    for field in untouched:
        assert [getattr(c, field) for c in leaked(scene, 1.0, rng).characters] == [
            getattr(c, field) for c in scene.characters
        ]


def test_validation_has_the_confusion_of_every_attribute(evaluator: Evaluator, pictures: np.ndarray):
    scenes: list[Scene] = PAIRS[:12]
    dark = read_condition(evaluator, scenes, SIZE, lambda p: (p // 3).astype(np.uint8))
    result = condition_json(dark)
    counts = np.array(result["attributes"]["colours"]["hair_color"]["confusion"])
    assert counts.shape == (12, 13)
    assert counts.sum() == 24
    assert result["attributes"]["colours"]["hair_color"]["error"]["sensitivity"] < 0.6
    assert set(result["attributes"]["reader"]) == set(CHARACTER_HEADS) - {"present"}
    assert set(result["figures"]) == {"all", "2"}


def test_readings_survive_json_and_missing_readers_are_named(honest: list[PictureReading], tmp_path: Path):
    assert PictureReading.from_json(honest[0].as_json()) == honest[0]
    with pytest.raises(CheckpointError, match=r"character.safetensors is not there; run `newbie nano train"):
        load_evaluator(tmp_path)


def test_a_weight_that_spills_is_seen_where_it_spills():
    def as_read(scene: Scene, first: dict[str, str], second: dict[str, str]) -> PictureReading:
        one, two = scene.characters
        shown = replace(scene, characters=(replace(one, **first), replace(two, **second)))
        return faultless_reading(scene, shown)

    scenes = [scene for scene in PAIRS if scene.characters[1].eye_color is not None][:40]
    plain = [as_read(scene, {}, {}) for scene in scenes]
    others_hair = [as_read(s, {}, {"hair_color": s.characters[0].hair_color}) for s in scenes]
    found = spill({1.0: plain, 3.0: others_hair}, "hair_color", {"hair_color"})
    own, others, taken = (found[name] for name in SPILLS)
    assert own.shares[3.0].value == 1
    assert own.change.value == 0
    assert others.change.high < 0
    assert taken.shares[1.0].value == 0
    assert taken.shares[3.0].value == 1
    assert taken.change.low > 0
    # The weighed attribute itself is no spill, and neither is what stands in its tag.
    lost = [as_read(s, {"hair_color": s.characters[1].hair_color}, {}) for s in scenes]
    assert spill({1.0: plain, 3.0: lost}, "hair_color", {"hair_color"})[SPILLS[0]].change.value == 0
    assert spill({1.0: plain, 3.0: lost}, "eye_color", {"eye_color"})[SPILLS[0]].change.high < 0


def test_four_people_without_positions_may_stand_in_a_row_or_in_the_corners(evaluator: Evaluator):
    prompts = [make_prompt("unplaced", 4, index) for index in range(12)]
    rows = [p.scene for p in prompts if p.scene.characters[0].position in FOUR_IN_A_ROW]
    assert 0 < len(rows) < len(prompts)
    scene = rows[0]
    people = zip(scene.characters, FOUR_IN_CORNERS, strict=True)
    shown = replace(scene, characters=tuple(replace(c, position=place) for c, place in people))
    assert nearest_plan(scene, asked_places(shown)) == shown
    assert nearest_plan(scene, asked_places(scene)) == scene
    picture = render(shown, 2 * SIZE)[None]
    (free,) = evaluator.read(picture, [scene], placed=[False])
    (asked,) = evaluator.read(picture, [scene])
    assert [person.position for person in free.people] == list(FOUR_IN_CORNERS)
    wrong, right = (count[0] / count[1] for count in (attributes_right(r, "reader") for r in (asked, free)))
    assert right > 0.95
    assert wrong < 0.8
