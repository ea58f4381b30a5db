"""A bundle's folder to living components: classes by name, configs checked, every weight accounted for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from newbie_image.bundle import COMPONENTS, INDEX_FILE, read_json
from newbie_image.checkpoints.load import build_and_load, build_empty, find_weights, unknown_keys
from newbie_image.errors import CheckpointError, ConfigError, NewbieError
from newbie_image.latents import latent_channels, latent_scale

# What a bundle may name. Nothing else is imported, so that no bundle can run code of its own.
_OURS = {
    "NextDiT": "newbie_image.models.next_dit",
    "GemmaTextModel": "newbie_image.models.gemma_text",
    "JinaTextModel": "newbie_image.models.jina_text",
}
_GEMMA_NAMES = ("GemmaTextModel", "Gemma3TextModel")
# Keys that Gemma's configs on disk carry beside those that the class writes today.
_GEMMA_EXTRA = (
    "architectures",
    "cache_implementation",
    "dtype",
    "rope_local_base_freq",
    "rope_scaling",
    "rope_theta",
    "sliding_window_pattern",
    "torch_dtype",
    "transformers_version",
)


def load_components(
    folder: Path, dtype: torch.dtype | None = None, *, skip: tuple[str, ...] = ()
) -> dict[str, Any]:
    """All components of a bundle, models on the CPU in evaluation mode.

    Args:
        folder: the bundle's.
        dtype: of the models' floating point weights; None keeps the files'.
        skip: components that the caller brings.

    Raises:
        CheckpointError, ConfigError: one line; the folder, file or key that is wrong.
    """
    index = read_json(folder / INDEX_FILE)
    unknown_keys(index, COMPONENTS, folder / INDEX_FILE)
    wanted = [name for name in COMPONENTS if name not in skip]
    return {name: load_component(folder / name, *_named(index, name, folder), dtype) for name in wanted}


def empty_component(folder: Path, name: str) -> Any:
    """A component of a bundle as loading builds it, with no weights read: models have none.

    Raises:
        CheckpointError, ConfigError: what loading would say of its class, config or files.
    """
    index = read_json(folder / INDEX_FILE)
    unknown_keys(index, COMPONENTS, folder / INDEX_FILE)
    return load_component(folder / name, *_named(index, name, folder), None, empty=True)


def _named(index: Mapping[str, Any], name: str, folder: Path) -> tuple[str, str]:
    entry = index.get(name)
    if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(part, str) for part in entry):
        raise ConfigError(f'{folder / INDEX_FILE}: {name!r} is {entry!r}; ["library", "Class"] is needed')
    return entry[0], entry[1]


def load_component(
    folder: Path, library: str, class_name: str, dtype: torch.dtype | None, *, empty: bool = False
) -> Any:
    """One component by the name of its class.

    Args:
        folder: where its config and weights lie.
        library: ``newbie_image``, ``diffusers`` or ``transformers``.
        class_name: a model of ours, an autoencoder or scheduler of diffusers, Gemma 3's text model or a
            tokenizer of transformers.
        dtype: of floating point weights; None keeps the file's.
        empty: whether to leave a model without weights.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is missing; the bundle is incomplete: copy it again")
    if class_name in _GEMMA_NAMES:
        return _filled(_gemma_builder(folder), folder, dtype, empty)
    if class_name in _OURS and library in ("newbie_image", _OURS[class_name]):
        ours = getattr(importlib.import_module(_OURS[class_name]), class_name)
        return _filled(_builder(folder, ours), folder, dtype, empty)
    if library == "diffusers" and class_name.startswith(("Autoencoder", "AsymmetricAutoencoder")):
        theirs = _class_of("diffusers", class_name, folder)
        return _filled(_builder(folder, theirs), folder, dtype, empty)
    if library == "diffusers" and class_name.endswith("Scheduler"):
        return _load_scheduler(folder, _class_of("diffusers", class_name, folder))
    if library == "transformers" and "Tokenizer" in class_name:
        return _load_tokenizer(folder, _class_of("transformers", class_name, folder))
    raise ConfigError(
        f"{folder.parent / INDEX_FILE}: {library}.{class_name} is not a class that a bundle may name "
        f"for {folder.name!r}; allowed: newbie_image ({', '.join(_OURS)}), diffusers' Autoencoder… and "
        "…Scheduler, transformers' Gemma3TextModel and …Tokenizer…"
    )


