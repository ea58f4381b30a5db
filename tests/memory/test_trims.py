"""Each trim, on and off: the same picture, and that what it leaves out does run without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from newbie_image.cli.app import app
from newbie_image.errors import RequestError
from newbie_image.memory.plan import Plan, Workload, choose_plan, predict, smallest_plan
from newbie_image.memory.sizes import published_sizes
from newbie_image.memory.trims import TRIMS, check_trims, read_trims, trims_text
from newbie_image.pipeline import NewbiePipeline
from newbie_image.provenance import read_picture
from newbie_image.request import GenerationRequest, PictureDone, StepDone
from tests.tiny import XML_PROMPT

EXACT = ("adaln", "refiner", "last-layer", "tables")
REQUEST = GenerationRequest(XML_PROMPT, "bad hands", width=64, height=32, seed=2, count=2, batch=2)
EVALUATIONS = 3


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def pipe(request: pytest.FixtureRequest, tiny_bundle: Path) -> NewbiePipeline:
    return NewbiePipeline.from_pretrained(tiny_bundle, torch_dtype=request.param)


def drawn(pipe: NewbiePipeline) -> list[torch.Tensor]:
    """The latents after every step, and the picture."""
    found: list[torch.Tensor] = []
    for event in pipe.stream(REQUEST):
        if isinstance(event, StepDone):
            found.append(event.latents.clone())
        elif isinstance(event, PictureDone):
            assert event.pixels is not None
            found.append(event.pixels)
    return found


class Watched:
    """Counts how often the parts run that trims leave out, and sees where the token tables are read."""

    def __init__(self, pipe: NewbiePipeline) -> None:
        self.calls: Counter[str] = Counter()
        self.tables: set[int] = set()
        parts: dict[str, Any] = {
            "adaln": pipe.transformer.layers[0].adaLN_modulation,
            "refiner": pipe.transformer.context_refiner[0],
            "last-layer": pipe.text_encoder.layers[-1],
        }
        self._handles = [
            part.register_forward_pre_hook(lambda *_, name=name: self.calls.update([name]))
            for name, part in parts.items()
        ]
        for table in (pipe.text_encoder.embed_tokens, pipe.clip_model.embeddings.word_embeddings):
            self._handles.append(
                table.register_forward_pre_hook(lambda module, _: self.tables.add(module.weight.data_ptr()))
            )

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


@pytest.mark.parametrize("plan", [None, Plan("blocks", 1), Plan("blocks", 0, two_passes=True)])
def test_each_exact_trim_changes_no_bit(pipe: NewbiePipeline, plan: Plan | None) -> None:
    if plan is not None:
        pipe.apply_plan(plan, "cpu")
    plain = drawn(pipe)
    assert len(plain) == EVALUATIONS + 1
    for left in ([name for name in TRIMS if name != off] for off in EXACT):
        pipe.trims = left
        assert pipe.trims == tuple(left)
        assert all(map(torch.equal, drawn(pipe), plain)), left
    pipe.trims = ()
    assert all(map(torch.equal, drawn(pipe), plain))
    pipe.trims = TRIMS
    assert all(map(torch.equal, drawn(pipe), plain))


def test_what_a_trim_leaves_out_runs_without_it(pipe: NewbiePipeline) -> None:
    pipe.apply_plan(Plan("blocks", 0), "cpu")
    pipe.guidance_in_one_batch = True
    host = {pipe.text_encoder.embed_tokens.weight.data_ptr()}
    host.add(pipe.clip_model.embeddings.word_embeddings.weight.data_ptr())

    def watch(*trims: str) -> Watched:
        pipe.trims = trims
        with Watched(pipe) as watched:
            drawn(pipe)
        return watched

    trimmed = watch(*TRIMS)
    assert trimmed.calls == {"adaln": EVALUATIONS, "refiner": 1}
    assert trimmed.tables == host
    assert watch("adaln", "last-layer", "tables").calls["refiner"] == 1 + EVALUATIONS
    whole = watch()
    assert whole.calls == {"adaln": EVALUATIONS, "refiner": 1 + EVALUATIONS, "last-layer": 1}
    assert not whole.tables & host


def test_adaln_is_computed_step_by_step_only_without_its_trim(pipe: NewbiePipeline) -> None:
    def order(*trims: str) -> str:
        pipe.trims = trims
        seen: list[str] = []
        layer = pipe.transformer.layers[0]
        handles = [
            layer.adaLN_modulation.register_forward_pre_hook(lambda *_: seen.append("m")),
            layer.register_forward_pre_hook(lambda *_: seen.append("b")),
        ]
        drawn(pipe)
        for handle in handles:
            handle.remove()
        return "".join(seen)

    pipe.guidance_in_one_batch = True
    assert order("adaln") == "mmm" + "bbb"
    assert order() == "bm" * EVALUATIONS


def test_chunks_are_cut_only_with_their_trim_and_change_rounding_only(tiny_bundle: Path) -> None:
    pipe = NewbiePipeline.from_pretrained(tiny_bundle)
    plain = drawn(pipe)
    fed: list[int] = []
    handle = pipe.transformer.layers[0].feed_forward.w1.register_forward_pre_hook(
        lambda _, given: fed.append(given[0].shape[1])
    )
    pipe.apply_plan(Plan(chunk=5), "cpu")
    for cut, whole in zip(drawn(pipe), plain, strict=True):
        torch.testing.assert_close(cut, whole, rtol=1e-3, atol=1e-4)
    assert max(fed) == 5
    fed.clear()
    pipe.trims = EXACT
    assert all(map(torch.equal, drawn(pipe), plain))
    assert min(fed) > 5
    handle.remove()


def test_without_chunks_no_plan_cuts_tokens() -> None:
    sizes, work = published_sizes(), Workload()
    assert smallest_plan(sizes, work).chunk is not None
    assert smallest_plan(sizes, work, EXACT).chunk is None
    for memory in range(2, 9):
        plan = choose_plan(sizes, work, memory * 10**9, EXACT)
        assert plan is None or plan.chunk is None


def test_what_the_trims_of_memory_save_is_predicted() -> None:
    sizes, plan, work = published_sizes(), Plan("blocks", 38), Workload()
    all_, without = predict(sizes, work, plan), predict(sizes, work, plan, ("adaln", "refiner", "last-layer"))
    assert without.stages[0].weights - all_.stages[0].weights == sizes.gemma.embedding * 2
    assert predict(sizes, work, plan, ("refiner",)).stages[1].bytes < all_.stages[1].bytes
    assert predict(sizes, work, plan, ("adaln",)).stages[1].bytes > all_.stages[1].bytes


def test_they_are_not_changed_while_a_picture_is_drawn(tiny_bundle: Path) -> None:
    pipe = NewbiePipeline.from_pretrained(tiny_bundle)
    events: Iterator[object] = pipe.stream(REQUEST)
    next(events)
    with pytest.raises(RequestError, match="being drawn"):
        pipe.trims = ()
    events.close()  # pyright: ignore[reportAttributeAccessIssue]
    pipe.trims = ()
    with pytest.raises(RequestError, match="unknown trim 'embeddings'"):
        pipe.trims = ("embeddings",)
    assert pipe.trims == ()


@pytest.mark.parametrize("text", ["all", "none", "adaln", "refiner,tables"])
def test_texts_are_read_and_written(text: str) -> None:
    assert trims_text(read_trims(text)) == text
    assert check_trims(reversed(TRIMS)) == TRIMS


@pytest.mark.parametrize("text", ["", "everything", "adaln,,refiner", "all,none"])
def test_texts_that_name_no_trim_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="give all, none, or some of adaln, refiner, last-layer"):
        read_trims(text)


def test_they_are_recorded_and_replayed(tiny_bundle: Path, tmp_path: Path) -> None:
    common = ("--model", str(tiny_bundle), "--device", "cpu")
    pixels = []
    for trims, recorded in (("all", None), ("none", "none"), ("tables,adaln", "adaln,tables")):
        path = tmp_path / f"{trims}.png"
        given = ("--seed", "3", "--dtype", "fp32", "--trims", trims)
        made = run("generate", XML_PROMPT, *common, *given, "-o", str(path))
        assert made.exit_code == 0, made.stderr
        record = read_picture(path)[1]
        assert record.environment.get("trims") == recorded
        pixels.append(record.pixels)
    assert len(set(pixels)) == 1
    assert run("replay", str(tmp_path / "none.png"), *common).stdout.startswith("identical")
    answer = run("replay", str(tmp_path / "none.png"), *common, "--trims", "all", "--out", str(path))
    assert answer.stdout.startswith("identical")
    assert "trims" not in read_picture(path)[1].environment
    wrong = run("generate", "1girl", *common, "--trims", "some")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "unknown trim 'some'" in wrong.stderr
    plan = run("plan", "--vram", "8GB", "--trims", "adaln").stdout
    assert plan.rstrip().endswith("--trims adaln")
