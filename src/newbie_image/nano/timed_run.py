"""The whole recipe within a time, on one card: what each stage does, and which recipe it follows.

Renders are made by processes of their own and are used while they grow. The autoencoder, the latents and the
transformer have their data on the card. Everything is kept in a work folder and goes on from there; what
leaves the machine is a parcel (:mod:`newbie_image.nano.parcel`), written at each save.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from newbie_image.bundle import find_bundle, read_settings
from newbie_image.errors import CheckpointError, RequestError
from newbie_image.nano import parcel
from newbie_image.nano.alignment import LABELS
from newbie_image.nano.autoencoder import AutoencoderRecipe, build_autoencoder, train_autoencoder
from newbie_image.nano.batches import TrainingBatch
from newbie_image.nano.caption_table import draw_scenes, prepare
from newbie_image.nano.captions import xml_caption
from newbie_image.nano.dataset import HELD_OUT_SEED, Store, one_at_a_time
from newbie_image.nano.evaluate import evaluate, generate, held_out_scenes, write_score
from newbie_image.nano.export import write_bundle
from newbie_image.nano.latents import LatentStatistics, read_statistics, write_statistics
from newbie_image.nano.learner import Compilation, Learner
from newbie_image.nano.parts import Parts, TransformerRecipe
from newbie_image.nano.recipe import (
    COUNTS,
    Recipe,
    Workshop,
    detector_pictures,
    hardware,
    load_readers,
    note_training,
    reader_pictures,
)
from newbie_image.nano.regional import stacked
from newbie_image.nano.resident import GrowingBatches, ResidentPictures
from newbie_image.nano.train import Pace, train_from_tables
from newbie_image.nano.world.render import render
from newbie_image.nano.world.scene import Scene, sample_scene
from newbie_image.nano.world.sheet import tile
from newbie_image.pipeline import NewbiePipeline

Size = Literal["present", "large", "tiny"]
BUNDLE_LIMIT: Final = 64 * 2**20
"""Bytes that a bundle's weights may have in bfloat16."""
WIDE_DECODER: Final = ((64, 128, 192, 256), (0, 2, 2, 2))


def card_recipe(
    size: Size = "present",
    *,
    people: int = 3,
    pictures: int = 60_000,
    optimizer: Literal["adamw", "muon"] = "adamw",
    batch: int | None = None,
    wide_decoder: bool = False,
    learnt_at: int | None = None,
    hold_out_pairs: bool = False,
    first_seed: int = 0,
    seed: int = 0,
) -> Recipe:
    """The recipe for a card.

    Args:
        size: `present` is the embedded bundle's (6 × 384), `large` 8 × 384, `tiny` for trying the code.
        people: 3 or 6, most characters in a picture.
        pictures: renders to make.
        optimizer: see `TransformerRecipe`.
        batch: of the transformer; 256 if None.
        wide_decoder: a decoder of twice the channels at full and half resolution; starts from scratch.
        learnt_at: pixels that the transformer's weights to begin with were trained at; None from scratch.
        hold_out_pairs, first_seed: see `Recipe`.
        seed: of both trainings.
    Raises:
        RequestError: another number of people, or a model whose bundle would be larger than 64 MiB.
    """
    transformer = TransformerRecipe(
        batch=batch or 256,
        learning_rate=1e-3,
        warmup_steps=100,
        optimizer=optimizer,
    )
    vae = AutoencoderRecipe(
        crop=256, batch=64, learning_rate=1e-3, final_rate=1e-5, latent_noise=0.04, ema=0.998
    )
    pixels = 256
    if size == "large":
        transformer = replace(transformer, n_layers=8, n_heads=6, n_kv_heads=6, alignment_block=4)
    if size == "tiny":
        pixels = 64
        transformer = replace(
            transformer, dim=32, n_layers=2, n_heads=2, n_kv_heads=2, text_dim=64, text_layers=2,
            pooled_dim=32, pooled_layers=1, batch=batch or 8, warmup_steps=5, alignment_block=1,
        )  # fmt: skip
        narrow, layers = (8, 8, 16, 16), (0, 1, 1, 1)
        vae = replace(
            vae, crop=64, batch=4, encoder_channels=narrow, decoder_channels=narrow,
            encoder_layers=layers, decoder_layers=layers, warmup_steps=5,
        )  # fmt: skip
    if wide_decoder:
        channels, layers = WIDE_DECODER
        vae = replace(vae, decoder_channels=channels, decoder_layers=layers, learning_rate=1.5e-3)
    recipe = Recipe(
        pictures=pictures, autoencoder=vae, transformer=transformer, hold_out_pairs=hold_out_pairs,
        first_seed=first_seed, reader_pictures=16_000, reader_epochs=10.0, reader_batch=192,
    )  # fmt: skip
    if size == "tiny":
        recipe = replace(recipe, reader_pictures=24, reader_epochs=2.0, reader_batch=16)
    recipe = recipe.seeded(seed).peopled(people).sized(pixels, learnt_at)
    if (weights := bundle_bytes(recipe)) > BUNDLE_LIMIT:
        raise RequestError(
            f"this model's bundle would have {weights / 2**20:.1f} MiB, allowed are {BUNDLE_LIMIT >> 20}; "
            "leave out the wide decoder or take the present size"
        )
    return recipe


