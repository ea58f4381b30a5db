"""`newbie nano benchmark` and `newbie nano validate`: does each character get its own attributes, and can the
readers be believed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newbie_image.errors import ConfigError, RequestError

if TYPE_CHECKING:
    import numpy as np

    from newbie_image.nano.benchmark.arms import Arm
    from newbie_image.nano.benchmark.prompt_sets import BenchmarkPrompt
    from newbie_image.nano.benchmark.run import RunEvent

ReadersOption = Annotated[Path, typer.Option(help="Folder of the trained readers and the detector.")]


def read_people(text: str) -> list[int]:
    """Numbers of people as `1-3` or `2,4`.

    Raises:
        RequestError: anything else.
    """
    people: list[int] = []
    for part in text.split(","):
        low, _, high = part.strip().partition("-")
        try:
            first, last = int(low), int(high or low)
        except ValueError:
            raise RequestError(f"people {text!r} is misshapen; write 1 to 6, as 2, 1-3 or 2,4") from None
        if not 1 <= first <= last <= 6:
            raise RequestError(f"people {text!r} is not allowed; write 1 to 6, as 2, 1-3 or 2,4")
        people += range(first, last + 1)
    return sorted(set(people))


def read_doses(text: str, arms: Sequence[Arm]) -> list[Arm]:
    """`hair_color,top` as arms that weigh each attribute, on the last arm given.

    Raises:
        RequestError: an attribute that there is not.
    """
    from newbie_image.nano.benchmark.arms import dose_arms
    from newbie_image.nano.benchmark.dose_response import WEIGHTS
    from newbie_image.nano.world.attributes import CHARACTER_FIELDS

    found: list[Arm] = []
    for attribute in filter(None, (part.strip() for part in text.split(","))):
        if attribute not in CHARACTER_FIELDS:
            raise RequestError(
                f"unknown attribute {attribute!r} in --weights; choose from {', '.join(CHARACTER_FIELDS)}"
            )
        found += dose_arms(arms[-1], attribute, WEIGHTS)
    return found


def benchmark(
    arms: Annotated[
        str, typer.Option(help="What is compared: names apart by commas, parameters as NAME:KEY=VALUE.")
    ] = "tags,sentence,xml",
    sets: Annotated[
        str,
        typer.Option(
            "--set",
            help="seen, held-out, twins, interactions, swapped, unplaced, equal; several apart by commas.",
        ),
    ] = "seen",
    people: Annotated[
        str | None, typer.Option(help="Numbers of people, as 1-3 or 2,4; all of a set if left out.")
    ] = None,
    count: Annotated[int, typer.Option(help="Prompts of each set: 200 to sweep, 961 to report.")] = 200,
    skip: Annotated[int, typer.Option(help="Prompts of each set to leave out first, as a sweep's.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of pictures, readings and report; goes on there.")] = Path(
        "binding"
    ),
    bundle: Annotated[str, typer.Option(help="Bundle to draw with: a name or a folder.")] = "nano",
    readers: ReadersOption = Path("assets/readers"),
    weights: Annotated[
        str, typer.Option(help="Attributes to weigh from 0 to 3 with the last arm, apart by commas.")
    ] = "",
    references: Annotated[
        bool, typer.Option(help="Also read the world's own pictures and their round trip.")
    ] = True,
    training_renders: Annotated[
        Path | None, typer.Option(help="Folder `renders` of the training, to look for copies.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps; the bundle's default if left out.")] = None,
    guidance: Annotated[float | None, typer.Option("--cfg", help="Guidance scale.")] = None,
    shift: Annotated[float | None, typer.Option(help="Time shift.")] = None,
    sampler: Annotated[str | None, typer.Option(help="Solver.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=64, help="Pictures side by side.")] = 16,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that draw and read, all on the same device.")
    ] = 1,
    keep: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Prompts of each set whose pictures are kept, from its first one; all if left out. "
            "Sheets show 12.",
        ),
    ] = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Draw nothing; write the report of what is there.")
    ] = False,
) -> None:
    """Measure binding on frozen prompts: draw, read, report. Stop it and call it again to go on."""
    from newbie_image.nano.benchmark.arms import read_arms

    chosen = read_arms(arms)
    chosen += read_doses(weights, chosen)
    numbers = None if people is None else read_people(people)
    prompts, hashes = select_prompts(sets, numbers, count, skip)

    from newbie_image.bundle import content_hash, find_bundle, read_settings
    from newbie_image.devices import choose_device
    from newbie_image.nano.benchmark.drawing import Sampling
    from newbie_image.nano.benchmark.reading import evaluator_sha256
    from newbie_image.nano.benchmark.report import write_report
    from newbie_image.nano.benchmark.results import Results
    from newbie_image.nano.benchmark.run import Run, run, run_settings
    from newbie_image.nano.benchmark.run_folder import RunFolder, read_folder
    from newbie_image.nano.benchmark.work import REFERENCES, Crew, WorkerPlan

    evaluator = evaluator_sha256(readers)
    if report_only:
        folder = read_folder(out)
        folder.add_sets(hashes)
    else:
        sampling = Sampling(steps, guidance, shift, sampler, batch)
        model = find_bundle(bundle)
        dtype = str(choose_device().dtype).removeprefix("torch.")
        folder = RunFolder(out, run_settings(read_settings(model), content_hash(model), dtype, sampling))
        folder.add_sets(hashes)
        asked = Run(folder, [*(REFERENCES if references else ()), *chosen], prompts, evaluator, batch, keep)
        with Crew(WorkerPlan(bundle, readers, sampling), workers) as crew:
            for event in run(asked, crew):
                typer.echo(event_line(event), err=True)
    training = None if training_renders is None else _training(training_renders)
    report = write_report(Results.of(folder, prompts, evaluator), training)
    typer.echo(f"report written to {report}")


def select_prompts(
    sets: str, people: list[int] | None, count: int, skip: int
) -> tuple[list[BenchmarkPrompt], dict[str, str]]:
    """The prompts of sets named as in `seen,swapped`, and the sha256 of each frozen set they are from.

    Raises:
        RequestError: a set, a number of people or a count that there is not.
    """
    from newbie_image.nano.benchmark.frozen import mixed_prompts
    from newbie_image.nano.benchmark.prompt_sets import KINDS, check_set

    prompts: list[BenchmarkPrompt] = []
    hashes: dict[str, str] = {}
    names = list(dict.fromkeys(filter(None, (part.strip() for part in sets.split(",")))))
    if not names:
        raise RequestError(f"no prompt set is named in {sets!r}; choose from {', '.join(KINDS)}")
    for kind in names:
        if kind not in KINDS:
            check_set(kind, 0)
        allowed = KINDS[kind].people
        numbers = list(allowed) if people is None else [n for n in people if n in allowed]
        if not numbers:
            check_set(kind, people[0] if people else 0)
        more, digests = mixed_prompts(kind, numbers, count, skip)
        prompts += more
        hashes |= digests
    return prompts, hashes


def event_line(event: RunEvent) -> str:
    """What happened, in a line."""
    from newbie_image.nano.benchmark.run import Skipped

    if isinstance(event, Skipped):
        return f"{event.arm}: not available on {event.kind}, because {event.reason}"
    return f"{event.arm}: {event.done} of {event.total} drawn and read"


def _training(folder: Path) -> np.ndarray:
    import json

    import numpy as np

    from newbie_image.nano.benchmark.guards import describe_store
    from newbie_image.nano.dataset import Store

    note = folder / "store.json"
    if not note.exists():
        raise ConfigError(f"{folder} has no store.json; give the folder `renders` of a training")
    about = json.loads(note.read_text())
    counts = {int(number): share for number, share in about["counts"].items()}
    store = Store(folder, about["count"], about["size"], about["first_seed"], counts)
    blocks = list(describe_store(store))
    if not blocks:
        raise ConfigError(f"{folder} has no finished renders; run the stage 'render' first")
    return np.concatenate(blocks)


def validate(
    count: Annotated[int, typer.Option(min=6, help="Held-out renders, one to six people in turn.")] = 5000,
    injected: Annotated[int, typer.Option(min=6, help="Renders for each rate of leaks and swaps.")] = 600,
    bundle: Annotated[
        str, typer.Option(help="Bundle whose autoencoder the renders go through and whose size they have.")
    ] = "nano",
    readers: ReadersOption = Path("assets/readers"),
    out: Annotated[Path, typer.Option(help="Where to write the validation as JSON.")] = Path(
        "validation.json"
    ),
) -> None:
    """Measure the readers' own error: on renders, after the autoencoder, blurred, and on known mistakes."""
    from newbie_image.devices import choose_device
    from newbie_image.nano.benchmark.reading import load_evaluator
    from newbie_image.nano.benchmark.validation import validate as validate_evaluator
    from newbie_image.nano.benchmark.validation import write_validation
    from newbie_image.nano.evaluate import round_trip
    from newbie_image.pipeline import NewbiePipeline

    choice = choose_device()
    evaluator = load_evaluator(readers).to(choice.device)
    pipeline = NewbiePipeline.from_pretrained(bundle).to(choice.device, choice.dtype)
    result = validate_evaluator(
        evaluator,
        count,
        pipeline.settings.defaults.width,
        {"round_trip": lambda pictures: round_trip(pipeline, pictures)},
        injected=injected,
        progress=lambda name, done: typer.echo(f"{name}: {done} read", err=True),
    )
    write_validation(result, out)
    typer.echo(f"validation written to {out}")
