"""The report of runs: methods beside each other on one sequence of tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from clrl.errors import ClrlError
from clrl.run.yaml_safe import nearest
from clrl.study.report.costs import costs
from clrl.study.report.document import Caution, Part, Report, Section, Text
from clrl.study.report.groups import Group, find_runs, grouped, require_comparable
from clrl.study.report.inside import inside
from clrl.study.report.learning import curves, forgetting, matrices
from clrl.study.report.plasticity import plasticity
from clrl.study.report.provenance import cautions, making, protocol_table, protocol_text, videos
from clrl.study.report.scores import METRICS, Normalise, Scale
from clrl.study.report.verdict import verdict

__all__ = ["compare", "random_play"]


def compare(
    paths: Sequence[Path],
    *,
    out: Path,
    normalise: Normalise,
    metric: str | None = None,
    question: str | None = None,
) -> Report:
    """Return the report of runs; the first method is what others are compared with.

    All runs have the tasks in one order: runs of several orders are to be reported apart.

    Args:
        paths: run folders, or folders of them.
        out: the folder that the report will lie in: addresses of videos are relative to it.
        normalise: task and raw score to a scale on which random play has 0 and a human 1.
        metric: what the verdict is about, one of `METRICS`.
        question: what the runs were made to answer.

    Raises:
        ClrlError: no run, an unknown metric, or runs that cannot be compared.
    """
    metric = metric or "average_performance"
    if metric not in METRICS:
        raise ClrlError(f"--metric {metric!r}: unknown{nearest(metric, list(METRICS))}", 2)
    groups = grouped(find_runs(paths))
    for group in groups[1:]:
        require_comparable(groups[0].first, group.first)
    scale = Scale.of([run for group in groups for run in group.runs], normalise)
    sections = [
        _opening(groups, scale, question),
        verdict(groups, scale, metric),
        curves(groups, random_play(normalise) if groups[0].first.unit == "return" else _unknown),
        matrices(groups),
        forgetting(groups, scale),
        plasticity(groups),
        costs(groups, scale, metric),
        inside(groups),
        videos(groups, out),
        making(groups),
    ]
    labels = [group.label for group in groups]
    title = " · ".join(labels[:4]) + (f" and {len(labels) - 4} more" if len(labels) > 4 else "")
    return Report(title, [section for section in sections if section is not None])


def _opening(groups: Sequence[Group], scale: Scale, question: str | None) -> Section:
    first = groups[0].first
    runs = sum(len(group.runs) for group in groups)
    names = ", ".join(group.label for group in groups)
    asked = question or (
        f"What does an agent score on each of {len(first.tasks)} tasks, learned one after the other"
        + (f", by {len(groups)} methods?" if len(groups) > 1 else "?")
    )
    told = (
        f"{runs} {'run' if runs == 1 else 'runs'} of {names}. Scores of different tasks are put on "
        f"one scale where means over tasks are taken: {scale.name}."
        if scale.is_common
        else f"{runs} {'run' if runs == 1 else 'runs'} of {names}. The tasks' raw scores have no "
        "common scale (no reference is known for one of them): read them task by task."
    )
    parts: list[Part] = [Text(asked), Text(protocol_text(first)), Text(told)]
    if warnings := cautions(groups):
        parts.append(Caution(warnings))
    return Section("Question and protocol", [*parts, protocol_table(first)])


def random_play(normalise: Normalise) -> Callable[[str], float | None]:
    """Return what random play scores on a task: where the scale, which is linear, has its 0."""

    def score(task: str) -> float | None:
        at_0, at_1 = normalise(task, 0.0), normalise(task, 1.0)
        return None if at_0 is None or at_1 is None else at_0 / (at_0 - at_1)

    return score


def _unknown(task: str) -> None:
    return None
