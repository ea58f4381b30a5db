"""Prompts beyond an encoder's limit: cut, refused, or read by group."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner, Result

from newbie_image.cli.app import app
from newbie_image.errors import RequestError
from newbie_image.long_prompts import by_group, fair_shares
from newbie_image.pipeline import NewbiePipeline
from newbie_image.prompt import parse
from newbie_image.provenance import parameters_text, read_picture
from newbie_image.request import LONG_PROMPTS, GenerationRequest, TextEncoded
from newbie_image.text import EncoderInput, compose, encode_tokens, tokenize
from tests.tiny import XML_PROMPT

SHORT = "<appearance>pink_hair, twintails</appearance>"
LONG = "<appearance>" + "pink_hair, twintails, blue_eyes, " * 30 + "THE END</appearance>"


def three(first: str, second: str, third: str) -> str:
    """Three characters and a general part."""
    blocks = [
        f"<character_{n}>{inside}</character_{n}>" for n, inside in enumerate((first, second, third), 1)
    ]
    return "<scene>" + "".join(blocks) + "<general_tags><style>glasses</style></general_tags></scene>"


LAST_IS_LOST = three(LONG, LONG, SHORT)


@pytest.fixture(scope="module")
def pipe(tiny_bundle: Path) -> NewbiePipeline:
    return NewbiePipeline.from_pretrained(tiny_bundle)


@pytest.fixture
def limits(pipe: NewbiePipeline) -> Any:
    """Sets the bundle's limits for Gemma and Jina, for one test."""
    before = pipe.settings

    def set_(gemma: int, jina: int = 8192, **other: Any) -> None:
        given = {"max_tokens": gemma, "max_pooled_tokens": jina, **other}
        pipe.settings = before.model_copy(update={"text": before.text.model_copy(update=given)})

    yield set_
    pipe.settings = before


def encoded(pipe: NewbiePipeline, prompt: str, choice: str, **other: Any) -> Any:
    request = GenerationRequest(prompt, long_prompt=choice, guidance_scale=1.0, **other)
    with torch.no_grad():
        return pipe.encode(pipe.complete(request))


def alone(pipe: NewbiePipeline, text: EncoderInput) -> tuple[Tensor, Tensor, int]:
    """States of one text's tokens without limits, its pooled vector, and the tokens of its system prompt."""
    settings = pipe.settings.text.model_copy(update={"max_tokens": 1023, "max_pooled_tokens": 8192})
    batch = tokenize([text], pipe.tokenizer, pipe.clip_tokenizer, settings)
    with torch.no_grad():
        features = encode_tokens(batch, pipe.text_encoder, pipe.clip_model)
    system = len(text.tokens_text) - len(text.pooled_text)
    offsets = pipe.tokenizer(text.tokens_text, return_offsets_mapping=True)["offset_mapping"]
    head = sum(stop <= system for _, stop in offsets)
    return features.tokens[0, : int(features.mask.sum())], features.pooled[0], head


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_within_the_limits_the_choice_changes_nothing(pipe: NewbiePipeline) -> None:
    whole, *others = (encoded(pipe, XML_PROMPT, choice) for choice in LONG_PROMPTS)
    for other in others:
        assert torch.equal(other.tokens, whole.tokens)
        assert torch.equal(other.pooled, whole.pooled)
        assert (other.reports, other.warnings) == ((), ())


def test_a_group_has_the_states_of_a_prompt_of_its_own(pipe: NewbiePipeline, limits: Any) -> None:
    prompt = three(SHORT, SHORT, SHORT)
    whole = compose(prompt, pipe.settings.text)
    total = len(alone(pipe, whole)[0])
    groups = by_group(whole, parse(prompt))
    assert list(groups) == ["character_1", "character_2", "character_3", "general"]
    limits(total - 1)
    features = encoded(pipe, prompt, "groups")
    place = 0
    for number, text in enumerate(groups.values()):
        states, _, head = alone(pipe, text)
        kept = states if number == 0 else states[head:]
        close(features.tokens[0, place : place + len(kept)], kept)
        place += len(kept)
    assert place == int(features.mask.sum()) == features.tokens.shape[1] < total
    assert features.reports == ()
    assert f"the prompt has {total} Gemma tokens, more than {total - 1}" in features.warnings[0]
    assert "character_1 " in features.warnings[0]


