"""The layers of the transformer: norms, timestep embedding, attention and gated feed-forward in one block.

Two identities keep the block short. A norm's weight, the modulation and the gate are all factors per channel,
so `norm1.weight · (1 + scale)` and `tanh(gate) · norm2.weight` are each multiplied once, on (batch, 1, dim)
in float32, and touch the long sequence as one factor. And queries and keys lie side by side in the fused
projection, so both are normalised and rotated in one go, in float32, and rounded once.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from newbie_image.models.attention import AttentionBackend, KeyPadding, attend
from newbie_image.models.rope import Rotary, rotate


def normalise(states: Tensor, eps: float) -> Tensor:
    """Divides by the root mean square of the last dimension, computed in float32; keeps shape and dtype."""
    return F.rms_norm(states, states.shape[-1:], None, eps)


class RMSNorm(nn.Module):
    """Root-mean-square norm with a weight (arXiv 1910.07467), in float32, rounded once at the end."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, states: Tensor) -> Tensor:
        """(…, dim) → (…, dim) in the same dtype."""
        return (normalise(states.float(), self.eps) * self.weight.float()).to(states.dtype)


class TimestepEmbedder(nn.Module):
    """Sinusoids of the timestep through two linear layers (arXiv 2006.11239, frequencies as in GLIDE)."""

    def __init__(self, dim: int, frequencies: int = 256) -> None:
        super().__init__()
        self.frequencies = frequencies
        first, second = nn.Linear(frequencies, dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(first, nn.SiLU(), second)
        for layer in (first, second):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        """timestep: (batch,) in [0, 1] → (batch, dim) in the dtype asked for."""
        half = self.frequencies // 2
        steps = torch.arange(half, dtype=torch.float32, device=timestep.device)
        angles = timestep.float()[:, None] * torch.exp(-math.log(10000.0) / half * steps)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype))


class Modulation(NamedTuple):
    """Factors per channel of one block, each (batch, 1, dim), the norms' weights multiplied in."""

    attention_in: Tensor
    attention_out: Tensor
    feed_forward_in: Tensor
    feed_forward_out: Tensor

    def rows(self, start: int, stop: int) -> Modulation:
        """The part for the batch rows start … stop − 1."""
        return Modulation(*(factor[start:stop] for factor in self))


class JointAttention(nn.Module):
    """Self-attention with grouped queries, per-head norms of queries and keys, and rotary positions.

    Attributes:
        token_chunk: tokens that are projected at a time where no gradient is asked for; None for all.
    """

    token_chunk: int | None = None

    def __init__(self, dim: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.qkv = nn.Linear(dim, (heads + 2 * kv_heads) * self.head_dim, bias=False)
        self.out = nn.Linear(heads * self.head_dim, dim, bias=False)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.xavier_uniform_(self.out.weight)
        self.q_norm = RMSNorm(self.head_dim, eps=1e-6)
        self.k_norm = RMSNorm(self.head_dim, eps=1e-6)

    def forward(
        self,
        states: Tensor,
        rotary: Rotary,
        padding: KeyPadding | None,
        backend: AttentionBackend,
        keep: int | None,
    ) -> Tensor:
        """states: (batch, tokens, dim) → (batch, keep or tokens, dim); only the first `keep` tokens ask."""
        if self.token_chunk is None or torch.is_grad_enabled():
            query, key, value = self._project(states, rotary)
        else:
            query, key, value = self._project_in_chunks(states, rotary, self.token_chunk)
        return self.out(attend(query[:, :keep], key, value, padding, backend))

    def _project(self, states: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        projected = self.qkv(states).unflatten(-1, (-1, self.head_dim))
        queries_keys, value = projected.split([self.heads + self.kv_heads, self.kv_heads], dim=2)
        weight = torch.cat(
            [
                self.q_norm.weight.float().expand(self.heads, -1),
                self.k_norm.weight.float().expand(self.kv_heads, -1),
            ]
        )
        queries_keys = normalise(queries_keys.float(), self.q_norm.eps) * weight
        queries_keys = rotate(queries_keys, rotary).to(value.dtype)
        query, key = queries_keys.split([self.heads, self.kv_heads], dim=2)
        return query, key, value

    def _project_in_chunks(self, states: Tensor, rotary: Rotary, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
        # The float32 copies of queries and keys are what is large here, and no token needs its neighbour's.
        batch, tokens, _ = states.shape
        query, key, value = (
            states.new_empty(batch, tokens, heads, self.head_dim)
            for heads in (self.heads, self.kv_heads, self.kv_heads)
        )
        for start in range(0, tokens, chunk):
            part = slice(start, start + chunk)
            query[:, part], key[:, part], value[:, part] = self._project(
                states[:, part], rotary.tokens(start, start + chunk)
            )
        return query, key, value


class FeedForward(nn.Module):
    """SwiGLU (arXiv 2002.05202) without biases; the inner width is rounded up to a multiple.

    Attributes:
        token_chunk: tokens that go through at a time where no gradient is asked for; None for all.
    """

    token_chunk: int | None = None

    def __init__(self, dim: int, multiple_of: int, ffn_dim_multiplier: float | None) -> None:
        super().__init__()
        hidden = 4 * dim if ffn_dim_multiplier is None else int(ffn_dim_multiplier * 4 * dim)
        hidden = math.ceil(hidden / multiple_of) * multiple_of
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)
        for layer in (self.w1, self.w2, self.w3):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, states: Tensor) -> Tensor:
        """(batch, tokens, dim) → (batch, tokens, dim)."""
        if self.token_chunk is None or torch.is_grad_enabled():
            return self._gated(states)
        fed = torch.empty_like(states)
        for part, into in zip(states.split(self.token_chunk, 1), fed.split(self.token_chunk, 1), strict=True):
            into.copy_(self._gated(part))
        return fed

    def _gated(self, states: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(states)) * self.w3(states))