def bundle_bytes(recipe: Recipe) -> int:
    """Bytes of all weights in bfloat16."""
    with torch.device("meta"):
        models = (Parts(recipe.transformer), build_autoencoder(recipe.autoencoder))
    return 2 * sum(weight.numel() for model in models for weight in model.parameters())


NO_RENDERS: Final = 90.0
"""Seconds without a new block of renders after which nobody seems to make any."""
ON_CARD: Final = Pace(10.0, 3.0, float("inf"))


def open_start(start_from: str, work: Path) -> Path:
    """The bundle that a run begins with: a bundle's name or folder, or the folder of a parcel, which is
    unpacked in the work folder once."""
    folder = Path(start_from)
    if not (folder / f"{parcel.STEM}-00").exists():
        return find_bundle(start_from)
    brought = work / "brought"
    work.mkdir(parents=True, exist_ok=True)
    # Several parts of a run begin at once; one of them unpacks.
    with one_at_a_time(work / "brought.lock"):
        if not brought.exists():
            parcel.unpack(folder, brought)
    return brought


def fits(recipe: Recipe, bundle: Path) -> bool:
    """Whether a bundle's transformer has the recipe's sizes."""
    held = json.loads((bundle / "transformer" / "config.json").read_text())
    return all(held[name] == getattr(recipe.transformer, name) for name in ("dim", "n_layers", "n_heads"))


