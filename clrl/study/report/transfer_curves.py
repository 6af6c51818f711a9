"""How the targets of a transfer study were learned, after each source and from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from clrl.study.curves import Curve
from clrl.study.report.charts import LineChart
from clrl.study.report.document import Cell, Figure, Section, Table
from clrl.study.report.groups import Group
from clrl.study.report.learning import COLUMNS, CURVES, line_of, rows_of
from clrl.study.report.runs import Run
from clrl.study.report.transfer_sections import Result

__all__ = ["EXPERT", "curves", "is_pair"]

EXPERT = "expert (from scratch)"


def curves(result: Result, groups: Sequence[Group]) -> Section | None:
    """Return the target's curve after every source, each method's beside those from scratch."""
    controls = _controls(result, groups)
    labels = [*(group.label for group in groups), *dict.fromkeys(c.label for c in controls)]
    panels, rows = [], list[list[Cell]]()
    for source in result["sources"]:
        for target in result["targets"]:
            lines, told = [], list[list[Cell]]()
            for label, drawn in _drawn(groups, controls, source, target):
                style = labels.index(label)
                # a seed may have several controls, which are not independent: no band of theirs
                lines.append(line_of(style, drawn, banded=style < len(groups)))
                told += rows_of(f"{source} → {target}", label, lines[-1], drawn)
            if any(0 < line.style < len(groups) for line in lines):  # more than from scratch
                unit = "accuracy (%)" if groups[0].first.unit == "accuracy" else "raw score"
                panels.append(LineChart(f"{source} → {target}", "steps of the visit", unit, lines))
                rows += told
    if not panels:
        return None
    figure = Figure(
        "Learning the target, after a source and from scratch",
        CURVES,
        panels,
        Table("learning curves", ("pair", *COLUMNS[1:]), rows, mixed=True),
        labels,
    )
    return Section("Learning curves", [figure])


class _Control(NamedTuple):
    """What a method that is no expert's makes of a target from scratch."""

    target: str
    label: str
    curves: list[Curve]


def _controls(result: Result, groups: Sequence[Group]) -> list[_Control]:
    """Return the first visits of the runs that `study.json` has as a method's own control."""
    runs = {group.label: group.runs for group in groups}
    found = []
    for target, methods in result.get("methods_alone", {}).items():
        for method in methods:
            first = [
                run.first_visit
                for run in runs.get(method, ())
                if run.tasks[run.visits[0]] == target
            ]
            if first:
                found.append(_Control(target, f"{method} (from scratch)", first))
    return found


def _drawn(
    groups: Sequence[Group], controls: Sequence[_Control], source: str, target: str
) -> Iterator[tuple[str, list[Curve]]]:
    """Yield what a pair's panel shows, by label."""
    for group in groups:
        alone = group.label == EXPERT
        runs = [run for run in group.runs if is_pair(run, source, target, alone=alone)]
        if runs:
            yield group.label, [run.last_visit for run in runs]
    yield from ((c.label, c.curves) for c in controls if c.target == target)


def is_pair(run: Run, source: str, target: str, *, alone: bool = False) -> bool:
    """Tell whether a run learned the target last, after the source; `alone`: whatever before."""
    *before, last = (run.tasks[j] for j in run.visits)
    return last == target and (alone or " > ".join(before) == source)
