"""Draws the prompts of an arm: the same noise for a prompt in every arm, one picture each, no choosing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np
import torch

from newbie_image.binding.regions import Region
from newbie_image.decoding import decode_latents
from newbie_image.latents import latent_shape, seeded_noise
from newbie_image.nano.benchmark.arms import Arm
from newbie_image.nano.benchmark.prompt_sets import BenchmarkPrompt
from newbie_image.nano.captions import character_tags
from newbie_image.nano.evaluate import generate
from newbie_image.pipeline import NewbiePipeline
from newbie_image.prompt import parse
from newbie_image.prompt.edit import with_weight
from newbie_image.request import GenerationRequest, PictureDone
from newbie_image.sampling import make_solver, time_grid
from newbie_image.text import compose, tokenize

TAG_OF: Final = {
    "top_color": "top",
    "bottom_color": "bottom",
    "headwear_color": "headwear",
}
"""Attributes that stand in another one's tag, as the colour of `red_hoodie`."""


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled, the same for every arm; None is the bundle's default."""

    steps: int | None = None
    guidance: float | None = None
    shift: float | None = None
    sampler: str | None = None
    batch: int = 8


def prompt_text(arm: Arm, prompt: BenchmarkPrompt) -> str:
    """The text of a prompt in an arm's form, with the arm's weight on the first person's tag.

    A prompt that does not say the attribute stays as it is.
    """
    text = prompt.text(arm.form)
    for attribute, weight in arm.weighed.items():
        tags = character_tags(prompt.scene.characters[0]).get(TAG_OF.get(attribute, attribute))
        if tags is None:
            continue
        document = parse(text)
        path = next(
            tag.path
            for tag in document.tags
            if tag.text == tags[1][0] and (tag.path or "").startswith("character_1.")
        )
        text = with_weight(document, path, weight).source
    return text


def request_of(arm: Arm, prompt: BenchmarkPrompt, sampling: Sampling) -> GenerationRequest:
    """The request of one picture in an arm."""
    settings: dict[str, Any] = {
        "steps": sampling.steps,
        "guidance_scale": sampling.guidance,
        "shift": sampling.shift,
        "sampler": sampling.sampler,
        **arm.request_settings(),
    }
    return GenerationRequest(
        prompt_text(arm, prompt), seed=prompt.noise_seed, binding=arm.binding_setting(), **settings
    )


def draw(
    pipeline: NewbiePipeline, arm: Arm, prompts: Sequence[BenchmarkPrompt], sampling: Sampling
) -> np.ndarray:
    """One picture a prompt: (prompts, height, width, 3) uint8."""
    if arm.plain:
        return generate(
            pipeline,
            [prompt_text(arm, prompt) for prompt in prompts],
            seeds=[prompt.noise_seed for prompt in prompts],
            batch=sampling.batch,
            steps=sampling.steps,
            guidance=sampling.guidance,
            shift=sampling.shift,
            sampler=sampling.sampler,
        )
    pictures: list[np.ndarray] = []
    for prompt in prompts:
        request = request_of(arm, prompt, sampling)
        if arm.shuffled_regions:
            pictures.append(_draw_shuffled(pipeline, request))
            continue
        done = next(event for event in pipeline.stream(request) if isinstance(event, PictureDone))
        pictures.append(np.asarray(done.images[0].image.convert("RGB")))
    return np.stack(pictures)


def turned(regions: Sequence[Region]) -> tuple[Region, ...]:
    """The regions with each person's box that of the next one: never its own where there are two or more."""
    boxes = [region.box for region in regions]
    return tuple(replace(region, box=box) for region, box in zip(regions, boxes[1:] + boxes[:1], strict=True))


@torch.no_grad()
def _draw_shuffled(pipeline: NewbiePipeline, request: GenerationRequest) -> np.ndarray:
    """The picture of a request whose people have each other's regions: (height, width, 3) uint8."""
    request = pipeline.complete(request)
    conditioning = pipeline.condition(request)
    binding = conditioning.binding
    if binding is not None:
        conditioning = replace(conditioning, binding=replace(binding, regions=turned(binding.regions)))
    width, height, steps = (cast("int", each) for each in (request.width, request.height, request.steps))
    noise = seeded_noise(request.seed, 1, latent_shape(pipeline.vae, width, height))
    grid = time_grid(steps, cast("float", request.shift), cast("str", request.grid))
    solver = make_solver(cast("str", request.sampler))
    size = (noise.shape[2], noise.shape[3])
    times = solver.asked_times(grid)
    velocity = pipeline.steered(request, conditioning, 1, size, [float(t) for t in grid], times)
    latents = noise.to(pipeline.transformer.device)
    for step in solver.run(velocity, latents, grid):
        latents = step.latents
    pixels = decode_latents(latents, pipeline.vae, pipeline.vae_settings)
    return (pixels[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def cut_off(pipeline: NewbiePipeline, text: str) -> bool:
    """Whether the text is longer than the bundle's token limit, so that its end is not drawn."""
    settings = pipeline.settings.text
    batch = tokenize([compose(text, settings)], pipeline.tokenizer, pipeline.clip_tokenizer, settings)
    return bool(batch.reports)
