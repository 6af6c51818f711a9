"""Ratios of means, and the intervals of them."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest

from clrl.study import ratios
from clrl.study.ratios import interval_of_ratios, ratio_of_means, shares
from clrl.study.statistics import iqm, mean, stratified_bootstrap


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(ratios)
    assert (result.failed, result.attempted > 0) == (0, True)


def test_a_small_divisor_does_not_rule() -> None:
    parts = [(12.0, 10.0), (12.0, 10.0), (12.0, 0.1)]
    assert ratio_of_means(parts) == pytest.approx(36 / 20.1)
    assert shares(parts) == pytest.approx([36 / 20.1] * 3)


@pytest.mark.parametrize("below", [[0.0, 0.0], [-2.0, 1.0], [-3.0, 1.6, 1.7], []])
def test_there_is_no_ratio_over_nothing_or_over_both_signs(below: list[float]) -> None:
    assert ratio_of_means([(1.0, one) for one in below]) is None


def test_runs_are_drawn_with_their_partners() -> None:
    """Where every run is twice its expert, so is every draw; apart, they would differ."""
    parts = {"A": [(2.0 * x, x) for x in (1.0, 5.0, 100.0)]}
    found = interval_of_ratios(parts)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((2.0, 2.0))


@pytest.mark.parametrize("statistic", [mean, iqm])
def test_over_1_it_is_the_bootstrap_of_means(statistic: ratios.Statistic) -> None:
    scores = {"A": [1.0, 2.0, 7.0, 4.5], "B": [3.0, 3.5, 9.0, -2.0]}
    parts = {name: [(x, 1.0) for x in runs] for name, runs in scores.items()}
    expected = stratified_bootstrap(scores, statistic, resamples=300, seed=4, crossed=True)
    found = interval_of_ratios(parts, statistic=statistic, resamples=300, seed=4)
    assert expected is not None
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


RNG = np.random.default_rng(5)
ABOVE, BELOW = RNG.normal(3, 1, (2, 6)), RNG.uniform(1, 2, (2, 6))  # strata, seeds


def test_the_interval_is_scipys_of_samples_in_pairs(scipys_interval) -> None:
    """Everything of a seed is drawn together: what is above and below the line, of all strata."""

    def mean_of_ratios(a, b, c, d, axis):
        return (a.mean(axis) / c.mean(axis) + b.mean(axis) / d.mean(axis)) / 2

    oracle = scipys_interval(
        (*ABOVE, *BELOW),
        mean_of_ratios,
        paired=True,
    )
    parts = {k: list(zip(ABOVE[k], BELOW[k], strict=True)) for k in range(2)}
    found = interval_of_ratios(parts, resamples=999, seed=7)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))


def test_identical_strata_say_no_more_than_one() -> None:
    parts = list(zip(ABOVE[0], BELOW[0], strict=True))
    one, five = (interval_of_ratios(dict.fromkeys(range(n), parts)) for n in (1, 5))
    assert one is not None
    assert five is not None
    assert (five.low, five.high) == pytest.approx((one.low, one.high))
    with pytest.raises(ValueError, match="the same seeds"):
        interval_of_ratios({"A": parts, "B": parts[1:]})


def test_draws_without_a_ratio_leave_no_interval() -> None:
    parts = [(12.0, 10.0), (12.0, 10.0), (12.0, 0.0)]
    assert interval_of_ratios({"A": parts}) is None  # all three may be the last
    many = [(12.0, 10.0)] * 30 + [(12.0, 0.0)]
    found = interval_of_ratios({"A": many})
    assert found is not None
    assert math.isfinite(found.high)
