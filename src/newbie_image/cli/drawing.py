"""Reading a stream of events for people: a progress bar on a terminal, nothing where output is piped."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newbie_image.cli.messages import say_warnings
from newbie_image.provenance import record_picture, replace_file, write_picture
from newbie_image.request import (
    Event,
    GeneratedImage,
    GenerationRequest,
    PictureDone,
    StepDone,
    TextEncoded,
    UsedRegions,
)

if TYPE_CHECKING:
    from newbie_image.binding.sight import Sight
    from newbie_image.pipeline import NewbiePipeline
    from newbie_image.prompt import Prompt


@dataclass(frozen=True)
class Drawn:
    """What one run through the model gave.

    Args:
        request: what was asked for.
        pictures: in order of their seeds.
        seconds: by stage: text, sampling, decoding.
        peak_memory: bytes, None where it cannot be known.
        warnings: what is worth knowing of the prompt.
        regions: where the characters of each picture were to stand; empty where no regions acted.
    """

    request: GenerationRequest
    pictures: tuple[GeneratedImage, ...]
    seconds: Mapping[str, float]
    peak_memory: int | None
    warnings: tuple[str, ...]
    regions: tuple[UsedRegions, ...] = ()


@dataclass(frozen=True)
class WrittenPicture:
    """A picture on the disk: where, the file's sha256 and the seconds that writing took."""

    path: Path
    sha256: str
    pixels: str
    seconds: float


def check_prompt(request: GenerationRequest, *, parsers_own: bool = False) -> tuple[str, ...]:
    """Read the prompts before a model is loaded, which can take a while; say what is worth knowing of them.

    Args:
        request: as asked for.
        parsers_own: also say the parser's own warnings, which otherwise come with the stream's first event.

    Returns:
        The warnings, a line each; without that of characters in one place where :meth:`NewbiePipeline.bind`
        says it, with what is done.

    Raises:
        PromptError: a prompt cannot be read.
    """
    from newbie_image.prompt import parse
    from newbie_image.prompt.lint import check

    if request.decode is not None:
        from newbie_image.decode_stages import find_stage

        find_stage(request.decode)
    found: list[str] = []
    for label, text in (("", request.prompt), ("negative prompt, ", request.negative_prompt)):
        prompt = parse(text, strict=not request.tolerant)
        found += [
            f"{label}{found_at.remark}"
            for found_at in check(prompt, negative=label != "")
            if found_at.severity == "warning"
            and (parsers_own or found_at not in prompt.diagnostics)
            and not (found_at.code == "shared-position" and label == "" and _regions_act(request, prompt))
        ]
    say_warnings(found)
    return tuple(found)


def _regions_act(request: GenerationRequest, prompt: Prompt) -> bool:
    """Whether the request's binding, if it is no `auto`, uses the positions that a prompt has."""
    from newbie_image.binding.regions import regions_of
    from newbie_image.binding_modes import read_binding

    parts = read_binding(request.binding)
    return parts is not None and parts.regional and bool(regions_of(prompt)[0])


def size_remarks(pipeline: NewbiePipeline, request: GenerationRequest) -> tuple[str, ...]:
    """What `<resolution>` says against the size that the picture will have, a line each."""
    from newbie_image.prompt import parse
    from newbie_image.prompt.lint import resolutions

    whole = pipeline.complete(request)
    if whole.width is None or whole.height is None:
        return ()
    prompt = parse(request.prompt, strict=not request.tolerant)
    found = (remark.diagnostic(prompt) for remark in resolutions(prompt, (whole.width, whole.height)))
    return tuple(each.remark for each in found)


def late_remarks(pipeline: NewbiePipeline, request: GenerationRequest) -> tuple[str, ...]:
    """What only the loaded model can say of a prompt before it is drawn, a line each: of the size, of regions
    and weights, and of how many people there are.
    """
    return (*size_remarks(pipeline, request), *pipeline.bind(pipeline.complete(request))[1])


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """The drawing was stopped between two steps, as asked for."""


