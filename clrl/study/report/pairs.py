"""The runs of a transfer study as such: a comparison's sections, folded, a fold for each pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from clrl.study.report.document import Fold, Section
from clrl.study.report.groups import Group
from clrl.study.report.inside import inside
from clrl.study.report.learning import forgetting, matrices
from clrl.study.report.provenance import videos
from clrl.study.report.scores import Normalise, Scale
from clrl.study.report.transfer_curves import EXPERT, is_pair
from clrl.study.report.transfer_sections import Result

__all__ = ["of_pairs"]

Pairs = Mapping[str, Sequence[Group]]  # by title: a group for each method


def of_pairs(
    result: Result, groups: Sequence[Group], out: Path, normalise: Normalise
) -> list[Section]:
    """Return score matrices, forgetting, what is inside and videos, where there are any.

    Args:
        result: of the study.
        groups: its runs, by method.
        out: the folder that the report will lie in.
        normalise: task and raw score to a scale on which random play has 0 and a human 1.
    """
    learned = [group for group in groups if group.label != EXPERT]
    pairs = {
        f"{source} → {target}": _of_pair(learned, source, target)
        for source in result["sources"]
        for target in result["targets"]
    }
    pairs = {title: of for title, of in pairs.items() if of}
    alone = [group for group in groups if group.label == EXPERT]
    filmed = pairs | ({"from scratch": alone} if alone else {})
    return [
        *_folded(pairs, matrices),
        *_folded(pairs, lambda of: forgetting(of, _scale(of, normalise))),
        *_folded(pairs, inside),
        *_folded(filmed, lambda of: videos(of, out)),
    ]


def _of_pair(groups: Sequence[Group], source: str, target: str) -> list[Group]:
    """Return each method's runs of one pair, of the methods that have any."""
    found = [
        (group.label, tuple(run for run in group.runs if is_pair(run, source, target)))
        for group in groups
    ]
    return [Group(label, runs) for label, runs in found if runs]


def _scale(groups: Sequence[Group], normalise: Normalise) -> Scale:
    return Scale.of([run for group in groups for run in group.runs], normalise)


def _folded(pairs: Pairs, section: Callable[[Sequence[Group]], Section | None]) -> list[Section]:
    """Return one section with a fold for each pair that has it; nothing where none has."""
    made = {title: section(groups) for title, groups in pairs.items()}
    found = {title: one for title, one in made.items() if one is not None}
    folds = [Fold(title, one.parts) for title, one in found.items()]
    return [Section(next(iter(found.values())).title, folds)] if found else []
