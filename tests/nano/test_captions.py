"""Captions say what the scene shows, and only that."""

from __future__ import annotations

import random
import re

from newbie_image.nano.captions import (
    character_tags,
    sentence_caption,
    tag_caption,
    varied_caption,
    xml_caption,
)
from newbie_image.nano.world.attributes import FIGURES
from newbie_image.nano.world.scene import sample_scene
from newbie_image.prompt import parse

UNNAMED = [s for s in range(200) if all(c.name is None for c in sample_scene(s, 2).characters)]


def test_complete_xml_says_every_visible_attribute_in_the_right_block():
    for seed in UNNAMED[:60]:
        scene = sample_scene(seed, 2)
        blocks = re.findall(r"<character_\d>.*?</character_\d>", xml_caption(scene), flags=re.S)
        assert len(blocks) == 2
        for block, character in zip(blocks, scene.characters, strict=True):
            said = set(re.findall(r"[^<>,\s][^<>,\n]*", re.sub(r"<[^>]*>", ",", block)))
            wanted = {tag for _, tags in character_tags(character).values() for tag in tags}
            assert said == wanted | {character.position}


def test_every_kind_is_read_by_the_prompt_parser():
    for seed in range(40):
        scene = sample_scene(seed)
        assert parse(xml_caption(scene)).kind == "xml"
        assert len(parse(xml_caption(scene)).characters) == len(scene.characters)
        assert parse(tag_caption(scene)).kind == "tags"
        assert parse(sentence_caption(scene)).kind != "xml"


def test_training_leaves_out_and_shuffles_but_never_invents():
    rng = random.Random(0)
    different = set()
    scene = sample_scene(UNNAMED[0], 2)
    allowed = {t for c in scene.characters for _, tags in character_tags(c).values() for t in tags}
    for _ in range(40):
        caption = xml_caption(scene, rng)
        different.add(caption)
        appearance = re.findall(r"<(?:appearance|clothing|action)>(.*?)</", caption)
        assert {t for line in appearance for t in line.split(", ")} <= allowed
    assert len(different) > 35


def test_all_kinds_are_trained_on_and_seeds_repeat():
    scene = sample_scene(3, 2)
    kinds = [parse(varied_caption(scene, random.Random(i))).kind for i in range(300)]
    assert kinds.count("xml") > 200
    assert kinds.count("tags") > 10
    assert kinds.count("tags") + kinds.count("sentence") > 30
    assert varied_caption(scene, random.Random(7)) == varied_caption(scene, random.Random(7))


def test_a_named_figure_is_asked_for_by_its_name_alone():
    seed = next(s for s in range(500) if sample_scene(s, 1).characters[0].name)
    character = sample_scene(seed, 1).characters[0]
    caption = xml_caption(sample_scene(seed, 1))
    assert character.name in FIGURES
    assert f"<n>{character.name}</n>" in caption
    assert "<appearance>" not in caption
    assert "<clothing>" not in caption
