"""From the runs of a transfer study to its numbers; a pure function of stored evaluations.

A run is compared with the expert of its target and seed over the visit to the target; where a
method learns its first task otherwise than fine-tuning does, also with itself alone (see `alone`).

Metrics that divide areas (`Metric.is_ratio`) are over the seeds of a pair the ratio of means: the
mean of the runs' areas over the mean of the experts'. A game is often learned with one seed and not
with another, and over an expert's area near 0 a mean of ratios would say nothing else. Of each seed
its own ratio is told beside it.

Intervals redraw seeds, each run together with its expert; where several pairs are taken together,
a seed's runs of all pairs and methods: they share experts, and mostly the learned source.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from clrl.study import gains
from clrl.study.alone import Alone, all_metrics, without_control
from clrl.study.plan import Study, json_ready
from clrl.study.ratios import interval_of_ratios, is_unsteady, ratio_of_means, shares
from clrl.study.statistics import (
    Interval,
    iqm,
    mean,
    probability_of_improvement,
    probability_of_improvement_interval,
)
from clrl.study.transfer_metrics import METRICS, Finished, Metric, Normalise, Part, Target, part
from clrl.study.transfer_warnings import (
    censored_speeds,
    more_work,
    narrower_areas,
    unlearned_sources,
    warnings_of,
)
from clrl.types import ClrlError

__all__ = ["transfer_matrix"]

Walk = tuple[str, str]  # source and target


def transfer_matrix(
    study: Study, experts: Sequence[Finished], runs: Sequence[Finished], normalise: Normalise
) -> dict[str, Any]:
    """Return all that a study says, as plain values: what `study.json` holds.

    Args:
        study: the plan.
        experts: the finished runs from scratch.
        runs: the finished others.
        normalise: task and raw score to a scale on which random play has 0 and a human 1, None
            where there is none.

    Raises:
        ClrlError: there is no run, or one without an expert.
    """
    if not runs:
        raise ClrlError(f"study {study.config.name!r} has no finished run: nothing to compare", 2)
    targets = {name: Target.of(name, study, experts, runs, normalise) for name in study.targets}
    alone = {name: Alone.of(target, study, runs) for name, target in targets.items()}
    controls = {name: of.told for name, of in alone.items() if of.told}
    metrics = all_metrics() if controls else METRICS
    measured = [
        _Measured.of(run, targets[run.planned.target], alone[run.planned.target], metrics)
        for run in runs
    ]
    return {
        "study": json_ready(study.to_dict()),
        "sources": study.sources,
        "targets": study.targets,
        "methods": list(study.config.methods),
        "seeds": list(study.config.seeds),
        "metrics": {name: metric._asdict() for name, metric in metrics.items()},
        "experts": {name: target.told for name, target in targets.items()},
        "methods_alone": controls,
        "runs": [
            {
                "method": one.run.planned.method,
                "sources": list(one.run.planned.sources),
                "target": one.run.planned.target,
                "seed": one.run.planned.seed,
                "folder": one.run.folder,
                "skipped_lines": one.run.skipped,
                "metrics": one.metrics,
                "speed_censored": one.censored,
                **({"speed_censored_over_alone": one.censored_alone} if controls else {}),
            }
            for one in measured
        ],
        "matrix": _matrix(study, measured, metrics),
        "summary": _summary(study, measured, metrics),
        "warnings": [
            *warnings_of(study, [*experts, *runs], targets),
            *unlearned_sources(runs),
            *without_control(study, alone),
            *narrower_areas({name: (targets[name], alone[name].target) for name in controls}),
            *_unsteady(study, measured, metrics),
            *censored_speeds([(one.run.planned.method, one.censored) for one in measured]),
            *censored_speeds(
                [
                    (one.run.planned.method, one.censored_alone)
                    for one in measured
                    if one.run.planned.method in controls.get(one.run.planned.target, {})
                ],
                over=" over the method alone",
                control="control",
            ),
            *more_work(experts, runs),
        ],
    }


@dataclass(frozen=True)
class _Measured:
    """A run and its numbers by metric; `parts` are of those that are ratios.

    `censored`: in which direction its relative speed is beyond any number; `censored_alone`: that
    over its method alone.
    """

    run: Finished
    metrics: Mapping[str, float | None]
    parts: Mapping[str, Part | None]
    censored: str | None
    censored_alone: str | None

    @classmethod
    def of(
        cls, run: Finished, target: Target, alone: Alone, metrics: Mapping[str, Metric]
    ) -> _Measured:
        found = target.metrics(run) | alone.metrics(run)
        return cls(
            run,
            {name: found[name] for name in metrics},
            target.parts(run) | alone.parts(run),
            target.censored(run),
            alone.censored(run),
        )

    def part(self, metric: str) -> Part | None:
        """Return a metric as a ratio; what is none is over 1, so that the same mean serves all."""
        if metric in self.parts:
            return self.parts[metric]
        return part(self.metrics[metric], 1.0)


class _Pair(NamedTuple):
    """A method's runs over a source and a target, in the order of the seeds."""

    values: list[float | None]
    parts: list[Part | None]

    @property
    def whole(self) -> list[Part] | None:
        """The parts, if every run has them and they make a ratio."""
        known = [part for part in self.parts if part is not None]
        return known if len(known) == len(self.parts) and shares(known) is not None else None


def _matrix(
    study: Study, measured: Sequence[_Measured], metrics: Mapping[str, Metric]
) -> dict[str, Any]:
    """Return by metric, method, source and target: the runs' values, their mean and its interval.

    The mean is None where a run is lost: of those that are left it would say too much.
    """
    options = _options(study)
    matrix: dict[str, Any] = {}
    for metric in metrics:
        for method, pairs in _pairs(study, measured, metric).items():
            for (source, target), pair in pairs.items():
                whole = pair.whole
                interval = interval_of_ratios({target: whole}, **options) if whole else None
                at = matrix.setdefault(metric, {}).setdefault(method, {}).setdefault(source, {})
                told = {"values": pair.values, "mean": ratio_of_means(whole) if whole else None}
                at[target] = told | _ends(interval)
    return matrix


