"""A bundle's settings, where bundles are found, and what names one for good.

A bundle is a folder with ``model_index.json``, ``newbie.json`` (:class:`BundleSettings`), and the folders
``transformer``, ``text_encoder``, ``tokenizer``, ``clip_model``, ``clip_tokenizer``, ``vae`` and
``scheduler``. System prompts, token limits and presets belong to a model's training, so they stand in its
bundle and not in the code. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from newbie_image.binding_modes import Mode
from newbie_image.errors import CheckpointError, ConfigError, RequestError
from newbie_image.places import models_folder
from newbie_image.request import SAMPLERS, SIZE_MULTIPLE, GenerationRequest

INDEX_FILE = "model_index.json"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".gguf")
SETTINGS_FILE = "newbie.json"
COMPONENTS = (
    "transformer",
    "text_encoder",
    "tokenizer",
    "clip_model",
    "clip_tokenizer",
    "vae",
    "scheduler",
)
_WHOLE_FILE = 64 * 2**20
_BLOCK = 2**20


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextSettings(_Strict):
    """How prompts become the encoders' texts.

    Args:
        system_prompt_xml: put before an XML prompt, for Gemma only, joined without a space.
        system_prompt_tags: put before tags and sentences likewise.
        negative_system_prompt: which negatives get one: ``written`` (as in training: only a non-empty one),
            ``always`` or ``never``.
        max_tokens: Gemma tokens at most, BOS included; the rest is cut off and reported.
        trained_tokens: beyond this many Gemma tokens a warning says that training never saw so long a text.
        trained_characters: beyond this many characters a warning says that training never saw so many.
        max_pooled_tokens: Jina tokens at most, begin and end included.
        pad_to_multiple: Gemma's length is padded up to a multiple of this.
        auto_binding: the mode that `binding=auto` gives a prompt with several characters.
        trained_bindings: modes of binding that training saw, `auto_binding` among them; under any other a
            warning says so. None where it is not known: nothing is said.
    """

    system_prompt_xml: str = ""
    system_prompt_tags: str = ""
    negative_system_prompt: Literal["written", "always", "never"] = "written"
    max_tokens: int = Field(default=512, ge=8, le=1023)
    trained_tokens: int | None = Field(default=None, ge=1)
    trained_characters: int | None = Field(default=None, ge=1)
    max_pooled_tokens: int = Field(default=2048, ge=8, le=8192)
    pad_to_multiple: int = Field(default=8, ge=1, le=256)
    auto_binding: Mode = "off"
    trained_bindings: tuple[Mode, ...] | None = None

    @field_validator("trained_bindings")
    @classmethod
    def _auto_is_trained(
        cls, given: tuple[Mode, ...] | None, info: ValidationInfo
    ) -> tuple[Mode, ...] | None:
        auto = info.data.get("auto_binding")
        if given is not None and auto is not None and auto not in given:
            raise ValueError(f"auto_binding {auto!r} is not among them; add it, or name another auto_binding")
        return given


class VaeSettings(_Strict):
    """How latents are normalised where the autoencoder's own config does not say it.

    The transformer sees ``((z − mean) / std − shift) · scale``. ``latents_mean`` and ``latents_std`` are a
    value a channel; what is None is taken from the autoencoder's config, and what is absent there changes
    nothing.
    """

    scaling_factor: float | None = Field(default=None, gt=0)
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _same_length(self) -> VaeSettings:
        mean, std = self.latents_mean, self.latents_std
        if (mean is None) != (std is None) or (mean and std and len(mean) != len(std)):
            raise ValueError("latents_mean and latents_std go together, a value a channel each")
        if std is not None and min(std) <= 0:
            raise ValueError("latents_std must be above 0")
        return self


class Preset(_Strict):
    """Settings of a picture by name; what is None is taken from the bundle's defaults."""

    width: int | None = Field(default=None, ge=SIZE_MULTIPLE, multiple_of=SIZE_MULTIPLE)
    height: int | None = Field(default=None, ge=SIZE_MULTIPLE, multiple_of=SIZE_MULTIPLE)
    steps: int | None = Field(default=None, ge=1, le=1000)
    guidance_scale: float | None = Field(default=None, ge=0, le=100)
    cfg_truncation: float | None = Field(default=None, ge=0, le=1)
    cfg_renorm: float | None = Field(default=None, ge=0, le=100)
    sampler: str | None = None
    shift: float | None = Field(default=None, gt=0, le=100)
    grid: Literal["uniform", "simple"] | None = None
    system_prompt_xml: str | None = None
    system_prompt_tags: str | None = None
    negative_system_prompt: Literal["written", "always", "never"] | None = None
    max_tokens: int | None = Field(default=None, ge=8, le=1023)

    @model_validator(mode="after")
    def _known_sampler(self) -> Preset:
        if self.sampler is not None and self.sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler {self.sampler!r}; choose one of {', '.join(SAMPLERS)}")
        return self


