"""The readers make mistakes: how often, and what a share is when they are taken out of it.

Rogan and Gladen 1978, "Estimating prevalence from the results of a screening test": with p the true share,
s = P(reads what was asked | it is there) and f = P(reads what was asked | something else is there), the share
that is read is p·s + (1 − p)·f.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from newbie_image.nano.benchmark.figures import EVALUATORS, read_value
from newbie_image.nano.benchmark.intervals import Z95, Estimate
from newbie_image.nano.benchmark.reading import PictureReading, is_asked
from newbie_image.nano.readers import CHARACTER_HEADS, HIDDEN


@dataclass(frozen=True)
class ReaderError:
    """How an evaluator reads one attribute.

    Args:
        sensitivity: P(reads the value | it is there).
        false_positive: P(reads one certain value | another one is there), the mean over the other values.
        count: readings it is known from.
        values: number of the attribute's values.
    """

    sensitivity: float
    false_positive: float
    count: int
    values: int


def confusion(readings: Sequence[PictureReading], evaluator: str, attribute: str) -> np.ndarray:
    """(values, values + 1) int64: rows what is there, columns what is read, the last one nothing.

    The readings must be of pictures that show what was asked, as renders do.
    """
    size = len(CHARACTER_HEADS[attribute])
    counts = np.zeros((size, size + 1), np.int64)
    for reading in readings:
        for person in reading.people:
            if is_asked(person, attribute):
                read = read_value(person, evaluator, attribute)
                counts[person.asked[attribute], size if read == HIDDEN else read] += 1
    return counts


def reader_error(counts: np.ndarray) -> ReaderError:
    """The error of a confusion (values, values + 1); NaN where there is nothing."""
    size, total = len(counts), int(counts.sum())
    if total == 0:
        return ReaderError(math.nan, math.nan, 0, size)
    right = int(np.trace(counts[:, :size]))
    wrong = int(counts[:, :size].sum()) - right
    return ReaderError(right / total, wrong / total / max(1, size - 1), total, size)


def reader_errors(readings: Sequence[PictureReading], evaluator: str) -> dict[str, ReaderError]:
    """Attribute → the evaluator's error on pictures that show what was asked."""
    return {name: reader_error(confusion(readings, evaluator, name)) for name in EVALUATORS[evaluator]}


def rogan_gladen(read: Estimate, error: ReaderError) -> Estimate:
    """The true share behind a share that was read, with its interval by the delta method.

    The variance of the share that was read is taken from its own interval, which is drawn over pictures. NaN
    where the reader does not tell the value from others.
    """
    span = error.sensitivity - error.false_positive
    if not span > 0 or math.isnan(read.value):
        return Estimate(math.nan, math.nan, math.nan)
    share = (read.value - error.false_positive) / span
    spread = ((read.high - read.low) / (2 * Z95)) ** 2
    wrong = error.false_positive * (error.values - 1)
    hit = error.sensitivity * (1 - error.sensitivity) / max(1, error.count)
    slip = wrong * (1 - wrong) / max(1, error.count) / max(1, error.values - 1) ** 2
    half = Z95 * math.sqrt(spread + share**2 * hit + (1 - share) ** 2 * slip) / span
    return Estimate(
        min(1.0, max(0.0, share)),
        min(1.0, max(0.0, share - half)),
        min(1.0, max(0.0, share + half)),
        read.count,
    )


def corrected_leakage(excess: Estimate, error: ReaderError) -> Estimate:
    """The true excess leakage behind one that was read.

    Confusion adds to another person's value and to a decoy alike and so cancels; what is left is that a
    leaked value is read as such only in s of all cases and any other in f.
    """
    span = error.sensitivity - error.false_positive
    if not span > 0:
        return Estimate(math.nan, math.nan, math.nan)
    return Estimate(excess.value / span, excess.low / span, excess.high / span, excess.count)


def mean_error(errors: Sequence[ReaderError]) -> ReaderError:
    """One error for attributes together, each weighed by its readings."""
    known = [error for error in errors if error.count]
    if not known:
        return ReaderError(math.nan, math.nan, 0, 0)
    total = sum(error.count for error in known)
    return ReaderError(
        sum(error.sensitivity * error.count for error in known) / total,
        sum(error.false_positive * error.count for error in known) / total,
        total,
        round(sum(error.values * error.count for error in known) / total),
    )
