"""What lives where and when, and what that takes: said beforehand, by arithmetic alone. No torch.

A picture has three stages. In `text` the encoders read the prompt, in `steps` the transformer walks, in
`decode` the autoencoder makes the picture. An offload mode says which weights are on the device in each:

- none: all weights in all stages.
- encoders: all in `text` (the encoders join the others), transformer and autoencoder afterwards.
- model: one component at a time.
- blocks: one at a time, and of that only what is at work: a text encoder's layers come one after the other,
  token tables stay on the host, AdaLN weights come once for the whole schedule, and as many of the
  transformer's blocks as do not fit come for their turn in each step (`newbie_image.memory.offload`).

The predictions count tensors; where weights are quantised, the largest as it is multiplied besides, on top of
the highest activations, which is a little too much. What a CUDA context, kernels' workspaces and the
allocator add is not predicted but reserved, see `RESERVE` and `MARGIN`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

from newbie_image.errors import RequestError
from newbie_image.memory.sizes import AutoencoderSizes, EncoderSizes, ModelSizes, TransformerSizes
from newbie_image.memory.trims import TRIMS
from newbie_image.models.rotary_limits import check_caption_length, token_grid

OffloadMode = Literal["none", "encoders", "model", "blocks"]
OFFLOAD_MODES: tuple[OffloadMode, ...] = get_args(OffloadMode)
SLOTS = 2
"""Places on the device for what is streamed: one is at work while the other is filled."""
TILE = 512
"""Pixels of a tile's side where an autoencoder decodes in tiles by a plan."""
CHUNK = 1024
"""Tokens that go through projections and feed-forward at a time where a plan cuts them."""
RESERVE = 500_000_000
"""Bytes kept free for the CUDA context and kernels' workspaces: an assumption, not a measurement."""
MARGIN = 0.05
"""Part of the predicted peak kept free for the allocator's fragments: an assumption as well."""

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "G": 10**9, "M": 10**6}


@dataclass(frozen=True)
class Workload:
    """What is to be drawn.

    Args:
        width, height: pixels.
        batch: pictures side by side.
        guided: whether there is a negative prompt's half.
        tokens: caption tokens of the longer text, padding included.
        evaluations: times at which the solver asks, whose AdaLN factors are kept.
        item: bytes of a weight and of an activation: 2 for bf16 and fp16, 4 for fp32.
    """

    width: int = 1024
    height: int = 1024
    batch: int = 1
    guided: bool = True
    tokens: int = 512
    evaluations: int = 56
    item: int = 2


@dataclass(frozen=True)
class Stage:
    """One stage's peak: weights on the device, and everything else, in bytes."""

    name: str
    weights: int
    activations: int

    @property
    def bytes(self) -> int:
        """Both together."""
        return self.weights + self.activations


@dataclass(frozen=True)
class Plan:
    """How a picture is made in the memory there is.

    Args:
        offload: which weights are where, see the module.
        resident: transformer blocks that stay during the steps in mode ``blocks``; None otherwise.
        two_passes: prompt and negative one after the other instead of in one batch.
        chunk: tokens at a time in projections and feed-forward; None for all.
        tiled: whether the autoencoder decodes in tiles (the one choice here that can change pixels).
        stages: predicted peaks.
    """

    offload: OffloadMode = "none"
    resident: int | None = None
    two_passes: bool = False
    chunk: int | None = None
    tiled: bool = False
    stages: tuple[Stage, ...] = ()

    @property
    def peak(self) -> int:
        """Bytes of the largest stage."""
        return max(stage.bytes for stage in self.stages)

    @property
    def needed(self) -> int:
        """Bytes of device memory that the plan asks for, reserve and margin included."""
        return int(self.peak * (1 + MARGIN)) + RESERVE

    def describe(self) -> str:
        """The choices in one line."""
        words = [f"offload {self.offload}"]
        if self.resident is not None:
            words[0] += f" ({self.resident} transformer blocks stay)"
        if self.two_passes:
            words.append("prompt and negative in two passes")
        if self.chunk is not None:
            words.append(f"{self.chunk} tokens at a time")
        if self.tiled:
            words.append(f"decoded in tiles of {TILE} pixels")
        return ", ".join(words)


