"""Does a weight do what it says, and what else: the share of pictures with an attribute, and of what it does
not weigh, over weights, on the same prompts."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from newbie_image.nano.benchmark.figures import EVALUATORS, Count, attributes_right, read_value
from newbie_image.nano.benchmark.intervals import (
    Estimate,
    difference_of,
    newcombe_paired,
    share_of,
    wilson,
)
from newbie_image.nano.benchmark.reading import PictureReading, is_asked

WEIGHTS: Final = (0.0, 0.3, 0.6, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class DoseResponse:
    """How a share answers to a weight.

    Args:
        shares: weight → share with the attribute, ascending.
        steps: (weight, next weight) → paired difference next − this.
        whole: paired difference of the largest weight to the smallest.
    """

    shares: Mapping[float, Estimate]
    steps: Mapping[tuple[float, float], Estimate]
    whole: Estimate

    @property
    def drops(self) -> list[tuple[float, float]]:
        """The steps on which the share falls beyond the paired 95 % interval."""
        return [weights for weights, step in self.steps.items() if step.high < 0]

    @property
    def monotone(self) -> bool:
        """Whether it never falls beyond the interval."""
        return not self.drops

    @property
    def rises(self) -> bool:
        """Whether the largest weight's share is clearly above the smallest one's."""
        return self.whole.low > 0


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> Estimate:
    """Newcombe's interval of first − second for answers to the same prompts.

    Raises:
        ValueError: two lists of different length.
    """
    pairs = list(zip(first, second, strict=True))
    return newcombe_paired(
        sum(a and b for a, b in pairs),
        sum(a and not b for a, b in pairs),
        sum(b and not a for a, b in pairs),
        sum(not a and not b for a, b in pairs),
    )


def dose_response(answers: Mapping[float, Sequence[bool]]) -> DoseResponse:
    """The response of answers by weight, each list on the same prompts in the same order.

    Raises:
        ValueError: fewer than two weights, or lists of different length.
    """
    weights = sorted(answers)
    if len(weights) < 2:
        raise ValueError(f"a response needs two weights or more, not {weights}")
    return DoseResponse(
        {weight: wilson(sum(answers[weight]), len(answers[weight])) for weight in weights},
        {
            (low, high): paired_difference(answers[high], answers[low])
            for low, high in itertools.pairwise(weights)
        },
        paired_difference(answers[weights[-1]], answers[weights[0]]),
    )


def has_attribute(reading: PictureReading, attribute: str, evaluator: str = "reader") -> bool:
    """Whether the first person of a prompt, whose tag is weighed, has the attribute that it was asked to."""
    first = reading.people[0]
    return first.found and read_value(first, evaluator, attribute) == first.asked[attribute]


@dataclass(frozen=True)
class Spill:
    """What a weight does beside its own tag.

    Args:
        shares: weight → share, ascending.
        change: paired difference of the largest weight to weight 1 (the smallest one where 1 is not there).
    """

    shares: Mapping[float, Estimate]
    change: Estimate


SPILLS: Final = (
    "the same person's other attributes right",
    "other people's attributes right",
    "other people with the weighed value",
)


def spill_counts(
    reading: PictureReading, attribute: str, same_tag: Collection[str], evaluator: str = "reader"
) -> dict[str, Count]:
    """What is counted for :data:`SPILLS` in one picture, and out of how much.

    Args:
        reading: of a prompt in which the first person's tag is weighed.
        attribute: the weighed one.
        same_tag: attributes that stand in its tag, itself among them; they are not counted as others.
        evaluator: whose reading.
    """
    first, *others = reading.people
    rest = [name for name in EVALUATORS[evaluator] if name not in same_tag]
    own = attributes_right(PictureReading(reading.found, (first,)), evaluator, rest)
    theirs = attributes_right(PictureReading(reading.found, tuple(others)), evaluator)
    value = first.asked[attribute]
    could = [p for p in others if p.found and is_asked(p, attribute) and p.asked[attribute] != value]
    taken = sum(read_value(person, evaluator, attribute) == value for person in could)
    return dict(zip(SPILLS, (own, theirs, (taken, len(could))), strict=True))


def spill(
    readings: Mapping[float, Sequence[PictureReading]],
    attribute: str,
    same_tag: Collection[str],
    evaluator: str = "reader",
) -> dict[str, Spill]:
    """Each of :data:`SPILLS` over the weights, whose readings are of the same prompts in the same order.

    Raises:
        ValueError: lists of different length.
    """
    weights = sorted(readings)
    base = 1.0 if 1.0 in readings else weights[0]
    counts = {w: [spill_counts(r, attribute, same_tag, evaluator) for r in readings[w]] for w in weights}
    by_name = {name: {w: [each[name] for each in counts[w]] for w in weights} for name in SPILLS}
    return {
        name: Spill(
            {weight: share_of(by_weight[weight]) for weight in weights},
            difference_of(by_weight[weights[-1]], by_weight[base]),
        )
        for name, by_weight in by_name.items()
    }
