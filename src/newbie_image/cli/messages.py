"""What is said to people beside the results: errors, warnings, notes. All of it goes to standard error."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable

from newbie_image.errors import NewbieError, PromptError

_RED, _YELLOW, _DIM, _PLAIN = "\033[31m", "\033[33m", "\033[2m", "\033[0m"
_EXCERPT_WIDTH = 100


def say_error(error: NewbieError) -> None:
    """One line; on a terminal the place in the prompt follows, with a caret under it."""
    _write(_coloured("error:", _RED) + " " + one_line(str(error)))
    if isinstance(error, PromptError) and sys.stderr.isatty():
        for line in excerpt(error):
            _write(line)


def say_usage_error(message: str, command: str) -> None:
    """A mistake in the command's own options."""
    _write(f"{_coloured('error:', _RED)} {one_line(message)} ({command} --help lists what there is)")


def say_warnings(warnings: Iterable[str]) -> None:
    """What is worth knowing but stops nothing."""
    for warning in warnings:
        _write(f"{_coloured('warning:', _YELLOW)} {one_line(warning)}")


def say_note(text: str) -> None:
    """What a person at a terminal likes to know; nothing is said when standard error is no terminal."""
    if sys.stderr.isatty():
        _write(_coloured(text, _DIM))


def one_line(text: str) -> str:
    """A message without line breaks and control characters, whatever a file or prompt had in it."""
    flat = "".join(" " if unicodedata.category(mark) in ("Cc", "Zl", "Zp") else mark for mark in text)
    return flat.encode("utf-8", "replace").decode()


def excerpt(error: PromptError) -> list[str]:
    """The line of the prompt at which an error stands and a caret under the place; [] when there is none."""
    if error.source is None or error.line is None or error.column is None:
        return []
    lines = error.source.split("\n")
    line = lines[min(error.line, len(lines)) - 1].replace("\t", " ")
    at = min(error.column - 1, len(line))
    first = max(0, at - _EXCERPT_WIDTH // 2)
    shown = one_line(line[first : first + _EXCERPT_WIDTH])
    number = f"{error.line:>4} | "
    padding = sum(2 if unicodedata.east_asian_width(mark) in "WF" else 1 for mark in shown[: at - first])
    return [number + shown, " " * (len(number) + padding) + _coloured("^", _RED)]


def _coloured(text: str, colour: str) -> str:
    return f"{colour}{text}{_PLAIN}" if sys.stderr.isatty() else text


def _write(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
