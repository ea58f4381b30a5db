"""Reading a prompt: text in, :class:`Prompt` out, or a :class:`PromptError` that says where and why not.

The reading is linear in the text. :mod:`markup` finds the marks and pairs them; here the tree is built
between them and
each stretch of text is cut into tags. Every node knows where it stands, so that nothing that was typed is
lost.
"""

from __future__ import annotations

import gc
import re

from newbie_image.errors import PromptError
from newbie_image.prompt import fields, grammar, markup, naming
from newbie_image.prompt.diagnostics import Diagnostic, Edit, Fix, Severity
from newbie_image.prompt.document import Comment, Element, Node, Prompt, Source, Tag
from newbie_image.prompt.gather import gather

_GUESSES = 200
"""Diagnostics after which misspelt element names are no longer guessed, so that the reading stays linear."""
_LARGE = 32 * 1024
"""Characters from which garbage waits until the text is read: the reading makes many objects and drops none,
so that each of Python's collections in between would look through all of them in vain."""
_UNREADABLE = re.compile(r"[\x00\ud800-\udfff]")


def parse(text: str | bytes, *, strict: bool = True) -> Prompt:
    """Read a prompt of any kind: XML, a list of tags, or a sentence.

    Args:
        text: the prompt; bytes are read as UTF-8. At most 256 KiB.
        strict: raise at the first thing that does not fit. Otherwise it is repaired, and each assumption is a
            diagnostic of the result.

    Returns:
        The prompt, with spans into its source, weights and diagnostics.

    Raises:
        PromptError: a text that cannot be read; strict: also one that does not fit. Document type and entity
            definitions, texts over 256 KiB and elements nested deeper than 32 are refused in both modes.
    """
    builder = _Builder(strict)
    readable = builder.readable(text)
    if len(readable) < _LARGE or not gc.isenabled():
        return builder.build(readable)
    gc.disable()
    try:
        return builder.build(readable)
    finally:
        gc.enable()


def read_text(data: bytes, *, strict: bool = True) -> str:
    """The characters of a file's bytes, by the rules of :func:`parse`: UTF-8, at most 256 KiB, no NUL.

    Raises:
        PromptError: the bytes are too many; strict: or cannot be read.
    """
    return _Builder(strict).readable(data)


class _Frame:
    """An element under construction."""

    __slots__ = (
        "children",
        "closing",
        "key",
        "known",
        "mark",
        "own_weight",
        "path",
        "pending",
        "prose",
        "start",
        "weight",
    )

    def __init__(
        self, mark: int, key: str, known: bool, path: str, own_weight: float | None, weight: float
    ) -> None:
        self.mark = mark
        self.key = key
        self.known = known
        self.path = path
        self.own_weight = own_weight
        self.weight = weight
        self.children: list[Node] = []
        self.pending: Comment | None = None
        self.prose = key in grammar.PROSE
        self.closing = False


