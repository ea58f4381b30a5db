"""What changed between two prompts, in words, as JSON, and as a patch that makes one out of the other.

A patch has two parts. `edits` replace stretches of the very text it was made from and give the other text to
the byte;
`changes` say what happened to which tag, and are what is applied to any other prompt.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from newbie_image.errors import PromptError
from newbie_image.prompt import edit
from newbie_image.prompt.diagnostics import Edit, apply_edits
from newbie_image.prompt.document import Character, Group, Prompt, Section, Tag
from newbie_image.prompt.parse import parse
from newbie_image.prompt.vocabulary import vocabulary
from newbie_image.prompt.write import format_prompt, weight_mark

FORMAT = "newbie-prompt-patch/1"
Action = Literal[
    "add", "remove", "replace", "weight", "order", "add-block", "remove-block", "version", "kind"
]
_BLOCK_WEIGHT = re.compile(r"<!-- weight:(\S+) -->")
_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that changed.

    Args:
        action: what happened.
        group: `character_1` or `general`; empty for the whole prompt.
        field: the section's path within the group, `appearance` or `general_tags.style`.
        old, new: tags, weights as text, versions, or a whole block's text.
    """

    action: Action
    group: str = ""
    field: str = ""
    old: str = ""
    new: str = ""

    def __str__(self) -> str:
        where = self.group.replace("_", " ") + (f", {self.field}" if self.field else "")
        match self.action:
            case "add":
                return f"{where}: + {self.new}"
            case "remove":
                return f"{where}: - {self.old}"
            case "replace":
                return f"{where}: {self.old} → {self.new}"
            case "weight":
                tag, _, weight = self.old.rpartition(":")
                return f"{where}: weight of {tag} {weight} → {self.new}"
            case "order":
                return f"{where}: other order: {self.new}"
            case "add-block":
                weight = _BLOCK_WEIGHT.match(self.new)
                return f"{where}: added" + (f", weight {weight[1]}" if weight else "")
            case "remove-block":
                return f"{where}: removed"
            case "version":
                return f"version: {self.old or 'none'} → {self.new or 'none'}"
            case _:
                return f"kind: {self.old} → {self.new}"


@dataclass(frozen=True)
class Patch:
    """All changes from one prompt to another; see the module.

    Args:
        base, result: sha256 of the two texts.
        changes: what changed in meaning; empty where only spacing or notes differ.
        edits: replacements in the base text.
    """

    base: str
    result: str
    changes: tuple[Change, ...]
    edits: tuple[Edit, ...]

    def as_dict(self) -> dict[str, Any]:
        """The documented JSON shape."""
        changes = [{k: v for k, v in asdict(c).items() if v} | {"words": str(c)} for c in self.changes]
        edits = [{"start": e.start, "end": e.end, "text": e.text} for e in self.edits]
        return {
            "format": FORMAT,
            "base": self.base,
            "result": self.result,
            "changes": changes,
            "edits": edits,
        }

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), ensure_ascii=False, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Patch:
        """Read a patch.

        Raises:
            PromptError: it is none.
        """
        try:
            values = json.loads(text)
            if values.get("format") != FORMAT:
                raise PromptError(
                    f"this is no patch of format {FORMAT}; make one with `newbie prompt diff A B --patch`"
                )
            names = ("action", "group", "field", "old", "new")
            changes = tuple(Change(**{k: str(c[k]) for k in names if k in c}) for c in values["changes"])  # type: ignore[arg-type]
            edits = tuple(Edit(int(e["start"]), int(e["end"]), str(e["text"])) for e in values["edits"])
            return cls(str(values["base"]), str(values["result"]), changes, edits)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise PromptError(
                f"the patch cannot be read ({error}); make it again with `newbie prompt diff`"
            ) from None


