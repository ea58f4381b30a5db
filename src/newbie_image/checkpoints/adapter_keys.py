"""Names in adapter files, and the layers of the transformer that they mean. Pure functions, no weights.

Every trainer writes the same layer differently:

- PEFT: `base_model.model.layers.3.attention.qkv.lora_A.weight`
- LyCORIS: `lycoris_layers_3_attention_qkv.lokr_w1`
- kohya: `lora_unet_layers_3_attention_qkv.lora_down.weight`
- diffusers, with the fused projection split in three: `transformer.layers.3.attn.to_q.lora_A.weight`

A key is cut into the layer's path and the tensor's role; the path loses its prefixes and is looked up in a
table made from the model's own layer names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PREFIXES = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "unet.",
    "lycoris_",
    "lora_unet_",
    "lora_transformer_",
)
"""What may stand before a layer's path, in any nesting (`unet.base_model.model.`, …)."""

_ROLES = {
    "lora_down": r"lora_A(?:\.[^.]+)?\.weight|lora_down\.weight|lora\.down\.weight",
    "lora_up": r"lora_B(?:\.[^.]+)?\.weight|lora_up\.weight|lora\.up\.weight",
    "lora_mid": r"lora_mid\.weight",
    "magnitude": r"dora_scale|lora_magnitude_vector(?:\.[^.]+)?(?:\.weight)?",
    "alpha": r"alpha",
    **{f"lokr_{part}": f"lokr_{part}" for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
    **{f"hada_{part}": f"hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    "weight_change": r"w_norm|diff",
    "bias_change": r"b_norm|diff_b",
}
# Between lora_A and weight may stand the adapter's name, where a live PEFT model's state dict was saved.
_KEY = re.compile(
    r"(?P<path>.+?)\.(?:" + "|".join(f"(?P<{role}>{pattern})" for role, pattern in _ROLES.items()) + r")"
)


@dataclass(frozen=True)
class Target:
    """Rows of one layer's weight.

    Args:
        module: path of the layer in the transformer.
        start: first output row.
        stop: one past the last output row; None for the last of the layer.
    """

    module: str
    start: int = 0
    stop: int | None = None


def split_key(key: str) -> tuple[str, str] | None:
    """Cut a key into path and role.

    Args:
        key: name of a tensor in an adapter file.

    Returns:
        (path with its prefixes, role), or None where the key's end is of no known kind. Roles: lora_down,
        lora_up, lora_mid, magnitude, alpha, lokr_…, hada_…, weight_change, bias_change.
    """
    match = _KEY.fullmatch(key)
    if match is None or match.lastgroup is None:
        return None
    return match["path"], match.lastgroup


def find_target(path: str, table: Mapping[str, Target]) -> Target | None:
    """The layer that a path means, prefixes and underscores taken off.

    Args:
        path: from :func:`split_key`.
        table: from :func:`target_table`.

    Returns:
        The target, or None where the model has no such layer.
    """
    while path not in table:
        prefix = next((prefix for prefix in PREFIXES if path.startswith(prefix)), None)
        if prefix is None:
            return None
        path = path.removeprefix(prefix)
    return table[path]


def target_table(modules: Iterable[str], query_rows: int, key_rows: int) -> dict[str, Target]:
    """All names under which the layers of a transformer are known.

    Args:
        modules: paths of its layers with weights, such as `layers.0.attention.qkv`.
        query_rows: output rows of the fused projection that are queries.
        key_rows: as many rows follow for the keys, and again for the values.

    Returns:
        Name → target: published names, diffusers' names (pull request 12803), and both with `_` for `.`.
    """
    table: dict[str, Target] = {}
    for module in modules:
        table[module] = Target(module)
        for alias, start, stop in diffusers_names(module, query_rows, key_rows):
            table[alias] = Target(module, start, stop)
    return table | {name.replace(".", "_"): target for name, target in table.items()}


_DIFFUSERS_BLOCK = {
    "attention.out": ("attn.to_out.0",),
    "attention.q_norm": ("attn.norm_q",),
    "attention.k_norm": ("attn.norm_k",),
    "feed_forward.w1": ("feed_forward.linear_1",),
    "feed_forward.w2": ("feed_forward.linear_2",),
    "feed_forward.w3": ("feed_forward.linear_3",),
    "adaLN_modulation.1": ("norm1.linear",),
    "attention_norm1": ("norm1.norm", "norm1"),  # the context refiners' norm1 is a plain norm
    "attention_norm2": ("norm2",),
}
_DIFFUSERS_WHOLE = {
    "cap_embedder.0": "time_caption_embed.caption_embedder.0",
    "cap_embedder.1": "time_caption_embed.caption_embedder.1",
    "t_embedder.mlp.0": "time_caption_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_caption_embed.timestep_embedder.linear_2",
    "clip_text_pooled_proj.0": "time_caption_embed.clip_text_pooled_proj.0",
    "clip_text_pooled_proj.1": "time_caption_embed.clip_text_pooled_proj.1",
    "time_text_embed.1": "time_caption_embed.time_text_embed.1",
    "final_layer.adaLN_modulation.1": "norm_out.linear_1",
    "final_layer.linear": "norm_out.linear_2",
}
_BLOCK = re.compile(r"((?:layers|noise_refiner|context_refiner)\.\d+)\.(.+)")


def diffusers_names(module: str, query_rows: int, key_rows: int) -> list[tuple[str, int, int | None]]:
    """diffusers' names for one of our layers.

    Args:
        module: our path.
        query_rows, key_rows: see :func:`target_table`.

    Returns:
        (their path, first output row, one past the last or None) for each; none where the names are the same.
    """
    if module in _DIFFUSERS_WHOLE:
        return [(_DIFFUSERS_WHOLE[module], 0, None)]
    match = _BLOCK.fullmatch(module)
    if match is None:
        return []
    block, layer = match.groups()
    if layer == "attention.qkv":
        rows = (0, query_rows, query_rows + key_rows, query_rows + 2 * key_rows)
        return [(f"{block}.attn.to_{n}", rows[i], rows[i + 1]) for i, n in enumerate("qkv")]
    return [(f"{block}.{name}", 0, None) for name in _DIFFUSERS_BLOCK.get(layer, ())]
