"""What is probably wrong with a prompt, with stable codes and, where possible, the edit that mends it.

Each rule is a generator over the prompt; :func:`check` adds what the parser had to say and sorts by place.
Nothing here
changes how a prompt is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from newbie_image.prompt import fields, grammar
from newbie_image.prompt.diagnostics import Diagnostic, Edit, Fix, apply_edits
from newbie_image.prompt.document import Character, Prompt, Tag
from newbie_image.prompt.lint_counts import counts
from newbie_image.prompt.lint_foreign import FOREIGN_RULES
from newbie_image.prompt.lint_marks import MARK_RULES
from newbie_image.prompt.lint_people import PEOPLE_RULES
from newbie_image.prompt.parse import parse
from newbie_image.prompt.remarks import Remark, removal
from newbie_image.prompt.vocabulary import vocabulary
from newbie_image.prompt.write import escape

_SIZE = re.compile(r"^(\d{2,5})\s*[x×*]\s*(\d{2,5})$", re.IGNORECASE)
_BRACKETED = re.compile(r"\A[({\[]|[}\]]\Z|::|\A[^(]*\)\Z")
"""A tag with a bracket of another program's weight, which is no letter too many."""
_UNSPLIT = frozenset({"n", "artists", "caption", "position", "resolution", "count"})


def check(
    prompt: Prompt, *, size: tuple[int, int] | None = None, negative: bool = False
) -> tuple[Diagnostic, ...]:
    """All diagnostics of a prompt, the parser's own included, by place.

    Args:
        prompt: any prompt.
        size: (width, height) of the picture in pixels, to be compared with `<resolution>`.
        negative: it says what to steer away from, and needs neither people nor suggested fields.
    """
    found = list(prompt.diagnostics)
    rules: list[Callable[[Prompt], Iterator[Remark]]] = [*TAG_RULES]
    if prompt.kind == "xml":
        rules += [*STRUCTURE_RULES, *PEOPLE_RULES, counts]
    if negative:
        rules = [rule for rule in rules if rule not in (no_character, missing_fields)]
    for rule in rules:
        found += (remark.diagnostic(prompt) for remark in rule(prompt))
    if size is not None:
        found += (remark.diagnostic(prompt) for remark in resolutions(prompt, size))
    severities = {"error": 0, "warning": 1, "hint": 2}
    return tuple(sorted(found, key=lambda d: (d.start, severities[d.severity], d.code)))


def fix(prompt: Prompt, *, strict: bool = True, rounds: int = 8) -> tuple[Prompt, tuple[Diagnostic, ...]]:
    """The prompt with every known fix applied, and the diagnostics that were mended.

    Fixes that overlap are applied one after the other, small ones first, so that at most `rounds` readings
    are made.
    """
    mended: list[Diagnostic] = []
    for _ in range(rounds):
        taken: list[Edit] = []
        fixes = [(d, d.fix.edits) for d in check(prompt) if d.fix is not None]
        fixes.sort(key=lambda fix: sum(edit.end - edit.start for edit in fix[1]))
        for diagnostic, edits in fixes:
            if any((e.start < t.end and t.start < e.end) or e.start == t.start for e in edits for t in taken):
                continue
            taken += edits
            mended.append(diagnostic)
        text = apply_edits(prompt.source, taken)
        if text == prompt.source:
            break
        prompt = parse(text, strict=strict)
    return prompt, tuple(mended)


def misspelt_tags(prompt: Prompt) -> Iterator[Remark]:
    """A tag that is one letter away from a known one."""
    words = vocabulary()
    seen: dict[str, str | None] = {}
    for tag, name in _field_tags(prompt):
        if name in _UNSPLIT:
            continue
        if tag.text not in seen:
            seen[tag.text] = None if _BRACKETED.search(tag.text) else words.correction(tag.text)
        right = seen[tag.text]
        if right is not None:
            yield Remark(
                "misspelt-tag",
                "warning",
                f"{tag.text!r} is no known tag; did you mean {right}?",
                tag.start,
                tag.end,
                tag.path,
                Fix(f"write {right}", (Edit(tag.start, tag.end, right),)),
            )


def spaces(prompt: Prompt) -> Iterator[Remark]:
    """A tag with spaces that the vocabulary knows with underscores."""
    words = vocabulary()
    for tag, name in _field_tags(prompt):
        if name not in ("caption",) and " " in tag.text:
            entry = words.get(tag.text)
            if entry is not None:
                yield Remark(
                    "tag-with-spaces",
                    "hint",
                    f"{tag.text!r} is the tag {entry.tag}; tags have underscores",
                    tag.start,
                    tag.end,
                    tag.path,
                    Fix(f"write {entry.tag}", (Edit(tag.start, tag.end, entry.tag),)),
                )


def duplicates(prompt: Prompt) -> Iterator[Remark]:
    """A tag that its group already has."""
    for group in prompt.groups:
        first: dict[str, Tag] = {}
        for section in group.sections:
            for tag in section.tags:
                if section.name in ("caption", "position", "gender") or tag.weight == 0:
                    continue
                key = tag.text.lower().replace(" ", "_")
                if key in first:
                    earlier = first[key]
                    repair = None
                    if earlier.section == tag.section:
                        repair = removal(prompt, tag)
                    yield Remark(
                        "duplicate-tag",
                        "warning",
                        f"{tag.text!r} is already there at {earlier.path}; "
                        "say it once, with a weight if it matters",
                        tag.start,
                        tag.end,
                        tag.path,
                        repair,
                    )
                else:
                    first[key] = tag