def digest(text: str) -> str:
    """sha256 of a text in UTF-8, hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def diff(a: Prompt, b: Prompt) -> Patch:
    """What makes `b` out of `a`."""
    return Patch(digest(a.source), digest(b.source), tuple(_changes(a, b)), _edits(a.source, b.source))


def _edits(a: str, b: str) -> tuple[Edit, ...]:
    if a == b:
        return ()
    x, y = _TOKEN.findall(a), _TOKEN.findall(b)
    begin = 0
    while begin < min(len(x), len(y)) and x[begin] == y[begin]:
        begin += 1
    end = 0
    while end < min(len(x), len(y)) - begin and x[-1 - end] == y[-1 - end]:
        end += 1
    offset = sum(map(len, x[:begin]))
    x, y = x[begin : len(x) - end], y[begin : len(y) - end]
    if len(x) * len(y) > 250_000:
        return (Edit(offset, offset + sum(map(len, x)), "".join(y)),)
    places = [offset]
    for token in x:
        places.append(places[-1] + len(token))
    codes = SequenceMatcher(None, x, y, autojunk=False).get_opcodes()
    return tuple(
        Edit(places[i1], places[i2], "".join(y[j1:j2])) for op, i1, i2, j1, j2 in codes if op != "equal"
    )


def _changes(a: Prompt, b: Prompt) -> list[Change]:
    out: list[Change] = []
    if a.version != b.version:
        out.append(Change("version", old=a.version or "", new=b.version or ""))
    if a.kind != b.kind:
        out.append(Change("kind", old=a.kind, new=b.kind))
    before = {g.key: g for g in a.groups}
    after = {g.key: g for g in b.groups}
    for key in dict.fromkeys([*before, *after]):
        if key not in after:
            out.append(Change("remove-block", key))
        elif key not in before:
            out.append(Change("add-block", key, new=_block(b, after[key])))
        else:
            out += _group_changes(before[key], after[key])
    return out


def _block(prompt: Prompt, group: Group) -> str:
    block = group.elements[0]
    mark = "" if block.own_weight is None else weight_mark(block.own_weight)
    return mark + prompt.source[block.start : block.end]


def _local(group: Group, section: Section) -> str:
    return section.path.removeprefix(group.key + ".")


def _group_changes(a: Group, b: Group) -> list[Change]:
    before = {_local(a, s): s.tags for s in a.sections}
    after = {_local(b, s): s.tags for s in b.sections}
    out: list[Change] = []
    for name in dict.fromkeys([*before, *after]):
        out += _section_changes(a.key, name, before.get(name, ()), after.get(name, ()))
    return out


def _section_changes(group: str, field: str, a: tuple[Tag, ...], b: tuple[Tag, ...]) -> list[Change]:
    words = vocabulary()
    out: list[Change] = []
    left, right = _Bag(a), _Bag(b)
    removed = [t for t in a if not right.take(t.text)]
    added = [t for t in b if not left.take(t.text)]
    gone, replaced = set(map(id, removed)), dict[int, Tag]()
    alone = len(removed) == len(added) == 1 and len(a) == len(b)
    for tag in list(removed):
        group_name = words.group(tag.text)
        partner = next((t for t in added if group_name and words.group(t.text) == group_name), None)
        if partner is None and alone:
            partner = added[0]
        if partner is not None:
            removed.remove(tag)
            added.remove(partner)
            replaced[id(tag)] = partner
            out.append(Change("replace", group, field, tag.text, partner.text))
    out += [Change("remove", group, field, tag.text) for tag in removed]
    out += [Change("add", group, field, new=tag.text) for tag in added]
    kept = [(replaced.get(id(t), t).text, t.weight) for t in a if id(t) not in gone or id(t) in replaced]
    made = [*kept, *((t.text, 1.0) for t in added)]
    weights: dict[str, list[float]] = {}
    for text, weight in made:
        weights.setdefault(text, []).append(weight)
    for tag in b:
        before = weights[tag.text].pop(0)
        if before != tag.weight:
            out.append(Change("weight", group, field, f"{tag.text}:{before:g}", f"{tag.weight:g}"))
    if [text for text, _ in made] != [t.text for t in b]:
        listed = ", ".join(edit.escape(text) for text, _ in made)
        out.append(Change("order", group, field, listed, _listed(b)))
    return out


def _listed(tags: tuple[Tag, ...]) -> str:
    """Tags in a row, so written that :func:`_texts` takes them apart again."""
    return ", ".join(edit.escape(tag.text) for tag in tags)


def _texts(listed: str) -> tuple[str, ...]:
    return parse(f"<other>{listed}</other>", strict=False).general.get("other")


class _Bag:
    """Texts that can be taken out one by one."""

    def __init__(self, tags: tuple[Tag, ...]) -> None:
        self.counts: dict[str, int] = {}
        for tag in tags:
            self.counts[tag.text] = self.counts.get(tag.text, 0) + 1

    def take(self, text: str) -> bool:
        have = self.counts.get(text, 0)
        self.counts[text] = have - 1
        return have > 0


def apply(prompt: Prompt, patch: Patch) -> Prompt:
    """The prompt with a patch applied.

    On the text that the patch was made from the result is the other text to the byte. On any other prompt the
    changes are
    made tag by tag.

    Raises:
        PromptError: a change does not fit: the tag to be removed or weighed is not there, or the edits
            are damaged.
    """
    if digest(prompt.source) == patch.base:
        if any(not 0 <= e.start <= e.end <= len(prompt.source) for e in patch.edits):
            raise PromptError(
                "the patch's edits lie outside the text; make it again with `newbie prompt diff`"
            )
        text = apply_edits(prompt.source, patch.edits)
        if digest(text) != patch.result:
            raise PromptError("the patch is damaged: its result is not the one it names; make it again")
        return parse(text, strict=False)
    for change in patch.changes:
        prompt = _apply(prompt, change)
    return prompt


def _apply(prompt: Prompt, change: Change) -> Prompt:
    if change.action == "version":
        return _set_version(prompt, change.new)
    if change.action == "kind":
        raise PromptError(
            f"the patch turns {change.old} into {change.new}; that only works on the text it was made from"
        )
    if change.action == "add-block":
        if any(g.key == change.group for g in prompt.characters):
            raise PromptError(f"the patch adds {change.group}, which is there already; remove it first")
        return _add_block(edit.sound(prompt), change.new)
    group = next((g for g in prompt.groups if g.key == change.group), None)
    if group is None:
        raise PromptError(f"the patch changes {change.group}, which this prompt does not have; add it first")
    if change.action == "remove-block":
        return edit.without_block(prompt, group)
    if change.action == "add":
        if prompt.kind != "xml":
            text = prompt.source.rstrip()
            return parse(f"{text}, {change.new}" if text else change.new, strict=False)
        return edit.add_at(prompt, group, change.field, [change.new])
    wanted = change.old.rpartition(":")[0] if change.action == "weight" else change.old
    if change.action == "order":
        return edit.reorder(prompt, group, change.field, _texts(change.new))
    weighed = change.old.rpartition(":")[2] if change.action == "weight" else ""
    tag = _tag(group, change.field, wanted, weighed)
    if change.action == "remove":
        return prompt.without(tag.path)
    if change.action == "weight":
        return edit.with_effective_weight(prompt, tag.path, _number(change.new))
    return edit.replace_tag(prompt, tag.path, change.new)


def _number(weight: str) -> float:
    try:
        return float(weight)
    except ValueError:
        raise PromptError(f"the patch's weight {weight[:40]!r} is no number; make the patch again") from None


def _tag(group: Group, field: str, text: str, weight: str = "") -> Tag:
    """The first tag with this text, of those with this weight where there is one."""
    found = [tag for s in group.sections if _local(group, s) == field for tag in s.tags if tag.text == text]
    if found:
        return next((tag for tag in found if f"{tag.weight:g}" == weight), found[0])
    whose = group.key if isinstance(group, Character) else "the general tags"
    raise PromptError(
        f"the patch changes {text!r} in {field} of {whose}, where this prompt does not have it; edit by hand"
    )


def _add_block(prompt: Prompt, text: str) -> Prompt:
    last = prompt.characters[-1].elements[-1] if prompt.characters else None
    at = last.end if last else (prompt.tree[0].start if prompt.tree else 0)
    return parse(prompt.source[:at] + "\n" + text + prompt.source[at:], strict=False)


def _set_version(prompt: Prompt, version: str) -> Prompt:
    note = f"<!-- version: {version} -->" if version else ""
    for found in re.finditer(r"<!--\s*version\s*[:：].*?-->\n?", prompt.source, re.IGNORECASE | re.DOTALL):
        return parse(
            prompt.source[: found.start()] + (note + "\n" if note else "") + prompt.source[found.end() :],
            strict=False,
        )
    return parse(f"{note}\n{prompt.source}" if note else prompt.source, strict=False)


def words(patch: Patch, a: Prompt, b: Prompt) -> list[str]:
    """The patch in lines for people."""
    lines = [str(change) for change in patch.changes]
    if not lines and a.source != b.source:
        same = format_prompt(a) == format_prompt(b)
        lines.append("only spacing differs" if same else "only notes or layout differ")
    return lines
