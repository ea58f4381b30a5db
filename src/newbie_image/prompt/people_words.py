"""How many people a tag speaks of, in the ways that people write it, and which names are no person's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from newbie_image.prompt.document import Tag
from newbie_image.prompt.vocabulary import vocabulary

_NUMBERS = {
    word: number
    for number, words in enumerate(
        ["a an one single", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], 1
    )
    for word in words.split()
}
_NUMERALS = {c: n for n, c in enumerate("一二三四五六七八九十", 1)} | {"两": 2, "兩": 2}
_ENGLISH = re.compile(
    rf"(?:(\d{{1,3}})(\+?)|({'|'.join(_NUMBERS)}) ) ?(girl|boy|other|woman|women|lady|ladies|man|men|guy)s?\Z"
)
_CHINESE = re.compile(
    r"(?:(\d{1,3})|([一二三四五六七八九十两兩]))(?:个|個|名|位|人)?的?"
    r"(?:(女孩子|女孩|女生|少女|美少女|女性|女人|女)|(?:男孩子|男孩|男生|少年|美少年|男性|男人|男))\Z"
)
_FROM = re.compile(r"[^(]\(([^()]+)\)\Z")
_WOMEN = frozenset({"girl", "woman", "women", "lady", "ladies"})


class People(NamedTuple):
    """So many of `girl`, `boy` or `other`; `more` where the tag says at least."""

    number: int
    who: str
    more: bool = False


def people_in(text: str) -> People | None:
    """What a tag such as `2girls`, `1 girl`, `one girl` or `两个女孩` says; None for any other tag."""
    if len(text) > 32:
        return None
    entry = vocabulary().named(text)
    said = entry.tag if entry is not None else text
    match = _ENGLISH.match(said.strip().lower().replace("_", " "))
    if match:
        number = int(match[1]) if match[1] else _NUMBERS[match[3]]
        who = "other" if match[4] == "other" else "girl" if match[4] in _WOMEN else "boy"
        return People(number, who, bool(match[2]))
    match = _CHINESE.match(said.strip())
    if match:
        number = int(match[1]) if match[1] else _NUMERALS[match[2]]
        return People(number, "girl" if match[3] else "boy")
    return None


def series_among(names: Sequence[Tag]) -> list[Tag]:
    """The tags among names that are the series which the others come from, and no people."""
    plain = [tag.text.lower().replace(" ", "_") for tag in names]
    said = {match[1] for name in plain if (match := _FROM.search(name))}
    out = []
    for tag, name in zip(names, plain, strict=True):
        entry = vocabulary().named(tag.text)
        if entry.category == "work" if entry is not None else name in said or name.endswith("_(series)"):
            out.append(tag)
    return out
