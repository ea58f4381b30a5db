"""What lies on the device is what the processor would have made, and it can be learnt from."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from newbie_image.nano import dataset
from newbie_image.nano.autoencoder import AutoencoderRecipe, build_autoencoder, pictures_to_tensor
from newbie_image.nano.batches import Wanted, latent_weights
from newbie_image.nano.caption_table import Tables, caption_rows, prepare_block
from newbie_image.nano.caption_tokens import Captioner
from newbie_image.nano.dataset import Store
from newbie_image.nano.latents import LatentStatistics, encode
from newbie_image.nano.learner import Learner
from newbie_image.nano.parts import TransformerRecipe
from newbie_image.nano.regional import stacked
from newbie_image.nano.resident import GrowingBatches, ResidentBatches, ResidentPictures, encode_resident
from newbie_image.nano.train import Pace, train_from_tables

CPU = torch.device("cpu")
TINY = TransformerRecipe(
    dim=32,
    n_layers=2,
    n_refiner_layers=1,
    n_heads=2,
    n_kv_heads=2,
    text_dim=64,
    text_layers=2,
    pooled_dim=32,
    pooled_layers=1,
    batch=8,
    warmup_steps=2,
    learning_rate=3e-3,
    singles_first=0.0,
    alignment_block=1,
    text_lengths=(56, 80),
)
NARROW = AutoencoderRecipe(
    encoder_channels=(8, 8, 16, 16),
    decoder_channels=(8, 8, 16, 16),
    encoder_layers=(0, 1, 1, 1),
    decoder_layers=(0, 1, 1, 1),
    crop=16,
    batch=4,
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A store of 24 pictures of 32 × 32 and its tables."""
    folder = tmp_path_factory.mktemp("prepared")
    store = Store.create(folder / "store", 24, 32, 0, {1: 0.5, 2: 0.3, 3: 0.2})
    (folder / "tables").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "BLOCK", 12)
        for block in (0, 1):
            prepare_block((store, folder / "tables", TINY, block))
    return store, Tables.read(folder / "tables")


@pytest.fixture
def batches(prepared):
    store, tables = prepared
    latents = torch.randn(24, 16, 4, 4, generator=torch.Generator().manual_seed(1)).half()
    return ResidentBatches(tables, latents, store, TINY, batches=4)


def test_a_batch_holds_captions_latents_and_labels_of_the_same_pictures(prepared, batches):
    store, tables = prepared
    captioner = Captioner(store, TINY)
    rows = {i: caption_rows(captioner, store.scene(i), i) for i in range(24)}
    empty = captioner.tokens("", False)
    seen, kinds, placed, everything = 0, set(), [], []
    for batch in batches.pool(random.Random(3), Wanted(singles=False, varied=True, labels=True)):
        ids, mask, groups, pooled_ids, pooled_mask, boxes, full = batch.text
        assert batch.length in TINY.text_lengths
        assert batch.labels is not None
        for row in range(len(ids)):
            same = (batches.latents.float() == batch.clean[row]).flatten(1).all(1)
            (picture,) = same.nonzero().flatten().tolist()
            count, pooled_count = int(mask[row].sum()), int(pooled_mask[row].sum())
            held = (
                ids[row, :count].tolist(),
                groups[row, :count].tolist(),
                pooled_ids[row, :pooled_count].tolist(),
            )
            own = [(tokens.ids, tokens.groups, tokens.pooled_ids) for tokens in rows[picture]]
            if batch.said[row]:
                assert held in own
                kind = own.index(held)
                kinds.add(kind)
                regions = stacked([rows[picture][kind].boxes])[0]
                placed.append(bool(boxes[row].any()))
                everything.append(bool(full[row]))
                allowed = (torch.zeros(6, 4), regions)
                assert any(torch.allclose(boxes[row], each, atol=1e-3) for each in allowed)
            else:
                assert held == (empty.ids, empty.groups, empty.pooled_ids)
            assert (ids[row, count:] == 0).all()
            assert (pooled_ids[row, pooled_count:] == 1).all()
            assert np.array_equal(batch.labels[row].numpy(), tables.labels[picture])
            seen += 1
    assert seen == 32
    assert len(kinds) > 4  # complete and varied ones
    assert 0 < sum(placed) < len(placed)
    assert 0 < sum(everything) < len(everything)


def test_what_is_rendered_later_is_taken_over_with_its_own_captions(prepared, tmp_path, monkeypatch):
    store, tables = prepared
    monkeypatch.setattr(dataset, "BLOCK", 12)
    vae = build_autoencoder(NARROW)
    prepare_block((store, tmp_path, TINY, 1))  # a later block may come first
    growing = GrowingBatches(tmp_path, store, vae, CPU, TINY)
    first = growing.batches
    list(growing.pool(random.Random(0), Wanted(singles=False, varied=False, labels=False)))
    assert growing.batches is first
    prepare_block((store, tmp_path, TINY, 0))
    list(growing.pool(random.Random(0), Wanted(singles=False, varied=False, labels=False)))
    assert growing.indices.tolist() == tables.indices.tolist()
    again, _ = encode_resident(vae, store, tables.indices, CPU, growing.statistics)
    torch.testing.assert_close(growing.latents, again, rtol=1e-2, atol=2e-2)
    labels = growing.batches.labels.numpy()
    assert np.array_equal(labels, tables.labels)


