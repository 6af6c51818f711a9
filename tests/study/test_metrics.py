"""Matrix and metrics, against numbers worked by hand."""

from __future__ import annotations

import doctest
import statistics

import pytest

from clrl.study import metrics
from clrl.study.metrics import (
    average_performance,
    backward_transfer,
    basic_metrics,
    forgetting,
    forward_transfer,
    normalised,
    score_matrix,
    smt,
    spp_forward_transfer,
)

# Three tasks in order. Rows: before, after 1, after 2, after 3.
R = [
    [0.0, 1.0, 2.0],
    [10.0, 1.0, 3.0],
    [7.0, 20.0, 5.0],
    [4.0, 26.0, 30.0],
]


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(metrics).failed == 0
    assert doctest.testmod(metrics).attempted > 0


def test_metrics_of_three_tasks_worked_by_hand():
    assert average_performance(R) == pytest.approx((4 + 26 + 30) / 3)
    assert backward_transfer(R, [0, 1, 2]) == pytest.approx(((4 - 10) + (26 - 20)) / 2)
    assert forgetting(R, [0, 1, 2]) == pytest.approx(((10 - 4) + (20 - 26)) / 2)
    assert forward_transfer(R, [0, 1, 2]) == pytest.approx(((1 - 1) + (5 - 2)) / 2)


def test_spp_forward_transfer_is_the_distance_to_joint_training_of_all_but_the_last_task():
    joint = [12.0, 19.0, 1e6]  # the last is not asked
    assert spp_forward_transfer(R, [0, 1, 2], joint) == pytest.approx(((10 - 12) + (20 - 19)) / 2)
    assert spp_forward_transfer(R, [0, 1, 2], [None, 19.0, 1.0]) is None
    assert spp_forward_transfer([[0.0], [5.0]], [0], [6.0]) is None


def test_smt_is_the_population_variance_from_a_tasks_own_row_on():
    variances = [statistics.pvariance([10, 7, 4]), statistics.pvariance([20, 26])]
    assert variances == [6, 9]
    assert smt(R, [0, 1, 2]) == pytest.approx((6 + 9) / 2)
    holes = [[*row] for row in R]
    holes[2][0] = None  # in between: the variance is unknown
    assert smt(holes, [0, 1, 2]) is None


def test_a_revisited_task_counts_from_its_last_visit():
    matrix = [[0.0, 0.0], [10.0, 0.0], [2.0, 8.0], [9.0, 3.0]]  # A, B, A
    # A's last visit is the last row: only B has anything after it.
    assert backward_transfer(matrix, [0, 1, 0]) == pytest.approx(3 - 8)
    assert forgetting(matrix, [0, 1, 0]) == pytest.approx(8 - 3)
    assert smt(matrix, [0, 1, 0]) == pytest.approx(2.5**2)  # B: 8 and 3
    assert spp_forward_transfer(matrix, [0, 1, 0], [0.0, 10.0]) == pytest.approx(8 - 10)


def test_forward_transfer_ends_where_a_task_first_begins():
    matrix = [[0.0, 1.0], [10.0, 4.0], [2.0, 8.0], [9.0, 3.0], [7.0, 9.0]]  # A, B, A, B
    assert forward_transfer(matrix, [0, 1, 0, 1]) == pytest.approx(4 - 1)


def test_negative_scores_are_scores():
    matrix = [[-21.0, -24.0], [-5.0, -24.0], [-20.0, -10.0]]
    assert backward_transfer(matrix, [0, 1]) == -15.0
    assert forgetting(matrix, [0, 1]) == 15.0
    assert average_performance(matrix) == -15.0


def test_one_task_has_no_transfer():
    matrix = [[0.0], [5.0]]
    assert basic_metrics(matrix, [0]) == {
        "average_performance": 5.0,
        "backward_transfer": None,
        "forgetting": None,
        "forward_transfer": None,
        "smt": None,
    }


def test_a_missing_entry_makes_what_needs_it_null_and_nothing_else():
    matrix = [[None, None], [5.0, None], [3.0, 9.0]]  # no sub-network before a task begins
    assert average_performance(matrix) == 6.0
    assert backward_transfer(matrix, [0, 1]) == -2.0
    assert forward_transfer(matrix, [0, 1]) is None
    assert smt(matrix, [0, 1]) == 1.0
    assert average_performance([[0.0, 0.0], [5.0, 1.0], [None, 9.0]]) is None
    assert backward_transfer([[0.0, 0.0], [5.0, 1.0], [None, 9.0]], [0, 1]) is None
    assert forgetting([[0.0, 0.0], [None, 1.0], [3.0, 9.0]], [0, 1]) is None


def test_a_row_missing_where_the_best_may_have_been_leaves_chaudhrys_forgetting_null():
    a = [[0.0], [10.0], [None], [4.0], [7.0]]  # visited first; 10 may not be its best
    assert forgetting([[*row, 1.0, 2.0, 3.0] for row in a], [0, 1, 2, 3]) is None
    lost = [[0.0, None], [1.0, None], [1.0, 8.0], [1.0, 5.0]]  # B did not exist before its visit
    assert forgetting(lost, [0, 1, 0]) == pytest.approx(8 - 5)


def test_an_unfinished_sequence_has_no_metrics():
    assert set(basic_metrics(R[:2], [0, 1, 2]).values()) == {None}
    assert spp_forward_transfer(R[:2], [0, 1, 2], [0.0] * 3) is None


def test_the_matrix_averages_episodes_and_leaves_curves_out():
    def row(phase: str, visit: int, task: str, score: float) -> dict[str, object]:
        return {"phase": phase, "visit": visit, "task_evaluated": task, "return": score}

    rows = [row("start", 0, "A", 1.0), row("start", 0, "B", 2.0), row("during", 1, "A", 99.0)]
    rows += [row("end", 1, "A", 4.0), row("end", 1, "A", 8.0), row("end", 2, "B", -3.0)]
    assert score_matrix(rows, ["A", "B"]) == [[1.0, 2.0], [6.0, None], [None, -3.0]]


def test_the_score_of_a_test_set_is_its_accuracy():
    row = {"phase": "end", "visit": 0, "task_evaluated": "A", "loss": 0.1, "n": 1000}
    assert score_matrix([{**row, "accuracy": 98.25}], ["A"]) == [[98.25]]
    assert score_matrix([{**row, "accuracy": None}], ["A"]) == []


def test_normalised_is_between_random_and_human_and_null_where_there_is_no_reference():
    def share(task: str, score: float) -> float | None:
        return (score + 20.7) / (14.6 + 20.7) if task == "Pong" else None

    assert normalised([[-20.7, 5.0], [14.6, None]], ["Pong", "Toy"], share) == [
        [0.0, None],
        [1.0, None],
    ]
