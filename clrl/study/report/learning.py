"""How tasks were learned and forgotten: curves, score matrices, forgetting."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clrl.study.curves import Curve
from clrl.study.forgetting import isolated_forgetting, isolated_zero_shot_transfer
from clrl.study.metrics import difference, mean_of_all
from clrl.study.report.charts import DotChart, Line, LineChart, Row
from clrl.study.report.document import Cell, Estimate, Figure, Part, Section, Table, Text
from clrl.study.report.groups import Group
from clrl.study.report.runs import Run
from clrl.study.report.scores import Scale, estimate

__all__ = ["CURVES", "curves", "forgetting", "line_of", "matrices"]

CURVES = (
    "Thick: mean over runs; band: 95 % bootstrap interval at each step, from 3 runs on; thin: "
    "every run."
)
COLUMNS = ("task", "step", "method", "mean", "runs")


def line_of(style: int, curves: Sequence[Curve], *, banded: bool = True) -> Line:
    """Return a line of curves: their mean where all are known, its band, and each.

    No band where they are not runs of one experiment: an interval would mean nothing.
    """
    by_run = [{point.step: point.score for point in curve} for curve in curves]
    steps = sorted({step for run in by_run for step in run})
    mean, band = [], []
    for step in steps:
        if not all(step in run for run in by_run):
            continue
        at = estimate([run[step] for run in by_run])
        mean.append((float(step), at.value))
        if banded and at.low is not None and at.high is not None:
            band.append((float(step), at.low, at.high))
    runs = (
        [[(float(p.step), p.score) for p in curve] for curve in curves] if len(curves) > 1 else []
    )
    return Line(style, mean, band, runs)


def rows_of(task: str, label: str, line: Line, curves: Sequence[Curve]) -> list[list[Cell]]:
    """Return a line as rows of the table behind it: mean with interval, and each run's score."""
    ends = {x: (low, high) for x, low, high in line.band}
    by_run = [{point.step: point.score for point in curve} for curve in curves]
    rows: list[list[Cell]] = []
    for x, value in line.mean:
        each = ", ".join(_short(run.get(int(x))) for run in by_run)
        if each.strip("-, "):
            cell = Estimate(value, *ends.get(x, (None, None)))
            rows.append([task, int(x), label, cell, each])
    return rows


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def curves(groups: Sequence[Group], random: Callable[[str], float | None]) -> Section:
    """Return the learning curves of every task over the whole run."""
    first = groups[0].first
    unit = "accuracy (%)" if first.unit == "accuracy" else "raw score"
    panels, rows = [], []
    for j, task in enumerate(first.tasks):
        lines = []
        for i, group in enumerate(groups):
            drawn = [run.curves[task] for run in group.finished or group.runs]
            line = line_of(i, drawn)
            rows += rows_of(task, group.label, line, drawn)
            if group.finished:
                unfinished = [run.curves[task] for run in group.runs if not run.finished]
                thin = [[(float(p.step), p.score) for p in curve] for curve in unfinished]
                line = Line(i, line.mean, line.band, [*line.runs, *thin])
            lines.append(line)
        level = random(task)
        panels.append(
            LineChart(
                task,
                "gradient steps" if first.unit == "accuracy" else "agent steps",
                unit,
                lines,
                levels=[(level, "random play")] if level is not None else [],
                shaded=_own_visits(groups, j),
                cuts=_ends(groups)[:-1],
            )
        )
    text = f"{CURVES} Shaded: the visits in which the panel's task is learned."
    figure = Figure(
        "Score of every task over the whole run",
        text,
        panels,
        Table("learning curves", COLUMNS, rows, mixed=True),
        [group.label for group in groups],
    )
    return Section("Learning curves", [figure])


def _ends(groups: Sequence[Group]) -> tuple[int, ...]:
    """Return the steps at which visits end, of a run that got the furthest."""
    runs = [run for group in groups for run in group.runs]
    return max((run.ends for run in runs), key=len)


def _own_visits(groups: Sequence[Group], task: int) -> list[tuple[float, float]]:
    ends = [0, *_ends(groups)]
    visits = groups[0].first.visits
    return [(float(ends[k]), float(ends[k + 1])) for k in range(len(ends) - 1) if visits[k] == task]


# --------------------------------------------------------------------------------- score matrices


def matrices(groups: Sequence[Group]) -> Section:
    """Return a score matrix a method: the mean over its finished runs."""
    parts: list[Part] = [
        Text(
            "What each task (column) scores after each visit (row), the mean over finished runs; "
            "the stronger the colour, the higher in its column. A dash: not evaluated, or the net "
            "could not play it."
        )
    ]
    for group in groups:
        if group.finished:
            parts.append(_matrix(group.label, group.finished, groups))
        else:
            parts.append(Text(f"{group.label} has no finished run."))
    return Section("Score matrix", parts)


