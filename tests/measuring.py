"""Pipelines of random weights in memory, and what each stage of a picture takes there.

The same code measures the published sizes on a card and counts the bytes of tiny ones on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import nn

from newbie_image.bundle import BundleSettings, Defaults, TextSettings
from newbie_image.memory.plan import Workload
from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import GenerationRequest, PictureDone, StepDone, TextEncoded
from newbie_image.sampling import make_solver, time_grid
from tests import tiny

TOKENS = 512
LONG_TEXT = "pink_hair, twintails, blue_eyes, night sky, " * 100


def fill(part: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Give every parameter small random numbers on a device; buffers go there as they are."""
    generator = torch.Generator(device).manual_seed(0)
    for module in part.modules():
        for name, value in module._parameters.items():
            if value is not None:
                room = torch.empty(value.shape, dtype=dtype, device=device)
                filled = room.normal_(std=0.02, generator=generator)
                module._parameters[name] = nn.Parameter(filled, requires_grad=False)
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = value.to(device)
    return part.eval()


def random_pipeline(parts: Mapping[str, nn.Module], **defaults: object) -> NewbiePipeline:
    """A pipeline of four components, with tokenizers whose ids are within any model's tables; both encoders
    read at most TOKENS.
    """
    pipe = NewbiePipeline(
        **parts,  # pyright: ignore[reportArgumentType]
        tokenizer=tiny.gemma_tokenizer(),
        clip_tokenizer=tiny.jina_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )
    pipe.settings = BundleSettings(
        name="random",
        text=TextSettings(max_tokens=TOKENS, max_pooled_tokens=TOKENS),
        defaults=Defaults(**defaults),  # pyright: ignore[reportArgumentType]
    )
    pipe.vae_settings = pipe.settings.vae
    return pipe


def full_request(width: int, height: int, count: int = 1) -> GenerationRequest:
    """Both texts fill the encoders; two midpoint steps with guidance."""
    return GenerationRequest(
        LONG_TEXT,
        LONG_TEXT,
        width=width,
        height=height,
        steps=2,
        sampler="midpoint",
        guidance_scale=4.0,
        count=count,
        batch=count,
    )


def work_of(pipe: NewbiePipeline, request: GenerationRequest) -> Workload:
    """What the plan has to predict of a request that fills the encoders."""
    whole = pipe.complete(request)
    assert whole.steps is not None
    assert whole.shift is not None
    assert whole.sampler is not None
    times = make_solver(whole.sampler).asked_times(time_grid(whole.steps, whole.shift, whole.grid or ""))
    return pipe.work_of(whole, len(times), TOKENS)


def stage_peaks(pipe: NewbiePipeline, request: GenerationRequest, take: Callable[[], int]) -> dict[str, int]:
    """The highest memory in each stage of a picture, in bytes.

    Args:
        pipe: with a plan in effect.
        request: what to draw.
        take: gives the peak since the last call and begins a new one.
    """
    peaks = {"text": 0, "steps": 0, "decode": 0}
    take()
    for event in pipe.stream(request):
        match event:
            case TextEncoded():
                peaks["text"] = take()
            case StepDone():
                peaks["steps"] = max(peaks["steps"], take())
            case PictureDone():
                peaks["decode"] = take()
    return peaks
