"""Names of the text encoders' tensors in the layouts that are met; see ``checkpoints/layouts.py``."""

from __future__ import annotations

import re

from newbie_image.checkpoints.layouts import Piece, Plan, Shapes, renamed
from newbie_image.errors import CheckpointError

# Gemma's text model stands behind one of these, by the class that wrote the file and its age.
_GEMMA_PREFIXES = (
    "model.language_model.model.",
    "language_model.model.",
    "model.language_model.",
    "language_model.",
    "text_encoder.",
    "model.",
    "",
)
_GEMMA_ROOTS = ("embed_tokens.", "layers.", "norm.")
_GEMMA_OTHER = re.compile(
    r"(^|\.)(vision_tower|vision_model|multi_modal_projector|lm_head)\.|^spiece_model$|^scaled_fp8$"
)

_JINA_PREFIXES = ("text_model.transformer.", "text_model.", "transformer.", "roberta.", "model.", "")
_JINA_ROOTS = ("embeddings.", "emb_ln.", "encoder.")
_JINA_ORIGINAL = ".parametrizations.weight.original"
_JINA_OTHER = re.compile(
    r"^(vision_model|visual_projection|text_projection|vision_projection)\.|^logit_scale$|^spiece_model$|^scaled_fp8$"
    r"|(^|\.)(pooler|lora_[AB]|proj|pooler_layer)\b|position_ids$|inv_freq$|\.lora_[AB]$"
)


def read_gemma(shapes: Shapes) -> Plan:
    """The plan from a Gemma 3 file to the text model's own names.

    The vision tower, its projector, the output layer and packed tokenizers are known and left aside.

    Raises:
        CheckpointError: no Gemma 3 text model.
    """
    layout = "comfyui" if "spiece_model" in shapes else "transformers"
    plan = renamed(shapes, layout, _gemma_name, lambda name: bool(_GEMMA_OTHER.search(name)))
    if "embed_tokens.weight" not in plan.pieces or "layers.0.self_attn.q_norm.weight" not in plan.pieces:
        raise CheckpointError(f"this is no Gemma 3 text model; its names begin {_some(shapes)}")
    return plan


def read_jina(shapes: Shapes) -> Plan:
    """The plan from a Jina CLIP v2 file to the text tower's own names.

    The vision tower, the projections, the unused pooler and the adapters of single tasks (Newbie uses none)
    are known and left aside.

    Raises:
        CheckpointError: no Jina CLIP v2 text tower.
    """
    layout = "comfyui" if any(name.startswith("model.encoder.") for name in shapes) else "published"
    if "encoder.layers.0.mixer.Wqkv.weight" in shapes:
        layout = "newbie"
    plan = renamed(shapes, layout, _jina_name, lambda name: bool(_JINA_OTHER.search(name)))
    if "encoder.layers.0.mixer.Wqkv.weight" not in plan.pieces:
        raise CheckpointError(f"this is no text tower of Jina CLIP v2; its names begin {_some(shapes)}")
    return plan


def write_gemma(layout: str, shapes: Shapes) -> Plan:
    """The plan from our Gemma names to a layout's: bare (newbie), or behind ``model.`` (comfyui) or
    ``language_model.`` (published and diffusers, as ``Gemma3Model`` writes itself)."""
    prefixes = {
        "newbie": "",
        "comfyui": "model.",
        "published": "language_model.",
        "diffusers": "language_model.",
    }
    return _prefixed(layout, shapes, prefixes)


def write_jina(layout: str, shapes: Shapes) -> Plan:
    """The plan from our Jina names to a layout's: bare (newbie), or behind ``model.`` (comfyui) or
    ``text_model.transformer.`` (published and diffusers)."""
    tower = "text_model.transformer."
    return _prefixed(
        layout, shapes, {"newbie": "", "comfyui": "model.", "published": tower, "diffusers": tower}
    )


def _prefixed(layout: str, shapes: Shapes, prefixes: dict[str, str]) -> Plan:
    if layout not in prefixes:
        raise CheckpointError(f"the layout {layout!r} is not written; choose one of {', '.join(prefixes)}")
    return Plan(layout, {prefixes[layout] + name: Piece((name,)) for name in shapes})


def _gemma_name(name: str) -> str | None:
    for prefix in _GEMMA_PREFIXES:
        rest = name.removeprefix(prefix)
        if name.startswith(prefix) and rest.startswith(_GEMMA_ROOTS):
            return rest
    return None


def _jina_name(name: str) -> str | None:
    if _JINA_OTHER.search(name.replace(_JINA_ORIGINAL, ".weight")):
        return None
    for prefix in _JINA_PREFIXES:
        rest = name.removeprefix(prefix)
        if name.startswith(prefix) and rest.startswith(_JINA_ROOTS):
            return rest.replace(_JINA_ORIGINAL, ".weight")
    return None


def _some(shapes: Shapes) -> str:
    return ", ".join(sorted(shapes)[:3]) or "nowhere: it is empty"
