"""Small pictures in terminals: which way is chosen, and that what is sent decodes to the picture."""

from __future__ import annotations

import base64
import io
import re

import PIL.Image
import pytest

from newbie_image.cli.preview import draw_preview, find_protocol


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "blocks"),
        ({"TERM": "screen-256color", "TERM_PROGRAM": "iTerm.app", "TMUX": "x"}, "blocks"),
        ({"TERM": "vt100"}, "off"),
        ({"TERM": "dumb"}, "off"),
        ({}, "off"),
        ({"TERM": "xterm-kitty", "NO_COLOR": "1"}, "off"),
        ({"TERM": "dumb", "NEWBIE_PREVIEW": "blocks"}, "blocks"),
        ({"TERM": "xterm-kitty", "NEWBIE_PREVIEW": "off"}, "off"),
    ],
)
def test_the_terminal_decides(environment: dict[str, str], protocol: str) -> None:
    assert find_protocol(environment, is_terminal=True) == protocol


def test_a_pipe_gets_no_picture() -> None:
    assert find_protocol({"TERM": "xterm-kitty"}, is_terminal=False) == "off"
    assert draw_preview(PIL.Image.new("RGB", (8, 8)), "off") == ""


def halves() -> PIL.Image.Image:
    """Red above, blue below."""
    image = PIL.Image.new("RGB", (64, 64), (255, 0, 0))
    image.paste((0, 0, 255), (0, 32, 64, 64))
    return image


def test_blocks_carry_two_rows_of_pixels_a_line() -> None:
    lines = draw_preview(halves(), "blocks", columns=8).splitlines()
    assert len(lines) == 4
    assert all(line.count("▀") == 8 for line in lines)
    assert "38;2;255;0;0" in lines[0]
    assert "48;2;0;0;255" in lines[-1]


def test_kitty_and_iterm_carry_a_png() -> None:
    sent = draw_preview(halves(), "kitty", columns=8)
    data = base64.b64decode("".join(re.findall(r"\033_G[^;]*;([^\033]*)\033\\", sent)))
    assert PIL.Image.open(io.BytesIO(data)).getpixel((0, 0)) == (255, 0, 0)
    sent = draw_preview(halves(), "iterm", columns=8)
    data = base64.b64decode(sent.partition(":")[2].rstrip("\a\n"))
    assert PIL.Image.open(io.BytesIO(data)).getpixel((0, 63)) == (0, 0, 255)


def test_sixel_bands_decode_to_the_picture() -> None:
    sent = draw_preview(halves(), "sixel", columns=8)
    match = re.fullmatch(r'\033Pq"1;1;(\d+);(\d+)((?:#\d+;2;\d+;\d+;\d+)+)(.*)\033\\\n', sent, re.DOTALL)
    assert match is not None
    width, height = int(match[1]), int(match[2])
    colours = {
        int(n): (int(r), int(g), int(b)) for n, r, g, b in re.findall(r"#(\d+);2;(\d+);(\d+);(\d+)", match[3])
    }
    pixels: dict[tuple[int, int], tuple[int, int, int]] = {}
    for band, text in enumerate(match[4].rstrip("-").split("-")):
        for colour, row in re.findall(r"#(\d+)([^#$]*)\$", text):
            x = 0
            for length, mark in re.findall(r"(?:!(\d+))?([?-~])", row):
                for _ in range(int(length or 1)):
                    for bit in range(6):
                        if (ord(mark) - 63) >> bit & 1:
                            pixels[x, band * 6 + bit] = colours[int(colour)]
                    x += 1
    assert len(pixels) == width * height
    assert pixels[0, 0] == (100, 0, 0)
    assert pixels[width - 1, height - 1] == (0, 0, 100)
