"""Trains the embedded transformer together with its two text encoders, by flow matching on cached latents.

x_t = t·data + (1 − t)·noise with t from a logit-normal; loss = MSE of the velocity + 0.5·(1 − cosine),
places that matter (faces, eyes) weighted by the renderer; one caption in ten is empty for both encoders,
which is what guidance needs. Weights stay float32, arithmetic is bfloat16 by autocast. The run ends after a
time, is saved every few minutes and resumes where it was.
"""

from __future__ import annotations

import json
import math
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig

from newbie_image.models.gemma_text import PREFIX, GemmaTextModel
from newbie_image.models.jina_text import JinaTextModel
from newbie_image.models.next_dit import NextDiT
from newbie_image.models.rope import RotaryTables
from newbie_image.nano.alignment import LABELS, AlignmentHead, token_labels
from newbie_image.nano.captions import training_caption
from newbie_image.nano.clock import TrainingClock
from newbie_image.nano.dataset import Store
from newbie_image.nano.tokenizer import SIZE, TAG_SYSTEM_PROMPT, XML_SYSTEM_PROMPT, build_tokenizer


@dataclass(frozen=True)
class TransformerRecipe:
    """What decides the transformer and its text encoders.

    time_shift: how much more time is spent near noise, as in sampling; larger latents want more.
    first_position_scale: distance of neighbouring image tokens at the start, in positions; it rises to 1 over
        the first `positions_until` of the run. Half for weights that were trained at half the resolution,
        whose attention then begins with the picture as they know it.
    apart: share of captions in XML whose characters are encoded apart.
    text_lengths: lengths that texts are padded to where the training is compiled, once for each of them.
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
    apart: float = 0.5
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
                pooled_ids: Tensor, pooled_mask: Tensor) -> Tensor:  # fmt: skip
        """Velocity of `latents` (batch, 16, height, width) at `timestep` (batch,) under the tokenised
        captions."""
        tokens = self.text_encoder(ids, mask, groups)
        pooled = self.clip_model(pooled_ids, pooled_mask)
        return self.transformer(latents, timestep, tokens, mask, pooled, groups)

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


@dataclass(frozen=True)
class Batch:
    """Tokenised captions with the indices of their pictures.

    indices: (batch,). said: (batch,) float32, 0 where the caption is empty. ids, mask, groups, pooled_ids,
    pooled_mask: (batch, length) int64; groups are 0 throughout where the caption is encoded whole.
    """

    indices: np.ndarray
    said: np.ndarray
    ids: Tensor
    mask: Tensor
    groups: Tensor
    pooled_ids: Tensor
    pooled_mask: Tensor


@dataclass(frozen=True)
class GroupedTokens:
    """One caption: Gemma's tokens with their groups (see `GemmaTextModel`), and Jina's."""

    ids: list[int]
    groups: list[int]
    pooled_ids: list[int]

    @property
    def length(self) -> int:
        return max(len(self.ids), len(self.pooled_ids))


def caption_blocks(caption: str) -> dict[int, str]:
    """The blocks of a caption in XML by character number, and last, as 0, what is no character's."""
    pieces = re.split(r"<character_(\d+)>.*?</character_\1>\s*", caption, flags=re.DOTALL)
    found = re.finditer(r"<character_(\d+)>.*?</character_\1>", caption, flags=re.DOTALL)
    blocks = {int(match[1]): match[0] for match in found}
    return {**blocks, 0: "".join(pieces[::2])}


def _padded(rows: list[list[int]], length: int, fill: int) -> tuple[Tensor, Tensor]:
    """(rows, length) int64 padded on the right, and 1 where there is something."""
    values = torch.full((len(rows), length), fill)
    mask = torch.zeros((len(rows), length), dtype=torch.int64)
    for row, (value, seen) in zip(rows, zip(values, mask, strict=True), strict=True):
        value[: len(row)] = torch.tensor(row, dtype=torch.int64)
        seen[: len(row)] = 1
    return values, mask


