"""Tokens by character: encoded apart as by separate calls, and told apart in a whole text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from newbie_image.binding.groups import group_tokens
from newbie_image.bundle import find_bundle, read_settings
from newbie_image.errors import RequestError
from newbie_image.models.gemma_text import PREFIX
from newbie_image.nano.caption_tokens import Captioner
from newbie_image.nano.captions import xml_caption
from newbie_image.nano.dataset import Store
from newbie_image.nano.parts import TransformerRecipe
from newbie_image.nano.tokenizer import build_tokenizer
from newbie_image.nano.world.scene import sample_scene
from newbie_image.prompt import TextForm, group_texts, parse
from tests import tiny

WEIGHED = tiny.XML_PROMPT.replace("black_hair", "<!-- weight:1.5 -->black_hair")


@pytest.mark.parametrize("form", ["typed", "flat"])
def test_one_call_by_group_equals_separate_calls(form: TextForm) -> None:
    prompt, tokenizer = parse(WEIGHED), tiny.gemma_tokenizer()
    text = group_tokens(prompt, tiny.SETTINGS.text, tokenizer, apart=True, form=form)
    torch.manual_seed(0)
    # Windows of 64 tokens on the first layer, shorter than the text.
    gemma = tiny.text_encoder(len(tokenizer))
    ids, groups = torch.tensor([text.ids]), torch.tensor([text.groups])
    with torch.no_grad():
        together = gemma(ids, torch.ones_like(ids), groups)[0]
    before = len([group for group in text.groups if group == PREFIX])
    assert before > 1
    for number, key in enumerate(("general", "character_1", "character_2")):
        alone = tokenizer(tiny.SETTINGS.text.system_prompt_xml + group_texts(prompt, form)[key].text)
        alone_ids = torch.tensor([alone["input_ids"]])
        with torch.no_grad():
            expected = gemma(alone_ids, torch.ones_like(alone_ids))[0]
        torch.testing.assert_close(together[:before], expected[:before], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together[groups[0] == number], expected[before:], atol=1e-5, rtol=1e-5)


def test_spans_cover_all_tokens_of_a_tag() -> None:
    tokenizer = tiny.gemma_tokenizer()
    for apart in (True, False):
        text = group_tokens(parse(WEIGHED), tiny.SETTINGS.text, tokenizer, apart=apart)
        span = next(span for span in text.spans if span.text == "black_hair")
        assert tokenizer.decode(text.ids[span.start : span.end]).strip().startswith("black_hair")
        assert span.group == 2
        assert span.weight == 1.5
        assert text.weights[span.start] == 1.5 == text.weights[span.end - 1]
        assert text.weights[span.start - 1] == 1.0
        assert set(text.groups[span.start : span.end]) == {2}


def test_a_whole_text_is_as_typed_and_its_marks_belong_to_their_block() -> None:
    tokenizer = tiny.gemma_tokenizer()
    text = group_tokens(parse(tiny.XML_PROMPT), tiny.SETTINGS.text, tokenizer, apart=False)
    assert list(text.ids) == tokenizer(tiny.SETTINGS.text.system_prompt_xml + tiny.XML_PROMPT)["input_ids"]
    first = tokenizer.decode([i for i, group in zip(text.ids, text.groups, strict=True) if group == 1])
    assert first.strip().startswith("<character_1>")
    assert "momo" in first
    assert "black_hair" not in first


def test_a_block_of_weight_0_leaves_the_others_their_numbers() -> None:
    # Its text is not read, so that the second block is the first one in what is read.
    prompt = parse(tiny.XML_PROMPT.replace("<character_1>", "<!-- weight:0 --><character_1>"))
    tokenizer = tiny.gemma_tokenizer()
    for apart in (True, False):
        text = group_tokens(prompt, tiny.SETTINGS.text, tokenizer, apart=apart)
        assert {span.group for span in text.spans if span.path.startswith("character_2")} == {2}
        assert set(text.groups) == {PREFIX, 0, 2}
        assert text.characters == 2


def test_a_block_inside_another_one_is_read_beside_it_alone() -> None:
    inner = "<character_2><appearance>black_hair</appearance></character_2>"
    prompt = parse(f"<character_1><appearance>pink_hair</appearance>{inner}</character_1>")
    assert group_texts(prompt)["character_1"].text == (
        "<character_1><appearance>pink_hair</appearance></character_1>"
    )
    assert group_texts(prompt)["character_2"].text == inner
    for apart in (True, False):
        text = group_tokens(prompt, tiny.SETTINGS.text, tiny.gemma_tokenizer(), apart=apart)
        assert [(span.text, span.group) for span in text.spans] == [("pink_hair", 1), ("black_hair", 2)]
        for span in text.spans:
            assert set(text.groups[span.start : span.end]) == {span.group}


def test_apart_the_pooled_text_is_the_general_one() -> None:
    text = group_tokens(parse(tiny.XML_PROMPT), tiny.SETTINGS.text, tiny.gemma_tokenizer(), apart=True)
    assert "night sky" in text.pooled_text
    assert "pink_hair" not in text.pooled_text


def test_too_long_is_refused_not_cut() -> None:
    settings = tiny.SETTINGS.text.model_copy(update={"max_tokens": 16})
    with pytest.raises(RequestError, match="limit is 16: shorten it"):
        group_tokens(parse(tiny.XML_PROMPT), settings, tiny.gemma_tokenizer(), apart=True)


def test_training_encodes_by_character_as_generation_does(tmp_path: Path) -> None:
    caption = xml_caption(sample_scene(3, 2))
    store = Store.create(tmp_path, 1, 64, 0, {1: 1.0})
    bundle = read_settings(find_bundle("nano")).text
    tokenizer = build_tokenizer("gemma")
    asked = group_tokens(parse(caption), bundle, tokenizer, apart=True)
    taught = Captioner(store, TransformerRecipe()).tokens(caption, True)
    assert list(asked.ids) == list(taught.ids)
    assert list(asked.groups) == list(taught.groups)
    assert list(taught.pooled_ids) == build_tokenizer("jina")(asked.pooled_text).input_ids
