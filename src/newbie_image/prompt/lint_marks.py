"""The rules about marks and comments that are not what they were meant to be."""

from __future__ import annotations

import re
from collections.abc import Iterator

from newbie_image.errors import PromptError
from newbie_image.prompt import grammar
from newbie_image.prompt.diagnostics import Edit, Fix, apply_edits
from newbie_image.prompt.document import Comment, Element, Node, Prompt, Tag
from newbie_image.prompt.naming import misshapen
from newbie_image.prompt.parse import parse
from newbie_image.prompt.remarks import Remark

_LIKE_A_WEIGHT = re.compile(r"weights?\b[\s\-–→]*(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})\Z", re.IGNORECASE)


def misshapen_marks(prompt: Prompt) -> Iterator[Remark]:
    """A mark that is none: `<character 1>`, or full-width `＜character_1＞`. Its letters reach the model.

    The first one has the fix, which mends all of them, because they belong together.
    """
    found = [
        (tag, tag.start + start, tag.start + end, right)
        for tag in prompt.tags
        if "<" in (raw := tag.raw) or "＜" in raw
        for start, end, right in misshapen(raw)
    ]
    if not found:
        return
    edits = tuple(Edit(start, end, right) for _, start, end, right in found)
    repair: Fix | None = Fix("write the marks", edits)
    try:
        parse(apply_edits(prompt.source, edits))
    except PromptError:
        repair = None  # written rightly, they do not belong together
    for index, (tag, start, end, right) in enumerate(found):
        yield Remark(
            "misshapen-mark",
            "warning",
            f"{prompt.source[start:end]} is no mark of an element but text; write {right}",
            start,
            end,
            tag.path,
            None if index else repair,
        )


def _nodes(nodes: tuple[Node, ...], weight: float) -> Iterator[tuple[Node, float]]:
    """Each node with the weight of the element around it."""
    for node in nodes:
        yield node, weight
        if isinstance(node, Element):
            yield from _nodes(node.children, node.weight)


def weights(prompt: Prompt) -> Iterator[Remark]:
    """Weights that multiply to over 3, and notes that were meant as weights."""
    for node, around in _nodes(prompt.tree, 1.0):
        if isinstance(node, Tag):
            whole = around * (1.0 if node.own_weight is None else node.own_weight)
            if whole > grammar.MAX_WEIGHT + 1e-9:
                yield Remark(
                    "weight-range",
                    "warning",
                    f"{node.text[:40]!r} weighs {whole:g} with the elements around it, "
                    f"which acts as {grammar.MAX_WEIGHT:g}",
                    node.start,
                    node.end,
                    node.path,
                )
        elif isinstance(node, Comment) and node.kind == "note" and (told := _LIKE_A_WEIGHT.match(node.text)):
            right = f"<!-- weight:{told[1]} -->"
            yield Remark(
                "weight-note",
                "hint",
                f"this comment is a note and weighs nothing; write {right}",
                node.start,
                node.end,
                "",
                Fix(f"write {right}", (Edit(node.start, node.end, right),)),
            )


MARK_RULES = (misshapen_marks, weights)
