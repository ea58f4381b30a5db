"""Words of people → tags: Chinese and Japanese compounds, and English sentences, by the names in the
vocabulary.

Each function returns what it understood with the place of the word, and the stretches that it did not
understand, so that
nothing is dropped in silence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from newbie_image.prompt import english, fields, grammar
from newbie_image.prompt.vocabulary import Vocabulary, vocabulary

_CJK = re.compile(f"[{fields.CJK}]")
_FILLER = re.compile(
    r"(?:他们|她们|它们|一个|一位|一名|一只|穿着|戴着|带着|拿着|有着|正在|以及|并且|[的了着在和与跟及里中上下有是个位穿戴地得还她他它]|"
    r"です|ます|いる|ている|した|して|[のとをがはにでもやへ]|[\s·・,，、。！？!?…~～：:；;]|背景に|着た)+"
)
_SCHEME_SUFFIX = ("配色", "色调", "色系", "主题")
_SCHEME_COLOURS = {
    "红": "red", "橙": "orange", "黄": "yellow", "绿": "green", "青": "aqua", "蓝": "blue", "紫": "purple",
    "粉": "pink", "棕": "brown", "白": "white", "黑": "black", "灰": "grey",
}  # fmt: skip
_SCHEME = re.compile(
    f"([{''.join(_SCHEME_COLOURS)}]色?)([{''.join(_SCHEME_COLOURS)}]色?)(?:{'|'.join(_SCHEME_SUFFIX)})"
)
_HAIR_COLOURS = {
    "浅蓝": "light_blue", "水蓝": "aqua", "粉红": "pink", "红": "red", "橙": "orange", "橘": "orange", "黄": "blonde",
    "金": "blonde", "绿": "green", "青": "aqua", "蓝": "blue", "紫": "purple", "粉": "pink", "棕": "brown",
    "褐": "brown", "茶": "brown", "白": "white", "黑": "black", "灰": "grey", "银": "silver",
}  # fmt: skip
_HAIR = re.compile(f"({'|'.join(_HAIR_COLOURS)})(?:色)?的?")
_FUR = re.compile(f"({'|'.join(_HAIR_COLOURS)})毛(?![衣巾绒毯球呢线皮笔])")
_SEVERAL = {
    "长直发": ("long_hair", "straight_hair"),
    "长直": ("long_hair", "straight_hair"),
    "短直发": ("short_hair", "straight_hair"),
    "金发碧眼": ("blonde_hair", "blue_eyes"),
}
"""Words that say several things at once."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word that was understood.

    Args:
        written: as typed; start, end: its offsets in the text.
        tag: the tag it names.
        reason: how it was understood, in words.
        person: the number of the person it was said about, 0 where that is open, -1 for all.
    """

    written: str
    start: int
    end: int
    tag: str
    reason: str
    person: int = 0


def has_cjk(text: str) -> bool:
    """Whether a text has Chinese or Japanese characters."""
    return _CJK.search(text) is not None


def read_compound(text: str, offset: int = 0) -> tuple[list[Word], list[str]]:
    """The tags in a Chinese or Japanese compound such as 蓝发双马尾, longest names first.

    Returns:
        The words understood, in order, and the stretches that were not.
    """
    words = vocabulary()
    names, longest = words.names, words.longest_name
    found: list[Word] = []
    unknown: list[str] = []
    rest = -1

    def flush(end: int) -> None:
        nonlocal rest
        if rest >= 0:
            piece = _FILLER.sub(" ", text[rest:end]).strip()
            if piece:
                unknown.extend(piece.split())
            rest = -1

    position = 0
    while position < len(text):
        several = _several(words, text, position)
        if several:
            flush(position)
            end, tags, reason = several
            for tag in tags:
                found.append(Word(text[position:end], offset + position, offset + end, tag, reason))
            position = end
            continue
        scheme = _SCHEME.match(text, position)
        if scheme:
            flush(position)
            for colour in scheme.groups():
                tag = f"{_SCHEME_COLOURS[colour[0]]}_theme"
                found.append(
                    Word(
                        scheme.group(),
                        offset + position,
                        offset + scheme.end(),
                        tag,
                        f"{colour[0]} in a colour scheme",
                    )
                )
            position = scheme.end()
            continue
        for length in range(min(longest, len(text) - position), 0, -1):
            piece = text[position : position + length]
            tag = names.get(piece) or names.get(piece.lower())
            if tag is None or (length == 1 and not _alone(text, position)):
                continue
            flush(position)
            language = "Chinese" if piece in words.chinese else "Japanese"
            found.append(Word(piece, offset + position, offset + position + length, tag, f"{language} name"))
            position += length
            break
        else:
            if rest < 0:
                rest = position
            position += 1
    flush(len(text))
    return found, unknown


def _longest_name(words: Vocabulary, text: str, position: int) -> tuple[int, str]:
    """The length of the longest name at a place and its tag; 0 where there is none."""
    for length in range(min(words.longest_name, len(text) - position), 0, -1):
        tag = words.names.get(text[position : position + length])
        if tag is not None:
            return length, tag
    return 0, ""


def _several(words: Vocabulary, text: str, position: int) -> tuple[int, tuple[str, ...], str] | None:
    """What says several things, or the colour of the hair before its length or cut: 蓝色长发, 黑长直, 白毛.

    Returns:
        The end of the stretch, its tags and how they were understood; None where a name of the vocabulary is
        longer or nothing of the kind stands there.
    """
    for word, tags in _SEVERAL.items():
        if text.startswith(word, position):
            return position + len(word), tags, "says several things"
    fur = _FUR.match(text, position)
    colour = fur or _HAIR.match(text, position)
    if colour is None:
        return None
    tag = f"{_HAIR_COLOURS[colour[1]]}_hair"
    length, _ = _longest_name(words, text, position)
    if tag not in words or length >= colour.end() - position:
        return None
    if fur:
        return fur.end(), (tag,), "the colour of the hair"
    length, name = _longest_name(words, text, colour.end())
    entry = words.get(name) if length > 1 else None
    cut = entry is not None and entry.category in ("hair_length", "hairstyle")
    if not cut and not any(text.startswith(word, colour.end()) for word in _SEVERAL):
        return None
    return colour.end(), (tag,), "the colour of the hair that follows"


def read_mixed(text: str) -> tuple[list[Word], list[str]]:
    """A compound, its Latin stretches read as tags."""
    found: list[Word] = []
    unknown: list[str] = []
    words = vocabulary()
    for piece in re.finditer(
        rf"[{fields.CJK}、·\s：:。！？]*[{fields.CJK}]+[^\x00-\x7f]*(?:\d*[{fields.CJK}]+)*|[\x21-\x7e]+",
        text,
    ):
        if piece.group().isascii():
            latin = piece.group().strip("+.;:!?")
            entry = words.get(latin)
            if entry:
                found.append(Word(latin, piece.start(), piece.end(), entry.tag, "a tag"))
            elif latin:
                unknown.append(latin)
            continue
        more, missed = read_compound(piece.group(), piece.start())
        found += more
        unknown += missed
    whole, missed = read_compound(text)
    return (whole, missed) if len(whole) >= len(found) else (found, unknown)


def _alone(text: str, position: int) -> bool:
    """Whether a one-character name stands alone between separators or fillers, so that it is meant as a
    word.
    """
    before = text[position - 1] if position else ","
    after = text[position + 1] if position + 1 < len(text) else ","
    return all(not _CJK.match(c) or _FILLER.match(c) is not None for c in (before, after))


_PLACE = re.compile(
    r"\b(?:on|at|in|to)\s+(?:the\s+)?((?:upper|lower|far|center|centre|middle)?[\s_-]?(?:left|right|center|centre|middle))\b",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"[^\s,.;!?()\"“”]+")


def read_sentence(text: str) -> tuple[list[Word], list[str]]:
    """The tags in an English sentence: the longest runs of words that the vocabulary knows, articles left
    out.

    Each "a girl", "another boy", "the other" begins a person, and what follows is said about that person.

    Returns:
        The words understood, in order, and the content words that were not.
    """
    words = vocabulary()
    tokens = [(m.group(), m.start(), m.end()) for m in _TOKEN.finditer(text)]
    places = {m.start(): m for m in _PLACE.finditer(text)}
    found: list[Word] = []
    unknown: list[str] = []
    person, about, index, total = 0, 0, 0, 0
    pending_place: Word | None = None
    while index < len(tokens):
        token, start, end = tokens[index]
        lower = token.lower()
        place = places.get(start)
        if place:
            name = (
                re.sub(r"[\s-]+", "_", place.group(1).lower())
                .replace("centre", "center")
                .replace("middle", "center")
            )
            name = {"center_center": "center"}.get(name, name)
            if name in grammar.POSITIONS:
                word = Word(
                    place.group(), start, place.end(), f"position:{name}", "a place in the picture", person
                )
                begins = (
                    not text[:start].strip(" ")
                    or text[:start].rstrip()[-1:] in ".;,:"
                    or text[:start].endswith("and ")
                )
                if begins:
                    pending_place = word
                else:
                    found.append(word)
                while index < len(tokens) and tokens[index][1] < place.end():
                    index += 1
                continue
        if (
            lower in english.NUMBERS
            and index + 1 < len(tokens)
            and tokens[index + 1][0].lower() in english.PEOPLE
        ):
            tag = f"{english.NUMBERS[lower]}{english.PEOPLE[tokens[index + 1][0].lower()]}"
            found.append(
                Word(
                    text[start : tokens[index + 1][2]], start, tokens[index + 1][2], tag, "a number of people"
                )
            )
            total += english.NUMBERS[lower]
            about = -1 if person == 0 else about
            index += 2
            continue
        if lower in english.EVERYONE and max(person, total) > 1:
            about = -1
            index += 1
            continue
        tag = english.PERSON.get(lower)
        named = words.get(_join(tokens, index, 2)) or words.get(lower)
        begins_person = (
            tag is not None or lower in english.OTHER_ONE or (lower == "one" and total > 1 and person == 0)
        )
        called = index > 0 and tokens[index - 1][0].lower() == "named" and person > 0
        if named is not None and named.field == "n" and not called:
            begins_person = True
        if begins_person:
            person += 1
            about = person
            if pending_place is not None:
                found.append(_about(pending_place, person))
                pending_place = None
            found[:] = [
                _about(w, person) if w.person == 0 and w.reason == "before a person" else w for w in found
            ]
            if tag is not None or lower in english.OTHER_ONE or lower == "one":
                following = tokens[index + 1][0].lower() if index + 1 < len(tokens) else ""
                if tag is None and following in english.PERSON:
                    index, tag = index + 1, english.PERSON[following]
                if tag is not None:
                    found.append(Word(token, start, end, tag, "a person", person))
                index += 1
                continue
        index = _adjectives(words, tokens, index, about, found) or _longest(
            words, tokens, index, about, found, unknown
        )
    if pending_place is not None:
        found.append(pending_place)
    return found, unknown


def _about(word: Word, person: int) -> Word:
    return Word(word.written, word.start, word.end, word.tag, word.reason, person)


def _join(tokens: list[tuple[str, int, int]], index: int, count: int) -> str:
    return "_".join(t[0].lower() for t in tokens[index : index + count])


def _adjectives(
    words: Vocabulary, tokens: list[tuple[str, int, int]], index: int, person: int, found: list[Word]
) -> int:
    """Take "long blue hair" as long_hair and blue_hair; 0 where no such run begins at `index`."""
    for count in (4, 3):
        run = [t[0].lower() for t in tokens[index : index + count]]
        if len(run) < count or run[-1] not in english.PARTS:
            continue
        said = [w for w in run[:-1] if w not in english.ARTICLES and w != "and"]
        tags = [f"{english.LEMMAS.get(w, w)}_{run[-1]}" for w in said]
        if (
            len(said) < 2
            or said[0] != run[0]
            or "_".join([*said, run[-1]]) in words
            or not all(tag in words for tag in tags)
        ):
            continue
        reason = "before a person" if person == 0 else "adjectives of one word"
        for tag, place in zip(tags, tokens[index : index + count], strict=False):
            found.append(
                Word(f"{place[0]} {run[-1]}", place[1], tokens[index + count - 1][2], tag, reason, person)
            )
        return index + count
    return 0


def _longest(
    words: Vocabulary,
    tokens: list[tuple[str, int, int]],
    index: int,
    person: int,
    found: list[Word],
    unknown: list[str],
) -> int:
    """Take the longest known run of words that begins at `index`; the index after it."""
    for count in range(min(6, len(tokens) - index), 0, -1):
        raw = [t[0].lower().removesuffix("'s") for t in tokens[index : index + count]]
        kept = [w for w in raw if w not in english.ARTICLES]
        if not kept or (count > 1 and (raw[-1] in english.ARTICLES or raw[0] in english.ARTICLES)):
            continue
        options = ["_".join(raw), "_".join(kept), "_".join(english.LEMMAS.get(w, w) for w in kept)]
        if kept[-1].endswith("s"):
            options.append("_".join([*kept[:-1], kept[-1][:-1]]))
        if count == 1 and kept[0].endswith("-haired"):
            options = [kept[0].removesuffix("-haired").replace("-", "_") + "_hair"]
        if count == 1 and kept[0].endswith("-eyed"):
            options = [kept[0].removesuffix("-eyed").replace("-", "_") + "_eyes"]
        for option in options:
            entry = words.get(option)
            if entry is None or (count == 1 and option in english.NOT_ALONE):
                continue
            start, end = tokens[index][1], tokens[index + count - 1][2]
            written = " ".join(t[0] for t in tokens[index : index + count])
            personal = entry.field in grammar.CHARACTER_FIELDS
            reason = "before a person" if personal and person == 0 else "words of the vocabulary"
            found.append(Word(written, start, end, entry.tag, reason, person if personal else 0))
            return index + count
    token = tokens[index][0]
    if token.lower() not in english.ARTICLES and token.lower() not in english.SMALL_WORDS:
        unknown.append(token)
    return index + 1
