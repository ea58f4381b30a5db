"""Autoencoders by name: those that came with the installation, and the user's own in a TOML file.

The user's file is ``$NEWBIE_VAES``, else ``vaes.toml`` in the settings folder
(:func:`newbie_image.places.settings_folder`). Nothing here imports torch.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from newbie_image.bundle import (
    INDEX_FILE,
    SETTINGS_FILE,
    WEIGHT_SUFFIXES,
    VaeSettings,
    bundle_names,
    config_file,
    find_bundle,
    read_settings,
)
from newbie_image.errors import CheckpointError, ConfigError
from newbie_image.places import models_folder, settings_folder

SHIPPED: Final = Path(__file__).with_name("vaes.toml")
VARIABLE: Final = "NEWBIE_VAES"


@dataclass(frozen=True)
class NamedVae:
    """An entry of the registry.

    Args:
        name: what `--vae` takes.
        path: its folder or file, which need not be there; None where it is a model's that is not there.
        settings: scale, shift and statistics that go before those of its config.
        about, licence: for people.
        download: what `newbie weights download` calls it; None where it is not known there.
        source: the TOML file that names it.
    """

    name: str
    path: Path | None
    settings: VaeSettings
    about: str
    licence: str
    download: str | None
    source: Path

    @property
    def here(self) -> bool:
        """Whether its file or folder is on this disk."""
        return self.path is not None and self.path.exists()


@dataclass(frozen=True)
class FoundVae:
    """Where an autoencoder lies.

    Args:
        name: its name in the registry, else the last part of its path (no folder of the machine).
        path: its folder or file.
        settings: scale, shift and statistics that go before those of its config.
    """

    name: str
    path: Path
    settings: VaeSettings


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str | None = None
    model: str | None = None
    about: str = ""
    licence: str = ""
    download: str | None = None
    scaling_factor: float | None = Field(default=None, gt=0)
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _one_place(self) -> _Entry:
        if (self.path is None) == (self.model is None):
            raise ValueError("give either path (a folder or file) or model (whose own VAE it is)")
        self.settings()
        return self

    def settings(self) -> VaeSettings:
        return VaeSettings.model_validate(self.model_dump(include=set(VaeSettings.model_fields)))


def user_registry() -> Path:
    """Where the user's file is looked for; it need not be there."""
    given = os.environ.get(VARIABLE)
    return Path(given).expanduser() if given else settings_folder() / "vaes.toml"


def named_vaes() -> dict[str, NamedVae]:
    """Every autoencoder that has a name, in order; the user's go before the shipped ones of the same name.

    Raises:
        ConfigError: the user's file cannot be read, or an entry of it is wrong; names file and key.
    """
    found = _read(SHIPPED, models_folder())
    mine = user_registry()
    if mine.is_file():
        found |= _read(mine, mine.parent)
    elif os.environ.get(VARIABLE):
        raise ConfigError(f"{VARIABLE} names {mine}, which is no file; correct it or unset it")
    return found


def find_vae(name_or_path: str | Path) -> FoundVae:
    """An autoencoder by its name in the registry, its folder or file, or a model's folder or name.

    A name goes before a file of the same name in the current folder; write ``./name`` for the file.

    Raises:
        CheckpointError: nothing there; says what was looked for, the near names, or how to get it.
        ConfigError: the registry cannot be read.
    """
    text = str(name_or_path)
    given = Path(name_or_path).expanduser()
    registry = named_vaes()
    if text in registry:
        return _named(registry[text])
    if given.is_file():
        # With a config it is a model's own file, whose normalisation goes with it too.
        settings = VaeSettings() if config_file(given) is None else _folder(given.absolute().parent).settings
        return FoundVae(given.name, given, settings)
    if given.is_dir():
        return _folder(given)
    if given.is_symlink():
        raise CheckpointError(
            f"the VAE {given} is a link that leads nowhere or in a circle; mend it or copy the file"
        )
    if os.sep in text or "/" in text or given.suffix in WEIGHT_SUFFIXES:
        raise CheckpointError(f"there is no VAE {given}: no such file or folder; check the path")
    try:
        model = find_bundle(text)
    except CheckpointError:
        known = [*registry, *(name for name in bundle_names() if name not in registry)]
        near = difflib.get_close_matches(text, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)};"
        raise CheckpointError(
            f"no VAE {text!r}: neither a name in the registry nor a file, folder or model; {hint} "
            f"add a name in {user_registry().name} (docs/vae.md)"
        ) from None
    return _folder(model)


def _named(entry: NamedVae) -> FoundVae:
    if entry.path is not None and entry.path.exists():
        settings = entry.settings
        if settings == VaeSettings() and entry.path.is_dir():
            settings = _folder(entry.path).settings
        return FoundVae(entry.name, entry.path, settings)
    if entry.download is not None:
        raise CheckpointError(
            f"the VAE {entry.name} is not on this disk ({entry.path}); get it with "
            f"`newbie weights download {entry.download}`, or give its path"
        )
    raise CheckpointError(
        f"the VAE {entry.name} should be at {entry.path}, but nothing is there; correct it in {entry.source}"
    )


def _folder(folder: Path) -> FoundVae:
    """A VAE's own folder, or a model's that has one; a bundle's normalisation goes with its VAE."""
    if not (folder / "config.json").is_file() and (
        (folder / INDEX_FILE).is_file() or (folder / "vae").is_dir()
    ):
        folder = folder / "vae"
        if not folder.is_dir():
            raise CheckpointError(f"{folder.parent} has no VAE (no folder vae); give another")
    bundle = folder.absolute().parent
    if folder.name != "vae":
        return FoundVae(folder.name, folder, VaeSettings())
    settings = read_settings(bundle).vae if (bundle / SETTINGS_FILE).is_file() else VaeSettings()
    return FoundVae(bundle.name, folder, settings)


def _read(file: Path, beside: Path) -> dict[str, NamedVae]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}); mend the file or its rights") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8 text; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}; correct it") from None
    strange = [key for key in content if key != "vae"]
    entries = content.get("vae", {})
    if strange or not isinstance(entries, dict):
        raise ConfigError(
            f"{file} has {strange[0] if strange else 'vae'!r}; entries are written as [vae.NAME]"
        )
    return {name: _entry(name, entry, file, beside) for name, entry in entries.items()}


def _entry(name: str, content: Any, file: Path, beside: Path) -> NamedVae:
    if not isinstance(content, Mapping):
        raise ConfigError(f"{file}: vae.{name} is {content!r}; write a table [vae.{name}] with a path")
    try:
        entry = _Entry.model_validate(dict(content))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["vae", name, *(str(part) for part in first["loc"])])
        if first["type"] == "extra_forbidden":
            allowed = ", ".join(_Entry.model_fields)
            raise ConfigError(f"{file}: unknown key {key!r}; allowed there: {allowed}") from None
        raise ConfigError(f"{file}: {key} has the value {first['input']!r}: {first['msg']}") from None
    path: Path | None
    if entry.model is not None:
        try:
            path = find_bundle(entry.model) / "vae"
        except CheckpointError:
            path = None
    else:
        path = _place(str(entry.path), beside)
    return NamedVae(name, path, entry.settings(), entry.about, entry.licence, entry.download, file)


def _place(text: str, beside: Path) -> Path:
    """Where an entry's path lies; ``\\`` in it is read as ``/``, unless a file has it in its name."""
    written = beside / Path(text).expanduser()
    return written if written.exists() else beside / Path(text.replace("\\", "/")).expanduser()
