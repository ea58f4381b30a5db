"""Adapters written by LyCORIS, against what LyCORIS computed on upstream's model; see compare_adapters.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from newbie_image.checkpoints.adapters import AdapterStack, merge_adapters
from newbie_image.models.next_dit import NextDiT

FIXTURES = Path(__file__).parent / "fixtures"
TOLERANCE = 1e-5
HALF = 0.5
STACK, STACKED_AT = ("lokr", "kohya", "loha"), 0.3
STRENGTH = {"lokr_whole_with_norms": 0.6, "locon": 0.6, "loha": 0.6}
KINDS = [
    "lokr",
    "lokr_whole_with_norms",
    "lokr_both",
    "lokr_rank_stabilised",
    "locon",
    "loha",
    "full",
    "kohya",
]


def model_and_inputs() -> tuple[NextDiT, dict[str, Tensor]]:
    with safe_open(FIXTURES / "next_dit_grouped.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    model = NextDiT(**config)
    weights = {k.removeprefix("weights."): v for k, v in stored.items() if k.startswith("weights.")}
    model.load_state_dict(weights, strict=True)
    return model.eval(), {k.removeprefix("given."): v for k, v in stored.items() if k.startswith("given.")}


def velocities() -> dict[str, Tensor]:
    """LyCORIS' own on upstream's model: by kind, `KIND@0.5`, and `stack` for several at once."""
    return load_file(FIXTURES / "adapters" / "velocities.safetensors")


def path_of(kind: str) -> Path:
    folder = FIXTURES / "adapters" / kind
    return folder if folder.is_dir() else folder.with_suffix(".safetensors")


def distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_equals_lycoris(kind: str) -> None:
    theirs = velocities()
    expected = theirs[kind]
    model, given = model_and_inputs()
    plain = model(**given)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert distance(plain, expected) > 0.1

    stack = AdapterStack(model)
    report = stack.load(path_of(kind), scale=HALF, name=kind)
    assert report.lines() == []
    assert distance(model(**given), theirs[f"{kind}@{HALF}"]) < TOLERANCE
    stack.set_scales({kind: STRENGTH.get(kind, 1.0)})
    assert distance(model(**given), expected) < TOLERANCE
    stack.fuse()
    assert distance(model(**given), expected) < TOLERANCE
    stack.unload()
    assert torch.equal(model(**given), plain)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    merge_adapters(model, [(path_of(kind), STRENGTH.get(kind, 1.0))])
    assert distance(model(**given), expected) < TOLERANCE


@torch.no_grad()
def test_several_equal_several_of_lycoris() -> None:
    model, given = model_and_inputs()
    stack = AdapterStack(model)
    for kind in STACK:
        stack.load(path_of(kind), scale=STACKED_AT)
    assert distance(model(**given), velocities()["stack"]) < TOLERANCE
    stack.fuse()
    assert distance(model(**given), velocities()["stack"]) < TOLERANCE


@torch.no_grad()
def test_kinds_mix() -> None:
    """Files of different trainers on one model add up, beside the layers as in the weights."""
    model, given = model_and_inputs()
    stack = AdapterStack(model)
    for kind in ("lokr_whole_with_norms", "kohya", "loha"):
        stack.load(path_of(kind), scale=0.3)
    beside = model(**given)
    stack.fuse()
    assert distance(model(**given), beside) < TOLERANCE
    assert list(stack.scales) == ["lokr_whole_with_norms", "kohya", "loha"]
