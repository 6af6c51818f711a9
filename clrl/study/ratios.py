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

__all__ = ["Parts", "interval_of_ratios", "ratio_of_means", "shares"]

Parts = Sequence[tuple[float, float]]  # of each run, what is above the line and what is below
K = TypeVar("K", bound=Hashable)


def shares(parts: Parts) -> list[float] | None:
    """Return each run's part above the line over the mean of those below; their mean is the ratio.

    None where there is no run, or that mean is not above 0.

    >>> shares([(6.0, 2.0), (9.0, 4.0)])
    [2.0, 3.0]
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


def interval_of_ratios(
    parts: Mapping[K, Parts],
    less: Mapping[K, Parts] | None = None,
    statistic: Statistic = mean,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval | None:
    """Return the percentile interval of a statistic of `shares`, those of all strata together.

    The runs of each stratum are drawn anew with what is below their line, and with their partners.

    Args:
        parts: by stratum.
        less: of the same strata and seeds: shares to take off.
        statistic: of the last axis of an array, as `iqm` and `mean`.
        resamples: how often runs are drawn, with replacement.
        seed: of the draws.
        level: the share of resampled values between the ends.

    Returns:
        None if a stratum has fewer than 3 runs, or a draw has no ratio: all it holds is 0 or less
        below the line.

    >>> interval_of_ratios({"A": [(6.0, 2.0)] * 3}, resamples=10)
    Interval(low=3.0, high=3.0, level=0.95, resamples=10, seed=0)
    >>> interval_of_ratios({"A": [(6.0, 2.0)] * 2}) is None
    True
    """
    if min(map(len, parts.values()), default=0) < FEWEST_RUNS:
        return None
    rng = np.random.default_rng(seed)
    drawn = []
    for stratum, runs in parts.items():
        which = rng.integers(0, len(runs), (resamples, len(runs)))
        found = _shares(np.array(runs, dtype=np.float64)[which])
        if less is not None:
            found = found - _shares(np.array(less[stratum], dtype=np.float64)[which])
        drawn.append(found)
    values = statistic(np.concatenate(drawn, axis=-1))
    if np.isnan(values).any():
        return None
    outside = 100 * (1 - level) / 2
    low, high = np.percentile(values, [outside, 100 - outside])
    return Interval(float(low), float(high), level, resamples, seed)


def _shares(parts: NDArray[np.float64]) -> Any:
    """Map (..., runs, 2) to (..., runs); NaN where the mean below the line is not above 0."""
    above, below = parts[..., 0], parts[..., 1].mean(axis=-1, keepdims=True)
    return above / np.where(below > 0, below, np.nan)
