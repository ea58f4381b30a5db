"""All runs of the binding benchmark on one large card, within a time, and packed into a few files.

    PYTHONPATH=src python benchmarks/binding_on_card.py --bundle bundles/nano --readers assets/readers \\
        --out "$OUT" --minutes 9
    PYTHONPATH=src python benchmarks/binding_on_card.py --unpack "$OUT" --to runs

The runs are done in the order of their weight, by processes that load the models once; what is not done when
the time is up is left out, and what is there is packed. Unpacking prints the commands that write the reports,
which need no card.
"""

from __future__ import annotations

import argparse
import io
import lzma
import multiprocessing
import os
import re
import shlex
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from newbie_image.nano.benchmark.prompt_sets import BenchmarkPrompt

PART = 15 * 2**20
PARTS = 4
"""Largest file, and the most of them."""
PACKING = 20.0
"""Seconds that packing may take."""
WEIGHED = "hair_color,hair_style,eye_color,expression,top,bottom,legwear,headwear,held,pose,gender,glasses"
SWEPT = (
    "xml,region,region:beta_minus=1,region:beta_minus=5,region:beta_minus=inf,region:beta_plus=0,"
    "region:beta_plus=0.7,region:window=0-0.4,region:window=0-0.6,region:window=0.2-0.7,region:layers=middle,"
    "full,full:apart=off,full:background=off,full:blind=off,sealed"
)


@dataclass(frozen=True)
class Asked:
    """One run, by the options of `newbie nano benchmark`."""

    out: str
    sets: str
    arms: str
    count: int = 961
    skip: int = 0
    people: str | None = None
    weights: str = ""
    keep: int = 12
    references: bool = False


OTHER = "encode,tags,sentence"
RUNS = (
    Asked("held", "held-out", "xml,region,text,full", references=True),
    Asked("reported", "seen", "xml,region,full,shuffled", skip=200, references=True),
    Asked("reported", "swapped", "xml,full", skip=200),
    Asked("reported", "unplaced", "xml,region", skip=200),
    Asked("weights", "seen", "text", 48, 40, people="2", weights=WEIGHED, keep=2),
    Asked("sweep", "seen", SWEPT, count=200),
    Asked("reported", "seen", f"text,{OTHER}", skip=200),
    Asked("held", "held-out", f"shuffled,{OTHER}"),
    Asked("others", "twins,interactions,equal", "xml,region,full", count=240),
    Asked("reported", "swapped,unplaced", "region,text,full", skip=200),
)
TINY = (
    Asked("held", "held-out", "xml,region", 6, keep=2, references=True),
    Asked("reported", "unplaced", "xml,region", 6, 200, keep=2),
    Asked("weights", "seen", "text", 2, 40, people="2", weights="glasses", keep=1),
)


def report_command(runs: Sequence[Asked]) -> str:
    """What writes the report of the runs of one folder."""
    first = runs[0]
    sets, arms = (
        ",".join(dict.fromkeys(name for run in runs for name in getattr(run, words).split(",")))
        for words in ("sets", "arms")
    )
    words = ["--set", sets, "--arms", arms, "--count", str(first.count), "--out", first.out]
    words += ["--skip", str(first.skip)] if first.skip else []
    words += ["--people", first.people] if first.people else []
    words += ["--weights", first.weights] if first.weights else []
    return shlex.join(["newbie", "nano", "benchmark", *words, "--report-only"])


class Clock:
    """Says how much of the time is left.

    Args:
        minutes: in all.
    """

    def __init__(self, minutes: float) -> None:
        self._began, self._seconds = time.monotonic(), 60 * minutes

    def left(self, reserved: float = 0.0) -> float:
        """Seconds until only `reserved` ones are left."""
        return self._began + self._seconds - reserved - time.monotonic()

    def say(self, line: str) -> None:
        """A line with the seconds since the beginning."""
        print(f"{time.monotonic() - self._began:6.1f} s  {line}", flush=True)