def predict(sizes: ModelSizes, work: Workload, plan: Plan, trims: Collection[str] = TRIMS) -> Plan:
    """The plan with its stages' peaks filled in, with these of :mod:`newbie_image.memory.trims` at work."""
    dit, item = sizes.transformer, work.item
    rows = work.batch * (2 if work.guided else 1)
    texts = 2 if work.guided else 1
    whole = {
        "gemma": sizes.gemma.weight_bytes(item),
        "jina": sizes.jina.weight_bytes(item),
        "transformer": dit.weight_bytes(item) + dit.rotary,
        "vae": sizes.vae.weights * item,
    }
    gemma, jina = _gemma_states(sizes.gemma, work, texts), _jina_states(sizes.jina, work, texts)
    features = texts * work.tokens * dit.token_width * item
    steps = _kept(dit, work, rows, trims) + _step_states(dit, work, plan)
    decode = _decode_states(sizes.vae, work, plan) + features
    if plan.offload in ("none", "encoders"):
        everything = sum(whole.values())
        later = everything if plan.offload == "none" else whole["transformer"] + whole["vae"]
        stages = (
            Stage("text", everything, max(gemma, jina + features)),
            Stage("steps", later, steps),
            Stage("decode", later, decode),
        )
    else:
        inside = whole
        if plan.offload == "blocks":
            unrun = 1 if "last-layer" in trims else 0
            inside = {
                **whole,
                "gemma": _streamed_encoder(sizes.gemma, item, sizes.gemma.layers - unrun, trims),
                "jina": _streamed_encoder(sizes.jina, item, sizes.jina.layers, trims),
                "transformer": _streamed_transformer(dit, item, plan.resident or 0),
            }
        first = inside["gemma"] + gemma >= inside["jina"] + jina + features
        stages = (
            Stage("text", inside["gemma"], gemma)
            if first
            else Stage("text", inside["jina"], jina + features),
            Stage("steps", inside["transformer"], steps),
            Stage("decode", inside["vae"], decode),
        )
    return replace(plan, stages=stages)


