"""What a prompt is once it is read: frozen values that all point back into the text as typed."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from newbie_image.prompt.diagnostics import Diagnostic
    from newbie_image.prompt.flatten import TextForm

Kind = Literal["xml", "tags", "sentence"]


class Source:
    """The text as typed and where its lines begin; shared by everything that was read from it."""

    __slots__ = ("_starts", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._starts: list[int] | None = None

    def place(self, offset: int) -> tuple[int, int]:
        """(line, column) of an offset, both from 1; columns count characters."""
        if self._starts is None:
            starts = [0]
            position = self.text.find("\n")
            while position >= 0:
                starts.append(position + 1)
                position = self.text.find("\n", position + 1)
            self._starts = starts
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the source: offsets in characters from 0, line and column of its start from 1."""

    start: int
    end: int
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag, or one caption.

    Args:
        text: the literal tag, as a model receives it: entities and escapes decoded.
        start, end: where it stands in the source.
        section: path of the section, `character_1.appearance`.
        index: place in the section, from 0.
        weight: effective weight: its own times those of the elements around it, in {0} ∪ [0.1, 3].
        own_weight: the weight written before this very tag, None where there is none.
        document: the text it was read from.
    """

    text: str
    start: int
    end: int
    section: str
    index: int
    weight: float
    own_weight: float | None
    document: Source = field(repr=False, compare=False)

    @property
    def path(self) -> str:
        """`character_1.appearance[2]`."""
        return f"{self.section}[{self.index}]"

    @property
    def raw(self) -> str:
        """The tag as typed."""
        return self.document.text[self.start : self.end]

    @property
    def span(self) -> Span:
        return Span(self.start, self.end, *self.document.place(self.start))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment, or another stretch that no model receives.

    Args:
        kind: `weight`, `note`, `version`, `cdata` (a marker of a CDATA stretch) or `declaration`.
        text: what it says, without its marks.
        value: the number of a weight, clamped to [0, 3].
    """

    kind: Literal["weight", "note", "version", "cdata", "declaration"]
    text: str
    start: int
    end: int
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Element:
    """An element of the tree.

    Args:
        key: canonical name (`n`, `character_1`), or the name as written where it is unknown.
        name: the name as written.
        known: whether the grammar has it.
        start, end: the whole element; inner_start, inner_end: what is between its marks.
        attributes: what stands after the name, as typed.
        own_weight: the weight written before it, None where there is none.
        weight: product of its own weight and those around it, before clamping.
        path: `character_1.appearance`.
        children: what it holds, in order; the separators are the gaps between them.
        closed: False where its end was missing and is assumed.
    """

    key: str
    name: str
    known: bool
    start: int
    end: int
    inner_start: int
    inner_end: int
    attributes: str
    own_weight: float | None
    weight: float
    path: str
    children: tuple[Node, ...]
    closed: bool = True


Node = Element | Tag | Comment