class Captioner:
    """Draws batches of captions, sorted so that texts of one batch are about equally long."""

    def __init__(self, store: Store, recipe: TransformerRecipe, few_lengths: bool = False) -> None:
        self.store = store
        self.recipe = recipe
        self.lengths = recipe.text_lengths if few_lengths else ()
        self.gemma = build_tokenizer("gemma")
        self.jina = build_tokenizer("jina")
        self.scenes: dict[int, Any] = {}
        self._labels: dict[int, np.ndarray] = {}

    def pool(
        self, rng: random.Random, candidates: np.ndarray, varied: bool = True, batches: int = 4
    ) -> Iterator[Batch]:
        """Yields `batches` batches over random `candidates` (picture indices); with
        `varied`, half of the captions are (see `training_caption`)."""
        size = self.recipe.batch
        rows: list[tuple[int, GroupedTokens]] = []
        for _ in range(size * batches):
            index = int(candidates[rng.randrange(len(candidates))])
            empty = rng.random() < self.recipe.unconditional
            vary = varied and rng.random() < 0.5
            caption = "" if empty else training_caption(self.scene(index), rng, vary)
            rows.append((index, self.tokens(caption, rng.random() < self.recipe.apart)))
        rows.sort(key=lambda row: row[1].length)
        order = list(range(batches))
        rng.shuffle(order)
        for part in order:
            chosen = rows[part * size : (part + 1) * size]
            longest = max(tokens.length for _, tokens in chosen)
            length = next((n for n in self.lengths if n >= longest), -(-longest // 8) * 8)
            yield Batch(
                np.array([index for index, _ in chosen]),
                np.array([len(tokens.pooled_ids) > 2 for _, tokens in chosen], dtype=np.float32),
                *_padded([tokens.ids for _, tokens in chosen], length, self.gemma.pad_token_id),
                _padded([tokens.groups for _, tokens in chosen], length, 0)[0],
                *_padded([tokens.pooled_ids for _, tokens in chosen], length, self.jina.pad_token_id),
            )

    def tokens(self, caption: str, apart: bool) -> GroupedTokens:
        """A caption's tokens, encoded whole, or each character's block apart behind the system prompt; then
        the pooled vector is that of the general tags alone."""
        if not (apart and caption.startswith("<character_")):
            ids = self.gemma(with_system_prompt(caption)).input_ids
            return GroupedTokens(ids, [0] * len(ids), self.jina(caption).input_ids)
        blocks = caption_blocks(caption)
        first = len(self.gemma(XML_SYSTEM_PROMPT).input_ids)
        ids: list[int] = []
        groups: list[int] = []
        for number, text in blocks.items():
            encoded = self.gemma(XML_SYSTEM_PROMPT + text).input_ids
            if not ids:
                ids, groups = encoded[:first], [PREFIX] * first
            ids += encoded[first:]
            groups += [number] * (len(encoded) - first)
        return GroupedTokens(ids, groups, self.jina(blocks[0]).input_ids)

    def labels(self, indices: np.ndarray, side: int) -> np.ndarray:
        """Token labels of pictures, (batch, side·side, labels) int64, remembered."""
        for index in map(int, indices):
            if index not in self._labels:
                self._labels[index] = token_labels(self.scene(index), side)
        return np.stack([self._labels[int(index)] for index in indices]).astype(np.int64)

    def scene(self, index: int) -> Any:
        """The scene of a picture, remembered."""
        if index not in self.scenes:
            self.scenes[index] = self.store.scene(index)
        return self.scenes[index]


def with_system_prompt(caption: str) -> str:
    """What Gemma reads of a caption: its kind's system prompt in front; nothing in front of an empty one."""
    if not caption:
        return ""
    return (XML_SYSTEM_PROMPT if caption.lstrip().startswith("<") else TAG_SYSTEM_PROMPT) + caption


def flow_loss(output: Tensor, target: Tensor, weight: Tensor, cosine_weight: float) -> Tensor:
    """MSE + cosine_weight·(1 − cosine along channels); weight (batch, 1, height, width) has mean 1."""
    square = (output - target).square().mean(1, keepdim=True)
    cosine = 1 - F.cosine_similarity(output, target, dim=1, eps=1e-6)[:, None]
    return ((square + cosine_weight * cosine) * weight).mean()


def train_transformer(
    store: Store,
    latents: np.ndarray,
    folder: Path,
    recipe: TransformerRecipe,
    *,
    minutes: float,
    device: torch.device,
    report: Callable[[dict[str, Any]], None] = lambda entry: None,
    sample: Callable[[Parts, int], None] | None = None,
    start_from: Mapping[str, Tensor] | None = None,
    compiled: bool = False,
    save_every: float = 10.0,
) -> Parts:
    """Trains until `minutes` are spent in all (earlier calls included) and returns the averaged parts.

    Args:
        store: the renders, for captions and importance.
        latents: (count, 16, height/8, width/8) float16, normalised to mean 0 and deviation 1 by channel.
        folder: state.pt (resumable), log.jsonl, average.safetensors.
        minutes: total time of the schedule; the rate falls over its last `cooldown` part.
        report: called with each log entry.
        sample: called with the averaged parts and the samples seen at each save.
        start_from: state of `Parts` to begin with where the folder has no state of its own.
        compiled: compile the forward for each of the recipe's `text_lengths`; longer texts run as they are.
    """
    torch.manual_seed(recipe.seed)
    folder.mkdir(parents=True, exist_ok=True)
    parts = Parts(recipe).to(device)
    if start_from is not None:
        parts.load_state_dict(start_from)
    average = Parts(recipe).to(device).requires_grad_(False)
    average.load_state_dict(parts.state_dict())
    align = AlignmentHead(recipe.dim).to(device)
    watching = align.watch(parts.transformer.layers[min(recipe.alignment_block, recipe.n_layers) - 1])
    trained = [*parts.trained(), *align.parameters()]
    matrices = [p for p in trained if p.ndim >= 2]
    others = [p for p in trained if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
        fused=True,
    )
    step, spent, seen = 0, 0.0, 0
    state_file = folder / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        parts.load_state_dict(state["parts"])
        average.load_state_dict(state["average"])
        align.load_state_dict(state["alignment"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent, seen = int(state["step"]), float(state["spent"]), int(state["seen"])
    rng = random.Random(recipe.seed * 1_000_003 + step)
    torch.manual_seed(recipe.seed * 1_000_003 + step)
    captioner = Captioner(store, recipe, few_lengths=compiled)
    importance = store.importance()
    usable = np.arange(len(latents))
    singles = np.array([i for i in usable[:12000] if len(captioner.scene(int(i)).characters) == 1])
    if device.type == "cpu":
        parts.transformer.attention_backend = "math"  # the fused kernel's backward is slower at this size
    quick = torch.compile(parts, dynamic=False) if compiled else parts
    clock = TrainingClock(spent)
    last_report = last_save = time.monotonic()
    losses: list[float] = []
    hits = torch.zeros(len(LABELS), 2, dtype=torch.int64, device=device)

    def save(total: float) -> None:
        partial = state_file.with_suffix(".partial")
        torch.save(
            {
                "parts": parts.state_dict(),
                "average": average.state_dict(),
                "alignment": align.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "spent": total,
                "seen": seen,
            },
            partial,
        )
        partial.replace(state_file)
        if sample is not None:
            sample(average, seen)

    total, rate = spent, 0.0
    while total < minutes:
        candidates = singles if total / minutes < recipe.singles_first else usable
        varied = total / minutes > 1 - recipe.varied_last
        strength = recipe.alignment_weight * max(0.0, 1 - total / minutes / recipe.alignment_until)
        if strength == 0 and not compiled:
            watching.remove()
        for model in (parts, average):
            _space_positions(model.transformer.rope_embedder, recipe, total / minutes)
        for batch in captioner.pool(rng, candidates, varied):
            rate = _rate(recipe, step, total / minutes)
            for group in optimizer.param_groups:
                group["lr"] = rate
            clean = torch.from_numpy(latents[batch.indices].astype(np.float32)).to(device)
            weight = _weights(importance, batch.indices, clean.shape[-1]).to(device)
            noise = torch.randn_like(clean)
            t = torch.sigmoid(torch.randn(len(clean), device=device))
            t = t / (t + recipe.time_shift * (1 - t))
            mixed = t[:, None, None, None]
            noisy = mixed * clean + (1 - mixed) * noise
            text = [
                x.to(device)
                for x in (batch.ids, batch.mask, batch.groups, batch.pooled_ids, batch.pooled_mask)
            ]
            run = quick if batch.ids.shape[1] in recipe.text_lengths else parts
            with torch.autocast(device.type, torch.bfloat16):
                output = run(noisy, t, *text)
            loss = flow_loss(output.float(), clean - noise, weight, recipe.cosine_weight)
            flow = loss.detach()
            if strength > 0:
                # An empty caption cannot be read.
                known = torch.from_numpy(batch.said).to(device)
                labels = torch.from_numpy(captioner.labels(batch.indices, clean.shape[-1] // 2)).to(device)
                named, right = align(labels, 2 * (1 - t) * known)
                loss = loss + strength * named
                hits += right
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            seen += len(clean)
            decay = 0.5 ** (1 / max(1.0, recipe.average_span * step))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(parts.parameters()), 1 - decay)  # pyright: ignore
            if step % 5 == 0:
                losses.append(flow.item())
            total = clock.tick()
        now = time.monotonic()
        if now - last_report > 30:
            last_report = now
            entry = {
                "step": step,
                "seen": seen,
                "minutes": round(total, 2),
                "loss": round(float(np.mean(losses[-40:])), 4),
                "rate": rate,
                "per_second": round((seen) / max(1e-9, total * 60), 1),
            }
            if strength > 0:
                right, asked = hits.double().unbind(1)
                shares = (right / asked.clamp_min(1)).tolist()
                entry["named"] = dict(zip(LABELS, (round(share, 2) for share in shares), strict=True))
                hits.zero_()
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
            report(entry)
        if now - last_save > save_every * 60:
            last_save = now
            save(total)
    save(total)
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2))
    return average


def _space_positions(tables: RotaryTables, recipe: TransformerRecipe, progress: float) -> None:
    """Sets the distance of neighbouring image tokens for this moment of the run."""
    if recipe.first_position_scale == 1:
        return
    rise = min(1.0, progress / recipe.positions_until)
    tables.stretch(recipe.first_position_scale + (1 - recipe.first_position_scale) * rise)


def _rate(recipe: TransformerRecipe, step: int, progress: float) -> float:
    rate = recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup_steps)
    if progress > 1 - recipe.cooldown:
        left = max(0.0, (1 - progress) / recipe.cooldown)
        rate *= 0.03 + 0.97 * (0.5 - 0.5 * math.cos(math.pi * left))
    return rate


def _weights(importance: np.ndarray, indices: np.ndarray, side: int) -> Tensor:
    """(batch, 1, side, side): the renderer's importance, mean 1."""
    coarse = torch.from_numpy(importance[indices].astype(np.float32) / 10)[:, None]
    weight = F.adaptive_avg_pool2d(coarse, side)
    return weight / weight.mean()
