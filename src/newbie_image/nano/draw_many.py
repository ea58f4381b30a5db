"""Draws many prompts side by side, each under its own binding: what scores and benchmarks are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from newbie_image.binding.bias import Factors
from newbie_image.binding.binding import Binding
from newbie_image.conditioning import conditioned_velocity, guidance_of
from newbie_image.decoding import decode_latents
from newbie_image.latents import latent_shape, seeded_noise
from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import GenerationRequest, PictureDone
from newbie_image.sampling import make_solver, time_grid
from newbie_image.text import TextFeatures, TokenBatch

DECODED: Final = 16
"""Pictures that are decoded side by side."""
Change = Callable[[Binding], Binding]


@dataclass(frozen=True)
class SeveralBindings(Binding):
    """The bindings of several prompts, one a picture, that have the same parts.

    Args:
        each: in the order of the pictures.
    """

    each: tuple[Binding, ...] = ()

    @classmethod
    def of(cls, each: Sequence[Binding]) -> SeveralBindings:
        """Bindings that :func:`_kind` finds alike."""
        return cls(each[0].parts, each[0].text, each[0].regions, each[0].masks, tuple(each))

    def varies(self, regional: bool) -> bool:
        return True

    def factors(self, grid: tuple[int, int], regional: bool, picture: int = 0) -> Factors:
        return self.each[picture].factors(grid, regional)

    def negative_factors(self, grid: tuple[int, int], length: int, picture: int = 0) -> Factors:
        return self.each[picture].negative_factors(grid, length)


@torch.no_grad()
def draw_many(
    pipeline: NewbiePipeline,
    requests: Sequence[GenerationRequest],
    *,
    batch: int = 16,
    change: Change = lambda binding: binding,
    progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """One picture a request, many requests in a batch where their settings are the same.

    A request whose regions must be found in the picture is drawn by itself.

    Args:
        pipeline: on its device.
        requests: of one size; each with its seed.
        batch: pictures side by side.
        change: applied to each binding.
        progress: told how many are drawn.
    Returns:
        (requests, height, width, 3) uint8.
    """
    complete = [pipeline.complete(request) for request in requests]
    bindings = []
    for request in complete:
        binding, _ = pipeline.bind(request)
        bindings.append(binding if binding is None else change(binding))
    kinds = [_kind(request, binding) for request, binding in zip(complete, bindings, strict=True)]
    found: dict[int, np.ndarray] = {}
    order = sorted(range(len(kinds)), key=lambda i: kinds.index(kinds[i]))
    for _, alike in groupby(order, key=lambda i: kinds[i]):
        rows = list(alike)
        alone = _must_be_found(bindings[rows[0]])
        step = 1 if alone else batch
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            if alone:
                events = pipeline.stream(complete[part[0]])
                done = next(event for event in events if isinstance(event, PictureDone))
                pictures = np.asarray(done.images[0].image.convert("RGB"))[None]
            else:
                pictures = _draw(pipeline, [complete[i] for i in part], [bindings[i] for i in part])
            found.update(zip(part, pictures, strict=True))
            progress(len(found))
    return np.stack([found[i] for i in range(len(requests))])


def _kind(request: GenerationRequest, binding: Binding | None) -> tuple[Any, ...]:
    """What requests of one batch have in common."""
    r = request
    sampling = (r.width, r.height, r.steps, r.shift, r.grid, r.sampler)
    guidance = (r.guidance_scale, r.cfg_truncation, r.cfg_renorm)
    bound = None if binding is None else (binding.parts, binding.placed, _must_be_found(binding))
    return (*sampling, *guidance, bound)


def _must_be_found(binding: Binding | None) -> bool:
    if binding is None or not binding.parts.regional or binding.placed:
        return False
    return binding.text.characters > 1


def _draw(
    pipeline: NewbiePipeline, requests: Sequence[GenerationRequest], bindings: Sequence[Binding | None]
) -> np.ndarray:
    features = encode_many(pipeline, requests, bindings)
    bound = [binding for binding in bindings if binding is not None]
    first = requests[0]
    width, height, steps = (cast("int", each) for each in (first.width, first.height, first.steps))
    shape = latent_shape(pipeline.vae, width, height)
    latents = torch.cat([seeded_noise(request.seed, 1, shape) for request in requests])
    latents = latents.to(pipeline.transformer.device)
    grid = time_grid(steps, cast("float", first.shift), cast("str", first.grid))
    solver = make_solver(cast("str", first.sampler))
    velocity = conditioned_velocity(
        pipeline.transformer,
        features,
        guidance_of(first),
        (latents.shape[2], latents.shape[3]),
        times=solver.asked_times(grid),
        binding=SeveralBindings.of(bound) if bound else None,
        grid=[float(t) for t in grid],
    )
    for step in solver.run(velocity, latents, grid):
        latents = step.latents
    pixels = decode_latents(latents, pipeline.vae, pipeline.vae_settings, batch=DECODED)
    return (pixels.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).cpu().numpy()


def encode_many(
    pipeline: NewbiePipeline, requests: Sequence[GenerationRequest], bindings: Sequence[Binding | None]
) -> TextFeatures:
    """What `pipeline.encode` gives for each request, as one batch: all prompts, then all negative prompts.

    Each different text is encoded once, side by side with the others.
    """
    read = [pipeline.read_texts(r, b) for r, b in zip(requests, bindings, strict=True)]
    if any(batch.pieces is not None or batch.pooled_rows is not None for batch, _ in read):
        return joined([pipeline.encode(r, b) for r, b in zip(requests, bindings, strict=True)])
    halves = len(read[0][0].ids)
    rows = [_Row.of(batch, half) for half in range(halves) for batch, _ in read]
    numbers = {row: number for number, row in enumerate(dict.fromkeys(rows))}
    apart = read[0][0].groups is not None
    ids, mask = _padded([row.ids for row in numbers])
    pooled_ids, pooled_mask = _padded([row.pooled for row in numbers])
    groups = _padded([row.groups for row in numbers])[0] if apart else None
    found = pipeline.encode_texts(TokenBatch(ids, mask, pooled_ids, pooled_mask, groups=groups), False)
    chosen = torch.tensor([numbers[row] for row in rows], device=found.tokens.device)
    kept = None
    if read[0][1] is not None:
        each = [groups[half] for half in range(halves) for _, groups in read if groups is not None]
        kept = torch.stack([F.pad(row, (0, ids.shape[1] - len(row)))[: ids.shape[1]] for row in each])
    features = TextFeatures(
        found.tokens[chosen],
        found.mask[chosen],
        found.pooled[chosen.to(found.pooled.device)],
        negatives=halves > 1,
        groups=kept,
    )
    return features.to(pipeline.transformer.device, pipeline.transformer.dtype)


@dataclass(frozen=True)
class _Row:
    """What the encoders read of one text, without padding: Gemma's tokens, their groups, Jina's tokens."""

    ids: tuple[int, ...]
    groups: tuple[int, ...]
    pooled: tuple[int, ...]

    @classmethod
    def of(cls, batch: TokenBatch, row: int) -> _Row:
        seen, heard = batch.mask[row].bool(), batch.pooled_mask[row].bool()
        groups = () if batch.groups is None else tuple(batch.groups[row][seen].tolist())
        return cls(tuple(batch.ids[row][seen].tolist()), groups, tuple(batch.pooled_ids[row][heard].tolist()))


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of different lengths as (rows, longest) int64 with zeros behind them, and 1 where they are."""
    values = pad_sequence([torch.tensor(row, dtype=torch.int64) for row in rows], batch_first=True)
    ones = pad_sequence([torch.ones(len(row), dtype=torch.int64) for row in rows], batch_first=True)
    return values, ones


def joined(texts: Sequence[TextFeatures]) -> TextFeatures:
    """Features of several requests as those of one batch: all prompts, then all negative prompts."""
    halves = range(2 if texts[0].negatives else 1)
    pairs = [(text, row) for row in halves for text in texts]
    groups = None
    if texts[0].groups is not None:
        rows = [text.groups[row] for text, row in pairs if text.groups is not None]
        groups = pad_sequence(rows, batch_first=True)
    return TextFeatures(
        pad_sequence([text.tokens[row] for text, row in pairs], batch_first=True),
        pad_sequence([text.mask[row] for text, row in pairs], batch_first=True),
        torch.stack([text.pooled[row] for text, row in pairs]),
        negatives=texts[0].negatives,
        groups=groups,
    )
