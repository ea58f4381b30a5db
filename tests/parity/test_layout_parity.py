"""Checkpoints that upstream's trainer and ComfyUI wrote with their own code; see compare_layouts.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from newbie_image.checkpoints.files import open_source
from newbie_image.checkpoints.foreign import load_part
from newbie_image.checkpoints.inspection import verify
from newbie_image.checkpoints.recognise import recognise
from newbie_image.checkpoints.single_part import verify_part

LAYOUTS = Path(__file__).parent / "fixtures" / "layouts"
# Rounded to bf16, a sum of at most 3,000 numbers is off by less than this part of the sum of magnitudes.
ROUNDING = 2**-8


def state(path: Path, *, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    return load_part("transformer", path, open_source(path), dtype).state_dict()


def off(value: Tensor, expected: tuple[float, float]) -> float:
    """How far a tensor's sums of numbers and of magnitudes are from what the writer had, relative."""
    total, magnitude = float(value.double().sum()), float(value.double().abs().sum())
    return max(abs(total - expected[0]), abs(magnitude - expected[1])) / expected[1]


@pytest.fixture(scope="module")
def expected() -> dict[str, tuple[float, float]]:
    return json.loads((LAYOUTS / "expected.json").read_text(encoding="utf-8"))


def test_a_checkpoint_that_upstreams_trainer_saved(
    tmp_path: Path, expected: dict[str, tuple[float, float]]
) -> None:
    for name in ("consolidated_ema.00-of-01.pth", "model_args.pth", "resume_step.txt"):
        shutil.copy(LAYOUTS / name, tmp_path)
    found = recognise(tmp_path)
    assert found.layout == "training"
    assert found.missing == ("text_encoder", "clip_model", "vae")
    assert [line for line in verify(found) if not line.split(":")[1].startswith(" missing from")] == []
    weights = state(found.parts["transformer"])
    assert weights.keys() == expected.keys()
    assert max(off(weights[name], sums) for name, sums in expected.items()) < 1e-12


def test_a_checkpoint_that_comfyui_saved(expected: dict[str, tuple[float, float]]) -> None:
    file = LAYOUTS / "comfyui.safetensors"
    verdict = verify_part(file)
    assert (verdict.kind, verdict.wrong) == ("transformer", ())
    names = open_source(file).shapes
    assert all(name.startswith("model.diffusion_model.") for name in names)
    weights = state(file)
    # ComfyUI's class has no norm_final, which no forward reads: it comes as ones.
    assert torch.equal(weights["norm_final.weight"], torch.ones(12, dtype=torch.bfloat16))
    assert weights.keys() == expected.keys()
    saved = {name: sums for name, sums in expected.items() if name != "norm_final.weight"}
    assert len(saved) == len(names)
    assert max(off(weights[name], sums) for name, sums in saved.items()) < ROUNDING
