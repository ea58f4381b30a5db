"""A model from any layout that is read into one of the four that are written.

Tensors keep their bits unless another dtype is asked for. Configs and tokenizers go where the layout has a
place for them, and into the files' metadata where it has none, so that the model comes back whole. Everything
is written into a folder beside the target, which takes its name when it is complete, with the checksums of
the weight files.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from newbie_image.bundle import INDEX_FILE, BundleSettings, write_settings
from newbie_image.checkpoints.checksums import sums_of, write_sums
from newbie_image.checkpoints.components import constructed
from newbie_image.checkpoints.files import TensorSource, cannot_write, open_source
from newbie_image.checkpoints.foreign import (
    CONFIG_KEY,
    MERGED_KEY,
    SETTINGS_KEY,
    TOKENIZER_KEY,
    TOKENIZER_OF,
    builder,
    checkpoint_settings,
)
from newbie_image.checkpoints.layouts import Piece, Plan, write_transformer
from newbie_image.checkpoints.load import build_empty, check_plan, tied_names
from newbie_image.checkpoints.packed_tokenizer import PACKED_KEY, unpack_tokenizer
from newbie_image.checkpoints.recognise import Checkpoint, read_part
from newbie_image.checkpoints.text_layouts import write_gemma, write_jina
from newbie_image.checkpoints.vae_layouts import write_vae
from newbie_image.errors import CheckpointError, OutputError

WRITTEN = ("newbie", "published", "comfyui", "diffusers")
_WRITERS = {
    "transformer": write_transformer,
    "text_encoder": write_gemma,
    "clip_model": write_jina,
    "vae": write_vae,
}
_FILES = {
    "newbie": {
        "transformer": "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder": "text_encoder/model.safetensors",
        "clip_model": "clip_model/diffusion_pytorch_model.safetensors",
        "vae": "vae/diffusion_pytorch_model.safetensors",
    },
    "published": {
        "transformer": "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder": "text_encoder/gemma3-4b-it.safetensors",
        "clip_model": "clip_model/jina-clip-v2.safetensors",
        "vae": "vae/diffusion_pytorch_model.safetensors",
    },
    "diffusers": {
        "transformer": "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder": "text_encoder/model.safetensors",
        "clip_model": "text_encoder_2/model.safetensors",
        "vae": "vae/diffusion_pytorch_model.safetensors",
    },
    "comfyui": {
        "transformer": "diffusion_models/NewBie-image.safetensors",
        "text_encoder": "text_encoders/gemma_3_4b_it.safetensors",
        "clip_model": "text_encoders/jina_clip_v2.safetensors",
        "vae": "vae/ae.safetensors",
    },
}
_TOKENIZER_FOLDERS = {
    "newbie": {"tokenizer": "tokenizer", "clip_tokenizer": "clip_tokenizer"},
    "published": {"tokenizer": "text_encoder", "clip_tokenizer": "clip_model"},
    "diffusers": {"tokenizer": "tokenizer", "clip_tokenizer": "tokenizer_2"},
}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model")
_INDEXES: dict[str, dict[str, list[str]]] = {
    "newbie": {
        "transformer": ["newbie_image", "NextDiT"],
        "text_encoder": ["newbie_image", "GemmaTextModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "clip_model": ["newbie_image", "JinaTextModel"],
        "clip_tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    },
    "published": {
        "transformer": ["transformer", "NextDiT_3B_GQA_patch2_Adaln_Refiner_WHIT_CLIP"],
        "text_encoder": ["text_encoder", "Gemma3Model"],
        "tokenizer": ["text_encoder", "AutoTokenizer"],
        "clip_model": ["clip_model", "JinaCLIPModel"],
        "clip_tokenizer": ["clip_model", "AutoTokenizer"],
    },
    "diffusers": {
        "transformer": ["diffusers", "Lumina2Transformer2DModel"],
        "text_encoder": ["transformers", "Gemma3Model"],
        "tokenizer": ["transformers", "GemmaTokenizerFast"],
        "text_encoder_2": ["transformers", "JinaCLIPModel"],
        "tokenizer_2": ["transformers", "XLMRobertaTokenizerFast"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    },
}


class Changes(Protocol):
    """What is to be other in the files that are written."""

    def tensor(self, part: str, name: str, original: Tensor, dtype: torch.dtype | None) -> Tensor:
        """A tensor under our name: the original, or another, which is then in the dtype that is written."""
        ...

    def metadata(self, part: str, before: Mapping[str, str]) -> dict[str, str]:
        """Entries that join those of a part's file."""
        ...

    def settings(self, before: BundleSettings) -> BundleSettings:
        """The settings that are written."""
        ...


