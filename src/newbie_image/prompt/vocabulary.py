"""The words of this field: tags with category, field, exclusivity group and their Chinese and Japanese names.

The data is `vocabulary.tsv`, one tag a line, read on first use.
"""

from __future__ import annotations

import re
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import NamedTuple

DATA = "vocabulary.tsv"
FIRM_GROUPS = frozenset(
    {
        "gender",
        "hair_color",
        "hair_length",
        "eye_color",
        "eye_state",
        "skin_color",
        "posture",
        "mouth",
        "age",
        "height",
        "breast_size",
        "sleeves",
    }
)
"""Groups of which one person has one. Other groups (a garment's colour, a hairstyle) only guide the sorting
of a
tag list into several people, because a person may well wear two bows."""

BLENDS = {
    "hair_color": {
        "multicolored_hair",
        "two-tone_hair",
        "gradient_hair",
        "streaked_hair",
        "colored_inner_hair",
        "split-color_hair",
        "rainbow_hair",
        "colored_tips",
        "dyed_bangs",
        "roots_(hair)",
    },
    "eye_color": {"heterochromia", "multicolored_eyes", "gradient_eyes", "rainbow_eyes"},
}
"""Tags in whose presence two values of a group are no contradiction."""

IMPLIED = {
    "very_long_hair": "long_hair",
    "absurdly_long_hair": "very_long_hair",
    "very_short_hair": "short_hair",
    "standing_on_one_leg": "standing",
    "on_one_knee": "kneeling",
    "on_back": "lying",
    "on_side": "lying",
    "on_stomach": "lying",
    "very_dark_skin": "dark_skin",
    "dark-skinned_female": "dark_skin",
    "dark-skinned_male": "dark_skin",
    "blue_skin": "colored_skin",
    "green_skin": "colored_skin",
    "grey_skin": "colored_skin",
    "purple_skin": "colored_skin",
    "red_skin": "colored_skin",
    "white_skin": "colored_skin",
    "old_man": "old",
    "old_woman": "old",
    "female_child": "child",
    "male_child": "child",
    "tall_female": "tall",
    "giantess": "giant",
}
"""A tag → the wider tag of its group that is true of the same person, and stands beside it on Danbooru."""


def implied(tag: str) -> frozenset[str]:
    """A tag and the wider tags that it implies: `very_long_hair` and `long_hair`."""
    chain = [tag]
    while chain[-1] in IMPLIED:
        chain.append(IMPLIED[chain[-1]])
    return frozenset(chain)


class Entry(NamedTuple):
    """One tag of the vocabulary.

    Args:
        tag: the Danbooru tag.
        category: what it is about: hair_color, outfit, background, …
        field: the element it belongs in: appearance, clothing, background, …
        group: the exclusivity group; empty where it has none.
        zh, ja: names in Chinese and Japanese, the usual one first.
    """

    tag: str
    category: str
    field: str
    group: str
    zh: tuple[str, ...]
    ja: tuple[str, ...]


def normal(tag: str) -> str:
    """A tag in the vocabulary's spelling: small letters, underscores for spaces, brackets without
    backslashes.
    """
    return re.sub(r"\s+", "_", tag.strip().lower()).replace("\\(", "(").replace("\\)", ")")


