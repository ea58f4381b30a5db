"""Strict loading of weights: what is missing, left over or of another shape is listed and refused.

Models are built on the meta device, so that no weight is made twice, and tensors are assigned as they come
from the memory-mapped safetensors file: where the dtype is the file's own nothing is copied, and where it is
not, one tensor at a time is. The files themselves may be single or sharded; a shard index written on Windows
(``\\`` in names) is read as it was meant.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from newbie_image.bundle import read_json
from newbie_image.errors import CheckpointError, ConfigError

Model = TypeVar("Model", bound=nn.Module)
INDEX_SUFFIX = ".safetensors.index.json"
WEIGHT_NAMES = ("diffusion_pytorch_model", "model")
_SHOWN = 4


@dataclass(frozen=True)
class WeightFiles:
    """Where a component's tensors lie.

    Args:
        folder: the component's folder.
        files: the safetensors files, in order.
        placed: file of each tensor as the index has it; None for a single file.
    """

    folder: Path
    files: tuple[Path, ...]
    placed: Mapping[str, Path] | None


def find_weights(folder: Path) -> WeightFiles:
    """The safetensors files of a component's folder, single or sharded.

    Raises:
        CheckpointError: if there are none, an index names a file that is missing or outside of the folder, or
            it cannot be told which of several files is meant.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is missing; the bundle is incomplete: copy it again")
    indexes = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    if len(indexes) > 1:
        raise CheckpointError(f"{folder} has {len(indexes)} shard indexes ({_names(indexes)}); keep one")
    if indexes:
        return _from_index(folder, indexes[0])
    found = sorted(folder.glob("*.safetensors"))
    expected = [path for name in WEIGHT_NAMES for path in found if path.name == f"{name}.safetensors"]
    if len(expected) == 1:
        return WeightFiles(folder, (expected[0],), None)
    if not found:
        others = _names(sorted(path for path in folder.iterdir() if path.is_file())) or "nothing"
        raise CheckpointError(
            f"{folder} has no weights: {WEIGHT_NAMES[0]}.safetensors, {WEIGHT_NAMES[1]}.safetensors or "
            f"a shard index is needed; found {others}"
        )
    if len(expected) > 1:
        raise CheckpointError(f"{folder} has both {_names(expected)}; keep the one that is meant")
    shards = [path for path in found if "-of-" in path.name]
    if shards:
        raise CheckpointError(
            f"{folder} has shards ({_names(shards)}) but no *{INDEX_SUFFIX}; copy that file too"
        )
    raise CheckpointError(
        f"{folder} has {_names(found)}, which is no name that is expected there; rename it to "
        f"{WEIGHT_NAMES[0]}.safetensors or {WEIGHT_NAMES[1]}.safetensors"
    )


def load_weights(model: nn.Module, weights: WeightFiles, dtype: torch.dtype | None = None) -> None:
    """Fill a model that was built on the meta device, strictly.

    Args:
        model: its parameters and persistent buffers say which names and shapes are wanted.
        weights: from :func:`find_weights`.
        dtype: of floating point tensors; None keeps the file's. Other tensors keep theirs.

    Raises:
        CheckpointError: names every kind of mismatch with examples, or the file that is damaged.
    """
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    state: dict[str, Tensor] = {}
    unexpected: list[str] = []
    misshapen: list[str] = []
    with ExitStack() as open_files:
        for path in weights.files:
            file = open_files.enter_context(open_safetensors(path))
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                if name not in wanted:
                    unexpected.append(name)
                    continue
                shape = tuple(file.get_slice(name).get_shape())
                if shape != wanted[name]:
                    misshapen.append(f"{name} {_sizes(shape)} instead of {_sizes(wanted[name])}")
                elif weights.placed is not None and weights.placed.get(name) != path:
                    unexpected.append(f"{name} (in {path.name}, where the index does not have it)")
                else:
                    tensor = file.get_tensor(name)
                    state[name] = (
                        tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
                    )
    tied = tied_names(model)
    missing = [name for name in wanted if name not in state and tied.get(name) not in state]
    missing = [name for name in missing if not any(entry.startswith(f"{name} ") for entry in misshapen)]
    _refuse(weights.folder, type(model).__name__, missing, unexpected, misshapen)
    model.load_state_dict(state, strict=False, assign=True)