def select(asked: Asked) -> tuple[list[BenchmarkPrompt], dict[str, str]]:
    """A run's prompts and the sha256 of their sets; making and checking them takes seconds."""
    from newbie_image.cli.nano_benchmark import read_people, select_prompts

    people = None if asked.people is None else read_people(asked.people)
    return select_prompts(asked.sets, people, asked.count, asked.skip)


def draw(clock: Clock, arguments: argparse.Namespace, work: Path) -> None:
    """Draws and reads run after run with one crew, until the time for packing has come."""
    from newbie_image.bundle import content_hash, find_bundle, read_settings
    from newbie_image.cli.nano_benchmark import read_doses
    from newbie_image.devices import choose_device
    from newbie_image.nano.benchmark.arms import read_arms
    from newbie_image.nano.benchmark.drawing import Sampling
    from newbie_image.nano.benchmark.reading import evaluator_sha256
    from newbie_image.nano.benchmark.run import Run, run_settings
    from newbie_image.nano.benchmark.run_folder import RunFolder
    from newbie_image.nano.benchmark.work import REFERENCES, Crew, Job, WorkerPlan

    sampling = Sampling(steps=arguments.steps, batch=4 if arguments.tiny else arguments.batch)
    model = find_bundle(arguments.bundle)
    dtype = str(choose_device().dtype).removeprefix("torch.")
    settings = run_settings(read_settings(model), content_hash(model), dtype, sampling)
    evaluator = evaluator_sha256(arguments.readers)
    owners: dict[int, Run] = {}
    asked_for = TINY if arguments.tiny else RUNS
    workers = 2 if arguments.tiny else arguments.workers
    context = multiprocessing.get_context("spawn")
    with (
        Crew(WorkerPlan(arguments.bundle, arguments.readers, sampling), workers) as crew,
        ProcessPoolExecutor(min(workers, len(asked_for)), mp_context=context) as selecting,
    ):
        crew.warm()
        selected = [selecting.submit(select, asked) for asked in asked_for]

        def jobs() -> Iterator[Job]:
            for asked, coming in zip(asked_for, selected, strict=True):
                prompts, hashes = coming.result()
                arms = read_arms(asked.arms)
                if asked.weights:
                    arms = read_doses(asked.weights, arms)
                folder = RunFolder(work / asked.out, settings)
                folder.add_sets(hashes)
                arms = [*(REFERENCES if asked.references else ()), *arms]
                run = Run(folder, arms, prompts, evaluator, sampling.batch, asked.keep)
                _, todo = run.begin()
                clock.say(f"{asked.out}: {asked.sets} with {len(arms)} arms, {len(todo)} jobs")
                for job in todo:
                    owners[id(job)] = run
                    yield job

        pictures, last = 0, time.monotonic()
        for job, made in crew(jobs()):
            owners.pop(id(job)).take(job, made)
            pictures += len(job.prompts)
            if time.monotonic() - last > 5:
                last = time.monotonic()
                clock.say(f"{pictures} pictures; {job.folder.name} {job.arm.name}")
            if clock.left(PACKING) <= 0:
                clock.say("the time for drawing is up")
                crew.stop()
                break
        clock.say(f"{pictures} pictures drawn and read")


def measure(arguments: argparse.Namespace) -> None:
    """The runs, and what is packed of them."""
    clock = Clock(arguments.minutes)
    work = Path(tempfile.mkdtemp(prefix="binding-")) if arguments.work is None else arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    arguments.readers = arguments.readers.resolve()
    arguments.bundle = str(Path(arguments.bundle).resolve())
    by_folder: dict[str, list[Asked]] = {}
    for asked in TINY if arguments.tiny else RUNS:
        by_folder.setdefault(asked.out, []).append(asked)
    commands = [report_command(runs) for runs in by_folder.values()]
    (work / "commands.txt").write_text("".join(f"{line}\n" for line in commands))
    try:
        draw(clock, arguments, work)
    finally:  # what is there comes home, whatever happened
        left_out = pack(work, arguments.out)
        for name, files in left_out.items():
            clock.say(f"{name}: {files} pictures did not fit")
        clock.say(f"packed into {arguments.out}")