class Vocabulary:
    """All entries, and the look-ups over them.

    Args:
        entries: by tag, in the order of the file.
    """

    def __init__(self, entries: dict[str, Entry]) -> None:
        self.entries = entries

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, tag: str) -> bool:
        return self.get(tag) is not None

    def get(self, tag: str) -> Entry | None:
        """The entry of a tag, also where it is written with spaces or capitals; None for an unknown one."""
        return self.entries.get(tag) or self.entries.get(normal(tag))

    def named(self, text: str) -> Entry | None:
        """The entry of a tag, or of its Chinese or Japanese name: 蓝发 is blue_hair."""
        entry = self.get(text)
        if entry is None and not text.isascii():
            entry = self.entries.get(self.names.get(text, ""))
        return entry

    def group(self, tag: str) -> str:
        """The exclusivity group of a tag, empty where it has none."""
        entry = self.get(tag)
        return entry.group if entry else ""

    def field(self, tag: str) -> str | None:
        """The field of a tag. An unknown tag whose last words are known (`lilac_pleated_skirt`) goes with
        them.
        """
        entry = self.get(tag)
        if entry is not None:
            return entry.field
        tag = normal(tag)
        if tag.startswith("holding_"):
            return "action"
        words = tag.split("_")
        for begin in range(1, min(len(words), 5)):
            entry = self.entries.get("_".join(words[begin:]))
            if entry is not None:
                return (
                    entry.field
                    if entry.field in ("appearance", "clothing", "background", "objects")
                    else None
                )
        if len(words) > 1 and words[-1] in (
            "hair",
            "eyes",
            "ears",
            "tail",
            "horns",
            "wings",
            "skin",
            "bangs",
            "pupils",
        ):
            return "appearance"
        if len(words) > 1 and words[-1] in (
            "sleeves",
            "collar",
            "trim",
            "legwear",
            "footwear",
            "headwear",
            "uniform",
        ):
            return "clothing"
        if len(words) > 1 and words[-1] in ("background", "sky"):
            return "background"
        return None

    @cached_property
    def chinese(self) -> dict[str, str]:
        """Chinese name → tag."""
        return {name: entry.tag for entry in reversed(self.entries.values()) for name in entry.zh}

    @cached_property
    def japanese(self) -> dict[str, str]:
        """Japanese name → tag."""
        return {name: entry.tag for entry in reversed(self.entries.values()) for name in entry.ja}

    @cached_property
    def names(self) -> dict[str, str]:
        """Chinese and Japanese names → tag; where both have one, the Chinese reading counts."""
        return self.japanese | self.chinese

    @cached_property
    def longest_name(self) -> int:
        """Length of the longest name in characters."""
        return max(map(len, self.names))

    @cached_property
    def _squashed(self) -> dict[str, str]:
        """Tags without underscores and hyphens → tag."""
        return {re.sub(r"[_-]", "", tag): tag for tag in reversed(self.entries) if len(tag) > 5}

    @cached_property
    def _words(self) -> dict[str, list[str]]:
        """A word with one letter left out, or none → the words that it may have been."""
        index: dict[str, list[str]] = {}
        words = {word for tag in self.entries for word in tag.split("_") if len(word) >= 4 and word.isalpha()}
        for word in sorted(words):
            for shape in {word, *(word[:i] + word[i + 1 :] for i in range(len(word)))}:
                index.setdefault(shape, []).append(word)
        return index

    @cached_property
    def _known_words(self) -> frozenset[str]:
        return frozenset(word for tag in self.entries for word in tag.split("_"))

    def correction(self, tag: str) -> str | None:
        """The known tag that a misspelt one most likely means; None for a known tag and for one that
        resembles none.

        Each unknown word may have one letter too many, too few, wrong or swapped with its neighbour, and
        underscores may be missing or too many.
        """
        written = normal(tag)
        if written in self.entries or len(written) < 5 or len(written) > 60 or not written.isascii():
            return None
        squashed = self._squashed.get(re.sub(r"[_-]", "", written))
        if squashed is not None:
            return squashed
        words = written.split("_")
        if len(words) > 6 or (len(words) == 1 and len(written) < 6):
            return None
        if all(word in self._known_words for word in words):
            return None
        choices = [[word] if word in self._known_words else self._near_words(word) for word in words]
        for choice in product(*(c[:4] for c in choices)):
            candidate = "_".join(choice)
            if candidate in self.entries:
                return candidate
        return None

    def _near_words(self, word: str) -> list[str]:
        found: dict[str, None] = {}
        for shape in (word, *(word[:i] + word[i + 1 :] for i in range(len(word)))):
            for candidate in self._words.get(shape, ()):
                found[candidate] = None
        near = [(_difference(word, c), c) for c in found]
        return [c for d, c in sorted(near) if d == 1 and (len(word) > 4 or sorted(word) == sorted(c))]


def _difference(a: str, b: str) -> int:
    """1 where two words differ by a letter or a swap of neighbours, 0 where they are equal, 2 otherwise."""
    if a == b:
        return 0
    begin = 0
    while begin < min(len(a), len(b)) and a[begin] == b[begin]:
        begin += 1
    x, y = a[begin:], b[begin:]
    swap = len(x) > 1 and len(y) > 1 and x[0] == y[1] and x[1] == y[0] and x[2:] == y[2:]
    return 1 if swap or x[1:] == y[1:] or x[1:] == y or x == y[1:] else 2


def read(text: str) -> dict[str, Entry]:
    """The entries of a vocabulary file's text.

    Raises:
        ValueError: a line that has not six columns, or a tag that comes twice.
    """
    entries: dict[str, Entry] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line.startswith("# "):
            continue
        columns = line.split("\t")
        tag = columns[0]
        if len(columns) != 6 or tag in entries:
            raise ValueError(
                f"line {number} of the vocabulary must have six columns and a new tag, not {line!r}"
            )
        _, category, field, group, zh, ja = columns
        entries[tag] = Entry(tag, category, field, group, tuple(zh.split("|")), tuple(ja.split("|")))
    return entries


@cache
def vocabulary() -> Vocabulary:
    """The vocabulary of the package, read once."""
    text = Path(__file__).with_name(DATA).read_text(encoding="utf-8")
    return Vocabulary(read(text))
