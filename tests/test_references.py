"""The reference pictures in `assets/reference` can be made again by anyone who has the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from newbie_image import NewbiePipeline
from newbie_image.cli.drawing import draw
from newbie_image.cli.replay import compare
from newbie_image.provenance import hash_pixels, read_picture

FOLDER = Path(__file__).parent.parent / "assets" / "reference"
PICTURES = sorted(FOLDER.glob("*.png"))


@pytest.fixture(scope="module")
def pipeline() -> NewbiePipeline:
    return NewbiePipeline.from_pretrained("nano", torch_dtype=torch.float32)


def test_there_are_six() -> None:
    assert len(PICTURES) == 6


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_reference_is_made_again(path: Path, pipeline: NewbiePipeline) -> None:
    before, record = read_picture(path)
    assert record.pixels == hash_pixels(before)
    assert record.request.prompt == path.with_suffix(".xml").read_text(encoding="utf-8").rstrip("\n")
    assert record.bundle.content_hash == pipeline.content_hash
    again = draw(pipeline, record.request).pictures[record.index].image
    difference = compare(before, again)
    # Float32 on another processor: other kernels, other roundings.
    assert difference is None or difference.psnr > 35
