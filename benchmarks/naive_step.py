"""The denoising step written naively, the way upstream's forward goes, on the weights of a NextDiT.

Everything is done again in each step: caption projection, context refiners, complex rotary tables gathered by
index, masks, sequences put together sample by sample with lengths read back, keys copied for each query head,
norms, modulation and gates one operation after the other. It exists to be measured against.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from newbie_image.models.layers import JointAttention, RMSNorm, TransformerBlock
from newbie_image.models.next_dit import NextDiT


class NaiveStep:
    """One step on the weights of a model.

    Args:
        model: whose weights are used; it is not changed.
    """

    def __init__(self, model: NextDiT) -> None:
        self.model = model
        self.tables: list[Tensor] = []
        config = model.config
        for channels, length in zip(config["axes_dims"], config["axes_lens"], strict=True):
            frequencies = 10000.0 ** -(torch.arange(0, channels, 2, dtype=torch.float64) / channels)
            angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies).float()
            self.tables.append(torch.polar(torch.ones_like(angles), angles).to(model.device))

    @torch.no_grad()
    def __call__(
        self, latents: Tensor, timestep: Tensor, text_tokens: Tensor, text_mask: Tensor, pooled_text: Tensor
    ) -> Tensor:
        """Arguments and result as in `NextDiT.forward`."""
        model = self.model
        dtype, patch, batch = model.x_embedder.weight.dtype, model.patch_size, len(latents)
        rows, columns = latents.shape[2] // patch, latents.shape[3] // patch
        image = rows * columns

        time = model.t_embedder(timestep, dtype)
        text = model.cap_embedder[1](_norm(model.cap_embedder[0], text_tokens.to(dtype)))
        pooled_norm, pooled_linear = model.clip_text_pooled_proj
        pooled = pooled_linear(_norm(pooled_norm, pooled_text.to(dtype)))
        conditioning = model.time_text_embed(torch.cat([time, pooled], dim=-1))

        lengths = text_mask.sum(dim=1).tolist()
        total = max(lengths) + image
        positions = torch.zeros(batch, total, 3, dtype=torch.int32, device=latents.device)
        for sample, length in enumerate(lengths):
            end = length + image
            positions[sample, :length, 0] = torch.arange(length, device=latents.device)
            positions[sample, length:end, 0] = length
            positions[sample, length:end, 1] = torch.arange(rows, device=latents.device).repeat_interleave(
                columns
            )
            positions[sample, length:end, 2] = torch.arange(columns, device=latents.device).repeat(rows)
        turns = self._gather(positions)
        text_turns = turns.new_zeros(batch, text.shape[1], turns.shape[-1])
        image_turns = turns.new_zeros(batch, image, turns.shape[-1])
        for sample, length in enumerate(lengths):
            text_turns[sample, :length] = turns[sample, :length]
            image_turns[sample] = turns[sample, length : length + image]

        for block in model.context_refiner:
            text = _block(block, text, text_mask, text_turns, None)
        cut = latents.to(dtype).view(batch, -1, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
        tokens = model.x_embedder(cut.flatten(3).flatten(1, 2))
        every = torch.ones(batch, image, dtype=torch.bool, device=latents.device)
        for block in model.noise_refiner:
            tokens = _block(block, tokens, every, image_turns, conditioning)

        states = tokens.new_zeros(batch, total, model.dim)
        mask = torch.zeros(batch, total, dtype=torch.bool, device=latents.device)
        for sample, length in enumerate(lengths):
            mask[sample, : length + image] = True
            states[sample, :length] = text[sample, :length]
            states[sample, length : length + image] = tokens[sample]
        for block in model.layers:
            states = _block(block, states, mask, turns, conditioning)

        scale = model.final_layer.adaLN_modulation(conditioning).unsqueeze(1)
        states = model.final_layer.linear(F.layer_norm(states, states.shape[-1:], eps=1e-6) * (1 + scale))
        pictures = []
        for sample, length in enumerate(lengths):
            patches = states[sample, length : length + image].view(rows, columns, patch, patch, -1)
            pictures.append(patches.permute(4, 0, 2, 1, 3).flatten(3, 4).flatten(1, 2))
        return torch.stack(pictures)

    def _gather(self, positions: Tensor) -> Tensor:
        found = []
        for axis, table in enumerate(self.tables):
            index = positions[:, :, axis : axis + 1].repeat(1, 1, table.shape[-1]).to(torch.int64)
            found.append(torch.gather(table.unsqueeze(0).repeat(len(index), 1, 1), dim=1, index=index))
        return torch.cat(found, dim=-1)


def _norm(norm: RMSNorm, states: Tensor) -> Tensor:
    wide = states.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)).type_as(states) * norm.weight


def _turn(states: Tensor, turns: Tensor) -> Tensor:
    pairs = torch.view_as_complex(states.float().reshape(*states.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns.unsqueeze(2)).flatten(3).type_as(states)


def _attention(attention: JointAttention, states: Tensor, mask: Tensor, turns: Tensor) -> Tensor:
    batch, tokens, _ = states.shape
    heads, kv_heads, width = attention.heads, attention.kv_heads, attention.head_dim
    query, key, value = torch.split(
        attention.qkv(states), [heads * width, kv_heads * width, kv_heads * width], dim=-1
    )
    query = _turn(_norm(attention.q_norm, query.view(batch, tokens, heads, width)), turns)
    key = _turn(_norm(attention.k_norm, key.view(batch, tokens, kv_heads, width)), turns)
    copies = heads // kv_heads
    key = key.unsqueeze(3).repeat(1, 1, 1, copies, 1).flatten(2, 3)
    value = value.view(batch, tokens, kv_heads, width).unsqueeze(3).repeat(1, 1, 1, copies, 1).flatten(2, 3)
    out = F.scaled_dot_product_attention(
        query.permute(0, 2, 1, 3),
        key.permute(0, 2, 1, 3),
        value.permute(0, 2, 1, 3),
        attn_mask=mask.bool().view(batch, 1, 1, tokens).expand(-1, heads, tokens, -1),
        scale=math.sqrt(1 / width),
    )
    return attention.out(out.permute(0, 2, 1, 3).flatten(-2))


def _block(
    block: TransformerBlock, states: Tensor, mask: Tensor, turns: Tensor, conditioning: Tensor | None
) -> Tensor:
    if conditioning is None:
        inner = _attention(block.attention, _norm(block.attention_norm1, states), mask, turns)
        states = states + _norm(block.attention_norm2, inner)
        return states + _norm(block.ffn_norm2, block.feed_forward(_norm(block.ffn_norm1, states)))
    scale, gate, ffn_scale, ffn_gate = block.adaLN_modulation(conditioning).chunk(4, dim=1)
    inner = _norm(block.attention_norm1, states) * (1 + scale.unsqueeze(1))
    inner = _norm(block.attention_norm2, _attention(block.attention, inner, mask, turns))
    states = states + gate.unsqueeze(1).tanh() * inner
    inner = block.feed_forward(_norm(block.ffn_norm1, states) * (1 + ffn_scale.unsqueeze(1)))
    return states + ffn_gate.unsqueeze(1).tanh() * _norm(block.ffn_norm2, inner)
