"""Draws the prompts of an arm: the same noise for a prompt in every arm, one picture each, no choosing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from newbie_image.nano.benchmark.arms import Arm
from newbie_image.nano.benchmark.prompt_sets import BenchmarkPrompt
from newbie_image.nano.captions import character_tags
from newbie_image.nano.evaluate import generate
from newbie_image.nano.readers import figure_box
from newbie_image.nano.world.layout import asked_places
from newbie_image.nano.world.scene import Scene
from newbie_image.pipeline import NewbiePipeline
from newbie_image.prompt import parse
from newbie_image.prompt.edit import with_weight
from newbie_image.request import GenerationRequest, PictureDone
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


def shuffled_regions(scene: Scene) -> tuple[tuple[float, float, float, float], ...]:
    """For each person the box of the next one (left, top, right, bottom in fractions of the picture): a
    region that is never its own where there are two or more."""
    boxes = [tuple(min(1.0, max(0.0, e)) for e in figure_box(place)) for place in asked_places(scene)]
    turned = boxes[1:] + boxes[:1]
    return tuple((left, top, right, bottom) for left, top, right, bottom in turned)


def request_of(arm: Arm, prompt: BenchmarkPrompt, sampling: Sampling) -> GenerationRequest:
    """The request of one picture.

    The settings `binding`, `regions` and the arm's parameters are given by name, as the engine has them;
    :func:`arms.unavailable` has been asked before.
    """
    settings: dict[str, Any] = dict(arm.parameters)
    if arm.binding != "off":
        settings["binding"] = arm.binding
    if arm.shuffled_regions:
        settings["regions"] = shuffled_regions(prompt.scene)
    return GenerationRequest(
        prompt_text(arm, prompt),
        seed=prompt.noise_seed,
        steps=sampling.steps,
        guidance_scale=sampling.guidance,
        shift=sampling.shift,
        sampler=sampling.sampler,
        **settings,
    )


def draw(
    pipeline: NewbiePipeline, arm: Arm, prompts: Sequence[BenchmarkPrompt], sampling: Sampling
) -> np.ndarray:
    """One picture a prompt: (prompts, height, width, 3) uint8."""
    if arm.binding == "off" and not arm.weighed and not arm.parameters:
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
        events = pipeline.stream(request_of(arm, prompt, sampling))
        done = next(event for event in events if isinstance(event, PictureDone))
        pictures.append(np.asarray(done.images[0].image.convert("RGB")))
    return np.stack(pictures)


def cut_off(pipeline: NewbiePipeline, text: str) -> bool:
    """Whether the text is longer than the bundle's token limit, so that its end is not drawn."""
    settings = pipeline.settings.text
    batch = tokenize([compose(text, settings)], pipeline.tokenizer, pipeline.clip_tokenizer, settings)
    return bool(batch.reports)
