"""What became of the nets' ability to learn."""

from __future__ import annotations

from collections.abc import Sequence

from clrl.study.curves import Point
from clrl.study.metrics import mean_of_all
from clrl.study.report.charts import LineChart
from clrl.study.report.document import Cell, Figure, Section, Table
from clrl.study.report.groups import Group
from clrl.study.report.learning import line_of, rows_of

__all__ = ["plasticity"]

LOOKS = {
    "dormant": "dormant units (share, mean over layers)",
    "effective_rank": "effective rank of the last layer",
    "weight_norm": "norm of the weights being trained",
    "gradient_norm": "norm of their gradient",
}


def plasticity(groups: Sequence[Group], *, one_experiment: bool = True) -> Section | None:
    """Return what was recorded of the nets' ability to learn; None where nothing was.

    Args:
        groups: the runs.
        one_experiment: whether those of a group differ in their seed alone.
    """
    panels, rows = [], []
    for key, title in LOOKS.items():
        lines = []
        for i, group in enumerate(groups):
            drawn = [
                [Point(look.step, look.values[key]) for look in run.looks if key in look.values]
                for run in group.runs
            ]
            drawn = [points for points in drawn if points]
            if drawn:
                lines.append(line_of(i, drawn, banded=one_experiment))
                rows += rows_of(title, group.label, lines[-1], drawn)
        if lines:
            panels.append(LineChart(title, "steps", "", lines, include=(0.0,)))
    if not panels:
        return None
    figure = Figure(
        "Ability to learn",
        "Ten looks a visit, at the inputs just learned from. A unit is dormant if it reacts at "
        "most 0.025 times as much as its layer's mean (Sokar et al. 2023). Frozen weights are not "
        "in the norms. Thick: mean over runs; thin: every run.",
        panels,
        Table("plasticity", ("what", "step", "method", "mean", "runs"), rows, mixed=True),
        [group.label for group in groups],
    )
    return Section("Plasticity", [figure, *_layers(groups)])


def _layers(groups: Sequence[Group]) -> list[Table]:
    rows: list[list[Cell]] = []
    for group in groups:
        last: dict[tuple[int, str], list[float]] = {}
        for run in group.runs:
            for look in run.looks:
                for name, value in look.layers.items():
                    last.setdefault((look.visit, name), []).append(value)
        for (visit, name), values in last.items():
            what, _, layer = name.partition("/")
            rows.append([group.label, visit, layer, what.replace("_", " "), mean_of_all(values)])
    title = "By layer, at the end of each visit"
    columns = ("method", "visit", "layer", "what", "mean over runs")
    return [Table(title, columns, rows, folded=True, mixed=True)] if rows else []
