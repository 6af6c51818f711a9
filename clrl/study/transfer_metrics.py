"""What a run of a transfer study is measured by: its metrics, beside the expert of its target.

Areas of one target are taken over the stretches of the visit that all its runs and experts know, so
that no method is measured over steps of its own. The criterion of speed comes from the experts
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from clrl.errors import ClrlError
from clrl.study import gains
from clrl.study.curves import (
    Curve,
    Span,
    common_spans,
    mean_height,
    rescaled,
    shortfall,
    time_to_threshold,
    visit_curve,
)
from clrl.study.forgetting import continual_world_forgetting
from clrl.study.metrics import difference, mean_of_all

if TYPE_CHECKING:  # a report need not wait for torch
    from clrl.study.plan import PlannedRun, Study

__all__ = ["METRICS", "Finished", "Metric", "Normalise", "Part", "Target", "part"]

Normalise = Callable[[str, float], float | None]
Part = tuple[float, float]  # above and below the line of a ratio


class Metric(NamedTuple):
    """What a number of the matrix is."""

    title: str
    has_unit: bool  # that of the target's scores, or steps: not to be averaged over targets
    higher_is_better: bool = True
    is_ratio: bool = False  # of areas: over seeds a ratio of means


METRICS = {
    "transfer_score": Metric("PNN's transfer score (% of the expert's area)", False, is_ratio=True),
    "transfer_score_above_random": Metric(
        "PNN's transfer score above random play (%)", False, is_ratio=True
    ),
    "forward_transfer": Metric("Continual World's forward transfer", False, is_ratio=True),
    "area_gain": Metric("mean score over the visit, less the expert's", True),
    "relative_speed": Metric("relative speed (expert's time to the criterion / own)", False),
    "relative_speed_by_area": Metric(
        "relative speed by area below the criterion", False, is_ratio=True
    ),
    "jump_start": Metric("jump-start: score before learning, less the expert's", True),
    "time_to_threshold": Metric("steps to the criterion", True, False),
    "source_forgetting": Metric(  # normalised, as chains have sources of several units
        "forgetting: the sources' shares (0: random play, 1: human; of 100 % accuracy) after their "
        "visits, less those at the end",
        False,
        False,
    ),
}


@dataclass(frozen=True)
class Finished:
    """A run that is done.

    Attributes:
        planned: what it is in the study.
        folder: where it lies, as shown.
        rows: the records of `evaluations.jsonl`.
        skipped: lines of that file that were no records.
        multiply_adds: that an answer took while the target was learned; None where not known.
        lost: how many records the file lacks of those that were written.
    """

    planned: PlannedRun
    folder: str
    rows: Sequence[Mapping[str, Any]]
    skipped: int = 0
    multiply_adds: int | None = None
    lost: int = 0

    @property
    def curve(self) -> Curve:
        """The target's learning curve; raises `ClrlError` where it is lost."""
        return self._curve(self.planned.target, len(self.planned.sources) + 1)

    @property
    def first_curve(self) -> Curve:
        """The learning curve of the first visit: its task is learned from scratch."""
        return self._curve([*self.planned.sources, self.planned.target][0], 1)

    def _curve(self, task: str, visit: int) -> Curve:
        try:
            return visit_curve(self.rows, task, visit)
        except ClrlError as error:
            raise ClrlError(f"{self.folder}: {error}") from error


