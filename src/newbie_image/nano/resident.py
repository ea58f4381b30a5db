"""What lies on the card while it trains: pictures, latents, captions and labels, drawn from by index.

Nothing here reads back from the device. Which pictures and captions make a batch is decided on the processor
from the lengths alone; one array of numbers a batch goes over, everything else is gathered where it lies.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from torch import Tensor

from newbie_image.nano import dataset
from newbie_image.nano.autoencoder import AutoencoderRecipe, pixels_to_tensor
from newbie_image.nano.batches import TrainingBatch, Wanted, latent_weights
from newbie_image.nano.caption_table import COMPLETE, VARIED, Tables, complete_shares
from newbie_image.nano.caption_tokens import GEMMA_PAD, JINA_PAD
from newbie_image.nano.dataset import Store
from newbie_image.nano.latents import LatentStatistics
from newbie_image.nano.parts import TransformerRecipe

READ = 500
"""Pictures that are read from disk at a time."""
ENCODE = 128
"""Pictures that are encoded at a time."""


class ResidentPictures:
    """Renders on the device as bytes; crops for the autoencoder are cut there.

    Args:
        store: may still be growing.
        device: where they lie; a picture of 256 × 256 takes 200 kB.
        recipe: crop and batch.
        limit: pictures to hold at most; by default all that the store will have.
    """

    def __init__(
        self, store: Store, device: torch.device, recipe: AutoencoderRecipe, limit: int | None = None
    ) -> None:
        self.store, self.device, self.recipe = store, device, recipe
        room = min(store.count, limit or store.count)
        size = store.size
        self.pictures = torch.empty(room, size, size, 3, dtype=torch.uint8, device=device)
        self.importance = torch.empty(room, size // 4, size // 4, dtype=torch.uint8, device=device)
        self._held = np.zeros(store.count, dtype=bool)
        self.count = 0

    def refresh(self) -> int:
        """Takes over what has been rendered since; returns how many are held."""
        finished = self.store.finished()
        new = finished[~self._held[finished]][: len(self.pictures) - self.count]
        pictures, importance = self.store.pictures(), self.store.importance()
        for start in range(0, len(new), READ):
            part = new[start : start + READ]
            stop = self.count + len(part)
            self.pictures[self.count : stop] = torch.from_numpy(pictures[part]).to(self.device)
            self.importance[self.count : stop] = torch.from_numpy(importance[part]).to(self.device)
            self.count = stop
        self._held[new] = True
        return self.count

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(batch, 3, crop, crop) float32 in [−1, 1] and their importance (batch, 1, crop/4, crop/4).

        All crops of a batch are cut at one place, as a slice.
        """
        crop = self.recipe.crop
        chosen = torch.from_numpy(rng.integers(0, self.count, self.recipe.batch)).to(
            self.device, non_blocking=True
        )
        row, column = (int(x) for x in rng.integers(0, (self.store.size - crop) // 4 + 1, 2))
        y, x = row * 4, column * 4
        pictures = self.pictures[:, y : y + crop, x : x + crop].index_select(0, chosen)
        weights = self.importance[:, row : row + crop // 4, column : column + crop // 4]
        return pixels_to_tensor(pictures), weights.index_select(0, chosen).float()[:, None] / 10


@torch.no_grad()
def encode_resident(
    vae: AutoencoderDC,
    store: Store,
    indices: np.ndarray,
    device: torch.device,
    statistics: LatentStatistics | None = None,
) -> tuple[Tensor, LatentStatistics]:
    """Latents of renders, made and kept on the device.

    Args:
        vae: the trained autoencoder.
        store: the renders.
        indices: (count,) which of them.
        device: where to.
        statistics: normalisation to use; measured over the first 2,048 where None.
    Returns:
        (count, latent channels, size/8, size/8) float16, normalised by channel; the statistics.
    """
    vae = vae.to(device, memory_format=torch.channels_last).eval()  # pyright: ignore
    pictures, side = store.pictures(), store.size // 8
    channels = int(vae.config["latent_channels"])
    latents = torch.empty(len(indices), channels, side, side, dtype=torch.float16, device=device)
    for start in range(0, len(indices), ENCODE):
        part = indices[start : start + ENCODE]
        pixels = pixels_to_tensor(torch.from_numpy(pictures[part]).to(device))
        with torch.autocast(device.type, torch.bfloat16):
            encoded = vae.encode(pixels, return_dict=False)[0]
        latents[start : start + len(part)] = encoded.half()
    if statistics is None:
        first = latents[:2048].float()
        mean, std = first.mean((0, 2, 3)), first.std((0, 2, 3))
        statistics = LatentStatistics(tuple(mean.tolist()), tuple(std.tolist()))
    mean = torch.tensor(statistics.mean, device=device)[None, :, None, None]
    std = torch.tensor(statistics.std, device=device)[None, :, None, None]
    for start in range(0, len(indices), 4096):
        part = latents[start : start + 4096]
        part.copy_((part.float() - mean) / std)
    return latents, statistics


class ResidentBatches:
    """Batches from tables on the device (a `BatchSource`).

    A caption longer than the longest of the recipe's `text_lengths` (a long sentence) is replaced by the same
    picture's complete XML. Within a pool of batches texts are sorted by length, as the processor's are.

    Args:
        tables: captions and labels.
        latents: (pictures, channels, height/8, width/8) float16 on the device, in the tables' order.
        store: for the renderer's importance.
        recipe: batch, captions, lengths.
        batches: in a pool.
    Raises:
        ValueError: a complete caption is longer than every length of the recipe.
    """

    def __init__(
        self, tables: Tables, latents: Tensor, store: Store, recipe: TransformerRecipe, batches: int = 16
    ) -> None:
        device = latents.device
        self.recipe, self.latents, self.batches = recipe, latents, batches
        self.longest = np.maximum(tables.lengths, tables.pooled_lengths).astype(np.int64)
        if self.longest[:, :2].max() > recipe.text_lengths[-1]:
            raise ValueError(
                f"a complete caption has {self.longest[:, :2].max()} tokens, the longest of text_lengths "
                f"{recipe.text_lengths} is {recipe.text_lengths[-1]}; give a longer one"
            )
        self.singles = np.flatnonzero(tables.people == 1)
        self.labels = torch.from_numpy(tables.labels).to(device)
        importance = store.importance()
        weights = [
            torch.from_numpy(importance[tables.indices[i : i + READ]]).to(device)
            for i in range(0, len(tables.indices), READ)
        ]
        self.importance = torch.cat(weights)
        boxes = torch.from_numpy(tables.boxes).to(device).flatten(0, 1)
        self.boxes = torch.cat([boxes, torch.zeros_like(boxes[:1])])
        # The empty caption lies behind all others.
        self.empty = tables.lengths.size
        self.ids = _Ragged(tables.ids, tables.lengths, _EMPTY_GEMMA, device)
        self.groups = _Ragged(tables.groups, tables.lengths, (0,), device)
        self.pooled = _Ragged(tables.pooled_ids, tables.pooled_lengths, _EMPTY_JINA, device)

    def pool(self, rng: random.Random, wanted: Wanted) -> Iterator[TrainingBatch]:
        draw = np.random.default_rng(rng.getrandbits(63))
        size = self.recipe.batch
        pictures, rows, lengths = self._choose(draw, size * self.batches, wanted)
        order = np.argsort(lengths, kind="stable")
        for part in draw.permutation(self.batches):
            chosen = order[part * size : (part + 1) * size]
            yield self._batch(draw, pictures[chosen], rows[chosen], int(lengths[chosen].max()), wanted.labels)

    def _choose(
        self, draw: np.random.Generator, count: int, wanted: Wanted
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pictures, rows of the flat tables, and lengths, each (count,)."""
        candidates = self.singles if wanted.singles and len(self.singles) else np.arange(len(self.longest))
        pictures = candidates[draw.integers(0, len(candidates), count)]
        rows = draw.choice(COMPLETE, count, p=complete_shares(self.recipe.apart, self.recipe.unplaced))
        if wanted.varied:
            vary = draw.random(count) < 0.5
            rows = np.where(vary, COMPLETE + draw.integers(0, VARIED, count), rows)
        lengths = self.longest[pictures, rows]
        rows = np.where(lengths > self.recipe.text_lengths[-1], 0, rows)
        lengths = self.longest[pictures, rows]
        empty = draw.random(count) < self.recipe.unconditional
        flat = pictures * self.longest.shape[1] + rows
        return pictures, np.where(empty, self.empty, flat), np.where(empty, 2, lengths)

    def _batch(
        self,
        draw: np.random.Generator,
        pictures: np.ndarray,
        rows: np.ndarray,
        longest: int,
        labelled: bool,
    ) -> TrainingBatch:
        device = self.latents.device
        length = next(n for n in self.recipe.text_lengths if n >= longest)
        placed = draw.random(len(rows)) < self.recipe.regional
        full = draw.random(len(rows)) < self.recipe.full
        sent = torch.from_numpy(np.stack([pictures, rows, placed, full]).astype(np.int64))
        if device.type == "cuda":
            sent = sent.pin_memory()
        index, row, placed, full = sent.to(device, non_blocking=True).unbind()
        clean = self.latents.index_select(0, index).float()
        ids, mask = self.ids.gather(row, length, GEMMA_PAD)
        groups, _ = self.groups.gather(row, length, 0)
        pooled_ids, pooled_mask = self.pooled.gather(row, length, JINA_PAD)
        boxes = self.boxes.index_select(0, row).float() * placed[:, None, None]
        return TrainingBatch(
            clean,
            latent_weights(self.importance.index_select(0, index), clean.shape[-1]),
            (row != self.empty).float(),
            (ids, mask, groups, pooled_ids, pooled_mask, boxes, full > 0),
            self.labels.index_select(0, index).long() if labelled else None,
        )


class GrowingBatches:
    """Batches from a folder of tables that other processes still fill (a `BatchSource`): what has come since
    is taken over once it is `growth` times what is held.

    Args:
        folder: see :func:`newbie_image.nano.caption_table.prepare`.
        store: the renders.
        vae: the trained autoencoder.
        device: where latents and tables lie.
        recipe: of the batches.
        statistics: normalisation of the latents; measured on what is there at the beginning where None.
        growth: see above.
        report: gets a line when something was taken over.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        vae: AutoencoderDC,
        device: torch.device,
        recipe: TransformerRecipe,
        *,
        statistics: LatentStatistics | None = None,
        growth: float = 1.7,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.folder, self.store, self.vae, self.device = folder, store, vae, device
        self.recipe, self.growth, self.report = recipe, growth, report
        tables = Tables.read(folder)
        self.indices = tables.indices
        self.latents, self.statistics = encode_resident(vae, store, tables.indices, device, statistics)
        self.batches = ResidentBatches(tables, self.latents, store, recipe)

    def pool(self, rng: random.Random, wanted: Wanted) -> Iterator[TrainingBatch]:
        ready = sum(1 for _ in self.folder.glob("[0-9]*.npz")) * dataset.BLOCK
        if ready >= self.growth * len(self.indices):
            self._grow()
        yield from self.batches.pool(rng, wanted)

    def _grow(self) -> None:
        began = time.monotonic()
        tables = Tables.read(self.folder)
        new = np.setdiff1d(tables.indices, self.indices)
        more, _ = encode_resident(self.vae, self.store, new, self.device, self.statistics)
        held = np.concatenate([self.indices, new])
        places = torch.from_numpy(np.argsort(held)[np.searchsorted(np.sort(held), tables.indices)])
        self.latents = torch.cat([self.latents, more]).index_select(0, places.to(self.device))
        self.indices = tables.indices
        self.batches = ResidentBatches(tables, self.latents, self.store, self.recipe)
        self.report(f"latents: {len(new)} more in {time.monotonic() - began:.1f} s, {len(held)} in all")


_EMPTY_GEMMA = (2,)
"""What Gemma's tokenizer makes of an empty caption: `<bos>`."""
_EMPTY_JINA = (0, 2)
"""What Jina's makes of it: `<s></s>`."""


class _Ragged:
    """Token rows of uneven length, end to end on the device, and one more row behind them."""

    def __init__(
        self, flat: np.ndarray, lengths: np.ndarray, last: tuple[int, ...], device: torch.device
    ) -> None:
        counts = np.append(lengths.reshape(-1).astype(np.int64), len(last))
        self.flat = torch.from_numpy(np.append(flat, np.array(last, dtype=flat.dtype))).to(device)
        self.counts = torch.from_numpy(counts).to(device)
        self.starts = torch.from_numpy(np.cumsum(counts) - counts).to(device)

    def gather(self, rows: Tensor, length: int, fill: int) -> tuple[Tensor, Tensor]:
        """(batch, length) int64 padded with `fill` on the right, and 1 where there is something."""
        place = torch.arange(length, device=rows.device)
        valid = place < self.counts.index_select(0, rows)[:, None]
        where = self.starts.index_select(0, rows)[:, None] + place
        tokens = self.flat[where.clamp_max(len(self.flat) - 1)].long()
        return torch.where(valid, tokens, fill), valid.long()
