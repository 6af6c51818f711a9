"""From the runs of a transfer study to its numbers; a pure function of stored evaluations.

A run is compared with the expert of its target and seed over the visit to the target. Areas of one
target are taken over the stretches of the visit that all its runs and experts know, so that no
method is measured over steps of its own. The criterion of speed comes from the experts alone.

Metrics that divide areas (`Metric.is_ratio`) are over the seeds of a pair the ratio of means: the
mean of the runs' areas over the mean of the experts'. A game is often learned with one seed and not
with another, and over an expert's area near 0 a mean of ratios would say nothing else. Intervals
redraw seeds, each run together with its expert. Of each seed its own ratio is told beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from clrl.run.score_table import number
from clrl.study import gains
from clrl.study.curves import (
    Curve,
    Span,
    common_spans,
    mean_height,
    rescaled,
    shortfall,
    time_to_threshold,
    visit_curve,
)
from clrl.study.forgetting import continual_world_forgetting
from clrl.study.metrics import difference, mean_of_all
from clrl.study.plan import PlannedRun, Study, json_ready
from clrl.study.ratios import interval_of_ratios, ratio_of_means, shares
from clrl.study.statistics import (
    FEWEST_RUNS,
    Interval,
    iqm,
    mean,
    probability_of_improvement,
    probability_of_improvement_interval,
)
from clrl.types import ClrlError

__all__ = ["METRICS", "Finished", "Metric", "Normalise", "transfer_matrix"]

Normalise = Callable[[str, float], float | None]
Part = tuple[float, float]  # above and below the line of a ratio

Walk = tuple[str, str]  # source and target

MORE_WORK = 0.1  # share of the expert's multiply-adds from which on a difference is said


class Metric(NamedTuple):
    """What a number of the matrix is."""

    title: str
    has_unit: bool  # that of the target's scores, or steps: not to be averaged over targets
    higher_is_better: bool = True
    is_ratio: bool = False  # of areas: over seeds a ratio of means


METRICS = {
    "transfer_score": Metric("PNN's transfer score (% of the expert's area)", False, is_ratio=True),
    "transfer_score_above_random": Metric(
        "PNN's transfer score above random play (%)", False, is_ratio=True
    ),
    "forward_transfer": Metric("Continual World's forward transfer", False, is_ratio=True),
    "area_gain": Metric("mean score over the visit, less the expert's", True),
    "relative_speed": Metric("relative speed (expert's time to the criterion / own)", False),
    "relative_speed_by_area": Metric(
        "relative speed by area below the criterion", False, is_ratio=True
    ),
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
        multiply_adds: that an answer took while the target was learned; None where not known.
    """

    planned: PlannedRun
    folder: str
    rows: Sequence[Mapping[str, Any]]
    skipped: int = 0
    multiply_adds: int | None = None

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
    measured = [
        _Measured(run, of.metrics(run), of.parts(run))
        for run in runs
        for of in [targets[run.planned.target]]
    ]
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
                "method": one.run.planned.method,
                "sources": list(one.run.planned.sources),
                "target": one.run.planned.target,
                "seed": one.run.planned.seed,
                "folder": one.run.folder,
                "skipped_lines": one.run.skipped,
                "metrics": one.metrics,
            }
            for one in measured
        ],
        "matrix": _matrix(study, measured),
        "summary": _summary(study, measured),
        "warnings": [*_warnings(study, [*experts, *runs], targets), *_more_work(experts, runs)],
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

    def parts(self, run: Finished) -> dict[str, Part | None]:
        """Return by name what each ratio of areas has above and below its line."""
        ours, theirs = run.curve, self.curves[run.planned.seed]
        area, area_of_expert = (mean_height(points, self.within) for points in (ours, theirs))
        share, share_of_expert = (
            mean_height(rescaled(points, self.scale), self.within) for points in (ours, theirs)
        )
        below: list[float | None] = [None, None]
        if self.criterion is not None:
            below = [shortfall(points, self.criterion, self.within) for points in (ours, theirs)]
        above_random = difference(area, self.random), difference(area_of_expert, self.random)
        return {
            "transfer_score": _part(area, area_of_expert, 100),
            "transfer_score_above_random": _part(*above_random, 100),
            "forward_transfer": _part(
                difference(share, share_of_expert), difference(1.0, share_of_expert)
            ),
            "relative_speed_by_area": _part(below[1], below[0]),
        }


