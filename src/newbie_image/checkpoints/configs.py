"""A component's configuration from what its layout offers: a config file, a file's metadata, or the shapes
alone.

Everything that shapes fix is taken from the shapes, so that a wrong config cannot mislead; a config adds what
they do not tell (rotary axes, epsilon, attention windows).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from newbie_image.checkpoints.layouts import Shapes
from newbie_image.checkpoints.load import unknown_keys
from newbie_image.errors import ConfigError

# diffusers' Lumina 2 names for ours.
_DIFFUSERS_FIELDS = {
    "axes_dim_rope": "axes_dims",
    "axes_lens": "axes_lens",
    "cap_feat_dim": "cap_feat_dim",
    "ffn_dim_multiplier": "ffn_dim_multiplier",
    "hidden_size": "dim",
    "in_channels": "in_channels",
    "multiple_of": "multiple_of",
    "norm_eps": "norm_eps",
    "num_attention_heads": "n_heads",
    "num_kv_heads": "n_kv_heads",
    "num_layers": "n_layers",
    "num_refiner_layers": "n_refiner_layers",
    "patch_size": "patch_size",
    "pooled_projection_dim": "clip_text_dim",
}
_DIFFUSERS_NOTES = ("sample_size", "out_channels", "scaling_factor")
_PUBLISHED_NOTES = ("model_type", "clip_img_dim", "qk_norm", "scale_factor", "torch_dtype", "architectures")
# Beside them, what the converter of upstream's ComfyUI nodes writes.
_NODES_NOTES = ("architecture", "enable_clip")
_OURS = tuple(_DIFFUSERS_FIELDS.values())
FLUX_SCALE, FLUX_SHIFT = 0.3611, 0.1159


def transformer_config(shapes: Shapes, given: Mapping[str, Any] | None, where: Path) -> dict[str, Any]:
    """Constructor arguments of NextDiT.

    Args:
        shapes: our names.
        given: the layout's config, ours, upstream's or diffusers'; None for none.
        where: named in errors.

    Raises:
        ConfigError: unknown keys, or rotary axes that nothing tells.
    """
    given = dict(given or {})
    unknown_keys(
        given, {*_DIFFUSERS_FIELDS, *_DIFFUSERS_NOTES, *_PUBLISHED_NOTES, *_NODES_NOTES, *_OURS}, where
    )
    named = {_DIFFUSERS_FIELDS.get(key, key): value for key, value in given.items()}
    dim, patch_channels = shapes["x_embedder.weight"]
    head_dim = shapes["layers.0.attention.q_norm.weight"][0]
    width = shapes["layers.0.attention.out.weight"][1]
    keys = (shapes["layers.0.attention.qkv.weight"][0] - width) // 2
    inner = shapes["layers.0.feed_forward.w1.weight"][0]
    patch = int(named.get("patch_size", 2))
    axes = named.get("axes_dims")
    if axes is None:
        if head_dim % 6:
            raise ConfigError(
                f"{where}: nothing says how heads of {head_dim} channels are split among the rotary axes; "
                'add a config.json with "axes_dims"'
            )
        axes = [head_dim // 3] * 3
    return {
        "patch_size": patch,
        "in_channels": patch_channels // (patch * patch),
        "dim": dim,
        "n_layers": _count(shapes, "layers."),
        "n_refiner_layers": _count(shapes, "noise_refiner."),
        "n_heads": width // head_dim,
        "n_kv_heads": keys // head_dim,
        "multiple_of": _multiple(inner, dim, named),
        "ffn_dim_multiplier": named.get("ffn_dim_multiplier"),
        "norm_eps": named.get("norm_eps", 1e-5),
        "cap_feat_dim": shapes["cap_embedder.0.weight"][0],
        "axes_dims": list(axes),
        "axes_lens": list(named.get("axes_lens", (1024, 512, 512))),
        "clip_text_dim": shapes["clip_text_pooled_proj.0.weight"][0],
    }


def gemma_config(shapes: Shapes, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments of Gemma3TextConfig; of a whole Gemma 3's config the text part is taken."""
    given = dict((given or {}).get("text_config", given) or {})
    head_dim = shapes["layers.0.self_attn.q_norm.weight"][0]
    vocabulary, hidden = shapes["embed_tokens.weight"]
    fixed = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": shapes["layers.0.mlp.gate_proj.weight"][0],
        "num_hidden_layers": _count(shapes, "layers."),
        "num_attention_heads": shapes["layers.0.self_attn.q_proj.weight"][0] // head_dim,
        "num_key_value_heads": shapes["layers.0.self_attn.k_proj.weight"][0] // head_dim,
        "head_dim": head_dim,
    }
    if not given:
        # What Gemma 3's sizes from 4B on have in common; the 1B model has neither scaling nor this window.
        given = {"query_pre_attn_scalar": head_dim, "sliding_window": 1024}
        if hidden >= 2560:
            given["rope_scaling"] = {"rope_type": "linear", "factor": 8.0}
    return {**{key: value for key, value in given.items() if not key.startswith("_")}, **fixed}


