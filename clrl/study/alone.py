"""What a method makes of a target alone, from scratch: beside the expert, its own control.

The expert of a target learns by fine-tuning. A method that learns its first task otherwise
(`Method.starts_plainly`) may be slower, or faster, than that whatever it learned before: over the
expert alone, its pace and transfer are one number. Such a method shares no source with the expert,
so the first visit of its run "X > Y" is the method on X from scratch, of the same budget, schedules
and evaluations as its visit to X in "Y > X": these runs are measured by that too, seed by seed. A
method that starts plainly has the expert for that.

Runs of one seed that begin with X are not always the same: what is drawn when a net is built (all
heads, then PathNet's evolution) depends on the outputs of all tasks of a run. Every one of them is
taken, and what is measured of them is averaged (their area, their time); their curves are not: a
mean curve is smoother than a run's, and so later at a criterion. The criterion stays the experts'.

Evaluations are counted from a visit's beginning, so first and last visits have theirs at the same
steps; where one is lost, areas are over what is left (`Target.within`), and it is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from clrl.study.curves import Curve, common_spans, mean_height
from clrl.study.metrics import mean_of_all
from clrl.study.ratios import shares
from clrl.study.transfer_metrics import METRICS, Finished, Metric, Part, Target, part

if TYPE_CHECKING:  # a report need not wait for torch
    from clrl.study.plan import Study

__all__ = ["OVER_ALONE", "Alone", "all_metrics", "over_alone", "without_control"]

BESIDE_CONTROL = (  # of the metrics, those that set a run beside a control
    *("transfer_score", "transfer_score_above_random", "forward_transfer", "area_gain"),
    *("relative_speed", "relative_speed_by_area", "jump_start"),
)


def over_alone(metric: str) -> str:
    """Return what a metric is called where the control is the method alone."""
    return f"{metric}_over_alone"


OVER_ALONE = {
    over_alone(name): METRICS[name]._replace(
        title=METRICS[name].title.replace("expert's", "control's") + ", over the method alone"
    )
    for name in BESIDE_CONTROL
}


def all_metrics() -> dict[str, Metric]:
    """Return the metrics of a study with controls, in two: over fine-tuning and the method alone.

    >>> for name in ("area_gain", "area_gain_over_alone"):
    ...     print(all_metrics()[name].title)
    mean score over the visit, less the expert's, over fine-tuning alone
    mean score over the visit, less the control's, over the method alone
    """
    found = {}
    for name, metric in METRICS.items():
        found[name] = metric
        if name in BESIDE_CONTROL:
            found[name] = metric._replace(title=f"{metric.title}, over fine-tuning alone")
            found[over_alone(name)] = OVER_ALONE[over_alone(name)]
    return found


@dataclass(frozen=True)
class Alone:
    """One target with the controls of each method.

    Attributes:
        target: with areas over what all controls know too.
        curves: of the controls, by method and seed.
        told: by method, those that have controls of their own.
    """

    target: Target
    curves: Mapping[tuple[str, int], Sequence[Curve]]
    told: dict[str, Any]

    @classmethod
    def of(cls, target: Target, study: Study, runs: Sequence[Finished]) -> Alone:
        """Find the controls of a target among the study's runs, all of which are given."""
        methods, controls = study.config.methods, dict[tuple[str, int], list[Finished]]()
        for run in runs:
            made, (first, seed) = methods[run.planned.method], run.planned.first
            own = not made.starts_plainly and not _mixes(study, made)
            if own and first == target.name:
                controls.setdefault((run.planned.method, seed), []).append(run)
        curves: dict[tuple[str, int], list[Curve]] = {
            (name, seed): [expert]
            for name, made in methods.items()
            for seed, expert in target.curves.items()
            if made.starts_plainly
        }
        curves |= {key: [run.first_curve for run in of] for key, of in controls.items()}
        learned = [run.curve for run in runs if run.planned.target == target.name]
        known = [*target.curves.values(), *learned, *(one for of in curves.values() for one in of)]
        within = common_spans(known)
        told: dict[str, Any] = {}
        for (name, seed), of in controls.items():
            at = told.setdefault(name, {"folders": {}, "mean_score": [], "last_score": []})
            found = curves[name, seed]
            at["folders"][str(seed)] = [run.folder for run in of]
            at["mean_score"].append(mean_of_all([mean_height(one, within) for one in found]))
            at["last_score"].append(mean_of_all([one[-1].score for one in found]))
        return cls(replace(target, within=within), curves, told)

    def parts(self, run: Finished) -> dict[str, Part | None]:
        """Return by name what each ratio of areas has above and below its line."""
        each = [one.parts(run) for one in self._targets(run)]
        found: dict[str, Part | None] = {}
        for name in BESIDE_CONTROL:
            if METRICS[name].is_ratio:
                known = [parts[name] for parts in each]
                above, below = (
                    mean_of_all([one and one[side] for one in known]) for side in (0, 1)
                )
                found[over_alone(name)] = part(above, below)
        return found

    def metrics(self, run: Finished) -> dict[str, float | None]:
        """Return by name every metric of a run over its method alone; None without a control."""
        each = [one.metrics(run) for one in self._targets(run)]
        found = {
            over_alone(name): mean_of_all([metrics[name] for metrics in each])
            for name in BESIDE_CONTROL
        }
        for name, one in self.parts(run).items():
            ratio = shares([one]) if one else None
            found[name] = ratio[0] if ratio else None
        return found

    def censored(self, run: Finished) -> str | None:
        """Return in which direction relative speed is beyond any number, over some control."""
        found = {one.censored(run) for one in self._targets(run)} - {None}
        return found.pop() if len(found) == 1 else "neither" if found else None

    def _targets(self, run: Finished) -> list[Target]:
        """Return the target once for each control of a run, which takes the expert's place."""
        seed = run.planned.seed
        controls = self.curves.get((run.planned.method, seed), [])
        return [replace(self.target, curves={seed: control}) for control in controls]


def without_control(study: Study, alone: Mapping[str, Alone]) -> list[str]:
    """Say for which methods and targets no run, or not one of each seed, is a control."""
    told = []
    for method, made in study.config.methods.items():
        lacking = {
            run.target: None
            for run in study.runs
            if run.method == method and (method, run.seed) not in alone[run.target].curves
        }
        why = f"no run learns {', '.join(lacking)} first, from scratch"
        if _mixes(study, made):
            why = "its first visits may learn other tasks of their run too"
        if lacking:
            told.append(
                f"{method}: {why}, so there is no control of the method alone: over fine-tuning "
                "alone, a pace of its own, slower or faster, counts as transfer"
            )
    return told


def _mixes(study: Study, method: Any) -> bool:
    """Tell whether a method chooses the tasks of a visit otherwise than fine-tuning does."""
    return type(method).mixture is not type(study.config.run.method).mixture