def test_weights_are_those_of_the_importance_and_padding_is_sorted(prepared, batches):
    store, _ = prepared
    pools = list(batches.pool(random.Random(0), Wanted(singles=True, varied=False, labels=False)))
    assert all(batch.labels is None for batch in pools)
    people = [len(store.scene(i).characters) for i in range(24)]
    for batch in pools:
        pictures = [
            int((batches.latents.float() == clean).flatten(1).all(1).nonzero()) for clean in batch.clean
        ]
        assert {people[i] for i in pictures} == {1}
        expected = latent_weights(torch.from_numpy(store.importance()[pictures]), 4)
        torch.testing.assert_close(batch.weight, expected)


def test_a_length_that_no_text_may_exceed_is_refused(prepared):
    store, tables = prepared
    with pytest.raises(ValueError, match="text_lengths"):
        ResidentBatches(tables, torch.zeros(24, 16, 4, 4), store, replace(TINY, text_lengths=(16,)))


def test_pictures_are_taken_over_as_they_are_rendered_and_cropped_in_place(prepared, tmp_path):
    store, _ = prepared
    copy = Store.create(tmp_path / "copy", 24, 32, 0, store.counts)
    resident = ResidentPictures(copy, CPU, NARROW, limit=10)
    assert resident.refresh() == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "BLOCK", 4)
        for block in (1, 0):
            dataset._render_block((copy, block))
            resident.refresh()
        assert resident.count == 8
        assert np.array_equal(resident.pictures[:4].numpy(), store.pictures()[4:8])
        dataset._render_block((copy, 2))
        assert resident.refresh() == 10  # no room for more
    crops, weights = resident.draw(np.random.default_rng(0))
    assert crops.shape == (4, 3, 16, 16)
    assert weights.shape == (4, 1, 4, 4)
    whole = pictures_to_tensor(resident.pictures.numpy(), CPU)
    cuts = whole.unfold(2, 16, 4).unfold(3, 16, 4)  # picture, channel, row, column, 16, 16
    for crop in crops:
        assert (cuts == crop[None, :, None, None]).all(-1).all(-1).all(1).any()


def test_latents_on_the_device_are_those_of_the_autoencoder(prepared):
    store, _ = prepared
    torch.manual_seed(0)
    vae = build_autoencoder(NARROW)
    indices = np.array([3, 17, 5])
    latents, statistics = encode_resident(vae, store, indices, CPU)
    raw = encode(vae, store.pictures()[indices], CPU)
    mean = torch.tensor(statistics.mean)[None, :, None, None]
    std = torch.tensor(statistics.std)[None, :, None, None]
    torch.testing.assert_close(latents.float(), (raw - mean) / std, rtol=2e-2, atol=2e-2)
    known = LatentStatistics((0.0,) * 16, (2.0,) * 16)
    again, same = encode_resident(vae, store, indices, CPU, known)
    assert same is known
    torch.testing.assert_close(again.float(), raw / 2, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_loss_falls_and_labels_are_learnt(prepared, optimizer):
    store, tables = prepared
    recipe = replace(TINY, optimizer=optimizer)
    # Every picture has latents that one number tells.
    level = torch.linspace(-1, 1, 24)[:, None, None, None].expand(24, 16, 4, 4)
    batches = ResidentBatches(tables, level.half().contiguous(), store, recipe, batches=4)
    torch.manual_seed(0)
    learner = Learner(recipe, CPU)
    assert len(learner.optimizers) == (2 if optimizer == "muon" else 1)
    rng, losses = random.Random(0), []
    for _ in range(12):
        for batch in batches.pool(rng, Wanted(singles=False, varied=False, labels=True)):
            losses.append(float(learner.step(batch, 3e-3, 0.5)))
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    assert learner.seen == 48 * recipe.batch
    assert any(share > 0 for share in learner.named().values())
    assert int(learner.hits.sum()) == 0


def test_a_run_keeps_its_time_saves_and_goes_on(batches, tmp_path):
    saved = []
    began = time.monotonic()
    train_from_tables(
        batches,
        tmp_path,
        TINY,
        minutes=0.05,
        device=CPU,
        sample=lambda parts, seen: saved.append(seen),
        pace=Pace(1.0, 0.015, float("inf")),
    )
    spent = time.monotonic() - began
    assert 3.0 <= spent < 6.0
    assert len(saved) >= 2  # in between, and at the end
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["seen"] == saved[-1] == state["step"] * TINY.batch
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert entries[-1]["seen"] == saved[-1]
    # What travels has no optimizers; the counts go on all the same.
    for name in ("optimizer", "more_optimizers"):
        del state[name]
    torch.save(state, tmp_path / "state.pt")
    train_from_tables(batches, tmp_path, TINY, minutes=state["spent"] + 0.02, device=CPU)
    later = torch.load(tmp_path / "state.pt", weights_only=True)
    assert later["seen"] > state["seen"]
    assert later["spent"] == pytest.approx(state["spent"] + 0.02, abs=0.02)
