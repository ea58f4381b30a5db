"""Weight files as one source of tensors: safetensors, GGUF or pickles, single or in shards, read as they are
asked for.

Safetensors are memory-mapped. Pickles are opened with ``weights_only=True`` and nothing else, so that no code
in them is run; where torch can, they are memory-mapped too.
"""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from newbie_image.bundle import WEIGHT_SUFFIXES, read_json, reading
from newbie_image.checkpoints.layouts import Piece, Shape
from newbie_image.devices import dtype_name
from newbie_image.errors import CheckpointError, OutputError

SAFETENSORS_INDEX = ".safetensors.index.json"
INDEX_SUFFIXES = (SAFETENSORS_INDEX, ".bin.index.json")
GGUF_SUFFIX = ".gguf"
PICKLE_SUFFIXES = (".bin", ".pth", ".pt", ".ckpt")
_NESTED = ("state_dict", "model", "module", "ema", "model_ema")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class TensorFile(ABC):
    """One file's tensors: names with shapes and dtypes, the header's metadata, and the tensors on request.

    Attributes:
        loads_as: the dtype to load in where none is asked for; None for each tensor's own.
    """

    path: Path
    shapes: dict[str, Shape]
    dtypes: dict[str, torch.dtype]
    metadata: dict[str, str]
    loads_as: torch.dtype | None = None

    @abstractmethod
    def get(self, name: str) -> Tensor:
        """One tensor, on the CPU, in the file's dtype."""

    def format_of(self, name: str) -> str:
        """How a tensor's numbers are kept: its dtype, or a quantisation."""
        return dtype_name(self.dtypes[name])


class TensorSource:
    """The tensors of one or several files.

    Args:
        files: opened files.
        placed: which file each tensor belongs to, as a shard index says; None where there is none.

    Raises:
        CheckpointError: a tensor lies in two files, or in another than the index says.
    """

    def __init__(self, files: Iterable[TensorFile], placed: Mapping[str, Path] | None = None) -> None:
        self.files = tuple(files)
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self.metadata: dict[str, str] = {}
        self._file_of: dict[str, TensorFile] = {}
        for file in self.files:
            for name, shape in file.shapes.items():
                if name in self._file_of:
                    raise CheckpointError(f"{name} is both in {self._file_of[name].path} and in {file.path}")
                if placed is not None and placed.get(name) != file.path:
                    raise CheckpointError(
                        f"{file.path} has unexpected {name}, where the index does not have it; "
                        "copy all shards and their index again"
                    )
                self._file_of[name] = file
                self.shapes[name] = shape
                self.dtypes[name] = file.dtypes[name]
            self.metadata.update(file.metadata)

    def get(self, name: str) -> Tensor:
        """One tensor, on the CPU, in the file's dtype."""
        return self._file_of[name].get(name)

    def format_of(self, name: str) -> str:
        """How a tensor's numbers are kept: its dtype, or a quantisation."""
        return self._file_of[name].format_of(name)

    @property
    def loads_as(self) -> torch.dtype | None:
        """The dtype to load in where none is asked for; None for each tensor's own."""
        return next((file.loads_as for file in self.files if file.loads_as is not None), None)

    def make(self, piece: Piece) -> Tensor:
        """The tensor that a plan's piece describes; a whole one is not copied."""
        parts = [self.get(name) for name in piece.names]
        made = parts[0] if len(parts) == 1 else torch.cat(parts)
        if piece.rows is not None:
            made = made[piece.rows[0] : piece.rows[1]]
        return made if piece.shape is None else made.reshape(piece.shape)

    def shape_of(self, piece: Piece) -> Shape:
        """Its shape, without reading it."""
        if piece.shape is not None:
            return piece.shape
        first = self.shapes[piece.names[0]]
        if len(piece.names) == 1 and piece.rows is None:
            return first
        rows = sum(self.shapes[name][0] for name in piece.names)
        if piece.rows is not None:
            rows = piece.rows[1] - piece.rows[0]
        return (rows, *first[1:])


def open_source(path: Path) -> TensorSource:
    """Open a weight file, a shard index, or a folder that has one of these.

    Raises:
        CheckpointError: nothing there, several files of which none is the one, or damage; one line.
    """
    with reading(path):
        return _open_source(path)


def _open_source(path: Path) -> TensorSource:
    _refuse_dead_link(path)
    if path.name.endswith(INDEX_SUFFIXES):
        files, placed = read_index(path)
        return TensorSource([open_file(file) for file in files], placed)
    if path.is_file():
        return TensorSource([open_file(path)])
    if not path.exists():
        raise CheckpointError(f"{path} is missing; give a weight file or its folder")
    indexes = [file for suffix in INDEX_SUFFIXES for file in sorted(path.glob(f"*{suffix}"))]
    if indexes:
        return open_source(indexes[0])
    for file in sorted(path.iterdir()):
        if file.suffix in WEIGHT_SUFFIXES:
            _refuse_dead_link(file)
    for suffix in WEIGHT_SUFFIXES:
        found = sorted(file for file in path.glob(f"*{suffix}") if file.is_file())
        found = [file for file in found if file.name != "model_args.pth"]
        if len(found) == 1:
            return open_source(found[0])
        if found:
            raise CheckpointError(
                f"{path} has several weight files ({some_names(found)}) and no index; name the right one"
            )
    raise CheckpointError(
        f"{path} has no weight file ({', '.join(WEIGHT_SUFFIXES)}); "
        f"found {some_names(sorted(path.iterdir()))}"
    )


