"""CORA's and Continual World's forgetting, against numbers worked by hand."""

from __future__ import annotations

import doctest
from typing import Any

import pytest

from clrl.study import forgetting
from clrl.study.forgetting import (
    continual_world_forgetting,
    isolated_forgetting,
    isolated_zero_shot_transfer,
)
from clrl.study.metrics import mean_of_all

R = [
    [0.0, 1.0, 2.0],
    [10.0, 1.5, 3.0],
    [7.0, 20.0, 5.0],
    [-4.0, 26.0, 30.0],
]


def row(phase: str, visit: int, step: int, task: str, score: float | None) -> dict[str, Any]:
    where = {"phase": phase, "visit": visit, "step": step, "task_evaluated": task}
    return where | {"accuracy": score}


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(forgetting)
    assert (result.failed, result.attempted > 0) == (0, True)


def test_each_later_visit_has_what_it_took() -> None:
    took = isolated_forgetting(R, [0, 1, 2])
    assert took == {(2, 0): 3.0, (3, 0): 11.0, (3, 1): -6.0}
    assert mean_of_all([*took.values()]) == pytest.approx(8 / 3)


def test_each_visit_has_what_it_gave_to_tasks_not_begun() -> None:
    assert isolated_zero_shot_transfer(R, [0, 1, 2]) == {(1, 1): 0.5, (1, 2): 1.0, (2, 2): 2.0}


def test_a_revisited_task_is_forgotten_only_by_others() -> None:
    matrix = [[0.0, 0.0], [10.0, 4.0], [2.0, 8.0], [9.0, 3.0]]  # A, B, A
    assert isolated_forgetting(matrix, [0, 1, 0]) == {(2, 0): 8.0, (3, 1): 5.0}
    assert isolated_zero_shot_transfer(matrix, [0, 1, 0]) == {(1, 1): 4.0}


def test_a_missing_entry_is_null_where_it_is_needed() -> None:
    holes = [[None, None], [5.0, None], [3.0, 9.0]]
    assert isolated_forgetting(holes, [0, 1]) == {(2, 0): 2.0}
    assert isolated_zero_shot_transfer(holes, [0, 1]) == {(1, 1): None}


def test_an_unfinished_run_has_what_is_measured_so_far() -> None:
    assert isolated_forgetting(R[:3], [0, 1, 2]) == {(2, 0): 3.0}
    assert isolated_zero_shot_transfer(R[:2], [0, 1, 2]) == {(1, 1): 0.5, (1, 2): 1.0}


A_SCORES = {1: [0, 50, 70, 80, 90, 85, 95], 2: [60, 50, 40, 30, 20, 10]}


def rows_of_a_and_b() -> list[dict[str, Any]]:
    rows = [row("start", 0, 0, "A", 0.0), row("start", 0, 0, "B", 0.0)]
    step = 0
    for visit, scores in ((1, A_SCORES[1][1:]), (2, A_SCORES[2])):
        for i, score in enumerate(scores):
            step += 10
            phase = "end" if i == len(scores) - 1 else "during"
            rows.append(row(phase, visit, step, "A", score))
            if visit == 2 or phase == "end":
                rows.append(row(phase, visit, step, "B", 99.0))
    return rows


def test_continual_worlds_ends_are_means_of_five_evaluations() -> None:
    found = continual_world_forgetting(rows_of_a_and_b(), ["A", "B"], [0, 1])
    own, end = (70 + 80 + 90 + 85 + 95) / 5, (50 + 40 + 30 + 20 + 10) / 5
    assert found == pytest.approx({"A": own - end, "B": 0.0})
    assert mean_of_all([*found.values()]) == pytest.approx((84 - 30) / 2)
    one = continual_world_forgetting(rows_of_a_and_b(), ["A", "B"], [0, 1], last=1)
    assert one["A"] == 95 - 10


def test_continual_worlds_ends_have_no_more_evaluations_than_the_visit() -> None:
    rows = [r for r in rows_of_a_and_b() if r["step"] in (0, 50, 60, 120)]
    found = continual_world_forgetting(rows, ["A", "B"], [0, 1])
    assert found["A"] == pytest.approx((85 + 95) / 2 - 10)


def test_a_missing_evaluation_makes_continual_worlds_forgetting_null() -> None:
    rows = rows_of_a_and_b()
    lost = [r for r in rows if (r["step"], r["task_evaluated"]) != (110, "A")]
    assert continual_world_forgetting(lost, ["A", "B"], [0, 1]) == {"A": None, "B": 0.0}


def test_what_was_not_asked_for_is_not_missing_but_what_is_lost_is() -> None:
    """With `evaluation.earlier: ends`, A is not played while B is learned."""
    rows = rows_of_a_and_b()
    fewer = [r for r in rows if (r["visit"], r["phase"], r["task_evaluated"]) != (2, "during", "A")]
    assert continual_world_forgetting(fewer, ["A", "B"], [0, 1]) == {"A": None, "B": 0.0}
    found = continual_world_forgetting(fewer, ["A", "B"], [0, 1], earlier_at_ends=True)
    assert found == pytest.approx({"A": (70 + 80 + 90 + 85 + 95) / 5 - 10, "B": 0.0})
    for lost in ((60, "A"), (120, "A")):  # of its own visit's five, and its very last
        left = [r for r in fewer if (r["step"], r["task_evaluated"]) != lost]
        told = continual_world_forgetting(left, ["A", "B"], [0, 1], earlier_at_ends=True)
        assert told["A"] is None


def test_continual_world_counts_a_revisited_task_from_its_last_visit() -> None:
    rows = [row("start", 0, 0, "A", 0.0)]
    ends = {1: (50.0, 0.0), 2: (30.0, 60.0), 3: (70.0, 20.0)}
    for visit, (a, b) in ends.items():
        rows += [row("end", visit, 10 * visit, "A", a), row("end", visit, 10 * visit, "B", b)]
    found = continual_world_forgetting(rows, ["A", "B"], [0, 1, 0])
    assert found == {"A": 0.0, "B": 40.0}
