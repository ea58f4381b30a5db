"""Whose a tag is, where the text itself says it: `[char2]` prefixes of the flat form, and `BREAK`.

Read from a plain list before it is sorted. What carries a prefix stays with that character whatever it says;
what stands between two `BREAK`s, as people of A1111 write it, is said about one person where each part has
one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import count

from newbie_image.prompt import fields, grammar
from newbie_image.prompt.document import Prompt
from newbie_image.prompt.parse import parse
from newbie_image.prompt.sorting import COUNT, Item
from newbie_image.prompt.vocabulary import FIRM_GROUPS, normal, vocabulary
from newbie_image.prompt.words import has_cjk, read_mixed

_PREFIX = re.compile(r"\[char(\d{1,3}(?:#\d{1,3})?)\]\s*(.*)\Z", re.DOTALL | re.IGNORECASE)
_BEGINS = re.compile(r"(?:\A|[,，、\n+>(\[{:])\s*\[char\d{1,3}(?:#\d{1,3})?\]", re.IGNORECASE)
BREAK = re.compile(r"\s*\bBREAK\b\s*")
_COORDINATE = re.compile(r"\d{0,4}\.?\d{1,9}\Z")
_FIGURE = re.compile(r"_\(.+\)\Z")
_ELSEWHERE = {"objects": "action"}
"""General fields of the vocabulary → the field that holds such a tag of a character."""


@dataclass
class Owned:
    """What was read.

    Args:
        items: for the sorting, each with its person and field where they are told.
        rest: natural language and what else goes into the caption.
        unknown: what nobody knows; it is kept.
        remarks: what was assumed, one line each.
        counted: how many people there are goes into `<count>`.
    """

    items: list[Item] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    counted: bool = False


def has_owners(prompt: Prompt) -> bool:
    """Whether a list is in the flat form: some tag has a prefix."""
    return prompt.kind != "xml" and _BEGINS.search(prompt.source) is not None


def shielded(text: str) -> str:
    """The text with prefixes and `BREAK`s written so that a reader of weights leaves them alone."""
    text = re.sub(r"\[(char\d{1,3}(?:#\d{1,3})?)\]\s*([(\[{]*)", r"\2\\[\1\\]", text, flags=re.IGNORECASE)
    return re.sub(r"\s*\bBREAK\b\s*", ", ,BREAK\u2060, ", text)


def parts(prompt: Prompt) -> list[list[tuple[str, float]]]:
    """The tags of a list with their weights, in the parts that `BREAK` makes; one where there is none."""
    tags = prompt.tags
    if prompt.kind == "sentence":
        section = parse(f"<other>{prompt.source}</other>", strict=False).general.section("other")
        tags = section.tags if section else ()
    out: list[list[tuple[str, float]]] = [[]]
    for tag in tags:
        for number, text in enumerate(BREAK.split(tag.text.replace("BREAK\u2060", "BREAK"))):
            if number:
                out.append([])
            if text.strip():
                out[-1].append((text.strip(), tag.weight))
    return [part for part in out if part]


def read_flat(prompt: Prompt) -> Owned:
    """The tags of the flat form. Where each person has a prefixed tag, what has none is said of nobody."""
    out = Owned()
    tags: list[tuple[str, str, float]] = []
    for text, weight in (tag for part in parts(prompt) for tag in part):
        match = _PREFIX.match(text)
        tags.append((match[1], match[2].strip(), weight) if match else ("", text, weight))
    tags = _boxes(tags)
    owners = _numbers([owner for owner, _, _ in tags if owner], out.remarks)
    named = _names(tags)
    counted = sum(int(m[1]) for o, text, _ in tags if not o and (m := COUNT.match(normal(text))))
    closed = len(owners) > 1 and counted <= len(owners)
    for place, (owner, text, weight) in enumerate(tags):
        if not text:
            continue
        if owner:
            _own(out, text, weight, owners[owner], place in named)
        else:
            _general(out, text, weight, closed)
    return out


def _boxes(tags: list[tuple[str, str, float]]) -> list[tuple[str, str, float]]:
    """Four numbers after one prefix are a box again."""
    out: list[tuple[str, str, float]] = []
    index = 0
    while index < len(tags):
        four = tags[index : index + 4]
        if (
            len(four) == 4
            and four[0][0]
            and not any(owner for owner, _, _ in four[1:])
            and all(_COORDINATE.match(text) for _, text, _ in four)
        ):
            out.append((four[0][0], ",".join(text for _, text, _ in four), four[0][2]))
            index += 4
            continue
        out.append(tags[index])
        index += 1
    return out


def _numbers(owners: list[str], remarks: list[str]) -> dict[str, int]:
    """A number of its own for each prefix; `1#2`, a second block of number 1, gets the next free one."""
    plain = [owner for owner in dict.fromkeys(owners) if "#" not in owner and int(owner) > 0]
    numbers = {owner: int(owner) for owner in plain}
    taken = set(numbers.values())
    free = (number for number in count(1) if number not in taken)
    for owner in dict.fromkeys(owners):
        if owner not in numbers:
            numbers[owner] = next(free)
            remarks.append(f"[char{owner}] became character {numbers[owner]}")
    return numbers


def _names(tags: list[tuple[str, str, float]]) -> set[int]:
    """Places of tags that are a person's name because of where they stand: unknown, beside the gender, or
    first and one word.
    """
    words = vocabulary()
    out: set[int] = set()
    owned: dict[str, list[tuple[int, str]]] = {}
    for place, (owner, text, _) in enumerate(tags):
        if owner:
            owned.setdefault(owner, []).append((place, text))
    for own in owned.values():
        leading: list[int] = []
        for at, (place, text) in enumerate(own):
            entry = words.named(text)
            if (entry is not None and entry.field == "gender") or COUNT.match(normal(text)):
                if at and len(leading) == at:
                    out |= set(leading)
                elif at == 0 and len(own) > 1 and _one_word(own[1][1]):
                    out.add(own[1][0])
                break
            if entry is not None and entry.field != "n":
                break
            if entry is None and (words.field(text) is not None or is_place(text)):
                break
            leading.append(place)
        if own and own[0][0] not in out and len(own) > 1 and _one_word(own[0][1]):
            out.add(own[0][0])
    return out


def _one_word(text: str) -> bool:
    """Whether an unknown text may be a bare name: `miku`, 小明."""
    words = vocabulary()
    if words.named(text) is not None or words.field(text) is not None or is_place(text):
        return False
    if has_cjk(text):
        return len(text) <= 3 and not read_mixed(text)[0]
    return text.isalpha() and text.isascii()


def is_place(text: str) -> bool:
    """Whether a text is a place word, in any language of the grammar, or a box."""
    return normal(text) in grammar.POSITIONS or text in grammar.POSITION_NAMES or grammar.is_box(text)


def _own(out: Owned, text: str, weight: float, person: int, named: bool) -> None:
    """A tag with a prefix: it stays with its character."""
    words = vocabulary()

    def put(tag: str, place: str, reason: str = "its prefix", written: str = text) -> None:
        out.items.append(Item(tag, weight, written, person, reason, place))

    entry = words.named(text)
    if is_place(text):
        put(text, "position", "its prefix; a place in the picture")
    elif entry is not None and entry.field != "count":
        put(entry.tag, _own_field(entry.field))
    elif COUNT.match(normal(text)):
        put(text, "gender")
    elif named or _FIGURE.search(normal(text)):
        put(text, "n", "its prefix; a name by its place in the list")
    elif has_cjk(text):
        found, missed = read_mixed(text)
        for word in found:
            known = words.get(word.tag)
            put(
                word.tag, _own_field(known.field if known else ""), f"its prefix; {word.reason}", word.written
            )
        for piece in missed if found else [text]:
            out.unknown.append(piece)
            put(piece, "appearance", "its prefix; not in the vocabulary", piece)
    else:
        place = words.field(text)
        if place is None:
            out.unknown.append(text)
        put(text, _own_field(place or ""), "its prefix" if place else "its prefix; not in the vocabulary")


def _own_field(place: str) -> str:
    return place if place in grammar.CHARACTER_FIELDS else _ELSEWHERE.get(place, "appearance")


def _general(out: Owned, text: str, weight: float, closed: bool) -> None:
    """A tag without a prefix; `closed` where every person has prefixed ones, so that it is nobody's."""
    words = vocabulary()
    if words.named(text) is None and fields.looks_like_sentence([text]):
        out.rest.append(text)
        return
    entry = words.named(text)
    found = [] if entry or not has_cjk(text) else read_mixed(text)[0]
    missed = read_mixed(text)[1] if found else []
    tags = [(w.tag, w.written, w.reason) for w in found] or [(entry.tag if entry else text, text, "")]
    for tag, written, reason in tags:
        place = words.field(tag) or ""
        nobody = closed and place in grammar.CHARACTER_FIELDS and not COUNT.match(normal(tag))
        out.items.append(
            Item(tag, weight, written, 0, "no prefix: said of nobody", "other")
            if nobody
            else Item(tag, weight, written, 0, reason)
        )
    out.unknown += missed
    out.items += [Item(piece, weight, piece, 0, "not in the vocabulary", "other") for piece in missed]


