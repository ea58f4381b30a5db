"""Which layout a folder or file has, and where each part of the model lies in it.

Folders are told by their shape, single files by the names of their tensors, of which only headers are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from newbie_image.bundle import INDEX_FILE, WEIGHT_SUFFIXES, read_json, reading
from newbie_image.checkpoints.files import GGUF_SUFFIX, INDEX_SUFFIXES, PICKLE_SUFFIXES, open_source
from newbie_image.checkpoints.layouts import Plan, Shapes, read_transformer
from newbie_image.checkpoints.text_layouts import read_gemma, read_jina
from newbie_image.checkpoints.vae_layouts import read_vae
from newbie_image.errors import CheckpointError

PARTS = ("transformer", "text_encoder", "clip_model", "vae")
LAYOUTS = ("newbie", "published", "training", "prebuilt", "comfyui", "diffusers")
READERS = {
    "transformer": read_transformer,
    "text_encoder": read_gemma,
    "clip_model": read_jina,
    "vae": read_vae,
}
# Where a text encoder's tokenizer lies, its own folder's names first; beside the weights besides.
TOKENIZER_PLACES = {
    "text_encoder": ("tokenizer", ("tokenizer", "text_encoder")),
    "clip_model": ("clip_tokenizer", ("clip_tokenizer", "tokenizer_2", "clip_model", "text_encoder_2")),
}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
_COMFYUI_FOLDERS = ("", "diffusion_models", "unet", "text_encoders", "clip", "vae", "checkpoints")


@dataclass(frozen=True)
class Checkpoint:
    """A model as it lies on the disk.

    Args:
        path: what was given.
        layout: one of LAYOUTS.
        parts: the file or folder of each part that was found; keys from PARTS.
        tokenizers: folder of each tokenizer that was found: ``tokenizer``, ``clip_tokenizer``.
    """

    path: Path
    layout: str
    parts: Mapping[str, Path]
    tokenizers: Mapping[str, Path]

    @property
    def missing(self) -> tuple[str, ...]:
        """The parts that are not there."""
        return tuple(name for name in PARTS if name not in self.parts)


def recognise(path: Path) -> Checkpoint:
    """Find out what a folder or file holds.

    Raises:
        CheckpointError: nothing that is known; says what was looked for.
    """
    with reading(path):
        return _recognise(path)


def _recognise(path: Path) -> Checkpoint:
    if path.is_file():
        return Checkpoint(path, *_single_file(path), {})
    if not path.is_dir():
        raise CheckpointError(f"{path} is missing; give a model's folder or weight file")
    consolidated = _consolidated(path)
    if consolidated is not None:
        return Checkpoint(path, "training", {"transformer": consolidated}, {})
    if (path / "transformer").is_dir():
        return _folders(path)
    found = dict(_comfyui_files(path))
    if found:
        return Checkpoint(path, "comfyui", found, {})
    raise CheckpointError(
        f"{path} holds no model that is known: neither {INDEX_FILE} and transformer/ (bundle, published, "
        "prebuilt, diffusers), nor consolidated*.safetensors or .pth (training), nor ComfyUI's files"
    )


def read_part(name: str, path: Path, shapes: Shapes) -> Plan:
    """How a file's tensors become a part of the model.

    Raises:
        CheckpointError: they are no such part; names the file.
    """
    try:
        return READERS[name](shapes)
    except CheckpointError as error:
        raise CheckpointError(f"{path} cannot be the {name}: {error}") from None


def part_of(shapes: Shapes) -> str | None:
    """Which part of the model these tensors are; None for none of them."""
    for name, read in READERS.items():
        try:
            read(shapes)
        except CheckpointError:
            continue
        return name
    return None


def tokenizer_beside(part: str, path: Path) -> Path | None:
    """The folder of a text encoder's tokenizer: the weights' own, or where the layouts have it beside that.

    Args:
        part: ``text_encoder`` or ``clip_model``.
        path: the weights' file or folder, wherever it lies.
    """
    folder = path if path.is_dir() else path.parent
    _, names = TOKENIZER_PLACES[part]
    # A folder next to any other could be anybody's.
    near = [folder.parent / name for name in names] if folder.absolute().name in names else []
    return next((place for place in (folder, *near) if _has_tokenizer(place)), None)


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def _single_file(path: Path) -> tuple[str, dict[str, Path]]:
    source = open_source(path)
    part = part_of(source.shapes)
    if part is None:
        some = ", ".join(sorted(source.shapes)[:3])
        raise CheckpointError(f"{path} is no part of this model; its tensors are {some} …")
    layout = READERS[part](source.shapes).layout
    by_name = {"diffusers": "diffusers", "prebuilt": "prebuilt"}
    return by_name.get(layout, "comfyui") if part == "transformer" else "comfyui", {part: path}


def _consolidated(path: Path) -> Path | None:
    """The training checkpoint's transformer; averaged weights before raw ones, safetensors before pickles."""
    for stem in ("consolidated_ema", "consolidated"):
        for suffix in (".safetensors", ".pth"):
            found = sorted(path.glob(f"{stem}.*{suffix}"))
            if len(found) > 1:
                raise CheckpointError(
                    f"{path} has the weights in {len(found)} slices ({stem}.*); merge the slices first"
                )
            if found:
                return found[0]
    return None


def _folders(path: Path) -> Checkpoint:
    layout = _folder_layout(path)
    names = {"clip_model": "text_encoder_2"} if layout == "diffusers" else {}
    parts = {
        name: path / names.get(name, name) for name in PARTS if _has_weights(path / names.get(name, name))
    }
    tokenizers = {
        name: path / place
        for name, tried in TOKENIZER_PLACES.values()
        for place in reversed(tried)
        if _has_tokenizer(path / place)
    }
    return Checkpoint(path, layout, parts, tokenizers)


def _folder_layout(path: Path) -> str:
    index = read_json(path / INDEX_FILE) if (path / INDEX_FILE).is_file() else {}
    entry = index.get("transformer")
    if isinstance(entry, list) and entry and str(entry[0]).startswith("newbie_image"):
        return "newbie"
    if "text_encoder_2" in index or (path / "text_encoder_2").is_dir():
        return "diffusers"
    single = (path / "transformer" / "model.safetensors").is_file()
    pickled = any(file.suffix in PICKLE_SUFFIXES for file in (path / "transformer").iterdir())
    return "prebuilt" if single or pickled else "published"


def _has_weights(folder: Path) -> bool:
    return folder.is_dir() and any(
        file.name.endswith((*WEIGHT_SUFFIXES, *INDEX_SUFFIXES)) for file in folder.iterdir()
    )


def _comfyui_files(path: Path) -> Iterator[tuple[str, Path]]:
    taken: dict[str, Path] = {}
    for folder in _COMFYUI_FOLDERS:
        for file in sorted((path / folder).glob("*.safetensors")):
            part = part_of(open_source(file).shapes)
            if part is None:
                continue
            if part in taken:
                raise CheckpointError(
                    f"{path} has two files for the {part}: {taken[part].name} and {file.name}; name one"
                )
            taken[part] = file
            yield part, file
    if "transformer" in taken:
        return
    for folder in _COMFYUI_FOLDERS:
        found = sorted((path / folder).glob(f"*{GGUF_SUFFIX}"))
        whole = [file for file in found if part_of(open_source(file).shapes) == "transformer"]
        if len(whole) > 1:
            raise CheckpointError(
                f"{path} has two files for the transformer: {whole[0].name} and {whole[1].name}; name one"
            )
        if whole:
            yield "transformer", whole[0]
            return