class Defaults(_Strict):
    """What a request that says nothing gets; ranges as in :class:`newbie_image.request.GenerationRequest`."""

    width: int = Field(default=1024, ge=SIZE_MULTIPLE, multiple_of=SIZE_MULTIPLE)
    height: int = Field(default=1024, ge=SIZE_MULTIPLE, multiple_of=SIZE_MULTIPLE)
    steps: int = Field(default=28, ge=1, le=1000)
    guidance_scale: float = Field(default=5.0, ge=0, le=100)
    cfg_truncation: float = Field(default=1.0, ge=0, le=1)
    cfg_renorm: float = Field(default=0.0, ge=0, le=100)
    sampler: Literal["euler", "midpoint", "heun", "dpmpp_2m", "res_multistep"] = "midpoint"
    shift: float = Field(default=6.0, gt=0, le=100)
    grid: Literal["uniform", "simple"] = "uniform"


class BundleSettings(_Strict):
    """The whole of ``newbie.json``.

    Args:
        format: version of this file's form.
        name: the model's name, shown and written into pictures.
        licence: the weights' licence in a sentence, shown where the model is.
        text, vae, defaults, presets: see the classes.
    """

    format: Literal[1] = 1
    name: str
    licence: str = ""
    text: TextSettings = TextSettings()
    vae: VaeSettings = VaeSettings()
    defaults: Defaults = Defaults()
    presets: dict[str, Preset] = Field(default_factory=dict)

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        """The request with every None filled: its own value, else its preset's, else the default.

        Raises:
            RequestError: for a preset that the bundle does not have.
        """
        preset = self.preset(request.preset)
        filled: dict[str, Any] = {}
        for name in Defaults.model_fields:
            if getattr(request, name) is None:
                value = getattr(preset, name)
                filled[name] = getattr(self.defaults, name) if value is None else value
        return dataclasses.replace(request, **filled)

    def text_for(self, preset_name: str | None) -> TextSettings:
        """The text settings under a preset, which may bring system prompts and a limit of its own."""
        preset = self.preset(preset_name)
        names = ("system_prompt_xml", "system_prompt_tags", "negative_system_prompt", "max_tokens")
        given = {name: getattr(preset, name) for name in names if getattr(preset, name) is not None}
        return self.text.model_copy(update=given)

    def preset(self, name: str | None) -> Preset:
        """A preset by name; an empty one for None."""
        if name is None:
            return Preset()
        if name not in self.presets:
            known = ", ".join(sorted(self.presets)) or "none"
            raise RequestError(f"unknown preset {name!r}; {self.name} has: {known}")
        return self.presets[name]


def read_settings(folder: Path) -> BundleSettings:
    """Read a bundle's ``newbie.json``.

    Raises:
        CheckpointError: if the file is missing.
        ConfigError: if it is no JSON, has an unknown key or a value out of range; names the key.
    """
    path = folder / SETTINGS_FILE
    return parse_settings(read_json(path), path)


def parse_settings(content: dict[str, Any], where: Path) -> BundleSettings:
    """The settings in a JSON object; ``where`` is named in the ConfigError."""
    try:
        return BundleSettings.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_complaint(error, BundleSettings)}") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a bundle's file, with one-line errors (CheckpointError, ConfigError)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing; the bundle is incomplete: copy it again, or give another --model"
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); mend the file or its rights"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text (byte {error.start}); it may be damaged: copy it again"
        ) from None
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}; a JSON object is needed")
    return content


def config_file(weights: Path) -> Path | None:
    """The ``config.json`` that belongs to a part's weights; None where there is none.

    Args:
        weights: the part's folder, its shard index, or its weight file. Beside a file a config counts only
            where no other file of that kind lies there, so that it cannot be another's.
    """
    folder = weights if weights.is_dir() else weights.parent
    config = folder / "config.json"
    if not config.is_file():
        return None
    if weights.is_dir() or weights.name.endswith(".index.json"):
        return config
    others = (file for file in folder.iterdir() if file.suffix == weights.suffix and file != weights)
    indexes = folder.glob(f"*{weights.suffix}.index.json")
    return None if any(others) or any(indexes) else config


def write_settings(folder: Path, settings: BundleSettings) -> None:
    """Write ``newbie.json``."""
    text = json.dumps(settings.model_dump(exclude_none=True), indent=2, ensure_ascii=False)
    (folder / SETTINGS_FILE).write_text(text + "\n", encoding="utf-8")


def bundle_places() -> tuple[Path, ...]:
    """Folders searched for a bundle by name: the checkout's ``bundles``, then the package's."""
    here = Path(__file__).resolve().parent
    return (here.parents[1] / "bundles", here / "bundles")


