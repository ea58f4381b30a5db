"""Finding the marks in a text: which `<` begins an element, which is just a face.

Two passes, both linear. :func:`scan` finds everything that is shaped like a mark. :func:`match` pairs starts
with ends
on a stack and decides: a known name is always an element; an unknown one only where it is balanced; the rest
is text.
What does not fit becomes a :class:`Problem`, which the strict mode raises and the tolerant one reports as
assumed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from newbie_image.prompt import grammar

_MARK = re.compile(
    r"<(?:(?P<comment>!--)|(?P<cdata>!\[CDATA\[)|(?P<dtd>!(?i:DOCTYPE|ENTITY|ELEMENT|ATTLIST|NOTATION)\b)|"
    r"(?P<slash>/?)[ \t]*+(?P<name>[^\W\d][\w.:\-]*+)"
    r"(?P<attributes>(?:\s++[\w.:\-]++\s*+=\s*+(?:\"[^\"<]*+\"|'[^'<]*+'))*+)\s*+(?P<empty>/?)>)"
)
_DECLARATION = re.compile(r"\s*(<\?xml\b[^<>]*\?>)")


class Mark(NamedTuple):
    """One mark: kind is `start`, `end`, `empty`, `comment`, `cdata`, `dtd` or `declaration`."""

    kind: str
    start: int
    end: int
    name: str = ""
    key: str = ""
    known: bool = False
    attributes: str = ""
    inner: str = ""


class Problem(NamedTuple):
    """Something that does not fit: strict reading stops here, tolerant reading assumes `assumed`."""

    code: str
    start: int
    end: int
    message: str
    assumed: str


def scan(text: str) -> tuple[list[Mark], list[Problem]]:
    """All that is shaped like a mark, in order, and comments or CDATA stretches that never end."""
    marks: list[Mark] = []
    problems: list[Problem] = []
    keys: dict[str, str | None] = {}
    position = 0
    if text.startswith("\ufeff"):
        marks.append(Mark("declaration", 0, 1, inner="byte-order mark"))
        position = 1
    declaration = _DECLARATION.match(text, position)
    if declaration:
        marks.append(Mark("declaration", *declaration.span(1), inner=declaration.group(1)))
        position = declaration.end()
    search = _MARK.search
    found = search(text, position)
    while found:
        start, end = found.span()
        comment, _, dtd, slash, name, attributes, empty = found.groups()
        if name:
            if name in keys:
                key = keys[name]
            else:
                key = keys[name] = grammar.canonical(name)
            kind = "end" if slash else "empty" if empty else "start"
            mark = (kind, start, end, name, key or name, key is not None, attributes or "", "")
            marks.append(tuple.__new__(Mark, mark))
        elif dtd:
            marks.append(Mark("dtd", start, end, inner=dtd))
        else:
            kind, closing, begin = ("comment", "-->", start + 4) if comment else ("cdata", "]]>", start + 9)
            stop = text.find(closing, begin)
            if stop < 0:
                what = "comment" if comment else "CDATA stretch"
                stop, end = _assumed_end(text, begin, comment is not None)
                problems.append(
                    Problem(
                        f"unterminated-{kind}",
                        start,
                        min(start + 9, len(text)),
                        f"this {what} has no end; close it with {closing}",
                        f"it ends at offset {end}",
                    )
                )
            else:
                end = stop + 3
            marks.append(Mark(kind, start, end, inner=text[begin:stop]))
        found = search(text, end)
    return marks, problems


def _assumed_end(text: str, begin: int, comment: bool) -> tuple[int, int]:
    """Where an unterminated stretch ends: a comment at the next `>` or newline, CDATA with the text."""
    if not comment:
        return len(text), len(text)
    found = re.compile(r"-?>|\n").search(text, begin)
    if found is None:
        return len(text), len(text)
    return found.start(), found.start() if found.group() == "\n" else found.end()


class _Open:
    """A start that waits for its end. `boundary` is the first mark that cannot stand inside it."""

    __slots__ = ("boundary", "index", "key", "known", "position")

    def __init__(self, index: int, key: str, known: bool, position: int) -> None:
        self.index = index
        self.key = key
        self.known = known
        self.position = position
        self.boundary: int | None = None


class Matching:
    """The result of :func:`match`.

    Attributes:
        pairs: index of a start mark → index of its end mark; starts and ends that are missing here are text.
        assumed_ends: index of a mark (or len(marks)) → start marks whose missing end is assumed right
            before it.
        stray: indices of end marks that close nothing and are ignored.
        as_end: indices of start marks that are read as the end of the element of the same name
            (`<n>miku<n>`).
        problems: what did not fit, in no special order.
    """

    def __init__(self) -> None:
        self.pairs: dict[int, int] = {}
        self.assumed_ends: dict[int, list[int]] = {}
        self.stray: set[int] = set()
        self.as_end: set[int] = set()
        self.problems: list[Problem] = []


def is_leaf(key: str) -> bool:
    """Whether a known element holds tags only (a field), not other elements."""
    return key in grammar.FIELDS and key not in grammar.CONTAINERS


def match(marks: list[Mark]) -> Matching:
    """Pair starts with ends; see :class:`Matching`."""
    return _Matcher(marks).run()


class _Matcher:
    def __init__(self, marks: list[Mark]) -> None:
        self.marks = marks
        self.result = Matching()
        self.stack: list[_Open] = []
        self.open_by_key: dict[str, list[_Open]] = {}
        self.known: list[_Open] = []
        self.surplus: dict[str, int] = {}
        for mark in marks:
            if mark.known and mark.kind in ("start", "end"):
                self.surplus[mark.key] = self.surplus.get(mark.key, 0) + (1 if mark.kind == "start" else -1)

    def run(self) -> Matching:
        for index, mark in enumerate(self.marks):
            if mark.kind == "start":
                self._start(index, mark)
            elif mark.kind == "end":
                self._end(index, mark)
            elif mark.kind == "empty" and mark.known:
                self._bound(index, mark.key)
        self._close_above(0, len(self.marks), "the end of the text")
        return self.result

    def _start(self, index: int, mark: Mark) -> None:
        if mark.known:
            inner = self.known[-1] if self.known else None
            if (
                inner is not None
                and inner.key == mark.key
                and is_leaf(mark.key)
                and self._reads_as_end(index, mark.key)
            ):
                self.result.as_end.add(index)
                self.result.problems.append(
                    Problem(
                        "start-for-end",
                        mark.start,
                        mark.end,
                        f"<{mark.name}> stands inside <{self.marks[inner.index].name}>; "
                        f"write </{mark.name}> to close it",
                        f"read as </{mark.name}>",
                    )
                )
                if len(self.stack) > inner.position + 1:
                    self._close_above(inner.position + 1, index, f"<{mark.name}>")
                self._pop(inner, index)
                return
            self._bound(index, mark.key)
        entry = _Open(index, mark.key, mark.known, len(self.stack))
        self.stack.append(entry)
        self.open_by_key.setdefault(mark.key, []).append(entry)
        if mark.known:
            self.known.append(entry)

    def _reads_as_end(self, index: int, key: str) -> bool:
        """Whether a start inside an element of the same name is its end with the slash forgotten.

        It is, where the text has more starts than ends of this name and the next mark is not the end.
        """
        if self.surplus.get(key, 0) < 1:
            return False
        for following in self.marks[index + 1 : index + 9]:
            if following.kind in ("start", "end") and following.known:
                if following.kind == "end" and following.key == key:
                    return False
                break
        self.surplus[key] -= 2
        return True

    def _bound(self, index: int, key: str) -> None:
        """Remember for the open elements that this mark cannot stand inside them."""
        leaf = is_leaf(key)
        for entry in reversed(self.known):
            if entry.boundary is not None:
                break
            if is_leaf(entry.key) or (not leaf and entry.key not in grammar.ROOTS and key != "environment"):
                entry.boundary = index
            else:
                break

    def _end(self, index: int, mark: Mark) -> None:
        waiting = self.open_by_key.get(mark.key)
        if waiting:
            entry = waiting[-1]
            innermost_known = self.known[-1].position if self.known else -1
            if mark.known or entry.position > innermost_known:
                if len(self.stack) > entry.position + 1:
                    self._close_above(entry.position + 1, index, f"</{mark.name}>")
                self._pop(entry, index)
            return
        if not mark.known:
            inner = self.known[-1] if self.known else None
            if inner is not None and _near(mark.key.lower(), self.marks[inner.index].name.lower()):
                self._read_as(inner, index, mark)
            return
        if grammar.character_number(mark.key) is not None:
            for entry in reversed(self.known[-2:]):
                if grammar.character_number(entry.key) is not None:
                    self._close_above(entry.position + 1, index, f"</{mark.name}>")
                    self._read_as(entry, index, mark)
                    return
        outer = self.known[0] if self.known and mark.key in grammar.ROOTS else None
        if outer is not None and outer.key in grammar.ROOTS and self.surplus[outer.key] > 0:
            self.surplus[outer.key] -= 1
            self._read_as(outer, index, mark)
            return
        self.result.stray.add(index)
        self.result.problems.append(
            Problem(
                "stray-end",
                mark.start,
                mark.end,
                f"</{mark.name}> closes nothing; remove it or write <{mark.name}> before it",
                "it is left out",
            )
        )

    def _read_as(self, entry: _Open, index: int, mark: Mark) -> None:
        written = self.marks[entry.index].name
        self.result.problems.append(
            Problem(
                "mismatched-end",
                mark.start,
                mark.end,
                f"</{mark.name}> does not close <{written}>; write </{written}>",
                f"read as </{written}>",
            )
        )
        self._close_above(entry.position + 1, index, f"</{mark.name}>")
        self._pop(entry, index)

    def _pop(self, entry: _Open, end: int) -> None:
        self._remove(entry)
        self.result.pairs[entry.index] = end

    def _remove(self, entry: _Open) -> None:
        self.stack.pop()
        self.open_by_key[entry.key].pop()
        if entry.known:
            self.known.pop()

    def _close_above(self, position: int, index: int, before: str) -> None:
        """Take everything from `position` off the stack: unknown names become text, known ones lack their
        end.
        """
        while len(self.stack) > position:
            entry = self.stack[-1]
            self._remove(entry)
            if not entry.known:
                continue
            stop = index if entry.boundary is None else entry.boundary
            self.result.assumed_ends.setdefault(stop, []).append(entry.index)
            mark = self.marks[entry.index]
            at = before
            if stop < index:
                at = f"<{self.marks[stop].name}>"
            self.result.problems.append(
                Problem(
                    "missing-end",
                    mark.start,
                    mark.end,
                    f"<{mark.name}> is not closed; write </{mark.name}> before {at}",
                    f"</{mark.name}> is assumed before {at}",
                )
            )


def _near(a: str, b: str) -> bool:
    """Whether two short names differ by at most two letters (one, where they have under five)."""
    if abs(len(a) - len(b)) > 2 or len(a) > 40:
        return False
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1] <= (1 if min(len(a), len(b)) < 5 else 2)
