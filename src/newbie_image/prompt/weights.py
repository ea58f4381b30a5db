"""The weights of other programs: `(tag:1.2)`, `((tag))`, `[tag]`, `{tag}` and `1.3::tag::`, read into weighed
tags and written from them.

The rules are those of the programs people come from. A1111 and ComfyUI: round brackets weigh 1.1 each or what
stands after the colon; square brackets (A1111 only) weigh 1/1.1. NovelAI: curly brackets weigh 1.05 each,
square ones 1/1.05, and a number with two colons weighs all up to the next two colons. A backslash makes a
bracket literal. A bracket inside a word (`hatsune_miku_(vocaloid)`) is part of the tag, because that is what
people mean who paste tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from newbie_image.prompt import fields

Dialect = Literal["a1111", "comfyui", "novelai"]

_STEPS: dict[str, dict[str, float]] = {
    "a1111": {"(": 1.1, "[": 1 / 1.1},
    "comfyui": {"(": 1.1},
    "novelai": {"{": 1.05, "[": 1 / 1.05},
}
_CLOSERS = {")": "(", "]": "[", "}": "{"}
_NUMBER = re.compile(r":\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*\Z")
_EMPHASIS = re.compile(r"[+-]?(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})\Z")
_EMPHASISED = re.compile(r"(?:\A|[\s,，、{\[])[+-]?(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})::")
_CURLY = re.compile(r"\{([^{}|\n\"=]{1,200})\}")
_ROUND = re.compile(r"[(\[]{2}[^()\[\]]|\([^()]{1,200}:\s*\d*\.?\d+\s*\)")
WORD = re.compile(f"[^\\W\\d_]{{3}}|[{fields.CJK}]")
"""What a bracket holds that weighs a word, and a face such as `(^_^)` or `{o_o}` does not hold."""
_NETWORK = re.compile(r"<[\w ]{1,24}:[^<>\n]{1,200}>")
_BREAK = re.compile(r"\ABREAK(?:\s+|\Z)")
_SPECIAL = {
    "a1111": re.compile(r"[\\()\[\],，、\n<]"),
    "comfyui": re.compile(r"[\\(),，、\n<]"),
    "novelai": re.compile(r"[\\\[\]{},，、\n<]|::"),
}
_OUTER = {
    "a1111": re.compile(r"(\\(?=[\\()\[\]])|[()\[\]])"),
    "comfyui": re.compile(r"(\\(?=[\\()\[\]])|[()])"),
    "novelai": re.compile(r"(\\(?=[\\()\[\]{}:])|[\[\]{}]|:(?=:))"),
}
_LITERAL = {"a1111": "()[]\\", "comfyui": "()[]\\", "novelai": "()[]{}:\\"}


@dataclass(frozen=True, slots=True)
class WeighedTag:
    """A literal tag, its weight, and where it stood (offsets in the text it was read from)."""

    text: str
    weight: float = 1.0
    start: int = 0
    end: int = 0


class _Level:
    __slots__ = ("factor", "items", "mark")

    def __init__(self, mark: str, factor: float = 1.0) -> None:
        self.items: list[WeighedTag | _Level] = []
        self.factor = factor
        self.mark = mark


class _Reader:
    def __init__(self, text: str, dialect: Dialect) -> None:
        self.text = text
        self.steps = _STEPS[dialect]
        self.marks = _SPECIAL[dialect]
        self.escaped = _LITERAL[dialect]
        self.levels = [_Level("")]
        self.out: list[str] = []
        self.start = -1
        self.end = 0
        self.literal = 0
        self.emphasised = 0
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

    def close(self, mark: str) -> bool:
        """End the innermost bracket; False where none of this kind is open."""
        if len(self.levels) < 2 or self.levels[-1].mark != mark:
            return False
        if mark == "(":
            told = _NUMBER.search("".join(self.out))
            if told:
                self.levels[-1].factor = float(told.group(1))
                rest = "".join(self.out)[: told.start()]
                if rest.strip():
                    self.out = [rest]
                else:
                    self.out, self.start = [], -1
        self.flush()
        self.emphasised -= mark == "::"
        level = self.levels.pop()
        self.levels[-1].items.append(level)
        return True

    def read(self) -> list[WeighedTag]:
        text, position = self.text, 0
        for found in self.marks.finditer(text):
            at = found.start()
            if at < position:
                continue
            if at > position:
                self.add(text[position:at], position, at)
            position = self.special(text[at], at)
        self.add(text[position:], position, len(text))
        while len(self.levels) > 1:
            self.close(self.levels[-1].mark)
        self.flush()
        return self.resolve()

    def special(self, char: str, at: int) -> int:
        """Take one special character, or two colons; the offset after it."""
        text = self.text
        if char == "\\":
            if at + 1 < len(text) and text[at + 1] in self.escaped:
                self.add(text[at + 1], at, at + 2)
                return at + 2
            self.add(char, at, at + 1)
        elif char == ":":
            self.colons(at)
            return at + 2
        elif char in ",，、\n":
            self.flush()
        elif char == "<":
            network = _NETWORK.match(text, at)
            if network:
                self.flush()
                self.networks.append(network.group())
                return network.end()
            self.add(char, at, at + 1)
        elif char in self.steps:
            if self.start < 0:
                self.levels.append(_Level(char, self.steps[char]))
            else:
                self.literal += 1
                self.add(char, at, at + 1)
        elif char in _CLOSERS and self.literal:
            self.literal -= 1
            self.add(char, at, at + 1)
        elif char not in _CLOSERS or not self.close(_CLOSERS[char]):
            self.add(char, at, at + 1)
        return at + 1

    def colons(self, at: int) -> None:
        """Two colons: after a number they begin a weight, otherwise they end the one that is open."""
        number = "".join(self.out).strip()
        if _EMPHASIS.match(number):
            self.out, self.start = [], -1
            self.close("::")
            self.levels.append(_Level("::", float(number)))
            self.emphasised += 1
            return
        while self.emphasised:
            innermost = self.levels[-1].mark
            self.close(innermost)
            if innermost == "::":
                return
        self.add("::", at, at + 2)

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


def has_weights(text: str) -> Dialect | None:
    """In which program's way a text has weights; None where it has none. NovelAI's are two colons after a
    number, and curly brackets around words.
    """
    curly = (m.group(1) for m in _CURLY.finditer(text))
    if _EMPHASISED.search(text) or any(WORD.search(inner) for inner in curly):
        return "novelai"
    return "a1111" if _ROUND.search(text) else None


def write_weights(tags: Iterable[WeighedTag], dialect: Dialect = "a1111") -> str:
    """One line in the other program's way; weight 1 has no marks, literal brackets get a backslash."""
    outer = _OUTER[dialect]
    form = "{1:.6g}::{0}::" if dialect == "novelai" else "({0}:{1:.6g})"
    texts = ((outer.sub(r"\\\1", tag.text), tag.weight) for tag in tags)
    return ", ".join(text if weight == 1 else form.format(text, weight) for text, weight in texts)
