"""From a request to its binding, and to the tokens that the encoders read under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from newbie_image.binding.binding import Binding, decide, place
from newbie_image.binding.groups import group_tokens
from newbie_image.bundle import TextSettings
from newbie_image.prompt import Prompt, TextForm
from newbie_image.text import EncoderInput, TokenBatch, compose, tokenize


def bind_prompt(
    setting: str, prompt: Prompt, settings: TextSettings, tokenizer: Any, form: TextForm
) -> tuple[Binding | None, tuple[str, ...]]:
    """A prompt's binding, None where nothing is on; and what has to be said of it, a line each.

    Args:
        setting: the request's `binding`.
        prompt: parsed.
        settings: of the bundle; `auto_binding` is what `auto` means for several characters.
        tokenizer: Gemma's.
        form: the request's text form.
    """
    parts, remarks = decide(setting, prompt, settings.auto_binding)
    if not parts.changes:
        return None, remarks
    text = group_tokens(prompt, settings, tokenizer, apart=parts.encode, form=form)
    regions, said = place(parts, prompt)
    return Binding(parts, text, regions), (*remarks, *said)


def tokenize_bound(
    binding: Binding,
    prompt: Prompt,
    negatives: Sequence[EncoderInput],
    tokenizer: Any,
    clip_tokenizer: Any,
    settings: TextSettings,
    form: TextForm,
) -> tuple[TokenBatch, Tensor | None]:
    """Tokens of a bound prompt and of its negative, if any, and the groups that the transformer keeps apart.

    Returns:
        The batch, prompt first, with `groups` where Gemma encodes them apart; groups (batch, length) or None.
    """
    inputs = [replace(compose(prompt, settings, form=form), pooled_text=binding.text.pooled_text)]
    batch = tokenize([*inputs, *negatives], tokenizer, clip_tokenizer, settings)
    text, multiple = binding.text, settings.pad_to_multiple
    length = max(len(text.ids), *(int(row.sum()) for row in batch.mask[1:]), 1)
    length = -(-length // multiple) * multiple
    ids = torch.full((len(batch.ids), length), int(tokenizer.pad_token_id), dtype=torch.int64)
    mask, groups = torch.zeros_like(ids), torch.zeros_like(ids)
    ids[0, : len(text.ids)] = torch.tensor(text.ids)
    groups[0, : len(text.ids)] = torch.tensor(text.groups)
    mask[0, : len(text.ids)] = 1
    for row in range(1, len(ids)):
        valid = int(batch.mask[row].sum())
        ids[row, :valid] = batch.ids[row, :valid]
        mask[row, :valid] = 1
    apart = groups if binding.parts.encode else None
    reports = tuple(report for report in batch.reports if report.encoder != "Gemma" or report.index > 0)
    batch = replace(batch, ids=ids, mask=mask, groups=apart, reports=reports)
    return batch, groups if binding.parts.text else None
