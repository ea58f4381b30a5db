"""How many weights a model's parts have, from their configs alone. Pure arithmetic, no torch.

Weights are counted in numbers and become bytes with a number format. The matrices of transformer blocks and
of the text encoders' layers can be quantised, and then have bytes of their own, scales included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from newbie_image.bundle import find_bundle, read_json
from newbie_image.errors import ConfigError
from newbie_image.memory.formats import matrix_bytes, scratch_bytes


@dataclass(frozen=True)
class TransformerSizes:
    """NextDiT in numbers of weights.

    Args:
        dim, inner: width, and that inside the feed-forward.
        query_width, key_width: channels of all query heads, and of all key (or value) heads.
        head_dim: channels of one head.
        joint, refiners: joint blocks; noise refiners, and as many context refiners.
        block: weights of a block's matrices, AdaLN left out.
        modulation: weights of one block's AdaLN matrix.
        rest: all other weights (embedders, final layer, norms, biases).
        patch, channels, token_width: of the latents and of the text tokens.
        rotary: bytes of the rotary tables.
        block_rows: rows of all of a block's matrices, AdaLN left out.
        axes_lens: rows of the rotary tables: caption tokens + 1, image tokens downwards and across.
        quantised: format of the blocks' matrices, one of QUANTISATIONS.
    """

    dim: int
    inner: int
    query_width: int
    key_width: int
    head_dim: int
    joint: int
    refiners: int
    block: int
    modulation: int
    rest: int
    patch: int
    channels: int
    token_width: int
    rotary: int
    block_rows: int
    axes_lens: tuple[int, ...]
    quantised: str = "none"

    @property
    def modulated(self) -> int:
        """Blocks that have AdaLN: joint blocks and noise refiners."""
        return self.joint + self.refiners

    @property
    def weights(self) -> int:
        """All weights."""
        return self.block * (self.joint + 2 * self.refiners) + self.modulation * self.modulated + self.rest

    def block_bytes(self, item: int) -> int:
        """Bytes of a block's matrices, AdaLN left out; ``item`` is that of a weight that is not quantised."""
        return matrix_bytes(self.quantised, self.block, self.block_rows, item)

    def modulation_bytes(self, item: int) -> int:
        """Bytes of one block's AdaLN matrix."""
        return matrix_bytes(self.quantised, self.modulation, 4 * self.dim, item)

    def weight_bytes(self, item: int) -> int:
        """Bytes of all weights."""
        blocks = self.block_bytes(item) * (self.joint + 2 * self.refiners)
        return blocks + self.modulation_bytes(item) * self.modulated + self.rest * item

    def scratch(self, item: int) -> int:
        """Bytes that the largest quantised matrix takes while it is multiplied."""
        return scratch_bytes(self.quantised, self.dim * self.inner, item)


@dataclass(frozen=True)
class EncoderSizes:
    """A text encoder in numbers of weights.

    Args:
        width, inner: hidden size, and that inside the feed-forward.
        layers: all of them; the last may never be run.
        layer: weights of one layer's matrices.
        embedding: weights of the token table.
        rest: norms and biases.
        layer_rows: rows of all of a layer's matrices.
        quantised: format of the layers' matrices, one of QUANTISATIONS.
    """

    width: int
    inner: int
    layers: int
    layer: int
    embedding: int
    rest: int
    layer_rows: int
    quantised: str = "none"

    @property
    def weights(self) -> int:
        """All weights."""
        return self.embedding + self.layers * self.layer + self.rest

    def layer_bytes(self, item: int) -> int:
        """Bytes of a layer's matrices; ``item`` is that of a weight that is not quantised."""
        return matrix_bytes(self.quantised, self.layer, self.layer_rows, item)

    def weight_bytes(self, item: int) -> int:
        """Bytes of all weights."""
        return (self.embedding + self.rest) * item + self.layers * self.layer_bytes(item)

    def scratch(self, item: int) -> int:
        """Bytes that the largest quantised matrix takes while it is multiplied."""
        return scratch_bytes(self.quantised, self.width * self.inner, item)