def jina_config(shapes: Shapes, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Constructor arguments of JinaTextModel; of another class's config nothing is needed."""
    vocabulary, hidden = shapes["embeddings.word_embeddings.weight"]
    ours = given if given is not None and given.get("_class_name") == "JinaTextModel" else {}
    optional = ("rotary_base", "layer_norm_eps", "pad_token_id")
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": _count(shapes, "encoder.layers."),
        "num_attention_heads": ours.get("num_attention_heads", max(1, hidden // 64)),
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "type_vocab_size": shapes["embeddings.token_type_embeddings.weight"][0],
        **{name: ours[name] for name in optional if name in ours},
    }


def autoencoder_config(shapes: Shapes, where: Path) -> dict[str, Any]:
    """Constructor arguments of diffusers' AutoencoderKL from its shapes, with FLUX's scale and shift.

    ``where`` is named in errors.

    Raises:
        ConfigError: not 16 channels, so that scale and shift are not known; or of another class.
    """
    levels = _count(shapes, "encoder.down_blocks.")
    needed = [f"encoder.down_blocks.{i}.resnets.0.conv1.weight" for i in range(levels)]
    if not levels or any(name not in shapes for name in (*needed, "decoder.conv_in.weight")):
        raise ConfigError(
            f"{where} is an autoencoder of another class than AutoencoderKL, or not a whole one, and has no "
            "config.json; give its folder with the config"
        )
    channels = [shapes[f"encoder.down_blocks.{i}.resnets.0.conv1.weight"][0] for i in range(levels)]
    latent = shapes["decoder.conv_in.weight"][1]
    if latent != 16:
        raise ConfigError(
            f"{where} is an autoencoder of {latent} channels and has no config.json; 16 are needed"
            + (" (4 are Stable Diffusion's)" if latent == 4 else "")
            + ": give another --vae"
        )
    return {
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": channels,
        "layers_per_block": _count(shapes, "encoder.down_blocks.0.resnets."),
        "latent_channels": latent,
        "norm_num_groups": math.gcd(32, *channels),
        "sample_size": 1024,
        "scaling_factor": FLUX_SCALE,
        "shift_factor": FLUX_SHIFT,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
        "mid_block_add_attention": "decoder.mid_block.attentions.0.to_q.weight" in shapes,
        "force_upcast": True,
    }


def _count(shapes: Shapes, prefix: str) -> int:
    numbers = (name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix))
    return max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1


def _multiple(inner: int, dim: int, named: Mapping[str, Any]) -> int:
    """A `multiple_of` that gives the feed-forward's width: the config's, 256, or that width itself."""
    wanted = int(4 * dim * (named.get("ffn_dim_multiplier") or 1.0))
    for multiple in (named.get("multiple_of"), 256):
        if multiple and -(-wanted // multiple) * multiple == inner:
            return int(multiple)
    return inner
