"""Learning curves out of stored evaluations, and the areas under them.

A curve has a point for each moment at which the run was evaluated; its score is None where this
task was not, or could not be, played then (a progressive net's column before its task begins). An
area is made of trapezoids between neighbours that are both known, on the steps at which they were
taken: a gap is left out, never bridged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from clrl.errors import ClrlError
from clrl.study.metrics import mean_of_all

__all__ = [
    "PHASES",
    "Curve",
    "Point",
    "Span",
    "common_spans",
    "known_spans",
    "mean_height",
    "rescaled",
    "run_curve",
    "shortfall",
    "time_to_threshold",
    "visit_curve",
]

PHASES = ("start", "during", "end")  # in the order of time within a visit


class Point(NamedTuple):
    """One evaluation of a task."""

    step: int  # agent steps, of the whole run or of the visit
    score: float | None  # mean over its episodes; None where it was not played


Curve = Sequence[Point]
Span = tuple[float, float]  # from this step to that
Rows = Iterable[Mapping[str, Any]]


def run_curve(rows: Rows, task: str) -> list[Point]:
    """Return `p_j(t)`: a task's score at every evaluation of the run, t in steps of the whole run.

    Args:
        rows: the records of `evaluations.jsonl`.
        task: name of the task; the others' evaluations are the moments at which it has None.

    Of two moments at one step, a visit's end and the next's begin, the later known score counts.

    >>> rows = [
    ...     {"phase": "start", "visit": 0, "step": 0, "task_evaluated": "A", "return": 1.0},
    ...     {"phase": "during", "visit": 1, "step": 50, "task_evaluated": "B", "return": 9.0},
    ...     {"phase": "end", "visit": 1, "step": 100, "task_evaluated": "A", "return": 4.0},
    ...     {"phase": "end", "visit": 1, "step": 100, "task_evaluated": "A", "return": 6.0},
    ... ]
    >>> [tuple(point) for point in run_curve(rows, "A")]
    [(0, 1.0), (50, None), (100, 5.0)]
    """
    scores: dict[int, float | None] = {}
    for (_, _, step), score in _moments(rows, task):  # at a visit's border there may be two
        scores[step] = scores.get(step) if score is None else score
    return [Point(step, score) for step, score in scores.items()]


def visit_curve(rows: Rows, task: str, visit: int) -> list[Point]:
    """Return a task's curve over one visit, t in steps since it began.

    The first point, at 0, is the evaluation that closed the visit before, or row 0; with a method
    that made a sub-network for the task only then, the one after it began.

    Args:
        rows: the records of `evaluations.jsonl`.
        task: name of the task: mostly the one learned in the visit.
        visit: its number, from 1.

    Raises:
        ClrlError: nothing was evaluated after the visit before, so its beginning is not known.

    >>> rows = [
    ...     {"phase": "end", "visit": 1, "step": 100, "task_evaluated": "B", "accuracy": 50.0},
    ...     {"phase": "during", "visit": 2, "step": 160, "task_evaluated": "B", "accuracy": 80.0},
    ...     {"phase": "end", "visit": 2, "step": 200, "task_evaluated": "B", "accuracy": 90.0},
    ... ]
    >>> [tuple(point) for point in visit_curve(rows, "B", 2)]
    [(0, 50.0), (60, 80.0), (100, 90.0)]
    """
    moments = _moments(rows, task)
    before = [(step, score) for (v, phase, step), score in moments if v == visit - 1 and phase != 1]
    if not before and visit > 1:
        raise ClrlError(
            f"no evaluation after visit {visit - 1}: where visit {visit} began is not known"
        )
    began, score = before[-1] if before else (0, None)
    own = [Point(step - began, score) for (v, _, step), score in moments if v == visit]
    if own and own[0].step == 0:
        score, own = score if own[0].score is None else own[0].score, own[1:]
    return [Point(0, score), *own]


def rescaled(curve: Curve, scale: Callable[[float], float | None]) -> list[Point]:
    """Map every score; None where it is missing, or has no place on the new scale.

    >>> [tuple(p) for p in rescaled([Point(0, 50.0), Point(9, None)], lambda score: score / 100)]
    [(0, 0.5), (9, None)]
    """
    return [Point(p.step, None if p.score is None else scale(p.score)) for p in curve]


def known_spans(curve: Curve) -> list[Span]:
    """Return the stretches without a gap.

    >>> points = [Point(0, 1.0), Point(10, 2.0), Point(20, None), Point(30, 3.0), Point(40, 3.0)]
    >>> known_spans(points)
    [(0, 10), (30, 40)]
    """
    spans: list[Span] = []
    for a, b in _known_pairs(curve):
        if spans and spans[-1][1] == a.step:
            spans[-1] = (spans[-1][0], b.step)
        else:
            spans.append((a.step, b.step))
    return spans


def common_spans(curves: Iterable[Curve]) -> list[Span]:
    """Return the stretches on which every one of the curves is known.

    >>> common_spans([[Point(0, 1.0), Point(30, 2.0)], [Point(10, 0.0), Point(40, 0.0)]])
    [(10, 30)]
    """
    common: list[Span] | None = None
    for spans in map(known_spans, curves):
        if common is None:
            common = spans
            continue
        cuts = [(max(a, c), min(b, d)) for a, b in common for c, d in spans]
        common = sorted((low, high) for low, high in cuts if low < high)
    return common or []


def mean_height(curve: Curve, within: Sequence[Span] | None = None) -> float | None:
    """Return the area under a curve, divided by its length: its mean score over the steps.

    Args:
        curve: the points; between two that are known it is a straight line.
        within: the stretches to take; None: all that is known. What the curve does not know of
            them is left out.

    Returns:
        None where nothing is known.

    >>> mean_height([Point(0, 0.0), Point(10, 4.0), Point(40, 8.0)])  # (10 * 2 + 30 * 6) / 40
    5.0
    >>> mean_height([Point(0, 0.0), Point(10, 4.0), Point(20, None), Point(30, 8.0)])
    2.0
    >>> mean_height([Point(0, 0.0), Point(10, 4.0)], [(5, 10)])
    3.0
    """
    return _mean_of(curve, within, lambda left, right: (left + right) / 2)


def shortfall(curve: Curve, criterion: float, within: Sequence[Span] | None = None) -> float | None:
    """Return the area between a criterion and the curve where it is below, divided by the length.

    >>> shortfall([Point(0, 0.0), Point(10, 8.0)], 4.0)  # a triangle of 5 by 4, over 10
    1.0
    """

    def missing(left: float, right: float) -> float:
        a, b = criterion - left, criterion - right
        if min(a, b) >= 0:
            return (a + b) / 2
        top = max(a, b, 0.0)
        return top**2 / (2 * abs(a - b)) if top else 0.0

    return _mean_of(curve, within, missing)


def time_to_threshold(curve: Curve, threshold: float) -> int | None:
    """Return the step of the first evaluation at or above a threshold; None if there is none.

    An evaluation that is missing can only make it later.

    >>> time_to_threshold([Point(0, None), Point(10, 4.0), Point(20, 9.0)], 4.0)
    10
    """
    return next((p.step for p in curve if p.score is not None and p.score >= threshold), None)


# --------------------------------------------------------------------------------------- pieces


def _moments(rows: Rows, task: str) -> list[tuple[tuple[int, int, int], float | None]]:
    """Return (visit, phase, step) of every evaluation in order, each with the task's mean score."""
    scores: defaultdict[tuple[int, int, int], list[float]] = defaultdict(list)
    for row in rows:
        own = scores[int(row["visit"]), PHASES.index(row["phase"]), int(row["step"])]
        score = row.get("return", row.get("accuracy"))
        if row["task_evaluated"] == task and score is not None:
            own.append(float(score))
    return [(moment, mean_of_all(scores[moment])) for moment in sorted(scores)]


def _known_pairs(curve: Curve) -> Iterator[tuple[Point, Point]]:
    for a, b in pairwise(curve):
        if a.score is not None and b.score is not None and a.step < b.step:
            yield a, b


def _mean_of(
    curve: Curve, within: Sequence[Span] | None, height: Callable[[float, float], float]
) -> float | None:
    """Return the mean over steps of `height(left, right)`, of each straight piece by its ends."""
    area = length = 0.0
    for a, b in _known_pairs(curve):
        assert a.score is not None and b.score is not None
        slope = (b.score - a.score) / (b.step - a.step)
        for low, high in within if within is not None else [(a.step, b.step)]:
            left, right = max(low, a.step), min(high, b.step)
            if left < right:
                ends = (a.score + slope * (left - a.step), a.score + slope * (right - a.step))
                area += (right - left) * height(*ends)
                length += right - left
    return area / length if length else None
