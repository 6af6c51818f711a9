"""What several runs say together. The independent unit is the run, never the episode.

Scores are given by task: one number a run. Intervals are bootstrap percentiles, and runs are
resampled within each task (Agarwal et al. 2021). With fewer than 3 runs there is no interval.

Of few runs such an interval is too narrow: of 3 it holds the mean of a normal variable about 76
times in 100, of 5 84 times, of 10 90; and 0 never, if all are on one side of it. So the difference
of two methods has Student's interval (`t_interval`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ENOUGH_RUNS",
    "FEWEST_RUNS",
    "TOO_NARROW",
    "Interval",
    "iqm",
    "mean",
    "paired_differences",
    "performance_profile",
    "probability_of_improvement",
    "probability_of_improvement_interval",
    "stratified_bootstrap",
    "t_interval",
]

FEWEST_RUNS = 3  # of each task, for an interval
ENOUGH_RUNS = 6  # of 5, all on one side of 0 are no rarer than 2 / 2^5, 1 in 16
TOO_NARROW = (
    "bootstrap intervals of so few are too narrow: of 3 runs they hold the truth about 76 times in "
    "100, of 5 84 times"
)

Scores = Mapping[str, Sequence[float]]  # by task, one a run
Statistic = Callable[[NDArray[np.float64]], Any]
K = TypeVar("K", bound=Hashable)


class Interval(NamedTuple):
    """A confidence interval and how it was made."""

    low: float
    high: float
    level: float  # 0.95
    resamples: int = 0  # 0: none were drawn
    seed: int = 0


def mean(x: ArrayLike) -> Any:
    """Return the mean over the last axis.

    >>> float(mean([1.0, 2.0, 6.0]))
    3.0
    """
    return np.mean(np.asarray(x, dtype=np.float64), axis=-1)


def iqm(x: ArrayLike) -> Any:
    """Return the interquartile mean over the last axis: without the lowest and highest quarter.

    Of n values, n // 4 fall away at each end.

    >>> float(iqm([-100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1000.0]))
    3.5
    """
    ordered = np.sort(np.asarray(x, dtype=np.float64), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def stratified_bootstrap(
    scores: Scores,
    statistic: Statistic = iqm,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    crossed: bool = False,
) -> Interval | None:
    """Return the percentile interval of a statistic over all runs x tasks.

    Args:
        scores: by task, one a run; as many as it has.
        statistic: of the last axis of an array, as `iqm` and `mean`.
        resamples: how often the runs of every task are drawn anew, with replacement.
        seed: of the draws.
        level: the share of resampled values between the ends.
        crossed: whether the k-th runs of all tasks are one run, or of one seed: they are drawn
            together. As if they were independent, the interval would be too narrow.

    Returns:
        None if a task has fewer than 3 runs (or there is no task).

    >>> stratified_bootstrap({"A": [2.0, 2.0, 2.0], "B": [4.0, 4.0, 4.0]}, mean, resamples=10)
    Interval(low=3.0, high=3.0, level=0.95, resamples=10, seed=0)
    >>> stratified_bootstrap({"A": [2.0, 3.0]}) is None
    True
    """
    if not _enough(scores):
        return None
    drawn = _resampled(scores, resamples, np.random.default_rng(seed), crossed)
    values = statistic(np.concatenate(list(drawn.values()), axis=-1))
    return _interval(values, resamples, seed, level)


def t_interval(x: Sequence[float], level: float = 0.95) -> Interval | None:
    """Return Student's interval of the mean; None of fewer than 3 numbers.

    It takes them for normal, and then holds the mean as often as it says, however few they are.

    >>> [round(end, 3) for end in t_interval([1.0, 2.0, 3.0])[:2]]  # 2 -+ 4.3027 / sqrt(3)
    [-0.484, 4.484]
    """
    n = len(x)
    if n < FEWEST_RUNS:
        return None
    middle = float(np.mean(x))
    reach = _t_quantile(level, n - 1) * float(np.std(x, ddof=1)) / math.sqrt(n)
    return Interval(middle - reach, middle + reach, level)


def paired_differences(ours: Mapping[K, float], theirs: Mapping[K, float]) -> dict[K, float]:
    """Return ours less theirs, for the keys (seed, or seed and order) that both have.

    >>> paired_differences({0: 5.0, 1: 7.0}, {1: 4.0, 2: 9.0})
    {1: 3.0}
    """
    return {key: value - theirs[key] for key, value in ours.items() if key in theirs}


def probability_of_improvement(ours: Scores, theirs: Scores) -> float:
    """Return how likely a run of ours beats one of theirs, a tie counting half; mean over tasks.

    The Mann-Whitney U statistic over the number of pairs (Agarwal et al. 2021).

    Raises:
        ValueError: for other tasks, or a task without runs.

    >>> probability_of_improvement({"A": [1.0, 5.0], "B": [2.0]}, {"A": [1.0, 3.0], "B": [2.0]})
    0.5625
    """
    _require_same_tasks(ours, theirs)
    return float(np.mean([_beats(np.array(ours[t]), np.array(theirs[t])) for t in ours]))


def probability_of_improvement_interval(
    ours: Scores,
    theirs: Scores,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    crossed: bool = False,
) -> Interval | None:
    """Return its interval, the runs of either side resampled within each task; arguments as above.

    If `crossed`, the k-th runs of both sides too are drawn together.

    >>> three = [1.0, 2.0, 3.0]
    >>> probability_of_improvement_interval({"A": three}, {"A": [0.0] * 3}, resamples=10)
    Interval(low=1.0, high=1.0, level=0.95, resamples=10, seed=0)
    """
    _require_same_tasks(ours, theirs)
    if not (_enough(ours) and _enough(theirs)):
        return None
    both = {(0, task): ours[task] for task in ours} | {(1, task): theirs[task] for task in theirs}
    drawn = _resampled(both, resamples, np.random.default_rng(seed), crossed)
    values = np.mean([_beats(drawn[0, task], drawn[1, task]) for task in ours], axis=0)
    return _interval(values, resamples, seed, level)


def performance_profile(scores: Scores, thresholds: Sequence[float]) -> list[float]:
    """Return the share of runs above each threshold, every task weighing the same.

    >>> performance_profile({"A": [0.0, 1.0], "B": [2.0]}, [0.0, 1.0, 2.0])
    [0.75, 0.5, 0.0]
    """
    tasks = [np.array(runs) for runs in scores.values()]
    return [float(np.mean([np.mean(runs > limit) for runs in tasks])) for limit in thresholds]


# --------------------------------------------------------------------------------------- pieces


def _enough(scores: Scores) -> bool:
    return min((len(runs) for runs in scores.values()), default=0) >= FEWEST_RUNS


def _resampled(
    scores: Mapping[K, Sequence[float]], resamples: int, rng: np.random.Generator, crossed: bool
) -> dict[K, NDArray[np.float64]]:
    """Return (resamples, runs) of each; if `crossed`, of all the same runs in each resample."""
    drawn: dict[K, NDArray[np.float64]] = {}
    which = np.empty((resamples, 0), dtype=np.int64)
    for key, runs in scores.items():
        x = np.array(runs, dtype=np.float64)
        if not (crossed and drawn):
            which = rng.integers(0, len(x), (resamples, len(x)))
        if which.shape[1] != len(x):
            raise ValueError(f"{key} has {len(x)} runs, others {which.shape[1]}: cannot be crossed")
        drawn[key] = x[which]
    return drawn


def _t_quantile(level: float, freedom: int) -> float:
    """Return t with P(|T| < t) = level; T is Student's, of so many degrees of freedom.

    Its distribution is a finite sum (Abramowitz & Stegun 26.7.3 and 26.7.4) in the angle whose
    tangent is t / sqrt(freedom); the angle is found by halving.
    """

    def within(angle: float) -> float:
        odd = freedom % 2
        term, total = (math.cos(angle) if odd else 1.0), 0.0
        for k in range(2 + odd, freedom + 1, 2):
            total += term
            term *= (k - 1) / k * math.cos(angle) ** 2
        total *= math.sin(angle)
        return 2 / math.pi * (angle + total) if odd else total

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _interval(values: Any, resamples: int, seed: int, level: float) -> Interval:
    outside = 100 * (1 - level) / 2
    low, high = np.percentile(values, [outside, 100 - outside])
    return Interval(float(low), float(high), level, resamples, seed)


def _beats(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Any:
    """Return the share of pairs (over the last axes) in which ours is higher; ties count half."""
    a, b = ours[..., :, None], theirs[..., None, :]
    return ((a > b) + 0.5 * (a == b)).mean(axis=(-1, -2))


def _require_same_tasks(ours: Scores, theirs: Scores) -> None:
    if set(ours) != set(theirs) or not ours or not all([*ours.values(), *theirs.values()]):
        raise ValueError(f"tasks {sorted(ours)} and {sorted(theirs)}: expected the same, with runs")
