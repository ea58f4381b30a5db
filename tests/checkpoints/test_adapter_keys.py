from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newbie_image.checkpoints.adapter_keys import (
    PREFIXES,
    Target,
    diffusers_names,
    find_target,
    split_key,
    target_table,
)

BLOCKS = {"layers": 36, "noise_refiner": 2, "context_refiner": 2}
IN_A_BLOCK = [
    "attention.qkv", "attention.out", "attention.q_norm", "attention.k_norm", "attention_norm1",
    "attention_norm2", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3", "ffn_norm1", "ffn_norm2",
    "adaLN_modulation.1",
]  # fmt: skip
LAYERS = [
    *(f"{block}.{i}.{layer}" for block, n in BLOCKS.items() for i in range(n) for layer in IN_A_BLOCK),
    "x_embedder", "t_embedder.mlp.0", "t_embedder.mlp.2", "cap_embedder.0", "cap_embedder.1", "norm_final",
    "clip_text_pooled_proj.0", "clip_text_pooled_proj.1", "time_text_embed.1", "final_layer.linear",
    "final_layer.adaLN_modulation.1",
]  # fmt: skip
TABLE = target_table(LAYERS, 2304, 768)


@given(
    module=st.sampled_from(LAYERS),
    prefixes=st.lists(st.sampled_from([prefix for prefix in PREFIXES if prefix.endswith(".")]), max_size=3),
    flat=st.sampled_from(["", "lycoris_", "lora_unet_", "lora_transformer_"]),
)
def test_every_layer_is_found_under_every_prefix(module: str, prefixes: list[str], flat: str) -> None:
    path = flat + module.replace(".", "_") if flat else "".join(prefixes) + module
    assert find_target(path, TABLE) == Target(module)


@given(module=st.sampled_from(LAYERS), flat=st.booleans())
def test_diffusers_names_lead_back(module: str, flat: bool) -> None:
    for name, start, stop in diffusers_names(module, 2304, 768):
        path = "lora_unet_" + name.replace(".", "_") if flat else "transformer." + name
        assert find_target(path, TABLE) == Target(module, start, stop)


def test_no_two_layers_share_a_name() -> None:
    names = [name for m in LAYERS for name in (m, *(n for n, _, _ in diffusers_names(m, 2304, 768)))]
    both = [*names, *{name.replace(".", "_") for name in names}]
    plain = [name for name in names if "." not in name]  # these are their own flat form
    assert len(both) - len(plain) == len(TABLE) == len(set(both))


def test_the_fused_projection_is_cut_in_three() -> None:
    names = diffusers_names("layers.3.attention.qkv", 2304, 768)
    assert names == [
        ("layers.3.attn.to_q", 0, 2304),
        ("layers.3.attn.to_k", 2304, 3072),
        ("layers.3.attn.to_v", 3072, 3840),
    ]


@pytest.mark.parametrize(
    ("key", "path", "role"),
    [
        ("a.b.lora_A.weight", "a.b", "lora_down"),
        ("a.b.lora_A.default.weight", "a.b", "lora_down"),
        ("a.b.lora_B.weight", "a.b", "lora_up"),
        ("a_b.lora_down.weight", "a_b", "lora_down"),
        ("a_b.lora_up.weight", "a_b", "lora_up"),
        ("a.lora.up.weight", "a", "lora_up"),
        ("a.alpha", "a", "alpha"),
        ("a.lokr_w1", "a", "lokr_w1"),
        ("a.lokr_w2_b", "a", "lokr_w2_b"),
        ("a.hada_w1_a", "a", "hada_w1_a"),
        ("a.w_norm", "a", "weight_change"),
        ("a.diff_b", "a", "bias_change"),
        ("a.dora_scale", "a", "magnitude"),
        ("a.lora_magnitude_vector", "a", "magnitude"),
    ],
)
def test_keys_are_cut_into_path_and_role(key: str, path: str, role: str) -> None:
    assert split_key(key) == (path, role)


@pytest.mark.parametrize("key", ["a.weight", "alpha", "", "a.lora_C.weight", "a.lora_A.bias", "a.oft_blocks"])
def test_other_keys_are_no_adapters(key: str) -> None:
    assert split_key(key) is None


@pytest.mark.parametrize(
    "path", ["layers.36.attention.qkv", "layers_99_attention_qkv", "transformer.", "lycoris_", ""]
)
def test_layers_that_the_model_does_not_have(path: str) -> None:
    assert find_target(path, TABLE) is None
