"""`--lora FILE[:SCALE]` and the loop's `:lora`: how adapters are named by people, and put on the model.

Nothing here imports torch before a model is there, so that a wrong name or scale is said at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from newbie_image.checkpoints.adapter_paths import SUFFIXES, adapter_file
from newbie_image.errors import CheckpointError, RequestError

if TYPE_CHECKING:
    from newbie_image.adapter_use import AdapterUse
    from newbie_image.pipeline import NewbiePipeline

MAX_SCALE: Final = 100.0
_FORM: Final = "give FILE or FILE:SCALE, such as style.safetensors:0.8"

LoraOption = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="FILE[:SCALE]",
        help="Adapter (LoRA, LoKr, LoHa …), a file or a folder; may be repeated.",
        rich_help_panel="Model and machine",
    ),
]


@dataclass(frozen=True)
class LoraChoice:
    """An adapter that was asked for.

    Args:
        path: its folder or file.
        scale: strength.
        name: by which it is known on the model; None for the file's.
    """

    path: Path
    scale: float = 1.0
    name: str | None = None


def split_scale(text: str) -> tuple[str, float | None]:
    """A text at its last colon, where a scale follows that colon.

    A path that exists is never cut, whatever colons it has, nor is a drive's letter.

    Args:
        text: `FILE`, `FILE:SCALE`, or a loaded adapter's name with a scale.

    Returns:
        (what stands before the scale, scale or None).

    Raises:
        RequestError: nothing is named, or what follows the colon of a weight file is no number in −100 … 100.
    """
    if not text.strip():
        raise RequestError(f"no adapter is named; {_FORM}")
    name, colon, number = text.rpartition(":")
    if not colon or not name or _exists(text):
        return text, None
    try:
        scale = float(number)
    except ValueError:
        if _exists(name) or name.lower().endswith(SUFFIXES):
            raise RequestError(f"scale {number!r} of adapter {name} is not a number; {_FORM}") from None
        return text, None
    if not math.isfinite(scale) or abs(scale) > MAX_SCALE:
        raise RequestError(
            f"scale {number} of adapter {name} is out of range; give a number from "
            f"{-MAX_SCALE:g} to {MAX_SCALE:g}"
        )
    return name, scale


def read_lora(text: str) -> LoraChoice:
    """An adapter from `FILE[:SCALE]`.

    Raises:
        RequestError: no file is named, or the scale is no number in −100 … 100.
        CheckpointError: there is no such file.
    """
    name, scale = split_scale(text)
    path = Path(name).expanduser()
    adapter_file(path)
    return LoraChoice(path, 1.0 if scale is None else scale)


def read_loras(texts: Iterable[str] | None) -> tuple[LoraChoice, ...]:
    """The adapters of a repeated `--lora`."""
    return tuple(read_lora(text) for text in texts or ())


def put_on(
    pipeline: NewbiePipeline, choices: Sequence[LoraChoice]
) -> tuple[tuple[LoraChoice, ...], tuple[str, ...]]:
    """Load adapters onto a model.

    Returns:
        The choices with the names under which they are loaded; a line for each thing worth saying of them.

    Raises:
        CheckpointError: one cannot be read or does not fit; those before it are loaded.
    """
    named, said = [], []
    for choice in choices:
        report = pipeline.load_lora_weights(choice.path, choice.name, choice.scale)
        named.append(replace(choice, name=report.name))
        said += report.lines()
    return tuple(named), tuple(said)


def change(
    pipeline: NewbiePipeline, loaded: Sequence[LoraChoice], text: str
) -> tuple[tuple[LoraChoice, ...], tuple[str, ...]]:
    """Do what a `:lora …` of the loop says.

    Args:
        pipeline: the model, with the adapters `loaded` on it.
        loaded: with their names.
        text: empty, `none`, `remove NAME`, `FILE[:SCALE]`, or `NAME[:SCALE]` of one that is loaded.

    Returns:
        What is loaded afterwards; a line for each thing worth saying.

    Raises:
        RequestError, CheckpointError: it cannot be done; nothing was changed.
    """
    word, _, name = text.partition(" ")
    if not text or (text == "none" and not loaded):
        return tuple(loaded), ()
    if text == "none":
        pipeline.unload_lora_weights()
        return (), ()
    if word == "remove" and name.strip() and not _exists(text):
        found = _loaded_as(name.strip(), loaded)
        pipeline.unload_lora_weights(found.name if found and found.name else name.strip())
        return tuple(lora for lora in loaded if lora is not found), ()
    name, scale = split_scale(text)
    found = _loaded_as(name, loaded)
    if found is None:
        added, said = put_on(pipeline, [read_lora(text)])
        return (*loaded, *added), said
    scaled = replace(found, scale=1.0 if scale is None else scale)
    changed = tuple(scaled if lora is found else lora for lora in loaded)
    pipeline.set_adapters([lora.name or "" for lora in changed], [lora.scale for lora in changed])
    return changed, ()


def _loaded_as(text: str, loaded: Sequence[LoraChoice]) -> LoraChoice | None:
    """The loaded adapter of that name, or of that file."""
    path = Path(text).expanduser()
    by_name = next((lora for lora in loaded if lora.name == text), None)
    return by_name or next((lora for lora in loaded if lora.path == path), None)


def find_recorded(
    uses: Sequence[AdapterUse], given: Sequence[str], folders: Sequence[Path]
) -> tuple[LoraChoice, ...]:
    """The files of the adapters that a picture was made with, by their hashes.

    Args:
        uses: what the picture's record says.
        given: `--lora FILE` of each that lies elsewhere, in any order.
        folders: where the recorded names are looked for besides.

    Raises:
        CheckpointError: a file is missing, is another than the recorded one, or belongs to no adapter of the
            record.
    """
    hashes = {path: _fingerprint(path) for path in (_replayed(text) for text in given)}
    left, found = dict(hashes), []
    for use in uses:
        wanted = (use.sha256, use.config_sha256)
        path = next((path for path, hashed in hashes.items() if hashed == wanted), None)
        left.pop(path, None) if path is not None else None
        beside = [folder / use.file for folder in folders if _exists(str(folder / use.file))]
        path = path or next((file for file in beside if _fingerprint(file) == wanted), None)
        if path is None:
            raise CheckpointError(_asked_for(use, [*left, *beside], hashes))
        found.append(LoraChoice(path, use.scale, use.name))
    if left:
        names = ", ".join(use.file for use in uses) or "none"
        raise CheckpointError(
            f"--lora {next(iter(left))} is no adapter that the picture was made with; recorded: {names}"
        )
    return tuple(found)


def _asked_for(use: AdapterUse, others: Sequence[Path], hashes: dict[Path, tuple[str, str | None]]) -> str:
    which = f"the adapter {use.file} (sha256 {use.sha256[:12]}…, scale {use.scale:g})"
    for path in others:
        sha256, _ = hashes.get(path) or _fingerprint(path)
        if sha256 == use.sha256:
            return (
                f"the picture was made with {which} and another adapter_config.json than the one beside "
                f"{path}, which can hold the alpha; put the old one back"
            )
    met = f"; {others[0]} is another file (sha256 {_fingerprint(others[0])[0][:12]}…)" if others else ""
    return f"the picture was made with {which}{met}; say where it lies now: --lora FILE"


def _replayed(text: str) -> Path:
    path = Path(text).expanduser()
    if not _exists(text) and split_scale(text)[1] is not None:
        raise RequestError(f"--lora {text}: a replay takes the recorded scale; give the file alone")
    return adapter_file(path)


def _fingerprint(path: Path) -> tuple[str, str | None]:
    from newbie_image.checkpoints.adapter_paths import fingerprint

    return fingerprint(adapter_file(path))


def _exists(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False
