"""Many prompts side by side are the pictures that each gives by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from newbie_image.nano.draw_many import draw_many
from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import GenerationRequest, PictureDone
from tests import tiny

SECOND = "<appearance>black_hair, glasses</appearance>"
PLACED = tiny.XML_PROMPT.replace(SECOND, SECOND + "\n<position>right</position>")
OTHER = PLACED.replace("pink_hair", "<!-- weight:2 -->blue_hair, red_eyes, long_hair").replace(
    "glasses", "hat"
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> NewbiePipeline:
    folder: Path = tmp_path_factory.mktemp("bundle")
    return NewbiePipeline.from_pretrained(tiny.write_bundle(folder))


def alone(pipeline: NewbiePipeline, requests: Sequence[GenerationRequest]) -> np.ndarray:
    pictures = []
    for request in requests:
        done = next(e for e in pipeline.stream(request) if isinstance(e, PictureDone))
        pictures.append(np.asarray(done.images[0].image.convert("RGB")))
    return np.stack(pictures)


@pytest.mark.parametrize(
    "binding", ["off", "auto", "encode", "text", "region", "full,window=0-0.5", "sealed"]
)
def test_each_picture_is_its_own(pipeline: NewbiePipeline, binding: str) -> None:
    requests = [
        GenerationRequest(prompt, seed=seed, binding=binding, steps=4)
        for seed, prompt in enumerate((PLACED, OTHER, tiny.XML_PROMPT, PLACED))
    ]
    requests[1] = replace(requests[1], negative_prompt="red_hair")
    done: list[int] = []
    together = draw_many(pipeline, requests, batch=3, progress=done.append)
    assert done[-1] == 4
    apart = alone(pipeline, requests)
    # Rounding to whole levels may differ by one where a sum was made in another order.
    assert np.abs(together.astype(int) - apart.astype(int)).max() <= 1
    assert all((together[i] != together[j]).any() for i in range(4) for j in range(i))


def test_a_change_reaches_every_binding(pipeline: NewbiePipeline) -> None:
    requests = [GenerationRequest(PLACED, seed=1, binding="region", steps=2)] * 2
    plain = draw_many(pipeline, requests)
    turned = draw_many(
        pipeline,
        requests,
        change=lambda b: replace(b, regions=tuple(replace(r, box=(0, 0, 1, 0.2)) for r in b.regions)),
    )
    assert (plain[0] == plain[1]).all()
    assert (plain != turned).any()
