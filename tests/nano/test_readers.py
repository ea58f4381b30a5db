"""Readers look where a character is named to stand, and the score counts what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from newbie_image.nano.evaluate import Reading, held_out_scenes, prompts_hash, summarise
from newbie_image.nano.readers import (
    CHARACTER_HEADS,
    CROP_SIZE,
    HIDDEN,
    Reader,
    character_targets,
    crop,
    load_reader,
    reading_box,
    samples_of,
    save_reader,
    train_reader,
)
from newbie_image.nano.world.render import geometry, render
from newbie_image.nano.world.scene import sample_scene


def test_reading_boxes_hold_their_character_and_only_it():
    for seed in range(60):
        scene = sample_scene(seed)
        for character, boxes in zip(scene.characters, geometry(scene), strict=True):
            left, top, right, bottom = reading_box(len(scene.characters), character.position)
            center = (boxes.head[0] + boxes.head[2]) / 2
            assert abs(center - (left + right) / 2) < 0.1
            assert left < boxes.head[0] + 0.02
            assert right > boxes.head[2] - 0.02
            assert top < boxes.head[1] + 0.02
            assert bottom > 0.9


def test_a_crop_is_the_pixels_of_its_box():
    picture = torch.zeros(1, 3, 64, 64)
    picture[:, :, 16:48, 32:64] = 1
    inside = crop(picture, torch.tensor([[0.5, 0.25, 1.0, 0.75]]), (32, 32))
    assert (inside == 1).all()
    whole = crop(picture, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), (64, 64))
    assert torch.allclose(whole, picture, atol=1e-4)


def test_hidden_attributes_are_not_asked_and_an_empty_place_asks_only_for_absence():
    character = replace(sample_scene(1, 1).characters[0], eye_color=None, expression="closed_eyes")
    targets = dict(zip(CHARACTER_HEADS, character_targets(character), strict=True))
    assert targets["eye_color"] == HIDDEN
    assert targets["present"] == 1
    empty = dict(zip(CHARACTER_HEADS, character_targets(None), strict=True))
    assert empty.pop("present") == 0
    assert set(empty.values()) == {HIDDEN}


def test_a_reader_learns_what_it_is_shown(tmp_path):
    torch.manual_seed(0)
    scenes = [sample_scene(s, 1) for s in range(40)]
    scenes = [replace(s, background="white_background", time=None, weather=None) for s in scenes]
    scenes = [
        replace(
            s,
            characters=(replace(s.characters[0], hair_color="red" if i % 2 else "blue", position="center"),),
        )
        for i, s in enumerate(scenes)
    ]
    pictures = np.stack([render(s, 64) for s in scenes])
    samples = [sample for i, s in enumerate(scenes) for sample in samples_of(i, s)]
    reader = Reader({"present": (False, True), "hair_color": CHARACTER_HEADS["hair_color"]}, 8, (64, 40))
    keep = [list(CHARACTER_HEADS).index(n) for n in ("present", "hair_color")]
    samples = [replace(s, targets=[s.targets[k] for k in keep]) for s in samples]
    train_reader(reader, torch.from_numpy(pictures), samples, epochs=12, batch=16)
    tensor = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    boxes = torch.tensor([s.box for s in samples])
    read = reader.read(crop(tensor, boxes, (64, 40)))["hair_color"]
    assert np.mean(read == [s.targets[1] for s in samples]) > 0.9
    save_reader(reader, tmp_path / "reader.safetensors")
    again = load_reader(
        Reader({"present": (False, True), "hair_color": CHARACTER_HEADS["hair_color"]}, 8, (64, 40)),
        tmp_path / "reader.safetensors",
    )
    assert np.mean(again.read(crop(tensor, boxes, (64, 40)))["hair_color"] == read) > 0.95


def test_a_missing_character_has_nothing_right():
    asked = {"present": 1, "hair_color": 3, "eye_color": HIDDEN}
    there = Reading(1, asked, {"present": 1, "hair_color": 3, "eye_color": 0})
    gone = Reading(1, asked, {"present": 0, "hair_color": 3, "eye_color": 0})
    assert there.right() == {"present": True, "hair_color": True}
    assert gone.right() == {"present": False, "hair_color": False}
    score = summarise([there, gone], [])
    assert score["1_characters"]["mean"] == 0.5
    assert score["1_characters"]["all_right"] == 0.5


def test_injected_errors_are_counted_at_their_rate():
    rng = np.random.default_rng(0)
    readings = []
    for scene in held_out_scenes(400):
        for character in scene.characters:
            asked = dict(zip(CHARACTER_HEADS, character_targets(character), strict=True))
            read = {name: max(0, value) for name, value in asked.items()}
            if rng.random() < 0.25:
                read["hair_color"] = (read["hair_color"] + 1) % 12
            readings.append(Reading(len(scene.characters), asked, read))
    score = summarise(readings, [])
    for count in (1, 2):
        assert score[f"{count}_characters"]["attributes"]["hair_color"] == pytest.approx(0.75, abs=0.06)
        assert score[f"{count}_characters"]["attributes"]["top"] == 1.0


def test_the_held_out_prompts_never_change():
    assert prompts_hash(held_out_scenes(300)).startswith("64bc779c3ca2526d")
    assert CROP_SIZE == (128, 80)
