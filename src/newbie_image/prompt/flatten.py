"""From a prompt to the texts that models read, with the place of every tag in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from newbie_image.prompt import grammar
from newbie_image.prompt.document import Comment, Element, Group, Node, Prompt, Tag

TextForm = Literal["typed", "flat"]
_SEPARATORS = ",，、+＋\r\n"
_TRAILING = re.compile(r"[\s,，、]*\Z")


@dataclass(frozen=True, slots=True)
class TagPlace:
    """Where one tag stands in a text: `text[start:end]` is the literal tag.

    Args:
        tag: the tag, with its span in the source, path and weight.
        start, end: offsets in the text, in characters.
        group: `character_1`, …, or `general`.
    """

    tag: Tag
    start: int
    end: int
    group: str


@dataclass(frozen=True, slots=True)
class BlockPlace:
    """Where one character's block stands in a text, its marks included: `text[start:end]`.

    Args:
        key: `character_1`, ….
        start, end: offsets in the text, in characters.
    """

    key: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PlacedText:
    """A text for an encoder.

    Args:
        text: what the encoder reads.
        places: its tags, in order; those of weight 0 are left out of both.
        blocks: characters' blocks as typed, an outer one before one inside it; none in the flat form.
    """

    text: str
    places: tuple[TagPlace, ...]
    blocks: tuple[BlockPlace, ...] = ()


class _Writer:
    """Writes nodes as typed, without comments, entities decoded."""

    def __init__(self, source: str, only: str | None = None) -> None:
        self.source = source
        self.only = only  # the group that is written; blocks of other characters inside it are left out
        self.out: list[str] = []
        self.length = 0
        self.places: list[TagPlace] = []
        self.blocks: list[BlockPlace] = []
        self.position = 0
        self.fixed = 0

    def put(self, text: str) -> None:
        if text:
            self.out.append(text)
            self.length += len(text)

    def gap(self, until: int) -> None:
        """What stands between the last node and `until`, as typed."""
        if until > self.position:
            self.put(self.source[self.position : until])
            self.position = until

    def drop_separator(self) -> None:
        """Take back the separator that led to a tag that is left out at the end of its list."""
        while len(self.out) > self.fixed:
            last = self.out[-1]
            kept = _TRAILING.sub("", last)
            if kept == last or (last.isspace() and "\n" in last):
                return
            self.length -= len(last) - len(kept)
            if kept:
                self.out[-1] = kept
                return
            self.out.pop()
            return

    def nodes(self, nodes: tuple[Node, ...], group: str, end: int) -> None:
        dropped = beside = False
        for index, node in enumerate(nodes):
            if isinstance(node, Tag):
                if dropped:
                    self.position = max(self.position, node.start)
                self.gap(node.start)
                dropped = node.weight == 0.0
                if dropped:
                    self.position = max(self.position, node.end)
                    if not any(isinstance(n, Tag) for n in nodes[index + 1 :][:64]):
                        self.drop_separator()
                        self.position = max(self.position, self._after_separator(end))
                        dropped = False
                    continue
                if beside:
                    self.part(node.section.rpartition(".")[2] in grammar.PROSE)
                beside = True
                self.places.append(TagPlace(node, self.length, self.length + len(node.text), group))
                self.put(node.text)
                self.fixed = len(self.out)
                self.position = max(self.position, node.end)
            elif isinstance(node, Comment):
                if not dropped:
                    self.gap(node.start)
                self.position = max(self.position, node.end)
            else:
                dropped = beside = False
                self.gap(node.start)
                self.element(node, group)

    def _after_separator(self, end: int) -> int:
        """The offset after the separators that follow, at most `end`."""
        match = re.compile(r"[ \t,，、]*").match(self.source, self.position, end)
        return match.end() if match else self.position

    def part(self, prose: bool) -> None:
        """Keep the next tag apart from the one before it where a comment was all that did: a comma follows
        that one. In a caption, which is language, only words that would run together are parted.
        """
        between = "".join(self.out[self.fixed :])
        if any(c in between for c in _SEPARATORS) or (prose and between):
            return
        self.out.insert(self.fixed, ",")
        self.length += 1
        if not between:
            self.put(" ")

    def element(self, node: Element, group: str) -> None:
        if node.own_weight == 0.0:
            self.position = node.end
            return
        block: int | None = None
        if (
            node.known
            and node.path == node.key
            and grammar.character_number(node.key.partition("#")[0]) is not None
        ):
            if self.only not in (None, node.key):
                self.position = node.end
                return
            group = node.key
            block = len(self.blocks)
            self.blocks.append(BlockPlace(group, self.length, self.length))
        self.gap(node.inner_start)
        self.nodes(node.children, group, node.inner_end)
        self.gap(node.inner_end)
        if not node.closed:
            self.put(f"</{node.name}>")
        else:
            self.gap(node.end)
        if block is not None:
            self.blocks[block] = replace(self.blocks[block], end=self.length)

    def result(self) -> PlacedText:
        return PlacedText("".join(self.out), tuple(self.places), tuple(self.blocks))


def whole_text(prompt: Prompt) -> PlacedText:
    """The whole prompt as the encoders read it: as typed, comments removed, entities decoded, weight 0 left
    out.
    """
    writer = _Writer(prompt.source)
    writer.nodes(prompt.tree, "general", len(prompt.source))
    writer.gap(len(prompt.source))
    return writer.result()


def _typed_group(prompt: Prompt, group: Group) -> PlacedText:
    if prompt.kind != "xml":
        return whole_text(prompt)
    writer = _Writer(prompt.source, group.key)
    if group.key == "general":
        _general_nodes(writer, prompt.tree)
    else:
        for element in group.elements:
            writer.position = element.start
            writer.element(element, group.key)
    return writer.result()


def _general_nodes(writer: _Writer, nodes: tuple[Node, ...]) -> None:
    """Everything at the top that is no character, one block a line; roots are opened, not written."""
    for index, node in enumerate(nodes):
        if isinstance(node, Element):
            if node.key in grammar.ROOTS and node.known:
                if node.own_weight != 0.0:
                    _general_nodes(writer, node.children)
                continue
            if node.known and grammar.character_number(node.key.partition("#")[0]) is not None:
                continue
            if node.own_weight == 0.0:
                continue
        elif isinstance(node, Comment) or node.weight == 0.0:
            continue
        beside = isinstance(node, Tag) and index > 0 and isinstance(nodes[index - 1], Tag)
        writer.put("" if not writer.out else ", " if beside else "\n")
        writer.position = node.start
        writer.nodes((node,), "general", node.end)


@dataclass(frozen=True, slots=True)
class FlatTag:
    """One item of the flat sequence; `written` is `[char1]blue_hair` for a character's tag."""

    written: str
    tag: Tag
    group: str


