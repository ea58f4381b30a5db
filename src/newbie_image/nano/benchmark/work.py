"""The work of a run in jobs, each a few prompts of one arm: draw, keep, read. One process does them, or
several that share the device."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
import torch

from newbie_image.devices import choose_device
from newbie_image.errors import NewbieError
from newbie_image.nano.benchmark.arms import Arm
from newbie_image.nano.benchmark.drawing import Sampling, cut_off, draw, prompt_text
from newbie_image.nano.benchmark.guards import describe, look_of, seam_ratio
from newbie_image.nano.benchmark.prompt_sets import BenchmarkPrompt
from newbie_image.nano.benchmark.reading import Evaluator, load_evaluator
from newbie_image.nano.benchmark.run_folder import PictureLine, ReadingLine, load_picture, write_picture
from newbie_image.nano.evaluate import round_trip
from newbie_image.nano.world.render import render
from newbie_image.pipeline import NewbiePipeline

Draw = Callable[[Arm, Sequence[BenchmarkPrompt]], np.ndarray]
"""An arm and prompts → pictures (prompts, height, width, 3) uint8."""

RENDERS: Final = Arm("renders", words="the world's own pictures of the prompts: what the readers miss")
ROUND_TRIP: Final = Arm("round_trip", words="and through the autoencoder: what it loses")
REFERENCES: Final = (RENDERS, ROUND_TRIP)
QUEUED: Final = 2
"""Jobs that wait for each worker, so that none has to wait for its next one."""


@dataclass(frozen=True)
class Job:
    """Pictures of one arm to make.

    Args:
        folder: of the run.
        arm, prompts: what is drawn.
        keep: keys of the prompts whose picture is written.
        drawn: whether the pictures are in the folder already and are only read.
    """

    folder: Path
    arm: Arm
    prompts: tuple[BenchmarkPrompt, ...]
    keep: frozenset[str]
    drawn: bool = False


@dataclass(frozen=True)
class Made:
    """What a job gives: the lines of its pictures (none where they were there) and of its readings."""

    pictures: tuple[PictureLine, ...]
    readings: tuple[ReadingLine, ...]


Hands = Callable[[Iterable[Job]], Iterator[tuple[Job, Made]]]
"""Does jobs, in any order, and gives each back with what it made."""


@dataclass(frozen=True)
class Worker:
    """Does a job.

    Args:
        drawing: draws.
        evaluator: reads.
        is_cut: whether the end of a text does not fit.
    """

    drawing: Draw
    evaluator: Evaluator
    is_cut: Callable[[str], bool] = lambda text: False

    def __call__(self, job: Job) -> Made:
        lines: list[PictureLine] = []
        if job.drawn:
            files = [job.folder / picture_file(job.arm, prompt) for prompt in job.prompts]
            pictures = np.stack([load_picture(file) for file in files])
        else:
            pictures = self.drawing(job.arm, job.prompts)
            for prompt, picture in zip(job.prompts, pictures, strict=True):
                lines.append(self._line(job, prompt))
                if prompt.key in job.keep:
                    write_picture(job.folder / picture_file(job.arm, prompt), picture)
        scenes = [prompt.scene for prompt in job.prompts]
        placed = [prompt.says_where(job.arm.form) for prompt in job.prompts]
        readings = [
            ReadingLine(
                job.arm.name, prompt.key, self.evaluator.sha256, seam_ratio(picture, prompt.scene), read, look
            )
            for prompt, picture, read, look in zip(
                job.prompts,
                pictures,
                self.evaluator.read(pictures, scenes, placed=placed),
                map(look_of, describe(pictures)),
                strict=True,
            )
        ]
        return Made(tuple(lines), tuple(readings))

    def _line(self, job: Job, prompt: BenchmarkPrompt) -> PictureLine:
        text = prompt_text(job.arm, prompt)
        file = picture_file(job.arm, prompt) if prompt.key in job.keep else None
        cut = job.arm not in REFERENCES and self.is_cut(text)
        return PictureLine(job.arm.name, prompt.key, file, text, prompt.noise_seed, cut)


def picture_file(arm: Arm, prompt: BenchmarkPrompt) -> str:
    """A picture's place in a run's folder."""
    return f"pictures/{arm.name}/{prompt.key}.png"


def in_this_process(worker: Callable[[Job], Made]) -> Hands:
    """Does one job after the other."""
    return lambda jobs: ((job, worker(job)) for job in jobs)


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


@dataclass(frozen=True)
class WorkerPlan:
    """What a worker is made of: a bundle, the readers' folder, and how pictures are sampled."""

    bundle: str
    readers: Path
    sampling: Sampling

    def load(self) -> Worker:
        """The worker, on the best device that there is."""
        evaluator = load_evaluator(self.readers)
        choice = choose_device()
        pipeline = NewbiePipeline.from_pretrained(self.bundle).to(choice.device, choice.dtype)
        return Worker(
            pipeline_draw(pipeline, self.sampling),
            evaluator.to(choice.device),
            lambda text: cut_off(pipeline, text),
        )


class Crew:
    """Workers that do jobs; they load the models with their first job. A context manager: at its end they
    end, those at work when their job is done.

    Args:
        plan: what each is made of.
        workers: how many processes; 1 is this one.
    """

    def __init__(self, plan: WorkerPlan, workers: int = 1) -> None:
        self._plan, self._workers = plan, workers
        self._worker: Worker | None = None
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __call__(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Made]]:
        """Each job with what it made, as they are done.

        Raises:
            NewbieError: a worker ended before its job was done; whatever a job itself raises.
        """
        if self._workers == 1:
            return in_this_process(self._do_here)(jobs)
        return self._do_there(iter(jobs))

    def warm(self) -> None:
        """Lets the processes begin to load, while the caller still makes up its jobs."""
        if self._workers > 1:
            for _ in range(self._workers):
                self._start().submit(_load)

    def stop(self) -> None:
        """Ends the processes at once; what their jobs made is lost."""
        if self._pool is not None:
            for process in list(self._pool._processes.values()):
                process.terminate()

    def _do_here(self, job: Job) -> Made:
        if self._worker is None:
            self._worker = self._plan.load()
        return self._worker(job)

    def _do_there(self, jobs: Iterator[Job]) -> Iterator[tuple[Job, Made]]:
        waiting: dict[Future[Made], Job] = {}
        try:
            while True:
                while len(waiting) < self._workers * (1 + QUEUED):
                    job = next(jobs, None)
                    if job is None:
                        break
                    waiting[self._start().submit(_do, job)] = job
                if not waiting:
                    return
                for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(done), done.result()
        except BrokenProcessPool:
            raise NewbieError(
                "a worker ended before its work was done (killed, or out of memory?); call again to go on, "
                "with fewer --workers"
            ) from None
        finally:
            for future in waiting:
                future.cancel()

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None:
            for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
                os.environ.setdefault(name, "1")  # for the processes that are started now
            self._pool = ProcessPoolExecutor(
                self._workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(self._plan,),
            )
        return self._pool


_plan: WorkerPlan | None = None
_worker: Worker | None = None


def _begin(plan: WorkerPlan) -> None:
    global _plan
    _plan = plan
    # Ctrl-C is for the parent, which lets jobs end; and a worker without a parent has nothing to live for.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _load() -> None:
    global _worker
    if _worker is None:
        assert _plan is not None
        _worker = _plan.load()


def _do(job: Job) -> Made:
    _load()
    assert _worker is not None
    return _worker(job)
