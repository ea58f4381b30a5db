"""Drawing while somebody looks: a reader of the stream that gathers what a picture read, step by step.

`Looking` gives the stream its collector and reads the stream's events; afterwards it holds an `Explanation`.
Memory is bounded by what is chosen: one sum of maps, a map a character and step, and a few latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from PIL import Image
from torch import Tensor

from newbie_image.binding.bias import owners, soft_masks
from newbie_image.binding.groups import GroupedText, TagSpan
from newbie_image.binding.regions import Box, regions_of
from newbie_image.binding.sight import Kind, Sight, block_numbers, character_maps, found_masks
from newbie_image.decoding import decode_latents, to_images
from newbie_image.errors import RequestError
from newbie_image.explain import DEFAULT_BLOCKS, DEFAULT_KIND, DEFAULT_PREVIEWS
from newbie_image.explain.heat import centre, excess, mass_inside, tag_maps
from newbie_image.latents import latent_shape, seeded_noise
from newbie_image.models.rotary_limits import token_grid
from newbie_image.prompt import parse
from newbie_image.request import Event, GeneratedImage, GenerationRequest, PictureDone, StepDone

if TYPE_CHECKING:
    from newbie_image.pipeline import NewbiePipeline

KINDS: Final = ("attention", "similarity")
MAX_PREVIEWS: Final = 50


@dataclass(frozen=True)
class LookChoice:
    """What is looked at.

    Args:
        kind: attention or similarity.
        blocks: all, early, middle, late, or numbers from 0 as in `0-3,7`.
        steps: all, or numbers from 1 as in `1-5,20`.
        previews: how many steps show the picture as it then was.

    Raises:
        RequestError: a value that is not understood.
    """

    kind: str = DEFAULT_KIND
    blocks: str = DEFAULT_BLOCKS
    steps: str = "all"
    previews: int = DEFAULT_PREVIEWS

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RequestError(f"unknown kind of map {self.kind!r}; choose one of {', '.join(KINDS)}")
        if not 0 <= self.previews <= MAX_PREVIEWS:
            raise RequestError(f"previews {self.previews} is not allowed; give 0 to {MAX_PREVIEWS}")
        self.block_numbers(1000)
        self.step_numbers(1000)

    def block_numbers(self, count: int) -> tuple[int, ...]:
        """The blocks, from 0, of a model that has `count` of them."""
        if not self.blocks[:1].isdigit():
            return block_numbers(self.blocks, count)
        return _numbers("block", self.blocks, 0, count - 1)

    def step_numbers(self, count: int) -> tuple[int, ...]:
        """The steps, from 1, of a run of `count`."""
        if self.steps == "all":
            return tuple(range(1, count + 1))
        return _numbers("step", self.steps, 1, count)


def _numbers(name: str, text: str, low: int, high: int) -> tuple[int, ...]:
    found: set[int] = set()
    for piece in text.split(","):
        first, dash, last = piece.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
            words = "all, early, middle, late" if name == "block" else "all"
            raise RequestError(
                f"{name}s {text!r} are not understood; give {words}, or numbers from {low}: {low}-{low + 3},9"
            )
        outside = [number for number in (int(first), int(last or first)) if not low <= number <= high]
        if outside:
            raise RequestError(f"there is no {name} {outside[0]} to look at; there are {low} to {high}")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


@dataclass(frozen=True)
class Heat:
    """Where one tag or character was read.

    Args:
        map: (image tokens downwards, across) float32, at least 0: what is above the map's own mean.
        inside: the share of the mass in each character's region, then outside all; empty where no regions are
            known or the map has no mass.
        centre: of the mass, x and y in fractions of the picture; None without mass.
        attention: the mean share of an image token's attention that goes to it; None for similarity.
    """

    map: Tensor
    inside: tuple[float, ...]
    centre: tuple[float, float] | None
    attention: float | None


@dataclass(frozen=True)
class CharacterStep:
    """Where one character's words were read in one step: centre of mass, and share in its own region."""

    centre: tuple[float, float] | None
    inside: float | None


@dataclass(frozen=True)
class StepTrace:
    """One step.

    Args:
        index: from 1.
        t: the time it reached.
        step_size: norm of the latents' change.
        guidance_norm: norm of conditional minus unconditional velocity, the mean over the step's calls; None
            where guidance was off.
        characters: None where the step was not looked at.
        preview: the picture as the model then foresaw it; None in most steps.
    """

    index: int
    t: float
    step_size: float
    guidance_norm: float | None
    characters: tuple[CharacterStep, ...] | None
    preview: Image.Image | None


