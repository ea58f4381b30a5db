"""The alignment head is asked for the right character's labels and sends its gradient through the caption."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from newbie_image.nano.alignment import LABELS, AlignmentHead, token_labels
from newbie_image.nano.captions import (
    complete_caption,
    sentence_caption,
    tag_caption,
    varied_caption,
    xml_caption,
)
from newbie_image.nano.parts import Parts, TransformerRecipe
from newbie_image.nano.readers import HIDDEN
from newbie_image.nano.world import attributes as a
from newbie_image.nano.world.scene import sample_scene

COLUMNS = list(LABELS)


def _two():
    for seed in range(1000):
        scene = sample_scene(seed, counts={2: 1.0})
        left, right = scene.characters
        if (
            scene.interaction is None
            and left.hair_color != right.hair_color
            and left.top_color != right.top_color
            and left.top
            and right.top
        ):
            return scene
    raise AssertionError


def test_tokens_are_labelled_with_the_character_that_covers_them():
    scene = _two()
    labels = token_labels(scene, 8).reshape(8, 8, -1)
    hair, top = COLUMNS.index("hair_color"), COLUMNS.index("top_color")
    for character, column in zip(scene.characters, (2, 5), strict=True):
        seen = labels[:, column]
        assert a.HAIR_COLORS.index(character.hair_color) in seen[:, hair]
        assert set(seen[:, hair]) <= {a.HAIR_COLORS.index(character.hair_color), HIDDEN}
        assert set(seen[:, top]) == {a.CLOTHES_COLORS.index(character.top_color), HIDDEN}
    first_body = int(np.argmax(labels[:, 2, top] != HIDDEN))
    eyes = COLUMNS.index("eye_color")
    assert (labels[first_body:, 2, eyes] == HIDDEN).all()


def test_tokens_beside_the_people_carry_the_scene():
    scene = sample_scene(3, counts={1: 1.0})
    labels = token_labels(scene, 8)
    background = COLUMNS.index("background")
    beside = labels[:, 0] == HIDDEN
    assert beside.any()
    assert not beside.all()
    assert set(labels[beside, background]) == {a.BACKGROUNDS.index(scene.background)}
    assert set(labels[~beside, background]) == {HIDDEN}


def test_its_gradient_reaches_the_text_encoder_and_it_can_be_learnt():
    torch.manual_seed(0)
    recipe = TransformerRecipe(
        dim=64,
        n_layers=2,
        n_heads=2,
        n_kv_heads=2,
        text_dim=64,
        text_layers=2,
        pooled_dim=32,
        pooled_layers=1,
    )
    parts = Parts(recipe)
    head = AlignmentHead(64)
    head.watch(parts.transformer.layers[0])
    ids = torch.randint(300, 600, (2, 6))
    mask = torch.ones_like(ids)
    labels = torch.full((2, 4, len(LABELS)), HIDDEN)
    labels[0, :, 1], labels[1, :, 1] = 2, 3
    optimizer = torch.optim.Adam([*parts.parameters(), *head.parameters()], 1e-2)
    losses, reached = [], []
    for _ in range(40):
        apart = (torch.zeros(2, 6, 4), torch.zeros(2, dtype=torch.bool))
        text = (ids, mask, torch.zeros_like(ids), ids, mask, *apart)
        parts(torch.zeros(2, 16, 4, 4), torch.zeros(2), *text)
        loss, hits = head(labels, torch.ones(2))
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        grad = parts.text_encoder.embed_tokens.weight.grad
        reached.append(grad is not None and bool(grad.abs().sum() > 0))
        optimizer.zero_grad()
    assert not reached[0]  # AdaLN's gates open from zero
    assert reached[-1]
    assert losses[0] > 0.1
    assert losses[-1] < 0.2 * losses[0]
    assert hits[:2].tolist() == [[0, 0], [8, 8]]


def test_captions_before_the_varied_part_say_everything_with_people_in_any_order():
    scene = sample_scene(5, counts={2: 1.0})
    said = [complete_caption(scene, random.Random(seed), 0.5, 0.3) for seed in range(300)]
    turned, unplaced = replace(scene, characters=scene.characters[::-1]), xml_caption(scene, positions=False)
    asked = (xml_caption(scene), xml_caption(turned), unplaced, tag_caption(scene), sentence_caption(scene))
    assert set(said) == set(asked)
    assert said.count(unplaced) / len(said) == pytest.approx(0.94 * 0.3, abs=0.08)
    assert said.count(xml_caption(turned)) / len(said) == pytest.approx(0.94 * 0.7 / 4, abs=0.08)
    assert len({varied_caption(scene, random.Random(seed)) for seed in range(60)}) > 20
