"""From the runs of a transfer study to its numbers; a pure function of stored evaluations.

A run is compared with the expert of its target and seed over the visit to the target. Areas of one
target are taken over the stretches of the visit that all its runs and experts know, so that no
method is measured over steps of its own. The criterion of speed comes from the experts alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from clrl.study import gains
from clrl.study.curves import (
    Curve,
    Span,
    common_spans,
    mean_height,
    rescaled,
    time_to_threshold,
    visit_curve,
)
from clrl.study.forgetting import continual_world_forgetting
from clrl.study.metrics import mean_of_all
from clrl.study.plan import PlannedRun, Study, json_ready
from clrl.study.statistics import (
    FEWEST_RUNS,
    Interval,
    iqm,
    mean,
    probability_of_improvement,
    probability_of_improvement_interval,
    stratified_bootstrap,
)
from clrl.types import ClrlError

__all__ = ["METRICS", "Finished", "Metric", "Normalise", "transfer_matrix"]

Normalise = Callable[[str, float], float | None]
Values = Sequence[float | None]


class Metric(NamedTuple):
    """What a number of the matrix is."""

    title: str
    has_unit: bool  # that of the target's scores, or steps: not to be averaged over targets
    higher_is_better: bool = True


METRICS = {
    "transfer_score": Metric("PNN's transfer score (% of the expert's area)", False),
    "transfer_score_above_random": Metric("PNN's transfer score above random play (%)", False),
    "forward_transfer": Metric("Continual World's forward transfer", False),
    "area_gain": Metric("mean score over the visit, less the expert's", True),
    "relative_speed": Metric("relative speed (expert's time to the criterion / own)", False),
    "relative_speed_by_area": Metric("relative speed by area below the criterion", False),
    "jump_start": Metric("jump-start: score before learning, less the expert's", True),
    "time_to_threshold": Metric("steps to the criterion", True, False),
    "source_forgetting": Metric(
        "forgetting: the sources' scores after their visits, less those at the end", True, False
    ),
}


@dataclass(frozen=True)
class Finished:
    """A run that is done.

    Attributes:
        planned: what it is in the study.
        folder: where it lies, as shown.
        rows: the records of `evaluations.jsonl`.
        skipped: lines of that file that were no records.
    """

    planned: PlannedRun
    folder: str
    rows: Sequence[Mapping[str, Any]]
    skipped: int = 0

    @property
    def curve(self) -> Curve:
        """The target's learning curve; raises `ClrlError` where it is lost."""
        try:
            return visit_curve(self.rows, self.planned.target, len(self.planned.sources) + 1)
        except ClrlError as error:
            raise ClrlError(f"{self.folder}: {error}") from error


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
    targets = {name: _Target.of(name, study, experts, runs, normalise) for name in study.targets}
    measured = [(run, targets[run.planned.target].metrics(run)) for run in runs]
    return {
        "study": json_ready(study.to_dict()),
        "sources": study.sources,
        "targets": study.targets,
        "methods": list(study.config.methods),
        "seeds": list(study.config.seeds),
        "metrics": {name: metric._asdict() for name, metric in METRICS.items()},
        "experts": {name: target.told for name, target in targets.items()},
        "runs": [
            {
                "method": run.planned.method,
                "sources": list(run.planned.sources),
                "target": run.planned.target,
                "seed": run.planned.seed,
                "folder": run.folder,
                "skipped_lines": run.skipped,
                "metrics": metrics,
            }
            for run, metrics in measured
        ],
        "matrix": _matrix(study, measured),
        "summary": _summary(study, measured),
        "warnings": _warnings(study, [*experts, *runs], targets),
    }


# ---------------------------------------------------------------------------------- one target