@dataclass(frozen=True)
class Explanation:
    """All that was seen of one picture.

    Args:
        request: completed.
        picture: the finished one.
        kind, blocks, steps: what was looked at; blocks from 0, steps from 1.
        regions: `given` by the prompt, `found` in what the picture read, or `none`.
        boxes: of the characters, where given.
        areas: of the characters' regions and of what is outside, in shares of the picture; empty without.
        names: of the characters, None where they have none.
        labels: what the characters are called: their numbers in the prompt.
        characters: their maps, in order.
        spans, tags: the tags and their maps, in the prompt's order.
        trace: a step each.
    """

    request: GenerationRequest
    picture: GeneratedImage
    kind: str
    blocks: tuple[int, ...]
    steps: tuple[int, ...]
    regions: str
    boxes: tuple[Box, ...]
    areas: tuple[float, ...]
    names: tuple[str | None, ...]
    labels: tuple[int, ...]
    characters: tuple[Heat, ...]
    spans: tuple[TagSpan, ...]
    tags: tuple[Heat, ...]
    trace: tuple[StepTrace, ...]


@dataclass(frozen=True)
class _Step:
    index: int
    t: float
    size: float
    characters: Tensor | None
    prediction: Tensor | None


class Looking:
    """Looks at one picture of a request while it is drawn.

    Give `sight` to :meth:`NewbiePipeline.stream` and every event to :meth:`read`; after the last one
    `explanation` is there.

    Args:
        pipeline: draws.
        request: with pictures of one batch.
        choice: what is looked at.
        picture: which of them, from 0.

    Raises:
        RequestError: a prompt without tags; steps under prompts of different words; blocks or steps that are
            not there.
        PromptError: the prompt cannot be read.
    """

    def __init__(
        self, pipeline: NewbiePipeline, request: GenerationRequest, choice: LookChoice, picture: int = 0
    ) -> None:
        self._pipeline, self._picture = pipeline, picture
        self._request = request = pipeline.complete(request)
        check_explainable(request)
        vae, transformer = pipeline.vae, pipeline.transformer
        self._shape = latent_shape(vae, cast("int", request.width), cast("int", request.height))
        self._grid = token_grid(self._shape[1:], transformer.patch_size, transformer.axes_lens)
        self._blocks = choice.block_numbers(len(transformer.layers))
        count = cast("int", request.steps)
        self._seen = choice.step_numbers(count)
        self._prompt, self._words = _words_of(pipeline, request, self._seen)
        self._shown = _spread(count, choice.previews)
        seen = frozenset(number - 1 for number in self._seen)
        self.sight = Sight(self._blocks, seen, cast("Kind", choice.kind), pull=True)
        self.sight.check(len(transformer.layers), count)
        self._latents = seeded_noise(request.seed + picture, 1, self._shape)[0]
        self._before: Tensor | None = None
        self._steps: list[_Step] = []
        self.explanation: Explanation | None = None

    def read(self, event: Event) -> None:
        """Takes what an event has to tell."""
        if isinstance(event, StepDone):
            self._read_step(event)
        elif isinstance(event, PictureDone):
            self.explanation = self._explain(event)

    def _read_step(self, event: StepDone) -> None:
        now = event.latents[self._picture].float().cpu()
        size = float(torch.linalg.vector_norm(now - self._latents))
        self._latents = now
        characters = None
        if event.index in self._seen:
            total = cast("Tensor", self.sight.total)[self._picture]
            fresh = total if self._before is None else total - self._before
            self._before = total.clone()
            characters = excess(character_maps(fresh, self._words.groups, self._words.characters))
        shown = event.prediction[self._picture].float().cpu() if event.index in self._shown else None
        self._steps.append(_Step(event.index, event.t, size, characters, shown))

    def _explain(self, done: PictureDone) -> Explanation:
        prompt = parse(self._prompt, strict=not self._request.tolerant)
        maps = self.sight.maps[self._picture]
        source, boxes, masks = self._regions(done, maps)
        of = owners(masks.flatten(1))
        inside = [(of == number).float() for number in (*range(1, len(masks) + 1), 0)] if len(masks) else []
        characters = character_maps(maps, self._words.groups, self._words.characters)
        sizes = [self._words.groups.count(number) for number in range(1, self._words.characters + 1)]
        spans = self._words.spans
        lengths = [span.end - span.start for span in spans]
        return Explanation(
            self._request,
            done.images[self._picture],
            self.sight.kind,
            self._blocks,
            self._seen,
            source,
            boxes,
            tuple(float(mask.mean()) for mask in inside),
            tuple(character.name for character in prompt.characters),
            self._words.labels,
            tuple(self._heat(each, inside, size) for each, size in zip(characters, sizes, strict=True)),
            spans,
            tuple(
                self._heat(each, inside, size)
                for each, size in zip(tag_maps(maps, spans), lengths, strict=True)
            ),
            tuple(self._trace(step, inside) for step in self._steps),
        )

    def _regions(self, done: PictureDone, maps: Tensor) -> tuple[str, tuple[Box, ...], Tensor]:
        """Where they come from, boxes, and masks (characters, rows, columns)."""
        if done.regions:
            used = done.regions[self._picture]
            return ("given" if used.boxes else "found"), used.boxes, used.masks
        prompt = parse(self._prompt, strict=not self._request.tolerant)
        regions, _ = regions_of(prompt)
        if regions:
            boxes = tuple(region.box for region in regions)
            return "given", boxes, soft_masks(boxes, *self._grid).view(-1, *self._grid)
        people = self._words.characters
        if people > 1:
            return "found", (), found_masks(maps.clamp_min(0), self._words.groups, self._grid, people)
        return "none", (), torch.zeros(0, *self._grid)

    def _heat(self, whole: Tensor, inside: list[Tensor], tokens: int) -> Heat:
        heat = excess(whole)
        shares = [mass_inside(heat, mask) for mask in inside]
        known = tuple(share for share in shares if share is not None)
        read = float(whole.mean()) * tokens if self.sight.kind == "attention" else None
        return Heat(heat.view(self._grid), known, centre(heat, self._grid), read)

    def _trace(self, step: _Step, inside: list[Tensor]) -> StepTrace:
        pulls = [rows[self._picture] for rows in self.sight.pulls.get(step.index - 1, [])]
        where = None
        if step.characters is not None:
            where = tuple(
                CharacterStep(centre(heat, self._grid), mass_inside(heat, inside[place]) if inside else None)
                for place, heat in enumerate(step.characters)
            )
        preview = None if step.prediction is None else self._preview(step.prediction)
        pull = sum(pulls) / len(pulls) if pulls else None
        return StepTrace(step.index, step.t, step.size, pull, where, preview)

    @torch.no_grad()
    def _preview(self, prediction: Tensor) -> Image.Image:
        pipeline: Any = self._pipeline
        pixels = decode_latents(prediction[None], pipeline.vae, pipeline.vae_settings)
        picture = to_images(pixels)[0]
        picture.thumbnail((256, 256))
        return picture


