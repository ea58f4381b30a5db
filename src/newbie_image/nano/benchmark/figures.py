"""What is counted in a picture's reading, and the tables that are made of it.

Every figure is a function of one picture: how much was counted, out of how much. A share is the sum of the
one over the sum of the other, and its interval is drawn over pictures, so that the same functions give a
table, a difference of two arms on the same prompts, and the error of the readers on renders.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from newbie_image.nano.benchmark.colour_rules import RULES
from newbie_image.nano.benchmark.intervals import Estimate, difference_of, shares_of
from newbie_image.nano.benchmark.reading import READ_ATTRIBUTES, PersonReading, PictureReading, is_asked
from newbie_image.nano.readers import CHARACTER_HEADS, HIDDEN

EVALUATORS: Final[Mapping[str, tuple[str, ...]]] = {"reader": READ_ATTRIBUTES, "colours": tuple(RULES)}
"""Evaluator → the attributes that it reads."""

Count = tuple[float, float]
"""How much was counted, out of how much."""
Figure = Callable[[PictureReading, str], Count]


def read_value(person: PersonReading, evaluator: str, attribute: str) -> int:
    """The value an evaluator reads of a person; HIDDEN where it sees none or nobody is there."""
    return (person.read if evaluator == "reader" else person.colours).get(attribute, HIDDEN)


def attributes_right(
    reading: PictureReading, evaluator: str, attributes: Iterable[str] | None = None
) -> Count:
    """Attributes that are as asked, out of those asked; a missing person has nothing right."""
    right = asked = 0
    for person in reading.people:
        for attribute in attributes or EVALUATORS[evaluator]:
            if is_asked(person, attribute):
                asked += 1
                right += read_value(person, evaluator, attribute) == person.asked[attribute]
    return right, asked


def all_right(reading: PictureReading, evaluator: str) -> Count:
    """1 of 1 where as many people as asked are found and all their attributes are as asked."""
    right, asked = attributes_right(reading, evaluator)
    return float(right == asked and reading.found == len(reading.people)), 1


def _leaks(
    reading: PictureReading, evaluator: str, attributes: Iterable[str] | None
) -> tuple[float, float, int]:
    """Another person's values read, the same number of absent values expected, and where this could be."""
    hits, decoys, places = 0.0, 0.0, 0
    for attribute in attributes or EVALUATORS[evaluator]:
        asked = [p.asked[attribute] if is_asked(p, attribute) else HIDDEN for p in reading.people]
        values = CHARACTER_HEADS[attribute]
        # "Nothing there" is nobody's value: it is neither another's nor a decoy.
        absent = {i for i, value in enumerate(values) if value is not None} - set(asked)
        for person, own in zip(reading.people, asked, strict=True):
            others = {value for value in asked if value not in (own, HIDDEN) and values[value] is not None}
            if own == HIDDEN or not person.found or not others or not absent:
                continue
            read = read_value(person, evaluator, attribute)
            places += 1
            hits += read in others
            decoys += len(others) / len(absent) * (read in absent)
    return hits, decoys, places


def excess_leakage(reading: PictureReading, evaluator: str, attributes: Iterable[str] | None = None) -> Count:
    """P(value is another person's) − P(value is a matched decoy absent from the prompt).

    For each other person's value a decoy of the same attribute that nobody was asked to have is drawn; the
    expectation over all decoys is taken instead of one draw. Attributes of which every value is asked for
    have no decoy and are not counted, nor are people who are missing.
    """
    hits, decoys, places = _leaks(reading, evaluator, attributes)
    return hits - decoys, places


def raw_leakage(reading: PictureReading, evaluator: str, attributes: Iterable[str] | None = None) -> Count:
    """P(value is another person's), chance and reading errors included."""
    hits, _, places = _leaks(reading, evaluator, attributes)
    return hits, places


def swapped_pairs(reading: PictureReading, evaluator: str, attributes: Iterable[str] | None = None) -> Count:
    """Pairs of people who have exchanged a value, out of the pairs with different ones."""
    swaps = pairs = 0
    for attribute in attributes or EVALUATORS[evaluator]:
        there = [p for p in reading.people if p.found and is_asked(p, attribute)]
        for one, two in itertools.combinations(there, 2):
            if one.asked[attribute] == two.asked[attribute]:
                continue
            pairs += 1
            swaps += (
                read_value(one, evaluator, attribute) == two.asked[attribute]
                and read_value(two, evaluator, attribute) == one.asked[attribute]
            )
    return swaps, pairs


