"""What a checkpoint is, told from headers, and whether all of it is sound, told by reading every tensor."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from newbie_image.checkpoints.checksums import SumReport, check_sums, model_files
from newbie_image.checkpoints.components import check_fit, empty_component
from newbie_image.checkpoints.files import TensorSource, open_source
from newbie_image.checkpoints.foreign import (
    CONFIG_KEY,
    TOKENIZER_KEY,
    TOKENIZER_OF,
    builder,
    checkpoint_settings,
    find_config,
    load_tokenizer,
    read_tokenizer,
)
from newbie_image.checkpoints.layouts import Plan
from newbie_image.checkpoints.load import build_empty, check_plan, find_weights, tied_names
from newbie_image.checkpoints.merging import merged_entries
from newbie_image.checkpoints.packed_tokenizer import PACKED_KEY
from newbie_image.checkpoints.recognise import PARTS, Checkpoint, read_part
from newbie_image.errors import CheckpointError, NewbieError

_LONG, _SHOWN = 120, 60


@dataclass(frozen=True)
class PartReport:
    """One part of a checkpoint.

    Args:
        name: which part.
        path: its file or folder.
        files: how many weight files.
        layout: the naming of its tensors.
        tensors: tensors that are used.
        ignored: tensors that are known and left aside.
        misfit: why loading would refuse it, as far as names, shapes and config tell; None where it would not.
        parameters: numbers in the tensors that are used.
        dtypes: dtype, or quantisation in a GGUF file → how many tensors.
        size: bytes of the weight files.
        metadata: the files' metadata, long texts shortened.
        config: where its config comes from: ``file``, ``metadata`` or ``shapes``.
        merged: adapters in the weights, as ``style.safetensors × 0.8``.
    """

    name: str
    path: Path
    files: int
    layout: str
    tensors: int
    ignored: int
    parameters: int
    dtypes: Mapping[str, int]
    size: int
    metadata: Mapping[str, str]
    config: str
    merged: tuple[str, ...] = ()
    misfit: str | None = None


def describe(checkpoint: Checkpoint) -> Iterator[PartReport]:
    """Report on each part from its headers.

    Raises:
        CheckpointError: a part cannot be opened, or is no part of this model.
    """
    for name, path in checkpoint.parts.items():
        source = open_source(path)
        plan = read_part(name, path, source.shapes)
        wanted, misfit = _wanted(name, path, source, plan)
        pieces = {ours: piece for ours, piece in plan.pieces.items() if wanted is None or ours in wanted}
        used = list(dict.fromkeys(key for piece in pieces.values() for key in piece.names))
        config = "metadata" if CONFIG_KEY in source.metadata else "file"
        yield PartReport(
            name=name,
            path=path,
            files=len(source.files),
            layout=plan.layout,
            tensors=len(used),
            ignored=len(plan.ignored),
            parameters=sum(math.prod(source.shapes[key]) for key in used),
            dtypes=dict(Counter(map(source.format_of, used))),
            size=sum(file.path.stat().st_size for file in source.files),
            metadata=shortened(source.metadata),
            config=config if find_config(path, source) is not None else "shapes",
            merged=tuple(f"{e.get('file')} × {e.get('scale')}" for e in merged_entries(source.metadata)),
            misfit=misfit,
        )


def shortened(metadata: Mapping[str, str]) -> dict[str, str]:
    """A file's metadata in order of its keys, of long texts the beginning and how long they are."""
    return {
        key: text if len(text) <= _LONG else f"{text[:_SHOWN]}… ({len(text)} characters)"
        for key, text in sorted(metadata.items())
    }


def _wanted(
    name: str, path: Path, source: TensorSource, plan: Plan
) -> tuple[Mapping[str, tuple[int, ...]] | None, str | None]:
    """A part's names and shapes, None where its config gives none; and why it would be refused."""
    wanted: dict[str, tuple[int, ...]] | None = None
    try:
        model = build_empty(builder(name, path, source, plan))
        wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        claim = f"{path} does not hold the weights of a {type(model).__name__}"
        check_plan(plan, source, wanted, tied_names(model), claim)
    except NewbieError as error:
        return wanted, str(error)
    return wanted, None


