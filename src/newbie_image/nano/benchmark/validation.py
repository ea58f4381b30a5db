"""How far the evaluators can be believed: their error on held-out renders, after the autoencoder, after a
blur, and on mistakes that were put in at a known rate."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F

from newbie_image.nano.benchmark.correction import confusion, corrected_leakage, mean_error, reader_error
from newbie_image.nano.benchmark.figures import (
    EVALUATORS,
    attributes_right,
    estimate_json,
    excess_leakage,
    swapped_pairs,
    table,
    table_by_people,
)
from newbie_image.nano.benchmark.injection import INJECTABLE, faultless_reading, leaked, swapped
from newbie_image.nano.benchmark.intervals import share_of
from newbie_image.nano.benchmark.reading import Evaluator, PictureReading
from newbie_image.nano.world.render import render
from newbie_image.nano.world.scene import Scene, sample_scene

VALIDATION_SEED: Final = 1_400_000_000
"""Seeds of validation scenes; nothing else uses them."""
INJECTED_RATES: Final = (0.02, 0.1)
Change = Callable[[np.ndarray], np.ndarray]
"""Pictures (count, height, width, 3) uint8 → the same, changed."""


def validation_scenes(count: int) -> list[Scene]:
    """`count` scenes, in turn one to six people, attributes drawn independently. The list never changes."""
    return [sample_scene(VALIDATION_SEED + index, 1 + index % 6) for index in range(count)]


def blurred(pictures: np.ndarray) -> np.ndarray:
    """Pictures (count, height, width, 3) uint8 averaged over 3 × 3 pixels of a 128-pixel picture."""
    tensor = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    size = 1 + 2 * max(1, round(pictures.shape[1] / 128))
    soft = F.avg_pool2d(tensor, size, 1, size // 2, count_include_pad=False)
    return soft.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def read_condition(
    evaluator: Evaluator,
    scenes: Sequence[Scene],
    size: int,
    change: Change | None = None,
    *,
    asked: Sequence[Scene] | None = None,
    batch: int = 64,
    progress: Callable[[int], None] = lambda done: None,
) -> list[PictureReading]:
    """Readings of renders of `scenes`, changed, against what is asked for (the same scenes if left out)."""
    readings: list[PictureReading] = []
    wanted = scenes if asked is None else asked
    for start in range(0, len(scenes), batch):
        pictures = np.stack([render(scene, size) for scene in scenes[start : start + batch]])
        pictures = pictures if change is None else change(pictures)
        readings += evaluator.read(pictures, wanted[start : start + batch])
        progress(len(readings))
    return readings


def condition_json(readings: Sequence[PictureReading]) -> dict[str, Any]:
    """Figures in all and by people, and the confusion and error of every attribute by evaluator.

    The excess leakage of pictures that show what was asked says whether a neighbour biases the reading.
    """
    tables: dict[str, Any] = {"all": table(readings)}
    tables |= {str(count): found for count, found in table_by_people(readings).items()}
    attributes: dict[str, Any] = {}
    for evaluator, names in EVALUATORS.items():
        for name in names:
            counts = confusion(readings, evaluator, name)
            attributes.setdefault(evaluator, {})[name] = {
                "error": asdict(reader_error(counts)),
                "confusion": counts.tolist(),
            }
    return {
        "pictures": len(readings),
        "figures": {
            count: {name: {e: estimate_json(v) for e, v in by.items()} for name, by in found.items()}
            for count, found in tables.items()
        },
        "attributes": attributes,
    }


def injected_json(
    evaluator: Evaluator, scenes: Sequence[Scene], size: int, rate: float, sort: str, seed: int = 0
) -> dict[str, Any]:
    """A known rate of leaks or swaps, and what the evaluators say of it.

    Args:
        sort: `leak` or `swap`.

    Returns:
        evaluator → `true` (what a faultless reader finds), `read` and, for leaks, `corrected`, with
        intervals.
    """
    rng = random.Random(seed)
    put_in = leaked if sort == "leak" else swapped
    figure = excess_leakage if sort == "leak" else swapped_pairs
    shown = [put_in(scene, rate, rng) for scene in scenes]
    readings = read_condition(evaluator, shown, size, asked=scenes)
    truth = [faultless_reading(a, s) for a, s in zip(scenes, shown, strict=True)]
    honest = [faultless_reading(scene, scene) for scene in shown]
    as_shown = [_against(reading, own) for reading, own in zip(readings, honest, strict=True)]
    found: dict[str, Any] = {}
    for name, attributes in EVALUATORS.items():
        chosen = [attribute for attribute in INJECTABLE if attribute in attributes]
        read = share_of([figure(reading, name, chosen) for reading in readings])
        real = share_of([figure(reading, name, chosen) for reading in truth])
        found[name] = {"true": estimate_json(real), "read": estimate_json(read)}
        if sort == "leak":
            errors = [reader_error(confusion(as_shown, name, attribute)) for attribute in chosen]
            found[name]["corrected"] = estimate_json(corrected_leakage(read, mean_error(errors)))
        right = share_of([attributes_right(reading, name, chosen) for reading in readings])
        found[name]["right"] = estimate_json(right)
    return found


def _against(reading: PictureReading, shown: PictureReading) -> PictureReading:
    """The reading as if the picture had been asked for as it is shown."""
    people = tuple(
        type(person)(person.position, own.asked, person.found, person.placed, person.read, person.colours)
        for person, own in zip(reading.people, shown.people, strict=True)
    )
    return PictureReading(reading.found, people)


def validate(
    evaluator: Evaluator,
    count: int,
    size: int,
    changes: Mapping[str, Change],
    *,
    injected: int = 600,
    progress: Callable[[str, int], None] = lambda name, done: None,
) -> dict[str, Any]:
    """The whole validation.

    Args:
        count: held-out renders.
        size: pixels of their side.
        changes: condition → what is done to the renders besides looking at them as they are.
        injected: renders with two or more people for each rate and sort of mistake.
    """
    scenes = validation_scenes(count)
    conditions: dict[str, Any] = {}
    everything: dict[str, Change | None] = {"renders": None, "blurred": blurred, **changes}
    for name, change in everything.items():
        readings = read_condition(
            evaluator, scenes, size, change, progress=lambda done, name=name: progress(name, done)
        )
        conditions[name] = condition_json(readings)
    groups = [scene for scene in validation_scenes(injected * 2) if len(scene.characters) > 1][:injected]
    mistakes: dict[str, Any] = {}
    for sort in ("leak", "swap"):
        for rate in INJECTED_RATES:
            mistakes[f"{sort} {rate:g}"] = injected_json(evaluator, groups, size, rate, sort)
            progress(f"{sort} {rate:g}", len(groups))
    return {
        "evaluator_sha256": evaluator.sha256,
        "size": size,
        "conditions": conditions,
        "injected": mistakes,
    }


def write_validation(result: Mapping[str, Any], file: Path) -> None:
    """Writes a validation as JSON."""
    file.write_text(json.dumps(result, separators=(",", ":")) + "\n")
