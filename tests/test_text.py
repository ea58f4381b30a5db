"""Prompts to features: which encoder reads what, what is cut off, and that batches change nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from newbie_image.bundle import TextSettings
from newbie_image.errors import ConfigError, PromptError, RequestError
from newbie_image.text import EncoderInput, compose, compose_negative, encode_tokens, tokenize
from tests import tiny

SETTINGS = TextSettings(
    system_prompt_xml="XML: ", system_prompt_tags="TAGS: ", max_tokens=64, max_pooled_tokens=64
)


@pytest.fixture(scope="module")
def encoders() -> dict[str, Any]:
    torch.manual_seed(0)
    tokenizer, clip_tokenizer = tiny.gemma_tokenizer(), tiny.jina_tokenizer()
    return {
        "tokenizer": tokenizer,
        "clip_tokenizer": clip_tokenizer,
        "text_encoder": tiny.text_encoder(len(tokenizer)),
        "clip_model": tiny.clip_model(len(clip_tokenizer)),
    }


def tokens_of(encoders: dict[str, Any], *inputs: EncoderInput, settings: TextSettings = SETTINGS) -> Any:
    return tokenize(inputs, encoders["tokenizer"], encoders["clip_tokenizer"], settings)


def features_of(encoders: dict[str, Any], *inputs: EncoderInput) -> Any:
    return encode_tokens(tokens_of(encoders, *inputs), encoders["text_encoder"], encoders["clip_model"])


def test_the_system_prompt_of_its_kind_goes_to_gemma_only() -> None:
    xml = compose("<character_1><n>momo</n></character_1>", SETTINGS)
    assert xml.tokens_text == "XML: " + xml.pooled_text
    assert xml.pooled_text == "<character_1><n>momo</n></character_1>"
    assert compose(tiny.TAGS_PROMPT, SETTINGS).tokens_text == "TAGS: " + tiny.TAGS_PROMPT
    sentence = compose(tiny.SENTENCE_PROMPT, SETTINGS)
    assert sentence == EncoderInput("TAGS: " + tiny.SENTENCE_PROMPT, tiny.SENTENCE_PROMPT)


def test_the_prompt_is_read_as_typed() -> None:
    typed = "<general_tags>\n  <style>a  &lt;3</style>\n</general_tags>"
    assert compose(typed, SETTINGS).pooled_text == typed.replace("&lt;", "<")


def test_an_empty_negative_has_no_system_prompt_and_a_written_one_has() -> None:
    assert compose_negative("", SETTINGS) == EncoderInput("", "")
    assert compose_negative("bad hands", SETTINGS) == EncoderInput("TAGS: bad hands", "bad hands")
    never = SETTINGS.model_copy(update={"negative_system_prompt": "never"})
    assert compose_negative("bad hands", never) == EncoderInput("bad hands", "bad hands")
    always = SETTINGS.model_copy(update={"negative_system_prompt": "always"})
    assert compose_negative("", always) == EncoderInput("TAGS: ", "")


def test_the_flat_form_goes_to_both_encoders_with_the_system_prompt_of_the_kind() -> None:
    typed = "<character_1><n>momo</n><appearance>a &lt;3, <!-- weight:0 -->b</appearance></character_1>"
    flat = "[char1]momo, [char1]a <3"
    assert compose(typed, SETTINGS, form="flat") == EncoderInput("XML: " + flat, flat)
    assert compose_negative(typed, SETTINGS, form="flat") == EncoderInput("XML: " + flat, flat)
    assert compose("a,  b", SETTINGS, form="flat") == EncoderInput("TAGS: a, b", "a, b")
    assert compose(typed, SETTINGS, form="typed") == compose(typed, SETTINGS)


def test_broken_xml_has_a_place() -> None:
    with pytest.raises(PromptError) as caught:
        compose("<character_1>\n<n>momo</character_1>", SETTINGS)
    assert caught.value.line == 2


def test_tokens_have_begin_no_end_and_padding_on_the_right(encoders: dict[str, Any]) -> None:
    batch = tokens_of(
        encoders, EncoderInput("pink_hair, twintails, blue_eyes", "pink_hair"), EncoderInput("", "")
    )
    assert batch.ids.shape[1] % 8 == 0
    assert batch.ids[:, 0].tolist() == [2, 2]
    assert 1 not in batch.ids
    assert batch.mask[1].sum() == 1
    for row in batch.mask:
        assert row.tolist() == sorted(row.tolist(), reverse=True)
    assert batch.pooled_ids[:, 0].tolist() == [0, 0]
    assert batch.pooled_ids[1, 1] == 2
    assert batch.pooled_mask[1].sum() == 2
    assert not batch.reports


@pytest.mark.parametrize("limit", [1023, 61, 64])
def test_a_limit_need_not_be_a_multiple_of_the_padding(encoders: dict[str, Any], limit: int) -> None:
    settings = SETTINGS.model_copy(update={"max_tokens": limit, "max_pooled_tokens": limit})
    texts = [EncoderInput(text, text) for text in ("blue_eyes, " * 400, "pink_hair")]
    batch = tokenize(texts, encoders["tokenizer"], encoders["clip_tokenizer"], settings)
    assert batch.ids.shape == batch.mask.shape == (2, limit)
    assert batch.mask[0].all()
    assert batch.pooled_ids[0, -1] == 2
    assert [report.kept for report in batch.reports] == [limit, limit]
    short = tokenize(texts[1:], encoders["tokenizer"], encoders["clip_tokenizer"], settings)
    assert short.ids.shape[1] % 8 == 0
    assert torch.equal(batch.ids[1, : short.ids.shape[1]], short.ids[0])


def test_what_is_cut_off_is_reported(encoders: dict[str, Any]) -> None:
    long = "blue_eyes, " * 60
    short = EncoderInput("fits", "fits")
    batch = tokens_of(encoders, short, EncoderInput(long + "THE END", long + "the end"))
    assert batch.ids.shape == (2, 64)
    assert batch.pooled_ids.shape == (2, 64)
    assert batch.pooled_ids[1, -1] == 2
    gemma, jina = batch.reports
    assert (gemma.encoder, gemma.index, gemma.kept) == ("Gemma", 1, 64)
    assert (jina.encoder, jina.index, jina.kept) == ("Jina", 1, 64)
    assert gemma.total > 64
    assert gemma.text.endswith("THE END")
    kept = encoders["tokenizer"].decode(batch.ids[1], skip_special_tokens=True)
    assert kept + gemma.text == long + "THE END"
    assert "cut off from «" in str(gemma)
    assert "\n" not in str(gemma)


def test_beyond_what_was_trained_there_is_a_warning(encoders: dict[str, Any]) -> None:
    settings = SETTINGS.model_copy(update={"trained_tokens": 4})
    batch = tokens_of(encoders, EncoderInput("blue_eyes and many more", ""), settings=settings)
    assert "training stopped at 4" in batch.warnings[0]


@torch.no_grad()
def test_a_text_has_the_same_features_in_any_batch(encoders: dict[str, Any]) -> None:
    one = EncoderInput("TAGS: pink_hair", "pink_hair")
    other = EncoderInput("XML: " + "twintails, " * 5, "twintails, " * 5)
    both, alone = features_of(encoders, other, one), features_of(encoders, one)
    length = int(alone.mask.sum())
    torch.testing.assert_close(both.tokens[1, :length], alone.tokens[0, :length], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both.pooled[1], alone.pooled[0], rtol=1e-4, atol=1e-5)
    assert both.mask.dtype == torch.bool
    assert (both.tokens[0, 0] - both.tokens[0, 3]).abs().max() > 1e-3


@torch.no_grad()
def test_expansion_is_prompt_major(encoders: dict[str, Any]) -> None:
    features = features_of(encoders, EncoderInput("a", "a"), EncoderInput("b", "b"))
    wide = features.expand(3)
    assert wide.tokens.shape[0] == 6
    assert torch.equal(wide.pooled[2], features.pooled[0])
    assert torch.equal(wide.pooled[3], features.pooled[1])


def test_training_takes_the_same_way_with_gradients(encoders: dict[str, Any]) -> None:
    features = features_of(encoders, EncoderInput("a", "a"), EncoderInput("", "b"))
    (features.tokens.mean() + features.pooled.mean()).backward()
    for name in ("text_encoder", "clip_model"):
        gradients = [p.grad for p in encoders[name].parameters() if p.grad is not None]
        assert gradients
        assert any(gradient.abs().max() > 0 for gradient in gradients)
        encoders[name].zero_grad()


def test_a_tokenizer_without_a_begin_token_is_refused(encoders: dict[str, Any]) -> None:
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(
        tokenizer_object=tiny.gemma_tokenizer()._tokenizer, pad_token="<pad>", bos_token="<bos>"
    )
    plain._tokenizer.post_processor = None
    with pytest.raises(ConfigError, match="begin token"):
        tokenize([EncoderInput("", ""), EncoderInput("a", "a")], plain, encoders["clip_tokenizer"], SETTINGS)


def test_nothing_to_encode_is_refused(encoders: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="at least one"):
        tokens_of(encoders)