def check_work(sizes: ModelSizes, work: Workload) -> None:
    """Refuse what the model cannot draw in any memory, in the words of the transformer itself.

    Raises:
        RequestError: a picture or a caption beyond the rotary tables.
    """
    transformer = sizes.transformer
    token_grid((work.height // 8, work.width // 8), transformer.patch, transformer.axes_lens)
    check_caption_length(work.tokens, transformer.axes_lens)


def choose_plan(
    sizes: ModelSizes, work: Workload, memory: int, trims: Collection[str] = TRIMS
) -> Plan | None:
    """The plan that costs the least time and fits; None if none does.

    Pixels come first: tiles are taken only where nothing fits without them.

    Args:
        sizes: of the model.
        work: what is to be drawn.
        memory: bytes of the device.
        trims: those that may be at work; without ``chunks`` no plan cuts tokens.
    """
    for tiled in (False, True):
        for plan in _candidates(sizes, work, tiled, trims):
            if plan.needed <= memory:
                return plan
    return None


def fit_blocks(
    sizes: ModelSizes, work: Workload, memory: int, plan: Plan, trims: Collection[str] = TRIMS
) -> Plan:
    """The plan in mode ``blocks`` with as many resident blocks as fit; none where not even that does."""
    count = sizes.transformer.modulated
    for resident in range(count, 0, -1):
        filled = predict(sizes, work, replace(plan, offload="blocks", resident=resident), trims)
        if filled.needed <= memory:
            return filled
    return predict(sizes, work, replace(plan, offload="blocks", resident=0), trims)


def smallest_plan(sizes: ModelSizes, work: Workload, trims: Collection[str] = TRIMS) -> Plan:
    """The plan that needs the least memory."""
    plan = Plan("blocks", 0, work.guided, CHUNK if "chunks" in trims else None, tiled=True)
    return predict(sizes, work, plan, trims)


def read_memory(text: str) -> int:
    """Bytes from a text as ``8GB`` (10^9), ``8GiB`` (2^30), ``8000MB`` or a number of bytes.

    Raises:
        RequestError: not understood.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or float(match[1]) <= 0:
        raise RequestError(f"memory {text!r} is not understood; give it as 8GB, 7.5GiB or 8000MB")
    return int(float(match[1]) * unit)


def _candidates(sizes: ModelSizes, work: Workload, tiled: bool, trims: Collection[str]) -> Iterator[Plan]:
    passes = (False, True) if work.guided else (False,)
    for offload in ("none", "encoders", "model"):
        for two_passes in passes:
            yield predict(sizes, work, Plan(offload, two_passes=two_passes, tiled=tiled), trims)
    # Fewer weights over the bus in every step first; then the cheaper way of taking fewer activations.
    for resident in range(sizes.transformer.modulated, -1, -1):
        for chunk in (None, CHUNK) if "chunks" in trims else (None,):
            for two_passes in passes:
                yield predict(sizes, work, Plan("blocks", resident, two_passes, chunk, tiled), trims)


def _streamed_encoder(sizes: EncoderSizes, item: int, layers: int, trims: Collection[str]) -> int:
    table = 0 if "tables" in trims else sizes.embedding
    return (sizes.rest + table) * item + min(SLOTS, layers) * sizes.layer_bytes(item)


def _streamed_transformer(sizes: TransformerSizes, item: int, resident: int) -> int:
    # Context refiners are always streamed: they run once a prompt.
    streamed = sizes.modulated - resident + sizes.refiners
    blocks = resident + min(SLOTS, streamed)
    modulation = min(SLOTS, sizes.modulated) * sizes.modulation_bytes(item)
    return sizes.rest * item + blocks * sizes.block_bytes(item) + modulation + sizes.rotary


def _gemma_states(sizes: EncoderSizes, work: Workload, texts: int) -> int:
    # At gelu(gate)·up: residual stream, normed input, and the three of the inner width. Masks are bool.
    count = texts * work.tokens
    states = count * (3 * sizes.width + 3 * sizes.inner) * work.item + 2 * count * work.tokens
    return states + sizes.scratch(work.item)


def _jina_states(sizes: EncoderSizes, work: Workload, texts: int) -> int:
    # While keys are turned in float32, or at the activation of the feed-forward.
    turned = sizes.width * (5 * work.item + 18)
    fed = (3 * sizes.width + 2 * sizes.inner) * work.item
    return texts * work.tokens * max(turned, fed) + sizes.scratch(work.item)


def _sequence(sizes: TransformerSizes, work: Workload) -> int:
    side = 8 * sizes.patch
    return (work.width // side) * (work.height // side) + work.tokens


def _kept(sizes: TransformerSizes, work: Workload, rows: int, trims: Collection[str]) -> int:
    """What lasts through all steps: features, prepared text, rotary tables, AdaLN factors, latents."""
    item = work.item
    features = (2 if work.guided else 1) * work.tokens * sizes.token_width * item
    expanded = rows * work.tokens * sizes.token_width * item if work.batch > 1 else 0
    prepared = rows * work.tokens * sizes.dim * item
    rotary = rows * _sequence(sizes, work) * 2 * sizes.head_dim * 4
    evaluations = work.evaluations if "adaln" in trims else 0
    factors = evaluations * (4 * sizes.modulated + 1) * rows * sizes.dim * item
    latents = 8 * rows * sizes.channels * (work.width // 8) * (work.height // 8) * 4
    # Without the trim, a step's own text stands beside the one that was prepared for all.
    twice = 1 if "refiner" in trims else 2
    return features + expanded + twice * (prepared + rotary) + factors + latents


def _step_states(sizes: TransformerSizes, work: Workload, plan: Plan) -> int:
    rows = work.batch * (2 if work.guided and not plan.two_passes else 1)
    tokens, item = _sequence(sizes, work), work.item
    heads = sizes.query_width + 2 * sizes.key_width
    # Queries and keys in float32: as they are, exchanged, times the cosines, and the sum.
    turned = 4 * 4 * (sizes.query_width + sizes.key_width)
    chunk = tokens if plan.chunk is None else min(plan.chunk, tokens)
    if plan.chunk is None:
        step = tokens * max((4 * sizes.dim + 3 * sizes.inner) * item, (2 * sizes.dim + heads) * item + turned)
    else:
        step = max(
            tokens * (4 * sizes.dim + heads) * item,
            tokens * (2 * sizes.dim + heads) * item + chunk * (heads * item + turned),
            tokens * 5 * sizes.dim * item + chunk * (3 * sizes.inner + sizes.dim) * item,
        )
    # The captions' refiners run before, for both halves at once.
    texts = work.batch * (2 if work.guided else 1) * work.tokens
    return max(rows * step, texts * (3 * sizes.dim + 3 * sizes.inner) * item) + sizes.scratch(item)


def _decode_states(sizes: AutoencoderSizes, work: Workload, plan: Plan) -> int:
    # At the widest full-resolution feature map: a residual, its norm and its activation.
    picture = work.width * work.height
    pixels = min(work.width, TILE) * min(work.height, TILE) if plan.tiled else picture
    tiles = 3 * picture * work.item if plan.tiled else 0
    # Afterwards the picture alone: as it is, in float32, and between 0 and 1.
    return max(3 * sizes.full_width * work.item * pixels + tiles, 3 * (work.item + 2 * 4) * picture)
