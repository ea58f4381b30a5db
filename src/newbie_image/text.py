"""From prompts to what the transformer is conditioned on.

Two encoders read a prompt. Gemma reads the bundle's system prompt followed by the prompt as typed and gives a
state a token; Jina reads the prompt alone and gives one pooled vector. Training and generation come through
here alike, so that a model is asked in the form in which it was taught.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from newbie_image.bundle import TextSettings
from newbie_image.devices import compute_device
from newbie_image.errors import ConfigError, RequestError
from newbie_image.prompt import Prompt, TextForm, encoder_text, parse

_EXCERPT = 60
NAMES = ("the prompt", "the negative prompt")
"""What the texts of a request's batch are called, in their order."""


class TokensModel(Protocol):
    """Gemma's side: (ids, mask, groups) → (batch, length, width)."""

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, groups: Tensor | None = None) -> Tensor: ...


class PooledModel(Protocol):
    """Jina's side: (ids, mask) → (batch, width)."""

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class EncoderInput:
    """The two texts of one prompt.

    Args:
        tokens_text: for Gemma, system prompt included.
        pooled_text: for Jina.
    """

    tokens_text: str
    pooled_text: str


@dataclass(frozen=True)
class CutReport:
    """What an encoder did not get to see.

    Args:
        encoder: ``Gemma`` or ``Jina``.
        index: which text of the batch.
        kept, total: tokens that were kept, and that there would have been.
        text: the end of the text that was cut off.
        group: `character_1`, …, `general` where the text was read by group; None for the whole text.
    """

    encoder: str
    index: int
    kept: int
    total: int
    text: str
    group: str | None = None

    def __str__(self) -> str:
        shown = " ".join(self.text.split())
        shown = shown if len(shown) <= _EXCERPT else shown[: _EXCERPT - 1] + "…"
        of = "" if self.group is None else f" of {self.group}"
        return (
            f"{self.encoder} read {self.kept} of {self.total} tokens{of}; cut off from «{shown}»; "
            "shorten the prompt, or put what matters first"
        )


@dataclass(frozen=True)
class Piece:
    """A stretch of one row of Gemma's batch, which becomes part of a text's features.

    Args:
        row: of the batch.
        start, stop: the tokens start … stop − 1 of it.
    """

    row: int
    start: int
    stop: int


@dataclass(frozen=True)
class TokenBatch:
    """Token ids of a batch on the CPU, padded on the right.

    Args:
        ids, mask: Gemma's, (rows, length) int64; mask is 1 where a token is valid.
        pooled_ids, pooled_mask: Jina's, (pooled rows, pooled length) int64.
        reports: what was cut off.
        warnings: other things worth saying.
        groups: (batch, length) int64 where Gemma encodes groups of tokens apart, see `GemmaTextModel`.
        pieces: what of Gemma's rows makes up each text, in order; None where each text is one row.
        pooled_rows: which of Jina's rows are averaged for each text, by their tokens; None likewise.
    """

    ids: Tensor
    mask: Tensor
    pooled_ids: Tensor
    pooled_mask: Tensor
    reports: tuple[CutReport, ...] = ()
    warnings: tuple[str, ...] = ()
    groups: Tensor | None = None
    pieces: tuple[tuple[Piece, ...], ...] | None = None
    pooled_rows: tuple[tuple[int, ...], ...] | None = None