def _refuse_dead_link(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise CheckpointError(f"{path} is a link that leads nowhere or in a circle; mend it or copy the file")


def open_file(path: Path) -> TensorFile:
    """Open one file by its suffix."""
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    if path.suffix in PICKLE_SUFFIXES:
        return PickleFile(path)
    if path.suffix == GGUF_SUFFIX:
        from newbie_image.checkpoints.gguf_files import GgufFile

        return GgufFile(path)
    raise CheckpointError(
        f"{path} is no weight file; its name must end in one of {', '.join(WEIGHT_SUFFIXES)}"
    )


class SafetensorsFile(TensorFile):
    """A safetensors file, memory-mapped.

    Raises:
        CheckpointError: missing, empty, cut short or damaged; one line with the sizes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        header = read_header(path)
        described = {name: entry for name, entry in header.items() if name != "__metadata__"}
        for name, entry in described.items():
            if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
                raise CheckpointError(
                    f"{path} does not say where {name} lies, its shape or dtype: its header is damaged; "
                    "copy it again"
                )
        self.metadata = {str(key): str(value) for key, value in header.get("__metadata__", {}).items()}
        self.shapes = {name: tuple(entry["shape"]) for name, entry in described.items()}
        unknown = [entry["dtype"] for entry in described.values() if entry["dtype"] not in _DTYPES]
        if unknown:
            raise CheckpointError(
                f"{path} has tensors of dtype {unknown[0]}, which cannot be read; convert it first"
            )
        self.dtypes = {name: _DTYPES[entry["dtype"]] for name, entry in described.items()}
        try:
            self._file: Any = safe_open(path, framework="pt", device="cpu")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} cannot be read as safetensors ({str(error).splitlines()[0]}); copy it again"
            ) from None

    def get(self, name: str) -> Tensor:
        return self._file.get_tensor(name)


class PickleFile(TensorFile):
    """A file of ``torch.save``, opened without running what it may contain.

    Raises:
        CheckpointError: missing, damaged, with code in it, or without tensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state = _tensors(path, _load_pickle(path))
        self.metadata: dict[str, str] = {}
        self.shapes = {name: tuple(value.shape) for name, value in self._state.items()}
        self.dtypes = {name: value.dtype for name, value in self._state.items()}

    def get(self, name: str) -> Tensor:
        return self._state[name]


def read_header(path: Path) -> dict[str, Any]:
    """A safetensors file's header, checked against the file's size."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            if size < 8:
                raise CheckpointError(f"{path} has {size} bytes, so it is empty or cut short; copy it again")
            if head.startswith(b"version "):
                raise CheckpointError(f"{path} is a Git LFS pointer and not the weights; run `git lfs pull`")
            (length,) = struct.unpack("<Q", head)
            if length > size - 8:
                raise CheckpointError(
                    f"{path} is no safetensors file, or cut short in its header ({size} bytes); copy it again"
                )
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}; copy it again or mend its rights"
        ) from None
    try:
        header = json.loads(text)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise CheckpointError(f"{path} has a damaged header; copy it again") from None
    if expected != size:
        raise CheckpointError(
            f"{path} has {size} bytes, but its header describes {expected}: it is incomplete; copy it again"
        )
    return header


def read_index(index: Path) -> tuple[tuple[Path, ...], dict[str, Path]]:
    """A shard index: its files in order, and each tensor's file. ``\\`` in names is read as ``/``.

    Raises:
        CheckpointError: no index, a name outside of its folder, or shards that are not there.
    """
    folder = index.parent
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise CheckpointError(f"{index} has no weight_map, so it is no shard index; copy it again")
    placed: dict[str, Path] = {}
    for key, shard in named.items():
        if not isinstance(shard, str):
            raise CheckpointError(f"{index}: the shard of {key!r} is {shard!r}; a file name is needed")
        relative = PurePosixPath(shard.replace("\\", "/"))
        if relative.is_absolute() or ".." in relative.parts or ":" in shard:
            raise CheckpointError(f"{index} names {shard!r}, outside of its folder; it is refused")
        placed[key] = folder / relative
    files = tuple(sorted(set(placed.values())))
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} of {len(files)} shards are missing ({some_names(missing)}); "
            "copy them too"
        )
    return files, placed


def some_names(paths: Iterable[Path]) -> str:
    """The first names of a list, and how many more there are."""
    names = [path.name for path in paths]
    more = len(names) - 4
    return (", ".join(names[:4]) or "nothing") + (f" and {more} more" if more > 0 else "")


def _load_pickle(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; copy it again")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} has 0 bytes, so it is empty; copy it again")
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:
            # Files from before torch 1.6 cannot be mapped.
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error)
        if "Unsupported" in reason or "GLOBAL" in reason or "weights_only" in reason.lower():
            raise CheckpointError(
                f"{path} holds more than tensors (code could run in it), so it is refused; use safetensors"
            ) from None
        raise CheckpointError(f"{path} is no file of torch.save, or damaged; copy it again") from None
    except Exception as error:
        # What a damaged pickle raises depends on its bytes: IndexError, struct.error and more.
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise CheckpointError(f"{path} cannot be read as a torch file ({reason}); copy it again") from None


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    """The state dict in what a pickle held; trainers put it under a key of its own."""
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if isinstance(content, Mapping):
        found = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if found:
            return found
    raise CheckpointError(f"{path} holds a {type(content).__name__} without tensors; it is no weight file")


@contextmanager
def writing_folder(folder: Path) -> Iterator[None]:
    """While it lasts, what the system refuses (rights, a full disk) is an OutputError of one line, and
    a folder that was not there before goes again.
    """
    there = folder.exists()
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not there:
            shutil.rmtree(folder, ignore_errors=True)
        raise cannot_write(folder, error) from None


def cannot_write(target: Path, error: OSError | SafetensorError) -> OutputError:
    """What a folder of weights could not be written for; a full disk comes as the latter from safetensors."""
    reason = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
    return OutputError(f"{target} cannot be written: {reason}; free space or choose another")
