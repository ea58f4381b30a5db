"""From a request to pictures, through real components of random weights."""

from __future__ import annotations

import gc
import logging
import shutil
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from newbie_image.bundle import read_settings
from newbie_image.errors import (
    CheckpointError,
    DeviceError,
    NumericsError,
    OutOfMemoryError,
    OutputError,
    PromptError,
    RequestError,
)
from newbie_image.latents import seeded_noise
from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import SAMPLERS, GenerationRequest, PictureDone, StepDone, TextEncoded
from tests import tiny
from tests.tiny import SENTENCE_PROMPT, TAGS_PROMPT, XML_PROMPT

SMALL = {"width": 32, "height": 16}


@pytest.fixture(scope="module")
def pipe(tiny_bundle: Path) -> NewbiePipeline:
    return NewbiePipeline.from_pretrained(tiny_bundle)


def done(pipe: NewbiePipeline, request: GenerationRequest, **options: Any) -> PictureDone:
    *_, last = pipe.stream(request, **options)
    assert isinstance(last, PictureDone)
    return last


def pixels(result: PictureDone) -> list[bytes]:
    return [picture.image.tobytes() for picture in result.images]


def test_the_stream_tells_what_happens(pipe: NewbiePipeline) -> None:
    request = GenerationRequest(XML_PROMPT, **SMALL, seed=5, count=3, batch=2)
    first, *steps, last = pipe.stream(request)
    assert isinstance(first, TextEncoded)
    assert first.warnings == ()
    assert all(isinstance(step, StepDone) for step in steps)
    assert [(step.index, step.total) for step in steps] == [(i, 6) for i in range(1, 7)]
    assert [round(step.t, 3) for step in steps] == [0.2, 0.5, 1.0] * 2
    assert steps[0].latents.shape == steps[0].prediction.shape == (2, 16, 2, 4)
    assert isinstance(last, PictureDone)
    assert [picture.seed for picture in last.images] == [5, 6, 7]
    assert {picture.image.size for picture in last.images} == {(32, 16)}
    assert set(last.seconds) == {"text", "sampling", "decoding"}
    assert last.peak_memory is None or last.peak_memory > 1_000_000
    assert last.latents.shape == (3, 16, 2, 4)
    assert torch.equal(last.images[1].latents, last.latents[1])


def test_every_setting_is_resolved_and_kept(pipe: NewbiePipeline, tiny_bundle: Path) -> None:
    request = GenerationRequest(TAGS_PROMPT, width=32, seed=9, count=2, preset="quick")
    settings = done(pipe, request).images[1].settings
    assert settings["seed"] == 10
    assert (settings["width"], settings["height"], settings["steps"]) == (32, 48, 2)
    assert (settings["sampler"], settings["guidance_scale"], settings["shift"]) == ("midpoint", 2.0, 2.0)
    assert settings["prompt"] == TAGS_PROMPT
    assert settings["bundle"] == "tiny"
    assert settings["bundle_hash"].startswith("sha256:")
    assert (settings["device"], settings["dtype"], settings["attention"]) == ("cpu", "fp32", "auto")
    assert str(tiny_bundle) not in str(settings)


def test_the_same_request_gives_the_same_bytes(pipe: NewbiePipeline, tiny_bundle: Path) -> None:
    request = GenerationRequest(XML_PROMPT, "bad", **SMALL, seed=1)
    first = pixels(done(pipe, request))
    assert pixels(done(pipe, request)) == first
    assert pixels(done(NewbiePipeline.from_pretrained(tiny_bundle), request)) == first


