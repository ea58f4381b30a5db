"""What is odd about the name in an element's mark, and how to give an element another name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from newbie_image.prompt import grammar
from newbie_image.prompt.diagnostics import Edit, Fix
from newbie_image.prompt.markup import Mark, Matching, Problem

_LIKE_A_MARK = re.compile(
    r"[<＜][ \t\u3000]*([/／]?)[ \t\u3000]*([^\W\d][\w＿\- \t\u3000]{0,31}?)[ \t\u3000]*[>＞]"
)


class Oddity(NamedTuple):
    """A diagnostic's code, message and fix, before it has its place."""

    code: str
    message: str
    fix: Fix | None


def rename(text: str, marks: list[Mark], matching: Matching, index: int, name: str) -> Fix:
    """The fix that gives the element at mark `index` another name, at its start and at its end."""
    places = [marks[index]]
    end = matching.pairs.get(index)
    if end is not None and marks[end].kind == "end":
        places.append(marks[end])
    edits = []
    for mark in places:
        at = text.index(mark.name, mark.start)
        edits.append(Edit(at, at + len(mark.name), name))
    return Fix(f"write <{name}>", tuple(edits))


def oddities(
    text: str, marks: list[Mark], matching: Matching, index: int, key: str, *, guess: bool = True
) -> Iterator[Oddity]:
    """Unknown, misspelt and capital names, and attributes.

    Args:
        text: the source.
        marks, matching: what :mod:`markup` found in it.
        index: of the element's start.
        key: the element's key in the tree.
        guess: look for the name that a misspelt one means.
    """
    mark = marks[index]
    if not mark.known:
        near = nearest_element(mark.name) if guess else None
        if near:
            fix = rename(text, marks, matching, index, near)
            message = f"<{mark.name}> is no element of this language; did you mean <{near}>?"
            yield Oddity("misspelt-element", message, fix)
        else:
            message = f"<{mark.name}> is no element of this language; it is kept as it is"
            yield Oddity("unknown-element", message, None)
    elif key in grammar.KEPT:
        message = f"<{mark.name}> is kept as it is; sort its tags into fields with `newbie prompt convert`"
        yield Oddity("unknown-element", message, None)
    elif mark.name != mark.name.lower():
        lower = mark.name.lower()
        message = f"<{mark.name}> is read as <{lower}>; element names are small letters"
        yield Oddity("element-case", message, rename(text, marks, matching, index, lower))
    if mark.attributes.strip():
        message = f"<{mark.name}> has attributes, which this language does not read; write elements instead"
        yield Oddity("attribute", message, None)


def misshapen(text: str) -> Iterator[tuple[int, int, str]]:
    """Stretches that are meant as marks and are none: `<character 1>`, full-width `＜n＞`.

    Yields:
        start, end, and the mark as it has to be written.
    """
    for found in _LIKE_A_MARK.finditer(text):
        name = re.sub(r"[ \t-]+", "_", unicodedata.normalize("NFKC", found[2]).lower())
        known = grammar.canonical(name)
        right = f"<{'/' if found[1] else ''}{name if known in grammar.FIELDS else known}>"
        if known is not None and right != found.group().lower():
            yield found.start(), found.end(), right


def true_cause(text: str, problem: Problem) -> Problem:
    """The problem itself, or the misshapen start of an end that closes nothing."""
    if problem.code == "stray-end":
        end = text[problem.start : problem.end].lower().replace("/", "").replace(" ", "")
        for start, stop, right in misshapen(text[: problem.start]):
            if right == end:
                written = text[start:stop]
                message = f"{written} is no mark of an element but text; write {right}"
                return Problem("misshapen-mark", start, stop, message, f"read as {right}")
    return problem


def nearest_element(name: str) -> str | None:
    """The known element that a misspelt name most likely means, None where none is near."""
    import difflib

    if len(name) > 24 or not name.isascii():
        return None
    known = [f for f in grammar.FIELDS if len(f) > 2] + [
        *grammar.ROOTS,
        "general_tags",
        "character_1",
        "name",
    ]
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.8)
    if near == ["character_1"]:
        digits = re.search(r"\d{1,6}\Z", name)
        return f"character_{digits.group()}" if digits else "character_1"
    return near[0] if near else None
