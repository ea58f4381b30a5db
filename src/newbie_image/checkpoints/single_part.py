"""One part of a model checked by itself: a transformer, text encoder, VAE or adapter, a file or a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from newbie_image.bundle import INDEX_FILE, config_file, reading
from newbie_image.checkpoints.adapter_files import AdapterFile, read_adapter
from newbie_image.checkpoints.adapter_keys import split_key
from newbie_image.checkpoints.adapter_paths import CONFIG_NAME, adapter_name
from newbie_image.checkpoints.adapters import updates_for
from newbie_image.checkpoints.checksums import SumReport, check_sums
from newbie_image.checkpoints.files import TensorSource, open_source
from newbie_image.checkpoints.foreign import TOKENIZER_KEY, TOKENIZER_OF, builder
from newbie_image.checkpoints.inspection import part_problems, value_problem
from newbie_image.checkpoints.load import build_empty
from newbie_image.checkpoints.packed_tokenizer import PACKED_KEY
from newbie_image.checkpoints.recognise import PARTS, part_of, read_part, tokenizer_beside
from newbie_image.errors import CheckpointError, NewbieError
from newbie_image.models.next_dit import NextDiT

ADAPTER = "adapter"
_PART_FOLDERS = (*PARTS, "text_encoder_2")
_SHARD = re.compile(r"-\d+-of-\d+\.")


@dataclass(frozen=True)
class PartVerdict:
    """What came of checking one part.

    Args:
        path: what was given.
        kind: one of PARTS, or ``adapter``.
        naming: of its tensors; empty for an adapter.
        wrong: a line for each fault; empty where it is sound.
        notes: what it needs beside it that is not there, and what was assumed.
        sums: its checksums.
    """

    path: Path
    kind: str
    naming: str
    wrong: tuple[str, ...]
    notes: tuple[str, ...]
    sums: SumReport


def is_single(path: Path) -> bool:
    """Whether a path is one part and no whole model: a file, or a part's or an adapter's own folder."""
    with reading(path):
        if path.is_file():
            return True
        if not path.is_dir() or (path / INDEX_FILE).is_file() or (path / "transformer").is_dir():
            return False
        own = any((path / name).is_file() for name in ("config.json", CONFIG_NAME))
        return own or path.resolve().name in _PART_FOLDERS


def verify_part(path: Path, transformer: Path | None = None) -> PartVerdict:
    """Read every tensor of one part; names, shapes, values and checksums.

    Args:
        path: a weight file, or the folder of a part or adapter.
        transformer: the file or folder of the transformer that an adapter is for; None for one of the
            published model's size, of which no weights are needed.

    Raises:
        CheckpointError: it cannot be opened, or is nothing of this model; says what is missing.
    """
    if (path / CONFIG_NAME).is_file():
        return _adapter(path, read_adapter(path), transformer)
    source = open_source(path)
    kind = part_of(source.shapes)
    files = [file.path for file in source.files]
    if kind is None:
        if any(split_key(key) is not None for key in source.shapes):
            return _adapter(path, read_adapter(path), transformer)
        raise CheckpointError(_unknown(path, source))
    if path.is_file() and _SHARD.search(path.name):
        raise CheckpointError(
            f"{path} is one shard of several; give the folder with all of them and their index"
        )
    config = config_file(path)
    sums = check_sums(files if config is None else [*files, config])
    wrong = [*part_problems(kind, path, source), *sums.wrong]
    notes = tuple(_lacking(kind, path, source))
    return PartVerdict(path, kind, read_part(kind, path, source.shapes).layout, tuple(wrong), notes, sums)


def _unknown(path: Path, source: TensorSource) -> str:
    some = ", ".join(sorted(source.shapes)[:3]) or "none at all"
    return (
        f"{path} is neither a transformer, text encoder or VAE of this model nor an adapter; its tensors are "
        f"{some} …; give another file, or copy it again"
    )


def _lacking(kind: str, path: Path, source: TensorSource) -> Iterator[str]:
    tokenizer = TOKENIZER_OF.get(kind)
    if tokenizer is None or TOKENIZER_KEY in source.metadata or PACKED_KEY in source.shapes:
        return
    if tokenizer_beside(kind, path) is None:
        yield f"its {tokenizer} is neither in it nor beside it; to be used it needs tokenizer.json there"


def _adapter(path: Path, file: AdapterFile, transformer: Path | None) -> PartVerdict:
    model = _published() if transformer is None else _given(transformer)
    spoilt = [line for key, value in file.tensors.items() if (line := value_problem(key, value)) is not None]
    sums = check_sums([file.path])
    if spoilt:
        return PartVerdict(path, ADAPTER, "", (*spoilt, *sums.wrong), (), sums)
    try:
        report = updates_for(model, file, adapter_name(file.path)).report
    except NewbieError as error:
        aim = "the published transformer" if transformer is None else str(transformer)
        more = "; for another, add --transformer PATH" if transformer is None else ""
        return PartVerdict(
            path, ADAPTER, "", (f"{error} (checked against {aim}{more})", *sums.wrong), (), sums
        )
    wrong = (*(f"{key}: misshapen" for key in report.misshapen),)
    wrong += (*(f"{key}: its counterpart is missing" for key in report.incomplete), *sums.wrong)
    notes = (*(f"{key} is for a layer that the model does not have" for key in report.unmatched),)
    return PartVerdict(path, ADAPTER, "", wrong, (*notes, *report.notices), sums)


def _published() -> NextDiT:
    with torch.device("meta"):
        return NextDiT()


def _given(path: Path) -> NextDiT:
    source = open_source(path)
    return build_empty(builder("transformer", path, source, read_part("transformer", path, source.shapes)))