def test_a_picture_is_the_same_alone_and_in_any_batch(pipe: NewbiePipeline) -> None:
    many = done(pipe, GenerationRequest(XML_PROMPT, **SMALL, seed=3, count=3, batch=3)).latents
    split = done(pipe, GenerationRequest(XML_PROMPT, **SMALL, seed=3, count=3, batch=2)).latents
    alone = done(pipe, GenerationRequest(XML_PROMPT, **SMALL, seed=5)).latents
    torch.testing.assert_close(split, many, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(alone[0], many[2], rtol=1e-4, atol=1e-4)


def test_prompt_seed_negative_and_guidance_each_matter(pipe: NewbiePipeline) -> None:
    base = done(pipe, GenerationRequest(XML_PROMPT, **SMALL)).latents
    others = [
        GenerationRequest(SENTENCE_PROMPT, **SMALL),
        GenerationRequest(XML_PROMPT, **SMALL, seed=1),
        GenerationRequest(XML_PROMPT, "bad", **SMALL),
        GenerationRequest(XML_PROMPT, **SMALL, guidance_scale=4.0),
        GenerationRequest(XML_PROMPT, **SMALL, cfg_truncation=0.1),
        GenerationRequest(XML_PROMPT, **SMALL, cfg_renorm=0.5),
        GenerationRequest(XML_PROMPT, **SMALL, shift=5.0),
    ]
    for other in others:
        assert (done(pipe, other).latents - base).abs().max() > 1e-4


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws(pipe: NewbiePipeline, sampler: str) -> None:
    latents = done(pipe, GenerationRequest(TAGS_PROMPT, **SMALL, sampler=sampler), decode=False).latents
    assert torch.isfinite(latents).all()


def test_guidance_in_two_passes_equals_one_batch(pipe: NewbiePipeline) -> None:
    request = GenerationRequest(XML_PROMPT, "bad", **SMALL, count=2, batch=2)
    try:
        pipe.guidance_in_one_batch = True
        together = done(pipe, request, decode=False).latents
        pipe.guidance_in_one_batch = False
        apart = done(pipe, request, decode=False).latents
    finally:
        pipe.guidance_in_one_batch = None
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-4)


def test_without_guidance_no_negative_is_encoded(pipe: NewbiePipeline) -> None:
    complete = pipe.complete(GenerationRequest(XML_PROMPT, "bad", guidance_scale=1.0))
    assert pipe.encode(complete).tokens.shape[0] == 1
    complete = pipe.complete(GenerationRequest(XML_PROMPT, "bad"))
    features = pipe.encode(complete)
    assert features.tokens.shape[0] == 2
    assert features.negatives


def test_cut_text_is_told(pipe: NewbiePipeline) -> None:
    encoded = next(iter(pipe.stream(GenerationRequest("blue_eyes, " * 400, **SMALL))))
    assert isinstance(encoded, TextEncoded)
    assert [warning.split()[0] for warning in encoded.warnings] == ["Gemma", "Jina"]


def test_latents_in_and_out(pipe: NewbiePipeline) -> None:
    request = GenerationRequest(XML_PROMPT, **SMALL, seed=4)
    by_seed = done(pipe, request, decode=False)
    given = done(pipe, GenerationRequest(XML_PROMPT, **SMALL), latents=seeded_noise(4, 1, (16, 2, 4)))
    assert by_seed.images == ()
    assert torch.equal(by_seed.latents, given.latents)
    with pytest.raises(RequestError, match="shape"):
        done(pipe, request, latents=torch.zeros(1, 4, 2, 4))


def test_a_reader_can_send_other_latents(pipe: NewbiePipeline) -> None:
    request = GenerationRequest(XML_PROMPT, **SMALL)
    events = pipe.stream(request, decode=False)
    next(events)
    step = next(events)
    changed = events.send(torch.zeros_like(step.latents))
    assert changed.index == 2
    last = [changed, *events][-1]
    assert (last.latents - done(pipe, request, decode=False).latents).abs().max() > 1e-3


def test_cancelling_between_steps_frees_the_memory(pipe: NewbiePipeline) -> None:
    events = pipe.stream(GenerationRequest(XML_PROMPT, **SMALL))
    next(events)
    step = next(events)
    watched = [weakref.ref(step.latents), weakref.ref(step.prediction), weakref.ref(events)]
    events.close()
    del step, events
    gc.collect()
    assert [each() for each in watched] == [None] * 3
    assert torch.is_grad_enabled()