@dataclass(frozen=True)
class AutoencoderSizes:
    """An autoencoder: all its weights, and the channels of its widest feature map at full resolution."""

    weights: int
    full_width: int


@dataclass(frozen=True)
class ModelSizes:
    """A whole model."""

    name: str
    transformer: TransformerSizes
    gemma: EncoderSizes
    jina: EncoderSizes
    vae: AutoencoderSizes

    def quantised(self, transformer: str = "none", encoders: str = "none") -> ModelSizes:
        """The same model with its matrices in other formats, each one of QUANTISATIONS."""
        return replace(
            self,
            transformer=replace(self.transformer, quantised=transformer),
            gemma=replace(self.gemma, quantised=encoders),
            jina=replace(self.jina, quantised=encoders),
        )


PUBLISHED_TRANSFORMER: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": 16,
    "dim": 2304,
    "n_layers": 36,
    "n_refiner_layers": 2,
    "n_heads": 24,
    "n_kv_heads": 8,
    "multiple_of": 256,
    "ffn_dim_multiplier": None,
    "cap_feat_dim": 2560,
    "axes_dims": (32, 32, 32),
    "axes_lens": (1024, 512, 512),
    "clip_text_dim": 1024,
}
PUBLISHED_GEMMA: dict[str, Any] = {
    "vocab_size": 262208,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 34,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 1024,
}
PUBLISHED_JINA: dict[str, Any] = {
    "vocab_size": 250002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "type_vocab_size": 1,
}
PUBLISHED_VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "norm_num_groups": 32,
    "sample_size": 1024,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "mid_block_add_attention": True,
}


def published_sizes() -> ModelSizes:
    """NewBie-image-Exp0.1: the 3.5 B transformer, Gemma 3 4B's text model, Jina CLIP v2, FLUX's VAE."""
    return sizes_from_configs(
        "published", PUBLISHED_TRANSFORMER, PUBLISHED_GEMMA, PUBLISHED_JINA, PUBLISHED_VAE
    )


def bundle_sizes(name_or_path: str) -> ModelSizes:
    """Sizes of a bundle, from its folder's config files; ``published`` needs no folder.

    Raises:
        CheckpointError, ConfigError: no such bundle, or a config that lacks what is needed.
    """
    if name_or_path == "published":
        return published_sizes()
    folder = find_bundle(name_or_path)
    parts = ("transformer", "text_encoder", "clip_model", "vae")
    configs = [read_json(folder / part / "config.json") for part in parts]
    return sizes_from_configs(folder.name, *configs, files=_file_bytes(folder / "vae"))


def sizes_from_configs(
    name: str,
    transformer: Mapping[str, Any],
    gemma: Mapping[str, Any],
    jina: Mapping[str, Any],
    vae: Mapping[str, Any],
    *,
    files: int = 0,
) -> ModelSizes:
    """Sizes from the four configs.

    Args:
        name: the model's.
        transformer, gemma, jina, vae: as in their config.json.
        files: bytes of the autoencoder's weight files, used where its class is not AutoencoderKL.
    Raises:
        ConfigError: a config lacks a key.
    """
    try:
        return ModelSizes(
            name, _transformer(transformer), _gemma(gemma), _jina(jina), _autoencoder(vae, files)
        )
    except KeyError as error:
        raise ConfigError(
            f"a config of {name} has no {error}; complete it, or copy the bundle again"
        ) from None


