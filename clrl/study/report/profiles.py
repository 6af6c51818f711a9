"""Performance profiles: how many of the last scores are above a threshold, whatever that is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clrl.study.report.charts import Line, LineChart
from clrl.study.report.document import Cell, Figure, Table
from clrl.study.report.groups import Group
from clrl.study.report.scores import Scale
from clrl.study.statistics import performance_profile

__all__ = ["profiles"]

THRESHOLDS = 50


def profiles(groups: Sequence[Group], scale: Scale) -> Figure | None:
    """Return a line for each method; None without several runs, or several tasks on one scale."""
    finals = {
        i: scores
        for i, group in enumerate(groups)
        if len(group.finished) > 1 and (scores := scale.finals(group))
    }
    if not scale.is_common or len(groups[0].first.tasks) < 2 or not finals:
        return None
    every = [x for scores in finals.values() for runs in scores.values() for x in runs]
    limits = [float(x) for x in np.linspace(min(every), max(every), THRESHOLDS)]
    shares = {i: performance_profile(scores, limits) for i, scores in finals.items()}
    lines = [Line(i, list(zip(limits, share, strict=True))) for i, share in shares.items()]
    rows: list[list[Cell]] = [
        [limit, *(share[k] for share in shares.values())] for k, limit in enumerate(limits)
    ]
    columns = ("threshold", *(groups[i].label for i in finals))
    return Figure(
        "Performance profiles",
        "Share of last scores (of all runs and tasks, every task weighing the same) above a "
        "threshold: the higher a line, the better (Agarwal et al. 2021).",
        [LineChart("", scale.name, "share above it", lines, include=(0.0, 1.0))],
        Table("performance profiles", columns, rows),
        [group.label for group in groups],
    )