def verify(checkpoint: Checkpoint, sums: SumReport | None = None) -> Iterator[str]:
    """What is wrong, a line each; nothing when all that loading reads is sound: names, shapes, values and
    checksums of every part, configs, tokenizers and settings, and that the parts belong together.

    Every tensor is read once, and every file whose checksum is known once more. Parts that are missing are
    told too.

    Args:
        checkpoint: what to look at.
        sums: from :func:`check_model_sums`; None to make it here.
    """
    sound: dict[str, Any] = {}
    for name in checkpoint.missing:
        yield f"{name}: missing from {checkpoint.path} ({checkpoint.layout})"
    for name, path in checkpoint.parts.items():
        try:
            source = open_part(checkpoint, name)
            problems = list(part_problems(name, path, source))
            if not problems:
                sound[name] = _empty_part(checkpoint, name, source)
        except NewbieError as error:
            problems = [str(error)]
        yield from (f"{name}: {line}" for line in problems)
        if name in TOKENIZER_OF:
            try:
                sound[TOKENIZER_OF[name]] = _tokenizer_of(checkpoint, name)
            except NewbieError as error:
                yield f"{name}: {error}"
    yield from _misfits(checkpoint, sound)
    yield from (check_model_sums(checkpoint) if sums is None else sums).wrong


def _empty_part(checkpoint: Checkpoint, name: str, source: TensorSource) -> Any:
    """A part's model without weights, built as loading builds it."""
    path = checkpoint.parts[name]
    if _ours(checkpoint, name):
        return empty_component(checkpoint.path, name)
    return build_empty(builder(name, path, source, read_part(name, path, source.shapes)))


def _tokenizer_of(checkpoint: Checkpoint, part: str) -> Any:
    tokenizer, path = TOKENIZER_OF[part], checkpoint.parts[part]
    folder = checkpoint.tokenizers.get(tokenizer)
    if folder is not None and _ours(checkpoint, part):
        return empty_component(checkpoint.path, tokenizer)
    if folder is None:
        try:
            source = open_part(checkpoint, part)
        except NewbieError:
            return None  # told of the part
        if TOKENIZER_KEY not in source.metadata and PACKED_KEY not in source.shapes:
            raise CheckpointError(f"its {tokenizer} is missing; put tokenizer.json beside it")
        return load_tokenizer(part, None, source, path)
    return read_tokenizer(folder)


def _misfits(checkpoint: Checkpoint, sound: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a model beside its parts: settings, scheduler, parts of different models."""
    try:
        checkpoint_settings(checkpoint)
    except NewbieError as error:
        yield str(error)
    if checkpoint.layout == "newbie":
        try:
            empty_component(checkpoint.path, "scheduler")
        except NewbieError as error:
            yield str(error)
    if {*PARTS, *TOKENIZER_OF.values()} <= {name for name, part in sound.items() if part is not None}:
        try:
            check_fit(sound)
        except NewbieError as error:
            yield str(error)


def _ours(checkpoint: Checkpoint, name: str) -> bool:
    """Whether a part lies in a bundle of this project's layout, where its class is named."""
    path = checkpoint.parts[name]
    return checkpoint.layout == "newbie" and path.is_dir() and path.parent == checkpoint.path


def check_model_sums(checkpoint: Checkpoint) -> SumReport:
    """A model's files against the checksums that came with them; what cannot be read is a line of it."""
    try:
        return check_sums(*model_files(checkpoint))
    except NewbieError as error:
        return SumReport({}, 0, (str(error),))


def open_part(checkpoint: Checkpoint, name: str) -> TensorSource:
    """A part's weights as loading finds them: in a bundle of ours by their expected names.

    Raises:
        CheckpointError: nothing there, several files, or damage.
    """
    path = checkpoint.parts[name]
    return find_weights(path) if _ours(checkpoint, name) else open_source(path)


def part_problems(name: str, path: Path, source: TensorSource) -> Iterator[str]:
    """What is wrong with one part's names, shapes and values; reads every tensor once.

    Args:
        name: which part (a key of PARTS).
        path: its file or folder.
        source: its weights.
    """
    try:
        plan = read_part(name, path, source.shapes)
    except NewbieError as error:
        yield str(error)
        return
    _, misfit = _wanted(name, path, source, plan)
    if misfit is not None:
        yield misfit
        return
    for key in dict.fromkeys(key for piece in plan.pieces.values() for key in piece.names):
        line = value_problem(key, source.get(key))
        if line is not None:
            yield line


def value_problem(key: str, tensor: torch.Tensor) -> str | None:
    """A line where a tensor holds NaN or infinity."""
    if not tensor.is_floating_point():
        return None
    # fp8 has no reductions of its own.
    values = tensor.float() if tensor.element_size() == 1 else tensor
    if bool(torch.isfinite(values).all()):
        return None
    kind = "NaN" if bool(torch.isnan(values).any()) else "infinity"
    return f"{key} holds {kind}; the file is damaged or was trained to death: take another"
