"""From a request to its binding, and to the tokens that the encoders read under it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from newbie_image.binding.binding import Binding, decide, place
from newbie_image.binding.groups import group_tokens
from newbie_image.bundle import TextSettings
from newbie_image.errors import RequestError
from newbie_image.prompt import Prompt, TextForm, parse
from newbie_image.request import GenerationRequest
from newbie_image.text import (
    TokenBatch,
    compose,
    compose_negative,
    length_warnings,
    padded_ids,
    prompt_warnings,
    refusal,
    tokenize,
)


def bind_prompt(
    setting: str,
    prompt: Prompt,
    settings: TextSettings,
    tokenizer: Any,
    form: TextForm,
    *,
    grid: tuple[int, int] | None = None,
    steps: int | None = None,
) -> tuple[Binding | None, tuple[str, ...]]:
    """A prompt's binding, None where nothing is on; and what has to be said of it, a line each.

    Args:
        setting: the request's `binding`.
        prompt: parsed.
        settings: of the bundle; `auto_binding` is what `auto` means for several characters, and
            `trained_bindings` what training saw.
        tokenizer: Gemma's.
        form: the request's text form.
        grid, steps: image tokens downwards and across, and steps of the run, where they are known.
    """
    parts, remarks = decide(setting, prompt, settings.auto_binding, settings.trained_bindings)
    if not parts.changes:
        return None, remarks
    text = group_tokens(prompt, settings, tokenizer, apart=parts.encode, form=form)
    regions, said = place(parts, prompt, grid, steps)
    return Binding(parts, text, regions), (*remarks, *said)


def read_bound(
    binding: Binding,
    request: GenerationRequest,
    settings: TextSettings,
    tokenizer: Any,
    clip_tokenizer: Any,
    *,
    guided: bool,
) -> tuple[TokenBatch, Tensor | None]:
    """Tokens of a bound prompt and, with guidance, of its negative prompt, which is bound by nothing.

    Args:
        binding: of the request's prompt.
        request: whose prompts, `text_form` and `tolerant` are used.
        settings: of the bundle.
        tokenizer, clip_tokenizer: Gemma's and Jina's.
        guided: whether the negative prompt is read too.

    Returns:
        The batch, prompt first, with `groups` where Gemma encodes them apart; and the groups (batch, length)
        that the transformer keeps apart, or None.

    Raises:
        RequestError: a text is too long and was to be refused then.
    """
    strict, form = not request.tolerant, cast("TextForm", request.text_form)
    prompt = parse(request.prompt, strict=strict)
    said = prompt_warnings(prompt)
    inputs = [replace(compose(prompt, settings, form=form), pooled_text=binding.text.pooled_text)]
    if guided:
        negative = parse(request.negative_prompt, strict=strict)
        inputs.append(compose_negative(negative, settings, form=form))
        said += tuple(f"negative prompt, {warning}" for warning in prompt_warnings(negative))
    batch = tokenize(inputs, tokenizer, clip_tokenizer, settings)
    # That the prompt's own tokens fit was seen when they were grouped.
    reports = tuple(report for report in batch.reports if report.encoder != "Gemma" or report.index > 0)
    if reports and request.long_prompt == "refuse":
        raise RequestError(refusal(reports))
    if reports and request.long_prompt == "groups":
        said += ("what is too long was cut: with a binding, long prompts are not read by groups",)
    rows = [
        list(binding.text.ids),
        *(row[seen.bool()].tolist() for row, seen in zip(batch.ids, batch.mask, strict=True)),
    ]
    del rows[1]
    ids, mask = padded_ids("Gemma", rows, tokenizer, settings.max_tokens, settings.pad_to_multiple)
    groups = torch.zeros_like(ids)
    groups[0, : len(rows[0])] = torch.tensor(binding.text.groups)
    warnings = (*said, *length_warnings(max(len(row) for row in rows), settings))
    apart = groups if binding.parts.encode else None
    batch = replace(batch, ids=ids, mask=mask, groups=apart, reports=reports, warnings=warnings)
    return batch, groups if binding.parts.text else None