def read_parts(prompt: Prompt) -> list[tuple[str, float, int]]:
    """The tags of a list with `BREAK`s: text, weight, and the person whose part it stands in (0 for none).

    A part is a person's where it has `1girl`, `1boy` or a figure's name and no larger count. Where a count
    says how many people there are, and as many parts say looks, those parts are the people's.
    """
    split = parts(prompt)
    people = [i for i, part in enumerate(split) if _is_person(part)]
    if len(people) < 2:
        total = sum(int(m[1]) for part in split for t, _ in part if (m := COUNT.match(normal(t))))
        looks = [i for i, part in enumerate(split) if _has_looks(part)]
        people = looks if 1 < total == len(looks) else []
    return [
        (text, weight, people.index(i) + 1 if i in people else 0)
        for i, part in enumerate(split)
        for text, weight in part
    ]


def _is_person(part: list[tuple[str, float]]) -> bool:
    counts = [int(m[1]) for text, _ in part if (m := COUNT.match(normal(text)))]
    entries = [vocabulary().named(text) for text, _ in part]
    genders = sum(e is not None and e.field == "gender" for e in entries)
    names = sum(e is not None and e.field == "n" for e in entries)
    return max(counts, default=1) == 1 and (genders == 1 or (genders == 0 and names == 1))


def _has_looks(part: list[tuple[str, float]]) -> bool:
    return any(vocabulary().group(text) in FIRM_GROUPS for text, _ in part)
