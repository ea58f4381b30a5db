"""How diagnostics are printed: one line each, with the place under a caret on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from newbie_image.cli.messages import one_line

if TYPE_CHECKING:
    from newbie_image.prompt import Diagnostic, Prompt

_COLOURS = {"error": "\033[31m", "warning": "\033[33m", "hint": "\033[36m"}
_PLAIN = "\033[0m"


def report_lines(found: Iterable[Diagnostic], source: str, name: str, colour: bool) -> list[str]:
    """`FILE:line:column: severity code: message`; with `colour` also the excerpt and the fix."""
    from newbie_image.prompt import excerpt

    lines: list[str] = []
    for d in found:
        severity = f"{_COLOURS[d.severity]}{d.severity}{_PLAIN}" if colour else d.severity
        mend = " [--fix]" if d.fix is not None else ""
        lines.append(f"{name}:{d.line}:{d.column}: {severity} {d.code}: {one_line(d.message)}{mend}")
        if colour:
            shown, caret = excerpt(source, d.start).split("\n")
            lines += [f"    {shown}", f"    {caret.replace('^', _COLOURS[d.severity] + '^' + _PLAIN)}"]
    return lines


def summary(found: Sequence[Diagnostic], mended: Sequence[Diagnostic] = ()) -> str:
    """`2 warnings, 1 hint; 3 mended`."""
    parts = []
    for severity in ("error", "warning", "hint"):
        number = sum(d.severity == severity for d in found)
        if number:
            parts.append(f"{number} {severity}{'s' if number > 1 else ''}")
    text = ", ".join(parts) or "clean"
    return f"{text}; {len(mended)} mended" if mended else text


def say_assumptions(prompt: Prompt, name: str = "prompt") -> None:
    """What the tolerant reading assumed, to standard error."""
    for line in report_lines(prompt.diagnostics, prompt.source, name, sys.stderr.isatty()):
        sys.stderr.write(line + "\n")
