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
    """

    encoder: str
    index: int
    kept: int
    total: int
    text: str

    def __str__(self) -> str:
        shown = " ".join(self.text.split())
        shown = shown if len(shown) <= _EXCERPT else shown[: _EXCERPT - 1] + "…"
        return (
            f"{self.encoder} read {self.kept} of {self.total} tokens; cut off from «{shown}»; "
            "shorten the prompt, or put what matters first"
        )


@dataclass(frozen=True)
class TokenBatch:
    """Token ids of a batch on the CPU, padded on the right.

    Args:
        ids, mask: Gemma's, (batch, length) int64; mask is 1 where a token is valid.
        pooled_ids, pooled_mask: Jina's, (batch, pooled length) int64.
        reports: what was cut off.
        warnings: other things worth saying.
        groups: (batch, length) int64 where Gemma encodes groups of tokens apart, see `GemmaTextModel`.
    """

    ids: Tensor
    mask: Tensor
    pooled_ids: Tensor
    pooled_mask: Tensor
    reports: tuple[CutReport, ...] = ()
    warnings: tuple[str, ...] = ()
    groups: Tensor | None = None


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
    return tuple(str(each) for each in prompt.diagnostics if each.severity != "hint")


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
    ids, mask, reports = _token_ids(
        "Gemma",
        [each.tokens_text for each in inputs],
        tokenizer,
        settings.max_tokens,
        settings.pad_to_multiple,
    )
    pooled_ids, pooled_mask, pooled_reports = _token_ids(
        "Jina", [each.pooled_text for each in inputs], clip_tokenizer, settings.max_pooled_tokens, None
    )
    warnings = []
    longest = int(mask.sum(dim=1).max())
    if settings.trained_tokens is not None and longest > settings.trained_tokens:
        warnings.append(
            f"the prompt has {longest} Gemma tokens; training stopped at {settings.trained_tokens}, "
            "so its end may be followed less well"
        )
    return TokenBatch(ids, mask, pooled_ids, pooled_mask, (*reports, *pooled_reports), tuple(warnings))


def encode_tokens(
    batch: TokenBatch, text_encoder: TokensModel, clip_model: PooledModel, *, negatives: bool = False
) -> TextFeatures:
    """Run both encoders. Gradients flow, so that training uses it too; nothing here waits for the device.

    The ids may already lie on the encoders' device; otherwise each is moved to that of its encoder's weights.
    """
    ids, mask = _beside(text_encoder, batch.ids, batch.mask)
    pooled_ids, pooled_mask = _beside(clip_model, batch.pooled_ids, batch.pooled_mask)
    if batch.groups is None:
        tokens = text_encoder(ids, mask)
    else:
        tokens = text_encoder(ids, mask, *_beside(text_encoder, batch.groups))
    pooled = clip_model(pooled_ids, pooled_mask)
    return TextFeatures(tokens, mask.to(torch.bool), pooled, batch.reports, batch.warnings, negatives)


def _token_ids(
    encoder: str, texts: list[str], tokenizer: Any, limit: int, multiple: int | None
) -> tuple[Tensor, Tensor, list[CutReport]]:
    whole = tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
    reports: list[CutReport] = []
    if max(len(each) for each in whole) > limit:
        reports = [
            _cut(encoder, index, texts[index], tokenizer, limit, len(each))
            for index, each in enumerate(whole)
            if len(each) > limit
        ]
    # Cut and padded in two calls: in one, the library refuses a limit that is no multiple of the padding.
    kept = tokenizer(texts, truncation=True, max_length=limit, padding=False, verbose=False)
    padded = tokenizer.pad(
        {name: kept[name] for name in ("input_ids", "attention_mask")},
        padding=True,
        pad_to_multiple_of=multiple,
        padding_side="right",
        return_tensors="pt",
        verbose=False,
    )
    if not bool(padded["attention_mask"].any(dim=1).all()):
        raise ConfigError(
            f"{encoder}'s tokenizer makes no token of an empty text; it must put its begin token first "
            "(is the bundle's tokenizer another model's?)"
        )
    # No text is longer than the limit, so what is cut off here is padding.
    return padded["input_ids"][:, :limit], padded["attention_mask"][:, :limit], reports


def _cut(encoder: str, index: int, text: str, tokenizer: Any, limit: int, total: int) -> CutReport:
    kept = tokenizer(text, truncation=True, max_length=limit, return_offsets_mapping=True)
    end = max((stop for _, stop in kept["offset_mapping"]), default=0)
    return CutReport(encoder, index, len(kept["input_ids"]), total, text[end:])


def _beside(model: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors on the device that the model computes on."""
    device = compute_device(model)
    return tensors if device is None else tuple(tensor.to(device, non_blocking=True) for tensor in tensors)