def convert(
    checkpoint: Checkpoint,
    target: Path,
    layout: str,
    dtype: torch.dtype | None = None,
    changes: Changes | None = None,
) -> tuple[Path, ...]:
    """Write a model in another layout.

    Args:
        checkpoint: what to read; its parts may come from several places.
        target: the folder to make; it must not exist, or be empty.
        layout: one of WRITTEN.
        dtype: of floating point tensors; None keeps them to the bit (quantised ones become bfloat16).
        changes: to tensors, metadata and settings on the way; None for none.

    Returns:
        The weight files written.

    Raises:
        CheckpointError: the checkpoint is damaged, or the layout cannot carry it.
        OutputError: the target is taken or cannot be written.
    """
    if layout not in WRITTEN:
        raise CheckpointError(f"the layout {layout!r} is not written; choose one of {', '.join(WRITTEN)}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target} is there already; give a new folder")
    # Every part is planned before the first byte is written.
    settings = checkpoint_settings(checkpoint)
    settings = settings if changes is None else changes.settings(settings)
    parts = {name: _Part(name, path, layout, changes) for name, path in checkpoint.parts.items()}
    draft = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name, part in parts.items():
            _write_part(draft, layout, part, checkpoint, settings, dtype)
            _write_tokenizer(draft, layout, name, part, checkpoint)
        _write_index(draft, layout, parts, settings)
        # Of the weights alone: people change the small files by hand.
        write_sums(draft, sums_of(draft, [draft / _FILES[layout][name] for name in parts]))
        if target.exists():
            target.rmdir()
        draft.rename(target)
    except (OSError, SafetensorError) as error:
        raise cannot_write(target, error) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return tuple(target / _FILES[layout][name] for name in parts)


class _Part:
    """One part, read and planned into the other layout."""

    def __init__(self, name: str, path: Path, layout: str, changes: Changes | None) -> None:
        self.name = name
        self.changes = changes
        self.source: TensorSource = open_source(path)
        self.reading: Plan = read_part(name, path, self.source.shapes)
        self.model = build_empty(builder(name, path, self.source, self.reading))
        wanted = {key: tuple(value.shape) for key, value in self.model.state_dict().items()}
        claim = f"{path} does not hold the weights of a {type(self.model).__name__}"
        check_plan(self.reading, self.source, wanted, tied_names(self.model), claim)
        self.writing: Plan = _WRITERS[name](layout, wanted)

    def tensors(self, dtype: torch.dtype | None) -> dict[str, Tensor]:
        """The tensors under the other layout's names; whole ones of the same dtype are the mapped file's."""
        kind = dtype or self.source.loads_as
        return {name: self._make(piece, kind) for name, piece in self.writing.pieces.items()}

    def _make(self, piece: Piece, dtype: torch.dtype | None) -> Tensor:
        parts = [self._ours(name, dtype) for name in piece.names]
        made = parts[0] if len(parts) == 1 else torch.cat(parts)
        made = made if piece.rows is None else made[piece.rows[0] : piece.rows[1]]
        made = made if piece.shape is None else made.reshape(piece.shape)
        return (made.to(dtype) if dtype is not None and made.is_floating_point() else made).contiguous()

    def _ours(self, name: str, dtype: torch.dtype | None) -> Tensor:
        if name in self.reading.pieces:
            made = self.source.make(self.reading.pieces[name])
        else:
            kind = next(iter(self.source.dtypes.values()))
            made = torch.ones(tuple(self.model.state_dict()[name].shape), dtype=kind)
        return made if self.changes is None else self.changes.tensor(self.name, name, made, dtype)

    def history(self) -> dict[str, str]:
        """What the file says of adapters in its weights, and what the changes add."""
        before = self.source.metadata
        kept = {MERGED_KEY: before[MERGED_KEY]} if MERGED_KEY in before else {}
        return kept if self.changes is None else {**kept, **self.changes.metadata(self.name, before)}

    def config(self, layout: str) -> dict[str, Any]:
        """Its config as the layout writes it."""
        if self.name == "text_encoder":
            plain = self.model.config.to_dict()
            plain["architectures"] = ["Gemma3TextModel"]
            return (
                plain if layout in ("newbie", "comfyui") else {"model_type": "gemma3", "text_config": plain}
            )
        config = {key: value for key, value in dict(self.model.config).items() if not key.startswith("_")}
        config = {"_class_name": type(self.model).__name__, **config}
        if self.name == "transformer" and layout == "published":
            config |= {"_class_name": _INDEXES[layout]["transformer"][1], "model_type": "nextdit_clip"}
        if self.name == "transformer" and layout == "diffusers":
            config = _diffusers_config(config)
        return config