def test_where_groups_are_too_long_the_short_ones_stay_whole(pipe: NewbiePipeline, limits: Any) -> None:
    limits(200)
    cut, grouped = encoded(pipe, LAST_IS_LOST, "cut"), encoded(pipe, LAST_IS_LOST, "groups")
    assert "character_3" in cut.reports[0].text
    assert grouped.tokens.shape[1] == int(grouped.mask.sum()) == 200
    assert [report.group for report in grouped.reports] == ["character_1", "character_2"]
    first, second = grouped.reports
    assert abs(first.kept - second.kept) <= 1
    assert first.text.endswith("THE END</appearance></character_1>")
    assert f"Gemma read {first.kept} of {first.total} tokens of character_1; cut off from «" in str(first)
    # What stays is what the group's own beginning is: attention looks back only.
    groups = by_group(compose(LAST_IS_LOST, pipe.settings.text), parse(LAST_IS_LOST))
    states, _, head = alone(pipe, groups["character_1"])
    close(grouped.tokens[0, : head + first.kept], states[: head + first.kept])
    third, _, head = alone(pipe, groups["character_3"])
    start = 200 - (len(third) - head) - (len(alone(pipe, groups["general"])[0]) - head)
    close(grouped.tokens[0, start : start + len(third) - head], third[head:])
    kept = pipe.tokenizer(groups["character_2"].tokens_text)["input_ids"][: head + second.kept]
    lost = second.text
    assert pipe.tokenizer.decode(kept, skip_special_tokens=True) + lost == groups["character_2"].tokens_text


def test_jina_averages_its_groups_by_their_tokens(pipe: NewbiePipeline, limits: Any) -> None:
    prompt = three(LONG, SHORT, SHORT)
    groups = by_group(compose(prompt, pipe.settings.text), parse(prompt))
    counts = [len(pipe.clip_tokenizer(text.pooled_text)["input_ids"]) for text in groups.values()]
    limits(1023, max(counts))
    vectors = torch.stack([alone(pipe, text)[1] for text in groups.values()])
    features = encoded(pipe, prompt, "groups")
    close(features.pooled[0], (vectors * torch.tensor(counts)[:, None]).sum(0) / sum(counts))
    assert features.reports == ()
    assert any("averaged" in said for said in features.warnings)
    whole = encoded(pipe, prompt, "cut")
    assert torch.equal(features.tokens, whole.tokens)
    limits(1023, max(counts) - 1)
    (report,) = encoded(pipe, prompt, "groups").reports
    assert (report.encoder, report.group, report.total) == ("Jina", "character_1", max(counts))


def test_only_the_text_that_is_too_long_is_taken_apart(pipe: NewbiePipeline, limits: Any) -> None:
    limits(200)
    request = pipe.complete(
        GenerationRequest(LAST_IS_LOST, "bad hands", long_prompt="groups", guidance_scale=2.0)
    )
    features = pipe.encode(request)
    negative = alone(pipe, EncoderInput("You read tags. bad hands", "bad hands"))
    assert features.negatives
    assert features.mask.sum(dim=1).tolist() == [200, len(negative[0])]
    close(features.tokens[1, : len(negative[0])], negative[0])
    close(features.pooled[1], negative[1])
    assert not features.tokens[1, len(negative[0]) :].any()
    turned = pipe.complete(GenerationRequest("1girl", LAST_IS_LOST, long_prompt="groups", guidance_scale=2.0))
    assert "the negative prompt has " in pipe.encode(turned).warnings[0]


def test_the_flat_form_and_a_list_of_tags(pipe: NewbiePipeline, limits: Any) -> None:
    limits(120)
    flat = encoded(pipe, LAST_IS_LOST, "groups", text_form="flat")
    assert int(flat.mask.sum()) == 120
    assert [report.group for report in flat.reports] == ["character_1", "character_2"]
    tags = "blue_eyes, " * 100
    grouped, cut = encoded(pipe, tags, "groups"), encoded(pipe, tags, "cut")
    close(grouped.tokens, cut.tokens)
    assert grouped.reports[0].group == "general"


def test_refusing_says_how_long_it_is(pipe: NewbiePipeline, limits: Any) -> None:
    limits(200, 100)
    with pytest.raises(RequestError) as refused:
        encoded(pipe, LAST_IS_LOST, "refuse")
    total = len(pipe.tokenizer("You read xml. " + LAST_IS_LOST)["input_ids"])
    assert f"the prompt has {total} Gemma tokens, of which 200 fit; the prompt has " in str(refused.value)
    assert "Jina tokens, of which 100 fit: shorten it, or choose --long-prompt groups or cut" in str(
        refused.value
    )