def _matrix(label: str, runs: Sequence[Run], groups: Sequence[Group]) -> Table:
    tasks, visits = runs[0].tasks, runs[0].visits
    names = ["before training", *(f"{k}. {tasks[j]}" for k, j in enumerate(visits, 1))]
    means = mean_matrix(runs)
    every = [mean_matrix(group.finished) for group in groups if group.finished]
    ranges = [
        [row[j] for matrix in every for row in matrix if row[j] is not None]
        for j in range(len(tasks))
    ]
    shades = [
        [None, *(_shade(x, [v for v in ranges[j] if v is not None]) for j, x in enumerate(row))]
        for row in means
    ]
    rows: list[list[Cell]] = [[name, *row] for name, row in zip(names, means, strict=True)]
    title = f"{label}: mean of {len(runs)} {'run' if len(runs) == 1 else 'runs'}"
    return Table(title, ("after visit", *tasks), rows, shades)


def mean_matrix(runs: Sequence[Run]) -> list[list[float | None]]:
    """Return the mean over runs of every entry; None where a run lacks it."""
    return [
        [mean_of_all([run.matrix[i][j] for run in runs]) for j in range(len(runs[0].tasks))]
        for i in range(len(runs[0].matrix))
    ]


def _shade(value: float | None, among: Sequence[float]) -> float | None:
    if value is None:
        return None
    low, high = min(among), max(among)
    return (value - low) / (high - low) if high > low else 0.0


# ------------------------------------------------------------------------------------- forgetting


def forgetting(groups: Sequence[Group], scale: Scale) -> Section:
    """Return what became of each task after its own last visit, and which visit did it."""
    runs = groups[0].first
    last = {j: k for k, j in enumerate(runs.visits, 1)}
    earlier = {j: k for j, k in last.items() if k < len(runs.visits)}
    if not earlier or not any(group.finished for group in groups):
        return Section("Forgetting", [Text("No finished run has a task before its last one.")])
    unit = "points of accuracy" if runs.unit == "accuracy" else "raw score"
    panels: list[DotChart] = []
    rows: list[list[Cell]] = []
    for j, k in sorted(earlier.items()):
        dots = []
        for i, group in enumerate(groups):
            lost = [difference(run.matrix[k][j], run.matrix[-1][j]) for run in group.finished]
            cw = [run.forgotten[runs.tasks[j]] for run in group.finished]
            dots.append(Row(group.label, i, lost, estimate(lost)))
            rows.append(
                [
                    runs.tasks[j],
                    group.label,
                    estimate([run.matrix[k][j] for run in group.finished]),
                    estimate([run.matrix[-1][j] for run in group.finished]),
                    estimate(lost),
                    estimate(cw),
                ]
            )
        panels.append(DotChart(runs.tasks[j], f"forgotten ({unit})", dots, zero=True))
    columns = ("task", "method", "after its last visit", "at the end", "forgotten", "F_j (CW)")
    figure = Figure(
        "Forgotten since the task's own last visit",
        "Score after the task's last visit less the score at the end: right of 0 is forgotten, "
        "left of 0 improved. F_j (CW) is Continual World's, of the last 5 evaluations at each end "
        "(with evaluation.earlier: ends, of the very last one at the end of the run).",
        panels,
        Table("forgetting by task", columns, rows, mixed=True),
    )
    return Section("Forgetting", [figure, *_isolated(groups, scale)])


def _isolated(groups: Sequence[Group], scale: Scale) -> list[Table]:
    """Return CORA's tables: what each visit took from, or gave to, each other task."""
    tables = []
    for title, function in (
        ("Isolated forgetting (CORA): taken from the task by the visit", isolated_forgetting),
        (
            "Isolated zero-shot transfer (CORA): given to a task not begun",
            isolated_zero_shot_transfer,
        ),
    ):
        rows: list[list[Cell]] = []
        for group in groups:
            found = [function(scale.matrix(run), run.visits) for run in group.finished]
            tasks, visits = group.first.tasks, group.first.visits
            for visit, j in found[0] if found else []:
                values = [one[visit, j] for one in found]
                name = f"{visit}. {tasks[visits[visit - 1]]}"
                rows.append([group.label, name, tasks[j], estimate(values)])
        if rows:
            columns = ("method", "visit", "task", scale.name)
            tables.append(Table(title, columns, rows, folded=True))
    return tables
