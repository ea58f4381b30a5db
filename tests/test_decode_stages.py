"""The decode stage: found by name, replaced, held to its form; and the one that keeps edges."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from newbie_image import decode_stages
from newbie_image.bundle import VaeSettings, find_bundle, read_settings
from newbie_image.checkpoints.opening import load_vae
from newbie_image.decode_stages import (
    decode_edges,
    encode_pictures,
    find_stage,
    run_stage,
    stage_name,
    stage_names,
)
from newbie_image.decoding import decode_latents
from newbie_image.errors import NumericsError, RequestError
from newbie_image.nano.dataset import HELD_OUT_SEED
from newbie_image.nano.world.render import render
from newbie_image.nano.world.scene import sample_scene
from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import GenerationRequest, PictureDone
from tests.tiny import vae

OPEN = VaeSettings()


def negative(latents: Tensor, vae: Any, settings: VaeSettings, *, tiled: bool = False) -> Tensor:
    return 1 - decode_latents(latents, vae, settings, tiled=tiled)


def last(pipeline: NewbiePipeline, **settings: Any) -> PictureDone:
    request = GenerationRequest("1girl", width=32, height=32, steps=1, **settings)
    event = list(pipeline.stream(request))[-1]
    assert isinstance(event, PictureDone)
    assert event.pixels is not None
    return event


@torch.no_grad()
def test_edges_and_colours_come_nearer_to_the_original() -> None:
    """On the embedded model's round trip, which is what the stage promises (figures: docs/vae.md)."""
    scenes = [sample_scene(HELD_OUT_SEED + number, 1) for number in range(2)]
    pictures = torch.stack([torch.from_numpy(render(scene, 256).copy()) for scene in scenes])
    pictures = pictures.permute(0, 3, 1, 2).float() / 255
    autoencoder, settings = load_vae("nano", torch.float32), read_settings(find_bundle("nano")).vae
    latents = encode_pictures(pictures, autoencoder, settings)
    plain = run_stage(find_stage("plain"), latents, autoencoder, settings) - pictures
    edges = run_stage(find_stage("edges"), latents, autoencoder, settings) - pictures
    for axis in (2, 3):
        assert edges.diff(dim=axis).abs().mean() < 0.98 * plain.diff(dim=axis).abs().mean()
    assert edges.abs().mean() < 0.98 * plain.abs().mean()
    assert edges.square().mean() < 0.95 * plain.square().mean()


@torch.no_grad()
def test_latents_that_no_picture_has_are_decoded_as_they_are() -> None:
    """An untrained autoencoder's round trip leads nowhere, so no round of it may be taken."""
    torch.manual_seed(0)
    autoencoder = vae()
    latents = 9 * torch.randn(2, 16, 2, 3)
    back = encode_pictures(decode_latents(latents, autoencoder, OPEN), autoencoder, OPEN)
    again = encode_pictures(decode_edges(latents, autoencoder, OPEN), autoencoder, OPEN)
    assert (latents - again).norm() <= (latents - back).norm()
    assert torch.equal(
        decode_edges(latents, autoencoder, OPEN, rounds=0), decode_latents(latents, autoencoder, OPEN)
    )


def test_names_lead_to_stages_and_back() -> None:
    assert find_stage("edges") is decode_edges
    assert stage_names()[:2] == ["plain", "edges"]
    assert stage_name(decode_latents) is None
    assert stage_name(decode_edges) == "edges"
    assert stage_name(negative) == f"{__name__}:negative"
    with pytest.raises(RequestError, match="did you mean edges"):
        find_stage("edge")
    with pytest.raises(RequestError, match="plain, edges"):
        find_stage("os:system")


def test_installed_packages_bring_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        metadata.EntryPoint("wide", "newbie_image.decode_stages:decode_edges", decode_stages.GROUP),
        metadata.EntryPoint("gone", "no_such_package:stage", decode_stages.GROUP),
        metadata.EntryPoint("text", "newbie_image.decode_stages:GROUP", decode_stages.GROUP),
    ]
    monkeypatch.setattr(decode_stages, "entry_points", lambda group: entries)
    assert "wide" in stage_names()
    assert find_stage("wide") is decode_edges
    for name, words in (("gone", "cannot be imported"), ("text", "no function")):
        with pytest.raises(RequestError, match=words):
            find_stage(name)


def test_a_stage_is_held_to_its_form() -> None:
    def small(latents: Tensor, vae: Any, settings: VaeSettings, *, tiled: bool = False) -> Tensor:
        return torch.zeros(1, 3, 8, 8)

    def broken(latents: Tensor, vae: Any, settings: VaeSettings, *, tiled: bool = False) -> Tensor:
        return torch.full((1, 3, 16, 16), torch.nan)

    def bright(latents: Tensor, vae: Any, settings: VaeSettings, *, tiled: bool = False) -> Tensor:
        return torch.full((1, 3, 16, 16), 3.0, dtype=torch.float64)

    latents, autoencoder = torch.zeros(1, 16, 2, 2), vae()
    with pytest.raises(RequestError, match=r"\(1, 3, 16, 16\) in \[0, 1\] is needed"):
        run_stage(small, latents, autoencoder, OPEN)
    with pytest.raises(NumericsError, match="broken"):
        run_stage(broken, latents, autoencoder, OPEN)
    pixels = run_stage(bright, latents, autoencoder, OPEN)
    assert pixels.dtype == torch.float32
    assert bool((pixels == 1).all())


def test_a_pipelines_stage_is_replaced_recorded_and_overruled(tiny_bundle: Path) -> None:
    pipeline = NewbiePipeline.from_pretrained(tiny_bundle)
    plain = last(pipeline)
    assert plain.images[0].settings["decode"] is None
    pipeline.decode_stage = negative
    other = last(pipeline)
    torch.testing.assert_close(other.pixels, 1 - plain.pixels)  # type: ignore[operator]
    assert other.images[0].settings["decode"] == f"{__name__}:negative"
    named = last(pipeline, decode="plain")
    assert torch.equal(named.pixels, plain.pixels)  # type: ignore[arg-type]
    edges = last(pipeline, decode="edges")
    assert edges.images[0].settings["decode"] == "edges"
    with pytest.raises(RequestError, match="unknown decode stage 'edgy'"):
        last(pipeline, decode="edgy")
