"""A model by its name or path, in whatever layout, with parts from elsewhere where these are wanted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from newbie_image.bundle import (
    BundleSettings,
    VaeSettings,
    config_file,
    content_hash,
    find_bundle,
    read_settings,
)
from newbie_image.checkpoints.components import load_components
from newbie_image.checkpoints.files import open_source
from newbie_image.checkpoints.foreign import builder, checkpoint_settings, load_checkpoint, load_part
from newbie_image.checkpoints.load import build_empty
from newbie_image.checkpoints.recognise import (
    PARTS,
    TOKENIZER_PLACES,
    Checkpoint,
    read_part,
    recognise,
    tokenizer_beside,
)
from newbie_image.checkpoints.vae_registry import FoundVae, find_vae
from newbie_image.errors import CheckpointError


@dataclass(frozen=True)
class OpenedModel:
    """Loaded components and what belongs to them.

    Args:
        components: transformer, text_encoder, tokenizer, clip_model, clip_tokenizer, vae and scheduler.
        settings: the bundle's, or the published model's.
        vae_settings: normalisation for the autoencoder that is there: the bundle's for its own.
        vae_name: name of an autoencoder from elsewhere; None for the model's own.
        vae_hash: its content's hash, with its normalisation's where the registry says one; None likewise.
        part_hashes: a part from elsewhere → its file's name and content's hash.
        path: where the model lies.
        layout: one of :data:`newbie_image.checkpoints.recognise.LAYOUTS`.
    """

    components: dict[str, Any]
    settings: BundleSettings
    vae_settings: VaeSettings
    vae_name: str | None
    vae_hash: str | None
    part_hashes: Mapping[str, str]
    path: Path
    layout: str


def open_model(
    name_or_path: str | Path,
    dtype: torch.dtype | None = None,
    *,
    vae: Any = None,
    parts: Mapping[str, str | Path] | None = None,
) -> OpenedModel:
    """Load a model strictly, onto the CPU.

    Args:
        name_or_path: an embedded model's name, or a folder or file in any layout that is known.
        dtype: of the models' weights; None keeps the files'.
        vae: another autoencoder: a name in the registry, a path, a model's name, or the object itself.
        parts: files or folders of parts (keys of PARTS) that lie elsewhere.

    Raises:
        CheckpointError, ConfigError: one line that names what is missing or wrong.
    """
    found = find_vae(vae) if isinstance(vae, (str, Path)) else None
    checkpoint = find_checkpoint(name_or_path, parts)
    skip = () if vae is None else ("vae",)
    if checkpoint.layout == "newbie" and not parts:
        settings = read_settings(checkpoint.path)
        components = load_components(checkpoint.path, dtype, skip=skip)
    else:
        settings = checkpoint_settings(checkpoint)
        components = load_checkpoint(checkpoint, dtype, skip=skip)
    scales, name, digest = settings.vae, None, None
    if vae is None and "vae" in (parts or {}):
        scales = VaeSettings()
    elif found is not None:
        components["vae"], scales = _load_found(found, dtype), found.settings
        name, digest = found.name, _vae_hash(found)
    elif vae is not None:
        components["vae"], scales, name = vae, VaeSettings(), type(vae).__name__
    hashes = {
        part: f"{file.name} {content_hash(file)}"
        for part, file in checkpoint.parts.items()
        if part in (parts or {}) and file != checkpoint.path
    }
    return OpenedModel(components, settings, scales, name, digest, hashes, checkpoint.path, checkpoint.layout)


def find_checkpoint(name_or_path: str | Path, parts: Mapping[str, str | Path] | None = None) -> Checkpoint:
    """Where a model and its parts lie, without loading anything.

    Raises:
        CheckpointError: nothing there, or an unknown part.
    """
    checkpoint = recognise(find_bundle(name_or_path))
    replaced = dict(checkpoint.parts)
    tokenizers = dict(checkpoint.tokenizers)
    for part, path in (parts or {}).items():
        if part not in PARTS:
            raise CheckpointError(f"unknown part {part!r}; choose one of {', '.join(PARTS)}")
        replaced[part] = Path(path).expanduser()
        beside = tokenizer_beside(part, replaced[part]) if part in TOKENIZER_PLACES else None
        if beside is not None:
            tokenizers[TOKENIZER_PLACES[part][0]] = beside
    return replace(checkpoint, parts=replaced, tokenizers=tokenizers)


def part_configs(parts: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """The configs of parts, from their files' headers, metadata and neighbours; no weights are read.

    Args:
        parts: a part (a key of PARTS) → its file or folder.

    Raises:
        CheckpointError, ConfigError: what is missing or wrong with one.
    """
    configs: dict[str, dict[str, Any]] = {}
    for part, path in parts.items():
        source = open_source(path)
        model = build_empty(builder(part, path, source, read_part(part, path, source.shapes)))
        config = model.config
        configs[part] = config.to_dict() if hasattr(config, "to_dict") else dict(config)
        configs[part].setdefault("_class_name", type(model).__name__)
    return configs


def load_vae(name_or_path: str | Path, dtype: torch.dtype | None = None) -> Any:
    """An autoencoder from elsewhere, as :func:`newbie_image.checkpoints.vae_registry.find_vae` finds it.

    Raises:
        CheckpointError: says what was looked for, or what is wrong with it.
    """
    return _load_found(find_vae(name_or_path), dtype)


def _load_found(found: FoundVae, dtype: torch.dtype | None) -> Any:
    return load_part("vae", found.path, open_source(found.path), dtype)


def _vae_hash(found: FoundVae) -> str:
    """Of its weights, and of its config and the registry's settings where there are any."""
    said = found.settings.model_dump_json(exclude_none=True)
    config = config_file(found.path)
    said += "" if config is None else config.read_text(encoding="utf-8", errors="replace")
    settings = "" if said == "{}" else "+" + hashlib.sha256(said.encode()).hexdigest()[:12]
    return content_hash(found.path) + settings