@dataclass(frozen=True)
class Target:
    """What the runs that learn one target are measured by."""

    name: str
    curves: dict[int, Curve]  # of the experts, by seed
    within: list[Span]
    criterion: float | None
    random: float | None
    share: Normalise  # to [0, 1]
    told: dict[str, Any]

    @classmethod
    def of(
        cls,
        name: str,
        study: Study,
        experts: Sequence[Finished],
        runs: Sequence[Finished],
        normalise: Normalise,
    ) -> Target:
        own = [expert for expert in experts if expert.planned.target == name]
        curves = {expert.planned.seed: expert.curve for expert in own}
        others = [run.curve for run in runs if run.planned.target == name]
        within = common_spans([*curves.values(), *others])
        first = mean_of_all([curve[0].score for curve in curves.values()])
        last = mean_of_all([curve[-1].score for curve in curves.values()])
        criterion = None
        if first is not None and last is not None and last > first:
            criterion = first + study.config.criterion * (last - first)
        accuracy = any("accuracy" in row for expert in own for row in expert.rows)
        told = {
            "folders": {str(expert.planned.seed): expert.folder for expert in own},
            "mean_score": [mean_height(curve, within) for curve in curves.values()],
            "last_score": [curve[-1].score for curve in curves.values()],
            "criterion": criterion,
            "time_to_threshold": [
                None if criterion is None else time_to_threshold(curve, criterion)
                for curve in curves.values()
            ],
            "areas_within": [list(span) for span in within],
        }
        return cls(
            name=name,
            curves=curves,
            within=within,
            criterion=criterion,
            random=None if accuracy else _random_score(name, normalise),
            share=(lambda _, score: score / 100) if accuracy else normalise,
            told=told,
        )

    def metrics(self, run: Finished) -> dict[str, float | None]:
        """Return every metric of a run by name."""
        seed = run.planned.seed
        if seed not in self.curves:
            raise ClrlError(f"{run.folder} has no expert of its target and seed {seed}", 2)
        curve, expert, within, criterion = run.curve, self.curves[seed], self.within, self.criterion
        share, expert_share = (self._shares(points) for points in (curve, expert))
        walk = [*run.planned.sources, run.planned.target]
        names = list(dict.fromkeys(walk))
        forgotten = continual_world_forgetting(
            run.rows, names, [names.index(x) for x in walk], last=1
        )
        of_sources = [self._share_lost(name, forgotten[name]) for name in names[:-1]]
        return {
            "transfer_score": gains.pnn_transfer_score(curve, expert, within),
            "transfer_score_above_random": gains.pnn_transfer_score_above_random(
                curve, expert, self.random, within
            ),
            "forward_transfer": gains.continual_world_forward_transfer(share, expert_share, within),
            "area_gain": gains.area_gain(curve, expert, within),
            "relative_speed": gains.relative_speed(curve, expert, criterion),
            "relative_speed_by_area": gains.relative_speed_by_area(
                curve, expert, criterion, within
            ),
            "jump_start": gains.jump_start(curve, expert),
            "time_to_threshold": None if criterion is None else time_to_threshold(curve, criterion),
            "source_forgetting": mean_of_all(of_sources),
        }

    def parts(self, run: Finished) -> dict[str, Part | None]:
        """Return by name what each ratio of areas has above and below its line."""
        ours, theirs = run.curve, self.curves[run.planned.seed]
        area, area_of_expert = (mean_height(points, self.within) for points in (ours, theirs))
        share, share_of_expert = (
            mean_height(self._shares(points), self.within) for points in (ours, theirs)
        )
        below: list[float | None] = [None, None]
        if self.criterion is not None:
            below = [shortfall(points, self.criterion, self.within) for points in (ours, theirs)]
        above_random = difference(area, self.random), difference(area_of_expert, self.random)
        return {
            "transfer_score": part(area, area_of_expert, 100),
            "transfer_score_above_random": part(*above_random, 100),
            "forward_transfer": part(
                difference(share, share_of_expert), difference(1.0, share_of_expert)
            ),
            "relative_speed_by_area": part(below[1], below[0]),
        }

    def censored(self, run: Finished) -> str | None:
        """Return in which direction a run's relative speed is beyond any number, if it is."""
        expert = self.curves[run.planned.seed]
        return gains.censored_speed(run.curve, expert, self.criterion)

    def _shares(self, curve: Curve) -> Curve:
        return rescaled(curve, lambda score: self.share(self.name, score))

    def _share_lost(self, task: str, lost: float | None) -> float | None:
        """Return a difference of scores on the scale, which is linear."""
        if lost is None:
            return None
        return difference(self.share(task, lost), self.share(task, 0.0))


def part(above: float | None, below: float | None, times: float = 1.0) -> Part | None:
    return None if above is None or below is None else (times * above, below)


def _random_score(task: str, normalise: Normalise) -> float | None:
    """Return the score that the normalised scale, which is linear, has at 0."""
    at_0, at_1 = normalise(task, 0.0), normalise(task, 1.0)
    return None if at_0 is None or at_1 is None else at_0 / (at_0 - at_1)
