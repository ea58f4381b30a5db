"""A finding before it has its line and column."""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from newbie_image.prompt.diagnostics import Diagnostic, Edit, Fix, Severity
from newbie_image.prompt.document import Prompt, Tag

_SEPARATORS = " \t\u3000,，、+＋\r\n"


class Remark(NamedTuple):
    """Code, severity and message of a finding at `source[start:end]`; see :class:`Diagnostic`."""

    code: str
    severity: Severity
    message: str
    start: int
    end: int
    path: str = ""
    fix: Fix | None = None

    def diagnostic(self, prompt: Prompt) -> Diagnostic:
        """The diagnostic, with line and column."""
        line, column = prompt.document.place(self.start)
        return Diagnostic(
            self.code, self.severity, self.message, self.start, self.end, line, column, self.path, self.fix
        )


def removal(prompt: Prompt, tag: Tag) -> Fix | None:
    """The fix that takes a tag away together with the separator before it; None for a tag with a weight of
    its own, which would weigh what follows.
    """
    if tag.own_weight is not None:
        return None
    start = tag.start
    source = prompt.source
    index = bisect_left(prompt.tags, start, key=lambda other: other.start)
    if index and not source[prompt.tags[index - 1].end : start].strip(_SEPARATORS):
        return Fix("remove it", (Edit(prompt.tags[index - 1].end, tag.end, ""),))
    while start > 0 and source[start - 1] in " \t,，、\n\r":
        start -= 1
    if start == 0 or source[start - 1] == ">":
        start = tag.start
    return Fix("remove it", (Edit(start, tag.end, ""),))