def bundle_names() -> list[str]:
    """Names of the bundles that came with this installation."""
    found = {
        folder.name
        for place in bundle_places()
        if place.is_dir()
        for folder in place.iterdir()
        if (folder / INDEX_FILE).is_file()
    }
    return sorted(found)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """While it lasts, what the system refuses (rights, links) is a CheckpointError of one line."""
    try:
        yield
    except OSError as error:
        place = error.filename or path
        raise CheckpointError(
            f"{place} cannot be read: {error.strerror or error}; mend its rights or copy it again"
        ) from None


def find_bundle(name_or_path: str | Path) -> Path:
    """Where a model lies: the folder of a bundle, by its path or by the name of one that came with the
    installation; a folder or file with weights in another layout; or what was downloaded under a name.

    Raises:
        CheckpointError: says what was looked for and where.
    """
    given = Path(name_or_path).expanduser()
    with reading(given):
        return _find_bundle(given, str(name_or_path))


def _find_bundle(given: Path, named: str) -> Path:
    if given.is_dir() and (given / INDEX_FILE).is_file():
        return given
    if given.parts == (named,):
        for place in bundle_places():
            if (place / named / INDEX_FILE).is_file():
                return place / named
    if _has_weights(given):
        return given
    downloaded = models_folder() / named
    if given.parts == (named,) and _has_weights(downloaded):
        return downloaded
    known = ", ".join(bundle_names()) or "none"
    if given.is_symlink() and not given.exists():
        raise CheckpointError(
            f"{given} is a link that leads nowhere or in a circle; mend it or copy the file"
        )
    if given.is_dir():
        raise CheckpointError(
            f"{given} has no {INDEX_FILE} and no weight files; give a folder that has them, "
            f"or the name of an embedded model ({known})"
        )
    if given.exists():
        raise CheckpointError(
            f"{given} is no weight file; give the bundle's folder (with {INDEX_FILE}), a weight file "
            f"({', '.join(WEIGHT_SUFFIXES)}), or an embedded model ({known})"
        )
    raise CheckpointError(
        f"no model {named!r}: there is no such folder, and no embedded model of that name; embedded: {known}"
    )


def content_hash(folder: Path) -> str:
    """What names a bundle's content: a SHA-256 over the settings and every component's files.

    Files up to 64 MiB are read whole (``sha256:``). Of larger ones the size and 16 blocks of 1 MiB spread
    evenly, first and last included, are read, and the name says so (``sha256-sampled:``). The model card,
    pictures and other files beside the components do not count.
    """
    total = hashlib.sha256()
    sampled = False
    for path in _counted_files(folder):
        size = path.stat().st_size
        inside = path.name if path == folder else path.relative_to(folder).as_posix()
        total.update(f"{inside}\0{size}\0".encode())
        if size <= _WHOLE_FILE:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
            continue
        sampled = True
        with path.open("rb") as file:
            for number in range(16):
                file.seek((size - _BLOCK) * number // 15)
                total.update(file.read(_BLOCK))
    return f"{'sha256-sampled' if sampled else 'sha256'}:{total.hexdigest()}"


def _counted_files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    named = [folder / name for name in (INDEX_FILE, SETTINGS_FILE) if (folder / name).is_file()]
    for component in (*COMPONENTS, "text_encoder_2", "tokenizer_2"):
        inside = (path for path in (folder / component).rglob("*") if path.is_file())
        named += sorted(path for path in inside if not path.name.startswith("."))
    # Layouts without such folders: what holds weights counts.
    return named or sorted(path for path in folder.rglob("*") if path.suffix in WEIGHT_SUFFIXES)


def _has_weights(path: Path) -> bool:
    """Whether a file is a weight file, or a folder has some, at most two folders deep."""
    if path.is_file():
        return path.suffix in WEIGHT_SUFFIXES
    places = (path, *(child for child in path.iterdir() if child.is_dir())) if path.is_dir() else ()
    return any(file.suffix in WEIGHT_SUFFIXES for place in places for file in place.iterdir())


def _first_complaint(error: ValidationError, model: type[BaseModel]) -> str:
    """The first of pydantic's complaints in one line, with the key's full name."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        allowed = ", ".join(_fields_at(model, first["loc"][:-1])) or "see the documentation"
        return f"unknown key {key!r}; allowed there: {allowed}"
    if first["type"] == "missing":
        return f"the key {key!r} is missing"
    shown = "" if not key else f"{key!r} "
    return f"{shown}has the value {first['input']!r}: {first['msg']}"


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the nested model that a complaint's path leads to."""
    here: type[BaseModel] = model
    for part in path:
        field = here.model_fields.get(str(part))
        kind = Preset if field is None or str(part) == "presets" else field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            here = kind
    return list(here.model_fields)