def _write_part(
    draft: Path,
    layout: str,
    part: _Part,
    checkpoint: Checkpoint,
    settings: BundleSettings,
    dtype: torch.dtype | None,
) -> None:
    file = draft / _FILES[layout][part.name]
    file.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", **part.history()}
    config = json.dumps(part.config(layout), indent=2, ensure_ascii=False) + "\n"
    if layout == "comfyui":
        metadata[CONFIG_KEY] = config
        if part.name == "transformer":
            metadata[SETTINGS_KEY] = settings.model_dump_json(exclude_none=True)
        packed = _tokenizer_files(part, checkpoint)
        if packed:
            metadata[TOKENIZER_KEY] = json.dumps(packed, ensure_ascii=False)
    else:
        (file.parent / "config.json").write_text(config, encoding="utf-8")
    save_file(part.tensors(dtype), file, metadata)


def _tokenizer_files(part: _Part, checkpoint: Checkpoint) -> dict[str, str]:
    """The text files of a part's tokenizer, from its folder or from the weights' metadata."""
    folder = checkpoint.tokenizers.get(TOKENIZER_OF.get(part.name, ""))
    if folder is not None:
        there = [folder / name for name in _TOKENIZER_FILES if name.endswith(".json")]
        return {file.name: file.read_text(encoding="utf-8") for file in there if file.is_file()}
    packed = part.source.metadata.get(TOKENIZER_KEY)
    if packed is not None:
        return json.loads(packed)
    if part.name in TOKENIZER_OF and PACKED_KEY in part.source.shapes:
        tokenizer = unpack_tokenizer(part.source, part.name, part.source.files[0].path)
        with tempfile.TemporaryDirectory() as place:
            tokenizer.save_pretrained(place)
            return {file.name: file.read_text(encoding="utf-8") for file in Path(place).glob("*.json")}
    return {}


def _write_tokenizer(draft: Path, layout: str, name: str, part: _Part, checkpoint: Checkpoint) -> None:
    tokenizer = TOKENIZER_OF.get(name)
    if tokenizer is None or layout == "comfyui":
        return
    folder = draft / _TOKENIZER_FOLDERS[layout][tokenizer]
    folder.mkdir(parents=True, exist_ok=True)
    files = _tokenizer_files(part, checkpoint)
    if not files:
        raise CheckpointError(
            f"{checkpoint.path} comes without its {tokenizer}, which the layout {layout!r} has to have; "
            "put its tokenizer.json beside the weights"
        )
    for file, text in files.items():
        (folder / Path(file).name).write_text(text, encoding="utf-8")


def _write_index(draft: Path, layout: str, parts: Mapping[str, _Part], settings: BundleSettings) -> None:
    if layout == "comfyui":
        return
    entries: dict[str, Any] = dict(_INDEXES[layout])
    if "vae" in parts:
        library = "vae" if layout == "published" else "diffusers"
        entries["vae"] = [library, type(parts["vae"].model).__name__]
    owner = ["newbie_image", "NewbiePipeline"] if layout == "newbie" else "NewbiePipeline"
    text = json.dumps({"_class_name": owner, **entries}, indent=2)
    (draft / INDEX_FILE).write_text(text + "\n", encoding="utf-8")
    write_settings(draft, settings)
    if "scheduler" in entries:
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

        scheduler = constructed(draft, FlowMatchEulerDiscreteScheduler, {"shift": settings.defaults.shift})
        scheduler.save_pretrained(str(draft / "scheduler"))


def _diffusers_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A transformer's config in the fields of diffusers' Lumina 2 class and pull request 12803."""
    names = {
        "hidden_size": "dim",
        "num_layers": "n_layers",
        "num_refiner_layers": "n_refiner_layers",
        "num_attention_heads": "n_heads",
        "num_kv_heads": "n_kv_heads",
        "axes_dim_rope": "axes_dims",
        "pooled_projection_dim": "clip_text_dim",
    }
    same = (
        "patch_size",
        "in_channels",
        "multiple_of",
        "ffn_dim_multiplier",
        "norm_eps",
        "axes_lens",
        "cap_feat_dim",
    )
    fields = {theirs: config[ours] for theirs, ours in names.items()}
    return {"_class_name": "Lumina2Transformer2DModel", **fields, **{name: config[name] for name in same}}