def pack(work: Path, out: Path, part: int = PART, parts: int = PARTS) -> dict[str, int]:
    """Packs run folders into `binding-00`, `binding-01`, …: lines first, then pictures as far as there is
    room.

    Returns:
        run folder → pictures that did not fit.
    """
    out.mkdir(parents=True, exist_ok=True)
    runs = sorted(path for path in work.iterdir() if (path / "run.json").exists())
    files = [work / "commands.txt"]
    for run in runs:
        files += [run / "run.json", *sorted(run.glob("*.jsonl"))]
    pictures = [path for run in runs for path in sorted(run.glob("pictures/*/*.png"))]
    left_out: dict[str, int] = {}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        content = _Parts(out, part, parts)
        with tarfile.open(fileobj=content, mode="w|") as tar:
            for path, (name, data) in zip(files, threads.map(_packed, files), strict=True):
                _add(tar, str(path.relative_to(work).with_name(name)), data)
            room = part * parts - content.tell() - 2**20
            for path in pictures:
                size = path.stat().st_size + 1024
                run = path.relative_to(work).parts[0]
                if size > room:
                    left_out[run] = left_out.get(run, 0) + 1
                    continue
                room -= size
                _add(tar, str(path.relative_to(work)), path.read_bytes())
        content.close()
    return left_out


def _packed(path: Path) -> tuple[str, bytes]:
    """A file's name and content as they are packed: lines compressed."""
    if path.suffix == ".jsonl":
        return f"{path.name}.xz", lzma.compress(path.read_bytes(), preset=3)
    return path.name, path.read_bytes()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    about = tarfile.TarInfo(name)
    about.size = len(data)
    tar.addfile(about, io.BytesIO(data))


class _Parts(io.RawIOBase):
    """Writes into one file after the other.

    Raises:
        OSError: more is written than the files take.
    """

    def __init__(self, folder: Path, size: int, count: int) -> None:
        self._folder, self._size, self._count, self._written = folder, size, count, 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: bytes, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        left = memoryview(data)
        while len(left):
            number, there = divmod(self._written, self._size)
            if number >= self._count:
                raise OSError(f"more than {self._count} files of {self._size} bytes")
            now = left[: self._size - there]
            with (self._folder / f"binding-{number:02}").open("ab" if there else "wb") as file:
                file.write(now)
            self._written += len(now)
            left = left[len(now) :]
        return len(data)


def unpack(out: Path, to: Path) -> None:
    """Restores the run folders of :func:`pack`, and prints what writes their reports."""
    whole = b"".join(path.read_bytes() for path in sorted(out.glob("binding-[0-9][0-9]")))
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        tar.extractall(to, filter="data")
    for path in to.glob("*/*.jsonl.xz"):
        path.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
        path.unlink()
    for line in (to / "commands.txt").read_text().splitlines():
        print(re.sub(r"--out (\S+)", lambda name: shlex.join(["--out", str(to / name[1])]), line))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", default="bundles/nano")
    parser.add_argument("--readers", type=Path, default=Path("assets/readers"))
    parser.add_argument("--out", type=Path, help="folder of the packed files")
    parser.add_argument("--minutes", type=float, default=9.0, help="in all, packing included")
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, help="the bundle's if left out")
    parser.add_argument("--work", type=Path, help="folder of the runs; goes on there; a new one if left out")
    parser.add_argument("--tiny", action="store_true", help="a few prompts, to try it on a CPU")
    parser.add_argument("--unpack", type=Path, help="folder of packed files to restore")
    parser.add_argument("--to", type=Path, help="where to")
    arguments = parser.parse_args()
    if arguments.unpack is not None:
        if arguments.to is None:
            parser.error("--unpack needs --to")
        unpack(arguments.unpack, arguments.to)
    elif arguments.out is None:
        parser.error("give --out")
    else:
        measure(arguments)


if __name__ == "__main__":
    main()