class _Builder:
    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.diagnostics: list[Diagnostic] = []
        self.stack: list[_Frame] = []
        self.counts: dict[str, int] = {}
        self.tags: list[Tag] = []
        self.parts: list[tuple[int, int, str, str]] = []
        self.notes: list[Node] = []
        self.numbers: dict[int, int] = {}
        self.next_number = 1
        self.version: str | None = None

    def say(
        self,
        code: str,
        severity: Severity,
        message: str,
        start: int,
        end: int,
        path: str = "",
        fix: Fix | None = None,
    ) -> None:
        line, column = self.document.place(start)
        self.diagnostics.append(Diagnostic(code, severity, message, start, end, line, column, path, fix))

    def refuse(self, message: str, offset: int) -> PromptError:
        line, column = self.document.place(offset)
        return PromptError(message, line=line, column=column, offset=offset, source=self.document.text)

    def readable(self, text: str | bytes) -> str:
        """The text as characters; what no encoder can take is refused, or replaced by U+FFFD."""
        damaged = -1
        if isinstance(text, bytes):
            self._size(len(text))
            try:
                text = text.decode("utf-8")
            except UnicodeDecodeError as error:
                damaged = len(text[: error.start].decode("utf-8"))
                text = text.decode("utf-8", "replace")
        elif len(text) * 4 > grammar.MAX_BYTES:
            self._size(
                len(text) if len(text) > grammar.MAX_BYTES else len(text.encode("utf-8", "surrogatepass"))
            )
        self.document = Source(text)
        found = _UNREADABLE.search(text)
        if damaged < 0 and found is None:
            return text
        offset = damaged if damaged >= 0 else found.start() if found else 0
        what = "a byte that is no UTF-8" if damaged >= 0 else f"the character U+{ord(text[offset]):04X}"
        if found is not None:
            self.document = Source(_UNREADABLE.sub("\ufffd", text))
        if self.strict:
            raise self.refuse(f"{what} cannot be read; remove it or save the file as UTF-8", offset)
        self.say("unreadable-character", "warning", f"{what} is read as U+FFFD", offset, offset + 1)
        return self.document.text

    @staticmethod
    def _size(size: int) -> None:
        if size > grammar.MAX_BYTES:
            raise PromptError(
                f"the prompt has {size:,} bytes; at most {grammar.MAX_BYTES:,} (256 KiB) are read; shorten it"
            )

    def build(self, text: str) -> Prompt:
        self.text = text
        marks, problems = markup.scan(text) if "<" in text or text.startswith("\ufeff") else ([], [])
        self.marks = marks
        for mark in marks:
            if mark.kind == "dtd":
                raise self.refuse(
                    "document type and entity definitions are not read; remove this declaration", mark.start
                )
        self.matching = matching = markup.match(marks)
        problems += matching.problems
        if problems:
            if self.strict:
                first = min(problems, key=lambda p: (not p.code.startswith("unterminated"), p.start))
                first = naming.true_cause(text, first)
                raise self.refuse(first.message, first.start)
            for p in problems:
                self.say(p.code, "warning", f"{p.message} ({p.assumed})", p.start, p.end)
        xml = bool(matching.pairs or matching.assumed_ends) or any(
            m.kind == "empty" and m.known for m in marks
        )
        kind = "xml"
        if not xml:
            kind = "sentence" if fields.looks_like_sentence(self._items()) else "tags"
        top = _Frame(-1, "caption" if kind == "sentence" else "", True, "" if xml else "tags", None, 1.0)
        if kind == "sentence":
            top.path = "caption"
        self.stack.append(top)
        self._walk()
        if self.diagnostics:
            self.diagnostics.sort(key=lambda d: d.start)
        return gather(
            self.document, kind, tuple(top.children), tuple(self.tags), tuple(self.diagnostics), self.version
        )

    def _items(self) -> list[str]:
        """The literal items of a text without elements, from which its kind is told."""
        out: list[str] = []
        position = 0
        for index, mark in enumerate(self.marks):
            if mark.kind in ("comment", "declaration") or index in self.matching.stray:
                written = fields.weight_comment(mark.inner) if mark.kind == "comment" else None
                weighs = written is not None and fields.weight_value(written) is not None
                out += [self.text[position : mark.start], "," if weighs else ""]
                position = mark.end
            elif mark.kind == "cdata":
                out += [self.text[position : mark.start], mark.inner.replace("&", "&amp;")]
                position = mark.end
        return fields.items("".join([*out, self.text[position:]]))

    def _walk(self) -> None:
        matching, marks = self.matching, self.marks
        ends = set(matching.pairs.values())
        assumed = {start for starts in matching.assumed_ends.values() for start in starts}
        position = 0
        for index, mark in enumerate(marks):
            kind, start, end = mark[:3]
            if index in matching.assumed_ends:
                self._run(position, start)
                position = start
                self._assume(matching.assumed_ends[index], start)
            opens = kind == "start" and (index in matching.pairs or index in assumed)
            closes = not opens and index in ends
            if not opens and not closes and not self._stands(index, mark):
                continue
            if position < start:
                self._run(position, start)
            if opens:
                self._open(index, mark)
            elif closes:
                self._close(start, end, True)
            elif kind == "empty":
                self._open(index, mark)
                self._close(end, end, True)
            elif kind == "cdata":
                self._cdata(mark)
            elif kind == "end":
                self._note(Comment("declaration", mark.name, start, end))
            else:
                self._comment(mark)
            position = end
        self._run(position, len(self.text))
        self._assume(matching.assumed_ends.get(len(marks), []), len(self.text))
        self._flush()
        self._unused(self.stack[0])

    def _stands(self, index: int, mark: markup.Mark) -> bool:
        """Whether a mark that neither begins nor ends a pair is a mark at all, and not text."""
        if mark.kind == "empty":
            return mark.known or len(self.stack) > 1
        return mark.kind in ("comment", "declaration", "cdata") or index in self.matching.stray

    def _assume(self, starts: list[int], at: int) -> None:
        for start in starts:
            for frame in reversed(self.stack):
                if frame.mark == start:
                    frame.closing = True
                    break
        self._close_assumed(at)

    def _close_assumed(self, at: int) -> None:
        while self.stack[-1].closing:
            self._close(at, at, False)

    def _open(self, index: int, mark: markup.Mark) -> None:
        if self.parts:
            self._flush()
        parent = self.stack[-1]
        own = None
        if parent.pending is not None:
            own, parent.pending = parent.pending.value, None
        weight = parent.weight if own is None else parent.weight * own
        key = mark.key
        number = grammar.character_number(key) if mark.known else None
        if number is not None:
            key = self._character(index, mark, number)
        if (
            (
                mark.known
                and (parent.mark < 0 or key in grammar.ROOTS or number is not None or key == "general_tags")
            )
            or parent.key in grammar.ROOTS
            or not parent.path
        ):
            path = key
        else:
            path = f"{parent.path}.{key}"
        if len(self.stack) > grammar.MAX_DEPTH:
            raise self.refuse(
                f"elements are nested deeper than {grammar.MAX_DEPTH}; flatten the prompt", mark.start
            )
        if mark.name != mark.key or not mark.known or mark.attributes or key in grammar.KEPT:
            for odd in naming.oddities(
                self.text, self.marks, self.matching, index, key, guess=len(self.diagnostics) < _GUESSES
            ):
                self.say(odd.code, "warning", odd.message, mark.start, mark.end, path, odd.fix)
        self.stack.append(_Frame(index, key, mark.known, path, own, weight))

    def _character(self, index: int, mark: markup.Mark, number: int) -> str:
        """The key of a character block: its number, or the first free one; a repeat gets `#2`."""
        if number == 0 and not mark.key.endswith("_0"):
            while self.next_number in self.numbers:
                self.next_number += 1
            number = self.next_number
            fix = naming.rename(self.text, self.marks, self.matching, index, f"character_{number}")
            self.say(
                "unnumbered-character",
                "warning",
                f"<{mark.name}> has no number; it is read as character {number}",
                mark.start,
                mark.end,
                f"character_{number}",
                fix,
            )
        self.numbers[number] = seen = self.numbers.get(number, 0) + 1
        return f"character_{number}" if seen == 1 else f"character_{number}#{seen}"

    def _close(self, start: int, end: int, closed: bool) -> None:
        if self.parts:
            self._flush()
        frame = self.stack.pop()
        if frame.pending is not None:
            self._unused(frame)
        mark = self.marks[frame.mark]
        inner = mark.end
        element = Element(
            frame.key,
            mark.name,
            frame.known,
            mark.start,
            end,
            inner,
            start,
            mark.attributes,
            frame.own_weight,
            frame.weight,
            frame.path,
            tuple(frame.children),
            closed,
        )
        self.stack[-1].children.append(element)
        if self.stack[-1].closing:
            self._close_assumed(end)

    def _unused(self, frame: _Frame) -> None:
        if frame.pending is not None:
            comment, frame.pending = frame.pending, None
            fix = Fix("remove the weight", (Edit(comment.start, comment.end, ""),))
            self.say(
                "unused-weight",
                "warning",
                "this weight weighs nothing; put it before a tag or an element",
                comment.start,
                comment.end,
                frame.path,
                fix,
            )

    def _comment(self, mark: markup.Mark) -> None:
        if mark.kind == "declaration":
            if mark.start or mark.end > 1:
                self.say(
                    "declaration",
                    "hint",
                    "the XML declaration is not needed and no model receives it",
                    mark.start,
                    mark.end,
                )
            self._note(Comment("declaration", mark.inner, mark.start, mark.end))
            return
        written = fields.weight_comment(mark.inner)
        if written is not None:
            self._weight(mark, written)
            return
        version = fields.version_note(mark.inner)
        if version is not None:
            if self.version is None:
                self.version = version
            self._note(Comment("version", version, mark.start, mark.end))
        else:
            self._note(Comment("note", mark.inner.strip(), mark.start, mark.end))

    def _weight(self, mark: markup.Mark, written: str) -> None:
        frame = self.stack[-1]
        number = fields.weight_value(written)
        if number is None:
            self.say(
                "unreadable-weight",
                "warning",
                f"weight {written[:40]!r} is no number; write one from 0 to 3, such as <!-- weight:1.2 -->",
                mark.start,
                mark.end,
                frame.path,
            )
            self._note(Comment("note", mark.inner.strip(), mark.start, mark.end))
            return
        self._flush()
        value = min(max(number, grammar.MIN_WEIGHT), grammar.MAX_WEIGHT)
        if value != number:
            fix = Fix(f"write weight:{value:g}", (Edit(mark.start, mark.end, f"<!-- weight:{value:g} -->"),))
            self.say(
                "weight-range",
                "warning",
                f"weight {written[:40]} is outside 0 to 3 and acts as {value:g}",
                mark.start,
                mark.end,
                frame.path,
                fix,
            )
        self._unused(frame)
        frame.pending = Comment("weight", written, mark.start, mark.end, value)
        frame.children.append(frame.pending)

    def _note(self, comment: Comment) -> None:
        """Keep a comment. Inside a tag it follows that tag in the tree."""
        (self.notes if self.parts else self.stack[-1].children).append(comment)

    def _cdata(self, mark: markup.Mark) -> None:
        begin, stop = mark.start + 9, mark.start + 9 + len(mark.inner)
        self._note(Comment("cdata", "<![CDATA[", mark.start, begin))
        self._run(begin, stop, literal=True)
        self._note(Comment("cdata", "]]>", stop, mark.end))

    def _run(self, start: int, end: int, *, literal: bool = False) -> None:
        """Cut a stretch of text into tags. The last one stays open, because a note may stand inside it."""
        if start >= end:
            return
        text, frame = self.text, self.stack[-1]
        if frame.key == "position" and self._alone(end) and (box := fields.BOX.match(text, start, end)):
            self._part(box.start(1), box.end(1), literal)
            self._flush()
            return
        if not frame.prose:
            separator = fields.SEPARATOR
            if text.find("+", start, end) >= 0 or text.find("＋", start, end) >= 0:
                separator = fields.SEPARATOR_OR_PLUS
            for found in separator.finditer(text, start, end):
                at = found.start()
                if start < at:
                    self._part(start, at, literal)
                if self.parts:
                    self._flush()
                start = found.end()
        if start < end:
            self._part(start, end, literal)

    def _alone(self, end: int) -> bool:
        """Whether a stretch up to `end` is all the text that its element has."""
        tagged = any(not isinstance(child, Comment) for child in self.stack[-1].children)
        return not tagged and not self.parts and self.text.startswith("</", end)

    def _part(self, start: int, end: int, literal: bool) -> None:
        """Add a stretch to the open tag: start, end without trailing space, literal text, trailing space."""
        piece = self.text[start:end]
        if not self.parts:
            kept = piece.lstrip()
            if not kept:
                return
            start += len(piece) - len(kept)
            piece = kept
        kept = piece.rstrip()
        stop = start + len(kept) if kept else self.parts[-1][1]
        tail = piece[len(kept) :]
        if not literal and ("&" in kept or "\\" in kept):
            kept = fields.decode(kept)
        self.parts.append((start, stop, kept, tail))

    def _flush(self) -> None:
        """End the tag that is open."""
        parts = self.parts
        if not parts:
            return
        frame = self.stack[-1]
        self.parts = []
        start, end, text, _ = parts[0]
        if len(parts) > 1:
            while not parts[-1][2]:
                parts.pop()
            end = parts[-1][1]
            text = "".join(part[2] + part[3] for part in parts[:-1]) + parts[-1][2]
        own, weight = None, frame.weight
        if frame.pending is not None:
            own = frame.pending.value
            frame.pending = None
            weight *= own if own is not None else 1.0
        if weight != 1.0:
            weight = 0.0 if weight <= 0.0 else min(max(weight, grammar.SOFT_MIN_WEIGHT), grammar.MAX_WEIGHT)
        path = frame.path or "text"
        index = self.counts.get(path, 0)
        self.counts[path] = index + 1
        tag = Tag(text, start, end, path, index, weight, own, self.document)
        self.tags.append(tag)
        frame.children.append(tag)
        if self.notes:
            frame.children += self.notes
            self.notes = []
