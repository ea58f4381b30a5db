"""From one way of writing a prompt to another, with an account of what became of each word.

Everything passes through :class:`Prompt`: other notations are read into one, and every notation is written
from one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from newbie_image.errors import PromptError
from newbie_image.prompt import grammar
from newbie_image.prompt.clauses import people_by_place
from newbie_image.prompt.document import Character, Comment, Element, Node, Prompt
from newbie_image.prompt.flatten import flat_tags
from newbie_image.prompt.mapping import dump, from_mapping, load
from newbie_image.prompt.owners import BREAK, Owned, has_owners, is_place, read_flat, read_parts, shielded
from newbie_image.prompt.parse import parse
from newbie_image.prompt.sorting import COUNT, Explained, Item, sort_tags
from newbie_image.prompt.vocabulary import normal, vocabulary
from newbie_image.prompt.weights import WeighedTag, has_weights, read_weights, write_weights
from newbie_image.prompt.words import Word, has_cjk, read_mixed, read_sentence
from newbie_image.prompt.write import escape, weight_mark, write

Notation = Literal["xml", "tags", "flat", "sentence", "json", "yaml", "toml", "a1111", "comfyui", "novelai"]
NOTATIONS: tuple[str, ...] = get_args(Notation)
_BLOCKS = r"(?:character_\d+|general_tags|environment|caption|version|root|tags|sentence)"
_YAML = re.compile(rf"\A\s*(?:#[^\n]*\n\s*)*(?:---\s*\n)?{_BLOCKS}\s*:(?:\s|\Z)")
_TOML = re.compile(rf"\A\s*(?:#[^\n]*\n\s*)*(?:\[{_BLOCKS}\]|{_BLOCKS}\s*=)")


@dataclass(frozen=True)
class Conversion:
    """What came out.

    Args:
        text: the prompt in the notation asked for.
        prompt: the prompt itself, as this language has it.
        explained: each tag with where it went and why; empty where nothing had to be decided.
        unknown: words and tags that nobody knows; they are kept in the result.
        remarks: what was left out or changed on the way, one line each.
    """

    text: str
    prompt: Prompt
    explained: tuple[Explained, ...] = ()
    unknown: tuple[str, ...] = ()
    remarks: tuple[str, ...] = field(default=())


def guess(text: str) -> str:
    """The notation of a text: `json`, `yaml`, `toml`, `a1111` or `novelai` (a list with that program's
    weights), or what `parse` finds.
    """
    head = text.lstrip("\ufeff \t\r\n")[:1]
    if head == "{" and '"' in text[:200]:
        return "json"
    if _TOML.match(text[:2000]):
        return "toml"
    if _YAML.match(text[:2000]):
        return "yaml"
    kind = parse(text, strict=False).kind
    return kind if kind == "xml" else has_weights(text) or kind


def convert(
    text: str | Prompt, to: Notation, *, source: Notation | None = None, strict: bool = True, name: str = ""
) -> Conversion:
    """A prompt in another notation.

    Args:
        text: the prompt, or its text.
        to: `xml`, `tags` (a plain list with weight comments), `flat` (the same with `[char1]` prefixes),
            `sentence`,
            `json`, `yaml`, `toml`, `a1111`, `comfyui` or `novelai` (lists with those programs' weights).
        source: the notation of `text`; guessed where it is None.
        strict: how an XML source is read.
        name: the file's name, whose ending helps the guess.

    Raises:
        PromptError: the text cannot be read in its notation, or the notation is unknown.
    """
    for notation in (to, source):
        if notation is not None and notation not in NOTATIONS:
            raise PromptError(f"unknown notation {notation!r}; choose one of {', '.join(NOTATIONS)}")
    remarks: list[str] = []
    if isinstance(text, Prompt):
        prompt, notation = text, text.kind
    else:
        ending = name.rpartition(".")[2].lower()
        endings = {"json": "json", "toml": "toml", "yaml": "yaml", "yml": "yaml", "xml": "xml"}
        notation = source or endings.get(ending) or guess(text)
        prompt = _read(text, notation, strict, remarks)
    explained: list[Explained] = []
    unknown: list[str] = []
    notes = sum(1 for comment in _comments(prompt.tree) if comment.kind == "note")
    if notes:
        remarks.append(f"{_number(notes, 'note')} left out; `newbie prompt format` keeps them")
    owned = to != "flat" and has_owners(prompt)
    whole = to in ("xml", "json", "yaml", "toml", "flat") and prompt.kind != "xml"
    if owned or (whole and not _plain_ok(to, prompt)):
        prompt, explained, unknown, assumed = _to_xml(prompt)
        remarks += assumed
    if unknown:
        listed = ", ".join(word[:40] for word in unknown[:12]) + (", …" if len(unknown) > 12 else "")
        remarks.append(f"not understood, kept as it is: {listed}")
    remarks += _not_held(prompt, to)
    out = _write(prompt, to, remarks)
    return Conversion(out, prompt, tuple(explained), tuple(unknown), tuple(remarks))


def _comments(nodes: tuple[Node, ...]) -> Iterator[Comment]:
    for node in nodes:
        if isinstance(node, Comment):
            yield node
        elif isinstance(node, Element):
            yield from _comments(node.children)


def _number(count: int, what: str) -> str:
    return f"{count} {what} was" if count == 1 else f"{count} {what}s were"


def _not_held(prompt: Prompt, to: str) -> Iterator[str]:
    """What a notation has no place for, one line each; nothing for those that hold everything."""
    if to in ("xml", "json", "yaml", "toml"):
        return
    if prompt.version is not None:
        yield f"the version note {prompt.version[:40]!r} was left out"
    if to == "sentence":
        weighed = [f"{t.text[:40]} {t.weight:g}" for t in prompt.tags if t.weight not in (0.0, 1.0)]
        if weighed:
            listed = ", ".join(weighed[:8]) + (", …" if len(weighed) > 8 else "")
            yield f"a sentence holds no weights; lost: {listed}"
        if any(t.weight == 0 for t in prompt.tags):
            yield f"{_number(sum(t.weight == 0 for t in prompt.tags), 'tag')} of weight 0 left out"
    if prompt.kind != "xml" or to == "flat":
        return
    for group in prompt.groups:
        for section in group.sections:
            said = to != "sentence" and section.name != "position"
            if to == "sentence" and isinstance(group, Character):
                placed = section.name == "position" and _place(group, len(prompt.characters) > 1)
                said = section.name in _SAID or bool(placed)
            elif to == "sentence":
                said = section.name not in _UNSAID
            if section.tags and not said:
                yield f"{section.path} ({', '.join(section.texts)[:60]}) was left out"
        if to == "sentence" and isinstance(group, Character) and _gender(group) is None:
            given = (
                f"{group.gender[:40]!r} is no gender that a sentence says" if group.gender else "no gender"
            )
            yield f"{group.key}: {given}; write 1girl, 1boy or 1other in <gender>"


def _plain_ok(to: str, prompt: Prompt) -> bool:
    return to == "flat" and prompt.kind == "tags"


def _read(text: str, notation: str, strict: bool, remarks: list[str]) -> Prompt:
    if notation in ("json", "yaml", "toml"):
        return load(text, notation)
    if notation == "a1111" or notation == "comfyui" or notation == "novelai":
        tags, networks = read_weights(shielded(text), notation)
        remarks += [
            f"{n} loads nothing here and was left out; name adapters on the command line" for n in networks
        ]
        items: list[Any] = []
        for tag in tags:
            weight = min(tag.weight, grammar.MAX_WEIGHT)
            if weight != tag.weight:
                remarks.append(f"weight {tag.weight:g} of {tag.text} is above 3 and acts as 3")
            items.append(tag.text if weight == 1 else {"tag": tag.text, "weight": weight})
        return from_mapping({"tags": items})
    return parse(text, strict=strict)


def to_xml(prompt: Prompt) -> tuple[Prompt, list[Explained], list[str]]:
    """A list of tags or a sentence as XML: the prompt, the account of each word, and what nobody knows."""
    made, explained, unknown, _ = _to_xml(prompt)
    return made, explained, unknown


def _to_xml(prompt: Prompt) -> tuple[Prompt, list[Explained], list[str], list[str]]:
    """:func:`to_xml`, and what was assumed."""
    if prompt.kind == "xml":
        return prompt, [], [], []
    owned = read_flat(prompt) if has_owners(prompt) else _read_words(prompt)
    result = sort_tags(owned.items)
    if result.open:
        listed = ", ".join(result.open[:12]) + (", …" if len(result.open) > 12 else "")
        owned.remarks.append(f"nothing says whose, kept with the picture: {listed}")
    values = result.values
    if owned.counted and "count" not in values.get("general_tags", {}):
        genders = [g for n, b in values.items() if n.startswith("character_") for g in b.get("gender", [])]
        counts: dict[str, Any] = {"count": [t.text for t in _people(genders)]}
        values["general_tags"] = counts | values.get("general_tags", {})
    rest = owned.rest
    if rest:
        natural = prompt.kind == "sentence" or not has_cjk(rest[0])
        values["caption"] = (" " if natural else "，").join(rest)
    if prompt.version is not None:
        values = {"version": prompt.version, **values}
    made = from_mapping(values) if values else parse("<general_tags></general_tags>")
    return made, result.explained, [*result.unknown, *owned.unknown], owned.remarks


def _read_words(prompt: Prompt) -> Owned:
    """A list without prefixes, or a sentence."""
    out = Owned()
    rest: list[str] = []
    if prompt.kind == "tags" and BREAK.search(prompt.source):
        tags = read_parts(prompt)
        out.counted = any(person for _, _, person in tags)
    else:
        tags = [(tag.text, tag.weight, 0) for tag in prompt.tags]
    stretches = people_by_place([(text, weight) for text, weight, _ in tags])
    for (text, weight, person), pieces in zip(tags, stretches, strict=True):
        if prompt.kind == "sentence" and not has_cjk(text):
            found, missed = read_sentence(text)
            out.items += [_item(word, weight) for word in found]
            out.unknown += missed
            rest.append(text)
        elif has_cjk(text) and text not in vocabulary():
            missed = []
            any_found = False
            for piece, sided, place in pieces:
                found, more = read_mixed(piece)
                why = "the side it is said of" if sided else ""
                out.items += [_placed(_item(word, weight), sided or person, why) for word in found]
                if place:
                    out.items.append(Item(place, 1.0, piece, sided, why, "position"))
                    out.counted = True
                missed += more
                any_found = any_found or bool(found)
            out.unknown += missed
            if prompt.kind == "sentence" or not any_found:
                rest.append(text)
            else:
                rest += missed
        else:
            out.items.append(_placed(Item(_spelling(text), weight, text), person or pieces[0][1]))
    if out.unknown or not out.items:
        out.rest = rest
    return out


def _placed(item: Item, person: int, why: str = "") -> Item:
    """An item that its part between `BREAK`s or its clause gives to a person; the gender becomes that
    person's.
    """
    if not person:
        return item
    place = "gender" if COUNT.match(normal(item.text)) else "position" if is_place(item.text) else ""
    return Item(item.text, item.weight, item.written, person, why or "its part between BREAKs", place)


def _item(word: Word, weight: float) -> Item:
    return Item(word.tag, weight, word.written, word.person, word.reason)


def _spelling(text: str) -> str:
    """A known tag in the vocabulary's spelling; anything else as it is, with underscores where tags have
    them.
    """
    entry = vocabulary().get(text)
    return entry.tag if entry else text


def _write(prompt: Prompt, to: str, remarks: list[str]) -> str:
    if to == "xml":
        return write(prompt)
    if to in ("json", "yaml", "toml"):
        return dump(prompt, to)
    if to == "sentence":
        return prompt.encoder_text.strip() + "\n" if prompt.kind == "sentence" else sentence(prompt) + "\n"
    if to == "flat":
        tags = [WeighedTag(item.written, item.tag.weight) for item in flat_tags(prompt)]
    else:
        tags = _plain(prompt)
        if len(prompt.characters) > 1:
            remarks.append(
                "a plain list does not say whose a tag is; --to flat keeps that as [char1] prefixes"
            )
    left = sum(1 for tag in prompt.tags if tag.weight == 0)
    if left:
        remarks.append(f"{left} tags of weight 0 were left out")
    if to == "a1111" or to == "comfyui" or to == "novelai":
        return write_weights(tags, to) + "\n"
    parts = [escape(t.text) if t.weight == 1 else weight_mark(t.weight) + escape(t.text) for t in tags]
    return ", ".join(parts) + "\n"


def _plain(prompt: Prompt) -> list[WeighedTag]:
    """The tags in a row: how many people, then person by person, then the picture; each once a person."""
    if prompt.kind != "xml":
        return [
            WeighedTag(part.strip(), t.weight)
            for t in prompt.tags
            if t.weight > 0
            for part in BREAK.split(t.text.replace("BREAK\u2060", "BREAK"))
            if part.strip()
        ]
    counts = [t for s in prompt.general.sections if s.name == "count" for t in s.tags if t.weight > 0]
    told = {normal(t.text) for t in counts}
    out = [WeighedTag(t.text, t.weight) for t in counts]
    if not any(word[:1].isdigit() for word in told):
        out = [*_people([c.gender or "" for c in prompt.characters]), *out]
    for group in prompt.groups:
        own: dict[WeighedTag, None] = {}
        for section in group.sections:
            if section.name not in ("count", "position"):
                for tag in section.tags:
                    if tag.weight > 0 and not (section.name == "gender" and COUNT.match(normal(tag.text))):
                        own[WeighedTag(tag.text, tag.weight)] = None
        out += own
    return out


def _people(genders: list[str]) -> list[WeighedTag]:
    """`2girls, 1boy` for the genders of the blocks."""
    out = []
    for who in ("girl", "boy", "other"):
        number = sum(normal(gender) == f"1{who}" for gender in genders)
        if number:
            out.append(WeighedTag(f"{number}{who}{'s' if number > 1 else ''}"))
    return out


_PERSON = {"1girl": "a girl", "1boy": "a boy", "1other": "a person"}
_SAID = frozenset(
    {"n", "gender", "appearance", "body_type", "clothing", "expression", "pose", "action", "interaction"}
)
_UNSAID = ("count", "resolution")


def _gender(character: Character) -> str | None:
    """`a girl`, None where the gender is missing or another word."""
    return _PERSON.get(normal(character.gender or ""))


def _place(character: Character, several: bool) -> str:
    """`on the left`; empty for one person, for a box and without a position."""
    section = character.section("position")
    position = next((t.text.replace("_", " ") for t in section.tags if t.weight > 0), "") if section else ""
    if not position or not several or grammar.is_box(position):
        return ""
    return f"in the {position}" if "center" in position else f"on the {position}"


def sentence(prompt: Prompt) -> str:
    """The prompt as one English sentence; a caption follows it as it is."""
    people = [_person(character, len(prompt.characters) > 1) for character in prompt.characters]
    words = [
        tag.text.replace("_", " ")
        for section in prompt.general.sections
        if section.name not in ("caption", *_UNSAID)
        for tag in section.tags
        if tag.weight > 0
    ]
    captions = [t.text for s in prompt.general.sections if s.name == "caption" for t in s.tags]
    text = ", ".join(part for part in (", and ".join(people), ", ".join(words)) if part)
    return " ".join(part for part in (text + "." if text else "", *captions) if part)


def _person(character: Character, several: bool) -> str:
    def said(*names: str) -> list[str]:
        tags = (
            t for name in names for s in character.sections if s.name == name for t in s.tags if t.weight > 0
        )
        return [t.text.replace("_", " ") for t in tags]

    name, gender = " ".join(said("n")), _gender(character)
    place = _place(character, several)
    out = [place] if place else []
    out.append(f"{gender} named {name}" if name and gender else name or gender or "a person")
    for lead, names in (("with", ("appearance", "body_type")), ("wearing", ("clothing",))):
        tags = said(*names)
        if tags:
            out.append(f"{lead} {' and '.join(tags)}")
    out += said("expression", "pose", "action", "interaction")
    return " ".join(out)
