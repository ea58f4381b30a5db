"""What made a picture, kept inside the picture: request ↔ PNG metadata.

Every PNG that this project writes has two texts. The chunk `newbie` is JSON and holds everything that is
needed to make the picture again: the prompt to the letter, every setting as it was used, the seed, the bundle
with a hash of its content, versions and device. The chunk `parameters` says the same in the form that A1111's
web UI introduced and that picture viewers of this field show; it is for reading only, because it cannot hold
a prompt's spacing.

No time and no absolute path is written: the same request gives the same bytes, and a shared picture tells
nothing about the machine's folders.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import platform
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from newbie_image.adapter_use import AdapterUse, adapter_entries, read_adapter_entries
from newbie_image.errors import OutputError, ProvenanceError, RequestError
from newbie_image.request import GeneratedImage, GenerationRequest

if TYPE_CHECKING:
    from PIL.Image import Image

FORMAT: Final = 1
CHUNK: Final = "newbie"
PARAMETERS_CHUNK: Final = "parameters"
VERSIONED_PACKAGES: Final = ("newbie-image", "torch", "diffusers", "transformers", "tokenizers")

_REQUEST_FIELDS: Final = tuple(f.name for f in fields(GenerationRequest))
_AS_ASKED: Final = (
    "prompt",
    "negative_prompt",
    "seed",
    "count",
    "batch",
    "preset",
    "tolerant",
    "text_form",
    "long_prompt",
)
# Left out of the record where they are what they always were: older versions read the record too.
_USUAL: Final = {"text_form": "typed", "long_prompt": "cut", "binding": "off", "changes": ()}
_ENVIRONMENT: Final = (
    "dtype",
    "attention",
    "vae",
    "vae_hash",
    "transformer",
    "text_encoder",
    "clip_model",
    "quantise",
    "quantise_encoders",
    "torchao",
    "trims",
)
_VERSION_NOTE: Final = re.compile(r"<!--\s*version\s*:\s*(.*?)\s*-->", re.DOTALL)
_A1111_SAMPLERS: Final = {
    "euler": "Euler",
    "heun": "Heun",
    "midpoint": "Midpoint",
    "dpmpp_2m": "DPM++ 2M",
    "res_multistep": "Res Multistep",
}


@dataclass(frozen=True)
class BundleIdentity:
    """Which weights made a picture.

    Args:
        name: `nano`, or the last part of the bundle's folder.
        content_hash: what :func:`newbie_image.bundle.content_hash` gives, as `sha256:` and 64 digits.
    """

    name: str
    content_hash: str


@dataclass(frozen=True)
class PictureRecord:
    """All that is needed to make a picture again.

    Args:
        request: the request with every setting as it was used.
        index: which picture of the request this is, from 0; its seed is `request.seed + index`.
        bundle: the weights.
        pixels: what :func:`hash_pixels` gives.
        versions: package → version.
        environment: device, dtype, attention backend and the like, each a short text.
        adapters: what was on the transformer, in order.
    """

    request: GenerationRequest
    index: int
    bundle: BundleIdentity
    pixels: str
    versions: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    adapters: tuple[AdapterUse, ...] = ()

    @property
    def seed(self) -> int:
        """The seed of this picture."""
        return self.request.seed + self.index

    @property
    def prompt_version(self) -> str | None:
        """The prompt's own version note (`<!-- version: … -->`), None when it has none."""
        found = _VERSION_NOTE.search(self.request.prompt)
        return found.group(1) if found else None


def record_picture(picture: GeneratedImage, request: GenerationRequest) -> PictureRecord:
    """Note what made a picture.

    Args:
        picture: as the pipeline gave it; its settings say what was used where the request left it open.
        request: what was asked for. The record keeps of it only the batch that the picture was computed in,
            because its neighbours there, and no others, can touch its last bits.
    """
    used = {
        name: picture.settings[name]
        for name in _REQUEST_FIELDS
        if name not in _AS_ASKED and picture.settings.get(name) is not None
    }
    place = picture.seed - request.seed
    first = place // request.batch * request.batch
    alone = replace(
        request, **used, seed=request.seed + first, count=min(request.batch, request.count - first)
    )
    device = str(picture.settings.get("device", "unknown"))
    environment = {"device": device, "device_name": device_name(device)}
    if device == "cpu":
        import torch  # it drew the picture, so it is there

        environment["threads"] = str(torch.get_num_threads())
    environment |= {
        name: str(picture.settings[name]) for name in _ENVIRONMENT if picture.settings.get(name) is not None
    }
    return PictureRecord(
        request=alone,
        index=place - first,
        bundle=BundleIdentity(
            str(picture.settings.get("bundle", "unnamed")),
            str(picture.settings.get("bundle_hash") or "unknown"),
        ),
        pixels=hash_pixels(picture.image),
        versions=package_versions(),
        environment=environment,
        adapters=tuple(picture.settings.get("adapters", ())),
    )


