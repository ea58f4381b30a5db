"""Gemma stops before its last layer and equals the full model there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextModel

from newbie_image.models.gemma_text import GemmaTextModel


def config(attention: str = "sdpa") -> Gemma3TextConfig:
    """Four layers, three of them with a window of 5 tokens."""
    made = Gemma3TextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=5,
        max_position_embeddings=64,
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"],
    )
    made._attn_implementation = attention
    return made


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(3, 64, (3, 16))
    mask = torch.zeros(3, 16, dtype=torch.long)
    for row, length in enumerate((16, 11, 1)):
        mask[row, :length] = 1
    return ids * mask, mask


def model(attention: str = "sdpa") -> GemmaTextModel:
    torch.manual_seed(0)
    made = GemmaTextModel(config(attention)).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_equals_the_full_model(attention: str) -> None:
    ours = model(attention)
    full = Gemma3TextModel(config(attention)).eval()
    full.load_state_dict(ours.state_dict(), strict=True)
    ids, mask = texts()
    hidden = full(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    got = ours(ids, mask)
    valid = mask.bool()
    assert torch.isfinite(got).all()
    assert (got - hidden[-2])[valid].norm() / hidden[-2][valid].norm() < 1e-6
    assert (got - hidden[-1])[valid].norm() / hidden[-1][valid].norm() > 1e-2


@torch.no_grad()
def test_the_last_layer_is_never_run() -> None:
    ours = model()
    ids, mask = texts()
    before = ours(ids, mask)
    for parameter in [*ours.layers[-1].parameters(), *ours.norm.parameters()]:
        parameter.fill_(float("nan"))
    assert torch.equal(ours(ids, mask), before)


@torch.no_grad()
def test_written_files_are_those_of_transformers(tmp_path: Path) -> None:
    ours = model()
    ours.save_pretrained(tmp_path)
    full, report = Gemma3TextModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert {name for name, _ in full.named_parameters()} == {name for name, _ in ours.named_parameters()}


def test_gradients_reach_what_is_run() -> None:
    ours = model()
    ids, mask = texts()
    ours(ids, mask).square().mean().backward()
    used = [p for layer in ours.layers[:-1] for p in layer.parameters()] + [ours.embed_tokens.weight]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in used)
    assert all(p.grad is None for p in ours.layers[-1].parameters())


@torch.no_grad()
def test_rotary_frequencies_survive_a_cast() -> None:
    ours = model()
    before = {name: buffer.clone() for name, buffer in ours.rotary_emb.named_buffers()}
    ours.to(torch.bfloat16)
    ids, mask = texts()
    assert ours(ids, mask).dtype == torch.bfloat16
    for name, buffer in ours.rotary_emb.named_buffers():
        assert torch.equal(buffer, before[name])
