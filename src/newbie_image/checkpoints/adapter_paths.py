"""Where an adapter's weights lie, what it is called, what names its content. Nothing here imports torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from newbie_image.errors import CheckpointError

WEIGHT_NAMES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors", "adapter_model.bin")
CONFIG_NAME = "adapter_config.json"
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_SAME_FOR_ALL = tuple(Path(name).stem for name in WEIGHT_NAMES)


def adapter_file(path: str | Path) -> Path:
    """The weight file of an adapter.

    Args:
        path: a PEFT or LyCORIS folder, or the file itself.

    Raises:
        CheckpointError: nothing there, no weight file, or a folder with several.
    """
    path = Path(path)
    try:
        if path.is_file():
            if path.suffix not in SUFFIXES:
                raise CheckpointError(
                    f"adapter {path} is no weight file; give a folder or a file in {', '.join(SUFFIXES)}"
                )
            return path
        if path.is_symlink() and not path.exists():
            raise CheckpointError(
                f"adapter {path} is a link that leads nowhere or in a circle; mend it or copy the file"
            )
        if not path.is_dir():
            raise CheckpointError(f"adapter {path} does not exist; give a folder or a .safetensors file")
        for name in WEIGHT_NAMES:
            if (path / name).is_file():
                return path / name
        others = sorted(path.glob("*.safetensors"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"adapter {path} cannot be read: {reason}") from error
    if len(others) == 1:
        return others[0]
    found = ", ".join(other.name for other in others) or "none"
    raise CheckpointError(
        f"folder {path} has no {WEIGHT_NAMES[0]} and not exactly one other ({found}); name the file"
    )


def adapter_name(file: Path) -> str:
    """An adapter's name: its file's, or its folder's where all trainers call the file the same."""
    return (file.resolve().parent.name if file.stem in _SAME_FOR_ALL else file.stem) or "adapter"


def shown_file(file: Path) -> str:
    """The file's name as a record tells it: no folder, except where the folder is what tells it apart."""
    return f"{file.resolve().parent.name}/{file.name}" if file.stem in _SAME_FOR_ALL else file.name


def fingerprint(file: Path) -> tuple[str, str | None]:
    """sha256 of an adapter's weight file and of the `adapter_config.json` beside it, None without one.

    Raises:
        CheckpointError: a file cannot be read.
    """
    config = file.parent / CONFIG_NAME
    return _sha256(file), _sha256(config) if config.is_file() else None


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}; mend its rights") from None
