"""What a reader of a transfer study must know before its numbers are believed."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clrl.run.score_table import number
from clrl.study.plan import Study
from clrl.study.statistics import ENOUGH_RUNS, FEWEST_RUNS, TOO_NARROW
from clrl.study.transfer_metrics import Finished, Target

__all__ = ["censored_speeds", "more_work", "narrower_areas", "unlearned_sources", "warnings_of"]

MORE_WORK = 0.1  # share of the expert's multiply-adds from which on a difference is said


def warnings_of(study: Study, runs: Sequence[Finished], targets: Mapping[str, Target]) -> list[str]:
    found = []
    seeds = len(study.config.seeds)
    if seeds < FEWEST_RUNS:
        found.append(
            f"{seeds} {'seed' if seeds == 1 else 'seeds'}: fewer than {FEWEST_RUNS}, so no "
            "intervals; a guide to what to run, not evidence"
        )
    elif seeds < ENOUGH_RUNS:
        found.append(f"{seeds} seeds: {TOO_NARROW}")
    if study.config.run.net.heads == "per_task":
        found.append(
            "jump-start: a task's own head (net.heads: per_task) is untrained when its visit "
            "begins, so that what is not 0 is mostly chance"
        )
    found += [
        f"{run.folder}: of evaluations.jsonl {run.skipped} "
        f"{'line is no record and was' if run.skipped == 1 else 'lines are no records and were'} "
        "skipped"
        for run in runs
        if run.skipped
    ]
    found += [
        f"{run.folder}: evaluations.jsonl lacks {run.lost} of the records that were written"
        for run in runs
        if run.lost
    ]
    for name, target in targets.items():
        if target.criterion is None:
            found.append(f"{name}: {_without_criterion(target)}, so there is no criterion of speed")
        elif late := _late(target):
            who = f"expert of seed {late[0]}"
            if len(late) > 1:
                who = f"experts of seeds {', '.join(map(str, late))}"
            found.append(
                f"{name}: the {who} did not reach the criterion ({number(target.criterion)}): "
                "no relative speed there"
            )
        ends = [expert[-1].step for expert in target.curves.values()]
        if target.within != [(0, step) for step in set(ends)]:
            spans = _spans(target)
            found.append(f"{name}: areas are over steps {spans} of the visit, known of every run")
    return found


def narrower_areas(targets: Mapping[str, tuple[Target, Target]]) -> list[str]:
    """Say where areas over methods alone are over less than those over the expert."""
    return [
        f"{name}: over the method alone, areas are over steps {_spans(alone)} of the visit, as the "
        "controls lack evaluations"
        for name, (target, alone) in targets.items()
        if alone.within != target.within
    ]


def unlearned_sources(runs: Sequence[Finished]) -> list[str]:
    """Name the sources that were not learned, by method and seed: a pair from one says nothing.

    A source counts as learned if its evaluation at the end of its (last) visit is above its first
    one, taken before it was learned, by more than 2 standard errors of their difference, from the
    games of the two (of a test set, which is one record, any rise is enough). Few games leave much
    to chance: of sources that learn nothing some 1 in 25 passes, where 5 games are played, and
    little learning may not show. Nothing is said where either evaluation is missing.
    """
    seeds: defaultdict[str, defaultdict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for run in runs:
        for visit, task in enumerate(run.planned.sources, 1):
            if task not in run.planned.sources[visit:] and _is_unlearned(run.rows, task, visit):
                seeds[task][run.planned.method].add(run.planned.seed)
    told = []
    for task, by_method in seeds.items():
        alike: defaultdict[str, list[str]] = defaultdict(list)
        for method, of in by_method.items():
            alike[", ".join(map(str, sorted(of)))].append(method)
        who = "; ".join(
            f"{', '.join(methods)}: {'seeds' if ',' in of else 'seed'} {of}"
            for of, methods in alike.items()
        )
        told.append(
            f"source {task} was not seen to be learned ({who}): its last score is not above its "
            "first by more than 2 standard errors, so a pair from it says nothing about transfer"
        )
    return told


def _is_unlearned(rows: Sequence[Mapping[str, Any]], task: str, visit: int) -> bool:
    own = [row for row in rows if row["task_evaluated"] == task]
    began = max((int(row["step"]) for row in rows if int(row["visit"]) < visit), default=0)
    start = min((int(row["step"]) for row in own), default=began + 1)
    first = _scores(row for row in own if row["step"] == start)
    last = _scores(row for row in own if (row["visit"], row["phase"]) == (visit, "end"))
    if start > began or not first or not last:
        return False
    apart = math.hypot(_standard_error(first), _standard_error(last))
    return statistics.fmean(last) - statistics.fmean(first) <= 2 * apart


def _scores(rows: Iterable[Mapping[str, Any]]) -> list[float]:
    found = (row.get("return", row.get("accuracy")) for row in rows)
    return [float(score) for score in found if score is not None]


def _standard_error(scores: Sequence[float]) -> float:
    return statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else 0.0


def _spans(target: Target) -> str:
    return ", ".join(f"{a:,} to {b:,}" for a, b in target.within) or "none"


def _without_criterion(target: Target) -> str:
    curves = target.curves.values()
    if any(curve[0].score is None for curve in curves):
        return "its experts were not evaluated before they learned it (evaluation.unseen: never?)"
    if any(curve[-1].score is None for curve in curves):
        return "the last evaluation of an expert is lost"
    return "its experts learned nothing"


def _late(target: Target) -> list[int]:
    """Return the seeds of the experts that did not reach the criterion."""
    times = zip(target.curves, target.told["time_to_threshold"], strict=True)
    return [seed for seed, time in times if time is None]


def censored_speeds(
    runs: Sequence[tuple[str, str | None]], over: str = "", control: str = "expert"
) -> list[str]:
    """Count by method and direction the runs whose relative speed is beyond any number."""
    told = []
    for method in dict.fromkeys(method for method, _ in runs):
        counts = Counter(censored for name, censored in runs if name == method)
        none = counts.total() - counts[None]
        if none:
            told.append(
                f"{method}: relative speed{over} is no number in {none} of {counts.total()} runs: "
                f"{counts['faster']} faster than any (at the criterion before learning, or only "
                f"the {control} never there), {counts['slower']} slower than any (the other way "
                f"round), {counts['neither']} of no direction"
            )
    return told


def more_work(experts: Sequence[Finished], runs: Sequence[Finished]) -> list[str]:
    """Say of each method whose answers take more, or less, work than the expert's."""
    work = {(one.planned.target, one.planned.seed): one.multiply_adds for one in experts}
    times: defaultdict[str, list[float]] = defaultdict(list)
    for run in runs:
        reference = work.get((run.planned.target, run.planned.seed))
        if run.multiply_adds is not None and reference:
            times[run.planned.method].append(run.multiply_adds / reference)
    told = []
    for method, ratios in times.items():
        if max(abs(ratio - 1) for ratio in ratios) > MORE_WORK:
            least, most = f"{min(ratios):.1f}", f"{max(ratios):.1f}"
            told.append(
                f"{method}: an answer takes {least if least == most else f'{least} to {most}'} "
                "times the expert's multiply-adds: the score is of capacity and transfer together"
            )
    return told