def test_gradients_stay_on_for_the_reader_between_events(pipe: NewbiePipeline) -> None:
    for _ in pipe.stream(GenerationRequest(XML_PROMPT, **SMALL), decode=False):
        assert torch.is_grad_enabled()


def test_nan_names_the_step(tiny_bundle: Path) -> None:
    pipe = NewbiePipeline.from_pretrained(tiny_bundle)
    events = pipe.stream(GenerationRequest(XML_PROMPT, **SMALL))
    next(events), next(events)
    with torch.no_grad():
        pipe.transformer.x_embedder.weight.fill_(float("nan"))
    with pytest.raises(NumericsError, match="step 2 of 3"):
        next(events)


def test_out_of_memory_says_what_to_change(pipe: NewbiePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    request = GenerationRequest(XML_PROMPT, **SMALL, batch=2)

    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB. GPU 0 has less.")

    with monkeypatch.context() as patched:
        patched.setattr(pipe.transformer, "velocity", exhausted)
        with pytest.raises(OutOfMemoryError) as caught:
            list(pipe.stream(request))
    message = str(caught.value)
    assert "32×16" in message
    assert "smaller batch" in message
    assert "--offload model" in message
    assert caught.value.__context__ is None
    assert len(pixels(done(pipe, request))) == 1


def test_other_errors_pass_unchanged(pipe: NewbiePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(pipe.transformer, "velocity", broken)
    with pytest.raises(RuntimeError, match="something else"):
        list(pipe.stream(GenerationRequest(XML_PROMPT, **SMALL)))


def test_broken_prompts_are_refused_and_repaired_only_on_request(pipe: NewbiePipeline) -> None:
    broken = "<character_1>\n<n>momo</character_1>"
    with pytest.raises(PromptError):
        done(pipe, GenerationRequest(broken, **SMALL))
    encoded, *_, last = pipe.stream(GenerationRequest(broken, broken, **SMALL, tolerant=True))
    assert len(last.images) == 1
    assert any(warning.startswith("line 2") for warning in encoded.warnings)
    assert any(warning.startswith("negative prompt, line 2") for warning in encoded.warnings)


def test_the_last_seed_is_the_last(pipe: NewbiePipeline) -> None:
    with pytest.raises(RequestError, match="lower the seed"):
        done(pipe, GenerationRequest("x", seed=2**63 - 1, count=2))


def test_bfloat16_runs_whole_and_mixed(tiny_bundle: Path) -> None:
    request = GenerationRequest(XML_PROMPT, **SMALL)
    whole = NewbiePipeline.from_pretrained(tiny_bundle, torch_dtype=torch.bfloat16)
    exact = done(NewbiePipeline.from_pretrained(tiny_bundle), request).latents
    low = done(whole, request).latents
    assert low.dtype == torch.float32
    assert ((low - exact).norm() / exact.norm()) < 0.1
    whole.text_encoder.float()
    whole.vae.float()
    assert ((done(whole, request).latents - exact).norm() / exact.norm()) < 0.1


def test_to_casts_quietly_and_keeps_rotary_tables(
    tiny_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = NewbiePipeline.from_pretrained(tiny_bundle)
    with caplog.at_level(logging.WARNING):
        assert pipe.to(torch.device("cpu"), dtype=torch.bfloat16) is pipe
    assert not caplog.records
    assert pipe.transformer.dtype == pipe.vae.dtype == torch.bfloat16
    assert all(b.dtype == torch.float32 for b in pipe.text_encoder.rotary_emb.buffers())
    assert pipe.to(torch.float32).transformer.dtype == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_missing_device_is_one_line(pipe: NewbiePipeline) -> None:
    with pytest.raises(DeviceError, match="no CUDA device"):
        pipe.to("cuda")
    with pytest.raises(DeviceError, match="GPU"):
        pipe.offload("model")
    with pytest.raises(RequestError, match="encoders"):
        pipe.offload("everything")


def test_offloading_changes_no_picture(tiny_bundle: Path) -> None:
    request = GenerationRequest(XML_PROMPT, **SMALL)
    pipe = NewbiePipeline.from_pretrained(tiny_bundle)
    plain = pixels(done(pipe, request))
    pipe.offload("encoders")
    assert pixels(done(pipe, request)) == plain
    # accelerate's hooks work on any device, so that the order of coming and going is checked here too.
    pipe.enable_model_cpu_offload(device="cpu")
    assert [pipe.text_encoder, pipe.clip_model, pipe.transformer, pipe.vae] == [
        hook.model for hook in pipe._all_hooks
    ]
    assert pixels(done(pipe, request)) == plain
    pipe.offload("none")
    assert pixels(done(pipe, request)) == plain


def test_saving_and_loading_gives_the_same_picture(pipe: NewbiePipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "saved", max_shard_size="200KB")
    assert len(list((tmp_path / "saved" / "transformer").glob("*.safetensors"))) > 1
    assert read_settings(tmp_path / "saved") == pipe.settings
    again = NewbiePipeline.from_pretrained(tmp_path / "saved")
    request = GenerationRequest(XML_PROMPT, **SMALL)
    assert pixels(done(again, request)) == pixels(done(pipe, request))


def test_a_bundle_that_cannot_be_written_is_one_line_and_leaves_nothing(
    pipe: NewbiePipeline, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be written: .*choose another"):
        pipe.save_pretrained(tmp_path / "file" / "saved")
    if not sys.platform.startswith("linux"):
        return
    import resource
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"saved cannot be written: .*free space"):
            pipe.save_pretrained(tmp_path / "saved")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_another_vae_may_be_named(pipe: NewbiePipeline, tiny_bundle: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    tiny.vae().save_pretrained(str(tmp_path / "other"))
    request = GenerationRequest(XML_PROMPT, **SMALL)
    other = done(NewbiePipeline.from_pretrained(tiny_bundle, vae=tmp_path / "other"), request)
    assert torch.equal(other.latents, done(pipe, request).latents)
    assert pixels(other) != pixels(done(pipe, request))
    assert other.images[0].settings["vae"] == "other"
    tiny.vae(channels=4).save_pretrained(str(tmp_path / "narrow"))
    with pytest.raises(CheckpointError, match="16 channels, but the VAE makes 4"):
        NewbiePipeline.from_pretrained(tiny_bundle, vae=tmp_path / "narrow")


def test_what_is_no_bundle_is_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    with pytest.raises(CheckpointError, match="no model 'nowhere'"):
        NewbiePipeline.from_pretrained("nowhere")
    copy = shutil.copytree(tiny_bundle, tmp_path / "copy")
    (copy / "newbie.json").unlink()
    with pytest.raises(CheckpointError, match=r"newbie\.json is missing"):
        NewbiePipeline.from_pretrained(copy)


def test_the_call_of_diffusers(pipe: NewbiePipeline) -> None:
    result = pipe(TAGS_PROMPT, height=16, width=32, num_inference_steps=2, num_images_per_prompt=2, seed=3)
    assert len(result.images) == 2
    request = GenerationRequest(TAGS_PROMPT, **SMALL, steps=2, seed=3, count=2, batch=2)
    assert [image.tobytes() for image in result.images] == pixels(done(pipe, request))
    (images,) = pipe([TAGS_PROMPT, XML_PROMPT], height=16, width=32, output_type="np", return_dict=False)
    assert images.shape == (2, 16, 32, 3)
    assert images.dtype == np.float32
    assert not np.array_equal(images[0], images[1])
    latents = pipe(TAGS_PROMPT, height=16, width=32, output_type="latent").images
    assert latents.shape == (1, 16, 2, 4)
    with pytest.raises(RequestError, match="output_type"):
        pipe(TAGS_PROMPT, output_type="jpeg")
    unsaid = pipe(TAGS_PROMPT, negative_prompt=None, height=16, width=32, output_type="np").images
    assert np.array_equal(unsaid[0], images[0])
    for wrong in ({"prompt": None}, {"prompt": 3}, {"prompt": "a", "negative_prompt": ["b", "c"]}):
        with pytest.raises(RequestError, match=r"prompt .* is not allowed; give one text"):
            pipe(**wrong)


def test_tiles_are_asked_for_in_the_call_or_as_diffusers_users_do(tiny_bundle: Path) -> None:
    pipe = NewbiePipeline.from_pretrained(tiny_bundle)
    size = {"height": 96, "width": 96, "num_inference_steps": 1, "output_type": "np"}
    whole = pipe(TAGS_PROMPT, **size).images
    tiled = pipe(TAGS_PROMPT, tiled=True, **size).images
    assert not np.array_equal(whole, tiled)
    assert np.array_equal(pipe(TAGS_PROMPT, **size).images, whole)
    pipe.vae.enable_tiling()
    assert np.array_equal(pipe(TAGS_PROMPT, **size).images, tiled)
    request = GenerationRequest(TAGS_PROMPT, height=96, width=96, steps=1)
    assert done(pipe, request).images[0].settings["tiled"] is True  # so that it can be made again
    pipe.vae.disable_tiling()
    assert np.array_equal(pipe(TAGS_PROMPT, **size).images, whole)


def test_generators_and_latents_in_the_call(pipe: NewbiePipeline) -> None:
    size = {"height": 16, "width": 32, "output_type": "latent"}
    seeded = pipe(TAGS_PROMPT, seed=8, **size).images
    drawn = pipe(TAGS_PROMPT, generator=torch.Generator().manual_seed(8), **size).images
    given = pipe(TAGS_PROMPT, latents=seeded_noise(8, 1, (16, 2, 4)), **size).images
    assert torch.equal(seeded, drawn)
    assert torch.equal(seeded, given)
    for count in (1, 3):
        with pytest.raises(RequestError, match=f"latents for {count} pictures were given, but 2"):
            pipe([TAGS_PROMPT, XML_PROMPT], latents=torch.zeros(count, 16, 2, 4), **size)


def test_the_callback_sees_and_changes_the_latents(pipe: NewbiePipeline) -> None:
    seen: list[tuple[int, float]] = []

    def watch(_: object, step: int, t: float, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append((step, round(t, 3)))
        return {"latents": torch.zeros_like(values["latents"])} if step == 2 else {}

    size = {"height": 16, "width": 32, "output_type": "latent"}
    latents = pipe(TAGS_PROMPT, callback_on_step_end=watch, **size).images
    assert seen == [(0, 0.2), (1, 0.5), (2, 1.0)]
    assert torch.equal(latents, torch.zeros_like(latents))
    with pytest.raises(RequestError, match="prompt_embeds"):
        pipe(TAGS_PROMPT, callback_on_step_end_tensor_inputs=["prompt_embeds"], **size)


def test_attention_backends(tiny_bundle: Path, pipe: NewbiePipeline) -> None:
    request = GenerationRequest(XML_PROMPT, **SMALL)
    written_out = NewbiePipeline.from_pretrained(tiny_bundle, attention="math")
    torch.testing.assert_close(
        done(written_out, request).latents, done(pipe, request).latents, rtol=1e-3, atol=1e-3
    )
    assert written_out.transformer.attention_backend == "math"


@pytest.mark.parametrize("size", [{"width": 32.0}, {"height": 17}, {"width": 0}])
def test_a_size_that_is_no_index_is_refused_before_anything_runs(size: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="16"):
        GenerationRequest("x", **size)
