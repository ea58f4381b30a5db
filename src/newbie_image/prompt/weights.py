"""The weights of other programs: `(tag:1.2)`, `((tag))` and `[tag]`, read into weighed tags and written from
them.

The rules are those of the two programs people come from: round brackets weigh 1.1 each or what stands after
the colon;
square brackets (A1111 only) weigh 1/1.1; a backslash makes a bracket literal. A bracket inside a word
(`hatsune_miku_(vocaloid)`) is part of the tag, because that is what people mean who paste tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Dialect = Literal["a1111", "comfyui"]

_STEP = 1.1
_NUMBER = re.compile(r":\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*\Z")
_NETWORK = re.compile(r"<[\w ]{1,24}:[^<>\n]{1,200}>")
_BREAK = re.compile(r"\ABREAK(?:\s+|\Z)")
_SPECIAL = re.compile(r"[\\()\[\],，、\n<]")
_OUTER = {
    "a1111": re.compile(r"(\\(?=[\\()\[\]])|[()\[\]])"),
    "comfyui": re.compile(r"(\\(?=[\\()\[\]])|[()])"),
}


@dataclass(frozen=True, slots=True)
class WeighedTag:
    """A literal tag, its weight, and where it stood (offsets in the text it was read from)."""

    text: str
    weight: float = 1.0
    start: int = 0
    end: int = 0


class _Level:
    __slots__ = ("factor", "items", "square")

    def __init__(self, square: bool) -> None:
        self.items: list[WeighedTag | _Level] = []
        self.factor = 1.0
        self.square = square


class _Reader:
    def __init__(self, text: str, dialect: Dialect) -> None:
        self.text = text
        self.square = dialect == "a1111"
        self.levels = [_Level(False)]
        self.out: list[str] = []
        self.start = -1
        self.end = 0
        self.literal = 0
        self.networks: list[str] = []

    def add(self, text: str, start: int, end: int) -> None:
        if self.start < 0:
            kept = text.lstrip()
            if not kept:
                return
            start += len(text) - len(kept)
            text = kept
            self.start = start
        self.out.append(text)
        self.end = end

    def flush(self) -> None:
        text = _BREAK.sub("", "".join(self.out).rstrip())
        if text:
            self.levels[-1].items.append(WeighedTag(text, 1.0, self.start, self.end))
        self.out, self.start, self.literal = [], -1, 0

    def close(self, square: bool) -> bool:
        """End the innermost bracket; False where none of this kind is open."""
        if len(self.levels) < 2 or self.levels[-1].square != square:
            return False
        factor = 1 / _STEP if square else _STEP
        if not square:
            told = _NUMBER.search("".join(self.out))
            if told:
                factor = float(told.group(1))
                rest = "".join(self.out)[: told.start()]
                if rest.strip():
                    self.out = [rest]
                else:
                    self.out, self.start = [], -1
        self.flush()
        level = self.levels.pop()
        level.factor = factor
        self.levels[-1].items.append(level)
        return True

    def read(self) -> list[WeighedTag]:
        text, position = self.text, 0
        for found in _SPECIAL.finditer(text):
            at = found.start()
            if at < position:
                continue
            if at > position:
                self.add(text[position:at], position, at)
            position = self.special(text[at], at)
        self.add(text[position:], position, len(text))
        while len(self.levels) > 1:
            self.close(self.levels[-1].square)
        self.flush()
        return self.resolve()

    def special(self, char: str, at: int) -> int:
        """Take one special character; the offset after it."""
        text = self.text
        if char == "\\":
            if at + 1 < len(text) and text[at + 1] in "()[]\\":
                self.add(text[at + 1], at, at + 2)
                return at + 2
            self.add(char, at, at + 1)
        elif char in ",，、\n":
            self.flush()
        elif char == "<":
            network = _NETWORK.match(text, at)
            if network:
                self.flush()
                self.networks.append(network.group())
                return network.end()
            self.add(char, at, at + 1)
        elif char == "(" or (char == "[" and self.square):
            if self.start < 0:
                self.levels.append(_Level(char == "["))
            else:
                self.literal += 1
                self.add(char, at, at + 1)
        elif char == ")" or (char == "]" and self.square):
            if self.literal:
                self.literal -= 1
                self.add(char, at, at + 1)
            elif not self.close(char == "]"):
                self.add(char, at, at + 1)
        else:
            self.add(char, at, at + 1)
        return at + 1

    def resolve(self) -> list[WeighedTag]:
        """The tags with the factors of the brackets around them."""
        out: list[WeighedTag] = []
        waiting: list[tuple[WeighedTag | _Level, float]] = [(self.levels[0], 1.0)]
        while waiting:
            item, factor = waiting.pop()
            if isinstance(item, _Level):
                factor *= item.factor
                waiting += [(inner, factor) for inner in reversed(item.items)]
            else:
                weight = round(min(max(factor, 0.0), 1e6), 6)
                out.append(WeighedTag(item.text, weight, item.start, item.end))
        return out


def read_weights(text: str, dialect: Dialect = "a1111") -> tuple[list[WeighedTag], list[str]]:
    """Tags with weights, and the notations for extra networks (`<lora:x:0.8>`) that were left out."""
    reader = _Reader(text, dialect)
    return reader.read(), reader.networks


def has_weights(text: str) -> bool:
    """Whether a text has a weight in another program's way."""
    return re.search(r"[(\[]{2}[^()\[\]]|\([^()]{1,200}:\s*\d*\.?\d+\s*\)", text) is not None


def write_weights(tags: Iterable[WeighedTag], dialect: Dialect = "a1111") -> str:
    """One line in the other program's way; weight 1 has no brackets, literal brackets get a backslash."""
    outer = _OUTER[dialect]
    out: list[str] = []
    for tag in tags:
        text = outer.sub(r"\\\1", tag.text)
        out.append(text if tag.weight == 1 else f"({text}:{tag.weight:.6g})")
    return ", ".join(out)
