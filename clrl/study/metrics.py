"""The score matrix and the metrics that follow from it: pure functions of stored evaluations.

A matrix has a row for each moment (row 0 before any training, row v after the v-th visit) and a
column for each distinct task; an entry is a mean score, or None where the task was not, or could
not be, evaluated. A metric that needs a missing entry is None, never 0.

Tasks may be visited several times. `own[j]` below is the row after the last visit to task j; for a
sequence without repeats these are the definitions of the papers.

Of the metrics of the SPP paper (Peng et al. 2018), ACC is `average_performance`, BWT is Lopez-Paz's
`backward_transfer` (the same sum over the same T - 1 tasks), FWT is `spp_forward_transfer` and SMT
is `smt`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "average_performance",
    "backward_transfer",
    "basic_metrics",
    "difference",
    "forgetting",
    "forward_transfer",
    "mean_of_all",
    "normalised",
    "score_matrix",
    "smt",
    "spp_forward_transfer",
]

Matrix = Sequence[Sequence[float | None]]


def score_matrix(
    rows: Iterable[Mapping[str, Any]], tasks: Sequence[str]
) -> list[list[float | None]]:
    """Average the scores of `evaluations.jsonl` that belong to the matrix.

    Args:
        rows: evaluation records, one an episode (its score is its `return`) or one a test set (its
            `accuracy`, in percent); those of phase `start` make row 0, those of phase `end` the row
            of their `visit` (1, 2, ...); others are learning curves and are left out.
        tasks: names of the distinct tasks: the columns.

    Returns:
        Rows up to the last moment that was evaluated.

    >>> rows = [
    ...     {"phase": "start", "visit": 0, "task_evaluated": "A", "return": 1.0},
    ...     {"phase": "end", "visit": 1, "task_evaluated": "A", "return": 4.0},
    ...     {"phase": "end", "visit": 1, "task_evaluated": "A", "return": 6.0},
    ... ]
    >>> score_matrix(rows, ["A", "B"])
    [[1.0, None], [5.0, None]]
    >>> rows = [{"phase": "end", "visit": 0, "task_evaluated": "digits 0, 1", "accuracy": 99.5}]
    >>> score_matrix(rows, ["digits 0, 1"])
    [[99.5]]
    """
    scores: defaultdict[tuple[int, str], list[float]] = defaultdict(list)
    for row in rows:
        score = row.get("return", row.get("accuracy"))
        if row["phase"] in ("start", "end") and score is not None:
            scores[int(row["visit"]), row["task_evaluated"]].append(float(score))
    last = max((visit for visit, _ in scores), default=-1)
    return [
        [mean_of_all(scores[visit, task]) if (visit, task) in scores else None for task in tasks]
        for visit in range(last + 1)
    ]


def normalised(
    matrix: Matrix, tasks: Sequence[str], normalise: Callable[[str, float], float | None]
) -> list[list[float | None]]:
    """Map every entry by `normalise(task, score)`, None where that is None."""
    return [
        [
            None if score is None else normalise(task, score)
            for task, score in zip(tasks, row, strict=True)
        ]
        for row in matrix
    ]


def average_performance(matrix: Matrix) -> float | None:
    """Return the mean over tasks of the last row, `mean_j R[T, j]`.

    >>> average_performance([[0.0, 0.0], [5.0, 1.0], [3.0, 9.0]])
    6.0
    """
    return mean_of_all(matrix[-1]) if matrix else None


def backward_transfer(matrix: Matrix, visits: Sequence[int]) -> float | None:
    """Return `mean_j R[T, j] - R[own[j], j]` (Lopez-Paz & Ranzato 2017) over all but the last task.

    Args:
        matrix: rows 0..T.
        visits: column of the task learned in each visit, T of them.

    >>> backward_transfer([[0.0, 0.0], [5.0, 1.0], [3.0, 9.0]], [0, 1])
    -2.0
    """
    if not _complete(matrix, visits):
        return None
    terms = [
        difference(matrix[-1][j], matrix[own][j])
        for j, own in _own_rows(visits).items()
        if own < len(visits)
    ]
    return mean_of_all(terms)


def forgetting(matrix: Matrix, visits: Sequence[int]) -> float | None:
    """Return `mean_j max_{1 <= i < T} R[i, j] - R[T, j]` (Chaudhry et al. 2018), as above.

    None if a row is missing from the task's first visit on: the largest may have been there.

    >>> forgetting([[0.0, 0.0], [5.0, 1.0], [3.0, 9.0]], [0, 1])
    2.0
    """
    if not _complete(matrix, visits):
        return None
    terms = []
    for j, own in _own_rows(visits).items():
        if own < len(visits):
            before = [row[j] for row in matrix[1:-1]]
            known = [score for score in before if score is not None]
            whole = None not in before[visits.index(j) :]
            terms.append(difference(max(known) if whole else None, matrix[-1][j]))
    return mean_of_all(terms)


def forward_transfer(matrix: Matrix, visits: Sequence[int]) -> float | None:
    """Return `mean_{j > 1} R[j-1, j] - R[0, j]` (Lopez-Paz & Ranzato 2017).

    What the tasks before it gave to a task that was not begun: its score just before its first
    visit, less that of the untrained net. The first task has none.

    >>> forward_transfer([[0.0, 2.0], [5.0, 3.0], [3.0, 9.0]], [0, 1])
    1.0
    """
    if not _complete(matrix, visits):
        return None
    first = {task: visits.index(task) for task in visits}  # the row before it was begun
    terms = [difference(matrix[row][j], matrix[0][j]) for j, row in first.items() if row > 0]
    return mean_of_all(terms)


def spp_forward_transfer(
    matrix: Matrix, visits: Sequence[int], joint: Sequence[float | None]
) -> float | None:
    """Return `mean_j R[own[j], j] - m_j` over all but the last task: the FWT of the SPP paper.

    Not what others call forward transfer: the price, mostly below 0, that a method's protection
    has in learning, beside a net trained on all tasks together. Whether earlier tasks helped is
    not in it.

    Args:
        matrix: rows 0..T.
        visits: column of the task learned in each visit, T of them.
        joint: m_j by column, scores under joint training: the last row of such a run's matrix.

    >>> spp_forward_transfer([[0.0, 0.0], [5.0, 1.0], [3.0, 9.0]], [0, 1], [6.0, 9.5])
    -1.0
    """
    if not _complete(matrix, visits):
        return None
    return mean_of_all(
        [
            difference(matrix[own][j], joint[j])
            for j, own in _own_rows(visits).items()
            if own < len(visits)
        ]
    )


def smt(matrix: Matrix, visits: Sequence[int]) -> float | None:
    """Return the mean of `D_j` over all but the last task: the SMT of the SPP paper; 0 is stable.

    D_j is the variance of task j's scores over the rows own[j]..T. The paper says "variance of
    accuracy over the sequence" and no more. It is the population variance here (the rows are all
    there are, not a sample). Rows before own[j] are left out: there the task is not yet learned,
    and learning it would count as instability. The unit is that of the scores, squared.

    >>> smt([[0.0, 0.0], [5.0, 1.0], [3.0, 9.0]], [0, 1])  # of 5 and 3
    1.0
    """
    if not _complete(matrix, visits):
        return None
    return mean_of_all(
        [
            _variance([row[j] for row in matrix[own:]])
            for j, own in _own_rows(visits).items()
            if own < len(visits)
        ]
    )


def basic_metrics(matrix: Matrix, visits: Sequence[int]) -> dict[str, float | None]:
    """Return by name the metrics that a run has by itself; None while it is unfinished."""
    finished = _complete(matrix, visits)
    return {
        "average_performance": average_performance(matrix) if finished else None,
        "backward_transfer": backward_transfer(matrix, visits),
        "forgetting": forgetting(matrix, visits),
        "forward_transfer": forward_transfer(matrix, visits),
        "smt": smt(matrix, visits),
    }


def _own_rows(visits: Sequence[int]) -> dict[int, int]:
    """Return for each task the row after its last visit."""
    return {task: visit + 1 for visit, task in enumerate(visits)}


def _complete(matrix: Matrix, visits: Sequence[int]) -> bool:
    return len(matrix) == len(visits) + 1


def difference(a: float | None, b: float | None) -> float | None:
    """Return `a - b`; None if either is missing."""
    return None if a is None or b is None else a - b


def mean_of_all(values: Sequence[float | None]) -> float | None:
    """Return the mean; None if there is nothing, or if anything is missing."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _variance(values: Sequence[float | None]) -> float | None:
    """Return the population variance; None if anything is missing."""
    mean = mean_of_all(values)
    return None if mean is None else mean_of_all([(v - mean) ** 2 for v in values if v is not None])
