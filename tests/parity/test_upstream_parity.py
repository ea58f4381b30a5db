"""NextDiT against what upstream's own code computed; the fixtures come from compare_upstream.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from newbie_image.models.next_dit import NextDiT

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("next_dit_*.safetensors"))
TOLERANCE = 1e-5


class Case(NamedTuple):
    model: NextDiT
    given: dict[str, Tensor]
    stored: dict[str, Tensor]


@pytest.fixture(params=FIXTURES, ids=lambda path: path.stem)
def case(request: pytest.FixtureRequest) -> Case:
    with safe_open(request.param, "pt") as file:
        config = json.loads(file.metadata()["config"])
        stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118

    def group(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}

    model = NextDiT(**config)
    model.load_state_dict(group("weights."), strict=True)
    return Case(model.eval(), group("given."), stored)


def distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.detach().double() - theirs.double()).norm() / theirs.double().norm())


def test_there_are_fixtures() -> None:
    assert len(FIXTURES) == 2


def test_forward_equals_upstream(case: Case) -> None:
    assert distance(case.model(**case.given), case.stored["velocity"]) < TOLERANCE


@pytest.mark.parametrize("backend", ["auto", "sdpa", "math"])
def test_prepared_step_equals_upstream(case: Case, backend: str) -> None:
    case.model.attention_backend = backend
    given = case.given
    prepared = case.model.prepare_text(
        given["text_tokens"], given["text_mask"], given["pooled_text"], latent_size=(8, 12)
    )
    velocity = case.model.velocity(given["latents"], given["timestep"], prepared)
    assert distance(velocity, case.stored["velocity"]) < TOLERANCE


def test_gradients_equal_upstream(case: Case) -> None:
    inputs = ("latents", "text_tokens", "pooled_text")
    leaves = {name: case.given[name].clone().requires_grad_() for name in inputs}
    velocity = case.model(**case.given | leaves)
    weights = torch.randn(velocity.shape, generator=torch.Generator().manual_seed(3))
    (velocity * weights).sum().backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        assert distance(leaf.grad, case.stored[f"gradient.input.{name}"]) < TOLERANCE, name
    for name, weight in case.model.named_parameters():
        expected = case.stored.get(f"gradient_norm.weight.{name}")
        if expected is None:
            assert name == "norm_final.weight"
            assert weight.grad is None
        else:
            assert weight.grad is not None
            torch.testing.assert_close(weight.grad.norm(), expected, rtol=TOLERANCE, atol=1e-7, msg=name)


def test_what_padding_holds_does_not_matter(case: Case) -> None:
    tokens = case.given["text_tokens"].masked_fill(~case.given["text_mask"][..., None], float("nan"))
    assert distance(case.model(**case.given | {"text_tokens": tokens}), case.stored["velocity"]) < TOLERANCE
