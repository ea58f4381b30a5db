"""The rules about people: who is merged with whom, who contradicts himself, who stands where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from newbie_image.prompt import grammar
from newbie_image.prompt.diagnostics import Edit, Fix
from newbie_image.prompt.document import Character, Comment, Element, Prompt, Section, Tag
from newbie_image.prompt.people_words import people_in, series_among
from newbie_image.prompt.remarks import Remark, removal
from newbie_image.prompt.vocabulary import BLENDS, FIRM_GROUPS, Entry, implied, vocabulary
from newbie_image.prompt.words import has_cjk, read_compound

_LONGEST_COMPOUND = 48
_PERSONAL = frozenset(
    {
        "hair_color",
        "hair_length",
        "hairstyle",
        "bangs",
        "hair_detail",
        "eye_color",
        "eyes",
        "ears_and_tail",
        "face",
        "expression",
        "eye_state",
        "body_type",
        "skin",
    }
)


class _Said(NamedTuple):
    """A word of the vocabulary in a prompt: a tag, or a part of a compound such as 蓝发双马尾."""

    entry: Entry
    text: str
    tag: Tag
    start: int
    end: int


def _said(tag: Tag) -> list[_Said]:
    """The words that a tag says: one for a tag or name that the vocabulary knows, several for a compound of
    Chinese or Japanese names; none where anything in it is not understood.
    """
    words = vocabulary()
    entry = words.named(tag.text)
    if entry is not None:
        return [_Said(entry, tag.text, tag, tag.start, tag.end)]
    if tag.text.isascii() or len(tag.text) > _LONGEST_COMPOUND or not has_cjk(tag.text):
        return []
    found, missed = read_compound(tag.text)
    if missed:
        return []
    plain = tag.raw == tag.text
    return [
        _Said(
            entry,
            word.written,
            tag,
            tag.start + word.start if plain else tag.start,
            tag.start + word.end if plain else tag.end,
        )
        for word in found
        if (entry := words.get(word.tag)) is not None
    ]


def _grouped(said: Iterable[_Said]) -> dict[str, dict[str, _Said]]:
    """Exclusivity group → the words of it by their entry in the vocabulary, in order, each entry once,
    however it is spelt.
    """
    groups: dict[str, dict[str, _Said]] = {}
    for word in said:
        if word.entry.group and word.tag.weight > 0:
            groups.setdefault(word.entry.group, {}).setdefault(word.entry.tag, word)
    return groups


def _named(section: Section) -> int:
    """How many people `<n>` names: its elements or its different tags, without those that name a series."""
    series = {tag.start for tag in series_among(section.tags)}
    tags = [tag for tag in section.tags if tag.start not in series]
    filled = sum(
        any(not isinstance(c, Comment) and c.start not in series for c in e.children)
        for e in section.elements
    )
    return max(filled, len({tag.text for tag in tags}))


def _genders(section: Section) -> list[str]:
    """The gender of each person that `<gender>` speaks of, in order: `2girls` speaks of two."""
    out: list[str] = []
    for tag in section.tags:
        said = people_in(tag.text)
        out += [f"1{said.who}"] * said.number if said and said.number > 1 else [tag.text]
    return out


def holds_several(character: Character) -> bool:
    """Whether a block names several people, or has several genders."""
    names, genders = character.section("n"), character.section("gender")
    return (names is not None and _named(names) > 1) or (genders is not None and len(_genders(genders)) > 1)


def merged(prompt: Prompt) -> Iterator[Remark]:
    """Several people in one block: two names, or two genders."""
    for character in prompt.characters:
        names, genders = character.section("n"), character.section("gender")
        named = 0 if names is None else _named(names)
        people = max(named, 0 if genders is None else len(_genders(genders)))
        if people < 2:
            continue
        block = character.elements[0]
        what = "names" if named >= 2 else "genders"
        told = ", ".join(
            t.text for t in (names.tags if named >= 2 and names else genders.tags if genders else ())
        )
        yield Remark(
            "merged-characters",
            "warning",
            f"{character.key} has {people} {what} ({told[:80]}); give each person a block of its own",
            block.start,
            block.inner_start,
            character.key,
            _split(prompt, character, people),
        )


def _split(prompt: Prompt, character: Character, people: int) -> Fix | None:
    """Blocks for each person: the k-th name, the k-th gender, and tags dealt out where a second value of a
    group begins.

    Only offered where names or genders and values agree in number and everything is in plain fields.
    """
    from newbie_image.prompt.write import written_tag

    block = character.elements[0]
    if len(character.elements) != 1 or not block.closed or people > 16 or block.own_weight is not None:
        return None
    fields = [c for c in block.children if isinstance(c, Element)]
    if any(
        not e.known or any(isinstance(c, Element) for c in e.children) or e.own_weight is not None
        for e in fields
    ):
        return None
    if any(s.name == "text" for s in character.sections):
        return None
    notes = [c for e in (block, *fields) for c in e.children if isinstance(c, Comment) and c.kind == "note"]
    blocks: list[list[str]] = [
        [f"  <!-- {note.text} -->" for note in notes],
        *([] for _ in range(people - 1)),
    ]
    for section in character.sections:
        texts: list[list[str]] | None = None
        if section.name == "n":
            series = series_among(section.tags)
            names = [tag for tag in section.tags if tag not in series]
            if len(names) == people:
                texts = [[written_tag(tag) for tag in (name, *series)] for name in names]
        elif section.name == "gender" and len(genders := _genders(section)) == people:
            whole = len(section.tags) == people
            texts = [[written_tag(tag)] for tag in section.tags] if whole else [[each] for each in genders]
        if texts is None:
            parts = _deal(section.tags, people)
            if parts is None:
                return None
            texts = [[written_tag(tag) for tag in part] for part in parts]
        for lines, written in zip(blocks, texts, strict=True):
            if written:
                lines.append(f"  <{section.name}>{', '.join(written)}</{section.name}>")
    used = {c.number for c in prompt.characters if c is not character}
    numbers = [n for n in range(character.number, character.number + people + len(used)) if n not in used][
        :people
    ]
    made = [
        "\n".join([f"<character_{n}>", *lines, f"</character_{n}>"])
        for n, lines in zip(numbers, blocks, strict=True)
    ]
    return Fix(f"write {people} blocks", (Edit(block.start, block.end, "\n".join(made)),))


def _deal(tags: tuple[Tag, ...], people: int) -> list[list[Tag]] | None:
    """Tags cut into one stretch a person, None where it is not clear how.

    A new stretch begins where a tag's group has a value already.
    """
    if not tags:
        return [[] for _ in range(people)]
    words = vocabulary()
    parts: list[list[Tag]] = [[]]
    taken: set[str] = set()
    for tag in tags:
        entry = words.named(tag.text)
        group = entry.group if entry else ""
        if group and group in taken:
            parts.append([])
            taken = set()
        if group:
            taken.add(group)
        parts[-1].append(tag)
    if len(parts) != people:
        parts = [[t] for t in tags] if len(tags) == people else [list(tags)] if len(parts) == 1 else []
    if len(parts) == 1:
        return [list(tags)] + [[] for _ in range(people - 1)]
    return parts or None


def contradictions(prompt: Prompt) -> Iterator[Remark]:
    """Two values of which one person has one: two hair colours, short and long hair, in any language that the
    vocabulary knows.
    """
    for character in prompt.characters:
        said = [w for s in character.sections if s.name != "caption" for t in s.tags for w in _said(t)]
        known = {word.entry.tag for word in said}
        for group, tags in _grouped(said).items():
            if group not in FIRM_GROUPS or len(tags) < 2 or known & BLENDS.get(group, set()):
                continue
            if group == "gender":
                continue
            for index, (name, word) in enumerate(tags.items()):
                earlier = islice(tags.items(), index)
                first = next((w for other, w in earlier if not _agree(other, name)), None)
                if first is None:
                    continue
                yield Remark(
                    "contradiction",
                    "warning",
                    f"{word.text} contradicts {first.text} in {character.key}: a person "
                    f"has one {group.replace('_', ' ')}; keep one, or write another character",
                    word.start,
                    word.end,
                    word.tag.path,
                )


def _agree(a: str, b: str) -> bool:
    """Whether one tag only says more closely what the other says: long_hair and very_long_hair."""
    return a in implied(b) or b in implied(a)


def personal_in_general(prompt: Prompt) -> Iterator[Remark]:
    """Hair, eyes or face among the general tags, where they colour everybody."""
    if not prompt.characters:
        return
    for section in prompt.general.sections:
        if section.name == "caption":
            continue
        for tag in section.tags:
            word = next((w for w in _said(tag) if w.entry.category in _PERSONAL), None)
            if word is not None:
                field = word.entry.field
                repair = None
                if len(prompt.characters) == 1 and word.text == tag.text:
                    repair = _move(prompt, tag, prompt.characters[0], field)
                yield Remark(
                    "attribute-in-general",
                    "warning",
                    f"{word.text} belongs to a person; write it into that character's <{field}>",
                    word.start,
                    word.end,
                    tag.path,
                    repair,
                )


def _move(prompt: Prompt, tag: Tag, character: Character, field: str) -> Fix | None:
    section = character.section(field)
    gone = removal(prompt, tag)
    if section is None or not section.tags or gone is None:
        return None
    end = section.tags[-1].end
    return Fix(f"move it to {character.key}", (*gone.edits, Edit(end, end, ", " + tag.raw)))


def numbering(prompt: Prompt) -> Iterator[Remark]:
    """Numbers that repeat, leave a gap or do not begin at 1."""
    seen: set[int] = set()
    repair = _renumber(prompt)
    for character in prompt.characters:
        block = character.elements[0]
        if character.number in seen:
            yield Remark(
                "repeated-number",
                "warning",
                f"<{block.name}> is there already; number the characters 1, 2, 3",
                block.start,
                block.inner_start,
                character.key,
                repair,
            )
        seen.add(character.number)
    if seen and seen != set(range(1, len(seen) + 1)):
        missing = next(n for n in range(1, len(seen) + 2) if n not in seen)
        after = next(c for c in prompt.characters if c.number > missing or c.number < 1)
        block = after.elements[0]
        yield Remark(
            "numbering-gap",
            "warning",
            f"there is no character {missing}; number the characters 1, 2, 3 without gaps",
            block.start,
            block.inner_start,
            after.key,
            repair,
        )


def _renumber(prompt: Prompt) -> Fix | None:
    """The fix that numbers the blocks in the order in which they stand."""
    if len(prompt.characters) > 64:
        return None
    edits: list[Edit] = []
    for number, character in enumerate(prompt.characters, 1):
        block = character.elements[0]
        if not block.closed or block.name.lower() == "character":
            return None
        for begin, end in ((block.start, block.inner_start), (block.inner_end, block.end)):
            at = prompt.source.find(block.name, begin, end)
            if at >= 0 and block.name != f"character_{number}":
                edits.append(Edit(at, at + len(block.name), f"character_{number}"))
    return Fix("number the characters in order", tuple(edits)) if edits else None


def repeated_names(prompt: Prompt) -> Iterator[Remark]:
    """Two characters of one name."""
    first: dict[str, Character] = {}
    for character in prompt.characters:
        section = character.section("n")
        for tag in section.tags if section else ():
            name = tag.text.lower().replace(" ", "_")
            other = first.setdefault(name, character)
            if other is not character:
                yield Remark(
                    "repeated-name",
                    "warning",
                    f"{character.key} has the name {tag.text} of {other.key}; the model will draw one person",
                    tag.start,
                    tag.end,
                    tag.path,
                )


def positions(prompt: Prompt) -> Iterator[Remark]:
    """Unknown places, boxes outside the picture, and two characters on one place."""
    taken: dict[str, Character] = {}
    guesses = 0
    for character in prompt.characters:
        section = character.section("position")
        for tag in section.tags if section else ():
            text = tag.text.strip().lower().replace(" ", "_").replace("-", "_")
            if grammar.is_box(tag.text):
                if grammar.position_box(tag.text) is None:
                    yield Remark(
                        "unknown-position",
                        "warning",
                        f"the box {tag.text} is not x0,y0,x1,y1 with 0 ≤ x0 < x1 ≤ 1 and 0 ≤ y0 < y1 ≤ 1",
                        tag.start,
                        tag.end,
                        tag.path,
                    )
                    continue
                text = ",".join(f"{v:g}" for v in grammar.position_box(tag.text) or ())
            elif text not in grammar.POSITIONS:
                near = _near_position(text) if guesses < 100 else None
                guesses += text not in grammar.POSITION_NAMES
                ask = (
                    f"; did you mean {near}?"
                    if near
                    else f"; use one of {', '.join(list(grammar.POSITIONS)[7:14])}, … or a box"
                )
                repair = Fix(f"write {near}", (Edit(tag.start, tag.end, near),)) if near else None
                yield Remark(
                    "unknown-position",
                    "warning",
                    f"{tag.text[:40]!r} is no known position{ask}",
                    tag.start,
                    tag.end,
                    tag.path,
                    repair,
                )
                continue
            elif text != tag.text:
                yield Remark(
                    "unknown-position",
                    "hint",
                    f"{tag.text!r} is written {text}",
                    tag.start,
                    tag.end,
                    tag.path,
                    Fix(f"write {text}", (Edit(tag.start, tag.end, text),)),
                )
            other = taken.setdefault(text, character)
            if other is not character:
                yield Remark(
                    "shared-position",
                    "warning",
                    f"{character.key} stands where {other.key} stands ({text})",
                    tag.start,
                    tag.end,
                    tag.path,
                )


def _near_position(text: str) -> str | None:
    if text in grammar.POSITION_NAMES:
        return grammar.POSITION_NAMES[text]
    swapped = "_".join(reversed(text.split("_")))
    if swapped in grammar.POSITIONS:
        return swapped
    if text.replace("middle", "center").replace("centre", "center") in grammar.POSITIONS:
        return text.replace("middle", "center").replace("centre", "center")
    import difflib

    return next(iter(difflib.get_close_matches(text[:40], grammar.POSITIONS, 1, 0.8)), None)


def nested_characters(prompt: Prompt) -> Iterator[Remark]:
    """A character's block inside another one's: it is read as a person of its own."""
    open_blocks: list[tuple[Element, str]] = []
    for block, key in sorted(
        ((e, c.key) for c in prompt.characters for e in c.elements), key=lambda b: b[0].start
    ):
        while open_blocks and open_blocks[-1][0].end <= block.start:
            open_blocks.pop()
        if open_blocks:
            outer = open_blocks[-1][0].name
            yield Remark(
                "nested-character",
                "warning",
                f"<{block.name}> stands inside <{outer}> and is read beside it; write </{outer}> before it",
                block.start,
                block.inner_start,
                key,
            )
        open_blocks.append((block, key))


PEOPLE_RULES = (
    merged,
    nested_characters,
    contradictions,
    personal_in_general,
    numbering,
    repeated_names,
    positions,
)