@dataclass(frozen=True, slots=True)
class Section:
    """All that one path holds: `character_1.appearance`, also where the element was written twice.

    Args:
        path: the path; name: its last part, canonical.
        tags: in order.
        elements: the elements that were written for it; empty for text that stands in no field.
    """

    path: str
    name: str
    tags: tuple[Tag, ...]
    elements: tuple[Element, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(tag.text for tag in self.tags)


@dataclass(frozen=True)
class Group:
    """The sections that belong together: a character's, or the general ones.

    Args:
        key: `character_1`, or `general`.
        sections: in the order in which they first appear.
        elements: the blocks in the source.
    """

    key: str
    sections: tuple[Section, ...]
    elements: tuple[Element, ...]
    prompt_of: list[Prompt] = field(default_factory=list, repr=False, compare=False)

    @property
    def tags(self) -> tuple[Tag, ...]:
        """All tags, section by section."""
        return tuple(tag for section in self.sections for tag in section.tags)

    def section(self, name: str) -> Section | None:
        """The first section of that name (`appearance`), None where there is none."""
        return next((s for s in self.sections if s.name == name), None)

    def get(self, name: str) -> tuple[str, ...]:
        """The literal tags of a field, over all sections of that name; empty where it is missing."""
        return tuple(tag.text for s in self.sections if s.name == name for tag in s.tags)


@dataclass(frozen=True)
class Character(Group):
    """One `<character_N>` block. `number` is N; a block without one has the first free number."""

    number: int = 1

    @property
    def name(self) -> str | None:
        """The first name in `<n>`, None where it has none."""
        names = self.get("n")
        return names[0] if names else None

    @property
    def gender(self) -> str | None:
        """The first tag of `<gender>`, None where it has none."""
        return next(iter(self.get("gender")), None)

    @property
    def position(self) -> str | None:
        """The place word or the box `x0,y0,x1,y1`, as written; None without one."""
        return next(iter(self.get("position")), None)

    def set(self, name: str, tags: str | Iterable[str]) -> Prompt:
        """The prompt with this field's tags replaced; the field is added where it is missing."""
        from newbie_image.prompt.edit import set_field

        return set_field(self.prompt_of[0], self, name, tags)

    def add(self, name: str, *tags: str) -> Prompt:
        """The prompt with tags put at the end of this field."""
        from newbie_image.prompt.edit import add_tags

        return add_tags(self.prompt_of[0], self, name, tags)


@dataclass(frozen=True)
class Prompt:
    """A prompt that was read. Two prompts are equal where their texts are; `meaning()` compares what they
    say.

    Args:
        source: the text, as typed.
        kind: `xml`, `tags` (a plain list) or `sentence`.
        root: the root element's name as written, None without one.
        tree: elements, tags and comments in order; separators and spacing are the gaps between them.
        characters: the character blocks, in order.
        general: everything that belongs to no character.
        tags: all tags in the order of the source.
        diagnostics: what the parser had to assume or found odd; `check` says more.
        version: text of the version note, None without one.
    """

    source: str
    kind: Kind = field(compare=False)
    root: str | None = field(compare=False)
    tree: tuple[Node, ...] = field(compare=False, repr=False)
    characters: tuple[Character, ...] = field(compare=False)
    general: Group = field(compare=False)
    tags: tuple[Tag, ...] = field(compare=False, repr=False)
    diagnostics: tuple[Diagnostic, ...] = field(compare=False, repr=False)
    version: str | None = field(compare=False)
    document: Source = field(compare=False, repr=False)

    @cached_property
    def encoder_text(self) -> str:
        """What the encoders read: as typed, comments removed, entities decoded, tags of weight 0 left out."""
        from newbie_image.prompt.flatten import whole_text

        return whole_text(self).text

    def texts(self, form: TextForm = "typed") -> dict[str, object]:
        """The text of each group; see :func:`newbie_image.prompt.flatten.group_texts`."""
        from newbie_image.prompt.flatten import group_texts

        return dict(group_texts(self, form))

    @property
    def groups(self) -> tuple[Group, ...]:
        """The characters in order, then the general group."""
        return (*self.characters, self.general)

    def character(self, number: int) -> Character:
        """The character with that number.

        Raises:
            PromptError: there is none.
        """
        from newbie_image.errors import PromptError

        for character in self.characters:
            if character.number == number:
                return character
        have = ", ".join(str(c.number) for c in self.characters) or "none"
        raise PromptError(f"there is no character {number}; this prompt has {have}; add <character_{number}>")

    def tag(self, path: str) -> Tag:
        """The tag at a path such as `character_1.appearance[2]`.

        Raises:
            PromptError: there is none.
        """
        from newbie_image.errors import PromptError

        for tag in self.tags:
            if tag.path == path:
                return tag
        raise PromptError(f"there is no tag at {path!r}; `newbie prompt flatten` lists the paths of a prompt")

    def meaning(self) -> tuple[object, ...]:
        """What the prompt says, without spacing, notes and spelling of marks: comparable between prompts."""
        sections = tuple(
            (s.path, tuple((t.text, t.weight) for t in s.tags))
            for g in self.groups
            for s in g.sections
            if s.tags
        )
        return (self.kind, self.version, sections)

    def with_weight(self, path: str, weight: float) -> Prompt:
        """The prompt with the tag or section at `path` weighed `weight` (0 to 3; 1 removes the comment)."""
        from newbie_image.prompt.edit import with_weight

        return with_weight(self, path, weight)

    def without(self, path: str) -> Prompt:
        """The prompt without the tag at `path`."""
        from newbie_image.prompt.edit import without

        return without(self, path)

    def with_character(self, number: int | None = None, **fields: str | Iterable[str]) -> Prompt:
        """The prompt with another character: `prompt.with_character(gender="1girl", appearance="red_hair")`.

        Its number is the one after the highest where none is given.
        """
        from newbie_image.prompt.edit import add_character

        return add_character(self, fields, number)

    def swap_characters(self, first: int, second: int) -> Prompt:
        """The prompt with the contents of two character blocks exchanged; numbers and order stay."""
        from newbie_image.prompt.edit import swap_characters

        return swap_characters(self, first, second)

    def set(self, name: str, tags: str | Sequence[str]) -> Prompt:
        """The prompt with a field of the general tags or the environment replaced or added."""
        from newbie_image.prompt.edit import set_field

        return set_field(self, self.general, name, tags)

    def with_diagnostics(self, diagnostics: Iterable[Diagnostic]) -> Prompt:
        """The same prompt with these diagnostics in place of its own."""
        return replace(self, diagnostics=tuple(diagnostics))

    def __str__(self) -> str:
        return self.source