class TransformerBlock(nn.Module):
    """Attention and feed-forward, each between two norms; with AdaLN scale and tanh gate if modulated."""

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int,
        multiple_of: int,
        ffn_dim_multiplier: float | None,
        norm_eps: float,
        modulated: bool,
    ) -> None:
        super().__init__()
        self.eps = norm_eps
        self.attention = JointAttention(dim, heads, kv_heads)
        self.feed_forward = FeedForward(dim, multiple_of, ffn_dim_multiplier)
        self.attention_norm1 = RMSNorm(dim, eps=norm_eps)
        self.ffn_norm1 = RMSNorm(dim, eps=norm_eps)
        self.attention_norm2 = RMSNorm(dim, eps=norm_eps)
        self.ffn_norm2 = RMSNorm(dim, eps=norm_eps)
        self.modulated = modulated
        if modulated:
            scales_and_gates = nn.Linear(min(dim, 1024), 4 * dim)
            nn.init.zeros_(scales_and_gates.weight)
            nn.init.zeros_(scales_and_gates.bias)
            self.adaLN_modulation = nn.Sequential(nn.SiLU(), scales_and_gates)

    def modulation(self, conditioning: Tensor | None) -> Modulation:
        """Factors of this block.

        Args:
            conditioning: (batch, min(dim, 1024)); None in a block without modulation.
        """
        weights = (self.attention_norm1, self.attention_norm2, self.ffn_norm1, self.ffn_norm2)
        before, after, ffn_before, ffn_after = (norm.weight.float() for norm in weights)
        if conditioning is None:
            factors = (before, after, ffn_before, ffn_after)
        else:
            modulation = self.adaLN_modulation(conditioning).float().unsqueeze(1)
            scale, gate, ffn_scale, ffn_gate = modulation.chunk(4, dim=-1)
            factors = (
                before * (1 + scale),
                after * gate.tanh(),
                ffn_before * (1 + ffn_scale),
                ffn_after * ffn_gate.tanh(),
            )
        return Modulation(*(factor.to(self.attention_norm1.weight.dtype) for factor in factors))

    def forward(
        self,
        states: Tensor,
        conditioning: Tensor | Modulation | None,
        rotary: Rotary,
        padding: KeyPadding | None,
        backend: AttentionBackend = "auto",
        keep: int | None = None,
    ) -> Tensor:
        """One block.

        Args:
            states: (batch, tokens, dim).
            conditioning: (batch, min(dim, 1024)), or the factors if they were computed before.
            rotary: tables for these tokens.
            padding: which tokens are keys; None when all are.
            backend: see `attention`.
            keep: how many tokens from the front to return; all take part as keys.
        Returns:
            (batch, keep or tokens, dim).
        """
        factors = conditioning if isinstance(conditioning, Modulation) else self.modulation(conditioning)
        attended = self.attention(
            normalise(states, self.eps) * factors.attention_in, rotary, padding, backend, keep
        )
        states = _gated_sum(states[:, :keep], normalise(attended, self.eps), factors.attention_out)
        fed = self.feed_forward(normalise(states, self.eps) * factors.feed_forward_in)
        return _gated_sum(states, normalise(fed, self.eps), factors.feed_forward_out)


def _gated_sum(states: Tensor, update: Tensor, factor: Tensor) -> Tensor:
    # The residual stream keeps its own dtype, also under autocast, where the update comes in bfloat16.
    return torch.addcmul(states, update.to(states.dtype), factor.to(states.dtype))


class FinalLayer(nn.Module):
    """Layer norm without weights, AdaLN scale, and the projection to patches."""

    def __init__(self, dim: int, patch_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, patch_channels)
        scale = nn.Linear(min(dim, 1024), dim)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), scale)
        for layer in (self.linear, scale):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def modulation(self, conditioning: Tensor) -> Tensor:
        """conditioning: (batch, min(dim, 1024)) → factor (batch, 1, dim)."""
        return 1 + self.adaLN_modulation(conditioning).unsqueeze(1)

    def forward(self, states: Tensor, conditioning: Tensor, modulated: bool = False) -> Tensor:
        """Patches of the velocity.

        Args:
            states: (batch, tokens, dim).
            conditioning: (batch, min(dim, 1024)), or the factor itself if `modulated`.
        Returns:
            (batch, tokens, patch channels).
        """
        factor = conditioning if modulated else self.modulation(conditioning)
        return self.linear(F.layer_norm(states, states.shape[-1:], eps=1e-6) * factor)
