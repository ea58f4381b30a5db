"""GGUF files, as ComfyUI-GGUF writes them for transformers: published names, most matrices quantised.

The `gguf` package reads the file (memory-mapped) and brings one tensor at a time back to floating point, so
that no whole copy in float32 ever exists. No file of this model in GGUF was seen; what is known of the form
is ComfyUI-GGUF's code (city96/ComfyUI-GGUF, `tools/convert.py` and `loader.py`): names as in the checkpoint,
dimensions in reverse order, one-dimensional tensors in F32, and the shape of a tensor that had to be reshaped
under `comfy.gguf.orig_shape.NAME`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newbie_image.checkpoints.files import TensorFile
from newbie_image.devices import dtype_name
from newbie_image.errors import CheckpointError, MissingDependencyError

_MAGIC = b"GGUF"
_SHAPE_KEY = "comfy.gguf.orig_shape."
_PLAIN = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_OTHERS = "take a file in Q8_0, Q6_K, Q5_K, Q4_K or the like"


class GgufFile(TensorFile):
    """A GGUF file.

    Quantised tensors are said to be float32, which is what they are brought back to; :meth:`format_of` says
    the quantisation.

    Raises:
        CheckpointError: no GGUF file, damaged, cut short, or with a format that cannot be read.
        MissingDependencyError: the package gguf is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_magic(path)
        self._quants, reader = _read(path)
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        with _damage_named(path):
            shaped = {
                name.removeprefix(_SHAPE_KEY): tuple(int(side) for side in field.contents())
                for name, field in reader.fields.items()
                if name.startswith(_SHAPE_KEY)
            }
            single = {name: field for name, field in reader.fields.items() if len(field.types) == 1}
            self.metadata = {name: str(field.contents()) for name, field in single.items()}
        self.shapes = {
            name: shaped.get(name) or tuple(int(side) for side in reversed(tensor.shape))
            for name, tensor in self._tensors.items()
        }
        for name, shape in self.shapes.items():
            count = int(self._tensors[name].n_elements)
            if math.prod(shape) != count:
                raise CheckpointError(
                    f"{path} is damaged: {name} has {count} numbers, but its shape is said to be "
                    f"{list(shape)}; copy it again"
                )
        self._formats = {name: tensor.tensor_type.name for name, tensor in self._tensors.items()}
        readable = {*_PLAIN, *(kind.name for kind in self._quants._type_traits)}
        strange = [f"{name} {kind}" for name, kind in self._formats.items() if kind not in readable]
        if strange:
            raise CheckpointError(
                f"{path} has {len(strange)} tensors in formats that cannot be brought back ({strange[0]}); "
                + _OTHERS
            )
        self.dtypes = {name: _PLAIN.get(kind, torch.float32) for name, kind in self._formats.items()}
        kinds = set(self._formats.values())
        if kinds - {"F64", "F32", "F16"}:
            self.loads_as = torch.bfloat16
        elif "F16" in kinds:
            self.loads_as = torch.float16

    def get(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        numbers = tensor.data
        if self._formats[name] != "F64":
            numbers = self._quants.dequantize(numbers, tensor.tensor_type)
        owned = numbers if numbers.flags.writeable else numbers.copy()
        return torch.from_numpy(owned).to(self.dtypes[name]).reshape(self.shapes[name])

    def format_of(self, name: str) -> str:
        plain = _PLAIN.get(self._formats[name])
        return self._formats[name] if plain is None else dtype_name(plain)


def _check_magic(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"version "):
        raise CheckpointError(f"{path} is a Git LFS pointer and not the weights; run `git lfs pull`")
    if size < 24 or not head.startswith(_MAGIC):
        raise CheckpointError(
            f"{path} has {size} bytes that do not begin as a GGUF file does; copy it again, or rename it"
        )


def _read(path: Path) -> tuple[Any, Any]:
    try:
        from gguf import quants
        from gguf.gguf_reader import GGUFReader
    except ImportError:
        raise MissingDependencyError(
            f"{path} is read with the package gguf, which is not installed; install it with: "
            "pip install 'newbie-image[quant]'"
        ) from None
    with _damage_named(path):
        return quants, GGUFReader(path)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, IndexError, KeyError, OverflowError, TypeError, MemoryError) as error:
        # The reader takes what is there; a file that ends too soon shows itself as an array of no such shape.
        reason = " ".join(str(error).split())[:120]
        unknown = re.search(r"(\d+)\)? is not a valid GGMLQuantizationType", reason)
        if unknown:
            raise CheckpointError(
                f"{path} has tensors of quantisation type {unknown[1]}, unknown to the installed gguf; "
                f"{_OTHERS}, or a newer gguf"
            ) from None
        raise CheckpointError(
            f"{path} cannot be read as GGUF: it is damaged or cut short ({reason}); copy it again"
        ) from None
