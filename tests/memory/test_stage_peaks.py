"""The measurement that tests/gpu makes on a card, made here by counting bytes of a tiny model on the CPU."""

from __future__ import annotations

import pytest
import torch

from newbie_image.memory.plan import Plan, predict
from newbie_image.memory.tracking import ByteCounter
from newbie_image.pipeline import NewbiePipeline
from tests import tiny
from tests.measuring import fill, full_request, random_pipeline, stage_peaks, work_of

CPU = torch.device("cpu")


@pytest.fixture
def pipe() -> NewbiePipeline:
    parts = {
        "transformer": tiny.transformer(),
        "text_encoder": tiny.text_encoder(400),
        "clip_model": tiny.clip_model(400),
        "vae": tiny.vae(),
    }
    return random_pipeline({name: fill(part, torch.float32, CPU) for name, part in parts.items()})


def peaks_of(pipe: NewbiePipeline, plan: Plan) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes by stage, predicted and counted."""
    request = full_request(256, 192)
    pipe.apply_plan(plan, "cpu")
    with ByteCounter(CPU, fused=False) as counter:
        counted = stage_peaks(pipe, request, counter.reset)
    predicted = predict(pipe.sizes(), work_of(pipe, request), plan)
    return {stage.name: stage.bytes for stage in predicted.stages}, counted


@pytest.mark.parametrize("plan", [Plan("blocks", 0), Plan("blocks", 1, two_passes=True)])
def test_the_stages_are_told_apart_and_the_steps_are_as_predicted(pipe: NewbiePipeline, plan: Plan) -> None:
    predicted, counted = peaks_of(pipe, plan)
    assert counted["steps"] == pytest.approx(predicted["steps"], rel=0.1)
    # The CPU's kernels make copies that a card does not make, which at this width are half of a stage.
    for name in ("text", "decode"):
        assert 0.9 * predicted[name] < counted[name] < 2.5 * predicted[name], name


def test_a_block_that_stays_takes_what_is_predicted_to_the_byte(pipe: NewbiePipeline) -> None:
    pairs = zip(peaks_of(pipe, Plan("blocks", 0)), peaks_of(pipe, Plan("blocks", 3)), strict=True)
    predicted, counted = ({name: three[name] - none[name] for name in none} for none, three in pairs)
    assert counted == predicted
    assert predicted["steps"] > 0
