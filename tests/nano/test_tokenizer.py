"""The embedded tokenizers: few tokens for the world's language, bytes for everything else."""

from __future__ import annotations

import pytest

from newbie_image.nano.captions import sentence_caption, xml_caption
from newbie_image.nano.tokenizer import SIZE, XML_SYSTEM_PROMPT, build_tokenizer, save_tokenizers
from newbie_image.nano.world.scene import sample_scene


@pytest.fixture(scope="module")
def gemma():
    return build_tokenizer("gemma")


def test_the_language_needs_no_bytes_and_few_tokens(gemma):
    for seed in range(150):
        caption = xml_caption(sample_scene(seed, 2))
        tokens = gemma.convert_ids_to_tokens(gemma(XML_SYSTEM_PROMPT + caption).input_ids)
        assert len(tokens) <= 72
        assert not [t for t in tokens if t.startswith("<0x") or len(t) == 1]


def test_sentences_need_no_bytes(gemma):
    for seed in range(400, 600):
        tokens = gemma.convert_ids_to_tokens(gemma(sentence_caption(sample_scene(seed))).input_ids)
        assert not [t for t in tokens if t.startswith("<0x")]


def test_any_text_is_accepted_and_kept(gemma):
    for text in ("青い髪", "<3", ">_<", "blåhår", "c++", "🙂", "\x00"):
        ids = gemma(text).input_ids
        assert gemma.unk_token_id not in ids
        assert gemma.decode(ids, skip_special_tokens=True) == text


def test_special_tokens_are_where_the_published_tokenizers_have_them(gemma):
    jina = build_tokenizer("jina")
    assert (gemma.pad_token_id, gemma.eos_token_id, gemma.bos_token_id) == (0, 1, 2)
    assert (jina.bos_token_id, jina.pad_token_id, jina.eos_token_id) == (0, 1, 2)
    assert gemma("").input_ids == [2]
    assert jina("").input_ids == [0, 2]
    assert len(gemma) == len(jina) == SIZE
    assert len(gemma(XML_SYSTEM_PROMPT).input_ids) == 2


def test_saved_tokenizers_are_those_of_the_bundle(tmp_path, gemma):
    from transformers import AutoTokenizer

    save_tokenizers(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    text = xml_caption(sample_scene(1, 2))
    assert again(text).input_ids == gemma(text).input_ids
