"""Tokenizers that ComfyUI packs into its text encoder files: a SentencePiece model as a tensor of bytes.

SentencePiece's file is a protocol buffer of three things that matter here: the pieces with their scores and
types, the kind of model, and the table of character replacements. They are read directly, and made into a
tokenizer of the ``tokenizers`` library in the two shapes that Newbie's encoders have: Gemma's (BPE with byte
fallback) and XLM-RoBERTa's (unigram, with its four special tokens moved to the front).

Format: google/sentencepiece, ``sentencepiece_model.proto``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from newbie_image.checkpoints.files import TensorSource
from newbie_image.errors import CheckpointError

PACKED_KEY = "spiece_model"
_NORMAL, _CONTROL, _USER_DEFINED, _BYTE = 1, 3, 4, 6
_UNIGRAM, _BPE = 1, 2


@dataclass(frozen=True)
class SentencePieceModel:
    """What is read of a SentencePiece file.

    Args:
        pieces: (text, score, type) in the order of their ids.
        kind: 1 unigram, 2 BPE.
        replacements: the normaliser's compiled table, empty where there is none.
    """

    pieces: tuple[tuple[str, float, int], ...]
    kind: int
    replacements: bytes


def unpack_tokenizer(source: TensorSource, part: str, where: Path) -> Any:
    """The tokenizer in a text encoder's file.

    Args:
        source: the file; it has a tensor PACKED_KEY.
        part: ``text_encoder`` (Gemma) or ``clip_model`` (Jina).
        where: named in errors.
    """
    model = read_sentencepiece(source.get(PACKED_KEY).contiguous().numpy().tobytes(), where)
    return gemma_tokenizer(model, where) if part == "text_encoder" else jina_tokenizer(model, where)


def read_sentencepiece(data: bytes, where: Path) -> SentencePieceModel:
    """Read a SentencePiece model.

    Raises:
        CheckpointError: the bytes are none, or cut short.
    """
    pieces: list[tuple[str, float, int]] = []
    kind, replacements = _UNIGRAM, b""
    try:
        for field, value in _fields(data):
            if field == 1 and isinstance(value, bytes):
                pieces.append(_piece(value))
            elif field == 2 and isinstance(value, bytes):
                kind = next((int(inner) for number, inner in _fields(value) if number == 3), _UNIGRAM)
            elif field == 3 and isinstance(value, bytes):
                replacements = next((bytes(inner) for number, inner in _fields(value) if number == 2), b"")
    except (IndexError, ValueError, struct.error, TypeError):
        pieces = []
    if len(pieces) < 4:
        raise CheckpointError(f"{where} has a packed tokenizer that is damaged; copy the file again")
    return SentencePieceModel(tuple(pieces), kind, replacements)


def gemma_tokenizer(model: SentencePieceModel, where: Path) -> Any:
    """Gemma's tokenizer: begin token, no end token, spaces kept, unknown characters as bytes.

    Raises:
        CheckpointError: the model is not of Gemma's kind.
    """
    if model.kind != _BPE:
        raise CheckpointError(f"{where} has a packed tokenizer of another kind than Gemma's (BPE)")
    vocabulary = {text: number for number, (text, _, _) in enumerate(model.pieces)}
    special = [text for text, _, kind in model.pieces if kind in (_CONTROL, _USER_DEFINED)]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges(model, vocabulary),
            unk_token=model.pieces[3][0],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    controls = {text for text, _, kind in model.pieces if kind == _CONTROL}
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=text in controls) for text in special])
    pad, end, begin, unknown = (model.pieces[number][0] for number in range(4))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, vocabulary[begin])]
    )
    return _wrapped(tokenizer, bos_token=begin, eos_token=end, pad_token=pad, unk_token=unknown)


def jina_tokenizer(model: SentencePieceModel, where: Path) -> Any:
    """XLM-RoBERTa's tokenizer: begin and end token, ids moved by one for the pad token.

    Raises:
        CheckpointError: the model is not of its kind.
    """
    if model.kind != _UNIGRAM:
        raise CheckpointError(f"{where} has a packed tokenizer of another kind than Jina's (unigram)")
    front = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    rest = [(text, score) for text, score, _ in model.pieces[3:]]
    tokenizer = Tokenizer(models.Unigram([*front, *rest, ("<mask>", 0.0)], unk_id=3, byte_fallback=False))
    steps = [normalizers.Precompiled(model.replacements)] if model.replacements else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" {2,}", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    specials = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in specials])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return _wrapped(
        tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


def _wrapped(tokenizer: Tokenizer, **special: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="right", **special)


def _merges(model: SentencePieceModel, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The merges that a BPE model's scores imply: better scores first, among equals longer parts first."""
    found: list[tuple[float, str, str]] = []
    skipped = {text for text, _, kind in model.pieces if kind in (_CONTROL, _USER_DEFINED, _BYTE)}
    for text, score, kind in model.pieces:
        if kind != _NORMAL:
            continue
        pairs = [
            (text[:cut], text[cut:])
            for cut in range(1, len(text))
            if text[:cut] in vocabulary and text[cut:] in vocabulary
        ]
        pairs = [pair for pair in pairs if not skipped.intersection(pair)]
        pairs.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        found += [(score, left, right) for left, right in pairs]
    found.sort(key=lambda merge: (merge[0], len(merge[1]), len(merge[2])), reverse=True)
    return [(left, right) for _, left, right in found]


def _piece(data: bytes) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, _NORMAL
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            text = value.decode("utf-8")
        elif field == 2 and isinstance(value, bytes):
            (score,) = struct.unpack("<f", value)
        elif field == 3:
            kind = int(value)  # pyright: ignore[reportArgumentType]
    return text, score, kind


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer message: (number, whole number or bytes)."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        wire = key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        if wire == 2:
            size, place = _varint(data, place)
        else:
            size = {1: 8, 5: 4}[wire] if wire in (1, 5) else -1
        if size < 0 or place + size > len(data):
            raise ValueError("cut short")
        yield key >> 3, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError("no whole number")
