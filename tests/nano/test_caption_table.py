"""Captions tokenised ahead are the captioner's own, and blocks are prepared once."""

from __future__ import annotations

import random

import numpy as np
import pytest

from newbie_image.nano import dataset
from newbie_image.nano.alignment import token_labels
from newbie_image.nano.caption_table import (
    COMPLETE,
    VARIED,
    Tables,
    caption_rows,
    complete_shares,
    prepare,
    prepare_block,
)
from newbie_image.nano.caption_tokens import Captioner
from newbie_image.nano.captions import (
    in_any_order,
    sentence_caption,
    tag_caption,
    varied_caption,
    xml_caption,
)
from newbie_image.nano.dataset import Store
from newbie_image.nano.parts import TransformerRecipe
from newbie_image.nano.regional import caption_boxes

RECIPE = TransformerRecipe(apart=0.5)


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store", 6, 32, 100, {1: 0.4, 2: 0.4, 3: 0.2})


def test_rows_are_what_the_captioner_makes_of_the_same_captions(store):
    captioner = Captioner(store, RECIPE)
    for index in range(6):
        scene = store.scene(index)
        rows = caption_rows(captioner, scene, index)
        rng = random.Random(index)
        named = in_any_order(scene, rng, RECIPE.shuffled)
        assert len(rows) == COMPLETE + VARIED
        assert rows[0] == captioner.tokens(xml_caption(named), False)
        assert rows[1] == captioner.tokens(xml_caption(named), True, scene)
        assert rows[1] != rows[0]
        unplaced = xml_caption(scene, positions=False)
        assert rows[2] == captioner.tokens(unplaced, False)
        assert rows[3] == captioner.tokens(unplaced, True, scene)
        assert rows[3].boxes == caption_boxes(xml_caption(scene))
        assert rows[4] == captioner.tokens(tag_caption(scene), False)
        assert rows[5] == captioner.tokens(sentence_caption(scene), False)
        for row in rows[COMPLETE:]:
            caption = varied_caption(scene, rng)
            assert row == captioner.tokens(caption, rng.random() < RECIPE.apart, scene)


def test_complete_rows_are_drawn_as_often_as_training_captions_are():
    assert complete_shares(0.25, 0) == pytest.approx((0.705, 0.235, 0, 0, 0.04, 0.02))
    assert complete_shares(0.25, 0.2) == pytest.approx((0.564, 0.188, 0.141, 0.047, 0.04, 0.02))
    assert sum(complete_shares(0.5, 0.3)) == pytest.approx(1)


def test_a_block_is_rendered_and_tokenised_once_and_read_back(store, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "BLOCK", 3)
    folder = tmp_path / "tables"
    folder.mkdir()
    for block in (1, 0):
        assert prepare_block((store, folder, RECIPE, block)) == block
    assert store.finished().tolist() == [0, 1, 2, 3, 4, 5]
    written = (folder / "000000.npz").stat().st_mtime_ns
    prepare_block((store, folder, RECIPE, 0))
    assert (folder / "000000.npz").stat().st_mtime_ns == written

    tables = Tables.read(folder)
    assert tables.indices.tolist() == [0, 1, 2, 3, 4, 5]
    assert tables.people.tolist() == [len(store.scene(i).characters) for i in range(6)]
    assert np.array_equal(tables.labels[4], token_labels(store.scene(4), 2))
    captioner = Captioner(store, RECIPE)
    rows = [tokens for i in range(6) for tokens in caption_rows(captioner, store.scene(i), i)]
    assert tables.ids.tolist() == [token for row in rows for token in row.ids]
    assert tables.groups.tolist() == [group for row in rows for group in row.groups]
    assert tables.pooled_ids.tolist() == [token for row in rows for token in row.pooled_ids]
    assert Tables.read(folder, limit=2).indices.tolist() == [0, 1, 2]


def test_a_folder_without_tables_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the stage 'render' first"):
        Tables.read(tmp_path)


def test_workers_render_and_tokenise_what_is_missing(tmp_path):
    store = Store.create(tmp_path / "store", 20, 32, 0, {1: 1.0})
    assert list(prepare(store, tmp_path / "tables", RECIPE, workers=1)) == [0, 20]
    assert len(store.finished()) == 20
    assert len(Tables.read(tmp_path / "tables").people) == 20
    assert list(prepare(store, tmp_path / "tables", RECIPE, workers=1)) == [20]


def test_nothing_is_begun_after_the_time_is_over(tmp_path):
    store = Store.create(tmp_path / "store", 20, 32, 0, {1: 1.0})
    assert list(prepare(store, tmp_path / "tables", RECIPE, workers=1, until=0.0)) == [0]
    assert len(store.finished()) == 0
