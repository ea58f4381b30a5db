"""Changing a prompt: each function returns a new one whose text differs only where the change is.

The change is made in the source and the result is read again, so that spacing, notes and spelling of
everything else stay
as they were typed.
"""

from __future__ import annotations

from collections.abc import Iterable

from newbie_image.errors import PromptError
from newbie_image.prompt import grammar
from newbie_image.prompt.diagnostics import Edit, apply_edits
from newbie_image.prompt.document import Character, Comment, Element, Group, Node, Prompt, Section, Tag
from newbie_image.prompt.parse import parse
from newbie_image.prompt.write import escape, format_prompt, weight_mark

_REPAIRED = frozenset(
    {
        "missing-end",
        "stray-end",
        "start-for-end",
        "mismatched-end",
        "unterminated-comment",
        "unterminated-cdata",
    }
)


def _again(prompt: Prompt, *edits: Edit) -> Prompt:
    return parse(apply_edits(prompt.source, edits), strict=False)


def _sound(prompt: Prompt, path: str | None = None) -> Prompt:
    """The prompt, written anew where it was repaired: an edit in broken text may change its reading.

    So it is when the tag at `path` begins or ends inside a CDATA stretch, where a comment would be text.
    """
    if any(d.code in _REPAIRED for d in prompt.diagnostics) or (
        path is not None and _in_cdata(prompt.source, prompt.tag(path))
    ):
        return parse(format_prompt(prompt), strict=False)
    return prompt


def _in_cdata(source: str, tag: Tag) -> bool:
    return any(
        source.rfind("<![CDATA[", 0, edge) > source.rfind("]]>", 0, edge) for edge in (tag.start, tag.end)
    )


def _sound_group(prompt: Prompt, group: Group) -> tuple[Prompt, Group]:
    sound = _sound(prompt)
    if sound is prompt:
        return prompt, group
    return sound, next((g for g in sound.groups if g.key == group.key), sound.general)


def _list(tags: str | Iterable[str], name: str) -> str:
    if name in grammar.PROSE:
        return escape(tags if isinstance(tags, str) else " ".join(tags), prose=True)
    if isinstance(tags, str):
        if name == "position" and grammar.is_box(tags):
            return tags
        tags = parse(f"<other>{tags}</other>", strict=False).general.get("other")
    return ", ".join(escape(tag) for tag in tags)


def _check_field(group: Group, name: str) -> str:
    name = grammar.canonical(name) or name
    allowed = grammar.CHARACTER_FIELDS if isinstance(group, Character) else grammar.GENERAL_FIELDS
    if name not in allowed and name != grammar.CAPTION.name:
        raise PromptError(f"there is no field {name!r} here; use one of {', '.join([*allowed, 'caption'])}")
    return name


def set_field(prompt: Prompt, group: Group, name: str, tags: str | Iterable[str]) -> Prompt:
    """The prompt with the tags of one field replaced; the field, and general_tags, are added where they are
    missing.

    Args:
        prompt: an XML prompt.
        group: one of its groups.
        name: a field of the grammar, or `caption` for the general group.
        tags: literal tags, or a list as one would type it.

    Raises:
        PromptError: the grammar has no such field there.
    """
    name = _check_field(group, name)
    prompt, group = _sound_group(prompt, group)
    text = _list(tags, name)
    section = next((s for s in group.sections if s.name == name and s.elements), None)
    if section is not None:
        first, *rest = section.elements
        inner = Edit(first.inner_start, first.inner_end, text)
        if first.inner_start == first.end:
            inner = Edit(first.start, first.end, f"<{first.name}>{text}</{first.name}>")
        return _again(prompt, inner, *(Edit(e.start, e.end, "") for e in rest))
    return _add_field(prompt, group, name, text)


