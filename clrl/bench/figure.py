"""What a figure is, and how its sides are measured: in turns, on the same minute of a machine."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, Literal

__all__ = [
    "Device",
    "Figure",
    "Measurement",
    "Result",
    "Setting",
    "Workload",
    "interleave",
    "seconds_per_unit",
]

Device = Literal["auto", "cpu", "cuda"]
Workload = Callable[[], float]  # does some work and returns the seconds that a unit of it took


@dataclass(frozen=True)
class Setting:
    """How to measure.

    Attributes:
        pairs: how often every side is measured.
        device: `auto`, `cpu` or `cuda`; `auto` takes a GPU where there is one.
        seconds: the least time that one side of a pair lasts, where work can be repeated.
    """

    pairs: int = 5
    device: Device = "auto"
    seconds: float = 2.0


@dataclass(frozen=True)
class Measurement:
    """What was measured.

    Attributes:
        values: the figure, once a pair.
        parts: what it was made from: lists with an entry a pair, and facts; units in the names.
    """

    values: Sequence[float]
    parts: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """A figure as `clrl bench --json` prints it; `ratio` is the median of the pairs."""

    name: str
    ratio: float
    min: float
    max: float
    goal: float | None
    direction: str
    unit: str
    pairs: int
    parts: Mapping[str, Any]

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.goal is None:
            return None
        return self.ratio >= self.goal if self.direction == "at least" else self.ratio <= self.goal

    def row(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self) | {"met": self.met}


@dataclass(frozen=True)
class Figure:
    """One line of the bench.

    Attributes:
        name: as given to `clrl bench`.
        description: what is measured.
        direction: which side of the goal is the good one.
        goal: None where there is only something to know.
        unit: of the value; `x` for a ratio, nothing for a share.
        target: `module:function`, imported only when it is measured.
        arguments: what the function is given after the setting.
    """

    name: str
    description: str
    direction: Literal["at least", "at most"]
    goal: float | None
    unit: str
    target: str
    arguments: tuple[Any, ...] = ()

    @property
    def goal_text(self) -> str:
        """The goal in words."""
        if self.goal is None:
            return "none"
        return f"{self.direction} {self.goal:g} {self.unit}".rstrip()

    def measure(self, setting: Setting) -> Result:
        """Measure now; takes from seconds to a minute or two."""
        module, _, function = self.target.partition(":")
        measure = getattr(importlib.import_module(module), function)
        measured: Measurement = measure(setting, *self.arguments)
        return Result(
            self.name,
            statistics.median(measured.values),
            min(measured.values),
            max(measured.values),
            self.goal,
            self.direction,
            self.unit,
            len(measured.values),
            measured.parts,
        )


def interleave(*sides: Workload, pairs: int, turns: int = 1) -> list[tuple[float, ...]]:
    """Measure sides in turns, A B A B ..., so that a busy machine slows them all alike.

    All go through once before that, unmeasured: first calls compile, allocate and fill caches.

    Args:
        sides: workloads.
        pairs: how many rows to return.
        turns: how often the sides alternate within a row.

    Returns:
        A row a pair: the mean of each side over the row's turns, in the order of the sides.
    """
    for side in sides:
        side()
    rows = []
    for _ in range(pairs):
        taken = [[side() for side in sides] for _ in range(turns)]
        rows.append(tuple(statistics.fmean(column) for column in zip(*taken, strict=True)))
    return rows


def seconds_per_unit(
    work: Callable[[], int], least: float, wait: Callable[[], None] = lambda: None
) -> float:
    """Repeat `work` until `least` seconds have passed; return the seconds that a unit took.

    Args:
        work: returns how many units it did (steps, samples).
        least: seconds; the work is done at least once.
        wait: for work that goes on elsewhere (a GPU's).
    """
    wait()
    began, done = perf_counter(), 0
    while not done or perf_counter() - began < least:
        done += work()
    wait()
    return (perf_counter() - began) / done
