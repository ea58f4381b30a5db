"""Held-out pairs are kept out of the renders where they are to be, and nothing else changes."""

from __future__ import annotations

from newbie_image.nano.dataset import Store
from newbie_image.nano.world.attributes import FIGURES
from newbie_image.nano.world.held_out import HELD_OUT_PAIRS, held_out_pairs, without_held_out_pairs
from newbie_image.nano.world.scene import sample_scene, see


def test_pairs_are_common_in_the_world_and_gone_where_they_are_held_out():
    changed = 0
    for seed in range(1500):
        scene = sample_scene(seed, 2)
        kept = without_held_out_pairs(scene)
        assert held_out_pairs(kept) == ()
        assert all(see(character) == character for character in kept.characters)
        if held_out_pairs(scene):
            changed += 1
            seconds = {pair.second_field for pair in held_out_pairs(scene)}
            for old, new in zip(scene.characters, kept.characters, strict=True):
                assert {f for f, v in old.labels().items() if v != new.labels()[f]} <= seconds
        else:
            assert kept is scene
    assert changed > 100


def test_no_value_stands_in_two_pairs_and_no_named_figure_has_one():
    values = [(p.first_field, p.first) for p in HELD_OUT_PAIRS]
    values += [(p.second_field, p.second) for p in HELD_OUT_PAIRS]
    assert len(set(values)) == len(values) == 2 * len(HELD_OUT_PAIRS)
    for figure in FIGURES.values():
        for pair in HELD_OUT_PAIRS:
            assert (figure[pair.first_field], figure[pair.second_field]) != (pair.first, pair.second)


def test_a_store_holds_them_out_and_remembers_it(tmp_path):
    plain = Store.create(tmp_path / "plain", 400, 32, 0, {2: 1.0})
    held = Store.create(tmp_path / "held", 400, 32, 0, {2: 1.0}, hold_out_pairs=True)
    assert any(held_out_pairs(plain.scene(i)) for i in range(400))
    assert not any(held_out_pairs(held.scene(i)) for i in range(400))
    assert "hold_out_pairs" not in (tmp_path / "plain" / "store.json").read_text()
    assert "hold_out_pairs" in (tmp_path / "held" / "store.json").read_text()
