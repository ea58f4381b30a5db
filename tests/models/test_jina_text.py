"""The Jina tower against the architecture in transformers, with the same weights."""

from __future__ import annotations

import pytest
import torch
from transformers.models.jina_embeddings_v3 import JinaEmbeddingsV3Config, JinaEmbeddingsV3Model

from newbie_image.models.jina_text import JinaTextModel

VOCABULARY = 60


def tiny() -> JinaTextModel:
    torch.manual_seed(0)
    model = JinaTextModel(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        initializer_range=0.3,
    ).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2) if parameter.ndim == 1 else None
    return model


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    """Three texts of 9, 4 and 2 tokens, padded with id 1."""
    torch.manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (3, 9))
    mask = torch.zeros(3, 9, dtype=torch.long)
    for row, length in enumerate((9, 4, 2)):
        mask[row, :length] = 1
    return torch.where(mask == 1, ids, torch.ones_like(ids)), mask


def reference(model: JinaTextModel) -> JinaEmbeddingsV3Model:
    config = JinaEmbeddingsV3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    other = JinaEmbeddingsV3Model(config, add_pooling_layer=False).eval()
    state: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict().items():
        name = name.replace("emb_ln.", "embeddings.LayerNorm.").replace("encoder.layers.", "layers.")
        name = name.replace("mixer.out_proj", "self_attn.o_proj")
        name = name.replace("norm1.", "post_attention_layernorm.").replace("norm2.", "post_mlp_layernorm.")
        if "mixer.Wqkv" in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                state[name.replace("mixer.Wqkv", f"self_attn.{letter}_proj")] = part
        else:
            state[name] = value
    other.load_state_dict(state, strict=True)
    return other


@torch.no_grad()
def test_equals_transformers_for_uneven_lengths() -> None:
    model = tiny()
    ids, mask = texts()
    ours = model.hidden_states(ids, mask)
    theirs = reference(model)(input_ids=ids, attention_mask=mask).last_hidden_state
    valid = mask.bool()
    error = (ours - theirs)[valid].norm() / theirs[valid].norm()
    assert error < 1e-5


@torch.no_grad()
def test_pooled_is_the_mean_of_the_valid_tokens() -> None:
    model = tiny()
    ids, mask = texts()
    pooled = model(ids, mask)
    states = model.hidden_states(ids, mask)
    assert pooled.shape == (3, 32)
    for row, length in enumerate((9, 4, 2)):
        torch.testing.assert_close(pooled[row], states[row, :length].mean(0))


@torch.no_grad()
def test_padding_does_not_change_a_text() -> None:
    model = tiny()
    ids, mask = texts()
    alone = model(ids[1:2, :4], mask[1:2, :4])
    torch.testing.assert_close(model(ids, mask)[1:2], alone, rtol=1e-5, atol=1e-6)


def test_bfloat16_and_gradients() -> None:
    model = tiny().to(torch.bfloat16)
    ids, mask = texts()
    pooled = model(ids, mask)
    assert pooled.dtype == torch.bfloat16
    pooled.float().square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_uneven_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 12"):
        JinaTextModel(
            vocab_size=8, hidden_size=32, num_attention_heads=6, num_hidden_layers=1, intermediate_size=8
        )
