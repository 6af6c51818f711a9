"""What a comparison comes to: every metric of every method, and each beside the first."""

from __future__ import annotations

from collections.abc import Sequence

from clrl.study.metrics import spp_forward_transfer
from clrl.study.report.charts import DotChart, Row
from clrl.study.report.document import Cell, Estimate, Figure, Part, Section, Table, Text, shown
from clrl.study.report.groups import Group
from clrl.study.report.profiles import profiles
from clrl.study.report.scores import METRICS, Scale, estimate, estimate_iqm, with_ends
from clrl.study.statistics import (
    ENOUGH_RUNS,
    mean,
    paired_differences,
    probability_of_improvement,
    probability_of_improvement_interval,
    t_interval,
)

__all__ = ["reading", "verdict"]

CHANCE = "chance of a higher last score (any two runs, mean over tasks)"
TOLD = 6  # groups that are put in words; of more, the table tells

METHOD = (
    "Every number is a mean over runs, [ ] its 95 % bootstrap interval (2,000 resamples of runs, "
    "with all their tasks, seed 0), given from 3 runs on. The independent unit is the run. "
    "Differences of methods are of pairs with the same seed, and have Student's 95 % interval."
)


def verdict(groups: Sequence[Group], scale: Scale, metric: str) -> Section:
    """Return the section, about one metric above all."""
    values = {g.label: {r.seed: scale.metrics(r)[metric] for r in g.finished} for g in groups}
    parts: list[Part] = [Text(line) for line in _sentences(groups, values, metric)]
    parts += [Text(METHOD), _every_metric(groups, scale)]
    if len(groups) > 1:
        parts.append(_beside_first(groups, values, scale, metric))
    parts.append(_figure(groups, values, scale, metric))
    if figure := profiles(groups, scale):
        parts.append(figure)
    return Section("Verdict", parts)


Values = dict[str, dict[int, float | None]]  # by group and seed


def _sentences(groups: Sequence[Group], values: Values, metric: str) -> list[str]:
    title, higher = METRICS[metric]
    means = {label: estimate(list(by.values())) for label, by in values.items()}
    known = {label: e for label, e in means.items() if e.value is not None}
    if not known:
        return [f"No method has a value of {title} yet."]
    pick = max if higher else min
    best = pick(known, key=lambda label: known[label].value or 0.0)
    word = "highest" if higher else "lowest"
    if len(known) == 1:
        return [f"{best}: {title} {shown(known[best])}."]
    lines = [f"{best} has the {word} {title}: {shown(known[best])}."]
    first = groups[0].label
    for group in groups[1:] if len(groups) <= TOLD else []:
        apart = _difference(values[group.label], values[first])
        if apart.value is None:
            continue
        n = len(_pairs(values[group.label], values[first]))
        told = f"{n} {'pair' if n == 1 else 'pairs'}: {reading(apart, n, higher)}"
        lines.append(f"{group.label} less {first}: {shown(apart)} ({told}).")
    return lines


def reading(apart: Estimate, n: int, higher: bool, counted: str = "pairs") -> str:
    """Say what a difference shows that is of n `counted` things, and where higher may be better."""
    if apart.low is None or apart.high is None:
        return "fewer than 3, so no interval: not evidence"
    if apart.low <= 0 <= apart.high:
        return "the interval holds 0: no difference is shown"
    if n < ENOUGH_RUNS:
        return f"the interval leaves 0 out, but fewer than {ENOUGH_RUNS} {counted} are no evidence"
    better = (apart.low > 0) == higher
    return f"the interval leaves 0 out: {'better' if better else 'worse'}"


def _difference(ours: dict[int, float | None], theirs: dict[int, float | None]) -> Estimate:
    """Return the mean difference of runs with the same seed."""
    apart = _pairs(ours, theirs)
    return with_ends(float(mean(apart)), t_interval(apart)) if apart else Estimate(None)


