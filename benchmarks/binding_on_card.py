"""All runs of the binding benchmark on one large card, within a time, and packed into a few files.

    PYTHONPATH=src python benchmarks/binding_on_card.py --bundle bundles/nano --readers assets/readers \\
        --out "$OUT" --minutes 9
    PYTHONPATH=src python benchmarks/binding_on_card.py --unpack "$OUT" --to runs

The runs are done in the order of their weight, by processes that load the models once; what is not done when
the time is up is left out, and what is there is packed. Unpacked, `newbie nano benchmark` with the arguments
of a run (`commands.txt`) finds it as it was.
"""

from __future__ import annotations

import argparse
import io
import lzma
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

PART = 15 * 2**20
PARTS = 5
"""Largest file, and the most of them."""
PACKING = 20.0
"""Seconds that packing may take."""
REPORTING = 60.0
"""Seconds at the end in which reports are written."""
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

    def arguments(self) -> list[str]:
        """Options of the command."""
        words = ["--set", self.sets, "--arms", self.arms, "--count", str(self.count), "--out", self.out]
        words += ["--skip", str(self.skip)] if self.skip else []
        words += ["--people", self.people] if self.people else []
        words += ["--weights", self.weights] if self.weights else []
        return [*words, "--keep", str(self.keep)]


RUNS = (
    Asked("held", "held-out", "xml,region,text,full,encode,shuffled,tags,sentence"),
    Asked("reported", "seen,swapped", "xml,region,full", skip=200),
    Asked("reported", "seen", "text,encode,shuffled,tags,sentence", skip=200),
    Asked("reported", "unplaced", "xml,region,full", skip=200),
    Asked("sweep", "seen", SWEPT, count=200),
    Asked("weights", "seen", "text", 48, 40, people="2", weights=WEIGHED, keep=2),
    Asked("others", "twins,interactions,equal", "xml,region,text", count=240),
)
TINY = (
    Asked("held", "held-out", "xml,region", count=6, keep=2),
    Asked("reported", "seen,swapped", "xml,region", 6, 200, keep=2),
    Asked("reported", "seen", "text", 6, 200, keep=2),
    Asked("weights", "seen", "text", 2, 40, people="2", weights="glasses", keep=1),
)
REPORTS = {
    "reported": Asked(
        "reported",
        "seen,swapped,unplaced",
        "xml,region,full,text,encode,shuffled,tags,sentence",
        skip=200,
    ),
}
"""How a folder of several runs is reported; others as they were drawn."""


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


def reported_as(asked: Asked, tiny: bool) -> Asked:
    """The run by which the folder of a run is reported."""
    if not tiny and asked.out in REPORTS:
        return REPORTS[asked.out]
    if tiny and asked.out == "reported":
        return replace(asked, sets="seen,swapped", arms="xml,region,text")
    return asked


def draw(clock: Clock, arguments: argparse.Namespace, work: Path, until: float) -> Iterator[Asked]:
    """Draws and reads run after run with one crew, and gives each run that is done, until `until` seconds are
    left."""
    from newbie_image.bundle import content_hash, find_bundle, read_settings
    from newbie_image.cli.nano_benchmark import read_doses, read_people, select_prompts
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
    owners: dict[int, tuple[Asked, Run]] = {}

    def jobs() -> Iterator[Job]:
        for asked in TINY if arguments.tiny else RUNS:
            arms = read_arms(asked.arms)
            arms += read_doses(asked.weights, arms)
            people = None if asked.people is None else read_people(asked.people)
            prompts, hashes = select_prompts(asked.sets, people, asked.count, asked.skip)
            folder = RunFolder(work / asked.out, settings)
            folder.add_sets(hashes)
            if asked.weights:
                arms = arms[1:]  # the arm itself is the one with weight 1
            run = Run(folder, [*REFERENCES, *arms], prompts, evaluator, sampling.batch, asked.keep)
            _, todo = run.begin()
            clock.say(f"{asked.out}: {asked.sets} with {len(arms)} arms, {len(todo)} jobs")
            for job in todo:
                owners[id(job)] = asked, run
                yield job

    pictures, last, order = 0, time.monotonic(), list(TINY if arguments.tiny else RUNS)
    workers = 2 if arguments.tiny else arguments.workers
    with Crew(WorkerPlan(arguments.bundle, arguments.readers, sampling), workers) as crew:
        crew.warm()
        for job, made in crew(jobs()):
            asked, run = owners.pop(id(job))
            run.take(job, made)
            pictures += len(job.prompts)
            if time.monotonic() - last > 5:
                last = time.monotonic()
                clock.say(f"{pictures} pictures; {asked.out} {job.arm.name}")
            busy = {id(each) for each, _ in owners.values()}
            while order and order[0] is not asked and id(order[0]) not in busy:
                yield order.pop(0)
            if clock.left(until) <= 0:
                clock.say("the time for drawing is up")
                crew.stop()
                break
    clock.say(f"{pictures} pictures drawn and read")
    yield from order


