"""What there is to say about a prompt: diagnostics with stable codes, and the edits that mend them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "hint"]


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace `source[start:end]` by `text`; offsets in characters."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Fix:
    """Edits that mend one diagnostic.

    Args:
        title: what the fix does, in words.
        edits: in any order, without overlap.
    """

    title: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing worth saying about a prompt.

    Args:
        code: stable name such as `merged-characters`; docs/prompt.md explains each.
        severity: `error` breaks the prompt, `warning` is most likely a mistake, `hint` is advice.
        message: one line for people.
        start, end: offsets in the source, in characters from 0.
        line, column: of `start`, from 1.
        path: the tag or section meant, `character_1.appearance[2]`; empty where there is none.
        fix: how to mend it, where that is known.
    """

    code: str
    severity: Severity
    message: str
    start: int
    end: int
    line: int
    column: int
    path: str = ""
    fix: Fix | None = None

    def as_dict(self) -> dict[str, Any]:
        """The documented JSON shape."""
        fix = None
        if self.fix is not None:
            edits = [{"start": e.start, "end": e.end, "text": e.text} for e in self.fix.edits]
            fix = {"title": self.fix.title, "edits": edits}
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "start": self.start,
            "end": self.end,
            "line": self.line,
            "column": self.column,
            "path": self.path,
            "fix": fix,
        }

    @property
    def remark(self) -> str:
        """Place, message and code in a line, for what is called a warning in front of it."""
        return f"line {self.line}, column {self.column}: {self.message} ({self.code})"

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.severity} {self.code}: {self.message}"


def apply_edits(text: str, edits: Iterable[Edit]) -> str:
    """`text` with the edits made. An edit that overlaps an earlier one is left out; equal ones are made
    once.
    """
    out: list[str] = []
    position = 0
    last: Edit | None = None
    for edit in sorted(edits, key=lambda e: (e.start, e.end)):
        if edit.start < position or edit == last:
            continue
        out += [text[position : edit.start], edit.text]
        position, last = edit.end, edit
    out.append(text[position:])
    return "".join(out)


def excerpt(text: str, offset: int, *, width: int = 78) -> str:
    """Two lines: the line of `offset`, cut to `width` characters, and a caret under the place."""
    begin = text.rfind("\n", 0, offset) + 1
    end = text.find("\n", offset)
    end = len(text) if end < 0 else end
    left = max(begin, offset - width // 2)
    right = min(end, left + width)
    shown = "".join(c if c.isprintable() else " " for c in text[left:right])
    prefix = "…" if left > begin else ""
    suffix = "…" if right < end else ""
    indent = sum(_columns(c) for c in shown[: offset - left]) + len(prefix)
    return f"{prefix}{shown}{suffix}\n{' ' * indent}^"


def _columns(character: str) -> int:
    """How many columns a terminal gives a character."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
