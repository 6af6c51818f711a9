"""Ratios over several runs: of their means, as a mean of ratios is ruled by the smallest divisor.

An expert of a game may learn nothing with one seed: over its area near 0 that seed's ratio would
drown all others. So what runs have above and below the line is averaged first, run by run of the
same seeds. Runs at 12, 12, 12 and experts at 10, 10, 0.1 give 36 / 20.1, about 1.8; the mean of
their ratios would be 40.8.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from clrl.study.statistics import FEWEST_RUNS, Interval, Statistic, mean

__all__ = [
    "Parts",
    "interval_of_ratios",
    "is_unsteady",
    "linearised",
    "ratio_of_means",
    "shares",
]

Parts = Sequence[tuple[float, float]]  # of each run, what is above the line and what is below
K = TypeVar("K", bound=Hashable)


def shares(parts: Parts) -> list[float] | None:
    """Return each run's part above the line over the mean of those below; their mean is the ratio.

    None where there is no run, one is below 0 below the line, or all are at 0 there: a mean of
    divisors of both signs may come out as near to 0 as it likes.

    >>> shares([(6.0, 2.0), (9.0, 4.0)])
    [2.0, 3.0]
    >>> shares([(2.0, -3.0), (2.0, 1.6), (2.0, 1.7)]) is None  # else 2 / 0.1
    True
    """
    found = _shares(np.array(parts, dtype=np.float64)) if parts else np.array([np.nan])
    return None if np.isnan(found).any() else [float(share) for share in found]


def ratio_of_means(parts: Parts) -> float | None:
    """Return the mean above the line over the mean below; None as in `shares`.

    >>> ratio_of_means([(12.0, 10.0), (12.0, 10.0), (12.0, 4.0)])
    1.5
    """
    found = shares(parts)
    return None if found is None else float(mean(found))


def linearised(parts: Parts) -> list[float] | None:
    """Return a number a run whose mean is the ratio of means R, and whose spread is the ratio's.

    `R + (above_i - R below_i) / mean(below)`: the ratio's Taylor expansion to first order, in which
    what runs have below the line varies as well as what they have above it. None as in `shares`.

    >>> linearised([(6.0, 2.0), (12.0, 4.0)]), linearised([(6.0, 2.0), (6.0, 4.0)])
    ([3.0, 3.0], [2.6666666666666665, 1.3333333333333335])
    """
    ratio = ratio_of_means(parts)
    if ratio is None:
        return None
    middle = float(mean([below for _, below in parts]))
    return [ratio + (above - ratio * below) / middle for above, below in parts]


def is_unsteady(parts: Parts) -> bool:
    """Tell whether the mean below the line is within 2 standard errors of 0.

    With other seeds it might be near 0, and the ratio anything.

    >>> is_unsteady([(6.0, 0.1), (6.0, 4.0)]), is_unsteady([(6.0, 3.9), (6.0, 4.0)])
    (True, False)
    """
    below = np.array([part[1] for part in parts], dtype=np.float64)
    if len(below) < 2:
        return False
    return bool(abs(below.mean()) <= 2 * below.std(ddof=1) / np.sqrt(len(below)))


def interval_of_ratios(
    parts: Mapping[K, Parts],
    statistic: Statistic = mean,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval | None:
    """Return the percentile interval of a statistic of `shares`, those of all strata together.

    Seeds are drawn anew, once for all strata: the k-th runs of all are of one seed, and some are
    over the same expert. Each run is drawn with what is below its line.

    Args:
        parts: by stratum, of as many runs each.
        statistic: of the last axis of an array, as `iqm` and `mean`.
        resamples: how often runs are drawn, with replacement.
        seed: of the draws.
        level: the share of resampled values between the ends.

    Returns:
        None if a stratum has fewer than 3 runs, or a draw has no ratio: all it holds is 0 below the
        line.

    Raises:
        ValueError: strata of different numbers of runs.

    >>> interval_of_ratios({"A": [(6.0, 2.0)] * 3}, resamples=10)
    Interval(low=3.0, high=3.0, level=0.95, resamples=10, seed=0)
    >>> interval_of_ratios({"A": [(6.0, 2.0)] * 2}) is None
    True
    """
    if min(map(len, parts.values()), default=0) < FEWEST_RUNS:
        return None
    numbers = {len(runs) for runs in parts.values()}
    if len(numbers) > 1:
        raise ValueError(f"strata of {sorted(numbers)} runs: expected the same seeds in each")
    n = numbers.pop()
    which = np.random.default_rng(seed).integers(0, n, (resamples, n))
    drawn = []
    for runs in parts.values():
        drawn.append(_shares(np.array(runs, dtype=np.float64)[which]))
    values = statistic(np.concatenate(drawn, axis=-1))
    if np.isnan(values).any():
        return None
    outside = 100 * (1 - level) / 2
    low, high = np.percentile(values, [outside, 100 - outside])
    return Interval(float(low), float(high), level, resamples, seed)


def _shares(parts: NDArray[np.float64]) -> Any:
    """Map (..., runs, 2) to (..., runs); NaN where `shares` has none."""
    above, below = parts[..., 0], parts[..., 1]
    middle = below.mean(axis=-1, keepdims=True)
    is_ratio = (below.min(axis=-1, keepdims=True) >= 0) & (middle > 0)
    return above / np.where(is_ratio, middle, np.nan)
