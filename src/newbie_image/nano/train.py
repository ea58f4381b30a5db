"""Trains the embedded transformer together with its two text encoders, by flow matching on cached latents.

One caption in ten is empty for both encoders, which is what guidance needs. The run ends after a time, is
saved every few minutes and resumes where it was. The step itself is in :mod:`newbie_image.nano.learner`, the
batches come from :mod:`newbie_image.nano.batches` or, on a card, from :mod:`newbie_image.nano.resident`.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from newbie_image.nano.batches import BatchSource, HostBatches, Wanted
from newbie_image.nano.clock import TrainingClock
from newbie_image.nano.dataset import Store
from newbie_image.nano.learner import Compilation, Learner, learning_rate
from newbie_image.nano.parts import Parts, TransformerRecipe

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Pace:
    """How often a run reports and saves, and what counts as its time.

    Args:
        report_every: seconds.
        save_every: minutes.
        longest_step: seconds that one step counts at most; a pause or a compilation then costs no schedule.
            `inf` where the time itself is what runs out.
    """

    report_every: float = 30.0
    save_every: float = 10.0
    longest_step: float = 10.0


def train_transformer(
    store: Store,
    latents: np.ndarray,
    folder: Path,
    recipe: TransformerRecipe,
    *,
    minutes: float,
    device: torch.device,
    report: Report = lambda entry: None,
    sample: Callable[[Parts, int], None] | None = None,
    start_from: Mapping[str, Tensor] | None = None,
    compiled: bool = False,
    save_every: float = 10.0,
) -> Parts:
    """Trains until `minutes` are spent in all (earlier calls included) and returns the averaged parts.

    Args:
        store: the renders, for captions and importance.
        latents: (count, 16, height/8, width/8) float16, normalised to mean 0 and deviation 1 by channel.
        folder: state.pt (resumable), log.jsonl, recipe.json.
        minutes: total time of the schedule; the rate falls over its last `cooldown` part.
        report: called with each log entry.
        sample: called with the averaged parts and the samples seen at each save.
        start_from: state of `Parts` to begin with where the folder has no state of its own.
        compiled: compile the forward for each of the recipe's `text_lengths`; longer texts run as they are.
    """
    torch.manual_seed(recipe.seed)
    learner = Learner(recipe, device, start_from, "whole" if compiled else "none")

    def source() -> BatchSource:
        return HostBatches(store, latents, recipe, device, few_lengths=compiled)

    run(
        learner,
        source,
        folder,
        minutes=minutes,
        report=report,
        sample=sample,
        pace=Pace(save_every=save_every),
    )
    return learner.average


def train_from_tables(
    source: BatchSource,
    folder: Path,
    recipe: TransformerRecipe,
    *,
    minutes: float,
    device: torch.device,
    report: Report = lambda entry: None,
    sample: Callable[[Parts, int], None] | None = None,
    start_from: Mapping[str, Tensor] | None = None,
    compilation: Compilation = "none",
    pace: Pace = Pace(10.0, 1.5, float("inf")),
) -> Parts:
    """The same training from batches that lie on the device; all time counts, compilation too.

    Args:
        source: see :class:`newbie_image.nano.resident.ResidentBatches`.
        folder, recipe, minutes, report, sample, start_from: as in :func:`train_transformer`.
        compilation: what is compiled.
        pace: reports and saves.
    """
    torch.manual_seed(recipe.seed)
    learner = Learner(recipe, device, start_from, compilation)
    run(learner, lambda: source, folder, minutes=minutes, report=report, sample=sample, pace=pace)
    return learner.average


def run(
    learner: Learner,
    source: Callable[[], BatchSource],
    folder: Path,
    *,
    minutes: float,
    report: Report,
    sample: Callable[[Parts, int], None] | None,
    pace: Pace,
) -> None:
    """The loop: batches by the moment of the run, steps, log entries and saves."""
    recipe = learner.recipe
    folder.mkdir(parents=True, exist_ok=True)
    state_file = folder / "state.pt"
    if state_file.exists():
        learner.load(state_file)
    rng = random.Random(recipe.seed * 1_000_003 + learner.step_count)
    torch.manual_seed(recipe.seed * 1_000_003 + learner.step_count)
    batches = source()
    clock = TrainingClock(learner.minutes, pace.longest_step)
    last_report = last_save = time.monotonic()
    last_seen = learner.seen
    losses: list[Tensor] = []
    rate = 0.0

    def save() -> None:
        learner.save(state_file)
        if sample is not None:
            sample(learner.average, learner.seen)

    while learner.minutes < minutes:
        progress = learner.minutes / minutes
        strength = recipe.alignment_weight * max(0.0, 1 - progress / recipe.alignment_until)
        learner.space_positions(progress)
        wanted = Wanted(progress < recipe.singles_first, progress > 1 - recipe.varied_last, strength > 0)
        for batch in batches.pool(rng, wanted):
            rate = learning_rate(recipe, learner.step_count, learner.minutes / minutes)
            flow = learner.step(batch, rate, strength)
            if learner.step_count % 5 == 0:
                losses.append(flow)
            if learner.step_count % 10 == 0 and learner.device.type == "cuda":
                torch.cuda.synchronize(learner.device)  # the clock would else run behind what is queued
            learner.minutes = clock.tick()
            if learner.minutes >= minutes:
                break
        now = time.monotonic()
        if now - last_report > pace.report_every or learner.minutes >= minutes:
            losses = losses[-40:]
            entry: dict[str, Any] = {
                "step": learner.step_count,
                "seen": learner.seen,
                "minutes": round(learner.minutes, 2),
                "loss": round(torch.stack(losses).mean().item(), 4) if losses else None,
                "rate": rate,
                "per_second": round(learner.seen / max(1e-9, learner.minutes * 60), 1),
                "per_second_now": round((learner.seen - last_seen) / max(1e-9, now - last_report), 1),
            }
            if strength > 0:
                entry["named"] = learner.named()
            last_report, last_seen = now, learner.seen
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
            report(entry)
        if now - last_save > pace.save_every * 60:
            last_save = now
            save()
    save()
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2))
