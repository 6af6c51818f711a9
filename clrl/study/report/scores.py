"""Scores on one scale, metrics of runs, and estimates over runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from clrl.study import metrics
from clrl.study.metrics import difference, mean_of_all, normalised
from clrl.study.report.document import Estimate
from clrl.study.report.groups import Group
from clrl.study.report.runs import Run
from clrl.study.statistics import Interval, iqm, mean, stratified_bootstrap

__all__ = ["METRICS", "Metric", "Normalise", "Scale", "estimate", "estimate_iqm", "with_ends"]

Normalise = Callable[[str, float], float | None]


class Metric(NamedTuple):
    """One number of a run."""

    title: str
    higher_is_better: bool


METRICS = {
    "average_performance": Metric("average performance", True),
    "backward_transfer": Metric("backward transfer (Lopez-Paz)", True),
    "forgetting": Metric("forgetting (Chaudhry)", False),
    "continual_world_forgetting": Metric("forgetting (Continual World)", False),
    "forward_transfer": Metric("forward transfer (Lopez-Paz)", True),
    "smt": Metric("SMT (SPP)", False),
}


@dataclass(frozen=True)
class Scale:
    """What tasks of different units are put beside each other on.

    Attributes:
        name: in words, with its unit.
        is_common: whether means over tasks say something.
        share: task and raw score to the scale.
    """

    name: str
    is_common: bool
    share: Normalise

    @classmethod
    def of(cls, runs: Sequence[Run], normalise: Normalise) -> Scale:
        """Choose the scale for runs of the same tasks."""
        if runs[0].unit == "accuracy":
            return cls("accuracy (%)", True, lambda _, score: score)
        if all(normalise(task, 0.0) is not None for task in runs[0].tasks):
            return cls("human-normalised score", True, normalise)
        return cls("raw score", len(runs[0].tasks) == 1, lambda _, score: score)

    def matrix(self, run: Run) -> list[list[float | None]]:
        """Return a run's score matrix on this scale."""
        return normalised(run.matrix, run.tasks, self.share)

    def metrics(self, run: Run) -> dict[str, float | None]:
        """Return every metric of a run by name; None while it is unfinished."""
        basic = metrics.basic_metrics(self.matrix(run), run.visits)
        return basic | {"continual_world_forgetting": self._continual_world(run)}

    def _continual_world(self, run: Run) -> float | None:
        """Return the mean of F_j on this scale, which is linear."""
        return mean_of_all(
            [
                None if lost is None else difference(self.share(task, lost), self.share(task, 0.0))
                for task, lost in run.forgotten.items()
            ]
        )

    def finals(self, group: Group) -> dict[str, list[float]]:
        """Return by task the last scores of a group's finished runs; {} if one is missing."""
        last = [self.matrix(run)[-1] for run in group.finished]
        scores = {task: [row[j] for row in last] for j, task in enumerate(group.first.tasks)}
        whole = {t: [x for x in values if x is not None] for t, values in scores.items()}
        return whole if last and all(len(x) == len(last) for x in whole.values()) else {}


def with_ends(value: float | None, interval: Interval | None) -> Estimate:
    """Return a number with its interval, if it has one."""
    return Estimate(value, interval.low, interval.high) if interval else Estimate(value)


def estimate(values: Sequence[float | None]) -> Estimate:
    """Return the mean over runs with its interval; nothing where a run's value is missing."""
    known = [v for v in values if v is not None]
    if not known or len(known) < len(values):
        return Estimate(None)
    return with_ends(float(mean(known)), stratified_bootstrap({"": known}, mean))


def estimate_iqm(scores: dict[str, list[float]]) -> Estimate:
    """Return the interquartile mean over runs x tasks with its interval, of the same runs each."""
    every = [v for values in scores.values() for v in values]
    if not every:
        return Estimate(None)
    return with_ends(float(iqm(every)), stratified_bootstrap(scores, crossed=True))
