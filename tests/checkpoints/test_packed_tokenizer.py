"""Packed SentencePiece models read like SentencePiece itself reads them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from newbie_image.checkpoints.files import open_source
from newbie_image.checkpoints.packed_tokenizer import (
    gemma_tokenizer,
    jina_tokenizer,
    read_sentencepiece,
    unpack_tokenizer,
)
from newbie_image.errors import CheckpointError
from tests.tiny import CORPUS

sentencepiece = pytest.importorskip("sentencepiece")

HERE = Path("model.safetensors")
TEXTS = [
    "1girl, pink_hair, twintails",
    "<character_1>\n<n>momo</n>",
    "日本の空 ＡＢＣ １２３",
    "a  b   c ",
    " leading",
    "naïve café",
    "月光 🌙 moon",
    "",
]
LINES = [line for text in CORPUS for line in text.split("\n")] * 20 + [
    "日本の空",
    "月光 moon",
    "naïve café",
] * 9


def train(**options: object) -> bytes:
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=made, minloglevel=2, character_coverage=1.0, **options
    )
    return made.getvalue()


def test_gemma_equals_sentencepiece() -> None:
    data = train(
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        split_digits=True,
        user_defined_symbols=["<start_of_turn>"],
    )
    reference = sentencepiece.SentencePieceProcessor(model_proto=data)
    ours = gemma_tokenizer(read_sentencepiece(data, HERE), HERE)
    assert len(ours) == reference.get_piece_size()
    for text in TEXTS:
        assert ours(text).input_ids == [2, *reference.encode(text)], text
        assert ours.decode(ours(text).input_ids, skip_special_tokens=True) == text


def test_jina_equals_sentencepiece_moved_by_one() -> None:
    data = train(model_type="unigram", vocab_size=80, normalization_rule_name="nmt_nfkc")
    reference = sentencepiece.SentencePieceProcessor(model_proto=data)
    ours = jina_tokenizer(read_sentencepiece(data, HERE), HERE)
    unknown = reference.unk_id()
    for text in TEXTS:
        # fairseq puts <s> <pad> </s> <unk> in front of what SentencePiece has as <unk> <s> </s>.
        ids = [3 if each == unknown else each + 1 for each in reference.encode(text)]
        assert ours(text).input_ids == [0, *ids, 2], text
    assert ours.pad_token_id == 1


def test_a_packed_model_is_found_in_the_encoders_file(tmp_path: Path) -> None:
    data = train(model_type="unigram", vocab_size=80)
    packed = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    save_file({"spiece_model": packed, "model.emb_ln.bias": torch.zeros(2)}, tmp_path / "jina.safetensors")
    source = open_source(tmp_path / "jina.safetensors")
    ours = unpack_tokenizer(source, "clip_model", tmp_path)
    assert ours("momo").input_ids == jina_tokenizer(read_sentencepiece(data, HERE), HERE)("momo").input_ids


@pytest.mark.parametrize("data", [b"", b"\x0a\x05ab", b"not a model at all", b"\xff" * 40])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        read_sentencepiece(data, HERE)


def test_the_kinds_are_not_confused() -> None:
    model = read_sentencepiece(train(model_type="unigram", vocab_size=80), HERE)
    with pytest.raises(CheckpointError, match="another kind than Gemma"):
        gemma_tokenizer(model, HERE)