def test_the_rotary_table_bounds_the_bundles_limit(pipe: NewbiePipeline, limits: Any) -> None:
    limits(512)
    table = pipe.transformer.axes_lens
    try:
        pipe.transformer.axes_lens = (41, 64, 64)
        for choice in ("cut", "groups"):
            features = encoded(pipe, LAST_IS_LOST, choice)
            assert features.tokens.shape[1] == 40
            assert features.reports
    finally:
        pipe.transformer.axes_lens = table


def test_beyond_what_was_trained_the_joined_length_is_said(pipe: NewbiePipeline, limits: Any) -> None:
    limits(200, trained_tokens=50)
    assert "the prompt has 200 Gemma tokens; training stopped at 50" in " ".join(
        encoded(pipe, LAST_IS_LOST, "groups").warnings
    )


@pytest.mark.parametrize(
    ("lengths", "room", "shares"),
    [
        ([5, 5], 20, [5, 5]),
        ([50, 5, 50], 35, [15, 5, 15]),
        ([50, 5, 50], 36, [15, 5, 16]),
        ([1, 100], 10, [1, 9]),
        ([3, 3, 3], 2, [0, 1, 1]),
        ([4], 0, [0]),
    ],
)
def test_shares_are_fair(lengths: list[int], room: int, shares: list[int]) -> None:
    assert fair_shares(lengths, room) == shares


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def test_the_command_line_records_and_replays_the_choice(tiny_bundle: Path, tmp_path: Path) -> None:
    prompt = three(LONG, LONG, SHORT)
    common = ("--model", str(tiny_bundle), "--device", "cpu")
    given = ("--seed", "1", "--dtype", "fp32", "--resolution", "32x32", "--steps", "1")
    pixels = {}
    for choice in ("cut", "groups"):
        path = tmp_path / f"{choice}.png"
        made = run("generate", prompt, *common, *given, "--long-prompt", choice, "-o", str(path))
        assert made.exit_code == 0, made.stderr
        record = read_picture(path)[1]
        assert record.request.long_prompt == choice
        assert ("Long prompt: groups" in parameters_text(record)) == (choice == "groups")
        assert run("replay", str(path), *common).exit_code == 0
        pixels[choice] = record.pixels
    assert pixels["cut"] != pixels["groups"]
    assert b'"long_prompt"' not in (tmp_path / "cut.png").read_bytes()
    assert "its groups were read apart" in made.stderr
    path = tmp_path / "refused.png"
    refused = run("generate", prompt, *common, "--long-prompt", "refuse", "-o", str(path))
    assert (refused.exit_code, refused.stdout, path.exists()) == (2, "", False)
    assert "Gemma tokens, of which 512 fit" in refused.stderr
    wrong = run("generate", prompt, "--long-prompt", "wrap")
    assert wrong.exit_code == 2
    assert "unknown way with long prompts 'wrap'; choose one of cut, groups, refuse" in wrong.stderr
    loop = run(
        *("create", *common, *given[:-4], *given[-4:], "--out", str(tmp_path / "out")),
        stdin=f":long-prompt refuse\n{prompt}\n\n:long-prompt groups\n{prompt}\n\n",
    )
    assert "of which 512 fit" in loop.stderr
    assert [read_picture(file)[1].pixels for file in (tmp_path / "out").glob("*.png")] == [pixels["groups"]]


def test_the_call_warns_of_what_was_cut(pipe: NewbiePipeline) -> None:
    size = {"width": 32, "height": 32, "num_inference_steps": 1, "output_type": "latent"}
    with pytest.warns(UserWarning, match="Gemma read 512 of "):
        cut = pipe(LAST_IS_LOST, **size).images
    with pytest.warns(UserWarning, match="read apart"):
        assert not torch.equal(pipe(LAST_IS_LOST, long_prompt="groups", **size).images, cut)
    with pytest.raises(RequestError, match="shorten it"):
        pipe(LAST_IS_LOST, long_prompt="refuse", **size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe(XML_PROMPT, **size)


def test_the_stream_says_it_too(pipe: NewbiePipeline) -> None:
    request = GenerationRequest(LAST_IS_LOST, width=32, height=32, long_prompt="groups", steps=1)
    event = next(iter(pipe.stream(request)))
    assert isinstance(event, TextEncoded)
    assert any("character_1" in said for said in event.warnings)
