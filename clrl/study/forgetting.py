"""By whom and how much a task was forgotten: CORA's and Continual World's metrics.

Those of Lopez-Paz and of Chaudhry, which need only the ends of tasks, are in `clrl.study.metrics`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clrl.study.curves import Curve, visit_curve
from clrl.study.metrics import Matrix, difference, mean_of_all

__all__ = [
    "continual_world_forgetting",
    "isolated_forgetting",
    "isolated_zero_shot_transfer",
]

ByVisit = dict[tuple[int, int], float | None]


def isolated_forgetting(matrix: Matrix, visits: Sequence[int]) -> ByVisit:
    """Return what each later visit took from a task: its score before less that after (CORA).

    Args:
        matrix: rows 0..T, raw or normalised (not, as CORA does, by the largest score of the run).
        visits: column of the task learned in each visit, T of them.

    Returns:
        By (number of the visit from 1, column): every task that the visit did not learn and an
        earlier one did. The paper's summary is the mean of all of them.

    >>> isolated_forgetting([[0.0, 0.0], [5.0, 1.0], [3.0, 9.0]], [0, 1])
    {(2, 0): 2.0}
    """
    return {
        (k, j): difference(matrix[k - 1][j], matrix[k][j])
        for k, own in enumerate(visits, 1)
        for j in sorted(set(visits[: k - 1]) - {own})
        if k < len(matrix)
    }


def isolated_zero_shot_transfer(matrix: Matrix, visits: Sequence[int]) -> ByVisit:
    """Return what each visit gave to tasks not begun: their score after less that before (CORA).

    Arguments and result as above, with every task that neither this visit nor an earlier one
    learned.

    >>> isolated_zero_shot_transfer([[0.0, 0.0], [5.0, 1.0], [3.0, 9.0]], [0, 1])
    {(1, 1): 1.0}
    """
    return {
        (k, j): difference(matrix[k][j], matrix[k - 1][j])
        for k in range(1, len(visits) + 1)
        for j in sorted(set(visits) - set(visits[:k]))
        if k < len(matrix)
    }


def continual_world_forgetting(
    rows: Iterable[Mapping[str, Any]],
    tasks: Sequence[str],
    visits: Sequence[int],
    last: int = 5,
    *,
    earlier_at_ends: bool = False,
) -> dict[str, float | None]:
    """Return `F_j = p_j(end of its own visit) - p_j(end of the run)` (Wolczyk et al. 2021).

    An end is the mean of the last evaluations of a visit (as many as it has, if fewer): of the
    last that learned j, and of the run's last. The paper's F is the mean over all tasks, in which
    the task learned last has 0. A missing evaluation makes it None.

    Args:
        rows: the records of `evaluations.jsonl`.
        tasks: names of the distinct tasks.
        visits: index of the task learned in each visit.
        last: how many evaluations an end has.
        earlier_at_ends: whether a task that is not being learned is evaluated only at the ends of
            visits (`evaluation.earlier: ends`): of the other moments it then lacks nothing, and
            its end of the run is the run's very last evaluation.

    >>> rows = [
    ...     {"phase": "end", "visit": 1, "step": 10, "task_evaluated": "A", "return": 8.0},
    ...     {"phase": "during", "visit": 2, "step": 15, "task_evaluated": "A", "return": 4.0},
    ...     {"phase": "end", "visit": 2, "step": 20, "task_evaluated": "A", "return": 2.0},
    ... ]
    >>> continual_world_forgetting(rows, ["A", "B"], [0, 1])
    {'A': 5.0, 'B': None}
    """
    rows = list(rows)
    result: dict[str, float | None] = {}
    for j, name in enumerate(tasks):
        own = max(k for k, task in enumerate(visits, 1) if task == j)
        before = _end(visit_curve(rows, name, own), last)
        others = earlier_at_ends and own < len(visits)
        asked = [row for row in rows if row["phase"] != "during"] if others else rows
        result[name] = difference(before, _end(visit_curve(asked, name, len(visits)), last))
    return result


def _end(curve: Curve, last: int) -> float | None:
    """Return the mean of a visit's last evaluations; the one it began with is not of it."""
    return mean_of_all([point.score for point in curve[1:][-last:]])
