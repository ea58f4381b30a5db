"""Reading an adapter from disk: a folder or a single file, with whatever says what its alpha is."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from newbie_image.checkpoints.adapter_paths import CONFIG_NAME, adapter_file
from newbie_image.errors import CheckpointError


@dataclass(frozen=True)
class AdapterFile:
    """An adapter as it lies on disk.

    Args:
        path: the weight file.
        tensors: every tensor under its own name, on the CPU.
        metadata: the header's texts of a safetensors file.
        config: the `adapter_config.json` beside it, empty where there is none.
    """

    path: Path
    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


def read_adapter(path: str | Path) -> AdapterFile:
    """Read an adapter's tensors and settings.

    Args:
        path: a PEFT or LyCORIS folder, or a .safetensors, .bin, .pt, .pth or .ckpt file.

    Returns:
        What it holds.

    Raises:
        CheckpointError: missing, damaged, empty, or a pickle that holds more than tensors.
    """
    file = adapter_file(path)
    tensors, metadata = _read_safetensors(file) if file.suffix == ".safetensors" else (_read_pickle(file), {})
    if not tensors:
        raise CheckpointError(f"adapter {file} holds no tensors; give a file that a trainer saved")
    return AdapterFile(file, tensors, metadata, _read_config(file.parent / CONFIG_NAME))


def _read_safetensors(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, dict(opened.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"adapter {file} is not a whole safetensors file ({error}); download or save it again"
        ) from error


def _read_pickle(file: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"adapter {file} is a pickle that holds more than tensors, which could run code; "
            "ask its author for a .safetensors file"
        ) from error
    except Exception as error:  # bytes that are no pickle raise whatever they happen to spell
        raise CheckpointError(f"adapter {file} is no whole weight file; download or save it again") from error
    for nested in ("adapter_state_dict", "lora_state_dict", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(nested), dict):
            content = content[nested]  # a trainer's own checkpoint, with the optimiser beside it
    if not isinstance(content, dict):
        raise CheckpointError(
            f"adapter {file} holds a {type(content).__name__}, not named tensors; give an adapter"
        )
    return {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}


def _read_config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{file} is not readable JSON ({error}); restore it, alpha and rank are in it"
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(
            f"{file} holds a {type(config).__name__}, not settings; restore it from the trainer's output"
        )
    return config