@dataclass(frozen=True)
class TextFeatures:
    """What the transformer is conditioned on.

    Args:
        tokens: (batch, length, cap_feat_dim), padded on the right.
        mask: (batch, length) bool, True where a token is valid.
        pooled: (batch, clip_text_dim).
        reports: what was cut off.
        warnings: other things worth saying.
        negatives: whether the second half of the batch are negative prompts.
        groups: (batch, length) int64 where the transformer keeps groups of tokens apart, see
            `NextDiT.forward`.
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor
    reports: tuple[CutReport, ...] = ()
    warnings: tuple[str, ...] = ()
    negatives: bool = False
    groups: Tensor | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> TextFeatures:
        """The same on another device and in another dtype (the mask stays bool)."""
        return replace(
            self,
            tokens=self.tokens.to(device, dtype),
            mask=self.mask.to(device),
            pooled=self.pooled.to(device, dtype),
            groups=None if self.groups is None else self.groups.to(device),
        )

    def expand(self, count: int) -> TextFeatures:
        """Each text ``count`` times, prompt-major: the copies of one prompt stand side by side."""
        return replace(
            self,
            tokens=self.tokens.repeat_interleave(count, dim=0),
            mask=self.mask.repeat_interleave(count, dim=0),
            pooled=self.pooled.repeat_interleave(count, dim=0),
            groups=None if self.groups is None else self.groups.repeat_interleave(count, dim=0),
        )


def compose(
    prompt: str | Prompt, settings: TextSettings, *, strict: bool = True, form: TextForm = "typed"
) -> EncoderInput:
    """The two texts of a prompt: the system prompt of its kind goes to Gemma only.

    Args:
        prompt: as typed, or parsed.
        settings: the bundle's.
        strict: refuse a broken prompt (PromptError) instead of repairing it.
        form: `typed`, or `flat` for the sequence `[char1]blue_hair, …`; the system prompt is the same.
    """
    read = parse(prompt, strict=strict) if isinstance(prompt, str) else prompt
    system = system_prompt(read, settings)
    text = read.encoder_text if form == "typed" else encoder_text(read, form).text
    return EncoderInput(system + text, text)


def system_prompt(prompt: Prompt, settings: TextSettings) -> str:
    """What Gemma reads in front of a prompt of this kind."""
    return settings.system_prompt_xml if prompt.kind == "xml" else settings.system_prompt_tags


def compose_negative(
    prompt: str | Prompt, settings: TextSettings, *, strict: bool = True, form: TextForm = "typed"
) -> EncoderInput:
    """The two texts of a negative prompt.

    As in training an empty one is "" for both encoders, without a system prompt, and a written one is
    composed like any prompt; a preset may say otherwise (``negative_system_prompt``).
    """
    text = prompt if isinstance(prompt, str) else prompt.source
    rule = settings.negative_system_prompt
    if not text.strip():
        return EncoderInput(settings.system_prompt_tags if rule == "always" else "", "")
    written = compose(prompt, settings, strict=strict, form=form)
    if rule == "never":
        return EncoderInput(written.pooled_text, written.pooled_text)
    return written


def prompt_warnings(prompt: Prompt) -> tuple[str, ...]:
    """What the parser assumed or took for a mistake, a line each; advice is left to the linter."""
    return tuple(each.remark for each in prompt.diagnostics if each.severity != "hint")


def tokenize(
    inputs: Sequence[EncoderInput], tokenizer: Any, clip_tokenizer: Any, settings: TextSettings
) -> TokenBatch:
    """Token ids of a batch for both encoders, within the bundle's limits.

    Args:
        inputs: at least one.
        tokenizer: Gemma's: begin token, no end token.
        clip_tokenizer: Jina's: begin and end token, the end kept when a text is cut.
        settings: limits and padding.
    """
    if not inputs:
        raise RequestError("no text to encode; give at least one prompt, which may be empty")
    ids, mask, reports = token_ids(
        "Gemma",
        [each.tokens_text for each in inputs],
        tokenizer,
        settings.max_tokens,
        settings.pad_to_multiple,
    )
    pooled_ids, pooled_mask, pooled_reports = token_ids(
        "Jina", [each.pooled_text for each in inputs], clip_tokenizer, settings.max_pooled_tokens, None
    )
    warnings = length_warnings(int(mask.sum(dim=1).max()), settings)
    return TokenBatch(ids, mask, pooled_ids, pooled_mask, (*reports, *pooled_reports), warnings)


def refusal(reports: Sequence[CutReport]) -> str:
    """Why texts that would be cut are refused, in a line."""
    said = [
        f"{NAMES[report.index]} has {report.total} {report.encoder} tokens, of which {report.kept} fit"
        for report in reports
    ]
    return f"{'; '.join(said)}: shorten it, or choose --long-prompt groups or cut"


def length_warnings(tokens: int, settings: TextSettings) -> tuple[str, ...]:
    """What is worth saying of a caption of so many Gemma tokens."""
    if settings.trained_tokens is None or tokens <= settings.trained_tokens:
        return ()
    return (
        f"the prompt has {tokens} Gemma tokens; training stopped at {settings.trained_tokens}, "
        "so its end may be followed less well",
    )


def people_warnings(prompt: Prompt, settings: TextSettings) -> tuple[str, ...]:
    """What is worth saying of a prompt with so many characters."""
    people = len(prompt.characters)
    if settings.trained_characters is None or people <= settings.trained_characters:
        return ()
    return (
        f"the prompt has {people} characters; training stopped at {settings.trained_characters}, "
        "so they are drawn as well as can be, and some may be missing or mixed",
    )


def encode_tokens(
    batch: TokenBatch, text_encoder: TokensModel, clip_model: PooledModel, *, negatives: bool = False
) -> TextFeatures:
    """Run both encoders. Gradients flow, so that training uses it too; nothing here waits for the device.

    The ids may already lie on the encoders' device; otherwise each is moved to that of its encoder's weights.
    """
    ids, mask = _beside(text_encoder, batch.ids, batch.mask)
    pooled_ids, pooled_mask = _beside(clip_model, batch.pooled_ids, batch.pooled_mask)
    if batch.groups is None:
        tokens, valid = text_encoder(ids, mask), mask.to(torch.bool)
    else:
        tokens, valid = text_encoder(ids, mask, *_beside(text_encoder, batch.groups)), mask.to(torch.bool)
    pooled = clip_model(pooled_ids, pooled_mask)
    if batch.pieces is not None:
        tokens, valid = _joined(tokens, batch.pieces)
    if batch.pooled_rows is not None:
        pooled = _averaged(pooled, pooled_mask, batch.pooled_rows)
    return TextFeatures(tokens, valid, pooled, batch.reports, batch.warnings, negatives)


def _joined(states: Tensor, texts: Sequence[Sequence[Piece]]) -> tuple[Tensor, Tensor]:
    """Each text's pieces of (rows, length, width) one behind the other, padded with zeros, and their mask."""
    joined = [torch.cat([states[piece.row, piece.start : piece.stop] for piece in text]) for text in texts]
    ones = [torch.ones(len(each), dtype=torch.bool, device=states.device) for each in joined]
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(joined, batch_first=True), pad(ones, batch_first=True)


