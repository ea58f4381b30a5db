"""A small picture in the terminal, in whichever way that terminal can show one."""

from __future__ import annotations

import base64
import io
import os
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

Protocol = Literal["kitty", "iterm", "sixel", "blocks", "off"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("kitty", "iterm", "sixel", "blocks", "off")
COLUMNS: Final = 32
_KITTY_CHUNK: Final = 4096


def find_protocol(
    environment: Mapping[str, str] | None = None, *, is_terminal: bool | None = None
) -> Protocol:
    """How this terminal shows pictures, as far as its environment tells.

    `NEWBIE_PREVIEW` decides where it is set. A multiplexer (tmux, screen) swallows picture protocols, so
    blocks are drawn there.
    """
    env = os.environ if environment is None else environment
    wanted = env.get("NEWBIE_PREVIEW", "")
    if wanted in PROTOCOLS:
        return wanted  # type: ignore[return-value]
    if not (sys.stdout.isatty() if is_terminal is None else is_terminal):
        return "off"
    term, program = env.get("TERM", ""), env.get("TERM_PROGRAM", "")
    if term in ("", "dumb") or "NO_COLOR" in env:
        return "off"
    if not (env.get("TMUX") or term.startswith("screen")):
        if "KITTY_WINDOW_ID" in env or "kitty" in term or program in ("ghostty", "WezTerm"):
            return "kitty"
        if program == "iTerm.app" or env.get("LC_TERMINAL") == "iTerm2":
            return "iterm"
        if term.startswith(("foot", "mlterm", "contour")):
            return "sixel"
    if env.get("COLORTERM") in ("truecolor", "24bit") or "256color" in term or "direct" in term:
        return "blocks"
    return "off"


def draw_preview(image: Image, protocol: Protocol, *, columns: int = COLUMNS) -> str:
    """The characters that show a picture in a terminal; empty for `off`.

    Args:
        image: any size; it is made smaller.
        protocol: from :func:`find_protocol`.
        columns: width in character cells; a cell counts as twice as high as wide.
    """
    columns = max(4, min(columns, shutil.get_terminal_size().columns - 1))
    rows = max(2, round(columns * image.height / image.width / 2))
    match protocol:
        case "kitty":
            return _kitty(_png(image, columns), columns, rows)
        case "iterm":
            data = _png(image, columns)
            text = base64.b64encode(data).decode()
            return (
                f"\033]1337;File=inline=1;size={len(data)};width={columns};preserveAspectRatio=1:{text}\a\n"
            )
        case "sixel":
            return _sixel(image, columns)
        case "blocks":
            return _blocks(image, columns, rows)
        case "off":
            return ""


def _png(image: Image, columns: int) -> bytes:
    small = image.convert("RGB")
    small.thumbnail((columns * 16, columns * 16))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    return buffer.getvalue()


def _kitty(data: bytes, columns: int, rows: int) -> str:
    text = base64.b64encode(data).decode()
    chunks = [text[i : i + _KITTY_CHUNK] for i in range(0, len(text), _KITTY_CHUNK)]
    parts = []
    for number, chunk in enumerate(chunks):
        first = f"a=T,f=100,q=2,c={columns},r={rows}," if number == 0 else ""
        parts.append(f"\033_G{first}m={int(number + 1 < len(chunks))};{chunk}\033\\")
    return "".join(parts) + "\n"


def _blocks(image: Image, columns: int, rows: int) -> str:
    """Two pixels a cell: the upper half block in the upper one's colour on the lower one's."""
    data = image.convert("RGB").resize((columns, rows * 2)).tobytes()
    lines = []
    for row in range(rows):
        cells = []
        for column in range(columns):
            top = 3 * (2 * row * columns + column)
            low = top + 3 * columns
            upper, lower = data[top : top + 3], data[low : low + 3]
            cells.append(
                f"\033[38;2;{upper[0]};{upper[1]};{upper[2]}m\033[48;2;{lower[0]};{lower[1]};{lower[2]}m▀"
            )
        lines.append("".join(cells) + "\033[0m")
    return "\n".join(lines) + "\n"


def _sixel(image: Image, columns: int) -> str:
    """Bands of six pixel rows; in each band one pass a colour, runs shortened."""
    small = image.convert("RGB")
    small.thumbnail((columns * 9, columns * 18))
    indexed = small.quantize(64)
    width, height = indexed.size
    palette = indexed.getpalette() or []
    pixels = indexed.tobytes()
    parts = [f'\033Pq"1;1;{width};{height}']
    for colour in range(len(palette) // 3):
        red, green, blue = (round(100 * value / 255) for value in palette[3 * colour : 3 * colour + 3])
        parts.append(f"#{colour};2;{red};{green};{blue}")
    for top in range(0, height, 6):
        rows = [pixels[y * width : (y + 1) * width] for y in range(top, min(top + 6, height))]
        for colour in sorted(set(b"".join(rows))):
            bits = [sum((row[x] == colour) << y for y, row in enumerate(rows)) for x in range(width)]
            parts.append(f"#{colour}{_shortened(bits)}$")
        parts.append("-")
    return "".join(parts) + "\033\\\n"


def _shortened(bits: list[int]) -> str:
    out = []
    start = 0
    for end in range(1, len(bits) + 1):
        if end == len(bits) or bits[end] != bits[start]:
            mark, length = chr(63 + bits[start]), end - start
            out.append(f"!{length}{mark}" if length > 3 else mark * length)
            start = end
    return "".join(out)
