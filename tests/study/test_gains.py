"""Transfer metrics, against numbers worked by hand."""

from __future__ import annotations

import doctest

import pytest

from clrl.study import gains
from clrl.study.curves import Point
from clrl.study.gains import (
    area_gain,
    censored_speed,
    continual_world_forward_transfer,
    jump_start,
    pnn_transfer_score,
    pnn_transfer_score_above_random,
    reference_transfer,
    relative_speed,
    relative_speed_by_area,
)

EXPERT = [Point(0, 0.0), Point(100, 2.0), Point(200, 4.0), Point(400, 6.0)]
# area 100 + 300 + 1000 = 1400 over 400: 3.5
OURS = [Point(0, 1.0), Point(100, 5.0), Point(200, 5.0), Point(400, 7.0)]
# area 300 + 500 + 1200 = 2000 over 400: 5


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(gains)
    assert (result.failed, result.attempted > 0) == (0, True)


def test_scores_of_areas_worked_by_hand() -> None:
    assert pnn_transfer_score(OURS, EXPERT) == pytest.approx(100 * 5 / 3.5)
    assert pnn_transfer_score_above_random(OURS, EXPERT, 1.0) == pytest.approx(100 * 4 / 2.5)
    assert area_gain(OURS, EXPERT) == pytest.approx(1.5)
    small = [[Point(p.step, p.score / 10) for p in c] for c in (OURS, EXPERT)]
    assert continual_world_forward_transfer(*small) == pytest.approx((0.5 - 0.35) / (1 - 0.35))


def test_a_tie_is_no_transfer() -> None:
    assert pnn_transfer_score(EXPERT, EXPERT) == 100
    assert area_gain(EXPERT, EXPERT) == jump_start(EXPERT, EXPERT) == 0
    assert relative_speed(EXPERT, EXPERT, 4.0) == relative_speed_by_area(EXPERT, EXPERT, 4.0) == 1
    half = [Point(p.step, p.score / 10) for p in EXPERT]
    assert continual_world_forward_transfer(half, half) == 0


def test_negative_scores_have_a_share_only_above_random_play() -> None:
    expert = [Point(0, -21.0), Point(10, -19.0)]  # -20
    ours = [Point(0, -20.0), Point(10, -10.0)]  # -15
    assert pnn_transfer_score(ours, expert) is None  # 75, though it is better
    assert pnn_transfer_score_above_random(ours, expert, -20.7) == pytest.approx(100 * 5.7 / 0.7)
    assert pnn_transfer_score_above_random(ours, expert, -20.0) is None  # learned nothing
    assert pnn_transfer_score_above_random(ours, expert, None) is None
    assert area_gain(ours, expert) == pytest.approx(5.0)
    worse = [Point(0, -2.0), Point(400, -2.0)]
    assert pnn_transfer_score(worse, EXPERT) == pytest.approx(100 * -2 / 3.5)


def test_a_gap_of_either_is_left_out_of_both() -> None:
    ours = [Point(0, None), *OURS[1:]]  # a column that does not exist before its task begins
    assert pnn_transfer_score(ours, EXPERT) == pytest.approx(100 * (500 + 1200) / (300 + 1000))
    assert pnn_transfer_score(OURS, [*EXPERT[:3], Point(400, None)]) == pytest.approx(
        100 * 800 / 400
    )
    assert jump_start(ours, EXPERT) is None
    nothing = [Point(0, None), Point(400, None)]
    for metric in (pnn_transfer_score, area_gain, continual_world_forward_transfer, jump_start):
        assert metric(nothing, EXPERT) is None
    assert relative_speed(nothing, EXPERT, 4.0) is None
    assert relative_speed_by_area(nothing, EXPERT, 4.0) is None


def test_methods_can_be_compared_over_the_same_stretch() -> None:
    assert pnn_transfer_score(OURS, EXPERT, [(100, 400)]) == pytest.approx(100 * 1700 / 1300)


def test_continual_world_needs_something_to_gain() -> None:
    full = [Point(0, 1.0), Point(10, 1.0)]
    assert continual_world_forward_transfer(full, full) is None
    assert continual_world_forward_transfer(
        [Point(0, 0.0), Point(10, 0.5)], [Point(0, 0.5), Point(10, 0.5)]
    ) == pytest.approx(-0.5)


def test_relative_speed_is_the_experts_time_over_ours() -> None:
    assert relative_speed(OURS, EXPERT, 5.0) == 400 / 100
    assert relative_speed(EXPERT, OURS, 5.0) == 100 / 400
    assert relative_speed(OURS, EXPERT, 6.5) is None  # the expert never gets there
    assert relative_speed(EXPERT, OURS, 6.5) is None  # we never do
    assert relative_speed(OURS, EXPERT, 1.0) is None  # there before it began
    assert relative_speed(EXPERT, OURS, 1.0) is None  # the expert was
    assert relative_speed(OURS, EXPERT, None) is None


def test_a_speed_beyond_all_numbers_has_a_direction() -> None:
    assert censored_speed(OURS, EXPERT, 5.0) is None  # it is a number
    assert censored_speed(OURS, EXPERT, 1.0) == "faster"  # there before it began
    assert censored_speed(EXPERT, OURS, 1.0) == "slower"
    assert censored_speed(OURS, EXPERT, 6.5) == "faster"  # the expert never gets there
    assert censored_speed(EXPERT, OURS, 6.5) == "slower"
    assert censored_speed(OURS, EXPERT, 99.0) == "neither"  # nobody does
    assert censored_speed(OURS, OURS, 1.0) == "neither"  # both were
    assert censored_speed(OURS, EXPERT, None) is None


def test_relative_speed_by_area_needs_no_arrival() -> None:
    # below 8: 8 - 3.5 and 8 - 5
    assert relative_speed_by_area(OURS, EXPERT, 8.0) == pytest.approx(4.5 / 3)
    # below 4: expert (4+2)/2*100 + 2/2*100 = 400; ours from 1 to 5, the first 3/4 of 100: 112.5
    assert relative_speed_by_area(OURS, EXPERT, 4.0) == pytest.approx(400 / 112.5)
    assert relative_speed_by_area([Point(0, 9.0), Point(400, 9.0)], EXPERT, 4.0) is None
    assert relative_speed_by_area(OURS, EXPERT, None) is None


def test_jump_start_is_the_difference_before_learning() -> None:
    assert jump_start(OURS, EXPERT) == 1.0
    assert jump_start([Point(0, -12.0)], [Point(0, -20.0)]) == 8.0
    assert jump_start(OURS[1:], EXPERT) is None


def test_reference_transfer_is_the_mean_of_the_best_sources() -> None:
    ft = {"B": {"A": 0.5, "C": -1.0}, "C": {"A": -0.25, "B": -0.75}}
    assert reference_transfer(ft) == pytest.approx((0.5 - 0.25) / 2)
    assert reference_transfer({"B": {"A": 0.5, "C": None}}) is None  # the best is not known
    assert reference_transfer({"B": {}}) is None
    assert reference_transfer({}) is None
