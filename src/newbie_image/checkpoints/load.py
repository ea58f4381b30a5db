"""Strict loading of weights: what is missing, left over or of another shape is listed and refused.

Models are built on the meta device, so that no weight is made twice, and tensors are assigned as they come
from the memory-mapped file: where the dtype is the file's own nothing is copied, and where it is not, one
tensor at a time is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from newbie_image.bundle import reading
from newbie_image.checkpoints.files import (
    INDEX_SUFFIXES,
    SAFETENSORS_INDEX,
    TensorSource,
    open_source,
    some_names,
)
from newbie_image.checkpoints.layouts import UNREAD, Piece, Plan, Shapes
from newbie_image.devices import dtype_name
from newbie_image.errors import CheckpointError, ConfigError

Model = TypeVar("Model", bound=nn.Module)
WEIGHT_NAMES = ("diffusion_pytorch_model", "model")
PICKLE_NAMES = ("diffusion_pytorch_model.bin", "pytorch_model.bin")
_SHOWN = 4
_ALL_IN_ONE = ("text_encoders.", "vae.", "cond_stage_model.", "first_stage_model.")


def find_weights(folder: Path) -> TensorSource:
    """The weights of a component's folder in a bundle of ours, single or sharded.

    Safetensors, and where there are none, a pickle by its usual name, opened with ``weights_only=True``.

    Raises:
        CheckpointError: if there are none, an index names a file that is missing or outside of the folder, or
            it cannot be told which of several files is meant.
    """
    with reading(folder):
        return _find_weights(folder)


def _find_weights(folder: Path) -> TensorSource:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is missing; the bundle is incomplete: copy it again")
    for suffix in INDEX_SUFFIXES:
        indexes = sorted(folder.glob(f"*{suffix}"))
        if len(indexes) > 1:
            names = some_names(indexes)
            raise CheckpointError(f"{folder} has {len(indexes)} shard indexes ({names}); keep one")
        if indexes:
            return open_source(indexes[0])
    found = sorted(folder.glob("*.safetensors"))
    expected = [path for name in WEIGHT_NAMES for path in found if path.name == f"{name}.safetensors"]
    if len(expected) == 1:
        return open_source(expected[0])
    pickles = [folder / name for name in PICKLE_NAMES if (folder / name).is_file()]
    if not found and len(pickles) == 1:
        return open_source(pickles[0])
    if not found and pickles:
        raise CheckpointError(f"{folder} has both {some_names(pickles)}; keep the one that is meant")
    if not found:
        others = some_names(sorted(path for path in folder.iterdir() if path.is_file()))
        raise CheckpointError(
            f"{folder} has no weights: {WEIGHT_NAMES[0]}.safetensors, {WEIGHT_NAMES[1]}.safetensors, "
            f"{', '.join(PICKLE_NAMES)} or a shard index is needed; found {others}"
        )
    if len(expected) > 1:
        raise CheckpointError(f"{folder} has both {some_names(expected)}; keep the one that is meant")
    shards = [path for path in found if "-of-" in path.name]
    if shards:
        raise CheckpointError(
            f"{folder} has shards ({some_names(shards)}) but no *{SAFETENSORS_INDEX}; copy that file too"
        )
    raise CheckpointError(
        f"{folder} has {some_names(found)}, which is no name that is expected there; rename it to "
        f"{WEIGHT_NAMES[0]}.safetensors or {WEIGHT_NAMES[1]}.safetensors"
    )


def load_weights(
    model: nn.Module,
    source: TensorSource,
    dtype: torch.dtype | None = None,
    plan: Plan | None = None,
    where: Path | None = None,
) -> None:
    """Fill a model that was built on the meta device, strictly.

    Args:
        model: its parameters and persistent buffers say which names and shapes are wanted.
        source: from :func:`find_weights` or :func:`newbie_image.checkpoints.files.open_source`.
        dtype: of floating point tensors; None keeps the file's (bfloat16 where they are quantised). Other
            tensors keep theirs.
        plan: how the file's names become the model's; None where they are the same.
        where: named in errors; None for the file's folder.

    Raises:
        CheckpointError: names every kind of mismatch with examples.
    """
    place = where or source.files[0].path.parent
    dtype = dtype or source.loads_as
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if plan is None:
        unread = tuple(name for name in UNREAD if name in wanted and name not in source.shapes)
        plan = Plan("newbie", {name: Piece((name,)) for name in source.shapes}, ones=unread)
    check_plan(
        plan,
        source,
        wanted,
        tied_names(model),
        f"{place} does not hold the weights of a {type(model).__name__}",
    )
    state: dict[str, Tensor] = {}
    for name, piece in plan.pieces.items():
        made = source.make(piece)
        state[name] = made.to(dtype) if dtype is not None and made.is_floating_point() else made
    kind = dtype or next(
        (value.dtype for value in state.values() if value.is_floating_point()), torch.float32
    )
    for name in plan.ones:
        state[name] = torch.ones(wanted[name], dtype=kind)
    model.load_state_dict(state, strict=False, assign=True)


def check_plan(plan: Plan, source: TensorSource, wanted: Shapes, tied: Mapping[str, str], claim: str) -> None:
    """Refuse a file that does not fill a model exactly.

    Args:
        plan: what the file's tensors become.
        source: the file.
        wanted: the model's names and shapes.
        tied: names that share another name's tensor and may be absent.
        claim: how the message begins.
    """
    misshapen = [
        f"{name} {_sizes(shape)} instead of {_sizes(wanted[name])}"
        for name, shape in (
            (name, source.shape_of(piece)) for name, piece in plan.pieces.items() if name in wanted
        )
        if shape != wanted[name]
    ]
    filled = {*plan.pieces, *plan.ones}
    missing = [name for name in wanted if name not in filled and tied.get(name) not in filled]
    unexpected = [*(name for name in plan.pieces if name not in wanted), *plan.unused]
    kinds = {key: source.dtypes[key] for piece in plan.pieces.values() for key in piece.names}
    whole = [f"{key} {dtype_name(kind)}" for key, kind in kinds.items() if not kind.is_floating_point]
    problems = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    problems["of no floating point dtype"] = whole
    parts = [f"{len(names)} {what} ({_some(names)})" for what, names in problems.items() if names]
    if parts:
        together = any(name.startswith(_ALL_IN_ONE) for name in unexpected)
        fix = (
            "it is one of ComfyUI's checkpoints with everything in one file, which has no tokenizers: save "
            "the parts from there as single files and give those"
            if together
            else "check that weights and config belong together"
        )
        raise CheckpointError(f"{claim} with this config.json: {'; '.join(parts)}; {fix}")


def build_and_load(
    build: Callable[[], Model],
    source: TensorSource,
    dtype: torch.dtype | None = None,
    plan: Plan | None = None,
    where: Path | None = None,
) -> Model:
    """Build a model without allocating its weights, fill it strictly, and put it into evaluation mode.

    Buffers that are not in the file (rotary tables) are made for real. Arguments as in :func:`load_weights`.
    """
    model = build_empty(build)
    load_weights(model, source, dtype, plan, where)
    left = [name for name, value in model.named_parameters() if value.is_meta]
    if left:
        raise CheckpointError(f"{source.files[0].path}: {len(left)} weights were not filled ({_some(left)})")
    model.requires_grad_(False)
    return model.eval()


def build_empty(build: Callable[[], Model]) -> Model:
    """A model whose parameters have shapes and no memory."""
    with init_empty_weights(include_buffers=False):
        return build()


def tied_names(model: nn.Module) -> dict[str, str]:
    """For each name whose tensor is another name's, that other name."""
    first: dict[int, str] = {}
    tied: dict[str, str] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        if id(value) in first:
            tied[name] = first[id(value)]
        first.setdefault(id(value), name)
    return tied


def unknown_keys(config: Mapping[str, Any], known: Iterable[str], where: Path) -> None:
    """Refuse a config that has keys which its class does not know (keys that begin with ``_`` are notes).

    Raises:
        ConfigError: names the first unknown key and what is known.
    """
    names = sorted(known)
    strange = [key for key in config if not key.startswith("_") and key not in names]
    if strange:
        raise ConfigError(
            f"{where}: unknown key {strange[0]!r}"
            + (f" (and {len(strange) - 1} more)" if len(strange) > 1 else "")
            + f"; is it of another model, or misspelt? known: {', '.join(names)}"
        )


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _sizes(shape: tuple[int, ...]) -> str:
    return "×".join(str(side) for side in shape) or "scalar"