def counted_right(reading: PictureReading, evaluator: str) -> Count:
    """1 of 1 where as many people are found as were asked for."""
    return float(reading.found == len(reading.people)), 1


def placed_right(reading: PictureReading, evaluator: str) -> Count:
    """People who stand where they were asked to."""
    return sum(person.placed for person in reading.people), len(reading.people)


def missing_people(reading: PictureReading, evaluator: str) -> Count:
    """People asked for whom nobody stands."""
    return sum(not person.found for person in reading.people), len(reading.people)


FIGURES: Final[Mapping[str, Figure]] = {
    "attributes right": attributes_right,
    "all right in the picture": all_right,
    "excess leakage": excess_leakage,
    "raw leakage": raw_leakage,
    "swapped pairs": swapped_pairs,
    "count right": counted_right,
    "at their place": placed_right,
    "missing": missing_people,
}
BY_ATTRIBUTE: Final[Mapping[str, Callable[[PictureReading, str, Iterable[str]], Count]]] = {
    "attributes right": attributes_right,
    "excess leakage": excess_leakage,
    "swapped pairs": swapped_pairs,
}


def table(readings: Sequence[PictureReading]) -> dict[str, dict[str, Estimate]]:
    """Figure → evaluator → estimate."""
    pairs = [(name, evaluator) for name in FIGURES for evaluator in EVALUATORS]
    shares = shares_of([[FIGURES[name](r, e) for r in readings] for name, e in pairs])
    found: dict[str, dict[str, Estimate]] = {}
    for (name, evaluator), share in zip(pairs, shares, strict=True):
        found.setdefault(name, {})[evaluator] = share
    return found


def table_by_people(readings: Sequence[PictureReading]) -> dict[int, dict[str, dict[str, Estimate]]]:
    """Number of people asked for → :func:`table`."""
    counts = sorted({len(reading.people) for reading in readings})
    return {count: table([r for r in readings if len(r.people) == count]) for count in counts}


def table_by_attribute(readings: Sequence[PictureReading], evaluator: str) -> dict[str, dict[str, Estimate]]:
    """Attribute → figure → estimate, for an evaluator's attributes that were asked for."""
    found: dict[str, dict[str, Estimate]] = {}
    for attribute in EVALUATORS[evaluator]:
        if any(is_asked(person, attribute) for reading in readings for person in reading.people):
            counts = [[f(r, evaluator, (attribute,)) for r in readings] for f in BY_ATTRIBUTE.values()]
            found[attribute] = dict(zip(BY_ATTRIBUTE, shares_of(counts), strict=True))
    return found


def differences(
    first: Mapping[str, PictureReading], second: Mapping[str, PictureReading]
) -> dict[str, dict[str, Estimate]]:
    """Figure → evaluator → first − second, on the prompts (by key) that both have."""
    keys = [key for key in first if key in second]
    return {
        name: {
            e: difference_of([figure(first[k], e) for k in keys], [figure(second[k], e) for k in keys])
            for e in EVALUATORS
        }
        for name, figure in FIGURES.items()
    }


def discordance(
    first: Mapping[str, PictureReading], second: Mapping[str, PictureReading], evaluator: str
) -> tuple[int, int, int, int]:
    """Pictures all right in both arms, in the first alone, in the second alone, in neither."""
    both = one = two = neither = 0
    for key in first:
        if key in second:
            here, there = all_right(first[key], evaluator)[0], all_right(second[key], evaluator)[0]
            both, one = both + (here and there > 0), one + (here > 0 and not there)
            two, neither = two + (not here and there > 0), neither + (not here and not there)
    return int(both), int(one), int(two), int(neither)


def estimate_json(estimate: Estimate) -> dict[str, Any]:
    """Plain numbers, None for NaN."""
    return {name: None if value != value else value for name, value in vars(estimate).items()}