def flat_tags(prompt: Prompt) -> Iterator[FlatTag]:
    """The flat sequence, in the order of the source; tags of weight 0 are left out."""
    owners = {tag.path: group.key for group in prompt.characters for tag in group.tags}
    for tag in prompt.tags:
        if tag.weight == 0.0:
            continue
        owner = owners.get(tag.path, "general")
        prefix = "" if owner == "general" else f"[char{owner[10:]}]"
        yield FlatTag(prefix + tag.text, tag, owner)


def _flat(items: Iterator[FlatTag] | list[FlatTag]) -> PlacedText:
    out: list[str] = []
    places: list[TagPlace] = []
    length = 0
    for item in items:
        if out:
            length += 2
        end = length + len(item.written)
        places.append(TagPlace(item.tag, end - len(item.tag.text), end, item.group))
        out.append(item.written)
        length = end
    return PlacedText(", ".join(out), tuple(places))


def flatten(prompt: Prompt) -> PlacedText:
    """`[char1]blue_hair, [char1]long_twintails, rainy_day`: one line, with each tag's place in it and in the
    source.

    General tags carry no prefix; tags of weight 0 are left out.
    """
    return _flat(flat_tags(prompt))


def group_texts(prompt: Prompt, form: TextForm = "typed") -> dict[str, PlacedText]:
    """The text of each group, by its key: `character_1`, …, `general`, each with its tags' places.

    Args:
        form: `typed` gives a character's block as typed, and everything that is no character without the
            root;
            `flat` gives the tags in a row without prefixes.
    """
    if form == "typed":
        return {group.key: _typed_group(prompt, group) for group in prompt.groups}
    rows: dict[str, list[FlatTag]] = {group.key: [] for group in prompt.groups}
    for item in flat_tags(prompt):
        rows[item.group].append(FlatTag(item.tag.text, item.tag, item.group))
    return {key: _flat(row) for key, row in rows.items()}


def encoder_text(prompt: Prompt, form: TextForm = "typed") -> PlacedText:
    """The whole text in one of the two forms that encoders can be given."""
    return whole_text(prompt) if form == "typed" else flatten(prompt)
