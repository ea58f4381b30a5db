"""A list of tags → people and general tags.

One person takes everything personal. With several, each tag is given to the first of these that knows: the
text itself (see :mod:`owners`), a named figure's known looks, the k-th value of an exclusivity group for the
k-th person, or the stretch of the list that the tag stands in. Every decision is told, and where nothing in
the list says whose a tag is, that is told as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from newbie_image.prompt import grammar
from newbie_image.prompt.vocabulary import FIRM_GROUPS, normal, vocabulary

COUNT = re.compile(r"(\d{1,3})(\+?)(girl|boy|other)s?\Z")
_ARTIST = re.compile(
    r"(?:artist\s*[:：]\s*|(?:(?:drawn|art)[_ ])?by[_ ](?!(?:a|an|the|my|her|his)[_ ]))(\S.*)\Z"
    r"|(.+[_ ]\(artist\))\Z",
    re.IGNORECASE | re.DOTALL,
)
_MALE = re.compile(
    r"(?:.*_)?(?:male|man|beard|stubble|goatee|mustache|facial_hair|pectorals|chest_hair|bara)\Z|male_.*"
)
_FEMALE = re.compile(r"(?:.*_)?(?:female|woman|breasts?|cleavage|sideboob|underboob|pregnant)\Z|female_.*")
_SHARED = frozenset({"interaction"})
_NO_PERSON = frozenset({"no_humans"})


@dataclass(frozen=True, slots=True)
class Item:
    """One tag to be sorted.

    Args:
        text: the literal tag.
        weight: its weight, 1 for none.
        written: what was typed, where that differs.
        person: the number of the person it was said about, 0 where that is open, -1 for all.
        reason: how it was understood.
        place: the field, where that is told; empty for the vocabulary's.
    """

    text: str
    weight: float = 1.0
    written: str = ""
    person: int = 0
    reason: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Explained:
    """Where one tag went and why: `path` is the field, `character_1.appearance`."""

    written: str
    tag: str
    path: str
    reason: str


@dataclass
class Sorted:
    """The result: plain values (see :mod:`mapping`), what became of each tag, the tags nobody knows, and
    those of which nothing says whose they are.
    """

    values: dict[str, Any]
    explained: list[Explained] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)


@cache
def figures() -> dict[str, frozenset[str]]:
    """Named figure → the tags of its usual look."""
    out: dict[str, frozenset[str]] = {}
    text = Path(__file__).with_name("figures.tsv").read_text(encoding="utf-8")
    for line in text.split("\n"):
        if line and not line.startswith("#"):
            name, tags = line.split("\t")
            out[name] = frozenset(tags.split())
    return out


class _Known:
    """A tag with what the vocabulary says about it."""

    __slots__ = ("field", "gender", "group", "item", "key", "known", "order", "people", "tag", "why")

    def __init__(self, item: Item, order: int) -> None:
        words = vocabulary()
        self.people: tuple[int, ...] = (item.person,) if item.person > 0 else ()
        self.tag = item.text
        self.item = item
        self.order = order
        self.why = ""
        entry = words.get(self.tag)
        self.key = entry.tag if entry else normal(self.tag)
        self.group = entry.group if entry else ""
        place = "position" if self.tag.startswith("position:") else words.field(self.tag)
        if place == "position" and entry is None:
            self.tag = self.tag.removeprefix("position:")
        artist = _ARTIST.match(self.tag) if entry is None else None
        if artist and (artist[1] or not item.person):  # `[char1]x_(artist)` may be somebody's name
            self.tag, place = artist[1] or artist[2], "artists"
        self.gender = "1boy" if _MALE.match(self.key) else "1girl" if _FEMALE.match(self.key) else ""
        if place is None and self.gender:
            place = "body_type"
        self.known = place is not None
        if place is None and re.search(r"_\(.+\)\Z", self.key):
            place = "n"
        self.field = "count" if COUNT.match(self.key) else (place or "other")
        if self.field == "gender":
            self.field = "count"
        if item.place:
            self.field, self.known = item.place, True


def sort_tags(items: list[Item]) -> Sorted:
    """Sort a list of tags into character blocks and general tags."""
    tags = [_Known(item, order) for order, item in enumerate(items) if item.text.strip()]
    told_genders = {t.item.person: normal(t.tag) for t in tags if t.item.place == "gender"}
    genders, mentioned = _genders([t for t in tags if not t.item.place])
    if told_genders:
        genders, mentioned = [], False
    personal = [t for t in tags if t.field in grammar.CHARACTER_FIELDS and t.field != "count"]
    names = list(dict.fromkeys(t.key for t in personal if t.field == "n" and not t.people))
    told = max((p for t in tags for p in t.people), default=0)
    people = max(len(genders), told, min(len(names), 8))
    if people == 0 and personal and not any(t.key in _NO_PERSON for t in tags):
        people = 1
    result = Sorted({})
    blocks: list[dict[str, list[Any]]] = [{} for _ in range(max(min(people, 64), told))]
    for number, gender in enumerate(genders[: len(blocks)]):
        blocks[number]["gender"] = [gender]
    if told_genders:
        genders = [told_genders.get(n, "") for n in range(1, len(blocks) + 1)]
    _Dealer(personal, names, len(blocks), genders).deal()
    general: dict[str, list[Any]] = {}
    for tag in tags:
        value: Any = tag.tag if tag.item.weight == 1 else {"tag": tag.tag, "weight": tag.item.weight}
        if not tag.known and tag.field == "other":
            result.unknown.append(tag.tag)
        targets = [p for p in tag.people if 1 <= p <= len(blocks)]
        reason = tag.item.reason or "sorted by the vocabulary" if tag.known else "not in the vocabulary"
        if tag.field in grammar.CHARACTER_FIELDS and targets:
            for person in targets:
                _append(blocks[person - 1], tag.field, value)
                result.explained.append(_explained(tag, f"character_{person}.{tag.field}", reason))
        else:
            place = tag.field if tag.field in grammar.GENERAL_FIELDS else "other"
            if place == "count" and tag.item.person > 0 and tag.key in ("1girl", "1boy", "1other"):
                result.explained.append(_explained(tag, f"character_{tag.item.person}.gender", reason))
                continue
            if tag.field in grammar.CHARACTER_FIELDS:
                result.open.append(tag.tag)
            _append(general, place, value)
            result.explained.append(_explained(tag, f"general_tags.{place}", reason))
    if mentioned and "count" not in general:
        general["count"] = _count_words(genders)
    placed = any(t.item.place for t in tags)
    for number, block in enumerate(blocks, 1):
        if placed and not block:
            continue
        result.values[f"character_{number}"] = {n: block[n] for n in grammar.CHARACTER_FIELDS if n in block}
    if general:
        result.values["general_tags"] = {n: general[n] for n in grammar.GENERAL_FIELDS if n in general}
    return result


def _explained(tag: _Known, path: str, reason: str) -> Explained:
    whose = f"; {tag.why}" if tag.why else ""
    return Explained(tag.item.written or tag.item.text, tag.tag, path, reason + whose)


def _append(block: dict[str, list[Any]], name: str, value: Any) -> None:
    values = block.setdefault(name, [])
    if value not in values:
        values.append(value)


def _genders(tags: list[_Known]) -> tuple[list[str], bool]:
    """The gender of each person, from count tags or from the people a sentence mentions."""
    mentioned = [t for t in tags if t.item.person > 0 and t.key in ("1girl", "1boy", "1other")]
    if mentioned:
        by_person = {t.item.person: t.key for t in mentioned}
        last = max(max(t.people, default=0) for t in tags)
        return [by_person.get(n, "1girl") for n in range(1, last + 1)], True
    out: list[str] = []
    for tag in tags:
        match = COUNT.match(tag.key)
        if match:
            out += [f"1{match[3]}"] * min(int(match[1]), 64)
    keys = {t.key for t in tags}
    if not out and "multiple_girls" in keys:
        out = ["1girl", "1girl"]
    if not out and "multiple_boys" in keys:
        out = ["1boy", "1boy"]
    return out, False


def _count_words(genders: list[str]) -> list[str]:
    out = []
    for who in ("girl", "boy", "other"):
        number = genders.count(f"1{who}")
        if number:
            out.append(f"{number}{who}{'s' if number > 1 else ''}")
    return [*out, "solo"] if len(genders) == 1 else out


class _Dealer:
    """Gives each personal tag to a person."""

    def __init__(self, tags: list[_Known], names: list[str], people: int, genders: list[str]) -> None:
        self.tags = tags
        self.names = names
        self.people = people
        self.genders = genders

    def deal(self) -> None:
        if self.people == 1:
            for tag in self.tags:
                tag.people = tag.people or (1,)
        if self.people < 2:
            return
        order = self._order_of_names()
        for tag in self.tags:
            if tag.people:
                continue
            if tag.item.person < 0:
                tag.people = tuple(range(1, self.people + 1))
                tag.why = "said of all"
            elif tag.field == "n":
                self._give(tag, order.get(tag.key, 1), "by its name")
            elif tag.field in _SHARED:
                tag.people = tuple(range(1, self.people + 1))
                tag.why = "shared by all"
            elif tag.gender and self.genders.count(tag.gender) == 1:
                self._give(tag, self.genders.index(tag.gender) + 1, f"only a {tag.gender[1:]} has it")
        if self.people > 64 or all(tag.people for tag in self.tags):
            return
        self._by_looks(order)
        marks = self._by_groups()
        self._by_place(marks)

    def _give(self, tag: _Known, person: int, why: str) -> None:
        tag.people = (min(max(person, 1), self.people),)
        tag.why = why

    def _order_of_names(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names, 1)}

    def _by_looks(self, order: dict[str, int]) -> None:
        """Tags that belong to the usual look of exactly one of the named figures."""
        looks = {
            number: figures().get(name, frozenset())
            for name, number in order.items()
            if number <= self.people
        }
        for tag in self.tags:
            owners = [n for n, look in looks.items() if tag.key in look]
            if not tag.people and len(owners) == 1:
                self._give(tag, owners[0], "the usual look of this figure")

    def _by_groups(self) -> dict[int, int]:
        """The k-th value of a group for the k-th person. Returns order → person of the tags given so far."""
        groups: dict[str, list[_Known]] = {}
        for tag in self.tags:
            if tag.group:
                groups.setdefault(tag.group, []).append(tag)
        for group in groups.values():
            open_ = [t for t in group if not t.people]
            if not open_ or len(group) != self.people:
                continue
            free = [n for n in range(1, self.people + 1) if all((n,) != t.people for t in group)]
            if len(open_) == len(free):
                for tag, person in zip(open_, free, strict=True):
                    self._give(
                        tag,
                        person,
                        f"value {person} of {self.people} in the group {tag.group.replace('_', ' ')}",
                    )
        return {t.order: t.people[0] for t in self.tags if len(t.people) == 1}

    def _by_place(self, marks: dict[int, int]) -> None:
        """What stands among one person's tags is that person's."""
        begins = self._block_begins(marks)
        for tag in self.tags:
            if tag.people:
                continue
            alone = tag.group in FIRM_GROUPS and sum(t.group == tag.group for t in self.tags) == 1
            if tag.group == "gaze" and sum(t.group == "gaze" for t in self.tags) == 1:
                tag.people = tuple(range(1, self.people + 1))
                tag.why = "a look that nobody else has, given to all"
            elif begins:
                person = max((p for p, begin in begins.items() if begin <= tag.order), default=1)
                self._give(tag, person, "stands among this person's tags")
            elif alone or tag.field in ("expression", "pose", "body_type"):
                tag.people = tuple(range(1, self.people + 1))
                tag.why = "nothing says whose, given to all"
            else:
                tag.why = "nothing says whose, kept with the picture"

    def _block_begins(self, marks: dict[int, int]) -> dict[int, int]:
        """Person → where that person's stretch of the list begins; empty where people are mixed."""
        names = {t.order: t.people[0] for t in self.tags if t.field == "n" and len(t.people) == 1}
        marks = {o: p for o, p in marks.items() if o not in self._side_by_side()}
        for known in (marks, {o: p for o, p in marks.items() if o not in names}):
            persons = [p for _, p in sorted(known.items())]
            if len(set(persons)) == self.people and persons == sorted(persons):
                begins = {p: min(o for o, q in known.items() if q == p) for p in set(persons)}
                for order, person in names.items():
                    before = [o for o, p in known.items() if p < person]
                    if order < begins.get(person, -1) and all(o < order for o in before):
                        begins[person] = order
                return begins
        return {}

    def _side_by_side(self) -> set[int]:
        """Orders of tags that part nobody's stretch: values of one group side by side, as in `blue_hair,
        red_hair` or any list by subject, and what only one gender has, which may stand anywhere.
        """
        groups: dict[str, list[int]] = {}
        for tag in self.tags:
            if tag.group:
                groups.setdefault(tag.group, []).append(tag.order)
        beside = {o for orders in groups.values() for o in orders if o - 1 in orders or o + 1 in orders}
        return beside | {t.order for t in self.tags if t.gender and t.why.startswith("only a ")}
