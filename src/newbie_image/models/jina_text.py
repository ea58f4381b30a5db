"""The text tower of Jina CLIP v2, natively.

An XLM-RoBERTa encoder with rotary positions instead of learned ones and normalisation after each residual
(jinaai/xlm-roberta-flash-implementation; ComfyUI's ``jina_clip_2``). Newbie uses one vector of it a prompt:
the mean of the last hidden states over the valid tokens, with no projection, no normalisation and no
adapters. Parameter names are those of the published file behind its ``text_model.transformer.`` prefix.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class JinaTextModel(ModelMixin, ConfigMixin):
    """Token ids to one pooled vector a text.

    Args:
        vocab_size: entries of the embedding table.
        hidden_size: width, also of the pooled vector.
        num_hidden_layers: encoder blocks.
        num_attention_heads: heads; ``hidden_size / num_attention_heads`` must be even.
        intermediate_size: width inside the feed-forward.
        rotary_base: base of the rotary frequencies.
        layer_norm_eps: epsilon of every LayerNorm.
        pad_token_id: id whose embedding stays zero at the start and gets no gradient.
        type_vocab_size: entries of the token type table; only type 0 is used.
        initializer_range: standard deviation of fresh weights.
    """

    _supports_gradient_checkpointing = False
    _no_split_modules = ["JinaTextBlock"]  # noqa: RUF012 (diffusers reads a list)

    @register_to_config
    def __init__(
        self,
        vocab_size: int = 250002,
        hidden_size: int = 1024,
        num_hidden_layers: int = 24,
        num_attention_heads: int = 16,
        intermediate_size: int = 4096,
        rotary_base: float = 20000.0,
        layer_norm_eps: float = 1e-5,
        pad_token_id: int = 1,
        type_vocab_size: int = 1,
        initializer_range: float = 0.02,
    ) -> None:
        super().__init__()
        if hidden_size % (2 * num_attention_heads):
            raise ValueError(
                f"hidden_size {hidden_size} does not split into {num_attention_heads} heads of even width; "
                f"give a multiple of {2 * num_attention_heads}"
            )
        self.head_dim = hidden_size // num_attention_heads
        self.rotary_base = rotary_base
        self.embeddings = JinaTextEmbeddings(vocab_size, type_vocab_size, hidden_size, pad_token_id)
        self.emb_ln = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.encoder = JinaTextEncoder(
            num_hidden_layers, hidden_size, num_attention_heads, intermediate_size, layer_norm_eps
        )
        self._initialise(initializer_range, pad_token_id)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Pool each text to one vector; nothing here waits for the device.

        Args:
            input_ids: (batch, length) integers, each text with its begin and end token, padded on the right.
            attention_mask: (batch, length), nonzero where a token is valid. At least one a row.

        Returns:
            (batch, hidden_size), the masked mean of the last hidden states.
        """
        states = self.hidden_states(input_ids, attention_mask)
        weight = attention_mask.to(states.dtype).unsqueeze(-1)
        return (states * weight).sum(dim=1) / weight.sum(dim=1)

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The last hidden states, (batch, length, hidden_size); arguments as in :meth:`forward`."""
        states = self.emb_ln(self.embeddings(input_ids))
        rotary = self._rotary(input_ids.shape[1], states.device)
        keys = attention_mask.to(torch.bool)[:, None, None, :]
        return self.encoder(states, rotary, keys)

    def _rotary(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosines and sines in float32, (length, 1, head_dim) each; a head's two halves form the pairs."""
        half = torch.arange(0, self.head_dim, 2, device=device, dtype=torch.float32) / self.head_dim
        position = torch.arange(length, device=device, dtype=torch.float32)
        angle = torch.outer(position, 1.0 / self.rotary_base**half)
        angle = torch.cat((angle, angle), dim=-1).unsqueeze(1)
        return angle.cos(), angle.sin()

    @torch.no_grad()
    def _initialise(self, deviation: float, pad_token_id: int) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=deviation)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        self.embeddings.word_embeddings.weight[pad_token_id].zero_()


class JinaTextEmbeddings(nn.Module):
    """Word embedding plus the one token type."""

    def __init__(self, vocab_size: int, type_vocab_size: int, hidden_size: int, pad_token_id: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, hidden_size, padding_idx=pad_token_id)
        self.token_type_embeddings = nn.Embedding(type_vocab_size, hidden_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.word_embeddings(input_ids) + self.token_type_embeddings.weight[0]


class JinaTextEncoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, layers: int, width: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([JinaTextBlock(width, heads, inner, eps) for _ in range(layers)])

    def forward(self, states: Tensor, rotary: tuple[Tensor, Tensor], keys: Tensor) -> Tensor:
        for layer in self.layers:
            states = layer(states, rotary, keys)
        return states


class JinaTextBlock(nn.Module):
    """Attention and feed-forward, each added to its input and normalised afterwards."""

    def __init__(self, width: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.mixer = JinaTextAttention(width, heads)
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.mlp = JinaTextFeedForward(width, inner)
        self.norm2 = nn.LayerNorm(width, eps=eps)

    def forward(self, states: Tensor, rotary: tuple[Tensor, Tensor], keys: Tensor) -> Tensor:
        states = self.norm1(states + self.mixer(states, rotary, keys))
        return self.norm2(states + self.mlp(states))


class JinaTextAttention(nn.Module):
    """Bidirectional attention with one fused projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.Wqkv = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, states: Tensor, rotary: tuple[Tensor, Tensor], keys: Tensor) -> Tensor:
        batch, length, width = states.shape
        query, key, value = self.Wqkv(states).view(batch, length, 3, self.heads, -1).unbind(2)
        query, key = _rotate(query, rotary), _rotate(key, rotary)
        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=keys
        )
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))


class JinaTextFeedForward(nn.Module):
    """Two layers with the exact GELU between."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, states: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(states)))


def _rotate(states: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn (batch, length, heads, head_dim) by its positions, in float32, back to its dtype."""
    cos, sin = rotary
    exact = states.float()
    first, second = exact.chunk(2, dim=-1)
    return (exact * cos + torch.cat((-second, first), dim=-1) * sin).to(states.dtype)
