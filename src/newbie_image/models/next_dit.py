"""NextDiT: the transformer that turns noise into latents under a caption. The only definition of it.

One stream of tokens, [image][caption][padding], goes through blocks whose norms are scaled and whose updates
are gated by the time and the pooled caption. Before the streams join, noise refiners see the image alone and
context refiners the caption alone. Parameters have the published model's names: its state dict loads as is.

The work is cut where time enters. `prepare_text` does once what a caption needs (projection, context
refiners, positions, padding); `velocity` is the step; `forward` is both, for training.

Source: Lumina-Image 2.0 (arXiv 2503.21758), NewBie-image-Exp0.1 (`NextDiT_CLIP`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from newbie_image.errors import ConfigError
from newbie_image.models.attention import AttentionBackend, KeyPadding, check_backend, wants_packed_keys
from newbie_image.models.layers import FinalLayer, Modulation, RMSNorm, TimestepEmbedder, TransformerBlock
from newbie_image.models.prepared_text import (
    IMAGE,
    PreparedText,
    StepModulation,
    check_latents,
    check_prepared,
    check_text,
    group_bias,
    right_padded_lengths,
)
from newbie_image.models.rope import Rotary, RotaryTables, sequence_positions
from newbie_image.models.rotary_limits import check_caption_length, token_grid


class NextDiT(ModelMixin, ConfigMixin):
    """The transformer.

    Args:
        patch_size: latent pixels along the side of one token.
        in_channels: channels of the latents.
        dim: width.
        n_layers: joint blocks.
        n_refiner_layers: noise refiners, and as many context refiners.
        n_heads: query heads; dim / n_heads is the head's size.
        n_kv_heads: key and value heads, a divisor of n_heads; None for n_heads.
        multiple_of: the feed-forward's width is rounded up to a multiple of it.
        ffn_dim_multiplier: factor of the feed-forward's width 4·dim; None for 1.
        norm_eps: of the block's norms and the caption's norm.
        cap_feat_dim: width of the text tokens.
        axes_dims: head channels turned by caption index, row and column; even, their sum is the head's size.
        axes_lens: positions on each axis; a caption has at most axes_lens[0] − 1 tokens.
        clip_text_dim: width of the pooled text.
    Raises:
        ConfigError: sizes that do not fit together.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["TransformerBlock"]  # noqa: RUF012
    _repeated_blocks = ["TransformerBlock"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["x_embedder", "t_embedder", "norm", "final_layer"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        patch_size: int = 2,
        in_channels: int = 16,
        dim: int = 2304,
        n_layers: int = 36,
        n_refiner_layers: int = 2,
        n_heads: int = 24,
        n_kv_heads: int | None = 8,
        multiple_of: int = 256,
        ffn_dim_multiplier: float | None = None,
        norm_eps: float = 1e-5,
        cap_feat_dim: int = 2560,
        axes_dims: Sequence[int] = (32, 32, 32),
        axes_lens: Sequence[int] = (1024, 512, 512),
        clip_text_dim: int = 1024,
    ) -> None:
        super().__init__()
        kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        _check_whole(
            patch_size=patch_size,
            in_channels=in_channels,
            dim=dim,
            n_layers=n_layers,
            n_refiner_layers=n_refiner_layers,
            n_heads=n_heads,
            n_kv_heads=kv_heads,
            multiple_of=multiple_of,
            cap_feat_dim=cap_feat_dim,
            clip_text_dim=clip_text_dim,
        )
        _check_sizes(dim, n_heads, kv_heads, axes_dims, axes_lens)
        self.patch_size, self.in_channels, self.dim = patch_size, in_channels, dim
        self.axes_lens = tuple(axes_lens)
        self.cap_feat_dim, self.clip_text_dim = cap_feat_dim, clip_text_dim
        self.gradient_checkpointing = False
        self._attention_backend: AttentionBackend = "auto"

        def blocks(count: int, modulated: bool) -> nn.ModuleList:
            return nn.ModuleList(
                TransformerBlock(dim, n_heads, kv_heads, multiple_of, ffn_dim_multiplier, norm_eps, modulated)
                for _ in range(count)
            )

        patch_channels = patch_size * patch_size * in_channels
        time_dim = min(dim, 1024)
        caption, pooled = nn.Linear(cap_feat_dim, dim), nn.Linear(clip_text_dim, clip_text_dim)
        mixing = nn.Linear(time_dim + clip_text_dim, time_dim)
        self.x_embedder = nn.Linear(patch_channels, dim)
        self.noise_refiner = blocks(n_refiner_layers, modulated=True)
        self.context_refiner = blocks(n_refiner_layers, modulated=False)
        self.t_embedder = TimestepEmbedder(time_dim)
        self.cap_embedder = nn.Sequential(RMSNorm(cap_feat_dim, eps=norm_eps), caption)
        self.layers = blocks(n_layers, modulated=True)
        # Not used by any forward, here or upstream; it is in every published state dict.
        self.norm_final = RMSNorm(dim, eps=norm_eps)
        self.final_layer = FinalLayer(dim, patch_channels)
        self.rope_embedder = RotaryTables(axes_dims, axes_lens)
        self.time_text_embed = nn.Sequential(nn.SiLU(), mixing)
        self.clip_text_pooled_proj = nn.Sequential(RMSNorm(clip_text_dim, eps=1e-6), pooled)
        self._initialise(caption, pooled, mixing)

    def _initialise(self, caption: nn.Linear, pooled: nn.Linear, mixing: nn.Linear) -> None:
        nn.init.xavier_uniform_(self.x_embedder.weight)
        nn.init.zeros_(self.x_embedder.bias)
        nn.init.trunc_normal_(caption.weight, std=0.02)
        nn.init.zeros_(caption.bias)
        nn.init.normal_(pooled.weight, std=0.01)
        nn.init.zeros_(pooled.bias)
        # Upstream zeroes this layer, because it was added to trained weights. From scratch that is a dead
        # point: the AdaLN weights behind it are zero as well, so that neither would ever see a gradient and
        # the model would stay blind to time. SiLU halves small values, hence the factor 2.
        nn.init.normal_(mixing.weight, std=2 / math.sqrt(mixing.in_features))
        nn.init.zeros_(mixing.bias)

    @property
    def attention_backend(self) -> AttentionBackend:
        """auto, sdpa, flash or math; see `newbie_image.models.attention`."""
        return self._attention_backend

    @attention_backend.setter
    def attention_backend(self, backend: str) -> None:
        self._attention_backend = check_backend(backend, self.x_embedder.weight.device)

    @property
    def _compute_dtype(self) -> torch.dtype:
        # A norm's weight: never quantised and never cast layer by layer.
        return self.norm_final.weight.dtype

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        text_tokens: Tensor,
        text_mask: Tensor,
        pooled_text: Tensor,
        text_groups: Tensor | None = None,
        region_scores: Tensor | None = None,
        image_groups: Tensor | None = None,
    ) -> Tensor:
        """Velocity of noisy latents under captions, in one go: for training and for single evaluations.

        Shapes depend on the arguments' shapes alone and nothing is read back from the device, so that it
        compiles into one graph; padding is masked, never trimmed, and not checked to be on the right.

        Args:
            latents: (batch, in_channels, height/8, width/8), t·data + (1 − t)·noise.
            timestep: (batch,) in [0, 1]; 0 is noise, 1 is data.
            text_tokens: (batch, length, cap_feat_dim), padded on the right.
            text_mask: (batch, length), non-zero where a token is valid.
            pooled_text: (batch, clip_text_dim).
            text_groups: (batch, length) integers: tokens of a character (1, 2, …) are read by tokens of the
                same character alone among the caption's, those of 0 and below by all. None lets all read all.
            region_scores: (batch, characters + 1, image tokens), with `text_groups`: added to the scores with
                which the picture reads tokens of group 0 and below, of character 1, of 2, ….
            image_groups: (batch, image tokens) integers, with `text_groups`: tokens of a character (1, 2, …)
                are not read by another character's, and no image token by the caption; −1 throughout a
                picture without these rules.
        Returns:
            Velocity data − noise, shape and dtype of the latents.
        Raises:
            RequestError: shapes that do not fit the model or each other.
        """
        check_latents(latents, self.in_channels, self.patch_size)
        size = (latents.shape[-2], latents.shape[-1])
        regions = (region_scores, image_groups)
        prepared = self._prepare(
            text_tokens, text_mask, pooled_text, size, text_groups, static=True, regions=regions
        )
        return self.velocity(latents, timestep, prepared)

    @apply_forward_hook
    def prepare_text(
        self,
        text_tokens: Tensor,
        text_mask: Tensor,
        pooled_text: Tensor,
        latent_size: tuple[int, int],
        text_groups: Tensor | None = None,
    ) -> PreparedText:
        """Does once what the captions need for every step at one picture size.

        Reads the captions' lengths back from the device, trims padding that no caption needs, and leaves the
        mask away where all captions are equally long.

        Args:
            text_tokens: (batch, length, cap_feat_dim), padded on the right.
            text_mask: (batch, length), non-zero where a token is valid.
            pooled_text: (batch, clip_text_dim).
            latent_size: height/8 and width/8 of the picture, multiples of patch_size.
            text_groups: see `forward`.
        Raises:
            RequestError: shapes that do not fit, captions or pictures beyond the rotary tables, padding that
                is not on the right.
        """
        return self._prepare(text_tokens, text_mask, pooled_text, latent_size, text_groups, static=False)

    def _prepare(
        self,
        tokens: Tensor,
        mask: Tensor,
        pooled: Tensor,
        latent_size: tuple[int, int],
        groups: Tensor | None,
        static: bool,
        regions: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> PreparedText:
        check_text(tokens, mask, pooled, self.cap_feat_dim, self.clip_text_dim)
        rows, columns = token_grid(latent_size, self.patch_size, self.axes_lens)
        dtype, image = self._compute_dtype, rows * columns
        valid = mask != 0
        lengths = None
        if not static:
            lengths = right_padded_lengths(valid)
            valid, tokens = valid[:, : max(lengths)], tokens[:, : max(lengths)]
            groups = groups if groups is None else groups[:, : max(lengths)]
        length = valid.shape[1]
        check_caption_length(length, self.axes_lens)
        counts = valid.sum(dim=1)
        rotary = self.rope_embedder(sequence_positions(counts, rows, columns, length))

        padded = lengths is None or min(lengths) < length
        # Padding may hold anything, even NaN, and 0 · NaN in the values is NaN: so it is made zero, twice.
        text = tokens.to(dtype)
        if padded:
            text = text.masked_fill(~valid[..., None], 0)
        text = self.cap_embedder(text).to(dtype)
        text_padding = self._padding(valid, static) if padded else None
        if groups is not None:
            text_padding = KeyPadding(valid, bias=group_bias(valid, groups))
        for block in self.context_refiner:
            text = self._run(block, text, None, rotary.tokens(image, image + length), text_padding)
        padding = None
        if padded:
            text = text.masked_fill(~valid[..., None], 0)
        if padded or groups is not None:
            everywhere = torch.cat([valid.new_ones(valid.shape[0], image), valid], dim=1)
            padding = self._padding(everywhere, static)
            if groups is not None:
                bias = group_bias(everywhere, F.pad(groups, (image, 0), value=IMAGE))
                scores, owners = regions
                if scores is not None:
                    bias = bias + F.pad(_of_tokens(scores, groups), (image, 0, 0, length))[:, None]
                if owners is not None:
                    bias = bias.masked_fill(_barred(owners, length)[:, None], -math.inf)
                padding = KeyPadding(everywhere, bias=bias)
        pooled = self.clip_text_pooled_proj(pooled.to(dtype)).to(dtype)
        return PreparedText(text, pooled, rotary, padding, (rows, columns), lengths)

    def _padding(self, valid: Tensor, static: bool) -> KeyPadding:
        if not static and wants_packed_keys(self._attention_backend, valid.device, self._compute_dtype):
            return KeyPadding.pack(valid)
        return KeyPadding(valid)

    @apply_forward_hook
    def velocity(
        self,
        latents: Tensor,
        timestep: Tensor,
        prepared: PreparedText,
        modulation: StepModulation | None = None,
    ) -> Tensor:
        """One step: velocity of noisy latents under prepared captions. Never waits for the device.

        Args:
            latents: (batch, in_channels, height/8, width/8).
            timestep: (batch,) in [0, 1]; 0 is noise, 1 is data.
            prepared: from `prepare_text`, of the same batch and picture size.
            modulation: the step's factors from `prepare_schedule`; timestep is then not looked at.
        Returns:
            Velocity data − noise, shape and dtype of the latents.
        Raises:
            RequestError: latents of another shape than the captions were prepared for.
        """
        check_latents(latents, self.in_channels, self.patch_size)
        check_prepared(latents, timestep, prepared, self.patch_size)
        dtype, image = self._compute_dtype, prepared.grid[0] * prepared.grid[1]
        if modulation is None:
            conditioning = self._conditioning(timestep, prepared.pooled)
            refiners = [conditioning] * len(self.noise_refiner)
            joint = [conditioning] * len(self.layers)
            final = conditioning
        else:
            refiners, joint, final = modulation.noise_refiner, modulation.layers, modulation.final

        states = self.x_embedder(patchify(latents.to(dtype), self.patch_size)).to(dtype)
        image_rotary = prepared.rotary.tokens(0, image)
        for block, factors in zip(self.noise_refiner, refiners, strict=True):
            states = self._run(block, states, factors, image_rotary, prepared.image_padding)
        states = torch.cat([states, prepared.text], dim=1)
        last = len(self.layers) - 1
        for index, (block, factors) in enumerate(zip(self.layers, joint, strict=True)):
            # Nothing reads the caption's tokens after the last block: there they are keys only.
            keep = image if index == last else None
            states = self._run(block, states, factors, prepared.rotary, prepared.padding_at(index), keep)
        patches = self.final_layer(states[:, :image], final, modulated=modulation is not None)
        return unpatchify(patches, prepared.grid, self.patch_size).to(latents.dtype)

    @apply_forward_hook
    @torch.no_grad()
    def prepare_schedule(
        self, timesteps: Sequence[float] | Tensor, prepared: PreparedText
    ) -> list[StepModulation]:
        """AdaLN factors of all blocks for a fixed schedule. Exact; the steps then read no AdaLN weights.

        Args:
            timesteps: (steps,) in [0, 1].
            prepared: the captions of the run; the factors depend on their pooled text.
        Returns:
            One `StepModulation` for each timestep, to hand to `velocity`.
        """
        refiners = cast(Iterable[TransformerBlock], self.noise_refiner)
        joint = cast(Iterable[TransformerBlock], self.layers)
        conditionings = [
            self._conditioning(
                torch.full((prepared.batch,), time, device=prepared.pooled.device), prepared.pooled
            )
            for time in torch.as_tensor(timesteps, dtype=torch.float32).tolist()
        ]
        # Block by block, so that AdaLN weights that wait in another memory come over once for all times.
        refined = [[block.modulation(each) for each in conditionings] for block in refiners]
        joined = [[block.modulation(each) for each in conditionings] for block in joint]
        return [
            StepModulation(
                tuple(factors[place] for factors in refined),
                tuple(factors[place] for factors in joined),
                self.final_layer.modulation(each),
            )
            for place, each in enumerate(conditionings)
        ]

    def _conditioning(self, timestep: Tensor, pooled: Tensor) -> Tensor:
        time = self.t_embedder(timestep, self._compute_dtype)
        return self.time_text_embed(torch.cat([time, pooled.to(time.dtype)], dim=-1))

    def _run(
        self,
        block: nn.Module,
        states: Tensor,
        conditioning: Tensor | Modulation | None,
        rotary: Rotary,
        padding: KeyPadding | None,
        keep: int | None = None,
    ) -> Tensor:
        arguments = (states, conditioning, rotary, padding, self._attention_backend, keep)
        if self.gradient_checkpointing and torch.is_grad_enabled():
            assert self._gradient_checkpointing_func is not None
            return self._gradient_checkpointing_func(block, *arguments)
        return block(*arguments)


def patchify(latents: Tensor, patch: int) -> Tensor:
    """(batch, channels, height, width) → (batch, tokens, patch·patch·channels), row by row."""
    batch, channels, height, width = latents.shape
    cut = latents.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


def _of_tokens(scores: Tensor, groups: Tensor) -> Tensor:
    """(batch, groups, image tokens) → (batch, image tokens, caption tokens), by each token's group."""
    index = groups.clamp_min(0)[:, :, None].expand(-1, -1, scores.shape[-1])
    return scores.gather(1, index).transpose(1, 2)


def _barred(owners: Tensor, length: int) -> Tensor:
    """(batch, image tokens) regions → (batch, tokens, tokens) bool over image and caption: which keys a query
    must not see because they are another region's, or because the query is the caption's."""
    asks, shows = owners[:, :, None], owners[:, None, :]
    apart = (asks != shows) & (asks > 0) & (shows > 0)
    blind = (owners >= 0)[:, None, :].expand(-1, length, -1)
    return F.pad(torch.cat([apart, blind], dim=1), (0, length))


def unpatchify(patches: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """(batch, rows·columns, patch·patch·channels) → (batch, channels, rows·patch, columns·patch)."""
    batch, rows, columns = patches.shape[0], *grid
    cut = patches.reshape(batch, rows, columns, patch, patch, -1)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, rows * patch, columns * patch)


def _check_whole(**sizes: object) -> None:
    for name, value in sizes.items():
        least = 0 if name == "n_refiner_layers" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} is {value!r}; give a whole number of at least {least}")


def _check_sizes(
    dim: int, heads: int, kv_heads: int, axes_dims: Sequence[int], axes_lens: Sequence[int]
) -> None:
    if dim % heads or heads % kv_heads:
        raise ConfigError(
            f"dim {dim}, n_heads {heads}, n_kv_heads {kv_heads}: n_heads must divide dim and n_kv_heads must "
            "divide n_heads"
        )
    if (
        len(axes_dims) != 3
        or len(axes_lens) != 3
        or not all(isinstance(each, int) for each in (*axes_dims, *axes_lens))
        or sum(axes_dims) != dim // heads
        or any(d % 2 for d in axes_dims)
    ):
        raise ConfigError(
            f"axes_dims {list(axes_dims)} and axes_lens {list(axes_lens)} with heads of {dim // heads} "
            "channels: give three even axes_dims that sum to the head's size, and three axes_lens, all of "
            "them whole numbers"
        )