def _add_field(prompt: Prompt, group: Group, name: str, text: str) -> Prompt:
    field = f"<{name}>{text}</{name}>"
    if isinstance(group, Character):
        holder: Element | None = group.elements[-1]
    else:
        holder = next((e for e in group.elements if e.key == grammar.GENERAL.name), None)
    if holder is not None and name != grammar.CAPTION.name:
        elements = [c for c in holder.children if isinstance(c, Element)]
        at = elements[-1].end if elements else holder.inner_start
        return _again(
            prompt, Edit(at, at, _lead(prompt.source, elements[-1].start if elements else at) + field)
        )
    if name != grammar.CAPTION.name:
        field = f"<{grammar.GENERAL.name}>\n  {field}\n</{grammar.GENERAL.name}>"
    root = next((e for e in prompt.tree if isinstance(e, Element) and e.key in grammar.ROOTS), None)
    at = root.inner_end if root else len(prompt.source)
    before = "" if not prompt.source[:at] or prompt.source[:at].endswith("\n") else "\n"
    return _again(prompt, Edit(at, at, f"{before}{field}\n"))


def _lead(source: str, start: int) -> str:
    """The newline and indentation before `start`, empty where it does not begin its line."""
    begin = source.rfind("\n", 0, start)
    lead = source[begin:start] if begin >= 0 else ""
    return lead if lead.isspace() else ""


def add_tags(prompt: Prompt, group: Group, name: str, tags: Iterable[str]) -> Prompt:
    """The prompt with tags put behind the last one of a field."""
    name = _check_field(group, name)
    prompt, group = _sound_group(prompt, group)
    section = next((s for s in group.sections if s.name == name and s.elements), None)
    if section is None:
        return _add_field(prompt, group, name, _list(list(tags), name))
    if not section.tags:
        return set_field(prompt, group, name, list(tags))
    end = section.tags[-1].end
    return _again(prompt, Edit(end, end, "".join(", " + escape(tag) for tag in tags)))


def reorder(prompt: Prompt, group: Group, field: str, texts: Iterable[str]) -> Prompt:
    """The prompt with the tags of one section that `texts` names put in that order, on the places that they
    have among themselves. Weights go with their tags; tags that are not named stay where they are, and names
    that the section does not have are passed over.

    Args:
        field: the section's path within the group, `appearance` or `general_tags.style`.
        texts: literal tags.
    """
    prompt, group = _sound_group(prompt, group)
    section = next((s for s in group.sections if s.path.removeprefix(group.key + ".") == field), None)
    free: dict[str, list[Tag]] = {}
    for tag in section.tags if section else ():
        free.setdefault(tag.text, []).append(tag)
    wanted = [free[text].pop(0) for text in texts if free.get(text)]
    edits: list[Edit] = []
    for place, tag in zip(sorted(wanted, key=lambda t: t.start), wanted, strict=True):
        if place is tag:
            continue
        start, apart = _whole(prompt, place)
        edits.append(Edit(start, place.end, apart + prompt.source[_whole(prompt, tag)[0] : tag.end]))
    return _again(prompt, *edits)


def _whole(prompt: Prompt, tag: Tag) -> tuple[int, str]:
    """Where a tag begins with its own weight, and what must keep another one there apart from the tag
    before it.
    """
    siblings = _find(prompt.tree, tag)
    index = next(i for i, node in enumerate(siblings) if node is tag)
    old = _weight_of(siblings, index) if tag.own_weight is not None else None
    return (tag.start, "") if old is None else (old.start, _apart(prompt, old, siblings, index))


def _find(nodes: Iterable[Node], wanted: Tag | Element) -> list[Node]:
    """The siblings of a node, itself included."""
    waiting: list[list[Node]] = [list(nodes)]
    while waiting:
        siblings = waiting.pop()
        for node in siblings:
            if node is wanted:
                return siblings
            if isinstance(node, Element):
                waiting.append(list(node.children))
    return []


def _section(prompt: Prompt, path: str) -> Section | None:
    return next((s for g in prompt.groups for s in g.sections if s.path == path), None)


