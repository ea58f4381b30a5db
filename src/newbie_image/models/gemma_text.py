"""Gemma 3's text model as Newbie reads it: the input of its last layer.

Newbie's transformer was trained on ``hidden_states[-2]``, the states after the last but one layer, without
the final norm. :class:`GemmaTextModel` is transformers' ``Gemma3TextModel`` with the same parameters, config
and files, whose forward stops there: neither the last layer nor the final norm is run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextModel

PREFIX: Final = -1
"""Group of the tokens that every group reads: the system prompt."""


class GemmaTextModel(Gemma3TextModel):
    """Token ids to the states of the last but one layer.

    The state dict is that of ``Gemma3TextModel``: files written by either are read by the other.

    Attributes:
        run_last_layer: also run the last layer and the final norm, as a model does that gives all its states;
            nothing reads what they give.
    """

    run_last_layer: bool = False

    def __init__(self, config: Gemma3TextConfig) -> None:
        super().__init__(config)
        if config.use_bidirectional_attention:
            raise ValueError("use_bidirectional_attention is set, but Newbie reads Gemma's causal attention")

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_ids: Tensor, attention_mask: Tensor, groups: Tensor | None = None
    ) -> Tensor:
        """Encode a batch of texts; nothing here waits for the device.

        Args:
            input_ids: (batch, length) integers, padded on the right.
            attention_mask: (batch, length), nonzero where a token is valid.
            groups: (batch, length) integers; tokens of one number read each other and those of number −1, the
                common beginning, and count their positions from its end, as if each group had been encoded
                alone behind it. None for one group.

        Returns:
            (batch, length, hidden_size). What stands at padded places means nothing.
        """
        states = self.embed_tokens(input_ids)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        if groups is not None:
            positions = group_positions(groups)
        kinds: list[str] = list(self.config.layer_types or [])[: self.config.num_hidden_layers]
        if not self.run_last_layer:
            kinds = kinds[:-1]
        rotary = {kind: self.rotary_emb(states, positions, kind) for kind in dict.fromkeys(kinds)}
        masks = {
            kind: self._mask(attention_mask, kind, states.dtype, positions, groups)
            for kind in dict.fromkeys(kinds)
        }
        read = states
        for layer, kind in zip(self.layers, kinds, strict=False):
            read = states
            states = layer(
                states,
                attention_mask=masks[kind],
                position_embeddings=rotary[kind],
                position_ids=positions,
            )
        if self.run_last_layer:
            self.norm(states)
            return read
        return states

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GemmaTextModel:
        """Move or cast as usual, but keep the rotary frequencies in float32: rounded they err late."""
        exact = dict(self.rotary_emb.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in exact.items():
            moved = getattr(self.rotary_emb, name)
            if moved.dtype != buffer.dtype:
                setattr(self.rotary_emb, name, buffer.to(moved.device))
        return self

    def _mask(
        self, attention_mask: Tensor, kind: str, dtype: torch.dtype, positions: Tensor, groups: Tensor | None
    ) -> Tensor:
        """Who may look at whom, (batch, 1, length, length): booleans for SDPA, an added term otherwise.

        A padded place may look at itself, so that no row is empty (which would be NaN in some kernels).
        """
        place = torch.arange(attention_mask.shape[1], device=attention_mask.device)
        allowed = (place[:, None] >= place[None, :])[None]
        window = self.config.sliding_window
        if kind == "sliding_attention" and window is not None:
            allowed = allowed & (positions[:, :, None] - positions[:, None, :] < window)
        if groups is not None:
            allowed = allowed & ((groups[:, :, None] == groups[:, None, :]) | (groups == PREFIX)[:, None, :])
        itself = (place[:, None] == place[None, :])[None]
        seen = (allowed & attention_mask.to(torch.bool)[:, None, :] | itself)[:, None]
        if self.config._attn_implementation == "sdpa":
            return seen
        return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)


def group_positions(groups: Tensor) -> Tensor:
    """Positions (batch, length) of tokens whose groups are encoded apart behind a common beginning.

    Args:
        groups: (batch, length) integers; PREFIX for the beginning.
    """
    place = torch.arange(groups.shape[1], device=groups.device)
    earlier = (groups[:, :, None] == groups[:, None, :]) & (place[:, None] > place[None, :])
    beginning = (groups == PREFIX).sum(1, keepdim=True)
    return earlier.sum(2) + torch.where(groups == PREFIX, 0, beginning)