def escaped_twice(prompt: Prompt) -> Iterator[Remark]:
    """An entity that is still there after decoding: somebody escaped what was escaped already."""
    for tag in prompt.tags:
        if "&" in tag.text and (plain := fields.decode(tag.text)) != tag.text:
            right = escape(plain, prose=tag.section.endswith("caption"))
            yield Remark(
                "escaped-twice",
                "warning",
                f"{tag.text[:60]!r} reaches the model letter by letter; write {plain[:60]!r}",
                tag.start,
                tag.end,
                tag.path,
                Fix(f"write {right[:60]}", (Edit(tag.start, tag.end, right),)),
            )


TAG_RULES = (escaped_twice, misspelt_tags, spaces, duplicates, *FOREIGN_RULES, *MARK_RULES)


def no_character(prompt: Prompt) -> Iterator[Remark]:
    """A prompt with elements and without a person."""
    if not prompt.characters:
        yield Remark(
            "no-character",
            "warning",
            "there is no <character_1>; put what belongs to a person into one",
            0,
            0,
        )


def missing_fields(prompt: Prompt) -> Iterator[Remark]:
    """A suggested field or block that is not there."""
    for character in prompt.characters:
        for field in grammar.CHARACTER.fields:
            if field.suggested and character.section(field.name) is None:
                at = character.elements[0]
                yield Remark(
                    "missing-field",
                    "hint",
                    f"{character.key} has no <{field.name}>: {field.doc}",
                    at.start,
                    at.inner_start,
                    character.key,
                )
    if not any(e.key == grammar.GENERAL.name for e in prompt.general.elements):
        yield Remark(
            "missing-field", "hint", f"there is no <{grammar.GENERAL.name}>: {grammar.GENERAL.doc}", 0, 0
        )


def empty_fields(prompt: Prompt) -> Iterator[Remark]:
    """An element without a tag."""
    for group in prompt.groups:
        for section in group.sections:
            for element in section.elements:
                if not section.tags and not element.children:
                    mend = Fix("remove it", (Edit(element.start, element.end, ""),))
                    yield Remark(
                        "empty-field",
                        "warning",
                        f"<{element.name}> is empty; fill it or remove it",
                        element.start,
                        element.end,
                        section.path,
                        mend if element.own_weight is None else None,
                    )
        if isinstance(group, Character) and not group.sections:
            element = group.elements[0]
            yield Remark(
                "empty-field",
                "warning",
                f"<{element.name}> is empty; say what this person looks like",
                element.start,
                element.end,
                group.key,
            )


def misplaced(prompt: Prompt) -> Iterator[Remark]:
    """Tags outside any field, fields of a person outside a person, fields in fields."""
    for group in prompt.groups:
        for section in group.sections:
            if section.name == "text" and section.tags and not section.elements:
                tag = section.tags[0]
                where = f"of {group.key}" if isinstance(group, Character) else "of <general_tags>"
                yield Remark(
                    "loose-text",
                    "warning",
                    f"{tag.text[:40]!r} stands in no field; put it into a field {where}",
                    tag.start,
                    section.tags[-1].end,
                    section.path,
                )
            parts = section.path.split(".")
            if group.key == "general" and section.elements and section.elements[0].known:
                shared = section.name in grammar.GENERAL_FIELDS or section.name in grammar.ENVIRONMENT_FIELDS
                if section.name in grammar.CHARACTER_FIELDS and not shared:
                    at = section.elements[0]
                    yield Remark(
                        "field-outside-character",
                        "warning",
                        f"<{at.name}> stands in no character; put it into <character_1>",
                        at.start,
                        at.inner_start,
                        section.path,
                    )
            if len(parts) > 2 and all(p in grammar.FIELDS for p in parts[1:]) and parts[-2] != "environment":
                at = section.elements[0]
                yield Remark(
                    "nested-field",
                    "warning",
                    f"<{at.name}> stands inside <{parts[-2]}>; close that first",
                    at.start,
                    at.inner_start,
                    section.path,
                )
            if (
                isinstance(group, Character)
                and len(parts) == 2
                and section.elements
                and section.elements[0].known
                and section.name in grammar.GENERAL_FIELDS
                and section.name not in grammar.CHARACTER_FIELDS
            ):
                at = section.elements[0]
                yield Remark(
                    "field-outside-general",
                    "warning",
                    f"<{at.name}> is about the picture; put it into <general_tags>",
                    at.start,
                    at.inner_start,
                    section.path,
                )


STRUCTURE_RULES = (no_character, missing_fields, empty_fields, misplaced)


def resolutions(prompt: Prompt, size: tuple[int, int]) -> Iterator[Remark]:
    """`<resolution>` that says another size than the picture has."""
    for section in (s for g in prompt.groups for s in g.sections if s.name == "resolution"):
        for tag in section.tags:
            match = _SIZE.match(tag.text)
            if match and (int(match[1]), int(match[2])) != size:
                yield Remark(
                    "resolution-disagrees",
                    "warning",
                    f"<resolution> says {tag.text}, the picture is "
                    f"{size[0]}x{size[1]}; the tag does not set the size, the option --resolution does",
                    tag.start,
                    tag.end,
                    tag.path,
                )


def _field_tags(prompt: Prompt) -> Iterator[tuple[Tag, str]]:
    for group in prompt.groups:
        for section in group.sections:
            for tag in section.tags:
                yield tag, section.name
