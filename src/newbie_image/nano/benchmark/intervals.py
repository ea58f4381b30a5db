"""Shares, differences of shares, and their 95 % intervals.

Sources: Wilson 1927 (one share); Newcombe 1998, "Improved confidence intervals for the difference between
binomial proportions based on paired data", method 10; McNemar 1947 in its exact form; the percentile
bootstrap over pictures (Efron 1979), as the attributes of one picture are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

Z95: Final = 1.959963984540054
RESAMPLES: Final = 2000


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; NaN where there is nothing to count."""

    value: float
    low: float
    high: float
    count: int = 0

    def contains(self, value: float) -> bool:
        """Whether the interval contains a value."""
        return self.low <= value <= self.high


def wilson(successes: int, count: int) -> Estimate:
    """The share successes/count with its Wilson interval."""
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan)
    share = successes / count
    scale = 1 + Z95**2 / count
    middle = (share + Z95**2 / (2 * count)) / scale
    half = Z95 * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2)) / scale
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half), count)


def newcombe_paired(both: int, first_only: int, second_only: int, neither: int) -> Estimate:
    """The difference first − second of two shares measured on the same prompts.

    Args:
        both, first_only, second_only, neither: prompts that both arms, one or none got right.
    """
    count = both + first_only + second_only + neither
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan)
    first, second = wilson(both + first_only, count), wilson(both + second_only, count)
    difference = first.value - second.value
    product = (both + first_only) * (second_only + neither) * (both + second_only) * (first_only + neither)
    phi = 0.0
    if product > 0:
        above = both * neither - first_only * second_only
        phi = (max(above - count / 2, 0) if above > 0 else above) / math.sqrt(product)
    down_1, up_1 = first.value - first.low, first.high - first.value
    down_2, up_2 = second.value - second.low, second.high - second.value
    low = math.sqrt(max(0.0, down_1**2 - 2 * phi * down_1 * up_2 + up_2**2))
    high = math.sqrt(max(0.0, up_1**2 - 2 * phi * up_1 * down_2 + down_2**2))
    return Estimate(difference, max(-1.0, difference - low), min(1.0, difference + high), count)


def mcnemar(first_only: int, second_only: int) -> float:
    """The exact two-sided probability of so unequal a number of prompts that only one arm got right."""
    count = first_only + second_only
    if count == 0:
        return 1.0
    fewer = min(first_only, second_only)
    tail = sum(math.comb(count, k) for k in range(fewer + 1)) / 2**count
    return min(1.0, 2 * tail)


Counts = Sequence[tuple[float, float]]
"""For each picture what was counted and out of how much, as (3 right, 4 asked)."""


def share_of(counts: Counts, seed: int = 0) -> Estimate:
    """Everything counted over everything asked, with the bootstrap interval over pictures.

    Where all or none of it was counted, every resampling is alike, and the interval is Wilson's for as many
    pictures.
    """
    return shares_of([counts], seed)[0]


def shares_of(each: Sequence[Counts], seed: int = 0) -> list[Estimate]:
    """:func:`share_of` of several things counted in the same pictures, which are drawn once for all."""
    tables = [np.asarray(counts, dtype=np.float64).reshape(-1, 2) for counts in each]
    drawn = [number for number, table in enumerate(tables) if _varies(table)]
    sums = _resampled(np.concatenate([tables[number] for number in drawn], axis=1), seed) if drawn else None
    found: list[Estimate] = []
    for number, table in enumerate(tables):
        asked = float(table[:, 1].sum())
        if asked == 0:
            found.append(Estimate(math.nan, math.nan, math.nan))
        elif sums is not None and number in drawn:
            place = 2 * drawn.index(number)
            low, high = _percentiles(sums[:, place], sums[:, place + 1])
            found.append(Estimate(float(table[:, 0].sum()) / asked, low, high, round(asked)))
        else:
            heard = table[table[:, 1] > 0]
            edge = wilson(len(heard) if heard[0, 0] else 0, len(heard))
            found.append(Estimate(edge.value, edge.low, edge.high, round(asked)))
    return found


def _varies(table: np.ndarray) -> bool:
    """Whether something, but neither all nor none of what was asked, was counted."""
    heard = table[table[:, 1] > 0]
    return len(heard) > 0 and not ((heard[:, 0] == heard[:, 1]).all() or (heard[:, 0] == 0).all())


def difference_of(first: Counts, second: Counts, seed: int = 0) -> Estimate:
    """The difference first − second of two shares on the same pictures, in the same order.

    Where no picture differs the interval is Newcombe's for as many pictures.

    Raises:
        ValueError: two lists of different length.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} pictures are not pairs")
    table = np.concatenate(
        [np.asarray(first, np.float64).reshape(-1, 2), np.asarray(second, np.float64).reshape(-1, 2)], axis=1
    )
    sums = table.sum(0)
    if sums[1] == 0 or sums[3] == 0:
        return Estimate(math.nan, math.nan, math.nan)
    if (table[:, 0] == table[:, 2]).all() and (table[:, 1] == table[:, 3]).all():
        return newcombe_paired(len(table), 0, 0, 0)
    drawn = _resampled(table, seed)
    drawn = drawn[(drawn[:, 1] > 0) & (drawn[:, 3] > 0)]
    differences = drawn[:, 0] / drawn[:, 1] - drawn[:, 2] / drawn[:, 3]
    low, high = np.percentile(differences, (2.5, 97.5))
    return Estimate(float(sums[0] / sums[1] - sums[2] / sums[3]), float(low), float(high), len(table))


def _resampled(table: np.ndarray, seed: int) -> np.ndarray:
    """Column sums of RESAMPLES resamplings of the rows."""
    return _times(len(table), seed) @ table


@lru_cache(maxsize=16)
def _times(count: int, seed: int) -> np.ndarray:
    """(RESAMPLES, count) float64: how often each of `count` rows is drawn in each resampling."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(np.float64)


def _percentiles(counted: np.ndarray, asked: np.ndarray) -> tuple[float, float]:
    shares = counted[asked > 0] / asked[asked > 0]
    low, high = np.percentile(shares, (2.5, 97.5))
    return float(low), float(high)
