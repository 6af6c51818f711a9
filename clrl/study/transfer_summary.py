"""What all pairs of a transfer study say together, and how methods compare on them.

The difference of two methods has Student's interval, of a number a seed, in which what is divided
by varies too (`ratios.linearised`). Where a pair is lost that another method knows, there is no
number at all: what is lost is seldom lost by chance (a criterion that was never reached), and the
rest would say too much.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from clrl.study import gains
from clrl.study.plan import Study
from clrl.study.ratios import interval_of_ratios, is_unsteady, linearised, ratio_of_means, shares
from clrl.study.statistics import (
    iqm,
    mean,
    probability_of_improvement,
    probability_of_improvement_interval,
    t_interval,
)
from clrl.study.transfer_metrics import Metric
from clrl.study.transfer_pairs import Measured, Pair, Walk, ends_of, options_of, pairs_of

__all__ = ["summary_of"]


def summary_of(
    study: Study, measured: Sequence[Measured], metrics: Mapping[str, Metric]
) -> dict[str, Any]:
    """Return by metric and method what all pairs together say, where they share a unit.

    Each pair is a stratum; of a ratio a run is worth its part above the line over the pair's mean
    below, so that the mean over runs is that of the pairs' ratios. Beside a method stands how it
    compares with the first one.
    """
    options = options_of(study)
    summary: dict[str, Any] = {}
    for name, metric in metrics.items():
        if metric.has_unit:
            continue
        pairs = pairs_of(study, measured, name)
        baseline = next(iter(pairs))
        first = pairs[baseline]
        known = [pair for pair in first if any(of[pair].whole for of in pairs.values())]
        ranked = [pair for pair in first if any(of[pair].ranked for of in pairs.values())]
        for method, of in pairs.items():
            whole = {pair: runs.whole for pair, runs in of.items() if runs.whole}
            told: dict[str, Any] = {"pairs": len(whole), "of": len(of)}
            if whole and len(whole) == len(known):
                every = [share for parts in whole.values() for share in shares(parts) or []]
                steady = not any(map(is_unsteady, whole.values()))
                for word, statistic in (("mean", mean), ("iqm", iqm)):
                    interval = None
                    if steady:
                        interval = interval_of_ratios(whole, statistic=statistic, **options)
                    told[word] = {"value": float(statistic(every))} | ends_of(interval)
            if method != baseline:
                above, below = (of, first) if metric.higher_is_better else (first, of)
                told["versus"] = {
                    baseline: {
                        "difference": _difference(of, first, known),
                        "probability_of_improvement": _chance(above, below, ranked, options),
                    }
                }
            summary.setdefault(name, {})[method] = told
    summary["reference_transfer"] = _reference_transfers(study, measured)
    return summary


def _difference(
    ours: Mapping[Walk, Pair], theirs: Mapping[Walk, Pair], known: Sequence[Walk]
) -> dict[str, float | None]:
    """Return by how much one method is above another over all pairs, by the same seeds."""
    wholes = [(ours[pair].whole, theirs[pair].whole) for pair in known]
    both = [(a, b) for a, b in wholes if a and b]
    if not both or len(both) < len(known):
        return {"value": None} | ends_of(None)
    by_pair = [
        [x - y for x, y in zip(linearised(a) or [], linearised(b) or [], strict=True)]
        for a, b in both
    ]
    by_seed = [float(mean(of_seed)) for of_seed in zip(*by_pair, strict=True)]
    steady = not any(is_unsteady(parts) for pair in both for parts in pair)
    return {"value": float(mean(by_seed))} | ends_of(t_interval(by_seed) if steady else None)


def _chance(
    above: Mapping[Walk, Pair],
    below: Mapping[Walk, Pair],
    ranked: Sequence[Walk],
    options: Mapping[str, Any],
) -> dict[str, float | None]:
    """Return how likely a run of one method is above a run of another, over all pairs.

    It needs no number of each run, only their order.
    """
    one, other = (
        {str(pair): ranks for pair in ranked if (ranks := of[pair].ranked)} for of in (above, below)
    )
    if not one or not len(one) == len(other) == len(ranked):
        return {"value": None} | ends_of(None)
    ends = probability_of_improvement_interval(one, other, **options, crossed=True)
    return {"value": probability_of_improvement(one, other)} | ends_of(ends)


def _reference_transfers(study: Study, measured: Sequence[Measured]) -> dict[str, float | None]:
    """Return `mean_j max_i FT(i -> j)` by method, over single sources."""
    chains = {m.run.planned.source for m in measured if len(m.run.planned.sources) > 1}
    result = {}
    for method, pairs in pairs_of(study, measured, "forward_transfer").items():
        single: defaultdict[str, dict[str, float | None]] = defaultdict(dict)
        for (source, target), pair in pairs.items():
            if source not in chains:
                single[target][source] = ratio_of_means(pair.whole) if pair.whole else None
        result[method] = gains.reference_transfer(single)
    return result
