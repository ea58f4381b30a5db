"""Reading prompts and `:commands` for the loop, from a person at a terminal or from a pipe.

A prompt that begins with an element may go over several lines and ends with an empty line. Everything else (a
`:command`, tags, a sentence) is one line.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, Final, Protocol

import typer

from newbie_image.errors import PromptError

_ELEMENT: Final = re.compile(r"\s*<[A-Za-z_!?/]")
_COMMAND: Final = re.compile(r"\s*:[A-Za-z?][\w-]*(\s|$)")


class Entry(Protocol):
    """Where the loop's input comes from."""

    def read(self) -> str | None:
        """The next prompt or command without its last line end; None when there is no more.

        Raises:
            KeyboardInterrupt: the person pressed Ctrl-C.
            PromptError: a pipe gave bytes that are not UTF-8.
        """
        ...


def is_command(text: str) -> bool:
    """Whether an input is a `:command` and not tags such as `:d, smile`."""
    return _COMMAND.match(text) is not None


def spans_lines(text: str) -> bool:
    """Whether an input that begins like this goes on until an empty line."""
    return _ELEMENT.match(text) is not None


def is_complete(text: str) -> bool:
    """Whether Enter at the end of this text ends the input."""
    if not text.strip():
        return False
    return not spans_lines(text) or not text.rsplit("\n", 1)[-1].strip()


class PipedEntry:
    """Input from a pipe or a file."""

    def __init__(self, stream: IO[bytes] | None = None) -> None:
        self._stream = sys.stdin.buffer if stream is None else stream

    def read(self) -> str | None:
        lines: list[str] = []
        for raw in self._stream:
            try:
                line = raw.decode("utf-8-sig" if not lines else "utf-8")
            except UnicodeDecodeError:
                raise PromptError("standard input is not UTF-8; that line was left out") from None
            if not line.strip():
                if lines:
                    break
                continue
            lines.append(line)
            if len(lines) == 1 and not spans_lines(line):
                break
        return "".join(lines).rstrip("\r\n") if lines else None


class TerminalEntry:
    """Input from a person: editing over several lines, history, completion of commands, settings below."""

    def __init__(self, commands: Iterable[str], toolbar: Callable[[], str]) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.key_binding import KeyBindings

        keys = KeyBindings()

        @keys.add("enter")
        def _(event: Any) -> None:
            buffer = event.current_buffer
            if buffer.document.is_cursor_at_the_end and is_complete(buffer.text):
                buffer.validate_and_handle()
            elif buffer.text.strip():
                buffer.insert_text("\n")

        @keys.add("escape", "enter")
        def _(event: Any) -> None:
            event.current_buffer.validate_and_handle()

        self._session: PromptSession[str] = PromptSession(
            message="prompt> ",
            prompt_continuation="      > ",
            multiline=True,
            key_bindings=keys,
            history=open_history(),
            completer=WordCompleter([f":{name}" for name in commands], sentence=True),
            complete_while_typing=False,
            bottom_toolbar=toolbar,
        )

    def read(self) -> str | None:
        try:
            return self._session.prompt().rstrip("\n")
        except EOFError:
            return None


def open_history() -> Any:
    """What was typed before, in a file that outlives the session where it can be written."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class LastingHistory(FileHistory):
        """A disk that is full meanwhile costs an entry and not the session."""

        def store_string(self, string: str) -> None:
            with contextlib.suppress(OSError):
                super().store_string(string)

    file = Path(typer.get_app_dir("newbie-image")) / "history"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab"):
            pass
    except OSError:
        return InMemoryHistory()
    return LastingHistory(str(file))
