"""What the encoders read of a request's prompts, also where a prompt is longer than an encoder takes.

Gemma's limit is the bundle's, at most the transformer's rotary table (1,023 caption tokens in the published
model); Jina's is the bundle's. A prompt within both is read whole, whatever was chosen. Beyond them the
request chooses:

- cut: the end is cut off, and a report says from where.
- refuse: an error says how long the prompt is.
- groups: each character's block and everything else are read apart, each after the system prompt.

By group, the caption is the system prompt's states once, then the states of every group's own tokens,
characters in order and the general part last; places in the caption run on, and the rotary table still bounds
the sum. Where the groups together are too long, the short ones stay whole and the long ones share what is
left, so that nobody vanishes; what each loses at its end is reported. Jina's vector is the mean over all
groups' tokens.

Exact in this: a group's states are those that it has as a prompt of its own (what was cut off comes after,
and Gemma's attention looks back only). Not exact, and never seen in training: no group looks at another in
the encoders, and the marks around the groups are gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from newbie_image.bundle import TextSettings
from newbie_image.errors import RequestError
from newbie_image.prompt import Prompt, TextForm, group_texts, parse
from newbie_image.request import GenerationRequest
from newbie_image.text import (
    NAMES,
    CutReport,
    EncoderInput,
    Piece,
    TokenBatch,
    compose,
    compose_negative,
    length_warnings,
    padded_ids,
    prompt_warnings,
    refusal,
    token_ids,
    tokenize,
)


def read_request(
    request: GenerationRequest,
    settings: TextSettings,
    tokenizer: Any,
    clip_tokenizer: Any,
    *,
    guided: bool,
) -> TokenBatch:
    """Token ids of a request's prompt and, with guidance, of its negative prompt.

    Args:
        request: whose prompts, `text_form`, `tolerant` and `long_prompt` are used.
        settings: the bundle's, with the request's preset and within the transformer's rotary table.
        tokenizer, clip_tokenizer: Gemma's and Jina's.
        guided: whether the negative prompt is read too.

    Returns:
        The batch: one text, or prompt and negative prompt; its warnings are the prompts' own ones first.

    Raises:
        PromptError: a prompt cannot be read.
        RequestError: a prompt is too long and was to be refused then.
    """
    strict, form = not request.tolerant, cast("TextForm", request.text_form)
    prompts = [parse(request.prompt, strict=strict)]
    texts = [compose(prompts[0], settings, form=form)]
    said = prompt_warnings(prompts[0])
    if guided:
        prompts.append(parse(request.negative_prompt, strict=strict))
        texts.append(compose_negative(prompts[1], settings, form=form))
        said += tuple(f"negative prompt, {warning}" for warning in prompt_warnings(prompts[1]))
    batch = tokenize(texts, tokenizer, clip_tokenizer, settings)
    if batch.reports and request.long_prompt == "refuse":
        raise RequestError(refusal(batch.reports))
    if batch.reports and request.long_prompt == "groups":
        groups = [by_group(text, prompt, form) for text, prompt in zip(texts, prompts, strict=True)]
        batch = tokenize_groups(texts, groups, batch, tokenizer, clip_tokenizer, settings)
    return replace(batch, warnings=said + batch.warnings)


def by_group(whole: EncoderInput, prompt: Prompt, form: TextForm = "typed") -> dict[str, EncoderInput]:
    """A prompt's groups as texts of their own, by key, each after the system prompt of the whole.

    Args:
        whole: the prompt, composed.
        prompt: the same, parsed.
        form: as it was composed.

    Returns:
        `character_1`, … and `general`, without those that say nothing; the whole under `general` where it has
        no groups.
    """
    system = whole.tokens_text[: len(whole.tokens_text) - len(whole.pooled_text)]
    texts = {key: placed.text for key, placed in group_texts(prompt, form).items() if placed.text.strip()}
    return {key: EncoderInput(system + text, text) for key, text in texts.items()} or {"general": whole}


def tokenize_groups(
    texts: Sequence[EncoderInput],
    groups: Sequence[Mapping[str, EncoderInput]],
    batch: TokenBatch,
    tokenizer: Any,
    clip_tokenizer: Any,
    settings: TextSettings,
) -> TokenBatch:
    """The batch with each text that was cut in it read by group, by the encoder that cut it.

    Args:
        texts: what was tokenized.
        groups: each text's groups (:func:`by_group`).
        batch: what :func:`newbie_image.text.tokenize` made of the texts.
        tokenizer, clip_tokenizer: Gemma's and Jina's.
        settings: limits and padding.
    """
    warnings: list[str] = []
    reports: list[CutReport] = []
    cut = {report.index: report.total for report in batch.reports if report.encoder == "Gemma"}
    if cut:
        rows: list[list[int]] = []
        pieces: list[tuple[Piece, ...]] = []
        for index, text in enumerate(texts):
            if index not in cut:
                rows.append(tokenizer(text.tokens_text, verbose=False)["input_ids"])
                pieces.append((Piece(len(rows) - 1, 0, len(rows[-1])),))
                continue
            found = _read_groups(index, groups[index], tokenizer, settings.max_tokens)
            pieces.append(tuple(replace(piece, row=piece.row + len(rows)) for piece in found.pieces))
            rows += found.rows
            reports += found.reports
            warnings.append(
                f"{NAMES[index]} has {cut[index]} Gemma tokens, more than {settings.max_tokens}: its groups "
                f"were read apart ({found.told}), which no training did"
            )
        lengths = [sum(piece.stop - piece.start for piece in text) for text in pieces]
        warnings += length_warnings(max(lengths), settings)
        longest = max(settings.max_tokens, *(len(row) for row in rows))
        ids, mask = padded_ids("Gemma", rows, tokenizer, longest, settings.pad_to_multiple)
        batch = replace(batch, ids=ids, mask=mask, pieces=tuple(pieces))
    else:
        warnings += batch.warnings
    pooled_cut = {report.index for report in batch.reports if report.encoder == "Jina"}
    if pooled_cut:
        owners = [
            (index, key)
            for index, parts in enumerate(groups)
            for key in (parts if index in pooled_cut else [None])
        ]
        read = [texts[i].pooled_text if key is None else groups[i][key].pooled_text for i, key in owners]
        limit = settings.max_pooled_tokens
        pooled_ids, pooled_mask, found_reports = token_ids("Jina", read, clip_tokenizer, limit, None)
        for report in found_reports:
            index, key = owners[report.index]
            reports.append(replace(report, index=index, group=key))
        places = tuple(
            tuple(row for row, (owner, _) in enumerate(owners) if owner == index)
            for index in range(len(texts))
        )
        batch = replace(batch, pooled_ids=pooled_ids, pooled_mask=pooled_mask, pooled_rows=places)
        warnings += [
            f"{NAMES[index]} has more than Jina's {limit} tokens: its groups were averaged"
            for index in sorted(pooled_cut)
        ]
    return replace(batch, reports=tuple(reports), warnings=tuple(warnings))


@dataclass(frozen=True)
class _Groups:
    rows: list[list[int]]
    pieces: list[Piece]
    reports: list[CutReport]
    told: str


def _read_groups(index: int, groups: Mapping[str, EncoderInput], tokenizer: Any, limit: int) -> _Groups:
    """Rows of one text's groups, and what of them goes into its caption of at most `limit` tokens."""
    encoded = [
        tokenizer(group.tokens_text, return_offsets_mapping=True, verbose=False) for group in groups.values()
    ]
    ids = [list(each["input_ids"]) for each in encoded]
    ends = [[stop for _, stop in each["offset_mapping"]] for each in encoded]
    heads = []  # tokens of begin and system prompt; one that reaches into the text is the text's
    for group, stops in zip(groups.values(), ends, strict=True):
        system = len(group.tokens_text) - len(group.pooled_text)
        heads.append(next((place for place, stop in enumerate(stops) if stop > system), len(stops)))
    first = min(heads[0], limit)
    shares = fair_shares([len(row) - head for row, head in zip(ids, heads, strict=True)], limit - first)
    found = _Groups([], [], [], "")
    told = []
    for place, (key, group) in enumerate(groups.items()):
        stop = heads[place] + shares[place] if place else first + shares[0]
        total = len(ids[place]) - heads[place]
        found.rows.append(ids[place][:stop])
        found.pieces.append(Piece(place, heads[place] if place else 0, stop))
        told.append(f"{key} {shares[place]}")
        if shares[place] < total:
            system = len(group.tokens_text) - len(group.pooled_text)
            lost = group.tokens_text[max(system, ends[place][stop - 1]) :]
            found.reports.append(CutReport("Gemma", index, shares[place], total, lost, key))
    return replace(found, told=", ".join(told) + " tokens")


def fair_shares(lengths: Sequence[int], room: int) -> list[int]:
    """How much of each length fits into the room together: short ones whole, long ones alike."""
    shares, left = [0] * len(lengths), room
    for done, place in enumerate(sorted(range(len(lengths)), key=lambda place: lengths[place])):
        shares[place] = min(lengths[place], left // (len(lengths) - done))
        left -= shares[place]
    return shares