def device_name(device: str) -> str:
    """What the processor behind `cuda:0`, `mps` or `cpu` is called."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(torch.device(device))
    return processor_name()


def processor_name() -> str:
    """The CPU's name, as far as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide what a picture looks like, read without importing them."""
    versions = {}
    for name in VERSIONED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def hash_pixels(image: Image) -> str:
    """sha256 over width, height and the RGB bytes: the same for two pictures that are the same to the bit."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()


def to_json(record: PictureRecord) -> str:
    """The text of the chunk `newbie`."""
    request = {name: getattr(record.request, name) for name in _REQUEST_FIELDS}
    request = {name: value for name, value in request.items() if _USUAL.get(name, ...) != value}
    document = {
        "format": FORMAT,
        "request": {name: value for name, value in request.items() if value is not None},
        "index": record.index,
        "seed": record.seed,
        "bundle": {"name": record.bundle.name, "content_hash": record.bundle.content_hash},
        "pixels_sha256": record.pixels,
        "versions": dict(record.versions),
        "environment": dict(record.environment),
    }
    if record.adapters:
        document["adapters"] = adapter_entries(record.adapters)
    if record.prompt_version is not None:
        document["prompt_version"] = record.prompt_version
    text = json.dumps(document, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half an emoji: only escapes can carry it
        text = json.dumps(document)
    return text


def from_json(text: str) -> PictureRecord:
    """Read the chunk `newbie`.

    Raises:
        ProvenanceError: the text is not JSON, of a newer format, or an entry is missing or misshapen.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProvenanceError(
            f"the picture's metadata is damaged (not JSON: {error}); it cannot be replayed"
        ) from None
    if not isinstance(document, dict):
        raise ProvenanceError("the picture's metadata is damaged (no JSON object); it cannot be replayed")
    if document.get("format") != FORMAT:
        raise ProvenanceError(
            f"the picture's metadata has format {document.get('format')!r}, this version reads {FORMAT}; "
            "a newer newbie-image made it: pip install --upgrade newbie-image"
        )
    try:
        return PictureRecord(
            request=_read_request(document["request"]),
            index=_read_index(document["index"]),
            bundle=BundleIdentity(**_texts(document["bundle"])),
            pixels=str(document["pixels_sha256"]),
            versions=_texts(document.get("versions", {})),
            environment=_texts(document.get("environment", {})),
            adapters=read_adapter_entries(document.get("adapters", [])),
        )
    except KeyError as error:
        raise ProvenanceError(
            f"the picture's metadata is damaged (no entry {error}); it cannot be replayed"
        ) from None
    except (TypeError, RequestError) as error:
        raise ProvenanceError(f"the picture's metadata is damaged ({error}); it cannot be replayed") from None


def _read_request(entries: object) -> GenerationRequest:
    if not isinstance(entries, dict):
        raise TypeError("request is no object")
    unknown = sorted(set(entries) - set(_REQUEST_FIELDS))
    if unknown:
        raise TypeError(f"unknown settings: {', '.join(unknown)}")
    for name in ("prompt", "negative_prompt"):
        if not isinstance(entries.get(name, ""), str):
            raise TypeError(f"{name} is no text")
    changes = entries.get("changes", [])
    if not isinstance(changes, list) or not all(isinstance(change, list) for change in changes):
        raise TypeError("changes are no list of [step, prompt]")
    told = {"binding": "off", **entries, "changes": tuple(tuple(change) for change in changes)}
    return GenerationRequest(**told)  # older versions knew no binding


def _read_index(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"index is {value!r}")
    return value


def _texts(entries: object) -> dict[str, str]:
    if not isinstance(entries, dict) or not all(isinstance(value, str) for value in entries.values()):
        raise TypeError("an object of texts was expected")
    return entries


