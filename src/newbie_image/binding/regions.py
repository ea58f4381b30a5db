"""Where each character is to stand, from the words and boxes of `<position>`. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from newbie_image.prompt import Character, Prompt, grammar

Box = tuple[float, float, float, float]
LONE_HALF_WIDTH = 0.35
"""Half the width of the region of a character that has no neighbour in its row, in widths of the picture."""
FLAT = 2.0
"""A row's region this much wider than high, in fractions of the picture, is nothing to stand in."""
FINDING_SHARE = 0.2
"""Part of the steps after which regions are looked for, where no position says them."""


def finding_step(steps: int) -> int:
    """The first step, counted from 0, under regions that were found in the picture; at least 1, which is no
    step of a run that has a single one.
    """
    return max(1, round(FINDING_SHARE * steps))


@dataclass(frozen=True)
class Region:
    """One character's place.

    Args:
        character: its place among the prompt's characters, from 1.
        box: left, top, right, bottom in fractions of the picture.
    """

    character: int
    box: Box


def regions_of(prompt: Prompt) -> tuple[tuple[Region, ...], tuple[str, ...]]:
    """The regions of a prompt's characters, and what had to be said about them.

    Place words are read together: each goes from halfway to its left neighbour to halfway to its right one in
    its row, the outermost to the picture's edge; rows are parted in the same way. Where that leaves somebody
    a flat band (the one in the middle of four corners), columns are parted into rows instead. A box is taken
    as it is.

    Returns:
        Regions of all characters, none where one of them has no place; remarks, a line each, in which
        characters have the numbers that they have in the prompt.
    """
    boxes: dict[int, Box] = {}
    centers: dict[int, tuple[float, float]] = {}
    remarks: list[str] = []
    keys = [character.key for character in prompt.characters]
    unplaced: list[int] = []
    for number, character in enumerate(prompt.characters, start=1):
        places = list(dict.fromkeys(character.get("position")))
        told = places[0] if places else ""
        if len(places) > 1:
            given = " and ".join(repr(place[:40]) for place in places)
            remarks.append(f"{character.key} has the positions {given}; the first one is used")
        place = place_of(character)
        if place is None:
            unplaced.append(number)
            if told:
                remarks.append(f"{character.key}: position {told[:40]!r} is no place that regions can use")
        elif len(place) == 4:
            boxes[number] = place
        else:
            centers[number] = place
    if unplaced:
        return (), tuple(remarks)
    for center in dict.fromkeys(centers.values()):
        same = [keys[number - 1] for number, other in centers.items() if other == center]
        if len(same) > 1:
            remarks.append(f"{', '.join(same)} have one place; they share a region")
    boxes.update(_cells(centers))
    for first, second in _overlaps(boxes):
        if first not in centers or centers[first] != centers.get(second):
            names = f"{keys[first - 1]} and {keys[second - 1]}"
            remarks.append(f"the regions of {names} overlap by more than half; both are used as they are")
    return tuple(Region(number, boxes[number]) for number in sorted(boxes)), tuple(remarks)


def place_of(character: Character) -> Box | tuple[float, float] | None:
    """A character's box, or the middle (x, y) of its place word; None where it has neither."""
    told = (character.position or "").strip()
    box = grammar.position_box(told)
    if box is not None:
        return box
    word = grammar.POSITION_NAMES.get(told, told.lower().replace(" ", "_").replace("-", "_"))
    return grammar.POSITIONS.get(word)


def labels(prompt: Prompt) -> tuple[int, ...]:
    """What each character is called, in their order: its number, where all have numbers of their own, else
    its place from 1.
    """
    numbers = tuple(character.number for character in prompt.characters)
    return numbers if len(set(numbers)) == len(numbers) else tuple(range(1, len(numbers) + 1))


def _cells(centers: dict[int, tuple[float, float]]) -> dict[int, Box]:
    """Boxes of place words: rows that are parted into columns, or, where that is too flat for somebody,
    columns that are parted into rows."""
    rows = {n: (x[0], y[0], x[1], y[1]) for n, (y, x) in _parted(centers, 1.0, LONE_HALF_WIDTH).items()}
    if all(right - left <= FLAT * (bottom - top) for left, top, right, bottom in rows.values()):
        return rows
    flipped = {number: (y, x) for number, (x, y) in centers.items()}
    return {n: (x[0], y[0], x[1], y[1]) for n, (x, y) in _parted(flipped, LONE_HALF_WIDTH, 1.0).items()}


Span = tuple[float, float]


def _parted(
    centers: dict[int, tuple[float, float]], lone_line: float, lone: float
) -> dict[int, tuple[Span, Span]]:
    """Spans across and along the lines that centers (along, across) lie on."""
    lines = sorted({across for _, across in centers.values()})
    found: dict[int, tuple[Span, Span]] = {}
    for number, (along, across) in centers.items():
        same = sorted({other for other, line in centers.values() if line == across})
        found[number] = (_span(across, lines, lone_line), _span(along, same, lone))
    return found


def _span(value: float, values: Sequence[float], lone: float) -> tuple[float, float]:
    if len(values) == 1:
        return max(0.0, value - lone), min(1.0, value + lone)
    place = list(values).index(value)
    low = 0.0 if place == 0 else (values[place - 1] + value) / 2
    high = 1.0 if place == len(values) - 1 else (value + values[place + 1]) / 2
    return low, high


def _overlaps(boxes: dict[int, Box]) -> list[tuple[int, int]]:
    found = []
    for first in boxes:
        for second in boxes:
            if first < second and _shared(boxes[first], boxes[second]) > 0.5:
                found.append((first, second))
    return found


def _shared(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(0.0, width) * max(0.0, height) / smaller