def _pairs(ours: dict[int, float | None], theirs: dict[int, float | None]) -> list[float]:
    """Return the difference of every two runs with the same seed that both have a value."""
    a, b = ({k: v for k, v in one.items() if v is not None} for one in (ours, theirs))
    return list(paired_differences(a, b).values())


def _every_metric(groups: Sequence[Group], scale: Scale) -> Table:
    columns = ["method", "runs"]
    if scale.is_common:
        columns.append("IQM of last scores")
    rows: list[list[Cell]] = []
    for group in groups:
        runs = [scale.metrics(run) for run in group.finished]
        row: list[Cell] = [group.label, len(runs)]
        if scale.is_common:
            row.append(estimate_iqm(scale.finals(group)))
        rows.append([*row, *(estimate([run[name] for run in runs]) for name in METRICS)])
    columns += [metric.title for metric in METRICS.values()]
    if joint := next((g for g in groups if g.first.config["method"]["name"] == "joint"), None):
        columns.append(f"forward transfer (SPP), beside {joint.label}")
        for row, group in zip(rows, groups, strict=True):
            row.append(None if group is joint else _beside_joint(group, joint, scale))
    note = "" if scale.is_common else "; tasks' raw scores have no common unit: read by task"
    title = f"Every metric, {scale.name}{note}"
    return Table(title, columns, rows, turned=len(groups) <= TOLD)  # more do not fit side by side


def _beside_joint(group: Group, joint: Group, scale: Scale) -> Estimate:
    """Return what a method's protection costs in learning, beside joint training's same seeds."""
    upper = {run.seed: scale.matrix(run)[-1] for run in joint.finished}
    pairs = [(run, upper[run.seed]) for run in group.finished if run.seed in upper]
    return estimate([spp_forward_transfer(scale.matrix(run), run.visits, m) for run, m in pairs])


def _beside_first(groups: Sequence[Group], values: Values, scale: Scale, metric: str) -> Table:
    first = groups[0]
    rows: list[list[Cell]] = []
    for group in groups[1:]:
        ours, theirs = scale.finals(group), scale.finals(first)
        chance = Estimate(None)
        if ours and theirs:
            seeds = ([run.seed for run in one.finished] for one in (group, first))
            same = len({tuple(of) for of in seeds}) == 1
            interval = probability_of_improvement_interval(ours, theirs, crossed=same)
            chance = with_ends(probability_of_improvement(ours, theirs), interval)
        pairs = len(_pairs(values[group.label], values[first.label]))
        apart = _difference(values[group.label], values[first.label])
        rows.append([group.label, pairs, apart, chance])
    title = METRICS[metric].title
    return Table(
        f"Beside {first.label}",
        ("method", "pairs of the same seed", f"their difference in {title}", CHANCE),
        rows,
    )


def _figure(groups: Sequence[Group], values: Values, scale: Scale, metric: str) -> Figure:
    title = METRICS[metric].title
    panels = [_dots(groups, [list(values[g.label].values()) for g in groups], title, scale.name)]
    rows: list[list[Cell]] = [
        [g.label, title, seed, value] for g in groups for seed, value in values[g.label].items()
    ]
    for j, task in enumerate(groups[0].first.tasks):
        last = [[run.matrix[-1][j] for run in g.finished] for g in groups]
        unit = "accuracy (%)" if groups[0].first.unit == "accuracy" else "raw score"
        panels.append(_dots(groups, last, f"{task} at the end", unit))
        rows += [
            [g.label, f"{task} at the end", run.seed, run.matrix[-1][j]]
            for g in groups
            for run in g.finished
        ]
    return Figure(
        "Every run",
        "A ring is a run; the filled mark their mean, the bar its interval.",
        panels,
        Table("every run", ("method", "what", "seed", "value"), rows, mixed=True),
    )


def _dots(
    groups: Sequence[Group], values: Sequence[list[float | None]], title: str, unit: str
) -> DotChart:
    rows = [
        Row(group.label, i, of, estimate(of))
        for i, (group, of) in enumerate(zip(groups, values, strict=True))
    ]
    return DotChart(title, unit, rows)
