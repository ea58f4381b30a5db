"""What is shown while a picture is drawn."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from newbie_image.cli.drawing import draw
from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import Event, GenerationRequest, StepDone, TextEncoded


class Terminal(io.StringIO):
    """Standard error as a person sees it."""

    def isatty(self) -> bool:
        return True


def shown(written: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)


def test_the_bar_says_what_is_done_from_the_first_moment(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    seen: list[Event] = []
    pipe = NewbiePipeline.from_pretrained(tiny_bundle)
    draw(pipe, GenerationRequest("1girl", width=32, height=16, steps=3), watch=seen.append)
    said = shown(terminal.getvalue())
    assert "reading the prompt" in said
    assert "step 3/3" in said
    assert "None" not in said
    assert isinstance(seen[0], TextEncoded)
    assert sum(isinstance(event, StepDone) for event in seen) == 3


def test_nothing_is_shown_where_output_is_piped(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = NewbiePipeline.from_pretrained(tiny_bundle)
    draw(pipe, GenerationRequest("1girl", width=32, height=16, steps=1))
    assert capsys.readouterr() == ("", "")
