"""Every way in which a transformer's folder can be damaged, and what a refusal has to name.

Each function spoils the folder ``transformer`` of a model (config.json and one safetensors file).
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

NAME = "diffusion_pytorch_model.safetensors"
INDEX = "diffusion_pytorch_model.safetensors.index.json"
NORM = "layers.0.ffn_norm1.weight"
WIDE = "layers.0.feed_forward.w1.weight"


@dataclass(frozen=True)
class Damage:
    """One case.

    Args:
        spoil: does it.
        words: each must be in the refusal.
        values: whether only the values are wrong, which `verify` reads and loading does not.
    """

    spoil: Callable[[Path], object]
    words: tuple[str, ...]
    values: bool = False


class Code:
    """A pickle that would make a file when it is opened."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.target),))


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / NAME).write_bytes(change((folder / NAME).read_bytes()))


def _state(change: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        state = load_file(folder / NAME)
        changed = {**state, **change(state)}
        save_file({name: value for name, value in changed.items() if value.numel()}, folder / NAME)

    return spoil


def _value(number: float) -> Callable[[Path], None]:
    def change(state: dict[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        state[NORM][3] = number
        return {}

    return _state(change)


def _config(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")

    return spoil


def _pickled(content: Callable[[Path, dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        torch.save(content(folder, load_file(folder / NAME)), folder / "diffusion_pytorch_model.bin")
        (folder / NAME).unlink()

    return spoil


def _bin(data: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / NAME).unlink()
        (folder / "diffusion_pytorch_model.bin").write_bytes(data)

    return spoil


def _sharded(folder: Path, *, index: bool, outside: str | None = None) -> list[Path]:
    state = load_file(folder / NAME)
    (folder / NAME).unlink()
    names = sorted(state)
    shards = [folder / f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    placed = {}
    for shard, part in zip(shards, (names[::2], names[1::2]), strict=True):
        save_file({name: state[name] for name in part}, shard)
        placed |= dict.fromkeys(part, shard.name)
    if outside is not None:
        placed[names[0]] = outside
    if index:
        (folder / INDEX).write_text(json.dumps({"weight_map": placed}), encoding="utf-8")
    return shards


def _folder(folder: Path) -> None:
    (folder / NAME).unlink()
    (folder / NAME).mkdir()


def _loop(folder: Path) -> None:
    (folder / NAME).unlink()
    (folder / NAME).symlink_to(folder / NAME)


EMPTY = torch.zeros(0)
FLUX = {"_class_name": "FluxTransformer2DModel", "attention_head_dim": 128, "guidance_embeds": True}

CASES: dict[str, Damage] = {
    "truncated header": Damage(_bytes(lambda data: data[:100]), (NAME, "cut short in its header")),
    "truncated data": Damage(_bytes(lambda data: data[:-8]), (NAME, "incomplete")),
    "empty": Damage(_bytes(lambda data: b""), (NAME, "empty")),
    "a folder in its place": Damage(_folder, ("transformer",)),
    "wrong dtype": Damage(
        _state(lambda state: {NORM: state[NORM].to(torch.int8)}), (NORM, "int8", "no floating point")
    ),
    "one key renamed": Damage(
        _state(lambda state: {NORM: EMPTY, "layers.0.ffn_norm9.weight": state[NORM]}),
        ("missing", NORM, "layers.0.ffn_norm9.weight"),
    ),
    "one key missing": Damage(_state(lambda state: {NORM: EMPTY}), ("1 missing", NORM)),
    "one key too many": Damage(
        _state(lambda state: {"layers.0.more.weight": torch.ones(2)}),
        ("1 unexpected", "layers.0.more.weight"),
    ),
    "shape off by one": Damage(
        _state(lambda state: {NORM: torch.ones(len(state[NORM]) + 1)}), ("1 misshapen", NORM)
    ),
    "transposed": Damage(_state(lambda state: {WIDE: state[WIDE].T.contiguous()}), ("misshapen", WIDE)),
    "NaN": Damage(_value(float("nan")), (NORM, "NaN"), values=True),
    "infinity": Damage(_value(float("inf")), (NORM, "infinity"), values=True),
    "a pickle with code in it": Damage(
        _pickled(lambda folder, state: {**state, "x": Code(folder / "ran")}), ("diffusion_pytorch_model.bin",)
    ),
    "a pickle of the wrong kind": Damage(
        _bin(pickle.dumps({"a": 1}, protocol=2)), ("diffusion_pytorch_model.bin",)
    ),
    "a list in a torch file": Damage(
        _pickled(lambda folder, state: [1, 2]), ("diffusion_pytorch_model.bin",)
    ),
    "a zip that is none, as safetensors": Damage(
        _bytes(lambda data: b"PK\x03\x04" + b"zip" * 99), (NAME, "no safetensors file")
    ),
    "a zip that is none, as torch file": Damage(
        _bin(b"PK\x03\x04" + b"zip" * 99), ("diffusion_pytorch_model.bin",)
    ),
    "bytes that are no torch file": Damage(
        _bin(b"a pickle of arguments, never opened"), ("diffusion_pytorch_model.bin",)
    ),
    "a spoilt word in the header": Damage(
        _bytes(lambda data: data.replace(b'"shape"', b'"s<ape"', 1)), (NAME, "header is damaged")
    ),
    "an index without its shard": Damage(
        lambda folder: _sharded(folder, index=True)[1].unlink(), ("1 of 2 shards", "00002-of-00002")
    ),
    "shards without their index": Damage(
        lambda folder: _sharded(folder, index=False), ("00001-of-00002", "index")
    ),
    "an index that leads outside": Damage(
        lambda folder: _sharded(folder, index=True, outside="../x.safetensors"), ("../x", "outside")
    ),
    "a link in a circle": Damage(_loop, (NAME, "circle")),
    "no permission": Damage(lambda folder: (folder / NAME).chmod(0), (NAME, "Permission denied")),
    "config of another model": Damage(_config(lambda config: FLUX), ("config.json",)),
    "config with an unknown key": Damage(
        _config(lambda config: {**config, "patch_sizes": 2}), ("config.json", "'patch_sizes'")
    ),
}
