"""The runs of a transfer study, measured, and gathered by method, source and target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from clrl.study.alone import Alone, over_alone
from clrl.study.plan import Study
from clrl.study.ratios import shares
from clrl.study.statistics import Interval
from clrl.study.transfer_metrics import Finished, Metric, Part, Target, part

__all__ = ["Measured", "Pair", "Walk", "ends_of", "options_of", "pairs_of"]

Walk = tuple[str, str]  # source and target


@dataclass(frozen=True)
class Measured:
    """A run and its numbers by metric; `parts` are of those that are ratios.

    `censored`: in which direction its relative speed is beyond any number; `censored_alone`: that
    over its method alone.
    """

    run: Finished
    metrics: Mapping[str, float | None]
    parts: Mapping[str, Part | None]
    censored: str | None
    censored_alone: str | None

    @classmethod
    def of(
        cls, run: Finished, target: Target, alone: Alone, metrics: Mapping[str, Metric]
    ) -> Measured:
        found = target.metrics(run) | alone.metrics(run)
        return cls(
            run,
            {name: found[name] for name in metrics},
            target.parts(run) | alone.parts(run),
            target.censored(run),
            alone.censored(run),
        )

    def part(self, metric: str) -> Part | None:
        """Return a metric as a ratio; what is none is over 1, so that the same mean serves all."""
        if metric in self.parts:
            return self.parts[metric]
        return part(self.metrics[metric], 1.0)

    def rank(self, metric: str) -> float | None:
        """Return a number to compare runs by: beyond all others where a speed is."""
        value = self.metrics[metric]
        if value is not None or not metric.startswith("relative_speed"):
            return value
        beyond = {
            "relative_speed": self.censored,
            over_alone("relative_speed"): self.censored_alone,
        }
        return {"faster": math.inf, "slower": 0.0}.get(beyond.get(metric) or "")


class Pair(NamedTuple):
    """A method's runs over a source and a target, in the order of the seeds."""

    values: list[float | None]
    parts: list[Part | None]
    ranks: list[float | None]

    @property
    def ranked(self) -> list[float] | None:
        """What to compare the runs by, if every run has it."""
        known = [rank for rank in self.ranks if rank is not None]
        return known if len(known) == len(self.ranks) else None

    @property
    def whole(self) -> list[Part] | None:
        """The parts, if every run has them and they make a ratio."""
        known = [part for part in self.parts if part is not None]
        return known if len(known) == len(self.parts) and shares(known) is not None else None


def pairs_of(
    study: Study, measured: Sequence[Measured], metric: str
) -> dict[str, dict[Walk, Pair]]:
    """Return a metric by method and (source, target), with a place for each seed."""
    found = {
        (
            one.run.planned.method,
            one.run.planned.source,
            one.run.planned.target,
            one.run.planned.seed,
        ): one
        for one in measured
    }
    walks = dict.fromkeys((one.run.planned.source, one.run.planned.target) for one in measured)
    result: dict[str, dict[Walk, Pair]] = {}
    for method in study.config.methods:
        for walk in walks:
            runs = [found.get((method, *walk, seed)) for seed in study.config.seeds]
            result.setdefault(method, {})[walk] = Pair(
                [one.metrics[metric] if one else None for one in runs],
                [one.part(metric) if one else None for one in runs],
                [one.rank(metric) if one else None for one in runs],
            )
    return result


def options_of(study: Study) -> dict[str, Any]:
    """Return how a study's intervals are bootstrapped."""
    return {"resamples": study.config.resamples, "seed": study.config.bootstrap_seed}


def ends_of(interval: Interval | None) -> dict[str, float | None]:
    """Return an interval as plain values, None where there is none."""
    return {"low": interval.low if interval else None, "high": interval.high if interval else None}
