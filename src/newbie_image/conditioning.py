"""What a solver walks along: the velocity under a prompt, guided away from the negative prompt."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from newbie_image.request import GenerationRequest
from newbie_image.sampling import Guidance, guided_velocity, one_batch
from newbie_image.sampling.solvers import VelocityFn
from newbie_image.text import TextFeatures


def conditioned_velocity(
    transformer: Any,
    features: TextFeatures,
    guidance: Guidance,
    size: tuple[int, int],
    *,
    in_one_batch: bool = True,
) -> VelocityFn:
    """The guided velocity of a batch of pictures of one prompt.

    What does not change with the step is computed here, once.

    Args:
        transformer: the model.
        features: as many rows as pictures, or twice as many: the prompt for each, then the negative for each.
        guidance: how the two are combined.
        size: (height/8, width/8).
        in_one_batch: both halves of guidance in one batch, faster; or one after the other, with less memory.

    Returns:
        (latents (batch, channels, height/8, width/8), t) → velocity, float32.
    """
    prepared = transformer.prepare_text(features.tokens, features.mask, features.pooled, size)
    if not features.negatives:
        return guided_velocity(guidance, _under(transformer, prepared))
    count = prepared.batch // 2
    alone = _under(transformer, prepared.rows(0, count))
    if in_one_batch:
        return guided_velocity(guidance, alone, paired=one_batch(_under(transformer, prepared)))
    negative = _under(transformer, prepared.rows(count, 2 * count))
    return guided_velocity(guidance, alone, unconditional=negative)


def guidance_of(request: GenerationRequest) -> Guidance:
    """The guidance of a completed request."""
    return Guidance(
        cast("float", request.guidance_scale),
        cast("float", request.cfg_truncation),
        cast("float", request.cfg_renorm),
    )


def _under(transformer: Any, prepared: Any) -> VelocityFn:
    def velocity(latents: Tensor, t: float) -> Tensor:
        timestep = torch.full((latents.shape[0],), t, device=latents.device)
        return transformer.velocity(latents, timestep, prepared)

    return velocity
