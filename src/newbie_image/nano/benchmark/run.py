"""One run of the benchmark: draw what is missing, read what is not read yet. Everything that happens is an
event."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from newbie_image.nano.benchmark.arms import Arm, unavailable
from newbie_image.nano.benchmark.drawing import Sampling, cut_off, draw, prompt_text
from newbie_image.nano.benchmark.guards import seam_ratio
from newbie_image.nano.benchmark.prompt_sets import BenchmarkPrompt
from newbie_image.nano.benchmark.reading import Evaluator
from newbie_image.nano.benchmark.run_folder import PictureLine, ReadingLine, RunFolder
from newbie_image.nano.evaluate import round_trip
from newbie_image.nano.world.render import render
from newbie_image.pipeline import NewbiePipeline

Draw = Callable[[Arm, Sequence[BenchmarkPrompt]], np.ndarray]
"""An arm and prompts → pictures (prompts, height, width, 3) uint8."""

RENDERS: Final = Arm("renders", words="the world's own pictures of the prompts: what the readers miss")
ROUND_TRIP: Final = Arm("round_trip", words="and through the autoencoder: what it loses")
REFERENCES: Final = (RENDERS, ROUND_TRIP)


@dataclass(frozen=True)
class Skipped:
    """An arm that cannot be drawn on a set of prompts, and why."""

    arm: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Drawn:
    """Pictures of an arm: how many are there, of how many."""

    arm: str
    done: int
    total: int


@dataclass(frozen=True)
class Read:
    """Readings: how many are there, of how many."""

    done: int
    total: int


RunEvent = Skipped | Drawn | Read


def pipeline_draw(pipeline: NewbiePipeline, sampling: Sampling) -> Draw:
    """Draws with a pipeline; the two reference arms with the world's renderer and the pipeline's
    autoencoder."""
    size = pipeline.settings.defaults.width

    def drawing(arm: Arm, prompts: Sequence[BenchmarkPrompt]) -> np.ndarray:
        if arm not in REFERENCES:
            return draw(pipeline, arm, prompts, sampling)
        pictures = np.stack([render(prompt.scene, size) for prompt in prompts])
        return pictures if arm == RENDERS else round_trip(pipeline, pictures)

    return drawing


def run_settings(pipeline: NewbiePipeline, sampling: Sampling) -> dict[str, Any]:
    """What a run's pictures are made with, as plain values: two runs with the same draw the same."""
    defaults = pipeline.settings.defaults
    return {
        "model": pipeline.settings.name,
        "model_sha256": pipeline.content_hash,
        "dtype": str(pipeline.transformer.dtype).removeprefix("torch."),
        "size": [defaults.width, defaults.height],
        "steps": sampling.steps or defaults.steps,
        "guidance_scale": defaults.guidance_scale if sampling.guidance is None else sampling.guidance,
        "shift": defaults.shift if sampling.shift is None else sampling.shift,
        "sampler": sampling.sampler or defaults.sampler,
    }


def draw_missing(
    folder: RunFolder,
    drawing: Draw,
    arms: Sequence[Arm],
    prompts: Sequence[BenchmarkPrompt],
    *,
    batch: int = 8,
    is_cut: Callable[[str], bool] = lambda text: False,
) -> Iterator[RunEvent]:
    """Draws the pictures that the folder does not have, arm by arm, and says how far it is.

    An arm that cannot be drawn on a set is skipped, and the folder says why.

    Raises:
        ConfigError: the folder has another arm of the same name.
    """
    for arm in arms:
        wanted: list[BenchmarkPrompt] = []
        for kind in dict.fromkeys(prompt.kind for prompt in prompts):
            reason = None if arm in REFERENCES else unavailable(arm, kind)
            folder.set_skipped(arm.name, kind, reason)
            if reason is not None:
                yield Skipped(arm.name, kind, reason)
            else:
                wanted += [prompt for prompt in prompts if prompt.kind == kind]
        if not wanted:
            continue
        folder.add_arm(arm)
        there = folder.pictures()
        missing = [prompt for prompt in wanted if (arm.name, prompt.key) not in there]
        done = len(wanted) - len(missing)
        yield Drawn(arm.name, done, len(wanted))
        for start in range(0, len(missing), batch):
            part = missing[start : start + batch]
            for prompt, picture in zip(part, drawing(arm, part), strict=True):
                text = prompt_text(arm, prompt)
                file = str(Path("pictures") / arm.name / f"{prompt.key}.png")
                cut = arm not in REFERENCES and is_cut(text)
                line = PictureLine(arm.name, prompt.key, file, text, prompt.noise_seed, cut)
                folder.add_picture(line, picture)
            done += len(part)
            yield Drawn(arm.name, done, len(wanted))


def read_missing(
    folder: RunFolder, evaluator: Evaluator, prompts: Sequence[BenchmarkPrompt], batch: int = 32
) -> Iterator[RunEvent]:
    """Reads the pictures of these prompts that this evaluator has not read yet."""
    by_key: Mapping[str, BenchmarkPrompt] = {prompt.key: prompt for prompt in prompts}
    pictures = [line for line in folder.pictures().values() if line.key in by_key]
    there = folder.readings(evaluator.sha256)
    missing = [line for line in pictures if (line.arm, line.key) not in there]
    done = len(pictures) - len(missing)
    for start in range(0, len(missing), batch):
        part = missing[start : start + batch]
        scenes = [by_key[line.key].scene for line in part]
        loaded = folder.load(part)
        for line, picture, scene, reading in zip(
            part, loaded, scenes, evaluator.read(loaded, scenes), strict=True
        ):
            seam = seam_ratio(picture, scene)
            folder.add_reading(ReadingLine(line.arm, line.key, evaluator.sha256, seam, reading))
        done += len(part)
        yield Read(done, len(pictures))


def run(
    folder: RunFolder,
    pipeline: NewbiePipeline,
    evaluator: Evaluator,
    arms: Sequence[Arm],
    prompts: Sequence[BenchmarkPrompt],
    sampling: Sampling,
) -> Iterator[RunEvent]:
    """Draws and reads; stop it at any time and call it again."""
    yield from draw_missing(
        folder,
        pipeline_draw(pipeline, sampling),
        arms,
        prompts,
        batch=sampling.batch,
        is_cut=lambda text: cut_off(pipeline, text),
    )
    yield from read_missing(folder, evaluator, prompts)