def check_fit(parts: Mapping[str, Any]) -> None:
    """Refuse components that were not made for each other, before any of them runs.

    Args:
        parts: transformer, text_encoder, tokenizer, clip_model, clip_tokenizer and vae.

    Raises:
        CheckpointError: which two do not fit, and in what.
    """
    transformer, vae = parts["transformer"], parts["vae"]
    takes, makes = transformer.config.in_channels, latent_channels(vae)
    if takes != makes:
        raise CheckpointError(
            f"the transformer takes latents of {takes} channels, but the VAE makes {makes}; "
            f"choose a VAE with {takes} latent channels (--vae)"
        )
    if latent_scale(vae) != 8:
        raise CheckpointError(
            f"the VAE works at 1/{latent_scale(vae)} of the resolution; one at 1/8 is needed"
        )
    for name, field in (("text_encoder", "cap_feat_dim"), ("clip_model", "clip_text_dim")):
        width, wanted = parts[name].config.hidden_size, transformer.config[field]
        if width != wanted:
            raise CheckpointError(
                f"the {name} gives features of width {width}, but the transformer takes {wanted} ({field}); "
                "they belong to different models"
            )
    for tokens, model in (("tokenizer", "text_encoder"), ("clip_tokenizer", "clip_model")):
        have, room = len(parts[tokens]), parts[model].config.vocab_size
        if have > room:
            raise CheckpointError(
                f"the {tokens} has {have} tokens, but the {model} knows {room}; other models?"
            )


def _filled(
    build: Callable[[], nn.Module], folder: Path, dtype: torch.dtype | None, empty: bool
) -> nn.Module:
    return build_empty(build) if empty else build_and_load(build, find_weights(folder), dtype)


def _builder(folder: Path, kind: type[nn.Module]) -> Callable[[], nn.Module]:
    path = folder / "config.json"
    config = read_json(path)
    named = config.get("_class_name")
    if named not in (None, kind.__name__):
        raise ConfigError(f"{path} is a {named}'s, but {kind.__name__} is needed; another model's file?")
    parameters = inspect.signature(kind.__init__).parameters
    unknown_keys(config, set(parameters) - {"self", "args", "kwargs"}, path)
    arguments = {key: value for key, value in config.items() if not key.startswith("_")}
    return cast("Callable[[], nn.Module]", lambda: constructed(path, kind, arguments))


def gemma_keys() -> set[str]:
    """Every key that the config of a Gemma 3 text model may have."""
    from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig

    return {*Gemma3TextConfig().to_dict(), *_GEMMA_EXTRA}


def _gemma_builder(folder: Path) -> Callable[[], nn.Module]:
    from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig

    from newbie_image.models.gemma_text import GemmaTextModel

    path = folder / "config.json"
    config = read_json(path)
    if config.get("model_type") != "gemma3_text":
        raise ConfigError(f"{path} has model_type {config.get('model_type')!r}; 'gemma3_text' is needed")
    unknown_keys(config, gemma_keys(), path)

    def build() -> GemmaTextModel:
        settings = constructed(path, Gemma3TextConfig, config)
        settings._attn_implementation = "sdpa"
        return constructed(path, GemmaTextModel, {"config": settings})

    return build


def _load_scheduler(folder: Path, kind: Any) -> Any:
    path = folder / "scheduler_config.json"
    config = read_json(path)
    unknown_keys(config, set(inspect.signature(kind.__init__).parameters) - {"self"}, path)
    return constructed(path, kind, {key: value for key, value in config.items() if not key.startswith("_")})


def _load_tokenizer(folder: Path, kind: Any) -> Any:
    try:
        tokenizer = kind.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{folder}: the tokenizer cannot be read ({reason}); copy tokenizer.json and "
            "tokenizer_config.json again"
        ) from None
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(
            f"{folder}: {kind.__name__} has no tokenizer.json; add one (it gives the positions)"
        )
    return tokenizer


def constructed(path: Path, kind: Any, arguments: Mapping[str, Any]) -> Any:
    """An instance; what its constructor refuses becomes one line that names the config."""
    try:
        return kind(**arguments)
    except NewbieError as error:
        raise ConfigError(f"{path}: {error}") from None
    except Exception as error:
        # Constructors of three libraries refuse in many ways; all of them mean that the config is wrong.
        reason = " ".join((str(error) or type(error).__name__).split())
        raise ConfigError(f"{path} does not make a {kind.__name__}: {reason}; correct the value") from None


def _class_of(library: str, name: str, folder: Path) -> Any:
    found = getattr(importlib.import_module(library), name, None)
    if not isinstance(found, type):
        raise ConfigError(
            f"{folder.parent / INDEX_FILE}: the installed {library} has no class {name!r}; "
            f"correct the name or install a {library} that has it"
        )
    return found
