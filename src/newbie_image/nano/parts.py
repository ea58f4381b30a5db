"""The parts that learn together, a transformer and its two text encoders, and the recipe that sizes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig

from newbie_image.models.gemma_text import GemmaTextModel
from newbie_image.models.jina_text import JinaTextModel
from newbie_image.models.next_dit import NextDiT
from newbie_image.nano.regional import region_rules
from newbie_image.nano.tokenizer import SIZE


@dataclass(frozen=True)
class TransformerRecipe:
    """What decides the transformer and its text encoders.

    time_shift: how much more time is spent near noise, as in sampling; larger latents want more.
    first_position_scale: distance of neighbouring image tokens at the start, in positions; it rises to 1 over
        the first `positions_until` of the run. Half for weights that were trained at half the resolution,
        whose attention then begins with the picture as they know it.
    apart: share of captions in XML whose characters are encoded apart.
    shuffled: share of complete captions in XML that name their people in any order.
    unplaced: share of complete captions in XML that do not say where anybody stands; people are then named
        from left to right, and where regions act they are those of the picture.
    regional: share of those encoded apart in which the picture reads each character more in its region and
        less outside.
    full: share of the regional ones in which all parts of binding `full` act.
    text_lengths: lengths that texts are padded to where the training is compiled, once for each of them.
    optimizer: adamw, or muon for the matrices of the transformer's blocks beside AdamW for all else.
    """

    dim: int = 384
    n_layers: int = 6
    n_refiner_layers: int = 1
    n_heads: int = 4
    n_kv_heads: int = 4
    text_dim: int = 256
    text_layers: int = 4
    pooled_dim: int = 128
    pooled_layers: int = 2
    batch: int = 32
    learning_rate: float = 7e-4
    weight_decay: float = 0.01
    warmup_steps: int = 150
    cooldown: float = 0.25
    unconditional: float = 0.1
    cosine_weight: float = 0.5
    singles_first: float = 0.08
    average_span: float = 0.02
    varied_last: float = 0.2
    alignment_weight: float = 0.5
    alignment_block: int = 3
    alignment_until: float = 0.75
    time_shift: float = 1.0
    first_position_scale: float = 1.0
    positions_until: float = 0.3
    text_lengths: tuple[int, ...] = (32, 56, 80)
    apart: float = 0.6
    regional: float = 0.65
    shuffled: float = 0.5
    unplaced: float = 0.2
    full: float = 0.4
    optimizer: Literal["adamw", "muon"] = "adamw"
    seed: int = 0


class Parts(nn.Module):
    """The three parts that learn together, with the published model's classes.

    Args:
        recipe: sizes.
    """

    def __init__(self, recipe: TransformerRecipe) -> None:
        super().__init__()
        heads = max(1, recipe.text_dim // 64)
        config = Gemma3TextConfig(
            vocab_size=SIZE,
            hidden_size=recipe.text_dim,
            intermediate_size=3 * recipe.text_dim,
            num_hidden_layers=recipe.text_layers,
            num_attention_heads=heads,
            num_key_value_heads=max(1, heads // 2),
            head_dim=64,
            query_pre_attn_scalar=64,
            sliding_window=512,
            max_position_embeddings=2048,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=2,
            layer_types=["full_attention"] * recipe.text_layers,
        )
        config._attn_implementation = "sdpa"
        self.text_encoder = GemmaTextModel(config)
        self.clip_model = JinaTextModel(
            vocab_size=SIZE,
            hidden_size=recipe.pooled_dim,
            num_hidden_layers=recipe.pooled_layers,
            num_attention_heads=max(1, recipe.pooled_dim // 32),
            intermediate_size=4 * recipe.pooled_dim,
            pad_token_id=1,
        )
        self.transformer = NextDiT(
            dim=recipe.dim,
            n_layers=recipe.n_layers,
            n_refiner_layers=recipe.n_refiner_layers,
            n_heads=recipe.n_heads,
            n_kv_heads=recipe.n_kv_heads,
            multiple_of=64,
            ffn_dim_multiplier=2 / 3,
            cap_feat_dim=recipe.text_dim,
            axes_dims=_axes(recipe.dim // recipe.n_heads),
            axes_lens=(1024, 128, 128),
            clip_text_dim=recipe.pooled_dim,
        )

    def forward(self, latents: Tensor, timestep: Tensor, ids: Tensor, mask: Tensor, groups: Tensor,
                pooled_ids: Tensor, pooled_mask: Tensor, boxes: Tensor, full: Tensor) -> Tensor:  # fmt: skip
        """Velocity of `latents` (batch, 16, side, side) at `timestep` (batch,) under the tokenised captions,
        whose characters stand in `boxes`, kept apart as binding `full` does where `full` (batch,) says so
        (see :func:`newbie_image.nano.regional.region_rules`)."""
        tokens = self.text_encoder(ids, mask, groups)
        pooled = self.clip_model(pooled_ids, pooled_mask)
        scores, owners = region_rules(boxes, full, latents.shape[-1] // self.transformer.patch_size)
        return self.transformer(latents, timestep, tokens, mask, pooled, groups, scores, owners)

    def trained(self) -> list[nn.Parameter]:
        """Every parameter that a forward uses (not Gemma's last layer, not its final norm)."""
        skip = (
            f"text_encoder.layers.{len(self.text_encoder.layers) - 1}.",
            "text_encoder.norm.",
            "transformer.norm_",
        )
        return [p for name, p in self.named_parameters() if not name.startswith(skip)]


def _axes(head: int) -> tuple[int, int, int]:
    spatial = head * 3 // 8 // 2 * 2
    return head - 2 * spatial, spatial, spatial
