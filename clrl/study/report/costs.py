"""What was paid, beside what it bought."""

from __future__ import annotations

from collections.abc import Sequence

from clrl.study.metrics import mean_of_all
from clrl.study.report.charts import ScatterChart
from clrl.study.report.document import Cell, Figure, Part, Section, Table, Text
from clrl.study.report.groups import Group
from clrl.study.report.runs import Run
from clrl.study.report.scores import METRICS, Scale

__all__ = ["cost_table", "costs", "visit_costs"]

# key in `summary.json`: title, what to divide by
TOTALS = {
    "steps": ("steps", 1),
    "steps_for_end_task": ("of them to end tasks", 1),
    "frames": ("frames", 1),
    "seconds": ("hours", 3600),
    "seconds_evaluating": ("of them evaluating", 3600),
    "parameters": ("parameters", 1),
    "peak_memory_mb": ("peak memory of the process so far (MB)", 1),
    "peak_cuda_memory_mb": ("peak CUDA tensors (MB)", 1),
}
BY_VISIT = {
    "seconds": ("minutes", 60),
    "multiply_adds": ("multiply-adds an answer", 1),
    "parameters": ("parameters", 1),
    "parameters_trained": ("of them trained", 1),
    "peak_memory_mb": ("peak memory of the process so far (MB)", 1),
    "peak_cuda_memory_mb": ("peak CUDA tensors (MB)", 1),
}


def costs(groups: Sequence[Group], scale: Scale, metric: str) -> Section:
    """Return the section; says so where nothing was recorded."""
    runs = [(i, run) for i, group in enumerate(groups) for run in group.finished if run.cost]
    if not runs:
        return Section("Cost", [Text("No finished run tells what it has cost.")])
    parts: list[Part] = []
    points = [(i, run, scale.metrics(run)[metric]) for i, run in runs]
    panels = [
        ScatterChart(
            "",
            title,
            METRICS[metric].title,
            [
                (i, float(run.cost[key]) / unit, score)
                for i, run, score in points
                if score is not None and run.cost.get(key) is not None
            ],
        )
        for key, (title, unit) in TOTALS.items()
        if key in ("seconds", "parameters")
    ]
    rows: list[list[Cell]] = [
        [
            groups[i].label,
            run.seed,
            score,
            *(_scaled(run, key) for key in ("seconds", "parameters")),
        ]
        for i, run, score in points
    ]
    columns = ("method", "seed", METRICS[metric].title, "hours", "parameters")
    if any(panel.dots for panel in panels):
        figure = Figure(
            "Score beside cost",
            "A mark is a run: high and far left is good. Time depends on the machine and on what "
            "else ran there.",
            panels,
            Table("score beside cost", columns, rows),
            [group.label for group in groups],
        )
        parts.append(figure)
    parts.append(cost_table([(g.label, [r for r in g.finished if r.cost]) for g in groups]))
    parts += visit_costs(groups)
    return Section("Cost", parts)


def _scaled(run: Run, key: str) -> float | None:
    value = run.cost.get(key)
    return None if value is None else float(value) / TOTALS[key][1]


def cost_table(groups: Sequence[tuple[str, Sequence[Run]]]) -> Table:
    """Return what a run of each group has cost, in the mean."""
    keys = [k for k in TOTALS if any(k in run.cost for _, runs in groups for run in runs)]
    rows: list[list[Cell]] = []
    for label, runs in groups:
        means = [_whole(key, mean_of_all([_scaled(run, key) for run in runs])) for key in keys]
        rows.append([label, len(runs), *means])
    columns = ("method", "runs", *(TOTALS[key][0] for key in keys))
    return Table("Cost of a run, mean", columns, rows)


def visit_costs(groups: Sequence[Group], *, tasks_differ: bool = False) -> list[Table]:
    """Return what each visit has cost, where that was recorded.

    Args:
        groups: of runs.
        tasks_differ: whether the runs of a group visit other tasks than one another, so that a
            visit is called by its number alone.
    """
    paid = [visit for g in groups for run in g.finished for visit in run.cost.get("visits", [])]
    keys = [key for key in BY_VISIT if any(key in visit for visit in paid)]
    rows: list[list[Cell]] = []
    for group in groups:
        lists = [run.cost["visits"] for run in group.finished if run.cost.get("visits")]
        if not lists:
            continue
        for k, visit in enumerate(lists[0][: min(map(len, lists))]):
            means = [
                _whole(key, mean_of_all([_per(visits[k].get(key), unit) for visits in lists]))
                for key, unit in ((key, BY_VISIT[key][1]) for key in keys)
            ]
            name = f"{k + 1}." if tasks_differ else f"{k + 1}. {visit.get('task', '?')}"
            rows.append([group.label, name, *means])
    columns = ("method", "visit", *(BY_VISIT[key][0] for key in keys))
    return [Table("Cost of each visit, mean over runs", columns, rows, folded=True)] if rows else []


def _per(value: object, unit: int) -> float | None:
    return float(value) / unit if isinstance(value, int | float) else None


def _whole(key: str, value: float | None) -> Cell:
    """Return counts as whole numbers."""
    counted = key.startswith(("steps", "frames", "parameters", "multiply"))
    return round(value) if counted and value is not None else value