@dataclass(frozen=True)
class _Target:
    """What the runs that learn one target are measured by."""

    curves: dict[int, Curve]  # of the experts, by seed
    within: list[Span]
    criterion: float | None
    random: float | None
    scale: Callable[[float], float | None]  # to [0, 1]
    told: dict[str, Any]

    @classmethod
    def of(
        cls,
        name: str,
        study: Study,
        experts: Sequence[Finished],
        runs: Sequence[Finished],
        normalise: Normalise,
    ) -> _Target:
        own = [expert for expert in experts if expert.planned.target == name]
        curves = {expert.planned.seed: expert.curve for expert in own}
        others = [run.curve for run in runs if run.planned.target == name]
        within = common_spans([*curves.values(), *others])
        first = mean_of_all([curve[0].score for curve in curves.values()])
        last = mean_of_all([curve[-1].score for curve in curves.values()])
        criterion = None
        if first is not None and last is not None and last > first:
            criterion = first + study.config.criterion * (last - first)
        accuracy = any("accuracy" in row for expert in own for row in expert.rows)
        told = {
            "folders": {str(expert.planned.seed): expert.folder for expert in own},
            "mean_score": [mean_height(curve, within) for curve in curves.values()],
            "last_score": [curve[-1].score for curve in curves.values()],
            "criterion": criterion,
            "time_to_threshold": [
                None if criterion is None else time_to_threshold(curve, criterion)
                for curve in curves.values()
            ],
            "areas_within": [list(span) for span in within],
        }
        return cls(
            curves=curves,
            within=within,
            criterion=criterion,
            random=None if accuracy else _random_score(name, normalise),
            scale=(lambda x: x / 100) if accuracy else (lambda x: normalise(name, x)),
            told=told,
        )

    def metrics(self, run: Finished) -> dict[str, float | None]:
        """Return every metric of a run by name."""
        seed = run.planned.seed
        if seed not in self.curves:
            raise ClrlError(f"{run.folder} has no expert of its target and seed {seed}", 2)
        curve, expert, within, criterion = run.curve, self.curves[seed], self.within, self.criterion
        share, expert_share = (rescaled(points, self.scale) for points in (curve, expert))
        walk = [*run.planned.sources, run.planned.target]
        names = list(dict.fromkeys(walk))
        forgotten = continual_world_forgetting(
            run.rows, names, [names.index(x) for x in walk], last=1
        )
        of_sources = [forgotten[name] for name in names[:-1]]
        return {
            "transfer_score": gains.pnn_transfer_score(curve, expert, within),
            "transfer_score_above_random": gains.pnn_transfer_score_above_random(
                curve, expert, self.random, within
            ),
            "forward_transfer": gains.continual_world_forward_transfer(share, expert_share, within),
            "area_gain": gains.area_gain(curve, expert, within),
            "relative_speed": gains.relative_speed(curve, expert, criterion),
            "relative_speed_by_area": gains.relative_speed_by_area(
                curve, expert, criterion, within
            ),
            "jump_start": gains.jump_start(curve, expert),
            "time_to_threshold": None if criterion is None else time_to_threshold(curve, criterion),
            "source_forgetting": mean_of_all(of_sources),
        }


def _random_score(task: str, normalise: Normalise) -> float | None:
    """Return the score that the normalised scale, which is linear, has at 0."""
    at_0, at_1 = normalise(task, 0.0), normalise(task, 1.0)
    return None if at_0 is None or at_1 is None else at_0 / (at_0 - at_1)


# -------------------------------------------------------------------------------- all of them

Measured = Sequence[tuple[Finished, Mapping[str, float | None]]]


def _matrix(study: Study, measured: Measured) -> dict[str, Any]:
    """Return by metric, method, source and target: the runs' values, their mean and its interval.

    The mean is None where a run has no value: of those that have one it would say too much.
    """
    options = _options(study)
    matrix: dict[str, Any] = {}
    for metric in METRICS:
        for method, cells in _cells(study, measured, metric).items():
            for (source, target), values in cells.items():
                known = [value for value in values if value is not None]
                whole = len(known) == len(values)
                interval = stratified_bootstrap({target: known}, mean, **options) if whole else None
                at = matrix.setdefault(metric, {}).setdefault(method, {}).setdefault(source, {})
                at[target] = {"values": values, "mean": mean_of_all(values)} | _ends(interval)
    return matrix