def _transformer(config: Mapping[str, Any]) -> TransformerSizes:
    known = {**PUBLISHED_TRANSFORMER, **{key: value for key, value in config.items() if key[0] != "_"}}
    dim, heads = int(known["dim"]), int(known["n_heads"])
    head = dim // heads
    keys = int(known["n_kv_heads"] or heads) * head
    inner = int((known["ffn_dim_multiplier"] or 1) * 4 * dim)
    inner = math.ceil(inner / known["multiple_of"]) * known["multiple_of"]
    time, clip, cap = min(dim, 1024), int(known["clip_text_dim"]), int(known["cap_feat_dim"])
    patch = known["patch_size"] ** 2 * known["in_channels"]
    joint, refiners = int(known["n_layers"]), int(known["n_refiner_layers"])
    small = (joint + 2 * refiners) * (4 * dim + 2 * head) + (joint + refiners) * 4 * dim
    embedders = (patch + 1) * dim + cap + (cap + 1) * dim + clip + (clip + 1) * clip
    times = (256 + 1) * time + (time + 1) * time + (time + clip + 1) * time
    final = dim + (dim + 1) * patch + (time + 1) * dim
    return TransformerSizes(
        dim=dim,
        inner=inner,
        query_width=dim,
        key_width=keys,
        head_dim=head,
        joint=joint,
        refiners=refiners,
        block=dim * (dim + 2 * keys) + dim * dim + 3 * dim * inner,
        modulation=time * 4 * dim,
        rest=small + embedders + times + final,
        patch=int(known["patch_size"]),
        channels=int(known["in_channels"]),
        token_width=cap,
        rotary=sum(a * n for a, n in zip(known["axes_dims"], known["axes_lens"], strict=True)) * 4,
        block_rows=dim + 2 * keys + dim + 2 * inner + dim,
        axes_lens=tuple(known["axes_lens"]),
    )


def _gemma(config: Mapping[str, Any]) -> EncoderSizes:
    width, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    layers = config["num_hidden_layers"]
    return EncoderSizes(
        width=width,
        inner=inner,
        layers=layers,
        layer=2 * width * queries + 2 * width * keys + 3 * width * inner,
        embedding=config["vocab_size"] * width,
        rest=layers * (4 * width + 2 * head) + width,
        layer_rows=queries + 2 * keys + width + 2 * inner + width,
    )


def _jina(config: Mapping[str, Any]) -> EncoderSizes:
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    return EncoderSizes(
        width=width,
        inner=inner,
        layers=layers,
        layer=4 * width * width + 2 * width * inner,
        embedding=config["vocab_size"] * width,
        rest=(config.get("type_vocab_size", 1) + 2) * width + layers * (9 * width + inner),
        layer_rows=5 * width + inner,
    )


def _autoencoder(config: Mapping[str, Any], files: int) -> AutoencoderSizes:
    widths = config.get("block_out_channels") or config.get("decoder_block_out_channels")
    if not widths:
        raise ConfigError("the autoencoder's config has no block_out_channels: its memory is unknown")
    full = widths[1] if len(widths) > 1 else widths[0]
    if config.get("_class_name", "AutoencoderKL") != "AutoencoderKL":
        return AutoencoderSizes(files // 4, full)
    depth, latent = config["layers_per_block"], config["latent_channels"]
    middle = 2 * _residual(widths[-1], widths[-1])
    if config.get("mid_block_add_attention", True):
        middle += 4 * (widths[-1] + 1) * widths[-1] + 2 * widths[-1]
    encoder = _convolution(3, widths[0]) + 2 * widths[-1] + _convolution(widths[-1], 2 * latent) + middle
    decoder = _convolution(latent, widths[-1]) + 2 * widths[0] + _convolution(widths[0], 3) + middle
    before, last = widths[0], len(widths) - 1
    for place, width in enumerate(widths):
        encoder += _residual(before, width) + (depth - 1) * _residual(width, width)
        encoder += _convolution(width, width) if place < last else 0
        before = width
    for place, width in enumerate(reversed(widths)):
        decoder += _residual(before, width) + depth * _residual(width, width)
        decoder += _convolution(width, width) if place < last else 0
        before = width
    if config.get("use_quant_conv", True):
        encoder += (2 * latent + 1) * 2 * latent
    if config.get("use_post_quant_conv", True):
        decoder += (latent + 1) * latent
    return AutoencoderSizes(encoder + decoder, full)


def _convolution(before: int, after: int) -> int:
    return (9 * before + 1) * after


def _residual(before: int, after: int) -> int:
    shortcut = (before + 1) * after if before != after else 0
    return 2 * before + _convolution(before, after) + 2 * after + _convolution(after, after) + shortcut


def _file_bytes(folder: Path) -> int:
    for suffix in (".safetensors", ".bin"):
        if sizes := [file.stat().st_size for file in folder.glob(f"*{suffix}")]:
            return sum(sizes)
    return 0
