"""Plans put into effect by the pipeline: the same picture, and memory given back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from newbie_image.errors import DeviceError, OutOfMemoryError, RequestError
from newbie_image.memory.plan import Plan, choose_plan, smallest_plan
from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import GenerationRequest, PictureDone
from tests.tiny import XML_PROMPT

REQUEST = GenerationRequest(XML_PROMPT, "bad", width=64, height=32, seed=2, count=3, batch=2)


@pytest.fixture
def pipe(tiny_bundle: Path) -> NewbiePipeline:
    return NewbiePipeline.from_pretrained(tiny_bundle)


def drawn(pipe: NewbiePipeline, request: GenerationRequest = REQUEST) -> PictureDone:
    *_, last = pipe.stream(request)
    assert isinstance(last, PictureDone)
    return last


def pixels(pipe: NewbiePipeline) -> torch.Tensor:
    found = drawn(pipe).pixels
    assert found is not None
    return found


def pointers(pipe: NewbiePipeline) -> list[int]:
    models = (pipe.transformer, pipe.text_encoder, pipe.clip_model, pipe.vae)
    return [parameter.data_ptr() for model in models for parameter in model.parameters()]


@pytest.mark.parametrize("resident", [0, 1, 3])
def test_streamed_blocks_draw_the_same_picture_to_the_bit(pipe: NewbiePipeline, resident: int) -> None:
    plain, before = pixels(pipe), pointers(pipe)
    pipe.apply_plan(Plan("blocks", resident), "cpu")
    assert torch.equal(pixels(pipe), plain)
    assert pointers(pipe) == before
    assert torch.equal(pixels(pipe), plain)
    pipe.offload("none", "cpu")
    assert pointers(pipe) == before
    assert not hasattr(pipe.transformer, "_hf_hook")
    assert torch.equal(pixels(pipe), plain)


def test_cancelling_frees_what_came(pipe: NewbiePipeline) -> None:
    before = pointers(pipe)
    pipe.offload("blocks", "cpu")
    events: Iterator[object] = pipe.stream(REQUEST)
    next(events)
    next(events)
    assert pointers(pipe) != before
    events.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert pointers(pipe) == before


def test_passes_and_chunks_change_rounding_only(pipe: NewbiePipeline) -> None:
    plain = pixels(pipe)
    pipe.apply_plan(Plan("blocks", 1, two_passes=True, chunk=5))
    torch.testing.assert_close(pixels(pipe), plain, rtol=1e-3, atol=1e-4)
    pipe.offload("none")
    assert pipe.transformer.layers[0].feed_forward.token_chunk is None
    assert torch.equal(pixels(pipe), plain)


def test_auto_plans_every_request_for_the_memory_that_it_is_given(pipe: NewbiePipeline) -> None:
    plain = pixels(pipe)
    sizes = pipe.sizes()
    work = pipe.work_of(pipe.complete(REQUEST), 3, 512)
    roomy, tight = 10**12, smallest_plan(sizes, work).needed
    pipe.offload("auto", "cpu", memory=roomy)
    assert torch.equal(pixels(pipe), plain)
    assert pipe.plan is not None
    assert pipe.plan.offload == "none"
    pipe.offload("auto", "cpu", memory=tight)
    settings = drawn(pipe).images[0].settings
    assert pipe.plan is not None
    assert pipe.plan == choose_plan(sizes, work, tight)
    assert (pipe.plan.offload, settings["tiled"]) == ("blocks", pipe.plan.tiled)
    pipe.offload("auto", "cpu", memory=tight // 2)
    with pytest.raises(OutOfMemoryError, match=r"needs at least 0\.5 GB"):
        drawn(pipe)


def test_auto_without_a_card_keeps_everything_where_it_is(pipe: NewbiePipeline) -> None:
    before = pointers(pipe)
    pipe.offload("auto", "cpu")
    drawn(pipe)
    assert pointers(pipe) == before
    assert pipe.plan is None


def test_mistakes_are_named(pipe: NewbiePipeline) -> None:
    with pytest.raises(RequestError, match="auto, none, encoders, model, blocks"):
        pipe.offload("everything")
    with pytest.raises(DeviceError, match="needs a GPU"):
        pipe.offload("model", "cpu")


def test_running_out_names_the_plan_that_would_fit(
    pipe: NewbiePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe.offload("auto", "cpu", memory=10**9)

    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    handle = pipe.transformer.layers[0].register_forward_pre_hook(exhausted)
    with pytest.raises(OutOfMemoryError, match=r"what should fit is --offload .* of 1\.0 GB"):
        drawn(pipe)
    handle.remove()
    drawn(pipe)


def test_a_prompt_longer_than_training_had_is_planned_for(pipe: NewbiePipeline) -> None:
    text = pipe.settings.text.model_copy(update={"max_tokens": 1023, "trained_tokens": 112})
    pipe.settings = pipe.settings.model_copy(update={"text": text})
    long = ", ".join(["pink_hair, twintails"] * 40)
    assert pipe.planned_tokens(pipe.complete(REQUEST)) == 112
    for request in (
        replace(REQUEST, prompt=long),
        replace(REQUEST, negative_prompt=long),
        replace(REQUEST, changes=((1, long),)),
    ):
        assert pipe.planned_tokens(pipe.complete(request)) == 1023
    unguided = replace(REQUEST, negative_prompt=long, guidance_scale=1.0)
    assert pipe.planned_tokens(pipe.complete(unguided)) == 112
    pipe.offload("blocks", "cpu", memory=10**9)
    drawn(pipe, REQUEST)
    assert pipe.plan is not None
    before = pipe.plan.stages[1].activations
    drawn(pipe, replace(REQUEST, prompt=long))
    assert pipe.plan.stages[1].activations > before
