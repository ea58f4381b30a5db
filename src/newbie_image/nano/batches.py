"""Where training gets its batches from: what a batch is, and the batches that the processor makes.

Those that lie on a card as tables are in :mod:`newbie_image.nano.resident`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from newbie_image.nano.caption_tokens import Captioner
from newbie_image.nano.dataset import Store
from newbie_image.nano.parts import TransformerRecipe

SINGLES_FROM = 12_000
"""Single characters for the first part of a run are looked for among so many pictures."""


@dataclass(frozen=True)
class TrainingBatch:
    """One batch on the device.

    clean: (batch, 16, height/8, width/8) float32 latents. weight: (batch, 1, height/8, width/8), mean 1.
    said: (batch,) float32, 0 where the caption is empty. text: ids, mask, groups, pooled ids, pooled mask,
    each (batch, length) int64; boxes (batch, people, 4); full (batch,) bool. labels: (batch, tokens, labels)
    int64, None where they were not asked for.
    """

    clean: Tensor
    weight: Tensor
    said: Tensor
    text: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
    labels: Tensor | None

    @property
    def length(self) -> int:
        """Tokens of the captions, padding included."""
        return self.text[0].shape[1]


@dataclass(frozen=True)
class Wanted:
    """What the moment of a run asks of its batches: one character only, varied captions, labels."""

    singles: bool
    varied: bool
    labels: bool


class BatchSource(Protocol):
    """Makes batches, some at a time."""

    def pool(self, rng: random.Random, wanted: Wanted) -> Iterator[TrainingBatch]:
        """A few batches whose texts are about equally long within each."""
        ...


class HostBatches:
    """Batches made on the processor: captions tokenised as they are drawn, latents in memory.

    Args:
        store: the renders, for captions and importance.
        latents: (count, 16, height/8, width/8) float16, normalised.
        recipe: batch and captions.
        device: where the batches go.
        few_lengths: pad to the recipe's `text_lengths`.
    """

    def __init__(
        self,
        store: Store,
        latents: np.ndarray,
        recipe: TransformerRecipe,
        device: torch.device,
        few_lengths: bool = False,
    ) -> None:
        self.latents = latents
        self.device = device
        self.captioner = Captioner(store, recipe, few_lengths)
        self.importance = store.importance()
        self.usable = np.arange(len(latents))
        first = self.usable[:SINGLES_FROM]
        self.singles = np.array([i for i in first if len(self.captioner.scene(int(i)).characters) == 1])

    def pool(self, rng: random.Random, wanted: Wanted) -> Iterator[TrainingBatch]:
        candidates = self.singles if wanted.singles else self.usable
        for batch in self.captioner.pool(rng, candidates, wanted.varied):
            clean = torch.from_numpy(self.latents[batch.indices].astype(np.float32)).to(self.device)
            side = clean.shape[-1]
            weight = latent_weights(torch.from_numpy(self.importance[batch.indices]), side)
            labels = None
            if wanted.labels:
                labels = torch.from_numpy(self.captioner.labels(batch.indices, side // 2)).to(self.device)
            text = (batch.ids, batch.mask, batch.groups, batch.pooled_ids, batch.pooled_mask)
            ids, mask, groups, pooled_ids, pooled_mask = (x.to(self.device) for x in text)
            boxes, full = batch.boxes.to(self.device), batch.full.to(self.device)
            yield TrainingBatch(
                clean,
                weight.to(self.device),
                torch.from_numpy(batch.said).to(self.device),
                (ids, mask, groups, pooled_ids, pooled_mask, boxes, full),
                labels,
            )


def latent_weights(importance: Tensor, side: int) -> Tensor:
    """(batch, 1, side, side), mean 1, from the renderer's importance (batch, height/4, width/4) in tenths."""
    weight = F.adaptive_avg_pool2d(importance.float()[:, None] / 10, side)
    return weight / weight.mean()
