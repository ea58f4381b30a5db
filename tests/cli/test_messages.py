"""An error is one line, and the place in the prompt is shown under it."""

from __future__ import annotations

import pytest

from newbie_image.cli.messages import excerpt, one_line, say_error
from newbie_image.errors import NewbieError, PromptError


def test_line_breaks_and_control_characters_do_not_get_through() -> None:
    assert one_line("a\nb\x1b[31m\u2028c\ud800") == "a b [31m c?"


def test_an_error_in_a_pipe_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say_error(PromptError("no such\nelement", line=2, column=3, source="a\nbcd"))
    assert capsys.readouterr().err == "error: line 2, column 3: no such element\n"
    say_error(NewbieError("plain"))
    assert capsys.readouterr().err == "error: plain\n"


def test_the_caret_stands_under_the_place() -> None:
    line, caret = excerpt(PromptError("x", line=2, column=4, source="one\n蓝发<n\nthree"))
    assert line == "   2 | 蓝发<n"
    assert caret.index("^") == len("   2 | ") + 5  # two wide characters and a narrow one before it
    line, caret = excerpt(PromptError("x", line=1, column=501, source="a" * 500 + "!" + "b" * 500))
    assert line[caret.index("^")] == "!"
    assert len(line) < 120
    assert excerpt(PromptError("x")) == []
    assert excerpt(PromptError("x", line=9, column=9, source="")) != []
