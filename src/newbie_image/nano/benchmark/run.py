"""One run of the benchmark: draw and read what is missing. Everything that happens is an event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from newbie_image.bundle import BundleSettings
from newbie_image.nano.benchmark.arms import Arm, unavailable
from newbie_image.nano.benchmark.drawing import Sampling
from newbie_image.nano.benchmark.prompt_sets import BenchmarkPrompt
from newbie_image.nano.benchmark.run_folder import RunFolder
from newbie_image.nano.benchmark.work import REFERENCES, Hands, Job, Made

ALIKE: Final = 6
"""Batches of prompts that are put in order of their number of people together: texts are as long as the
longest of their batch, and a run that is stopped still has all numbers of people."""


@dataclass(frozen=True)
class Skipped:
    """An arm that cannot be drawn on a set of prompts, and why."""

    arm: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Done:
    """Pictures of an arm that are drawn and read: how many, of how many."""

    arm: str
    done: int
    total: int


RunEvent = Skipped | Done


def run_settings(
    settings: BundleSettings, content_hash: str, dtype: str, sampling: Sampling
) -> dict[str, Any]:
    """What a run's pictures are made with, as plain values: two runs with the same draw the same.

    Args:
        settings, content_hash: of the bundle.
        dtype: of the transformer, as torch names it (`bfloat16`).
        sampling: what it leaves open is the bundle's.
    """
    defaults = settings.defaults
    return {
        "model": settings.name,
        "model_sha256": content_hash,
        "dtype": dtype,
        "size": [defaults.width, defaults.height],
        "steps": sampling.steps or defaults.steps,
        "guidance_scale": defaults.guidance_scale if sampling.guidance is None else sampling.guidance,
        "shift": defaults.shift if sampling.shift is None else sampling.shift,
        "sampler": sampling.sampler or defaults.sampler,
    }


@dataclass
class Run:
    """What one run asks for, and how far it is.

    Args:
        folder: of the run.
        arms, prompts: what is drawn.
        evaluator: sha256 of who reads.
        batch: prompts in a job.
        keep: prompts of each set, from its first one, whose pictures are kept; None for all.
    """

    folder: RunFolder
    arms: Sequence[Arm]
    prompts: Sequence[BenchmarkPrompt]
    evaluator: str
    batch: int = 16
    keep: int | None = None
    _done: Counter[str] = field(default_factory=Counter, init=False)
    _total: Counter[str] = field(default_factory=Counter, init=False)

    def begin(self) -> tuple[list[RunEvent], list[Job]]:
        """Notes the arms in the folder, and says what is there, what is skipped, and the jobs that are left.

        An arm that cannot be drawn on a set is skipped, and the folder says why.

        Raises:
            ConfigError: the folder has another arm of the same name.
        """
        events: list[RunEvent] = []
        jobs: list[Job] = []
        lines, there, read = self.folder.lines(), self.folder.pictures(), self.folder.read_by(self.evaluator)
        kept = self._kept()
        for arm in self.arms:
            wanted: list[BenchmarkPrompt] = []
            for kind in dict.fromkeys(prompt.kind for prompt in self.prompts):
                reason = None if arm in REFERENCES else unavailable(arm, kind)
                self.folder.set_skipped(arm.name, kind, reason)
                if reason is not None:
                    events.append(Skipped(arm.name, kind, reason))
                else:
                    wanted += [prompt for prompt in self.prompts if prompt.kind == kind]
            if not wanted:
                continue
            self.folder.add_arm(arm)
            unread: list[BenchmarkPrompt] = []
            missing: list[BenchmarkPrompt] = []
            for prompt in wanted:
                pair = (arm.name, prompt.key)
                line = lines.get(pair)
                lost = line is None or (line.file is not None and prompt.key in kept and pair not in there)
                if lost or pair not in read:
                    (unread if pair in there else missing).append(prompt)
            self._total[arm.name] = len(wanted)
            self._done[arm.name] = len(wanted) - len(unread) - len(missing)
            events.append(self._event(arm.name))
            for prompts, drawn in ((unread, True), (missing, False)):
                jobs += [
                    Job(self.folder.folder, arm, part, kept, drawn) for part in chunks(prompts, self.batch)
                ]
        return events, jobs

    def take(self, job: Job, made: Made) -> RunEvent:
        """Writes down what a job made."""
        self.folder.add(made.pictures, made.readings)
        self._done[job.arm.name] += len(job.prompts)
        return self._event(job.arm.name)

    def _event(self, arm: str) -> Done:
        return Done(arm, self._done[arm], self._total[arm])

    def _kept(self) -> frozenset[str]:
        by_kind: dict[str, list[str]] = {}
        for prompt in self.prompts:
            by_kind.setdefault(prompt.kind, []).append(prompt.key)
        return frozenset(key for keys in by_kind.values() for key in keys[: self.keep])


def chunks(prompts: Sequence[BenchmarkPrompt], batch: int) -> Iterator[tuple[BenchmarkPrompt, ...]]:
    """Prompts in batches, those of about as many people together."""
    for start in range(0, len(prompts), ALIKE * batch):
        block = sorted(prompts[start : start + ALIKE * batch], key=lambda prompt: prompt.people)
        for first in range(0, len(block), batch):
            yield tuple(block[first : first + batch])


def run(asked: Run, hands: Hands) -> Iterator[RunEvent]:
    """Draws and reads; stop it at any time and call it again."""
    events, jobs = asked.begin()
    yield from events
    for job, made in hands(jobs):
        yield asked.take(job, made)
