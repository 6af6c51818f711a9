"""Figures are measured in turns, and made of medians: checked by hand, on a clock that is fake."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable

import pytest

from clrl.bench import FIGURES, figure
from clrl.bench.figure import Figure, Measurement, Setting, interleave, seconds_per_unit


class Clock:
    """A clock that only moves when something takes time on it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(figure, "perf_counter", fake)
    return fake


def side(name: str, order: list[str], *seconds: float) -> Callable[[], float]:
    """Return a workload that notes its turn and takes these seconds, one after another."""
    given = iter(seconds)

    def work() -> float:
        order.append(name)
        return next(given)

    return work


def test_sides_take_turns_and_the_first_round_is_not_counted() -> None:
    order: list[str] = []
    a, b = side("A", order, 99.0, 1.0, 2.0), side("B", order, 99.0, 3.0, 4.0)
    assert interleave(a, b, pairs=2) == [(1.0, 3.0), (2.0, 4.0)]
    assert "".join(order) == "ABABAB"


def test_turns_within_a_pair_alternate_and_are_averaged() -> None:
    order: list[str] = []
    a, b = side("A", order, 99.0, 1.0, 3.0, 5.0, 7.0), side("B", order, 99.0, 2.0, 2.0, 4.0, 8.0)
    assert interleave(a, b, pairs=2, turns=2) == [(2.0, 2.0), (6.0, 6.0)]
    assert "".join(order) == "ABABABABAB"


def test_work_is_repeated_until_the_least_time_and_divided_by_all_units(clock: Clock) -> None:
    def work() -> int:
        clock.now += 0.4
        return 8

    assert seconds_per_unit(work, 1.0) == pytest.approx(1.2 / 24)
    assert seconds_per_unit(work, 0.0) == pytest.approx(0.4 / 8)


def test_what_a_device_still_had_to_do_is_counted_and_what_came_before_is_not(clock: Clock) -> None:
    queue = [50.0]  # seconds of work given to the device and not done yet

    def work() -> int:
        queue.append(2.0)
        return 1

    def wait() -> None:
        clock.now += sum(queue)
        queue.clear()

    assert seconds_per_unit(work, 0.0, wait) == pytest.approx(2.0)


def fake(setting: Setting, factor: float) -> Measurement:
    """Measure 1, 2, ... times a factor, out of order."""
    values = [factor * i for i in range(setting.pairs, 0, -1)]
    return Measurement(values, {"seconds": values, "what": "fake"})


@pytest.mark.parametrize(
    ("direction", "goal", "met"),
    [
        ("at least", 5.9, True),
        ("at least", 6.1, False),
        ("at most", 6.1, True),
        ("at most", 5.9, False),
        ("at least", None, None),
    ],
)
def test_a_result_is_the_median_and_its_goal_has_a_direction(
    direction: str, goal: float | None, met: bool | None
) -> None:
    one = Figure("f", "", direction, goal, "x", f"{__name__}:fake", (2.0,))  # type: ignore[arg-type]
    result = one.measure(Setting(pairs=5))
    assert (result.ratio, result.min, result.max, result.pairs) == (6.0, 2.0, 10.0, 5)
    assert result.met is met
    assert result.parts == {"seconds": [10.0, 8.0, 6.0, 4.0, 2.0], "what": "fake"}
    assert result.row()["met"] is met


def test_of_an_even_number_of_pairs_the_median_lies_between_the_middle_two() -> None:
    one = Figure("f", "", "at least", None, "x", f"{__name__}:fake", (1.0,))
    assert one.measure(Setting(pairs=4)).ratio == 2.5


@pytest.mark.parametrize("one", FIGURES, ids=lambda f: f.name)
def test_every_figure_says_what_it_is_and_can_be_called(one: Figure) -> None:
    assert one.name.replace("_", "").isalnum() and one.description
    assert one.direction in ("at least", "at most")
    assert one.goal_text == "none" if one.goal is None else one.goal_text.startswith(one.direction)
    module, _, function = one.target.partition(":")
    signature = inspect.signature(getattr(importlib.import_module(module), function))
    signature.bind(Setting(), *one.arguments)  # TypeError where they do not fit


def test_names_are_unique() -> None:
    assert len({f.name for f in FIGURES}) == len(FIGURES)