def report(arguments: argparse.Namespace, work: Path, asked: Asked) -> subprocess.Popen[bytes]:
    """Begins to write the report of a run's folder, in a process of its own."""
    words = [*asked.arguments(), "--readers", str(arguments.readers.resolve()), "--report-only"]
    code = "import sys; from newbie_image.cli.main import main; sys.exit(main())"
    with (work / f"{asked.out}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", code, "nano", "benchmark", *words],
            cwd=work,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )


def measure(arguments: argparse.Namespace) -> None:
    """The runs, their reports, and what is packed of them."""
    clock = Clock(arguments.minutes)
    work = Path(tempfile.mkdtemp(prefix="binding-")) if arguments.work is None else arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    arguments.readers = arguments.readers.resolve()
    arguments.bundle = str(Path(arguments.bundle).resolve())
    writing: dict[str, subprocess.Popen[bytes]] = {}
    commands: dict[str, str] = {}
    try:
        for asked in draw(clock, arguments, work, PACKING + REPORTING):
            whole = reported_as(asked, arguments.tiny)
            last = [each for each in (TINY if arguments.tiny else RUNS) if each.out == asked.out][-1] is asked
            commands[asked.out] = "newbie nano benchmark " + shlex.join(whole.arguments())
            if last and (work / asked.out / "readings.jsonl").exists():
                writing[asked.out] = report(arguments, work, whole)
        for name, process in writing.items():
            try:
                process.wait(max(0.1, clock.left(PACKING)))
                clock.say(f"report of {name}: {process.returncode}")
            except subprocess.TimeoutExpired:
                clock.say(f"report of {name}: not done in time")
    except Exception as error:
        clock.say(f"stopped: {type(error).__name__}: {error}")
    finally:
        for process in writing.values():
            if process.poll() is None:
                process.terminate()
        (work / "commands.txt").write_text("".join(f"{line}\n" for line in commands.values()))
        left_out = pack(work, arguments.out)
        for name, files in left_out.items():
            clock.say(f"{name}: {files} pictures did not fit")
        clock.say(f"packed into {arguments.out}")


def pack(work: Path, out: Path, part: int = PART, parts: int = PARTS) -> dict[str, int]:
    """Packs run folders into `binding-00`, `binding-01`, …: lines and reports first, then pictures as far as
    there is room.

    Returns:
        run folder → pictures that did not fit.
    """
    out.mkdir(parents=True, exist_ok=True)
    runs = sorted(path for path in work.iterdir() if (path / "run.json").exists())
    files = [path for path in sorted(work.iterdir()) if path.suffix in (".txt", ".log")]
    for run in runs:
        files += [path for path in sorted(run.iterdir()) if path.suffix in (".json", ".md", ".svg")]
        files += sorted(run.glob("*.jsonl"))
    files += [path for run in runs for path in sorted(run.glob("*-sheet.png"))]
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
    """A file's name and content as they are packed: lines compressed, sheets with 256 colours."""
    from PIL import Image

    if path.suffix == ".jsonl":
        return f"{path.name}.xz", lzma.compress(path.read_bytes(), preset=3)
    if path.suffix == ".png":
        with Image.open(path) as sheet:
            small = io.BytesIO()
            sheet.convert("RGB").quantize(256).save(small, format="PNG")
        return path.name, small.getvalue()
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
    """Restores the run folders of :func:`pack`."""
    whole = b"".join(path.read_bytes() for path in sorted(out.glob("binding-[0-9][0-9]")))
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        tar.extractall(to, filter="data")
    for path in to.glob("*/*.jsonl.xz"):
        path.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
        path.unlink()


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