def parameters_text(record: PictureRecord) -> str:
    """What made the picture, in the form that readers of A1111's `parameters` understand."""
    request = record.request
    entries: dict[str, object] = {"Steps": request.steps}
    if request.sampler is not None:
        entries["Sampler"] = _A1111_SAMPLERS.get(request.sampler, request.sampler)
    entries |= {
        "CFG scale": request.guidance_scale,
        "Seed": record.seed,
        "Size": f"{request.width}x{request.height}" if request.width and request.height else None,
        "Model hash": record.bundle.content_hash.rpartition(":")[2][:10],
        "Model": record.bundle.name,
        "Shift": request.shift,
        "CFG truncation": request.cfg_truncation,
        "CFG renorm": request.cfg_renorm,
        "Preset": request.preset,
        "Binding": None if request.binding == "off" else request.binding,
        "Text form": None if request.text_form == "typed" else request.text_form,
        "Long prompt": None if request.long_prompt == "cut" else request.long_prompt,
        "Lora hashes": ", ".join(use.short_hash for use in record.adapters) or None,
        "Version": f"newbie-image {record.versions.get('newbie-image', '')}".strip(),
    }
    lines = [" ".join([request.prompt.rstrip(), *(use.note for use in record.adapters)])]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt.rstrip()}")
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in entries.items() if value is not None))
    return "\n".join(lines)


def _quoted(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ',:\n"') else text


def encode_png(image: Image, record: PictureRecord) -> bytes:
    """The picture as PNG with what made it. The same arguments give the same bytes."""
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    texts.add_itxt(CHUNK, to_json(record))
    texts.add_text(PARAMETERS_CHUNK, parameters_text(record).encode("utf-8", "replace").decode())
    buffer = io.BytesIO()
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    rgb.save(buffer, format="PNG", pnginfo=texts)
    return buffer.getvalue()


def save_picture(path: Path | str, picture: GeneratedImage, request: GenerationRequest) -> str:
    """Write a finished picture as a PNG that can be made again; give back the sha256 of the file.

    Raises:
        OutputError: the path cannot be written, or the disk is full; nothing is left behind.
    """
    return write_picture(path, picture.image, record_picture(picture, request))


def write_picture(path: Path | str, image: Image, record: PictureRecord) -> str:
    """Write a PNG with its record; give back the sha256 of the file.

    The file is written under a temporary name in the same folder and then renamed, so that there is either
    the whole picture or none.

    Raises:
        OutputError: the path cannot be written, or the disk is full; nothing is left behind.
    """
    path = Path(path)
    check_writable(path)
    data = encode_png(image, record)
    replace_file(path, data)
    return hashlib.sha256(data).hexdigest()


def check_writable(path: Path) -> None:
    """Say before the work begins that a picture could not be written.

    Raises:
        OutputError: not a `.png` name, a folder in its place, no such folder, or no permission.
    """
    if path.suffix.lower() != ".png":
        raise OutputError(f"cannot write {path}: pictures are PNG files; give a name that ends in .png")
    folder = path.parent
    try:
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; give the name of a file in it")
        if not folder.is_dir():
            raise OutputError(
                f"cannot write {path}: there is no folder {folder}; make it or give another path"
            )
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {path}: {_reason(error)}; give another path") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}: no permission in folder {folder}; give another path")


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OutputError: it cannot be written; the temporary file is removed and an older file at `path`
        untouched.
    """
    temporary = path.parent / f".newbie-{os.getpid()}-{threading.get_ident()}.part"
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"cannot write {path}: {_reason(error)}; give another path or make room (needs {len(data)} bytes)"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_picture(path: Path | str) -> tuple[Image, PictureRecord]:
    """Read a PNG that :func:`write_picture` wrote.

    Returns:
        The picture (RGB) and what made it.

    Raises:
        ProvenanceError: no such file, no PNG, a damaged one, or one without this project's metadata.
    """
    import PIL.Image

    path = Path(path)
    try:
        with PIL.Image.open(path) as opened:
            kind = opened.format
            image = opened.convert("RGB")  # reads the whole file: text may stand after the pixels
            texts: Mapping[str, object] = getattr(opened, "text", {}) if kind == "PNG" else {}
    except FileNotFoundError:
        raise ProvenanceError(f"there is no picture {path}; check the name") from None
    except PIL.UnidentifiedImageError:
        raise ProvenanceError(f"{path} is not a picture; give a PNG written by newbie-image") from None
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise ProvenanceError(
            f"cannot read {path}: {_reason(error)}; give an undamaged PNG written by newbie-image"
        ) from None
    text = texts.get(CHUNK)
    if isinstance(text, str):
        return image, from_json(text)
    if kind != "PNG":
        raise ProvenanceError(
            f"{path} is a {kind} file without a record of what made it; give the PNG that newbie-image wrote"
        )
    if PARAMETERS_CHUNK in texts or "workflow" in texts or "prompt" in texts:
        raise ProvenanceError(
            f"{path} was made by another program; only pictures of newbie-image can be replayed"
        )
    raise ProvenanceError(
        f"{path} holds no record of what made it (editors and sites remove it); give the original PNG"
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "the disk is full"
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
