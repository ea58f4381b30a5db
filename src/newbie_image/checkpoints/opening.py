"""A model by its name or path, in whatever layout, with parts from elsewhere where these are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from newbie_image.bundle import BundleSettings, VaeSettings, find_bundle, read_settings
from newbie_image.checkpoints.components import load_components
from newbie_image.checkpoints.files import open_source
from newbie_image.checkpoints.foreign import checkpoint_settings, load_checkpoint, load_part
from newbie_image.checkpoints.recognise import PARTS, Checkpoint, recognise
from newbie_image.errors import CheckpointError


@dataclass(frozen=True)
class OpenedModel:
    """Loaded components and what belongs to them.

    Args:
        components: transformer, text_encoder, tokenizer, clip_model, clip_tokenizer, vae and scheduler.
        settings: the bundle's, or the published model's.
        vae_settings: normalisation for the autoencoder that is there: the bundle's for its own.
        vae_name: name of an autoencoder from elsewhere; None for the model's own.
        path: where the model lies.
        layout: one of :data:`newbie_image.checkpoints.recognise.LAYOUTS`.
    """

    components: dict[str, Any]
    settings: BundleSettings
    vae_settings: VaeSettings
    vae_name: str | None
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
        vae: another autoencoder: a path, an embedded model's name, or the object itself.
        parts: files or folders of parts (keys of PARTS) that lie elsewhere.

    Raises:
        CheckpointError, ConfigError: one line that names what is missing or wrong.
    """
    checkpoint = find_checkpoint(name_or_path, parts)
    skip = () if vae is None else ("vae",)
    if checkpoint.layout == "newbie" and not parts:
        settings = read_settings(checkpoint.path)
        components = load_components(checkpoint.path, dtype, skip=skip)
    else:
        settings = checkpoint_settings(checkpoint)
        components = load_checkpoint(checkpoint, dtype, skip=skip)
    name = None
    if vae is not None:
        named = isinstance(vae, (str, Path))
        components["vae"] = load_vae(vae, dtype) if named else vae
        name = Path(vae).name if named else type(vae).__name__
    own = vae is None and "vae" not in (parts or {})
    return OpenedModel(
        components, settings, settings.vae if own else VaeSettings(), name, checkpoint.path, checkpoint.layout
    )


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
        beside = replaced[part] if replaced[part].is_dir() else replaced[part].parent
        tokenizer = {"text_encoder": "tokenizer", "clip_model": "clip_tokenizer"}.get(part)
        if tokenizer and (beside / "tokenizer.json").is_file():
            tokenizers[tokenizer] = beside
    return replace(checkpoint, parts=replaced, tokenizers=tokenizers)


def load_vae(name_or_path: str | Path, dtype: torch.dtype | None = None) -> Any:
    """An autoencoder from elsewhere: its folder or file, a model's folder, or an embedded model's name.

    Raises:
        CheckpointError: says what was looked for.
    """
    given = Path(name_or_path).expanduser()
    place = given
    if not given.is_file() and not (given / "config.json").is_file():
        try:
            place = find_bundle(name_or_path) / "vae"
        except CheckpointError:
            raise CheckpointError(
                f"no VAE {str(name_or_path)!r}: no weight file, no folder with a config.json and no model is "
                "there, and no embedded model has that name"
            ) from None
    return load_part("vae", place, open_source(place), dtype)
