"""The embedded bundle as shipped: complete, small enough, people with their own hair, eyes and clothes."""

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
DEMO = [
    {
        "present": True,
        "hair_color": "blue",
        "hair_style": "twintails",
        "eye_color": "red",
        "top": "serafuku",
        "top_color": "white",
        "bottom": "pleated_skirt",
        "bottom_color": "red",
        "legwear": "black_thighhighs",
        "headwear": "beret",
        "expression": "one_eye_closed",
        "pose": "standing",
    },
    {
        "present": True,
        "hair_color": "blonde",
        "hair_style": "wavy_hair",
        "eye_color": "green",
        "top": "sweater",
        "top_color": "green",
        "bottom": "long_skirt",
        "bottom_color": "white",
        "headwear": "rabbit_ears",
        "expression": "smile",
        "pose": "waving",
    },
]
"""What the prompt of test.py says of its two people."""


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


def test_the_two_people_of_test_py_have_all_that_its_prompt_asks_for(pipeline: NewbiePipeline) -> None:
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
    # What `make demo` promises.
    assert [{name: side[name] for name in wanted} for side, wanted in zip(found, DEMO, strict=True)] == DEMO