def _summary(study: Study, measured: Measured) -> dict[str, Any]:
    """Return by metric and method what all pairs together say, where they share a unit.

    Each pair is a stratum. Beside a method stands how it compares with the first one, on the pairs
    that both have whole.
    """
    options = _options(study)
    summary: dict[str, Any] = {}
    for name, metric in METRICS.items():
        if metric.has_unit:
            continue
        cells = _cells(study, measured, name)
        whole = {
            method: {
                " > ".join(pair): [v for v in values if v is not None]
                for pair, values in of.items()
                if None not in values
            }
            for method, of in cells.items()
        }
        baseline = next(iter(whole))
        for method, scores in whole.items():
            told: dict[str, Any] = {"pairs": len(scores), "of": len(cells[method])}
            if scores:
                every = [value for values in scores.values() for value in values]
                for word, statistic in (("mean", mean), ("iqm", iqm)):
                    interval = stratified_bootstrap(scores, statistic, **options)
                    told[word] = {"value": float(statistic(every))} | _ends(interval)
            if method != baseline:
                told["versus"] = {baseline: _versus(scores, whole[baseline], options)}
            summary.setdefault(name, {})[method] = told
    summary["reference_transfer"] = _reference_transfers(study, measured)
    return summary


def _versus(
    ours: Mapping[str, Sequence[float]],
    theirs: Mapping[str, Sequence[float]],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Compare two methods, run by run of the same pair and seed."""
    pairs = [pair for pair in ours if pair in theirs]
    if not pairs:
        return {"pairs": 0}
    a, b = ({pair: list(of[pair]) for pair in pairs} for of in (ours, theirs))
    apart = {pair: [x - y for x, y in zip(a[pair], b[pair], strict=True)] for pair in pairs}
    difference = [value for values in apart.values() for value in values]
    return {
        "pairs": len(pairs),
        "difference": {"value": float(mean(difference))}
        | _ends(stratified_bootstrap(apart, mean, **options)),
        "probability_of_improvement": {"value": probability_of_improvement(a, b)}
        | _ends(probability_of_improvement_interval(a, b, **options)),
    }


def _reference_transfers(study: Study, measured: Measured) -> dict[str, float | None]:
    """Return `mean_j max_i FT(i -> j)` by method, over single sources."""
    result = {}
    for method, cells in _cells(study, measured, "forward_transfer").items():
        single: defaultdict[str, dict[str, float | None]] = defaultdict(dict)
        chains = {run.planned.source for run, _ in measured if len(run.planned.sources) > 1}
        for (source, target), values in cells.items():
            if source not in chains:
                single[target][source] = mean_of_all(values)
        result[method] = gains.reference_transfer(single)
    return result


def _cells(
    study: Study, measured: Measured, metric: str
) -> dict[str, dict[tuple[str, str], list[float | None]]]:
    """Return by method and (source, target) a value for each seed, in the order of the seeds."""
    found = {
        (run.planned.method, run.planned.source, run.planned.target, run.planned.seed): values[
            metric
        ]
        for run, values in measured
    }
    pairs = dict.fromkeys((run.planned.source, run.planned.target) for run, _ in measured)
    return {
        method: {
            pair: [found.get((method, *pair, s)) for s in study.config.seeds] for pair in pairs
        }
        for method in study.config.methods
    }


def _options(study: Study) -> dict[str, int]:
    return {"resamples": study.config.resamples, "seed": study.config.bootstrap_seed}


def _ends(interval: Interval | None) -> dict[str, float | None]:
    return {"low": interval.low if interval else None, "high": interval.high if interval else None}


def _warnings(study: Study, runs: Sequence[Finished], targets: Mapping[str, _Target]) -> list[str]:
    found = []
    seeds = len(study.config.seeds)
    if seeds < FEWEST_RUNS:
        found.append(
            f"{seeds} {'seed' if seeds == 1 else 'seeds'}: fewer than {FEWEST_RUNS}, so no "
            "intervals; a guide to what to run, not evidence"
        )
    found += [
        f"{run.folder}: {run.skipped} lines of evaluations.jsonl are no records and were skipped"
        for run in runs
        if run.skipped
    ]
    for name, target in targets.items():
        if target.criterion is None:
            found.append(f"{name}: its experts learned nothing, so there is no criterion of speed")
        ends = [expert[-1].step for expert in target.curves.values()]
        if target.within != [(0, step) for step in set(ends)]:
            spans = ", ".join(f"{a:,} to {b:,}" for a, b in target.within) or "none"
            found.append(f"{name}: areas are over steps {spans} of the visit, known of every run")
    return found
