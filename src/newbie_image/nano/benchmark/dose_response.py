"""Does a weight do what it says: the share of pictures with an attribute, over weights, on the same
prompts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from newbie_image.nano.benchmark.figures import read_value
from newbie_image.nano.benchmark.intervals import Estimate, newcombe_paired, wilson
from newbie_image.nano.benchmark.reading import PictureReading

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