def draw(
    pipeline: NewbiePipeline,
    request: GenerationRequest,
    *,
    label: str = "drawing",
    warn: bool = True,
    stopped: Callable[[], bool] = lambda: False,
    sights: Sequence[Sight] = (),
    watch: Callable[[Event], None] | None = None,
) -> Drawn:
    """Draw a request and show how far it is.

    Args:
        pipeline: the model.
        request: what is asked for.
        label: stands before the progress bar.
        warn: say the stream's warnings, each once however often the prompt changes on the way; they come with
            the result in any case.
        stopped: asked after each step.
        sights: collectors for the stream.
        watch: is shown every event.

    Raises:
        Stopped: `stopped` said so.
    """
    warnings: tuple[str, ...] = ()
    warnings_read = False
    with contextlib.closing(pipeline.stream(request, sights=sights)) as events, _progress(label) as advance:
        for event in events:
            if watch is not None:
                watch(event)
            match event:
                case TextEncoded():
                    about_size = () if warnings_read else size_remarks(pipeline, request)
                    warnings_read = True
                    fresh = tuple(each for each in (*about_size, *event.warnings) if each not in warnings)
                    warnings += fresh
                    if warn:
                        say_warnings(fresh)
                case StepDone():
                    advance(event.index, event.total)
                    if stopped():
                        raise Stopped
                case PictureDone():
                    return Drawn(
                        request, event.images, event.seconds, event.peak_memory, warnings, event.regions
                    )
    raise RuntimeError("the stream ended without a picture")


def write_drawn(drawn: Drawn, paths: list[Path]) -> list[WrittenPicture]:
    """Write each picture with what made it, in the order of their seeds."""
    written = []
    for picture, path in zip(drawn.pictures, paths, strict=True):
        start = time.perf_counter()
        record = record_picture(picture, drawn.request)
        sha256 = write_picture(path, picture.image, record)
        written.append(WrittenPicture(path, sha256, record.pixels, time.perf_counter() - start))
    return written


def write_regions(drawn: Drawn, paths: Sequence[Path]) -> list[Path]:
    """Draw each picture with its characters' regions and numbers as `NAME-regions.png` beside it; where there
    are none, say so and write nothing.

    Args:
        drawn: pictures.
        paths: where they were written.
    Returns:
        What was written.
    """
    from newbie_image.explain.overlay import regions_picture

    if not drawn.regions:
        say_warnings([_no_regions(drawn)])
        return []
    written = []
    for picture, regions, path in zip(drawn.pictures, drawn.regions, paths, strict=True):
        buffer = io.BytesIO()
        regions_picture(picture.image, regions).save(buffer, format="PNG")
        beside = path.with_stem(f"{path.stem}-regions")
        replace_file(beside, buffer.getvalue())
        written.append(beside)
    return written


def _no_regions(drawn: Drawn) -> str:
    from newbie_image.binding_modes import MODES, read_binding

    used = str(drawn.pictures[0].settings["binding"])
    parts = read_binding(used) or MODES["off"]
    if parts.regional:
        return f"--show-regions: under binding {used!r} no regions acted; give each character a <position>"
    return (
        f"--show-regions: the picture was drawn with binding {used!r}, which uses no regions; give --binding "
        "region, full or sealed"
    )


def split_count(request: GenerationRequest) -> Iterator[GenerationRequest]:
    """A request a batch, so that pictures are written as they come; seeds go on where the last one ended."""
    for first in range(0, request.count, request.batch):
        yield replace(request, seed=request.seed + first, count=min(request.batch, request.count - first))


def summary(seconds: Mapping[str, float]) -> str:
    """Stages and their seconds, as in `text 0.1 s, sampling 2.3 s`."""
    return ", ".join(f"{stage} {value:.2f} s" for stage, value in seconds.items())


@contextlib.contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with step, speed and time left; it is gone when the picture is there."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        """Seconds a step, or steps a second where they are quick."""

        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            if not speed:
                return Text("")
            return Text(f"{speed:.1f} steps/s" if speed >= 1 else f"{1 / speed:.1f} s/step")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[place]}"),
        Speed(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, start=True, place="reading the prompt")
        yield lambda done, total: bar.update(task, completed=done, total=total, place=f"step {done}/{total}")
