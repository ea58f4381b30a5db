"""Classifier-free guidance, as upstream's `forward_with_cfg` defines it, and the watch for NaN.

guided = unconditional + scale · (conditional − unconditional), on all channels, while t < truncation; from
there on the conditional velocity alone, at half the cost. With renorm > 0 a guided velocity whose norm (over
a whole picture: channels, rows and columns) exceeds renorm times the conditional's is scaled down to that.

Upstream renormalises only where there is one picture (`.item()` of the norm); here each picture of a batch is
limited by itself, which is the same for one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from newbie_image.errors import NumericsError, RequestError
from newbie_image.sampling.solvers import VelocityFn

PairedVelocityFn = Callable[[torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]]
"""(latents (batch, …), t) → (conditional, unconditional) velocities, each like the latents."""
Watch = Callable[[torch.Tensor, torch.Tensor], None]
"""Is shown (conditional, unconditional) wherever guidance acts, and changes nothing."""


@dataclass(frozen=True)
class Guidance:
    """How strongly, how long and how far a picture is pulled from the negative prompt to the prompt.

    Args:
        scale: ≥ 0; 1 is no guidance.
        truncation: guided only while t < truncation (t = 0 is noise); 1 guides every step, 0 none.
        renorm: largest norm of the guided velocity, in norms of the conditional one; 0 is no limit.

    Raises:
        RequestError: a value is negative.
    """

    scale: float = 1.0
    truncation: float = 1.0
    renorm: float = 0.0

    def __post_init__(self) -> None:
        for name in ("scale", "truncation", "renorm"):
            value = getattr(self, name)
            if not 0.0 <= value < float("inf"):
                raise RequestError(f"guidance {name} {value!r} is not allowed; give a number of at least 0")

    def active(self, t: float) -> bool:
        """Whether the unconditional velocity makes a difference at time t.

        It never does later if it does not at a grid's first time, and then no negative prompt is needed.
        """
        unchanged = self.scale == 1.0 and (self.renorm == 0.0 or self.renorm >= 1.0)
        return t < self.truncation and not unchanged

    def combine(self, conditional: torch.Tensor, unconditional: torch.Tensor) -> torch.Tensor:
        """The guided velocity.

        Args:
            conditional: (batch, channels, height/8, width/8), any float dtype.
            unconditional: the same shape.

        Returns:
            The same shape, float32.
        """
        conditional, unconditional = conditional.float(), unconditional.float()
        guided = unconditional + self.scale * (conditional - unconditional)
        if self.renorm > 0.0:
            axes = tuple(range(1, guided.ndim))
            limit = self.renorm * torch.linalg.vector_norm(conditional, dim=axes, keepdim=True)
            norm = torch.linalg.vector_norm(guided, dim=axes, keepdim=True)
            guided = torch.where(norm > limit, guided * (limit / norm), guided)
        return guided


def guided_velocity(
    guidance: Guidance,
    conditional: VelocityFn,
    *,
    unconditional: VelocityFn | None = None,
    paired: PairedVelocityFn | None = None,
    watch: Watch | None = None,
) -> VelocityFn:
    """One velocity function for a solver, out of the model's calls.

    Give `paired` (see :func:`one_batch`) to compute both halves in one batch, which is faster, or
    `unconditional` to compute them one after the other, which needs half the activations' memory.

    Args:
        guidance: what to do with them.
        conditional: velocity with the prompt; alone it is called where guidance is off.
        unconditional: velocity with the negative prompt.
        paired: both at once, conditional first.
        watch: is shown both before they are combined.

    Returns:
        (latents (batch, …), t) → velocity (batch, …), float32.
    """

    def velocity(latents: torch.Tensor, t: float) -> torch.Tensor:
        if not guidance.active(t):
            return conditional(latents, t).float()
        if paired is not None:
            both = paired(latents, t)
        elif unconditional is not None:
            both = conditional(latents, t), unconditional(latents, t)
        else:
            raise RequestError(
                f"guidance {guidance.scale:g} needs a negative prompt's features (an empty negative counts); "
                "give them, or set the guidance scale to 1"
            )
        if watch is not None:
            watch(*both)
        return guidance.combine(*both)

    return velocity


def one_batch(doubled: VelocityFn) -> PairedVelocityFn:
    """Both halves of guidance by one call of the model.

    Args:
        doubled: velocity for latents (2 · batch, …), of which the first half has the prompts and the second
            the negative prompts.

    Returns:
        (latents (batch, …), t) → (conditional, unconditional).
    """

    def paired(latents: torch.Tensor, t: float) -> tuple[torch.Tensor, torch.Tensor]:
        conditional, unconditional = doubled(torch.cat([latents, latents]), t).chunk(2)
        return conditional, unconditional

    return paired


_REMEDY = {
    torch.float16: "its range is too small for this model; use bf16 (--dtype bf16), or fp32 without bf16",
    torch.bfloat16: "try fp32 (--dtype fp32); if it happens there too, the weights are damaged",
    torch.float32: "the weights or the text features are damaged, or the guidance scale is far too high",
}


def check_finite(latents: torch.Tensor, *, step: int, steps: int, t: float, dtype: torch.dtype) -> None:
    """Stop a run whose latents are no longer numbers.

    One reduction and one wait for the device; call it once a step, after the step's event.

    Args:
        latents: (batch, channels, height/8, width/8).
        step: number of the step just done, from 1.
        steps: steps in all.
        t: time reached.
        dtype: what the transformer computes in.

    Raises:
        NumericsError: the latents hold NaN or infinity; the message names step, t, dtype and what to do.
    """
    if bool(torch.isfinite(latents).all()):
        return
    name = str(dtype).removeprefix("torch.")
    remedy = _REMEDY.get(dtype, "use bf16 (--dtype bf16)")
    raise NumericsError(
        f"the latents hold NaN or infinity after step {step} of {steps} (t = {t:.4f}) in {name}: {remedy}"
    )
