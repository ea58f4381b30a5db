"""Chinese and Japanese text that says who stands where: 左边的蓝发少女，右边的红发少年."""

from __future__ import annotations

import re
from collections.abc import Sequence

from newbie_image.prompt import grammar
from newbie_image.prompt.vocabulary import vocabulary
from newbie_image.prompt.words import has_cjk, read_mixed

_SIDES = {
    name: place
    for name, place in grammar.POSITION_NAMES.items()
    if len(name) > 1 and place.rpartition("_")[2] in ("left", "right", "center")
} | {"左の": "left", "右の": "right", "左に": "left", "右に": "right"}
_ALL = "all"
_PLACE = re.compile(
    r"(?:\A|(?<=[,，、。；;！!\s和与而]))(?:在)?(?:画面|图片)?的?(?:最(?=[左右]))?"
    rf"(?:({'|'.join(sorted(_SIDES, key=len, reverse=True))})(?:站着|坐着)?(?:[的是有为:：のはに]+|\b)?"
    r"|(?:他们|她们|两人|二人|两个人)都?)"
)
_CLAUSE = re.compile(r"[^,，、。；;！!]*")


def people_by_place(tags: Sequence[tuple[str, float]]) -> list[list[tuple[str, int, str]]]:
    """Each tag in stretches: text, the person it is about (0 for none, -1 for all) and the place that
    begins there.

    A place begins a person where personal words follow it; what comes after it, also in later tags, is about
    that person until the next. Where anybody has a place, a gender word without one begins a person too.
    """
    split = [_stretches(text) for text, _ in tags]
    if not any(place not in ("", _ALL) for stretches in split for _, place in stretches):
        return [[(text, 0, "")] for text, _ in tags]
    out: list[list[tuple[str, int, str]]] = []
    known: dict[str, int] = {}
    person = total = 0
    for stretches in split:
        out.append([])
        for text, place in stretches:
            if place == _ALL:
                person, place = -1 if total > 1 else person, ""
            elif place in known:
                person = known[place]
            elif place or _has_gender(text):
                person = total = total + 1
                if place:
                    known[place] = person
            out[-1].append((text, person, place))
    return out


def _stretches(text: str) -> list[tuple[str, str]]:
    """A text cut where a place begins that a person stands at; the place's words are taken off."""
    if not has_cjk(text):
        return [(text, "")]
    told = [m for m in _PLACE.finditer(text) if m[1] is None or _personal(_clause(text, m.end()))]
    if not told:
        return [(text, "")]
    out = [(text[: told[0].start()], "")] if told[0].start() else []
    for number, match in enumerate(told):
        end = told[number + 1].start() if number + 1 < len(told) else len(text)
        out.append((text[match.end() : end], _SIDES[match[1]] if match[1] else _ALL))
    return out


def _clause(text: str, start: int) -> str:
    match = _CLAUSE.match(text, start)
    return match.group() if match else ""


def _personal(text: str) -> bool:
    fields = (vocabulary().field(word.tag) for word in read_mixed(text)[0])
    return any(field in grammar.CHARACTER_FIELDS for field in fields)


def _has_gender(text: str) -> bool:
    return has_cjk(text) and any(vocabulary().field(word.tag) == "gender" for word in read_mixed(text)[0])
