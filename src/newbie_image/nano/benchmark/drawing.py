"""Draws the prompts of an arm: the same noise for a prompt in every arm, one picture each, no choosing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from newbie_image.binding.binding import Binding
from newbie_image.binding.regions import Region
from newbie_image.nano.benchmark.arms import Arm
from newbie_image.nano.benchmark.prompt_sets import BenchmarkPrompt
from newbie_image.nano.captions import character_tags
from newbie_image.nano.draw_many import draw_many
from newbie_image.pipeline import NewbiePipeline
from newbie_image.prompt import parse
from newbie_image.prompt.edit import with_weight
from newbie_image.request import GenerationRequest
from newbie_image.text import compose

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
    batch: int = 16


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
    requests = [request_of(arm, prompt, sampling) for prompt in prompts]
    change = shuffled if arm.shuffled_regions else lambda binding: binding
    return draw_many(pipeline, requests, batch=sampling.batch, change=change)


def turned(regions: Sequence[Region]) -> tuple[Region, ...]:
    """The regions with each person's box that of the next one: never its own where there are two or more."""
    boxes = [region.box for region in regions]
    return tuple(replace(region, box=box) for region, box in zip(regions, boxes[1:] + boxes[:1], strict=True))


def shuffled(binding: Binding) -> Binding:
    """The binding whose people have each other's regions."""
    return replace(binding, regions=turned(binding.regions))


def cut_off(pipeline: NewbiePipeline, text: str) -> bool:
    """Whether the text is longer than the bundle's token limit, so that its end is not drawn."""
    settings = pipeline.settings.text
    read = compose(text, settings)
    limits = (
        (read.tokens_text, pipeline.tokenizer, settings.max_tokens),
        (read.pooled_text, pipeline.clip_tokenizer, settings.max_pooled_tokens),
    )
    return any(len(tokens(each, verbose=False)["input_ids"]) > limit for each, tokens, limit in limits)