def _summary(
    study: Study, measured: Sequence[_Measured], metrics: Mapping[str, Metric]
) -> dict[str, Any]:
    """Return by metric and method what all pairs together say, where they share a unit.

    Each pair is a stratum; of a ratio a run is worth its part above the line over the pair's mean
    below, so that the mean over runs is that of the pairs' ratios. Beside a method stands how it
    compares with the first one, on the pairs that both have whole.
    """
    options = _options(study)
    summary: dict[str, Any] = {}
    for name, metric in metrics.items():
        if metric.has_unit:
            continue
        pairs = _pairs(study, measured, name)
        baseline = next(iter(pairs))
        for method, of in pairs.items():
            whole = {pair: runs.whole for pair, runs in of.items() if runs.whole}
            told: dict[str, Any] = {"pairs": len(whole), "of": len(of)}
            if whole:
                every = [share for parts in whole.values() for share in shares(parts) or []]
                for word, statistic in (("mean", mean), ("iqm", iqm)):
                    interval = interval_of_ratios(whole, statistic=statistic, **options)
                    told[word] = {"value": float(statistic(every))} | _ends(interval)
            if method != baseline:
                told["versus"] = {baseline: _versus(of, pairs[baseline], options)}
            summary.setdefault(name, {})[method] = told
    summary["reference_transfer"] = _reference_transfers(study, measured)
    return summary


def _versus(
    ours: Mapping[Walk, _Pair], theirs: Mapping[Walk, _Pair], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Compare two methods on the same pairs and seeds.

    The chance that a run is better than one of the other method needs the values of single runs: it
    is over the pairs where all have one.
    """
    a = {pair: runs.whole for pair, runs in ours.items() if runs.whole and theirs[pair].whole}
    if not a:
        return {"pairs": 0}
    b = {pair: theirs[pair].whole or [] for pair in a}
    less = (zip(shares(a[pair]) or [], shares(b[pair]) or [], strict=True) for pair in a)
    apart = [x - y for of_pair in less for x, y in of_pair]
    told: dict[str, Any] = {
        "pairs": len(a),
        "difference": {"value": float(mean(apart))} | _ends(interval_of_ratios(a, b, **options)),
        "probability_of_improvement": {"value": None} | _ends(None),
    }
    both = [pair for pair in a if None not in (*ours[pair].values, *theirs[pair].values)]
    if both:
        one, other = (
            {str(pair): _known(of[pair].values) for pair in both} for of in (ours, theirs)
        )
        chance = probability_of_improvement(one, other)
        ends = _ends(probability_of_improvement_interval(one, other, **options, crossed=True))
        told["probability_of_improvement"] = {"value": chance} | ends
    return told


def _reference_transfers(study: Study, measured: Sequence[_Measured]) -> dict[str, float | None]:
    """Return `mean_j max_i FT(i -> j)` by method, over single sources."""
    chains = {m.run.planned.source for m in measured if len(m.run.planned.sources) > 1}
    result = {}
    for method, pairs in _pairs(study, measured, "forward_transfer").items():
        single: defaultdict[str, dict[str, float | None]] = defaultdict(dict)
        for (source, target), pair in pairs.items():
            if source not in chains:
                single[target][source] = ratio_of_means(pair.whole) if pair.whole else None
        result[method] = gains.reference_transfer(single)
    return result


def _pairs(
    study: Study, measured: Sequence[_Measured], metric: str
) -> dict[str, dict[Walk, _Pair]]:
    """Return a metric by method and (source, target), with a place for each seed."""
    found = {
        (
            one.run.planned.method,
            one.run.planned.source,
            one.run.planned.target,
            one.run.planned.seed,
        ): one
        for one in measured
    }
    walks = dict.fromkeys((one.run.planned.source, one.run.planned.target) for one in measured)
    result: dict[str, dict[Walk, _Pair]] = {}
    for method in study.config.methods:
        for walk in walks:
            runs = [found.get((method, *walk, seed)) for seed in study.config.seeds]
            result.setdefault(method, {})[walk] = _Pair(
                [one.metrics[metric] if one else None for one in runs],
                [one.part(metric) if one else None for one in runs],
            )
    return result


def _unsteady(
    study: Study, measured: Sequence[_Measured], metrics: Mapping[str, Metric]
) -> list[str]:
    """Say of each ratio over which targets what it divides by may as well be 0."""
    told = []
    for name, metric in metrics.items():
        if not metric.is_ratio:
            continue
        methods: dict[str, list[str]] = {}  # by target: those measured over what may be 0 there
        for method, of in _pairs(study, measured, name).items():
            for (_, target), pair in of.items():
                known = methods.setdefault(target, [])
                if pair.whole and is_unsteady(pair.whole) and method not in known:
                    known.append(method)
        everywhere = len(study.config.methods)
        found = [
            target if len(names) == everywhere else f"{target} ({', '.join(names)})"
            for target, names in methods.items()
            if names
        ]
        if found:
            told.append(
                f"{metric.title}: for {', '.join(found)} the mean divided by is "
                "within 2 standard errors of 0, so that with other seeds it might be anything"
            )
    return told


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _options(study: Study) -> dict[str, Any]:
    return {"resamples": study.config.resamples, "seed": study.config.bootstrap_seed}


def _ends(interval: Interval | None) -> dict[str, float | None]:
    return {"low": interval.low if interval else None, "high": interval.high if interval else None}
