"""What a checkpoint is, told from headers, and whether all of it is sound, told by reading every tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from newbie_image.checkpoints.checksums import SumReport, check_sums, model_files
from newbie_image.checkpoints.files import TensorSource, open_source
from newbie_image.checkpoints.foreign import (
    CONFIG_KEY,
    TOKENIZER_KEY,
    TOKENIZER_OF,
    builder,
    find_config,
)
from newbie_image.checkpoints.load import build_empty, check_plan, find_weights, tied_names
from newbie_image.checkpoints.merging import merged_entries
from newbie_image.checkpoints.packed_tokenizer import PACKED_KEY
from newbie_image.checkpoints.recognise import Checkpoint, read_part
from newbie_image.errors import NewbieError


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
        parameters: numbers in the tensors that are used.
        dtypes: dtype, or quantisation in a GGUF file → how many tensors.
        size: bytes of the weight files.
        metadata: keys of the files' metadata.
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
    metadata: tuple[str, ...]
    config: str
    merged: tuple[str, ...] = ()


def describe(checkpoint: Checkpoint) -> Iterator[PartReport]:
    """Report on each part from its headers.

    Raises:
        CheckpointError: a part cannot be opened, or is no part of this model.
    """
    for name, path in checkpoint.parts.items():
        source = open_source(path)
        plan = read_part(name, path, source.shapes)
        used = [key for piece in plan.pieces.values() for key in piece.names]
        dtypes: dict[str, int] = {}
        for key in dict.fromkeys(used):
            kind = source.format_of(key)
            dtypes[kind] = dtypes.get(kind, 0) + 1
        config = "metadata" if CONFIG_KEY in source.metadata else "file"
        yield PartReport(
            name=name,
            path=path,
            files=len(source.files),
            layout=plan.layout,
            tensors=len(set(used)),
            ignored=len(plan.ignored),
            parameters=sum(math.prod(source.shapes[key]) for key in set(used)),
            dtypes=dtypes,
            size=sum(file.path.stat().st_size for file in source.files),
            metadata=tuple(sorted(source.metadata)),
            config=config if find_config(path, source) is not None else "shapes",
            merged=tuple(f"{e.get('file')} × {e.get('scale')}" for e in merged_entries(source.metadata)),
        )


def verify(checkpoint: Checkpoint, sums: SumReport | None = None) -> Iterator[str]:
    """What is wrong, a line each; nothing when names, shapes, values and checksums of every part are sound.

    Every tensor is read once, and every file whose checksum is known once more. Parts that are missing are
    told too.

    Args:
        checkpoint: what to look at.
        sums: from :func:`check_model_sums`; None to make it here.
    """
    for name in checkpoint.missing:
        yield f"{name}: missing from {checkpoint.path} ({checkpoint.layout})"
    for name, path in checkpoint.parts.items():
        try:
            source = open_part(checkpoint, name)
        except NewbieError as error:
            yield f"{name}: {error}"
            continue
        problems = list(part_problems(name, path, source))
        yield from (f"{name}: {line}" for line in problems)
        tokenizer = TOKENIZER_OF.get(name)
        packed = TOKENIZER_KEY in source.metadata or PACKED_KEY in source.shapes
        if tokenizer and tokenizer not in checkpoint.tokenizers and not packed:
            yield f"{name}: its {tokenizer} is missing; put tokenizer.json beside it"
    yield from (check_model_sums(checkpoint) if sums is None else sums).wrong


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
    ours = checkpoint.layout == "newbie" and path.is_dir() and path.parent == checkpoint.path
    return find_weights(path) if ours else open_source(path)


def part_problems(name: str, path: Path, source: TensorSource) -> Iterator[str]:
    """What is wrong with one part's names, shapes and values; reads every tensor once.

    Args:
        name: which part (a key of PARTS).
        path: its file or folder.
        source: its weights.
    """
    try:
        plan = read_part(name, path, source.shapes)
        model = build_empty(builder(name, path, source, plan))
        wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        claim = f"{path} does not hold the weights of a {type(model).__name__}"
        check_plan(plan, source, wanted, tied_names(model), claim)
    except NewbieError as error:
        yield str(error)
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
