"""Stores of renders: resumable, repeatable, and sure of what they hold."""

from __future__ import annotations

import numpy as np
import pytest

from newbie_image.errors import CheckpointError
from newbie_image.nano import dataset
from newbie_image.nano.dataset import Store, _render_block
from newbie_image.nano.world.render import render


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "BLOCK", 3)
    return Store.create(tmp_path / "store", 7, 32, 100, {1: 1.0})


def test_blocks_hold_the_pictures_of_their_seeds(store):
    assert len(store.finished()) == 0
    _render_block((store, 2))
    assert store.finished().tolist() == [6]
    _render_block((store, 0))
    assert store.finished().tolist() == [0, 1, 2, 6]
    assert np.array_equal(store.pictures()[1], render(store.scene(1), 32))
    assert store.importance()[1].max() == 60
    assert (store.pictures()[3] == 0).all()


def test_a_store_goes_on_only_as_what_it_was(store):
    _render_block((store, 0))
    again = Store.create(store.folder, 7, 32, 100, {1: 1.0})
    assert again.finished().tolist() == [0, 1, 2]
    with pytest.raises(CheckpointError, match="another set of renders"):
        Store.create(store.folder, 8, 32, 100, {1: 1.0})
