"""What is asked for, what happens on the way, and what comes back.

:class:`GenerationRequest` is the whole of a picture's settings; the events are what
:meth:`newbie_image.pipeline.NewbiePipeline.stream` yields. Nothing here imports torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from newbie_image.binding_modes import read_binding
from newbie_image.errors import RequestError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

MAX_SEED = 2**63 - 1
SIZE_MULTIPLE = 16
GRIDS = ("uniform", "simple")
TEXT_FORMS = ("typed", "flat")
LONG_PROMPTS = ("cut", "groups", "refuse")
SAMPLERS = ("euler", "midpoint", "heun", "dpmpp_2m", "res_multistep")


@dataclass(frozen=True)
class GenerationRequest:
    """One picture, or several of one prompt, asked for.

    A setting that is None is taken from the bundle's defaults (`newbie.json`).

    Args:
        prompt: the prompt as typed: XML, tags or a sentence.
        negative_prompt: what to steer away from; empty for none.
        width, height: pixels, multiples of 16.
        steps: intervals of the time grid, at least 1.
        guidance_scale: classifier-free guidance; 1 switches it off.
        cfg_truncation: guidance only while t < cfg_truncation (t = 0 is noise), in [0, 1].
        cfg_renorm: limit of the guided velocity's norm against the conditional one's; 0 is off.
        sampler: one of SAMPLERS.
        shift: time shift, > 0; 1 is none.
        grid: how times are spread before the shift, one of GRIDS.
        seed: 0 … 2^63 − 1. Picture i of a request has seed + i.
        count: number of pictures.
        preset: a named set of defaults of the bundle.
        tolerant: repair a broken prompt and say what was assumed, instead of refusing it.
        batch: pictures that are computed side by side; more is faster and takes more memory.
        tiled: decode in tiles, which needs less memory and can differ a little at their seams.
        decode: name of the decode stage (docs/vae.md); None for the pipeline's own.
        text_form: how prompt and negative prompt reach the encoders: `typed`, or `flat`, the sequence
            `[char1]blue_hair, …` of :func:`newbie_image.prompt.flatten`.
        binding: how characters are kept apart: `auto`, or a mode and its parts (docs/binding.md).
        changes: (step, prompt) pairs in order of steps, below the number of steps: from that step on, counted
            from 0, the picture goes on under that prompt.
        long_prompt: what becomes of a prompt with more tokens than an encoder takes: `cut` its end off and
            say what was cut, read it by `groups` (each character and the rest apart), or `refuse` it.
    """

    prompt: str
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    cfg_truncation: float | None = None
    cfg_renorm: float | None = None
    sampler: str | None = None
    shift: float | None = None
    seed: int = 0
    count: int = 1
    preset: str | None = None
    tolerant: bool = False
    batch: int = 1
    tiled: bool = False
    grid: str | None = None
    decode: str | None = None
    text_form: str = "typed"
    binding: str = "auto"
    changes: tuple[tuple[int, str], ...] = ()
    long_prompt: str = "cut"

    def __post_init__(self) -> None:
        _check_text("prompt", self.prompt)
        _check_text("negative_prompt", self.negative_prompt)
        _check_seed(self.seed)
        for name in ("width", "height"):
            value = getattr(self, name)
            if value is not None:
                _check_size(name, value)
        _check_whole("steps", self.steps, 1, 1000)
        _check_whole("count", self.count, 1, 4096)
        _check_whole("batch", self.batch, 1, 64)
        _check_number("guidance_scale", self.guidance_scale, 0.0, 100.0)
        _check_number("cfg_truncation", self.cfg_truncation, 0.0, 1.0)
        _check_number("cfg_renorm", self.cfg_renorm, 0.0, 100.0)
        _check_number("shift", self.shift, 0.01, 100.0)
        if self.sampler is not None and self.sampler not in SAMPLERS:
            raise RequestError(f"unknown sampler {self.sampler!r}; choose one of {', '.join(SAMPLERS)}")
        if self.grid is not None and self.grid not in GRIDS:
            raise RequestError(f"unknown time grid {self.grid!r}; choose one of {', '.join(GRIDS)}")
        if self.text_form not in TEXT_FORMS:
            raise RequestError(f"unknown text form {self.text_form!r}; choose one of {', '.join(TEXT_FORMS)}")
        if not isinstance(self.binding, str):
            raise RequestError(f"binding {self.binding!r} is not allowed; give auto, off, full and the like")
        read_binding(self.binding)
        _check_changes(self.changes)
        if self.long_prompt not in LONG_PROMPTS:
            raise RequestError(
                f"unknown way with long prompts {self.long_prompt!r}; choose one of {', '.join(LONG_PROMPTS)}"
            )
        if self.decode is not None and (not isinstance(self.decode, str) or not self.decode.strip()):
            raise RequestError(f"decode {self.decode!r} is not allowed; give the name of a decode stage")


def _check_changes(changes: Any) -> None:
    fine = isinstance(changes, tuple) and all(
        isinstance(change, tuple)
        and len(change) == 2
        and isinstance(change[0], int)
        and change[0] > 0
        and isinstance(change[1], str)
        for change in changes
    )
    if not fine or not all(one[0] < two[0] for one, two in itertools.pairwise(changes)):
        raise RequestError(
            f"changes {changes!r} are not allowed; give (step, prompt) pairs, steps from 1 and rising: "
            "((5, '1girl'),)"
        )


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise RequestError(f"{name} {value!r} is not allowed; give one text, which may be empty")


def _check_seed(seed: object) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise RequestError(
            f"seed {seed!r} is not allowed; give a whole number from 0 to {MAX_SEED} (2^63 − 1)"
        )


def _check_size(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(
            f"{name} {value!r} is not a whole number; give pixels, a multiple of {SIZE_MULTIPLE}"
        )
    if value < SIZE_MULTIPLE or value % SIZE_MULTIPLE:
        below = max(SIZE_MULTIPLE, value // SIZE_MULTIPLE * SIZE_MULTIPLE)
        above = below + SIZE_MULTIPLE
        raise RequestError(
            f"{name} {value} is not a positive multiple of {SIZE_MULTIPLE}; "
            f"the nearest are {below} and {above}"
        )


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name} {value!r} is not allowed; give a whole number from {low} to {high}")


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise RequestError(f"{name} {value!r} is not allowed; give a number from {low:g} to {high:g}")


@dataclass(frozen=True)
class TextEncoded:
    """The prompt was read and encoded, or another one to go on under.

    Args:
        warnings: one line for each thing worth saying (a text cut off, a repaired prompt), which was not said
            of an earlier prompt of the same run.
        seconds: what it took.
    """

    warnings: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class StepDone:
    """One interval of the time grid was walked.

    Args:
        index: steps done, from 1.
        total: steps in all.
        t: where the time is now (0 noise, 1 data).
        latents: (batch, channels, height/8, width/8), on the device. A reader that changes them must copy.
        prediction: the present guess of the clean latents, same shape.
        seconds: what this step took.
    """

    index: int
    total: int
    t: float
    latents: torch.Tensor
    prediction: torch.Tensor
    seconds: float


@dataclass(frozen=True)
class GeneratedImage:
    """One finished picture.

    Args:
        image: the picture, RGB.
        seed: the seed it was made with.
        latents: (channels, height/8, width/8) on the CPU, float32.
        settings: every setting as it was used, for provenance.
    """

    image: Image
    seed: int
    latents: torch.Tensor
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class UsedRegions:
    """Where the characters of one picture were to stand, as its binding was told.

    Args:
        boxes: left, top, right, bottom in fractions of the picture, a character each, from `<position>`;
            empty where the regions were found in the picture itself.
        masks: (characters, image tokens downwards, across) in [0, 1], on the CPU.
        labels: the characters' numbers in the prompt; empty where they are 1, 2, ….
    """

    boxes: tuple[tuple[float, float, float, float], ...]
    masks: torch.Tensor
    labels: tuple[int, ...] = ()


@dataclass(frozen=True)
class PictureDone:
    """All pictures of the request are decoded.

    Args:
        images: the pictures, in order of their seeds.
        seconds: seconds by stage: text, sampling, decoding.
        peak_memory: highest memory of the device in bytes, None where it cannot be known.
        latents: (count, channels, height/8, width/8) on the CPU, float32, as the transformer gave them.
        pixels: (count, 3, height, width) on the CPU, float32 in [0, 1]; None where nothing was decoded.
        regions: of each picture; empty where no regions acted.
    """

    images: tuple[GeneratedImage, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory: int | None = None
    latents: torch.Tensor | None = None
    pixels: torch.Tensor | None = None
    regions: tuple[UsedRegions, ...] = ()


Event = TextEncoded | StepDone | PictureDone
