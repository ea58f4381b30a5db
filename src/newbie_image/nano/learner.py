"""One step of the transformer's training, with all that it keeps: weights, their average, optimizers.

x_t = t·data + (1 − t)·noise with t from a logit-normal; loss = MSE of the velocity + 0.5·(1 − cosine),
places that matter (faces, eyes) weighted by the renderer. Weights stay float32, arithmetic is bfloat16 by
autocast. A step reads nothing back from the device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from newbie_image.errors import ConfigError
from newbie_image.models.rope import RotaryTables
from newbie_image.nano.alignment import LABELS, AlignmentHead
from newbie_image.nano.batches import TrainingBatch
from newbie_image.nano.parts import Parts, TransformerRecipe

Compilation = Literal["none", "whole", "blocks"]
"""Nothing, the whole forward for each text length, or the transformer's blocks, which share what is
compiled and so are ready much sooner."""


def flow_loss(output: Tensor, target: Tensor, weight: Tensor, cosine_weight: float) -> Tensor:
    """MSE + cosine_weight·(1 − cosine along channels); weight (batch, 1, height, width) has mean 1."""
    square = (output - target).square().mean(1, keepdim=True)
    cosine = 1 - F.cosine_similarity(output, target, dim=1, eps=1e-6)[:, None]
    return ((square + cosine_weight * cosine) * weight).mean()


class Learner:
    """What learns.

    Args:
        recipe: sizes, rates, weights of the losses.
        device: where it learns.
        start_from: state of `Parts` to begin with; new weights if None.
        compilation: what is compiled.
    """

    def __init__(
        self,
        recipe: TransformerRecipe,
        device: torch.device,
        start_from: Mapping[str, Tensor] | None = None,
        compilation: Compilation = "none",
    ) -> None:
        self.recipe = recipe
        self.device = device
        self.parts = Parts(recipe).to(device)
        if start_from is not None:
            self.parts.load_state_dict(start_from)
        self.average = Parts(recipe).to(device).requires_grad_(False)
        self.average.load_state_dict(self.parts.state_dict())
        self.alignment = AlignmentHead(recipe.dim).to(device)
        block = self.parts.transformer.layers[min(recipe.alignment_block, recipe.n_layers) - 1]
        self._watching = self.alignment.watch(block)
        self.trained = [*self.parts.trained(), *self.alignment.parameters()]
        self.optimizers = _optimizers(recipe, self.parts, self.trained)
        self.step_count, self.seen, self.minutes = 0, 0, 0.0
        self.hits = torch.zeros(len(LABELS), 2, dtype=torch.int64, device=device)
        if device.type == "cpu":
            # The fused kernel's backward is slower at this size.
            self.parts.transformer.attention_backend = "math"
        self._graph = compilation == "whole"  # which has the watching inside
        self._quick: nn.Module = self.parts
        if compilation == "whole":
            self._quick = torch.compile(self.parts, dynamic=False)  # pyright: ignore[reportAttributeAccessIssue]
        elif compilation == "blocks":
            _compile_blocks(self.parts)

    def step(self, batch: TrainingBatch, rate: float, strength: float) -> Tensor:
        """One update.

        Args:
            batch: with labels where `strength` is above 0.
            rate: learning rate.
            strength: weight of the alignment's loss.
        Returns:
            The flow loss, a number on the device.
        """
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        if strength == 0 and not self._graph:
            self._watching.remove()
        clean = batch.clean
        noise = torch.randn_like(clean)
        t = torch.sigmoid(torch.randn(len(clean), device=self.device))
        t = t / (t + self.recipe.time_shift * (1 - t))
        mixed = t[:, None, None, None]
        noisy = mixed * clean + (1 - mixed) * noise
        run = self._quick if batch.length in self.recipe.text_lengths else self.parts
        with torch.autocast(self.device.type, torch.bfloat16):
            output = run(noisy, t, *batch.text)
        loss = flow_loss(output.float(), clean - noise, batch.weight, self.recipe.cosine_weight)
        flow = loss.detach()
        if strength > 0:
            assert batch.labels is not None, "a batch without labels cannot be aligned"
            # An empty caption cannot be read.
            named, right = self.alignment(batch.labels, 2 * (1 - t) * batch.said)
            loss = loss + strength * named
            self.hits += right
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step_count += 1
        self.seen += len(clean)
        decay = 0.5 ** (1 / max(1.0, self.recipe.average_span * self.step_count))
        with torch.no_grad():
            torch._foreach_lerp_(  # pyright: ignore
                list(self.average.parameters()), list(self.parts.parameters()), 1 - decay
            )
        return flow

    def space_positions(self, progress: float) -> None:
        """Sets the distance of neighbouring image tokens for this moment (0 to 1) of the run."""
        recipe = self.recipe
        if recipe.first_position_scale == 1:
            return
        rise = min(1.0, progress / recipe.positions_until)
        scale = recipe.first_position_scale + (1 - recipe.first_position_scale) * rise
        for model in (self.parts, self.average):
            tables: RotaryTables = model.transformer.rope_embedder
            tables.stretch(scale)

    def named(self) -> dict[str, float]:
        """Share of each label that the alignment named right since the last call. Waits for the device."""
        right, asked = self.hits.double().unbind(1)
        shares = (right / asked.clamp_min(1)).tolist()
        self.hits.zero_()
        return dict(zip(LABELS, (round(share, 2) for share in shares), strict=True))

    def save(self, file: Path) -> None:
        """Writes everything that a later run needs; the old file stays until the new one is complete."""
        partial = file.with_suffix(".partial")
        first, *more = self.optimizers
        state: dict[str, Any] = {
            "parts": self.parts.state_dict(),
            "average": self.average.state_dict(),
            "alignment": self.alignment.state_dict(),
            "optimizer": first.state_dict(),
            "more_optimizers": [optimizer.state_dict() for optimizer in more],
            "step": self.step_count,
            "spent": self.minutes,
            "seen": self.seen,
        }
        torch.save(state, partial)
        partial.replace(file)

    def load(self, file: Path) -> None:
        """Goes on from `save`; a state that travelled has no optimizers, and they begin anew."""
        state = torch.load(file, map_location=self.device, weights_only=True)
        self.parts.load_state_dict(state["parts"])
        self.average.load_state_dict(state["average"])
        if "alignment" in state:
            self.alignment.load_state_dict(state["alignment"])
        held = [state.get("optimizer"), *state.get("more_optimizers", [])]
        if len(held) == len(self.optimizers):
            for optimizer, each in zip(self.optimizers, held, strict=True):
                if each is not None:
                    optimizer.load_state_dict(each)
        self.step_count, self.seen = int(state["step"]), int(state["seen"])
        self.minutes = float(state["spent"])


def learning_rate(recipe: TransformerRecipe, step: int, progress: float) -> float:
    """Warm-up by steps, then constant, and a cosine down to 3 % over the last `cooldown` of the run."""
    rate = recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup_steps)
    if progress > 1 - recipe.cooldown:
        left = max(0.0, (1 - progress) / recipe.cooldown)
        rate *= 0.03 + 0.97 * (0.5 - 0.5 * math.cos(math.pi * left))
    return rate


def _optimizers(
    recipe: TransformerRecipe, parts: Parts, trained: list[nn.Parameter]
) -> list[torch.optim.Optimizer]:
    muon: list[nn.Parameter] = []
    if recipe.optimizer == "muon":
        if not hasattr(torch.optim, "Muon"):
            raise ConfigError(
                f"optimizer 'muon' needs torch 2.9 or newer, this is {torch.__version__}; "
                "use 'adamw' or update torch"
            )
        muon = [
            weight
            for name, weight in parts.transformer.named_parameters()
            if weight.ndim == 2 and (".attention." in name or ".feed_forward." in name)
        ]
    apart = {id(weight) for weight in muon}
    rest = [weight for weight in trained if id(weight) not in apart]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.ndim >= 2], "weight_decay": recipe.weight_decay},
                {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate,
            betas=(0.9, 0.95),
            fused=True,
        )
    ]
    if muon:
        found.append(
            torch.optim.Muon(
                muon,
                lr=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return found


def _compile_blocks(parts: Parts) -> None:
    import torch._dynamo.config as dynamo

    # One compiled block serves all of its kind; kinds times text lengths are more than the default allows.
    for name in ("recompile_limit", "cache_size_limit"):
        if hasattr(dynamo, name):
            setattr(dynamo, name, 64)
    transformer = parts.transformer
    for block in (*transformer.noise_refiner, *transformer.context_refiner, *transformer.layers):
        block.forward = torch.compile(block.forward, dynamic=False)
