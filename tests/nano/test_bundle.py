"""The embedded bundle as it is shipped: complete, small enough, and each person with their own hair."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from newbie_image import GenerationRequest, NewbiePipeline
from newbie_image.nano.evaluate import held_out_scenes, prompts_hash
from newbie_image.nano.readers import CHARACTER_HEADS, CROP_SIZE, crop, reading_box
from newbie_image.nano.recipe import load_readers
from newbie_image.request import PictureDone

ROOT = Path(__file__).parent.parent.parent
BUNDLE = ROOT / "bundles" / "nano"
MIB = 2**20


def test_files_are_small_and_complete() -> None:
    files = [path for path in BUNDLE.rglob("*") if path.is_file()]
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert weights
    assert max(path.stat().st_size for path in weights) < 16 * MIB
    assert sum(path.stat().st_size for path in files) <= 64 * MIB
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_the_card_speaks_of_these_weights() -> None:
    card = (BUNDLE / "README.md").read_text()
    evaluation = json.loads((BUNDLE / "evaluation.json").read_text())
    assert evaluation["prompts"] >= 300
    assert evaluation["prompts_sha256"] == prompts_hash(held_out_scenes(evaluation["prompts"]))
    assert f"{100 * evaluation['generated']['2_characters']['mean']:.1f}" in card
    for name in CHARACTER_HEADS:
        assert f"| {name} |" in card


@pytest.fixture(scope="module")
def pipeline() -> NewbiePipeline:
    return NewbiePipeline.from_pretrained("nano", torch_dtype=torch.float32)


def test_the_two_people_of_test_py_have_their_own_hair(pipeline: NewbiePipeline) -> None:
    spec = importlib.util.spec_from_file_location("fixed_snapshot", ROOT / "test.py")
    assert spec is not None
    assert spec.loader is not None
    snapshot = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(snapshot)
    request = GenerationRequest(
        snapshot.PROMPT, steps=snapshot.STEPS, guidance_scale=snapshot.GUIDANCE, seed=snapshot.SEED
    )
    event = next(e for e in pipeline.stream(request) if isinstance(e, PictureDone))
    picture = torch.from_numpy(np.array(event.images[0].image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    character, _ = load_readers(ROOT / "assets" / "readers")
    boxes = torch.tensor([reading_box(2, "left"), reading_box(2, "right")])
    read = character.read(crop(picture.expand(2, -1, -1, -1), boxes, CROP_SIZE))
    found = [{name: CHARACTER_HEADS[name][values[i]] for name, values in read.items()} for i in range(2)]
    # The first edition is sure of places and of the colour of hair; its card says how far the rest is.
    assert [side["present"] for side in found] == [True, True]
    assert [side["hair_color"] for side in found] == ["blue", "blonde"]
