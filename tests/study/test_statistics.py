"""IQM, intervals and comparisons, against scipy and numbers worked by hand."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from scipy import stats

from clrl.study import statistics
from clrl.study.statistics import (
    Interval,
    iqm,
    mean,
    paired_differences,
    performance_profile,
    probability_of_improvement,
    probability_of_improvement_interval,
    stratified_bootstrap,
    t_interval,
)

RNG = np.random.default_rng(3)
SCORES = {
    "A": list(RNG.normal(0, 1, 4)),
    "B": list(RNG.normal(5, 3, 7)),
    "C": list(RNG.normal(-2, 1, 3)),
}


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(statistics)
    assert (result.failed, result.attempted > 0) == (0, True)


@pytest.mark.parametrize("n", range(1, 14))
def test_the_iqm_is_scipys_trimmed_mean(n: int) -> None:
    x = RNG.normal(size=(5, n))
    assert iqm(x) == pytest.approx(stats.trim_mean(x, 0.25, axis=-1))
    assert iqm(x.ravel()) == pytest.approx(stats.trim_mean(x, 0.25, axis=None))


def test_the_iqm_with_ties_and_one_run() -> None:
    assert iqm([7.0]) == 7.0
    assert iqm([1.0, 1.0, 1.0, 9.0]) == 1.0


@pytest.mark.parametrize("statistic", [iqm, mean])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_the_interval_is_scipys_of_several_samples(statistic, level: float) -> None:
    oracle = stats.bootstrap(
        tuple(SCORES.values()),
        lambda *samples, axis: statistic(np.concatenate(samples, axis=axis)),
        n_resamples=999,
        batch=999,
        vectorized=True,
        method="percentile",
        confidence_level=level,
        rng=np.random.default_rng(7),
    ).confidence_interval
    ours = stratified_bootstrap(SCORES, statistic, resamples=999, seed=7, level=level)
    assert ours == Interval(pytest.approx(oracle.low), pytest.approx(oracle.high), level, 999, 7)


def test_runs_are_resampled_within_each_task() -> None:
    apart = {"A": [0.0, 0.0, 0.0], "B": [100.0, 100.0, 100.0]}  # no run differs within a task
    interval = stratified_bootstrap(apart, mean, resamples=50)
    assert interval is not None
    assert (interval.low, interval.high) == (50.0, 50.0)


def test_the_interval_of_three_runs_is_that_of_all_27_draws() -> None:
    runs = [0.0, 1.0, 5.0]
    draws = [np.mean([a, b, c]) for a in runs for b in runs for c in runs]
    interval = stratified_bootstrap({"A": runs}, mean, resamples=100_000, level=0.8)
    assert interval is not None
    expected = np.percentile(draws, [10, 90], method="inverted_cdf")
    assert (interval.low, interval.high) == pytest.approx(tuple(expected))


def test_the_same_seed_gives_the_same_interval_and_another_another() -> None:
    one, again, other = (stratified_bootstrap(SCORES, seed=s, resamples=200) for s in (1, 1, 2))
    assert one == again != other


@pytest.mark.parametrize("statistic", [iqm, mean])
def test_runs_of_the_same_seeds_are_drawn_together(statistic, scipys_interval) -> None:
    scores = {task: list(RNG.normal(size=5)) for task in "ABC"}
    oracle = scipys_interval(
        tuple(scores.values()),
        lambda *samples, axis: statistic(np.concatenate(samples, axis=axis)),
        paired=True,
    )
    ours = stratified_bootstrap(scores, statistic, resamples=999, seed=7, crossed=True)
    assert ours == Interval(pytest.approx(oracle.low), pytest.approx(oracle.high), 0.95, 999, 7)
    same = dict.fromkeys("ABC", scores["A"])  # says no more than one of them
    options = {"resamples": 300, "crossed": True}
    assert stratified_bootstrap(same, mean, **options)[:2] == pytest.approx(
        stratified_bootstrap({"A": scores["A"]}, mean, **options)[:2]
    )
    with pytest.raises(ValueError, match="cannot be crossed"):
        stratified_bootstrap(SCORES, crossed=True)


@pytest.mark.parametrize("n", range(3, 14))
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_t_interval_is_scipys(n: int, level: float) -> None:
    x = list(RNG.normal(1, 3, n))
    oracle = stats.ttest_1samp(x, 0.0).confidence_interval(level)
    found = t_interval(x, level)
    assert found is not None
    assert (found.low, found.high, found.level) == pytest.approx((*oracle, level), rel=1e-9)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_t_interval_holds_the_mean_as_often_as_it_says(n: int) -> None:
    rng, times = np.random.default_rng(1), 2000
    found = [t_interval(list(x)) for x in rng.normal(size=(times, n))]
    holds = sum(one is not None and one.low <= 0 <= one.high for one in found)
    # the standard deviation of a share of 2000 at 0.95 is 0.005; percentiles hold 0.76 to 0.90
    assert holds / times == pytest.approx(0.95, abs=0.015)


def test_two_numbers_have_no_t_interval() -> None:
    assert t_interval([1.0, 2.0]) is None
    assert t_interval([2.0, 2.0, 2.0]) == Interval(2.0, 2.0, 0.95)


@pytest.mark.parametrize("scores", [{}, {"A": [1.0, 2.0]}, {"A": [1.0, 2.0, 3.0], "B": [1.0]}])
def test_fewer_than_three_runs_have_no_interval(scores) -> None:
    assert stratified_bootstrap(scores) is None
    if scores:
        assert probability_of_improvement_interval(scores, scores) is None


def test_differences_are_taken_within_pairs() -> None:
    ours, theirs = {(0, "a"): 3.0, (1, "a"): 5.0}, {(1, "a"): 9.0, (0, "a"): 3.0, (2, "a"): 1.0}
    assert paired_differences(ours, theirs) == {(0, "a"): 0.0, (1, "a"): -4.0}
    assert paired_differences({0: 1.0}, {1: 1.0}) == {}


def test_probability_of_improvement_is_mann_whitneys_u_over_the_pairs() -> None:
    x = {"A": [1.0, 2.0, 2.0, 7.0], "B": list(RNG.normal(size=6))}
    y = {"B": list(RNG.normal(size=3)), "A": [2.0, 0.0, 2.0]}  # with ties, in another order
    shares = [
        stats.mannwhitneyu(x[task], y[task]).statistic / (len(x[task]) * len(y[task])) for task in x
    ]
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(shares))
    assert probability_of_improvement(y, x) == pytest.approx(1 - np.mean(shares))
    assert probability_of_improvement({"A": [5.0]}, {"A": [5.0]}) == 0.5


@pytest.mark.parametrize("crossed", [False, True])
def test_its_interval_is_scipys(crossed: bool, scipys_interval) -> None:
    ours = {task: list(RNG.normal(0.5, 1, 5)) for task in "AB"}
    theirs = {task: list(RNG.normal(0, 1, 5)) for task in "AB"}

    def chance(a, b, c, d, axis):  # the samples' last axis is the runs'
        beats = [(x[..., :, None] > y[..., None, :]).mean((-1, -2)) for x, y in ((a, c), (b, d))]
        return np.mean(beats, axis=0)

    oracle = scipys_interval(
        (*ours.values(), *theirs.values()),
        chance,
        paired=crossed,
    )
    found = probability_of_improvement_interval(
        ours, theirs, resamples=999, seed=7, crossed=crossed
    )
    assert found is not None
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))


def test_its_interval_holds_it_and_shrinks_with_runs() -> None:
    few = {"A": list(RNG.normal(0.5, 1, 5))}, {"A": list(RNG.normal(0, 1, 5))}
    many = {"A": list(RNG.normal(0.5, 1, 200))}, {"A": list(RNG.normal(0, 1, 200))}
    widths = []
    for ours, theirs in (few, many):
        interval = probability_of_improvement_interval(ours, theirs, resamples=200)
        assert interval is not None
        assert interval.low <= probability_of_improvement(ours, theirs) <= interval.high
        widths.append(interval.high - interval.low)
    # of normal means half a sigma apart: the standard error of U / nm is about 0.03 with 200 runs
    assert widths[1] < 0.15 < widths[0]


@pytest.mark.parametrize("theirs", [{"B": [1.0]}, {"A": []}])
def test_other_tasks_cannot_be_compared(theirs) -> None:
    with pytest.raises(ValueError, match="expected the same, with runs"):
        probability_of_improvement({"A": [1.0]}, theirs)


def test_a_profile_is_the_share_of_runs_above_and_every_task_weighs_the_same() -> None:
    scores = {"A": [0.0, 1.0, 2.0, 3.0], "B": [10.0]}
    assert performance_profile(scores, [-1.0, 1.0, 3.0, 10.0]) == [1.0, 0.75, 0.5, 0.0]
