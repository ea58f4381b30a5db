"""What holds for every input: hypothesis on the promises, and a small seeded run of the fuzzer."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newbie_image.errors import PromptError
from newbie_image.prompt import parse, whole_text
from newbie_image.prompt.convert import convert
from newbie_image.prompt.diff import apply, diff
from newbie_image.prompt.weights import WeighedTag, read_weights, write_weights
from newbie_image.prompt.write import escape, format_prompt, write

FEW = settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LETTERS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=30
)
TAG = LETTERS.filter(lambda text: text.strip() == text)
WORD = st.from_regex(r"[a-z]{2,8}(_[a-z]{2,8}){0,2}", fullmatch=True)
PLAIN = WORD.filter(lambda word: not re.match(r"((drawn|art)_)?by_", word))
"""`by_x` names an artist and is written as x among the artists."""
MARKS = st.sampled_from(["<n>", "</n>", "<character_1>", "</character_1>", "<!-- x -->", "<!-- weight:2 -->", "<foo>", "</foo>",
                         "&amp;", "<3", ", ", "\n", "\\(", "\\)", "<![CDATA[", "]]>", "<!--", "，", "a", "蓝+红", "<scene/>"])  # fmt: skip
MESSY = st.lists(st.one_of(MARKS, LETTERS), max_size=25).map("".join)


@FEW
@given(st.one_of(MESSY, st.text(), st.binary()))
def test_every_text_ends_in_a_prompt_or_a_prompt_error(text: str | bytes):
    for strict in (True, False):
        try:
            prompt = parse(text, strict=strict)
        except PromptError:
            continue
        for tag in prompt.tags:
            assert 0 <= tag.start < tag.end <= len(prompt.source)
        for place in whole_text(prompt).places:
            assert whole_text(prompt).text[place.start : place.end] == place.tag.text


@FEW
@given(MESSY)
def test_canonical_text_is_stable_and_means_the_same(text: str):
    try:
        prompt = parse(text, strict=False)
    except PromptError:
        return
    canonical = write(prompt)
    again = parse(canonical)
    assert write(again) == canonical == format_prompt(again)
    assert again.meaning() == prompt.meaning()


@FEW
@given(st.lists(TAG, min_size=1, max_size=6))
def test_any_literal_tag_can_be_written_and_read(tags: list[str]):
    text = "<n>" + ", ".join(escape(tag) for tag in tags) + "</n>"
    assert [t.text for t in parse(text).tags] == tags
    caption = parse(f"<caption>{escape(tags[0], prose=True)}</caption>")
    assert caption.general.get("caption") == (tags[0],)


@FEW
@given(st.lists(WORD, min_size=1, max_size=8))
def test_spans_slice_to_plain_tags(tags: list[str]):
    for tag in parse("<style>" + " , ".join(tags) + "</style>").tags:
        assert tag.raw == tag.text


@FEW
@given(MESSY, MESSY)
def test_patches_reproduce(first: str, second: str):
    try:
        a, b = parse(first, strict=False), parse(second, strict=False)
    except PromptError:
        return
    assert apply(a, diff(a, b)) == b


@FEW
@given(
    st.lists(
        st.tuples(PLAIN, st.sampled_from([1.0, 0.5, 1.25, 3.0, 0.1])),
        min_size=1,
        max_size=8,
        unique_by=lambda t: t[0],
    )
)
def test_conversion_there_and_back_keeps_tags_and_weights(tags: list[tuple[str, float]]):
    listed = [WeighedTag(text, weight) for text, weight in tags]
    for dialect in ("a1111", "comfyui"):
        read, _ = read_weights(write_weights(listed, dialect), dialect)
        assert [(t.text, t.weight) for t in read] == tags
    source = convert(write_weights(listed), "xml", source="a1111").prompt
    back = convert(source, "a1111").text
    again = convert(back, "xml", source="a1111").prompt
    weights = {t.text: t.weight for t in again.tags}
    assert {text: weights[text] for text, _ in tags} == dict(tags)


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    file = Path(__file__).resolve().parents[2] / "benchmarks" / "prompt_fuzz.py"
    spec = importlib.util.spec_from_file_location("prompt_fuzz", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_small_fuzz_run(fuzzer: ModuleType):
    outcomes, _ = fuzzer.run(400, seed=7)
    assert {"strict", "tolerant"} <= set(outcomes) <= {"strict", "tolerant", "refused"}
