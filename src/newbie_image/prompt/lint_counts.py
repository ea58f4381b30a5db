"""The rule about `<count>`: whether it says as many people as there are blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from newbie_image.prompt.diagnostics import Edit, Fix
from newbie_image.prompt.document import Prompt
from newbie_image.prompt.lint_people import holds_several
from newbie_image.prompt.people_words import people_in
from newbie_image.prompt.remarks import Remark
from newbie_image.prompt.vocabulary import vocabulary


def _is_solo(text: str) -> bool:
    entry = vocabulary().named(text)
    return entry is not None and entry.tag == "solo"


def _expected(prompt: Prompt) -> Counter[str] | None:
    """How many girls, boys and others the blocks make, None where a gender is missing."""
    people: Counter[str] = Counter()
    for character in prompt.characters:
        said = people_in(character.gender or "")
        if said is None:
            return None
        people[said.who] += 1
    return people


def counts(prompt: Prompt) -> Iterator[Remark]:
    """`<count>` that disagrees with the blocks. Where a block holds several people, that is said instead."""
    section = prompt.general.section("count")
    if (
        section is None
        or not section.tags
        or not prompt.characters
        or any(map(holds_several, prompt.characters))
    ):
        return
    exact = True
    told: Counter[str] = Counter()
    solo = False
    for tag in section.tags:
        words = people_in(tag.text)
        if words:
            told[words.who] += words.number
            exact &= not words.more
        solo |= _is_solo(tag.text)
    have, total = len(prompt.characters), sum(told.values())
    people = _expected(prompt)
    wrong = bool(told) and (total != have if exact else total > have)
    wrong |= bool(told) and exact and people is not None and people != told
    if not wrong and not (solo and have > 1):
        return
    first, last = section.tags[0], section.tags[-1]
    right, repair = f"{have} characters", None
    if people:
        right = ", ".join(
            f"{n}{who}{'s' if n > 1 else ''}" for who in ("girl", "boy", "other") if (n := people[who])
        )
        plain = all(people_in(t.text) or _is_solo(t.text) for t in section.tags)
        if plain and "<" not in prompt.source[first.start : last.end]:
            repair = Fix(f"write {right}", (Edit(first.start, last.end, right),))
    said = ", ".join(t.text for t in section.tags)
    yield Remark(
        "count-disagrees",
        "warning",
        f"<count> says {said[:60]}, the blocks say {right}",
        first.start,
        last.end,
        first.path,
        repair,
    )
