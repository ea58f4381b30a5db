"""Intervals against values worked out by hand or published."""

from __future__ import annotations

import math

import numpy as np
import pytest

from newbie_image.nano.benchmark.correction import (
    ReaderError,
    corrected_leakage,
    mean_error,
    reader_error,
    rogan_gladen,
)
from newbie_image.nano.benchmark.dose_response import dose_response
from newbie_image.nano.benchmark.intervals import (
    Estimate,
    difference_of,
    mcnemar,
    newcombe_paired,
    share_of,
    wilson,
)


def test_wilson_of_a_published_example():
    # Newcombe 1998a, table I: 81 of 263, 15 of 148, 0 of 20.
    for successes, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
    ):
        found = wilson(successes, count)
        assert found.low == pytest.approx(low, abs=5e-5)
        assert found.high == pytest.approx(high, abs=5e-5)
    assert math.isnan(wilson(0, 0).value)


def test_newcombe_paired_by_hand():
    # 20 both, 12 and 2 one alone, 16 neither: shares 32/50 and 22/50.
    # Wilson: (0.50141, 0.75861) and (0.31162, 0.57694); phi = (20·16 − 12·2 − 25)/√(32·18·22·28) = 0.45495.
    found = newcombe_paired(20, 12, 2, 16)
    d1, u1, d2, u2 = 0.64 - 0.50141, 0.75861 - 0.64, 0.44 - 0.31162, 0.57694 - 0.44
    phi = 271 / math.sqrt(32 * 18 * 22 * 28)
    low = 0.2 - math.sqrt(d1**2 - 2 * phi * d1 * u2 + u2**2)
    high = 0.2 + math.sqrt(u1**2 - 2 * phi * u1 * d2 + d2**2)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, low, high), abs=2e-5)
    assert phi == pytest.approx(0.45495, abs=1e-5)
    assert math.isnan(newcombe_paired(0, 0, 0, 0).value)
    same = newcombe_paired(50, 0, 0, 0)
    assert same.value == 0
    assert -0.08 < same.low < 0 < same.high < 0.08


def test_961_pairs_at_ten_percent_discordance_are_known_to_two_points():
    found = newcombe_paired(432, 48, 48, 433)
    assert found.value == 0
    assert found.high - found.low < 0.041


def test_mcnemar_by_hand():
    assert mcnemar(1, 9) == pytest.approx(2 * 11 / 1024)
    assert mcnemar(9, 1) == mcnemar(1, 9)
    assert mcnemar(4, 4) == 1.0 == mcnemar(0, 0)


def test_bootstrap_agrees_with_the_normal_interval_and_sees_clusters():
    rng = np.random.default_rng(1)
    single = [(float(x), 1.0) for x in rng.random(800) < 0.3]
    found = share_of(single)
    half = 1.96 * math.sqrt(found.value * (1 - found.value) / 800)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.004)
    clustered = [(10 * a, 10.0) for a, _ in single]
    wide = share_of(clustered)
    assert wide.value == found.value
    assert wide.high - wide.low == pytest.approx(found.high - found.low, rel=0.1)
    assert wide.count == 8000


def test_shares_at_the_edges_have_an_interval():
    assert share_of([(3, 3)] * 20).low == pytest.approx(wilson(20, 20).low)
    assert share_of([(0, 3)] * 20).high == pytest.approx(wilson(0, 20).high)
    assert math.isnan(share_of([(0, 0)]).value)


def test_paired_differences_are_narrower_than_unpaired_ones_and_refuse_what_is_no_pair():
    rng = np.random.default_rng(2)
    hard = rng.random(600)
    first = [(float(x < 0.55), 1.0) for x in hard]
    second = [(float(x < 0.5), 1.0) for x in hard]
    found = difference_of(first, second)
    assert found.value == pytest.approx(
        np.mean([(a - b) for (a, _), (b, _) in zip(first, second, strict=True)])
    )
    assert found.low > 0
    assert found.high - found.low < 0.5 * 2 * 1.96 * math.sqrt(2 * 0.25 / 600)
    assert difference_of(first, first) == newcombe_paired(600, 0, 0, 0)
    with pytest.raises(ValueError, match="600 and 599 pictures"):
        difference_of(first, second[1:])


def test_rogan_gladen_takes_known_mistakes_out():
    error = ReaderError(0.9, 0.02, 5000, 8)
    read = 0.7 * 0.9 + 0.3 * 0.02
    found = rogan_gladen(Estimate(read, read - 0.02, read + 0.02, 1000), error)
    assert found.value == pytest.approx(0.7)
    assert found.low < 0.7 - 0.02 / 0.88 < 0.7 + 0.02 / 0.88 < found.high
    assert math.isnan(rogan_gladen(Estimate(0.5, 0.4, 0.6), ReaderError(0.1, 0.1, 10, 2)).value)
    leak = corrected_leakage(Estimate(0.088, 0.08, 0.096), error)
    assert (leak.value, leak.low, leak.high) == pytest.approx((0.1, 0.08 / 0.88, 0.096 / 0.88))


def test_errors_of_a_confusion():
    counts = np.array([[8, 1, 1, 0], [0, 9, 0, 1], [0, 1, 9, 0]])
    error = reader_error(counts)
    assert error.sensitivity == pytest.approx(26 / 30)
    assert error.false_positive == pytest.approx(3 / 30 / 2)
    both = mean_error([error, ReaderError(1.0, 0.0, 90, 5)])
    assert both.sensitivity == pytest.approx((26 + 90) / 120)
    assert both.count == 120
    assert math.isnan(mean_error([]).sensitivity)


def test_a_response_that_rises_and_one_that_falls():
    rising = {w: [i < n for i in range(100)] for w, n in ((0.0, 10), (1.0, 60), (2.0, 58), (3.0, 90))}
    found = dose_response(rising)
    assert found.monotone  # 60 → 58 is within the interval
    assert found.rises
    assert found.shares[1.0].value == 0.6
    assert found.whole.value == pytest.approx(0.8)
    falling = dose_response({**rising, 3.0: [i < 20 for i in range(100)]})
    assert falling.drops == [(2.0, 3.0)]
    assert not falling.monotone
    assert not dose_response({0.0: rising[1.0], 3.0: rising[1.0]}).rises
    with pytest.raises(ValueError, match="two weights"):
        dose_response({1.0: [True]})
