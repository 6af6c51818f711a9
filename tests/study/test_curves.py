"""Curves and areas, against numbers worked by hand."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
from scipy import integrate

from clrl.study import curves
from clrl.study.curves import (
    Point,
    common_spans,
    known_spans,
    mean_height,
    rescaled,
    run_curve,
    shortfall,
    time_to_threshold,
    visit_curve,
)
from clrl.types import ClrlError


def row(phase: str, visit: int, step: int, task: str, *scores: float | None) -> list[Any]:
    where = {"phase": phase, "visit": visit, "step": step, "task_evaluated": task}
    return [where | {"episode": i, "return": score} for i, score in enumerate(scores)]


# A, then B, then A again; B is not played between the ends of visits that it is not begun in.
ROWS = [
    *row("start", 0, 0, "A", -21.0, -19.0),
    *row("start", 0, 0, "B", 1.0),
    *row("during", 1, 48, "A", -10.0),
    *row("end", 1, 112, "A", 0.0, 2.0, 4.0),
    *row("end", 1, 112, "B", 3.0),
    *row("during", 2, 160, "A", -4.0),
    *row("during", 2, 160, "B", 5.0),
    *row("end", 2, 224, "A", -6.0),
    *row("end", 2, 224, "B", 9.0),
    *row("end", 3, 336, "A", 8.0),
    *row("end", 3, 336, "B", 7.0),
]


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(curves)
    assert (result.failed, result.attempted > 0) == (0, True)


def test_a_run_curve_has_a_point_for_every_moment_and_none_where_it_was_not_played() -> None:
    assert run_curve(ROWS, "A") == [(0, -20), (48, -10), (112, 2), (160, -4), (224, -6), (336, 8)]
    assert run_curve(ROWS, "B") == [(0, 1), (48, None), (112, 3), (160, 5), (224, 9), (336, 7)]
    assert run_curve([], "A") == []


def test_the_order_of_the_rows_does_not_matter() -> None:
    assert run_curve(ROWS[::-1], "A") == run_curve(ROWS, "A")


def test_a_visit_curve_starts_at_0_with_what_closed_the_visit_before() -> None:
    assert visit_curve(ROWS, "A", 1) == [(0, -20), (48, -10), (112, 2)]
    assert visit_curve(ROWS, "B", 2) == [(0, 3), (48, 5), (112, 9)]
    assert visit_curve(ROWS, "A", 3) == [(0, -6), (112, 8)]  # revisited


def test_a_task_that_could_not_be_played_before_it_began_starts_with_a_gap() -> None:
    rows = [r for r in ROWS if r["task_evaluated"] == "A" or r["visit"] > 1]
    assert visit_curve(rows, "B", 2) == [(0, None), (48, 5), (112, 9)]
    met = [*rows, *row("during", 2, 112, "B", 4.0)]  # as it began, with a sub-network made then
    assert visit_curve(met, "B", 2) == [(0, 4), (48, 5), (112, 9)]
    assert visit_curve(met, "A", 2) == [(0, 2), (48, -4), (112, -6)]
    assert run_curve(met, "A") == run_curve(rows, "A")  # the border of two visits is one point
    assert run_curve(met, "B")[:4] == [(0, None), (48, None), (112, 4), (160, 5)]
    never = [r for r in ROWS if r["phase"] != "start"]
    assert visit_curve(never, "A", 1) == [(0, None), (48, -10), (112, 2)]


def test_a_visit_whose_beginning_is_not_known_is_refused() -> None:
    rows = [r for r in ROWS if r["visit"] != 1]
    with pytest.raises(ClrlError, match="no evaluation after visit 1"):
        visit_curve(rows, "B", 2)
    half = [r for r in ROWS if (r["visit"], r["phase"]) != (1, "end")]  # it stopped on the way
    with pytest.raises(ClrlError, match="no evaluation after visit 1"):
        visit_curve(half, "A", 2)


def test_a_null_score_is_a_gap() -> None:
    assert run_curve(row("end", 1, 9, "A", None), "A") == [(9, None)]


def test_a_gap_is_never_bridged() -> None:
    curve = [Point(0, 10.0), Point(10, 20.0), Point(20, None), Point(30, 100.0), Point(40, 110.0)]
    assert known_spans(curve) == [(0, 10), (30, 40)]
    assert mean_height(curve) == pytest.approx((15 * 10 + 105 * 10) / 20)  # 60; bridged: 61.25
    alone = [Point(0, 1.0), Point(10, None), Point(20, 3.0), Point(30, None)]
    assert known_spans(alone) == []  # a point alone has no width
    assert mean_height(alone) is None
    assert mean_height([]) is None


def test_areas_are_trapezoids_on_the_actual_steps() -> None:
    rng = np.random.default_rng(0)
    steps = np.unique(rng.integers(0, 10_000, 30))
    scores = rng.normal(size=len(steps))
    curve = [Point(int(x), float(y)) for x, y in zip(steps, scores, strict=True)]
    length = float(steps[-1] - steps[0])
    assert mean_height(curve) == pytest.approx(integrate.trapezoid(scores, steps) / length)
    fine = np.linspace(steps[0], steps[-1], 400_001)
    low = np.maximum(0.3 - np.interp(fine, steps, scores), 0)
    assert shortfall(curve, 0.3) == pytest.approx(integrate.trapezoid(low, fine) / length, rel=1e-6)


def test_a_stretch_cuts_the_line_between_two_points() -> None:
    curve = [Point(0, 0.0), Point(10, 10.0), Point(30, 10.0)]
    assert mean_height(curve, [(5, 20)]) == pytest.approx((7.5 * 5 + 10 * 10) / 15)
    assert mean_height(curve, [(0, 2), (20, 30)]) == pytest.approx((1 * 2 + 10 * 10) / 12)
    assert mean_height(curve, [(40, 50)]) is None


def test_common_stretches_are_those_that_all_know() -> None:
    one = [Point(0, 1.0), Point(10, 1.0), Point(20, None), Point(30, 1.0), Point(50, 1.0)]
    other = [Point(0, None), Point(5, 1.0), Point(35, 1.0), Point(40, None)]
    assert common_spans([one, other]) == [(5, 10), (30, 35)]
    assert common_spans([one]) == [(0, 10), (30, 50)]
    assert common_spans([]) == []
    assert common_spans([one, []]) == []


def test_shortfall_counts_only_what_lies_below() -> None:
    assert shortfall([Point(0, 5.0), Point(10, 9.0)], 5.0) == 0.0
    assert shortfall([Point(0, -5.0), Point(10, -5.0)], 5.0) == 10.0
    falling = [Point(0, 8.0), Point(10, 0.0)]  # below 4 in the second half: (4 * 5 / 2) / 10
    assert shortfall(falling, 4.0) == pytest.approx(1.0)
    assert shortfall([Point(0, None), Point(10, 0.0)], 4.0) is None


def test_the_threshold_is_reached_at_the_first_evaluation_at_or_above_it() -> None:
    curve = [Point(0, -5.0), Point(10, None), Point(20, -1.0), Point(30, -2.0), Point(40, 3.0)]
    assert time_to_threshold(curve, -5.0) == 0
    assert time_to_threshold(curve, -1.0) == 20  # a tie is enough
    assert time_to_threshold(curve, 0.0) == 40
    assert time_to_threshold(curve, 3.5) is None


def test_rescaling_leaves_gaps_and_makes_them_where_there_is_no_scale() -> None:
    curve = [Point(0, 4.0), Point(1, None)]
    assert rescaled(curve, lambda score: score / 8) == [(0, 0.5), (1, None)]
    assert rescaled(curve, lambda score: None) == [(0, None), (1, None)]
