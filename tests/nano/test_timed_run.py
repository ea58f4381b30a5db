"""The recipe for a card fits its limits, parcels keep every byte, and a run goes on from one."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from newbie_image.errors import CheckpointError, RequestError
from newbie_image.nano import dataset, parcel
from newbie_image.nano.caption_table import prepare_block
from newbie_image.nano.card import write_card
from newbie_image.nano.dataset import HELD_OUT_SEED, READER_SEED
from newbie_image.nano.recipe import detector_pictures, load_readers, reader_pictures
from newbie_image.nano.timed_run import BUNDLE_LIMIT, TimedRun, bundle_bytes, card_recipe, fits, open_start
from newbie_image.nano.train import Pace

CPU = torch.device("cpu")
READERS = Path(__file__).parents[2] / "assets" / "readers"


def test_sizes_fit_into_a_bundle_and_others_are_refused():
    for size in ("present", "large"):
        recipe = card_recipe(size, learnt_at=128)
        assert bundle_bytes(recipe) <= BUNDLE_LIMIT
        assert (recipe.size, recipe.transformer.time_shift) == (256, 2.0)
        assert recipe.transformer.first_position_scale == 0.5
    assert bundle_bytes(card_recipe("large")) > bundle_bytes(card_recipe("present"))
    assert card_recipe("present", wide_decoder=True).autoencoder.decoder_channels[0] == 64
    with pytest.raises(RequestError, match=r"68\.\d MiB.*take the present size"):
        card_recipe("large", wide_decoder=True)
    with pytest.raises(RequestError, match="give 3 or 6"):
        card_recipe(people=4)


def test_a_parcel_keeps_every_byte_and_its_parts_are_small(tmp_path):
    source = tmp_path / "bundle"
    (source / "inner").mkdir(parents=True)
    weights = torch.randn(20_001).to(torch.bfloat16).view(torch.int16).numpy().tobytes() + b"x"
    (source / "inner" / "a.safetensors").write_bytes(weights)
    (source / "note.json").write_text("{}")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "parcel-09").write_bytes(b"of an older, larger one")
    parts = parcel.pack(source, tmp_path / "out", part=9_000)
    assert [part.name for part in parts] == [f"parcel-{i:02d}" for i in range(len(parts))]
    assert len(parts) >= 3
    assert all(part.stat().st_size <= 9_000 for part in parts)
    assert sum(part.stat().st_size for part in parts) < 0.85 * len(weights)
    assert not (tmp_path / "out" / "parcel-09").exists()
    parcel.unpack(tmp_path / "out", tmp_path / "back")
    assert (tmp_path / "back" / "inner" / "a.safetensors").read_bytes() == weights
    assert (tmp_path / "back" / "note.json").read_text() == "{}"


def test_a_parcel_that_is_not_whole_is_refused_and_nothing_is_replaced(tmp_path):
    source, out, back = tmp_path / "bundle", tmp_path / "out", tmp_path / "back"
    source.mkdir()
    (source / "a.safetensors").write_bytes(np.random.default_rng(0).bytes(30_000))
    parts = parcel.pack(source, out, part=9_000)
    parcel.unpack(out, back)
    content = parts[-1].read_bytes()
    parts[-1].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="another checksum"):
        parcel.unpack(out, back)
    parts[-1].unlink()
    with pytest.raises(CheckpointError, match="copy the missing ones"):
        parcel.unpack(out, back)
    assert (back / "a.safetensors").exists()
    with pytest.raises(CheckpointError, match="holds no parcel"):
        parcel.unpack(source, back)


def tiny_run(work: Path, out: Path, **changes: object) -> TimedRun:
    recipe = replace(card_recipe("tiny", pictures=8), **changes)  # pyright: ignore[reportArgumentType]
    return TimedRun(work, out, recipe, CPU, evaluated=4, compilation="none", pace=Pace(1.0, 9.0, 10.0))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> TimedRun:
    """A tiny run through all its stages, renders made in this process."""
    folder = tmp_path_factory.mktemp("run")
    run = tiny_run(folder / "work", folder / "out")
    (run.work / "tables").mkdir(parents=True)
    run.out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "BLOCK", 8)
        prepare_block((run.store(), run.work / "tables", run.recipe.transformer, 0))
        run.autoencoder(0.02, 1.0)
        run.transformer(lambda: 0.03)
    run.evaluate(READERS)
    return run


def test_a_run_leaves_bundle_score_and_sheet_in_few_small_files(finished: TimedRun):
    files = {file.name: file.stat().st_size for file in finished.out.iterdir()}
    assert set(files) == {"parcel-00", "evaluation.json", "sheet.png"}
    score = json.loads((finished.out / "evaluation.json").read_text())
    assert score["prompts"] == 4
    assert {"generated", "renders", "round_trip", "psnr"} <= set(score)
    history = json.loads((finished.work / "bundle" / "recipe.json").read_text())
    assert history["pictures"] == 8
    assert history["transformer"]["seen"] > 0
    assert history["autoencoder"]["psnr"] > 0
    assert score["reader_pictures"] == reader_pictures(READERS)


def test_a_finished_autoencoder_is_left_alone(finished: TimedRun):
    before = (finished.work / "autoencoder" / "state.pt").stat().st_mtime_ns
    finished.autoencoder(5.0, 10.0)
    assert (finished.work / "autoencoder" / "state.pt").stat().st_mtime_ns == before


def test_a_parcel_goes_on_elsewhere_with_its_counts_and_the_same_latents(finished: TimedRun, tmp_path):
    with ThreadPoolExecutor(4) as pool:  # as several parts of a run do at once
        (bundle,) = set(pool.map(lambda _: open_start(str(finished.out), tmp_path / "work"), range(4)))
    assert bundle == tmp_path / "work" / "brought"
    run = tiny_run(tmp_path / "work", tmp_path / "out")
    assert fits(run.recipe, bundle)
    run.begin(bundle, fresh_autoencoder=False)
    old = torch.load(finished.work / "transformer" / "state.pt", weights_only=True)
    new = torch.load(run.work / "transformer" / "state.pt", weights_only=True)
    assert {n: new[n] for n in ("step", "seen", "spent")} == {n: old[n] for n in ("step", "seen", "spent")}
    for name, value in old["average"].items():
        torch.testing.assert_close(new["average"][name], value, rtol=1e-2, atol=1e-2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "BLOCK", 8)
        (run.work / "tables").mkdir()
        prepare_block((run.store(), run.work / "tables", run.recipe.transformer, 0))
        run.autoencoder(5.0, 10.0)  # it is done: nothing is trained
        run.transformer(lambda: 0.02)
    later = torch.load(run.work / "transformer" / "state.pt", weights_only=True)
    assert later["seen"] > old["seen"]
    assert later["spent"] > old["spent"]
    statistics = [(r.work / "latents" / "statistics.json").read_text() for r in (run, finished)]
    assert json.loads(statistics[0]) == json.loads(statistics[1])
    assert (run.out / "parcel-00").exists()


def test_of_a_bundle_of_another_size_only_the_autoencoder_is_taken(finished: TimedRun, tmp_path):
    transformer = replace(finished.recipe.transformer, n_layers=1)
    lines: list[str] = []
    run = replace(tiny_run(tmp_path, tmp_path / "out", transformer=transformer), report=lines.append)
    run.begin(finished.work / "bundle", fresh_autoencoder=False)
    assert (run.work / "autoencoder" / "vae" / "config.json").exists()
    assert not (run.work / "transformer").exists()
    assert "only its autoencoder is taken" in lines[0]


def test_the_readers_learn_once_their_renders_are_there_and_travel(tmp_path):
    run = tiny_run(tmp_path / "work", tmp_path / "out")
    detector = READERS / "detector.safetensors"
    with pytest.raises(CheckpointError, match=r"0 of 24 renders for the readers.*part render"):
        run.readers(detector, until=time.monotonic() - 1)
    with pytest.raises(CheckpointError, match="nobody is not there"):
        run.readers(tmp_path / "nobody", until=time.monotonic() - 1)
    dataset._render_block((run.workshop.reader_store(), 0))
    run.readers(detector, until=time.monotonic() - 1)
    learnt = (run.work / "readers" / "character.safetensors").stat().st_mtime_ns
    run.readers(detector, until=time.monotonic() - 1)
    assert (run.work / "readers" / "character.safetensors").stat().st_mtime_ns == learnt
    parcel.unpack(run.out / "readers", tmp_path / "back")
    load_readers(tmp_path / "back")
    assert reader_pictures(tmp_path / "back") == 24
    assert detector_pictures(tmp_path / "back") == detector_pictures(READERS)
    assert (tmp_path / "back" / detector.name).read_bytes() == detector.read_bytes()


def test_renders_of_another_first_seed_show_other_scenes_but_never_the_readers(tmp_path):
    changes = {"hold_out_pairs": True, "first_seed": 2_000_000}
    there, other = (
        tiny_run(tmp_path / "a", tmp_path).store(),
        tiny_run(tmp_path / "b", tmp_path, **changes).store(),
    )
    assert other.first_seed == 2_000_000
    assert other.hold_out_pairs
    assert there.scene(0) != other.scene(0)
    for seed in (-1, READER_SEED - 7, HELD_OUT_SEED):
        with pytest.raises(RequestError, match=r"first_seed .* give 0 to"):
            card_recipe("tiny", pictures=8, first_seed=seed)


def test_a_card_names_the_hardware_of_each_run_that_went_before(finished: TimedRun, tmp_path):
    bundle = finished.work / "bundle"
    run = tiny_run(tmp_path / "work", tmp_path / "out")
    history = json.loads((bundle / "recipe.json").read_text())
    (bundle / "recipe.json").write_text(json.dumps(history | {"hardware": "an abacus"}))
    run.workshop.start_from(str(bundle))
    runs = json.loads((run.work / "transformer" / "before.json").read_text())
    assert runs[-1]["hardware"] == "an abacus"
    assert {"step", "seen"} <= set(runs[-1])
    (bundle / "recipe.json").write_text(json.dumps(history | {"transformer_before": runs}))
    (bundle / "evaluation.json").write_bytes((finished.out / "evaluation.json").read_bytes())
    assert "(an abacus)" in write_card(bundle).read_text()