_NO_TAGS: Final = (
    "the prompt has no tags to look at; give XML or tags (newbie prompt convert makes XML of a sentence)"
)


def check_explainable(request: GenerationRequest) -> None:
    """Says, before a model is loaded, that a request cannot be explained.

    Raises:
        RequestError: a prompt has no tags, or the pictures are of several batches.
        PromptError: a prompt cannot be read.
    """
    for text in (request.prompt, *(prompt for _, prompt in request.changes)):
        if not any(tag.weight > 0 for tag in parse(text, strict=not request.tolerant).tags):
            raise RequestError(_NO_TAGS)
    if request.count > request.batch:
        raise RequestError(
            f"{request.count} pictures in batches of {request.batch} cannot be looked at; ask for one batch"
        )


def _words_of(
    pipeline: NewbiePipeline, request: GenerationRequest, seen: Sequence[int]
) -> tuple[str, GroupedText]:
    """The last prompt that holds in the steps `seen` (from 1), and its words, which are those of all of them.

    Raises:
        RequestError: prompts of other words hold in some of the steps, so that their maps cannot be added.
    """
    begins = [0, *(at for at, _ in request.changes)]
    prompts = [request.prompt, *(prompt for _, prompt in request.changes)]
    held = sorted({max(i for i, begin in enumerate(begins) if begin < step) for step in seen})
    words = [pipeline.words(replace(request, prompt=prompts[i], changes=())) for i in held]
    for place, other in zip(held, words, strict=True):
        if (other.ids, other.groups) != (words[0].ids, words[0].groups):
            last, first = begins[place], begins[place] + 1
            raise RequestError(
                f"the prompt has other words from step {first} on, whose maps cannot be added; look at a "
                f"part of the steps: --at-steps {seen[0]}-{last} or {first}-{seen[-1]}"
            )
    if not words[-1].spans:
        raise RequestError(_NO_TAGS)
    return prompts[held[-1]], words[-1]


def _spread(steps: int, wanted: int) -> frozenset[int]:
    """`wanted` of the steps 1 … `steps`, evenly, the last one among them."""
    count = min(steps, wanted)
    return frozenset(round(steps * (place + 1) / count) for place in range(count))
