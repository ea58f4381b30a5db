"""Changing a prompt: each function returns a new one whose text differs only where the change is.

The change is made in the source and the result is read again, so that spacing, notes and spelling of
everything else stay
as they were typed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from newbie_image.errors import PromptError
from newbie_image.prompt import grammar
from newbie_image.prompt.diagnostics import Edit, apply_edits
from newbie_image.prompt.document import Character, Comment, Element, Group, Node, Prompt, Section, Tag
from newbie_image.prompt.parse import parse
from newbie_image.prompt.write import escape, format_prompt, weight_mark

_GENERAL = grammar.GENERAL_FIELDS | grammar.ENVIRONMENT_FIELDS
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


def sound(prompt: Prompt, *tags: Tag) -> Prompt:
    """The prompt, written anew where it was repaired: an edit in broken text may change its reading.

    So it is when one of `tags` begins or ends inside a CDATA stretch, where a comment would be text.
    """
    repaired = any(d.code in _REPAIRED for d in prompt.diagnostics)
    literal = "<![CDATA[" in prompt.source and any(_in_cdata(prompt.source, tag) for tag in tags)
    return _canonical(prompt) if repaired or literal else prompt


def _canonical(prompt: Prompt) -> Prompt:
    return parse(format_prompt(prompt), strict=False)


def _in_cdata(source: str, tag: Tag) -> bool:
    return any(
        source.rfind("<![CDATA[", 0, edge) > source.rfind("]]>", 0, edge) for edge in (tag.start, tag.end)
    )


def _sound_group(prompt: Prompt, group: Group, *tags: Tag) -> tuple[Prompt, Group]:
    written = sound(prompt, *tags)
    if written is prompt:
        return prompt, group
    return written, next((g for g in written.groups if g.key == group.key), written.general)


def _list(tags: str | Iterable[str], name: str) -> str:
    if name in grammar.PROSE:
        return escape(tags if isinstance(tags, str) else " ".join(tags), prose=True)
    if isinstance(tags, str):
        if name == "position" and grammar.is_box(tags):
            return tags
        section = parse(f"<other>{tags}</other>", strict=False).general.section("other")
        return ", ".join(
            ("" if t.own_weight is None else weight_mark(t.own_weight)) + escape(t.text)
            for t in (section.tags if section else ())
        )
    return ", ".join(escape(tag) for tag in tags)


def _check_field(group: Group, name: str) -> str:
    name = grammar.canonical(name) or name
    allowed = grammar.CHARACTER_FIELDS if isinstance(group, Character) else _GENERAL
    if name not in allowed and name != grammar.CAPTION.name:
        raise PromptError(f"there is no field {name!r} here; use one of {', '.join([*allowed, 'caption'])}")
    return name


def set_field(prompt: Prompt, group: Group, name: str, tags: str | Iterable[str]) -> Prompt:
    """The prompt with the tags of one field replaced; the field, and the block around it, are added where
    they are missing: `environment` for `time` and `location`, and for `weather` and `lighting` where the
    prompt has one; otherwise `general_tags`.

    Args:
        prompt: an XML prompt.
        group: one of its groups.
        name: a field of the grammar, or `caption` for the general group.
        tags: literal tags, or a list as one would type it, weights included.

    Raises:
        PromptError: the grammar has no such field there.
    """
    name = _check_field(group, name)
    prompt, group = _sound_group(prompt, group)
    text = _list(tags, name)
    section = next((s for s in group.sections if s.name == name and s.elements), None)
    if section is not None:
        first, *rest = section.elements
        return _again(prompt, _filled(first, text), *(Edit(e.start, e.end, "") for e in rest))
    return _add_field(prompt, group, name, text)


def _filled(element: Element, text: str) -> Edit:
    """The edit that gives an element another content, also where it is written `<n/>`."""
    if element.inner_start == element.end:
        text = f"<{element.name}{element.attributes}>{text}</{element.name}>"
        return Edit(element.start, element.end, text)
    return Edit(element.inner_start, element.inner_end, text)


def _add_field(prompt: Prompt, group: Group, name: str, text: str) -> Prompt:
    field = f"<{name}>{text}</{name}>"
    outer = ""
    if isinstance(group, Character):
        holder: Element | None = group.elements[0]
    else:
        outer = grammar.GENERAL.name
        surrounded = any(e.key == grammar.ENVIRONMENT.name for e in group.elements)
        if name in grammar.ENVIRONMENT_FIELDS and (surrounded or name not in grammar.GENERAL_FIELDS):
            outer = grammar.ENVIRONMENT.name
        holder = next((e for e in group.elements if e.key == outer), None)
    if holder is not None and name != grammar.CAPTION.name:
        return _into(prompt, holder, field)
    if name != grammar.CAPTION.name:
        field = f"<{outer}>\n  {field}\n</{outer}>"
    return _on_top(prompt, field)


def _into(prompt: Prompt, holder: Element, text: str) -> Prompt:
    """An element put behind the last one of another element."""
    if holder.inner_start == holder.end:
        return _again(prompt, _filled(holder, text))
    elements = [c for c in holder.children if isinstance(c, Element)]
    at = elements[-1].end if elements else holder.inner_start
    return _again(prompt, Edit(at, at, _lead(prompt.source, elements[-1].start if elements else at) + text))


def _on_top(prompt: Prompt, field: str) -> Prompt:
    """A block put at the end of the prompt, inside its root."""
    root = next((e for e in prompt.tree if isinstance(e, Element) and e.key in grammar.ROOTS), None)
    if root is not None and root.inner_start == root.end:
        return _again(prompt, _filled(root, f"\n{field}\n"))
    nodes = list(root.children if root else prompt.tree)
    unused = _weights_of(nodes, len(nodes))
    at = unused[0].start if unused else root.inner_end if root else len(prompt.source)
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
    prompt, group = _sound_group(prompt, group, *(t for s in group.sections for t in s.tags[-1:]))
    section = next((s for s in group.sections if s.name == name and s.elements), None)
    if section is None:
        return _add_field(prompt, group, name, _list(list(tags), name))
    if not section.tags:
        return set_field(prompt, group, name, list(tags))
    end, prose = section.tags[-1].end, name in grammar.PROSE
    lead = " " if prose else ", "
    return _again(prompt, Edit(end, end, "".join(lead + escape(tag, prose=prose) for tag in tags)))


def add_at(prompt: Prompt, group: Group, field: str, tags: Iterable[str]) -> Prompt:
    """The prompt with tags put behind the last one of a section, which may be of any element.

    Args:
        field: the section's path within the group: `appearance`, `environment.time`, `danbooru_tags`, or an
            element that the grammar does not know. What is missing of the path is added.
        tags: literal tags.
    """
    prefix = group.key + "." if isinstance(group, Character) else ""
    *outer, name = [part.partition("#")[0] for part in field.split(".")]
    listed = list(tags)
    section = next((s for s in group.sections if s.path == prefix + field and s.elements), None)
    if section is None and (outer == [grammar.GENERAL.name] or (prefix and not outer)):
        known = grammar.CHARACTER_FIELDS if prefix else grammar.GENERAL_FIELDS
        if name in known:
            return add_tags(prompt, group, name, listed)
    prompt, group = _sound_group(prompt, group, *(section.tags[-1:] if section else ()))
    section = next((s for s in group.sections if s.path == prefix + field and s.elements), None)
    prose = name in grammar.PROSE
    if section is not None:
        if section.tags:
            end, lead = section.tags[-1].end, " " if prose else ", "
            return _again(prompt, Edit(end, end, "".join(lead + escape(t, prose=prose) for t in listed)))
        return _again(prompt, _filled(section.elements[0], _list(listed, name)))
    text = f"<{name}>{_list(listed, name)}</{name}>"
    while outer or prefix:
        path = (prefix + ".".join(outer)).rstrip(".")
        holder = _element(prompt.tree, path)
        if holder is not None:
            return _into(prompt, holder, text)
        if not outer:
            break
        last = outer.pop()
        text = f"<{last}>{text}</{last}>"
    return _on_top(prompt, text)


def _element(nodes: Iterable[Node], path: str) -> Element | None:
    """The first element with this path."""
    waiting = [node for node in nodes if isinstance(node, Element)]
    while waiting:
        node = waiting.pop(0)
        if node.path == path:
            return node
        waiting[:0] = [child for child in node.children if isinstance(child, Element)]
    return None


def add_character(
    prompt: Prompt, values: Mapping[str, str | Iterable[str]], number: int | None = None
) -> Prompt:
    """The prompt with another character behind the last one.

    Args:
        prompt: an XML prompt, or an empty text.
        values: field of a character → its tags, as for :func:`set_field`.
        number: the character's number; None for the one after the highest.

    Raises:
        PromptError: the prompt is a plain list or a sentence, has this number, or the grammar has no such
            field in a character.
    """
    if prompt.kind != "xml" and prompt.source.strip():
        raise PromptError("a plain list or a sentence has no characters; convert it to XML first")
    taken = [character.number for character in prompt.characters]
    number = max(taken, default=0) + 1 if number is None else number
    if number in taken or not 0 < number < 1_000_000:
        raise PromptError(f"character {number} is taken or no number; leave it out for the next free one")
    prompt = sound(prompt)
    name = f"character_{number}"
    probe = parse(f"<{name}></{name}>").characters[0]
    lines = []
    for key, tags in values.items():
        field = _check_field(probe, key)
        lines.append(f"  <{field}>{_list(tags, field)}</{field}>\n")
    block = f"<{name}>\n{''.join(lines)}</{name}>"
    if prompt.characters:
        at = prompt.characters[-1].elements[-1].end
        return _again(prompt, Edit(at, at, "\n" + block))
    root = next((e for e in prompt.tree if isinstance(e, Element) and e.key in grammar.ROOTS), None)
    if root is not None and root.inner_start == root.end:
        return _again(prompt, _filled(root, f"\n{block}\n"))
    first = next((e for e in (root.children if root else prompt.tree) if isinstance(e, Element)), None)
    at = root.inner_start if root else len(prompt.source) if first is None else _begin(prompt, first)
    return _again(prompt, Edit(at, at, f"\n{block}" if root else f"{block}\n"))


def _begin(prompt: Prompt, first: Element) -> int:
    """Where a block begins, its weight included."""
    siblings = _find(prompt.tree, first)
    weights = _weights_of(siblings, next(i for i, node in enumerate(siblings) if node is first))
    return weights[0].start if weights else first.start


def replace_tag(prompt: Prompt, path: str, text: str) -> Prompt:
    """The prompt with another literal tag at `path`; its weight stays.

    Raises:
        PromptError: there is no tag at that path.
    """
    prompt = sound(prompt, prompt.tag(path))
    tag = prompt.tag(path)
    name = tag.section.rpartition(".")[2]
    boxed = name == "position" and grammar.is_box(text)
    new = text if boxed else escape(text, prose=name in grammar.PROSE)
    return _again(prompt, Edit(tag.start, tag.end, new))


def reorder(prompt: Prompt, group: Group, field: str, texts: Iterable[str]) -> Prompt:
    """The prompt with the tags of one section that `texts` names put in that order, on the places that they
    have among themselves. Weights go with their tags; tags that are not named stay where they are, and names
    that the section does not have are passed over.

    Args:
        field: the section's path within the group, `appearance` or `general_tags.style`.
        texts: literal tags.
    """
    prompt, group = _sound_group(prompt, group, *group.tags)
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
    old = _weights_of(siblings, index)
    return (old[-1].start, _apart(prompt, old[-1], siblings, index)) if old else (tag.start, "")


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
    prompt = sound(prompt, *([prompt.tag(path)] if path.endswith("]") else []))
    made = _weighed(prompt, path, weight)
    return made if _texts(made) == _texts(prompt) else _weighed(_canonical(prompt), path, weight)


def with_effective_weight(prompt: Prompt, path: str, weight: float) -> Prompt:
    """The prompt with a tag weighed so that it weighs `weight` together with the elements around it.

    Raises:
        PromptError: there is no tag at that path, or the elements around it allow no such weight.
    """
    tag, around = prompt.tag(path), 1.0
    nodes: Iterable[Node] = prompt.tree
    while (
        outer := next((n for n in nodes if isinstance(n, Element) and n.start < tag.start < n.end), None)
    ) is not None:
        around, nodes = outer.weight, outer.children
    own = weight / around if around else 0.0 if weight == 0 else -1.0
    if not grammar.MIN_WEIGHT <= own <= grammar.MAX_WEIGHT:
        raise PromptError(f"{path} cannot weigh {weight:g} where the elements around it weigh {around:g}")
    return with_weight(prompt, path, own)


def _texts(prompt: Prompt, but: str = "") -> list[str]:
    return [tag.text for tag in prompt.tags if tag.path != but]


def _weighed(prompt: Prompt, path: str, weight: float) -> Prompt:
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
        old = _weights_of(siblings, index)
        if old:
            edits.append(Edit(old[-1].start, old[-1].end, mark or _apart(prompt, old[-1], siblings, index)))
            edits += [Edit(unused.start, unused.end, "") for unused in old[:-1]]
        elif mark:
            edits.append(Edit(target.start, target.start, mark))
    return _again(prompt, *edits)


def _weights_of(siblings: list[Node], index: int) -> list[Comment]:
    """The weight comments before a node: the last one weighs it, and any other would if that one went."""
    weights: list[Comment] = []
    for node in reversed(siblings[:index]):
        if not isinstance(node, Comment):
            break
        if node.kind == "weight":
            weights.insert(0, node)
    return weights


def _apart(prompt: Prompt, old: Comment, siblings: list[Node], index: int) -> str:
    """What keeps two tags apart when the weight between them goes: nothing where a separator does, and in a
    caption, where nothing separates, a weight of 1.
    """
    before = next((n for n in reversed(siblings[:index]) if isinstance(n, Tag)), None)
    target = siblings[index]
    if before is None or not isinstance(target, Tag):
        return ""
    if target.section.rpartition(".")[2] in grammar.PROSE:
        return weight_mark(1)
    between = prompt.source[before.end : old.start] + prompt.source[old.end : target.start]
    return "" if any(c in between for c in ",，、+＋\r\n") else ", "


def without(prompt: Prompt, path: str) -> Prompt:
    """The prompt without one tag, its weight and the separator that led to it.

    Raises:
        PromptError: there is no tag at that path.
    """
    prompt = sound(prompt, prompt.tag(path))
    made = _removed(prompt, path)
    return made if _texts(made) == _texts(prompt, path) else _removed(_canonical(prompt), path)


def _removed(prompt: Prompt, path: str) -> Prompt:
    tag = prompt.tag(path)
    siblings = _find(prompt.tree, tag)
    index = next(i for i, node in enumerate(siblings) if node is tag)
    start, end = tag.start, tag.end
    old = _weights_of(siblings, index)
    if old:
        start = old[0].start
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
        PromptError: one of them is missing, or stands inside the other.
    """
    prompt = sound(prompt)
    a, b = prompt.character(first).elements[0], prompt.character(second).elements[0]
    if a is b:
        return prompt
    if a.start < b.end and b.start < a.end:
        raise PromptError(
            f"characters {first} and {second} stand one inside the other; close the outer one first"
        )
    text = prompt.source
    inner = [text[e.inner_start : e.inner_end] for e in (a, b)]
    return _again(prompt, _filled(a, inner[1]), _filled(b, inner[0]))


def without_block(prompt: Prompt, group: Group) -> Prompt:
    """The prompt without a character's block, and without the weight that weighed it."""
    prompt, group = _sound_group(prompt, group)
    block = group.elements[0]
    siblings = _find(prompt.tree, block)
    index = next(i for i, node in enumerate(siblings) if node is block)
    old = _weights_of(siblings, index)
    return _again(prompt, *(Edit(node.start, node.end, "") for node in (*old, block)))
