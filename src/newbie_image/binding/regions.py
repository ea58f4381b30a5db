"""Where each character is to stand, from the words and boxes of `<position>`. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from newbie_image.prompt import Prompt, grammar

Box = tuple[float, float, float, float]
LONE_HALF_WIDTH = 0.35
"""Half the width of the region of a character that has no neighbour in its row, in widths of the picture."""


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
    its row, the outermost to the picture's edge; rows are parted in the same way. A box is taken as it is.

    Returns:
        Regions of all characters, none where one of them has no place; remarks, a line each.
    """
    boxes: dict[int, Box] = {}
    centers: dict[int, tuple[float, float]] = {}
    remarks: list[str] = []
    unplaced: list[int] = []
    for number, character in enumerate(prompt.characters, start=1):
        told = (character.position or "").strip()
        box = grammar.position_box(told)
        word = grammar.POSITION_NAMES.get(told, told.lower().replace(" ", "_").replace("-", "_"))
        if box is not None:
            boxes[number] = box
        elif word in grammar.POSITIONS:
            centers[number] = grammar.POSITIONS[word]
        else:
            unplaced.append(number)
            if told:
                remarks.append(f"character_{number}: position {told[:40]!r} is no place that regions can use")
    if unplaced:
        return (), tuple(remarks)
    same = [number for number in centers if list(centers.values()).count(centers[number]) > 1]
    if same:
        names = ", ".join(f"character_{number}" for number in same)
        remarks.append(f"{names} have one place; they share a region")
    boxes.update(_cells(centers))
    for first, second in _overlaps(boxes):
        remarks.append(f"the regions of character_{first} and character_{second} overlap by more than half")
    return tuple(Region(number, boxes[number]) for number in sorted(boxes)), tuple(remarks)


def _cells(centers: dict[int, tuple[float, float]]) -> dict[int, Box]:
    rows = sorted({y for _, y in centers.values()})
    found: dict[int, Box] = {}
    for number, (x, y) in centers.items():
        columns = sorted({other for other, row in centers.values() if row == y})
        left, right = _span(x, columns, LONE_HALF_WIDTH)
        top, bottom = _span(y, rows, 1.0)
        found[number] = (left, top, right, bottom)
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
