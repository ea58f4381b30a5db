"""The embedded model through every layout that can carry it, with the same picture to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from newbie_image.bundle import find_bundle
from newbie_image.checkpoints.convert import convert
from newbie_image.checkpoints.recognise import recognise
from newbie_image.errors import CheckpointError
from newbie_image.pipeline import NewbiePipeline
from newbie_image.provenance import hash_pixels
from newbie_image.request import GenerationRequest, PictureDone


def drawn(folder: Path) -> str:
    pipeline = NewbiePipeline.from_pretrained(folder, torch_dtype=torch.float32)
    request = GenerationRequest("1girl, blue_hair, smile", width=64, height=64, steps=2, seed=3)
    event = list(pipeline.stream(request))[-1]
    assert isinstance(event, PictureDone)
    assert pipeline.settings.name == "nano"
    return hash_pixels(event.images[0].image)


def test_there_and_back_with_the_same_picture(tmp_path: Path) -> None:
    nano = find_bundle("nano")
    convert(recognise(nano), tmp_path / "diffusers", "diffusers")
    convert(recognise(tmp_path / "diffusers"), tmp_path / "published", "published")
    convert(recognise(tmp_path / "published"), tmp_path / "nano", "newbie")
    wanted = drawn(nano)
    assert {drawn(tmp_path / name) for name in ("diffusers", "nano")} == {wanted}


def test_a_layout_that_cannot_carry_it_says_so_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="AutoencoderKL only"):
        convert(recognise(find_bundle("nano")), tmp_path / "comfyui", "comfyui")
    assert list(tmp_path.iterdir()) == []
