"""`newbie weights download`: a model's files from Hugging Face or ModelScope, its licence first."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newbie_image.cli.messages import one_line, say_note
from newbie_image.errors import RequestError

if TYPE_CHECKING:
    from newbie_image.checkpoints.download import DownloadProgress
    from newbie_image.checkpoints.sources import Listing


def download(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME|OWNER/NAME", help="A known model, or a repository.")
    ] = None,
    source: Annotated[
        str, typer.Option("--source", metavar="huggingface|modelscope", help="Where to take it from.")
    ] = "huggingface",
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="Where to put it; else the models folder.")
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="PATTERN", help="Only files like this; may be repeated."),
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit.")] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Do not ask; the licence is shown all the same.")
    ] = False,
) -> None:
    """Download a model; run again, it goes on where it stopped. Without a name: what is known.

    HF_ENDPOINT names a mirror of Hugging Face; HF_TOKEN is used where it is set.
    """
    from newbie_image.checkpoints import sources

    if name is None:
        for known in sources.known_models().values():
            print(f"{known.name:<22} {known.about}")
        return
    listing = sources.list_files(
        sources.find_model(name, source), source, revision=revision, patterns=tuple(include or ())
    )
    from newbie_image.checkpoints.checksums import write_sums
    from newbie_image.checkpoints.download import check_room
    from newbie_image.checkpoints.download import download as fetch
    from newbie_image.places import models_folder

    folder = (to or models_folder() / listing.model.name).expanduser()
    missing = check_room(listing, folder)
    _show(listing, folder, missing)
    if not accept_licence:
        _ask()
    _draw(fetch(listing, folder))
    said = {file.path: file.sha256 for file in listing.files if file.sha256 is not None}
    if said:
        write_sums(folder, said)
    root = folder / listing.model.root
    print(root)
    say_note(f"{len(listing.files)} files, all sound; newbie weights inspect {root} says what is in them")


def _show(listing: Listing, folder: Path, missing: int) -> None:
    """What will come and under which licence, before any of it does; on standard error."""
    revision = listing.revision[:12]
    lines = [
        f"{listing.model.name}: {listing.repository} at {revision} from {listing.source}",
        f"licence: {listing.licence} ({listing.licence_page})",
        *(f"  {file.size / 1e6:>10,.1f} MB  {file.path}" for file in listing.files),
        f"{listing.size / 1e9:.2f} GB into {folder}, of which {missing / 1e9:.2f} GB are still to come",
    ]
    for line in lines:
        sys.stderr.write(one_line(line) + "\n")
    sys.stderr.flush()


def _ask() -> None:
    if not sys.stdin.isatty():
        raise RequestError("nobody is there to accept the licence; read it and add --accept-licence")
    if not typer.confirm("Do you accept the licence?", default=False, err=True):
        raise RequestError("nothing was downloaded, as the licence was not accepted")


def _draw(progress: Iterator[DownloadProgress]) -> None:
    """A bar on a terminal, a line every tenth elsewhere."""
    if not sys.stderr.isatty():
        said = -1
        for at in progress:
            tenth = 10 * at.done // max(1, at.total)
            if tenth > said:
                said = tenth
                sys.stderr.write(f"{at.stage} {at.path}: {at.done / 1e6:,.0f} of {at.total / 1e6:,.0f} MB\n")
                sys.stderr.flush()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as Speed

    columns = (TextColumn("{task.description}"), BarColumn(24), DownloadColumn(), Speed())
    with Progress(*columns, TimeRemainingColumn(compact=True), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)
        for at in progress:
            name = at.path.rpartition("/")[2]
            bar.update(task, description=f"{at.stage} {name}", completed=at.done, total=at.total)