def with_weight(prompt: Prompt, path: str, weight: float) -> Prompt:
    """The prompt with a tag (`character_1.appearance[2]`), a section or a character weighed.

    Args:
        path: of a tag, of a section (`general_tags.style`) or of a character (`character_1`).
        weight: 0 to 3; 1 takes the weight away.

    Raises:
        PromptError: no such path, or a weight out of range.
    """
    if not grammar.MIN_WEIGHT <= weight <= grammar.MAX_WEIGHT:
        raise PromptError(f"weight {weight} is outside 0 to 3; choose one within")
    prompt = _sound(prompt, path if path.endswith("]") else None)
    targets: list[Tag | Element] = []
    if path.endswith("]"):
        targets.append(prompt.tag(path))
    else:
        section = _section(prompt, path)
        targets += (
            section.elements if section else [e for g in prompt.groups if g.key == path for e in g.elements]
        )
        if not targets:
            raise PromptError(
                f"there is nothing at {path!r}; `newbie prompt flatten` lists the paths of a prompt"
            )
    edits: list[Edit] = []
    for target in targets:
        siblings = _find(prompt.tree, target)
        index = next(i for i, node in enumerate(siblings) if node is target)
        mark = "" if weight == 1 else weight_mark(weight)
        old = _weight_of(siblings, index) if target.own_weight is not None else None
        if old is not None:
            edits.append(Edit(old.start, old.end, mark or _apart(prompt, old, siblings, index)))
        elif mark:
            edits.append(Edit(target.start, target.start, mark))
    return _again(prompt, *edits)


def _weight_of(siblings: list[Node], index: int) -> Comment | None:
    """The weight comment that weighs a node."""
    for node in reversed(siblings[:index]):
        if isinstance(node, Comment):
            if node.kind == "weight":
                return node
        else:
            return None
    return None


def _apart(prompt: Prompt, old: Comment, siblings: list[Node], index: int) -> str:
    """What keeps two tags apart when the weight between them goes: nothing where a separator does."""
    before = next((n for n in reversed(siblings[:index]) if isinstance(n, Tag)), None)
    target = siblings[index]
    if before is None or not isinstance(target, Tag):
        return ""
    between = prompt.source[before.end : old.start] + prompt.source[old.end : target.start]
    return "" if any(c in between for c in ",，、+＋\r\n") else ", "


def without(prompt: Prompt, path: str) -> Prompt:
    """The prompt without one tag, its weight and the separator that led to it.

    Raises:
        PromptError: there is no tag at that path.
    """
    prompt = _sound(prompt, path)
    tag = prompt.tag(path)
    siblings = _find(prompt.tree, tag)
    index = next(i for i, node in enumerate(siblings) if node is tag)
    start, end = tag.start, tag.end
    old = _weight_of(siblings, index) if tag.own_weight is not None else None
    if old is not None:
        start = old.start
    before = next((n for n in reversed(siblings[:index]) if isinstance(n, Tag)), None)
    after = next(
        (n for n in siblings[index + 1 :] if not (isinstance(n, Comment) and n.kind == "cdata")), None
    )
    if before is not None and not prompt.source[before.end : start].strip(" \t,，、+＋"):
        return _again(prompt, Edit(before.end, end, ""))
    if isinstance(after, Tag | Comment):
        gap = prompt.source[end : after.start]
        if not gap.strip(" \t,，、+＋"):
            return _again(prompt, Edit(start, after.start, ""))
    return _again(prompt, Edit(start, end, ""))


def swap_characters(prompt: Prompt, first: int, second: int) -> Prompt:
    """The prompt with the contents of two character blocks exchanged; the blocks' numbers and order stay.

    Raises:
        PromptError: one of them is missing.
    """
    prompt = _sound(prompt)
    a, b = prompt.character(first).elements[0], prompt.character(second).elements[0]
    if a is b:
        return prompt
    text = prompt.source
    return _again(
        prompt,
        Edit(a.inner_start, a.inner_end, text[b.inner_start : b.inner_end]),
        Edit(b.inner_start, b.inner_end, text[a.inner_start : a.inner_end]),
    )