def _averaged(pooled: Tensor, mask: Tensor, texts: Sequence[Sequence[int]]) -> Tensor:
    """The mean of each text's rows of (rows, width), by their tokens: the mean over all tokens' states."""
    weight = mask.sum(dim=1).to(pooled.dtype).unsqueeze(-1)
    means = [
        pooled[text[0]]
        if len(text) == 1
        else (pooled[list(text)] * weight[list(text)]).sum(dim=0) / weight[list(text)].sum(dim=0)
        for text in texts
    ]
    return torch.stack(means)


def token_ids(
    encoder: str, texts: list[str], tokenizer: Any, limit: int, multiple: int | None
) -> tuple[Tensor, Tensor, list[CutReport]]:
    """Ids and mask of texts, both (texts, length) int64, cut at `limit` tokens, and what was cut off.

    Arguments and errors as of :func:`padded_ids`.
    """
    whole = tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
    reports: list[CutReport] = []
    if max(len(each) for each in whole) > limit:
        reports = [
            _cut(encoder, index, texts[index], tokenizer, limit, len(each))
            for index, each in enumerate(whole)
            if len(each) > limit
        ]
    kept = tokenizer(texts, truncation=True, max_length=limit, padding=False, verbose=False)["input_ids"]
    return (*padded_ids(encoder, kept, tokenizer, limit, multiple), reports)


def padded_ids(
    encoder: str, rows: Sequence[Sequence[int]], tokenizer: Any, limit: int, multiple: int | None
) -> tuple[Tensor, Tensor]:
    """Ids and mask of rows of at most `limit` tokens, both (rows, length) int64, padded on the right.

    Args:
        encoder: ``Gemma`` or ``Jina``, for the error.
        rows: their token ids.
        tokenizer: whose padding token is used.
        limit: the length does not go beyond it.
        multiple: the length is padded up to a multiple of it.

    Raises:
        ConfigError: a row is empty.
    """
    if not all(rows):
        raise ConfigError(
            f"{encoder}'s tokenizer makes no token of an empty text; it must put its begin token first "
            "(is the bundle's tokenizer another model's?)"
        )
    # Apart from the cutting: in one call, the library refuses a limit that is no multiple of the padding.
    padded = tokenizer.pad(
        {"input_ids": [list(row) for row in rows]},
        padding=True,
        pad_to_multiple_of=multiple,
        padding_side="right",
        return_attention_mask=True,
        return_tensors="pt",
        verbose=False,
    )
    # No row is longer than the limit, so what is cut off here is padding.
    return padded["input_ids"][:, :limit], padded["attention_mask"][:, :limit]


def _cut(encoder: str, index: int, text: str, tokenizer: Any, limit: int, total: int) -> CutReport:
    kept = tokenizer(text, truncation=True, max_length=limit, return_offsets_mapping=True)
    end = max((stop for _, stop in kept["offset_mapping"]), default=0)
    return CutReport(encoder, index, len(kept["input_ids"]), total, text[end:])


def _beside(model: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors on the device that the model computes on."""
    device = compute_device(model)
    return tensors if device is None else tuple(tensor.to(device, non_blocking=True) for tensor in tensors)