@dataclass(frozen=True)
class TimedRun:
    """A work folder, an out folder and what is done in them.

    Args:
        work: renders, tables, states and logs; 25 GB for 60,000 pictures.
        out: results, at most eight files of under 16 MiB.
        recipe: see :func:`card_recipe`.
        device: the card.
        report: gets a line now and then.
        evaluated: held-out prompts of the evaluation.
        compilation: of the transformer.
        pace: reports and saves of the transformer.
    """

    work: Path
    out: Path
    recipe: Recipe
    device: torch.device
    report: Callable[[str], None] = lambda line: None
    evaluated: int = 300
    compilation: Compilation = "blocks"
    pace: Pace = ON_CARD

    @property
    def workshop(self) -> Workshop:
        """The same folder as the stages of a run without a card know it."""
        return Workshop(self.work, self.recipe, self.device, self.report)

    def store(self) -> Store:
        """The renders that the model learns from."""
        return self.workshop.store()

    def begin(self, bundle: Path, fresh_autoencoder: bool) -> None:
        """Puts a bundle's weights where the stages look for what they begin with; what is there stays.

        Of a bundle whose transformer has other sizes only the autoencoder is taken. The bundle of an earlier
        run on a card (:func:`open_start` of its parcel) brings its counts of steps and minutes too.

        Args:
            bundle: its folder.
            fresh_autoencoder: leave its autoencoder out.
        """
        vae = self.work / "autoencoder" / "vae"
        if not fresh_autoencoder and not vae.exists():
            shutil.copytree(bundle / "vae", vae)
        if not fits(self.recipe, bundle):
            self.report(f"{bundle.name}: its transformer has other sizes, only its autoencoder is taken")
            return
        self.workshop.start_from(str(bundle))
        if fresh_autoencoder and not (self.work / "autoencoder" / "state.pt").exists():
            shutil.rmtree(vae, ignore_errors=True)
        note = bundle / "training.json"
        if note.exists():
            self._continue(bundle, json.loads(note.read_text()))

    def _continue(self, bundle: Path, note: dict[str, Any]) -> None:
        """States as a run on this machine would have left them, from a parcel: optimizers begin anew."""
        state = self.work / "transformer" / "state.pt"
        if note["size"] != self.recipe.size or state.exists():
            return
        weights = load_file(self.work / "transformer" / "start.safetensors")
        counts = {name: note[name] for name in ("step", "spent", "seen")}
        alignment = load_file(bundle / "alignment.safetensors")
        torch.save({"parts": weights, "average": weights, "alignment": alignment, **counts}, state)
        # The latents that these weights know are those of this autoencoder: it is done.
        statistics = read_settings(bundle).vae
        assert statistics.latents_mean is not None
        assert statistics.latents_std is not None
        (self.work / "autoencoder" / "done").write_text("brought\n")
        write_statistics(
            self.work / "latents", LatentStatistics(statistics.latents_mean, statistics.latents_std)
        )
        before = self.work / "transformer" / "before.json"
        before.write_text(json.dumps(json.loads(before.read_text())[:-1], indent=2) + "\n")

    def render(self, workers: int, until: float, readers: bool = False) -> None:
        """Held-out renders first, those of the readers where they are wanted, then blocks with their tables
        until `until` (`time.monotonic()`)."""
        held = self.work / "held_out.npz"
        if not held.exists():
            unseen = self._unseen()
            made = draw_scenes([*unseen, *held_out_scenes(self.evaluated)], self.recipe.size, workers)
            held.parent.mkdir(parents=True, exist_ok=True)
            np.savez(held.with_suffix(".partial.npz"), unseen=made[: len(unseen)], asked=made[len(unseen) :])
            held.with_suffix(".partial.npz").replace(held)
        if readers:
            for ready in self.workshop.reader_store().render(workers, until=until):
                self.report(f"render: {ready} of {self.recipe.reader_pictures} for the readers")
        recipe = self.recipe.transformer
        for ready in prepare(self.store(), self.work / "tables", recipe, workers=workers, until=until):
            self.report(f"render: {ready} of {self.recipe.pictures}")

    def _unseen(self) -> list[Scene]:
        count = min(96, self.evaluated)
        return [sample_scene(HELD_OUT_SEED + i, counts=COUNTS[self.recipe.people]) for i in range(count)]

    def _held_out(self, name: str, scenes: list[Scene]) -> np.ndarray:
        file = self.work / "held_out.npz"
        if file.exists():
            with np.load(file) as held:
                return held[name]
        return np.stack([render(scene, self.recipe.size) for scene in scenes])

    def readers(self, detector: Path, until: float) -> None:
        """Trains both readers once their renders are there, unless an earlier call has; packs them with a
        detector that there is.

        Args:
            detector: its file, in a folder of readers.
            until: `time.monotonic()` at which waiting for renders is given up.
        Raises:
            CheckpointError: no such detector, or no renders in time.
        """
        if not detector.exists():
            raise CheckpointError(f"{detector} is not there; name a folder of readers that has one")
        target = self.work / "readers"
        if not (target / "trained.json").exists():
            self._await_reader_renders(until)
            self.workshop.classifiers(*self.workshop.reader_renders())
            shutil.copyfile(detector, target / detector.name)
            note_training(target, detector_pictures=detector_pictures(detector.parent))
        parcel.pack(target, self.out / "readers")

    def _await_reader_renders(self, until: float) -> None:
        store, latest = self.workshop.reader_store(), time.monotonic()
        ready = len(store.finished())
        while ready < store.count:
            if time.monotonic() > min(until, latest + NO_RENDERS):
                raise CheckpointError(
                    f"{ready} of {store.count} renders for the readers came in time; name the part render "
                    "too, or call again with more minutes"
                )
            time.sleep(0.5)
            if len(store.finished()) > ready:
                ready, latest = len(store.finished()), time.monotonic()

    def autoencoder(self, minutes: float, left: float) -> None:
        """Trains until `minutes` are spent in all, and two fifths of the `left` minutes of this call at most;
        nothing where an earlier call has done it."""
        folder = self.work / "autoencoder"
        if (folder / "done").exists():
            return
        minutes = min(minutes, self._spent("autoencoder") + 0.4 * left)
        start = folder / "vae"
        recipe = self.recipe.autoencoder
        train_autoencoder(
            self.store(),
            self._held_out("unseen", self._unseen()),
            folder,
            recipe,
            minutes=minutes,
            device=self.device,
            report=lambda entry: self.report(f"autoencoder: {entry}"),
            start_from=start if start.exists() and not (folder / "state.pt").exists() else None,
            crops=ResidentPictures(self.store(), self.device, recipe),
            report_every=self.pace.report_every * 2,
            longest_step=float("inf"),
        )
        (folder / "done").write_text(f"{minutes}\n")

    def rehearse(self) -> None:
        """One step of each text length on made-up batches: what is compiled is kept on disk, so that the
        training, which begins later, finds it. For a process of its own beside the autoencoder."""
        recipe, side = self.recipe.transformer, self.recipe.size // 8
        learner = Learner(recipe, self.device, compilation=self.compilation)
        for length in recipe.text_lengths:
            began = time.monotonic()
            ones = torch.ones(recipe.batch, length, dtype=torch.int64, device=self.device)
            labels = torch.zeros(
                recipe.batch, (side // 2) ** 2, len(LABELS), dtype=torch.int64, device=self.device
            )
            batch = TrainingBatch(
                torch.randn(recipe.batch, 16, side, side, device=self.device),
                torch.ones(recipe.batch, 1, side, side, device=self.device),
                torch.ones(recipe.batch, device=self.device),
                (
                    ones,
                    ones,
                    torch.zeros_like(ones),
                    ones,
                    ones,
                    stacked([()] * recipe.batch).to(self.device),
                    torch.zeros(recipe.batch, dtype=torch.bool, device=self.device),
                ),
                labels,
            )
            loss = learner.step(batch, 0.0, recipe.alignment_weight).item()
            self.report(f"compile: {length} tokens in {time.monotonic() - began:.1f} s, loss {loss:.2f}")

    def transformer(self, minutes_left: Callable[[], float]) -> None:
        """Encodes what is rendered, lays all tables on the card, and trains for what `minutes_left` says
        once that is done, later renders included; each save leaves a parcel in the out folder."""
        folder = self.work / "latents"
        known = read_statistics(folder) if (folder / "statistics.json").exists() else None
        began = time.monotonic()
        batches = GrowingBatches(
            self.work / "tables", self.store(), self.workshop.vae(), self.device, self.recipe.transformer,
            statistics=known, report=self.report,
        )  # fmt: skip
        write_statistics(folder, batches.statistics)
        self.report(f"latents: {len(batches.indices)} in {time.monotonic() - began:.1f} s")
        start = self.work / "transformer" / "start.safetensors"
        for compilation in dict.fromkeys((self.compilation, "none")):
            try:
                train_from_tables(
                    batches,
                    self.work / "transformer",
                    self.recipe.transformer,
                    minutes=self._spent("transformer") + max(0.0, minutes_left()),
                    device=self.device,
                    report=lambda entry: self.report(f"transformer: {entry}"),
                    sample=lambda parts, seen: self._keep(len(batches.indices)),
                    start_from=load_file(start) if start.exists() else None,
                    compilation=compilation,
                    pace=self.pace,
                )
                break
            except Exception as error:
                # The time on a card is short: better slower than not at all.
                if compilation == "none":
                    raise
                self.report(f"transformer: compiled it failed, goes on without: {str(error)[:600]}")

    def _keep(self, pictures: int) -> None:
        try:
            (self.work / "used.json").write_text(json.dumps({"pictures": pictures}))
            self.export()
        except (OSError, CheckpointError) as error:  # a full disk must not end the training
            self.report(f"export: failed, the training goes on: {error}")

    def _spent(self, stage: str) -> float:
        file = self.work / stage / "state.pt"
        if not file.exists():
            return 0.0
        return float(torch.load(file, map_location="cpu", weights_only=True, mmap=True)["spent"])

    def export(self) -> None:
        """Writes the averaged weights of the last save as a bundle, and packs it into the out folder."""
        state_file = self.work / "transformer" / "state.pt"
        if not state_file.exists():
            raise CheckpointError(f"{state_file} is not there; train the transformer first")
        state = torch.load(state_file, map_location="cpu", weights_only=True)
        parts = Parts(self.recipe.transformer)
        parts.load_state_dict(state["average"])
        pipeline = self.workshop.pipeline(parts)
        bundle = self.work / "bundle"
        write_bundle(pipeline, bundle)
        history = self.workshop.history() | json.loads((self.work / "used.json").read_text())
        history |= {"hardware": hardware(self.device)}
        (bundle / "recipe.json").write_text(json.dumps(history, indent=2) + "\n")
        save_file(
            {name: value.contiguous() for name, value in state["alignment"].items()},
            bundle / "alignment.safetensors",
        )
        note = {name: state[name] for name in ("step", "seen", "spent")} | {"size": self.recipe.size}
        (bundle / "training.json").write_text(json.dumps(note) + "\n")
        parts_written = parcel.pack(bundle, self.out)
        self.report(f"export: {len(parts_written)} parts, {state['seen']} samples")

    def evaluate(self, readers: Path) -> None:
        """Scores the exported bundle and draws the first 32 held-out prompts, unselected."""
        bundle = self.work / "bundle"
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        pipeline = NewbiePipeline.from_pretrained(str(bundle)).to(self.device, dtype)
        scenes = held_out_scenes(self.evaluated)
        prompts = [xml_caption(scene) for scene in scenes[:32]]
        batch = 100 if self.device.type == "cuda" else 16
        sheet = tile(list(generate(pipeline, prompts, batch=batch)), columns=8)
        sheet.save(self.out / "sheet.png")
        score = evaluate(
            pipeline,
            *load_readers(readers),
            count=self.evaluated,
            real=self._held_out("asked", scenes),
            batch=batch,
        )
        write_score(score | {"reader_pictures": reader_pictures(readers)}, self.out / "evaluation.json")
        means = {
            name: round(score["generated"][f"{count}_characters"]["mean"], 3)
            for count, name in ((1, "one"), (2, "two"))
        }
        self.report(f"evaluate: {means}, {score['psnr']:.2f} dB")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
