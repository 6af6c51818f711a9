"""From the runs of a transfer study to its numbers; a pure function of stored evaluations.

A run is compared with the expert of its target and seed over the visit to the target; where a
method learns its first task otherwise than fine-tuning does, also with itself alone (see `alone`).

Metrics that divide areas (`Metric.is_ratio`) are over the seeds of a pair the ratio of means: the
mean of the runs' areas over the mean of the experts'. A game is often learned with one seed and not
with another, and over an expert's area near 0 a mean of ratios would say nothing else. Of each seed
its own ratio is told beside it.

Intervals redraw seeds, each run together with its expert; where several pairs are taken together,
a seed's runs of all pairs and methods: they share experts, and mostly the learned source. A ratio
over what may as well be 0 has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clrl.study.alone import Alone, all_metrics, without_control
from clrl.study.plan import Study, json_ready
from clrl.study.ratios import interval_of_ratios, is_unsteady, ratio_of_means
from clrl.study.transfer_metrics import METRICS, Finished, Metric, Normalise, Target
from clrl.study.transfer_pairs import Measured, ends_of, options_of, pairs_of
from clrl.study.transfer_summary import summary_of
from clrl.study.transfer_text import SCHEMA
from clrl.study.transfer_warnings import (
    censored_speeds,
    more_work,
    narrower_areas,
    unlearned_sources,
    warnings_of,
)
from clrl.types import ClrlError

__all__ = ["transfer_matrix"]


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
        Measured.of(run, targets[run.planned.target], alone[run.planned.target], metrics)
        for run in runs
    ]
    return {
        "schema": SCHEMA,
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
        "summary": summary_of(study, measured, metrics),
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


def _matrix(
    study: Study, measured: Sequence[Measured], metrics: Mapping[str, Metric]
) -> dict[str, Any]:
    """Return by metric, method, source and target: the runs' values, their mean and its interval.

    The mean is None where a run is lost: of those that are left it would say too much.
    """
    options = options_of(study)
    matrix: dict[str, Any] = {}
    for metric in metrics:
        for method, pairs in pairs_of(study, measured, metric).items():
            for (source, target), pair in pairs.items():
                whole = pair.whole
                interval = None
                if whole and not is_unsteady(whole):
                    interval = interval_of_ratios({target: whole}, **options)
                at = matrix.setdefault(metric, {}).setdefault(method, {}).setdefault(source, {})
                told = {"values": pair.values, "mean": ratio_of_means(whole) if whole else None}
                at[target] = told | ends_of(interval)
    return matrix


def _unsteady(
    study: Study, measured: Sequence[Measured], metrics: Mapping[str, Metric]
) -> list[str]:
    """Say of each ratio over which targets what it divides by may as well be 0."""
    told = []
    for name, metric in metrics.items():
        if not metric.is_ratio:
            continue
        methods: dict[str, list[str]] = {}  # by target: those measured over what may be 0 there
        for method, of in pairs_of(study, measured, name).items():
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