def build_and_load(
    build: Callable[[], Model], weights: WeightFiles, dtype: torch.dtype | None = None
) -> Model:
    """Build a model without allocating its weights, fill it strictly, and put it into evaluation mode.

    Buffers that are not in the file (rotary tables) are made for real.
    """
    with init_empty_weights(include_buffers=False):
        model = build()
    load_weights(model, weights, dtype)
    left = [name for name, value in model.named_parameters() if value.is_meta]
    if left:
        raise CheckpointError(
            f"{weights.folder}: {len(left)} weights were not filled ({', '.join(left[:_SHOWN])})"
        )
    model.requires_grad_(False)
    return model.eval()


def tied_names(model: nn.Module) -> dict[str, str]:
    """For each name whose tensor is another name's, that other name."""
    first: dict[int, str] = {}
    tied: dict[str, str] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        if id(value) in first:
            tied[name] = first[id(value)]
        first.setdefault(id(value), name)
    return tied


def open_safetensors(path: Path) -> Any:
    """Open a safetensors file for reading on the CPU, as a context manager.

    Raises:
        CheckpointError: if it is missing, empty, cut short, or no safetensors file; one line with the sizes.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}; copy it again or mend its rights"
        ) from None
    if size < 8:
        raise CheckpointError(f"{path} has {size} bytes, so it is empty or cut short; copy it again")
    if head.startswith(b"version "):
        raise CheckpointError(f"{path} is a Git LFS pointer and not the weights; run `git lfs pull`")
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_damage(path, size, head, error)) from None


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


def _from_index(folder: Path, index: Path) -> WeightFiles:
    content = read_json(index)
    placed_names = content.get("weight_map")
    if not isinstance(placed_names, dict) or not placed_names:
        raise CheckpointError(f"{index} has no weight_map, so it is no shard index; copy it again")
    placed: dict[str, Path] = {}
    for key, shard in placed_names.items():
        if not isinstance(shard, str):
            raise CheckpointError(f"{index}: the shard of {key!r} is {shard!r}; a file name is needed")
        relative = PurePosixPath(shard.replace("\\", "/"))
        if relative.is_absolute() or ".." in relative.parts or ":" in shard:
            raise CheckpointError(f"{index} names {shard!r}, outside of its folder; it is refused")
        placed[key] = folder / relative
    files = tuple(dict.fromkeys(placed[key] for key in sorted(placed, key=lambda key: placed[key].name)))
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} of {len(files)} shards are missing ({_names(missing)}); copy them too"
        )
    return WeightFiles(folder, files, placed)


def _damage(path: Path, size: int, head: bytes, error: Exception) -> str:
    """What is wrong with a file that does not open, as exactly as its header allows."""
    (length,) = struct.unpack("<Q", head)
    if length > size - 8:
        return f"{path} is no safetensors file, or cut short in its header ({size} bytes); copy it again"
    with path.open("rb") as file:
        file.seek(8)
        try:
            header = json.loads(file.read(length))
            data = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"))
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{path} has a damaged header; copy it again"
    expected = 8 + length + data
    if expected != size:
        return (
            f"{path} has {size} bytes, but its header describes {expected}: it is incomplete; copy it again"
        )
    return f"{path} cannot be read as safetensors ({str(error).splitlines()[0]}); copy it again"


def _refuse(folder: Path, kind: str, missing: list[str], unexpected: list[str], misshapen: list[str]) -> None:
    parts = [
        f"{len(names)} {what} ({_some(names)})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if names
    ]
    if parts:
        raise CheckpointError(
            f"{folder} does not hold the weights of a {kind} with this config.json: {'; '.join(parts)}; "
            "check that weights and config belong together"
        )


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _sizes(shape: tuple[int, ...]) -> str:
    return "×".join(str(side) for side in shape) or "scalar"


def _names(paths: Iterable[Path]) -> str:
    return _some([path.name for path in paths])