def _part(above: float | None, below: float | None, times: float = 1.0) -> Part | None:
    return None if above is None or below is None else (times * above, below)


def _random_score(task: str, normalise: Normalise) -> float | None:
    """Return the score that the normalised scale, which is linear, has at 0."""
    at_0, at_1 = normalise(task, 0.0), normalise(task, 1.0)
    return None if at_0 is None or at_1 is None else at_0 / (at_0 - at_1)


# -------------------------------------------------------------------------------- all of them


@dataclass(frozen=True)
class _Measured:
    """A run and its numbers by metric; `parts` are of those that are ratios."""

    run: Finished
    metrics: Mapping[str, float | None]
    parts: Mapping[str, Part | None]

    def part(self, metric: str) -> Part | None:
        """Return a metric as a ratio; what is none is over 1, so that the same mean serves all."""
        if METRICS[metric].is_ratio:
            return self.parts[metric]
        return _part(self.metrics[metric], 1.0)


class _Pair(NamedTuple):
    """A method's runs over a source and a target, in the order of the seeds."""

    values: list[float | None]
    parts: list[Part | None]

    @property
    def whole(self) -> list[Part] | None:
        """The parts, if every run has them and they make a ratio."""
        known = [part for part in self.parts if part is not None]
        return known if len(known) == len(self.parts) and shares(known) is not None else None


def _matrix(study: Study, measured: Sequence[_Measured]) -> dict[str, Any]:
    """Return by metric, method, source and target: the runs' values, their mean and its interval.

    The mean is None where a run is lost: of those that are left it would say too much.
    """
    options = _options(study)
    matrix: dict[str, Any] = {}
    for metric in METRICS:
        for method, pairs in _pairs(study, measured, metric).items():
            for (source, target), pair in pairs.items():
                whole = pair.whole
                interval = interval_of_ratios({target: whole}, **options) if whole else None
                at = matrix.setdefault(metric, {}).setdefault(method, {}).setdefault(source, {})
                told = {"values": pair.values, "mean": ratio_of_means(whole) if whole else None}
                at[target] = told | _ends(interval)
    return matrix


def _summary(study: Study, measured: Sequence[_Measured]) -> dict[str, Any]:
    """Return by metric and method what all pairs together say, where they share a unit.

    Each pair is a stratum; of a ratio a run is worth its part above the line over the pair's mean
    below, so that the mean over runs is that of the pairs' ratios. Beside a method stands how it
    compares with the first one, on the pairs that both have whole.
    """
    options = _options(study)
    summary: dict[str, Any] = {}
    for name, metric in METRICS.items():
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
        ends = _ends(probability_of_improvement_interval(one, other, **options))
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


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _options(study: Study) -> dict[str, Any]:
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
        elif late := _late(target):
            who = f"expert of seed {late[0]}"
            if len(late) > 1:
                who = f"experts of seeds {', '.join(map(str, late))}"
            found.append(
                f"{name}: the {who} did not reach the criterion ({number(target.criterion)}): "
                "no relative speed there"
            )
        ends = [expert[-1].step for expert in target.curves.values()]
        if target.within != [(0, step) for step in set(ends)]:
            spans = ", ".join(f"{a:,} to {b:,}" for a, b in target.within) or "none"
            found.append(f"{name}: areas are over steps {spans} of the visit, known of every run")
    return found


def _late(target: _Target) -> list[int]:
    """Return the seeds of the experts that did not reach the criterion."""
    times = zip(target.curves, target.told["time_to_threshold"], strict=True)
    return [seed for seed, time in times if time is None]


def _more_work(experts: Sequence[Finished], runs: Sequence[Finished]) -> list[str]:
    """Say of each method whose answers take more, or less, work than the expert's."""
    work = {(one.planned.target, one.planned.seed): one.multiply_adds for one in experts}
    times: defaultdict[str, list[float]] = defaultdict(list)
    for run in runs:
        reference = work.get((run.planned.target, run.planned.seed))
        if run.multiply_adds is not None and reference:
            times[run.planned.method].append(run.multiply_adds / reference)
    told = []
    for method, ratios in times.items():
        if max(abs(ratio - 1) for ratio in ratios) > MORE_WORK:
            least, most = f"{min(ratios):.1f}", f"{max(ratios):.1f}"
            told.append(
                f"{method}: an answer takes {least if least == most else f'{least} to {most}'} "
                "times the expert's multiply-adds: the score is of capacity and transfer together"
            )
    return told
