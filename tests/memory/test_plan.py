"""Predictions against counted bytes, and which plan is chosen for which memory."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from newbie_image.errors import RequestError
from newbie_image.memory import sizes as sizes_module
from newbie_image.memory.plan import (
    CHUNK,
    Plan,
    Workload,
    choose_plan,
    fit_blocks,
    predict,
    read_memory,
    smallest_plan,
)
from newbie_image.memory.sizes import published_sizes, sizes_from_configs
from newbie_image.memory.tracking import published_parts, track_plan, without_data

GB = 10**9
PLANS = [
    (Workload(), Plan("none")),
    (Workload(896, 896), Plan("encoders", two_passes=True)),
    (Workload(1536, 1024, batch=2), Plan("model", tiled=True)),
    (Workload(1024, 1536, guided=False, tokens=264), Plan("blocks", 2)),
    (Workload(1536, 1536), Plan("blocks", 0, two_passes=True, chunk=CHUNK, tiled=True)),
]


@pytest.fixture(scope="module")
def shallow() -> tuple[Any, Any]:
    """The published model at its own widths with few layers: activations do not depend on their number."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sizes_module.PUBLISHED_TRANSFORMER, "n_layers", 3)
        patch.setitem(sizes_module.PUBLISHED_TRANSFORMER, "n_refiner_layers", 1)
        patch.setitem(sizes_module.PUBLISHED_GEMMA, "num_hidden_layers", 4)
        patch.setitem(sizes_module.PUBLISHED_JINA, "num_hidden_layers", 3)
        return published_sizes(), published_parts(torch.bfloat16)


@pytest.mark.parametrize(("work", "plan"), PLANS, ids=lambda value: getattr(value, "offload", ""))
def test_every_stage_is_predicted_within_a_tenth(
    shallow: tuple[Any, Any], work: Workload, plan: Plan
) -> None:
    sizes, parts = shallow
    work = replace(work, evaluations=5)
    predicted, tracked = predict(sizes, work, plan), track_plan(parts, work, plan)
    for said, seen in zip(predicted.stages, tracked.stages, strict=True):
        assert said.name == seen.name
        assert said.weights == pytest.approx(seen.weights, rel=0.01), said.name
        assert said.activations == pytest.approx(seen.activations, rel=0.1), said.name
    assert predicted.peak == pytest.approx(tracked.peak, rel=0.1)


@pytest.mark.parametrize("trims", [(), ("adaln",), ("refiner", "tables"), ("last-layer", "adaln")])
@pytest.mark.parametrize("plan", [Plan("none"), Plan("blocks", 2, two_passes=True)], ids=["none", "blocks"])
def test_trims_that_are_off_are_predicted_too(
    shallow: tuple[Any, Any], plan: Plan, trims: tuple[str, ...]
) -> None:
    sizes, parts = shallow
    work = Workload(768, 768, evaluations=20)
    predicted, tracked = predict(sizes, work, plan, trims), track_plan(parts, work, plan, trims=trims)
    for said, seen in zip(predicted.stages, tracked.stages, strict=True):
        assert said.weights == pytest.approx(seen.weights, rel=0.01), said.name
        assert said.activations == pytest.approx(seen.activations, rel=0.1), said.name


def test_in_float32_too(shallow: tuple[Any, Any]) -> None:
    sizes, parts = shallow
    work, plan = Workload(512, 768, evaluations=3, item=4), Plan("model")
    wide = {name: without_data(copy.deepcopy(part), torch.float32) for name, part in parts.items()}
    tracked = track_plan(wide, work, plan, torch.float32)
    for said, seen in zip(predict(sizes, work, plan).stages, tracked.stages, strict=True):
        assert said.bytes == pytest.approx(seen.bytes, rel=0.1), said.name


@pytest.mark.slow
@pytest.mark.parametrize("plan", [Plan("none"), Plan("blocks", 29, two_passes=True, chunk=CHUNK)])
def test_the_whole_published_model_under_fake_tensors(plan: Plan) -> None:
    work = Workload(evaluations=2)
    with FakeTensorMode(allow_non_fake_inputs=True):
        cpu = torch.device("cpu")
        tracked = track_plan(published_parts(torch.bfloat16, cpu), work, plan, device=cpu)
    for said, seen in zip(predict(published_sizes(), work, plan).stages, tracked.stages, strict=True):
        assert said.bytes == pytest.approx(seen.bytes, rel=0.1), said.name


def test_the_choice_for_each_memory() -> None:
    sizes = published_sizes()
    chosen = {memory: choose_plan(sizes, Workload(), memory * GB) for memory in (2, 6, 8, 12, 16, 24, 80)}
    assert all(plan is not None and plan.needed <= memory * GB for memory, plan in chosen.items())
    modes = {memory: plan.offload for memory, plan in chosen.items() if plan is not None}
    assert modes == {2: "blocks", 6: "blocks", 8: "blocks", 12: "model", 16: "model", 24: "none", 80: "none"}
    assert {memory: plan.resident for memory, plan in chosen.items() if plan is not None}[8] == 38
    assert [memory for memory, plan in chosen.items() if plan is not None and plan.tiled] == [2]
    assert choose_plan(sizes, Workload(), GB // 2) is None


def test_more_memory_never_means_more_streaming() -> None:
    sizes, before = published_sizes(), -1
    for memory in range(2 * GB, 9 * GB, GB // 4):
        plan = choose_plan(sizes, Workload(), memory)
        assert plan is not None
        resident = 99 if plan.resident is None else plan.resident
        assert plan.tiled or resident >= before
        before = -1 if plan.tiled else resident


def test_blocks_fill_what_there_is_and_begin_at_none() -> None:
    sizes, work = published_sizes(), Workload()
    filled = fit_blocks(sizes, work, 6 * GB, Plan())
    more = predict(sizes, work, replace(filled, resident=(filled.resident or 0) + 1))
    assert filled.needed <= 6 * GB < more.needed
    assert fit_blocks(sizes, work, GB // 2, Plan()).resident == 0
    assert smallest_plan(sizes, work).needed < 2 * GB


@pytest.mark.parametrize(
    ("text", "size"), [("8GB", 8 * GB), ("7.5 gib", 15 * 2**29), ("8000MB", 8 * GB), ("12", 12)]
)
def test_memory_is_read(text: str, size: int) -> None:
    assert read_memory(text) == size


@pytest.mark.parametrize("text", ["", "GB", "8 apples", "-8GB", "0GB"])
def test_memory_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="8GB"):
        read_memory(text)


def test_a_config_without_what_is_needed_is_named() -> None:
    with pytest.raises(Exception, match="hidden_size"):
        sizes_from_configs("odd", {}, {}, {}, {})
