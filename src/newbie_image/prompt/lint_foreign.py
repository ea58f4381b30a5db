"""The rules about what other programs leave behind: their weights, choices and networks, which this language
does not have and a model reads letter by letter.

A bracket weighs where it begins and ends a tag, or a few tags of one field, and holds a word. So
`miku_(vocaloid)`, `\\(^o^)/`, `(>_<)`, `{}` and whatever has its brackets escaped are tags as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from newbie_image.prompt import grammar
from newbie_image.prompt.diagnostics import Edit, Fix
from newbie_image.prompt.document import Prompt, Tag
from newbie_image.prompt.remarks import Remark, removal
from newbie_image.prompt.vocabulary import vocabulary
from newbie_image.prompt.weights import WORD, Dialect, WeighedTag, read_weights
from newbie_image.prompt.write import escape, weight_mark

_EXTRA_NETWORK = re.compile(r"<(?:lora|lyco|hypernet|lora_unet):[^<>]+>\Z", re.IGNORECASE)
_EMPHASIS = re.compile(r"[+-]?(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})::")
_LAST_OF_SEVERAL = re.compile(r"[^()]+:\s*\d*\.\d+\)\Z")
_BLANK = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*(?:=.*)?\}\}\Z", re.DOTALL)
_PREFIX = re.compile(r"\[char\d{1,3}\]")
_ENTITY = re.compile(r"&#?\w{1,32};")
_CLOSERS = {"(": ")", "[": "]", "{": "}"}
_DEEP = 24
"""Tags that one bracket may hold."""


class _Run(NamedTuple):
    """The tags from `first` to `last` of a section that stand in one pair of marks, `inner` without them."""

    first: int
    last: int
    mark: str
    inner: str


def extra_networks(prompt: Prompt) -> Iterator[Remark]:
    """`<lora:…>`, which other programs load."""
    for tag in prompt.tags:
        if tag.text.startswith("<") and _EXTRA_NETWORK.match(tag.text[:400]):
            yield Remark(
                "extra-network",
                "warning",
                f"{tag.text[:60]!r} loads nothing here; name adapters on the command line and remove this",
                tag.start,
                tag.end,
                tag.path,
                removal(prompt, tag),
            )


def foreign_weights(prompt: Prompt) -> Iterator[Remark]:
    """`(tag:1.2)`, `((tag))`, `{tag}`, `[tag]` and `1.3::tag::`, around one tag or several, and `[a|b]`."""
    program: Dialect | None = None
    literal = "<![CDATA[" in prompt.source
    runs: list[tuple[tuple[Tag, ...], _Run]] = []
    for group in prompt.groups:
        for section in group.sections:
            if section.name not in grammar.PROSE:
                runs += [(section.tags, run) for run in _runs(section.tags)]
    for _, run in runs:
        program = program or _program(run)
    for tags, run in runs:
        first, last = tags[run.first], tags[run.last]
        shown = prompt.source[first.start : last.end]
        shown = repr(shown if len(shown) <= 60 else shown[:59] + "…")
        if run.mark in ("[", "{") and ("|" in run.inner or (run.mark == "[" and ":" in run.inner)):
            message = (
                f"{shown} chooses or changes a tag while another program draws; here it is read letter by "
                "letter; write the tag that you want"
            )
            yield Remark("foreign-choice", "warning", message, *_place(first, last))
            continue
        dialect = _program(run) or program
        read = _read(prompt, tags, run, dialect) if dialect and not literal else []
        write = f"<!-- weight:{read[0].weight if read else 1.2:g} --> before the tag"
        blank = _BLANK.match(first.raw) if run.first == run.last else None
        if blank and ("=" in first.raw or blank[1] not in vocabulary()):
            write += ", or fill the blank if this is a template"
            read = []
        yield Remark(
            "foreign-weight",
            "warning",
            f"{shown} is weighed in another program's way and would be read letter by letter; write {write}",
            *_place(first, last),
            _comments(tags, run, read) if read else None,
        )


def _place(first: Tag, last: Tag) -> tuple[int, int, str]:
    return first.start, last.end, first.path


def _program(run: _Run) -> Dialect | None:
    """Whose way of weighing it is; None for square brackets, which mean two things."""
    if run.mark in ("{", "::"):
        return "novelai"
    return "a1111" if run.mark == "(" else None


def _runs(tags: tuple[Tag, ...]) -> Iterator[_Run]:
    """The tags of a section that stand in weight marks, without overlap."""
    index = 0
    while index < len(tags):
        raw = tags[index].raw
        run = None
        if "::" in raw[:24]:
            run = _emphasised(tags, index)
        if run is None and raw[0] in _CLOSERS:
            run = _bracketed(tags, index)
        if run is None and raw[-1] == ")" and raw[0] != "(" and _LAST_OF_SEVERAL.match(raw[-200:]):
            run = _Run(index, index, "", raw)
        if run is None:
            index += 1
        else:
            yield run
            index = run.last + 1


def _emphasised(tags: tuple[Tag, ...], index: int) -> _Run | None:
    """`1.3::a, b::`; without its end it holds one tag."""
    raw = tags[index].raw
    begin = _EMPHASIS.match(raw)
    if begin is None or not raw[begin.end() :].strip(": "):
        return None
    for last in range(index, min(index + _DEEP, len(tags))):
        text = raw[begin.end() :] if last == index else tags[last].raw
        if text.endswith("::"):
            return _Run(index, last, "::", raw[begin.end() :])
        if "::" in text:
            break
    return _Run(index, index, "::", raw[begin.end() :])


def _bracketed(tags: tuple[Tag, ...], index: int) -> _Run | None:
    """`((a))`, `[a, b]`, `{a}`: the bracket at the tag's beginning ends at a tag's end."""
    mark = tags[index].raw[0]
    closer, depth = _CLOSERS[mark], 0
    for last in range(index, min(index + _DEEP, len(tags))):
        raw = tags[last].raw
        if len(raw) > 4096:
            return None
        depth, end = _balance(raw, mark, closer, depth)
        if depth:
            continue
        whole = " ".join(tag.raw for tag in tags[index : last + 1])
        inner = whole.strip(mark + closer + " ")
        number = mark == "(" and re.search(r"[^\d(:]:\s*[+-]?\d*\.?\d+\s*\)\Z", whole)
        if end < len(raw) or not (WORD.search(inner) or number) or _PREFIX.match(whole):
            return None
        return _Run(index, last, mark, inner)
    return None


def _balance(raw: str, mark: str, closer: str, depth: int) -> tuple[int, int]:
    """How many brackets are open after a tag, or the offset behind the one that closes the first."""
    escaped = False
    for at, char in enumerate(raw, 1):
        if escaped or char == "\\":
            escaped = not escaped
            continue
        depth += (char == mark) - (char == closer)
        if depth == 0:
            return 0, at
    return depth, len(raw)


def _read(prompt: Prompt, tags: tuple[Tag, ...], run: _Run, dialect: Dialect) -> list[WeighedTag]:
    """The weighed tags of a run, one for each of its tags; empty where they are not plainly that."""
    text = prompt.source[tags[run.first].start : tags[run.last].end]
    if not run.mark or "<!" in text or "]]>" in text or _ENTITY.search(text):
        return []
    if any(tag.own_weight is not None for tag in tags[run.first : run.last + 1]):
        return []
    if run.mark == "::" and not text.endswith("::"):
        return []
    found, networks = read_weights(text, dialect)
    plain = len(found) == run.last - run.first + 1 and not networks
    return found if plain and all(0 < tag.weight <= grammar.MAX_WEIGHT for tag in found) else []


def _comments(tags: tuple[Tag, ...], run: _Run, read: list[WeighedTag]) -> Fix:
    edits = [
        Edit(
            tag.start,
            tag.end,
            (weight_mark(weighed.weight) if weighed.weight != 1 else "") + escape(weighed.text),
        )
        for tag, weighed in zip(tags[run.first : run.last + 1], read, strict=True)
    ]
    return Fix("write a weight comment" + ("s" if len(edits) > 1 else ""), tuple(edits))


FOREIGN_RULES = (foreign_weights, extra_networks)
