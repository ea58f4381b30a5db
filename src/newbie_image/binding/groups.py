"""A prompt's tokens for Gemma with the character that each belongs to, its weight, and the tags' spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from newbie_image.binding.regions import labels
from newbie_image.bundle import TextSettings
from newbie_image.errors import RequestError
from newbie_image.models.gemma_text import PREFIX
from newbie_image.prompt import Prompt, TextForm, encoder_text, group_texts
from newbie_image.prompt.flatten import PlacedText
from newbie_image.text import system_prompt


@dataclass(frozen=True)
class TagSpan:
    """The tokens of one tag.

    Args:
        text: the tag as written.
        path: where it stands in the prompt (`character_1.appearance[0]`).
        group: 0 for general, 1, 2, … for the characters in their order.
        start, end: its tokens, start … end − 1.
        weight: as the prompt says.
    """

    text: str
    path: str
    group: int
    start: int
    end: int
    weight: float


@dataclass(frozen=True)
class GroupedText:
    """What both encoders read of one prompt, by character.

    Args:
        ids: Gemma's tokens.
        groups: of each token: PREFIX for the system prompt, 0 for what is no character's, 1, 2, … for the
            characters in their order.
        spans: the tags' tokens.
        pooled_text: for Jina.
        characters: how many there are.
        labels: what they are called, see :func:`newbie_image.binding.regions.labels`; empty for 1, 2, ….
    """

    ids: tuple[int, ...]
    groups: tuple[int, ...]
    spans: tuple[TagSpan, ...]
    pooled_text: str
    characters: int
    labels: tuple[int, ...] = ()

    @property
    def weights(self) -> tuple[float, ...]:
        """Of each token; 1 where no tag says otherwise."""
        found = [1.0] * len(self.ids)
        for span in self.spans:
            found[span.start : span.end] = [span.weight] * (span.end - span.start)
        return tuple(found)


def group_tokens(
    prompt: Prompt, settings: TextSettings, tokenizer: Any, *, apart: bool, form: TextForm = "typed"
) -> GroupedText:
    """Tokens of a prompt with their groups.

    Args:
        prompt: parsed.
        settings: system prompts and limits of the bundle.
        tokenizer: Gemma's, a fast one (offsets are needed).
        apart: each group is encoded behind the system prompt by itself, characters first and the general
            tags last, and the pooled text is that of the general tags; else the text is whole, in the order
            in which it was typed.
        form: as in :func:`newbie_image.text.compose`.

    Raises:
        RequestError: more tokens than the bundle allows.
    """
    before = system_prompt(prompt, settings)
    numbers = {character.key: place for place, character in enumerate(prompt.characters, start=1)}
    if apart and numbers:
        texts = group_texts(prompt, form)
        order = [*numbers, "general"]
        parts = [(numbers.get(key, 0), texts[key]) for key in order if key in texts and texts[key].text]
        ids, groups, spans = _joined(before, parts, numbers, tokenizer)
        pooled = texts["general"].text if "general" in texts else ""
    else:
        whole = encoder_text(prompt, form)
        ids, offsets = _encode(tokenizer, before + whole.text)
        groups = _whole_groups(whole, numbers, offsets, len(before), form)
        spans = _spans(whole, numbers, offsets, len(before), 0)
        pooled = whole.text
    if len(ids) > settings.max_tokens:
        raise RequestError(
            f"the prompt has {len(ids)} Gemma tokens by character; the bundle's limit is "
            f"{settings.max_tokens}: shorten it, or give binding off, which cuts and says what"
        )
    return GroupedText(tuple(ids), tuple(groups), tuple(spans), pooled, len(numbers), labels(prompt))


def _encode(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
    return list(encoded["input_ids"]), [tuple(pair) for pair in encoded["offset_mapping"]]


def _joined(
    before: str, parts: Sequence[tuple[int, PlacedText]], numbers: dict[str, int], tokenizer: Any
) -> tuple[list[int], list[int], list[TagSpan]]:
    encoded = [_encode(tokenizer, before + text.text) for _, text in parts]
    # A token that reaches past the system prompt is the block's; what comes before is the same in all.
    first = min(
        next((place for place, (_, end) in enumerate(offsets) if end > len(before)), len(offsets))
        for _, offsets in encoded
    )
    while any(ids[:first] != encoded[0][0][:first] for ids, _ in encoded):
        first -= 1
    found, groups = encoded[0][0][:first], [PREFIX] * first
    spans: list[TagSpan] = []
    for (number, text), (ids, offsets) in zip(parts, encoded, strict=True):
        spans += _spans(text, numbers, offsets, len(before), len(found) - first)
        found += ids[first:]
        groups += [number] * (len(ids) - first)
    return found, groups, spans


def _spans(
    text: PlacedText, numbers: dict[str, int], offsets: Sequence[tuple[int, int]], shift: int, moved: int
) -> list[TagSpan]:
    spans = []
    for place in text.places:
        touched = _touched(offsets, place.start + shift, place.end + shift)
        if touched is not None:
            tag = place.tag
            start, end = touched[0] + moved, touched[1] + moved
            spans.append(TagSpan(tag.text, tag.path, numbers.get(place.group, 0), start, end, tag.weight))
    return spans


def _touched(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int] | None:
    """First token and the one after the last whose characters overlap start … end − 1."""
    hit = [place for place, (low, high) in enumerate(offsets) if low < end and high > start]
    return (hit[0], hit[-1] + 1) if hit else None


def _whole_groups(
    whole: PlacedText,
    numbers: dict[str, int],
    offsets: Sequence[tuple[int, int]],
    shift: int,
    form: TextForm,
) -> list[int]:
    groups = [0] * len(offsets)
    for place, (_, end) in enumerate(offsets):
        if end > shift:
            break
        groups[place] = PREFIX
    pieces = [(block.start, block.end, numbers.get(block.key, 0)) for block in whole.blocks]
    if form == "flat":
        pieces = [(place.start, place.end, numbers.get(place.group, 0)) for place in whole.places]
    for start, end, number in pieces:
        touched = _touched(offsets, start + shift, end + shift)
        if touched is not None:
            groups[touched[0] : touched[1]] = [number] * (touched[1] - touched[0])
    return groups
