"""What a solver walks along: the velocity under a prompt, guided away from the negative prompt."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from newbie_image.binding.binding import Binding, Form, phases
from newbie_image.binding.sight import Sight
from newbie_image.memory.trims import TRIMS
from newbie_image.models.prepared_text import PreparedText
from newbie_image.request import GenerationRequest
from newbie_image.sampling import Guidance, guided_velocity, one_batch
from newbie_image.sampling.guidance import Watch
from newbie_image.sampling.solvers import VelocityFn
from newbie_image.text import TextFeatures

Told = tuple[tuple[float, PreparedText], ...]
"""(time from which it holds, prepared captions), in order of time."""


def conditioned_velocity(
    transformer: Any,
    features: TextFeatures,
    guidance: Guidance,
    size: tuple[int, int],
    *,
    times: Sequence[float] = (),
    in_one_batch: bool | None = None,
    binding: Binding | None = None,
    grid: Sequence[float] = (0.0, 1.0),
    form: Form | None = None,
    sights: Sequence[Sight] = (),
    trims: Collection[str] = TRIMS,
) -> VelocityFn:
    """The guided velocity of a batch of pictures of one prompt.

    What does not change with the step is computed here, once, unless that is switched off.

    Args:
        transformer: the model.
        features: as many rows as pictures, or twice as many: the prompt for each, then the negative for each.
        guidance: how the two are combined.
        size: (height/8, width/8).
        times: when the solver will ask (`Solver.asked_times`): the AdaLN factors of these times are computed
            now.
        in_one_batch: both halves of guidance in one batch; or one after the other, with less memory. None
            takes two passes on the CPU where the two texts are of uneven length (a pass without padding is
            cheaper there than a larger batch), one batch elsewhere.
        binding: what keeps the prompt's characters apart; it acts on the prompt, never on the negative.
        grid: times of the run's steps, of which the binding acts in a part.
        form: how the binding's rules reach attention; None appends them on CUDA, where flash kernels take no
            mask, and writes them out elsewhere.
        sights: collect what the pictures read of the prompt.
        trims: of `newbie_image.memory.trims`; without ``adaln`` or ``refiner`` that part of the work is done
            again in every step.

    Returns:
        (latents (batch, channels, height/8, width/8), t) → velocity, float32.
    """

    if form is None:
        form = "appended" if features.tokens.is_cuda else "mask"

    def prepare() -> PreparedText:
        return transformer.prepare_text(
            features.tokens, features.mask, features.pooled, size, features.groups
        )

    def under(
        part: Callable[[PreparedText], PreparedText], pictures: int, asked: Sequence[float]
    ) -> VelocityFn:
        def told(whole: PreparedText) -> Told:
            mine = part(whole)
            if binding is None or (pictures == 0 and not binding.parts.sealed):
                return ((0.0, mine),)
            return phases(binding, mine, pictures, len(transformer.layers), grid, form)

        remade = None if "refiner" in trims else lambda: told(prepare())
        looking = sights if pictures else ()
        asked = asked if "adaln" in trims else ()
        return _under(transformer, told(prepared), asked, remade, looking, pictures)

    prepared = prepare()
    if not features.negatives:
        return guided_velocity(guidance, under(lambda whole: whole, prepared.batch, times))
    count = prepared.batch // 2
    if in_one_batch is None:
        in_one_batch = prepared.text.device.type != "cpu" or prepared.padding is None
    guided = tuple(t for t in times if guidance.active(t))
    alone_at = tuple(t for t in times if not in_one_batch or not guidance.active(t))
    alone = under(lambda whole: whole.rows(0, count), count, alone_at)
    watch = _shown_to([sight for sight in sights if sight.pull])
    if in_one_batch:
        paired = one_batch(under(lambda whole: whole, count, guided))
        return guided_velocity(guidance, alone, paired=paired, watch=watch)
    negative = under(lambda whole: whole.rows(count, 2 * count), 0, guided)
    return guided_velocity(guidance, alone, unconditional=negative, watch=watch)


def guidance_of(request: GenerationRequest) -> Guidance:
    """The guidance of a completed request."""
    return Guidance(
        cast("float", request.guidance_scale),
        cast("float", request.cfg_truncation),
        cast("float", request.cfg_renorm),
    )


def _shown_to(sights: Sequence[Sight]) -> Watch | None:
    """Shows both velocities to those who note guidance; None where nobody does."""
    if not sights:
        return None

    def watch(conditional: Tensor, unconditional: Tensor) -> None:
        for sight in sights:
            sight.note_pull(conditional, unconditional)

    return watch


def _under(
    transformer: Any,
    told: Told,
    times: Sequence[float],
    remade: Callable[[], Told] | None,
    sights: Sequence[Sight],
    pictures: int,
) -> VelocityFn:
    """The velocity under prepared captions, or under captions that are prepared again for every step."""
    first = told[0][1]
    schedule = dict(zip(times, transformer.prepare_schedule(times, first), strict=True)) if times else {}

    def velocity(latents: Tensor, t: float) -> Tensor:
        timestep = torch.full((latents.shape[0],), t, device=latents.device)
        captions = told if remade is None else remade()
        prepared = next(each for since, each in reversed(captions) if t >= since)
        with contextlib.ExitStack() as looking:
            for sight in sights:
                looking.enter_context(sight.watching(transformer, math.prod(prepared.grid), pictures))
            return transformer.velocity(latents, timestep, prepared, schedule.get(t))

    return velocity
