"""What is inside the nets: a method's own figures, importances, columns, paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clrl.errors import ClrlError
from clrl.study.metrics import mean_of_all
from clrl.study.report.document import Caution, Cell, Part, Section, Table, Text
from clrl.study.report.groups import Group
from clrl.study.report.path_parts import path_parts
from clrl.study.report.runs import Run

__all__ = ["inside"]


def inside(groups: Sequence[Group]) -> Section | None:
    """Return what methods recorded of themselves; None where none did."""
    parts: list[Part] = []
    visits = sorted({visit for group in groups for run in group.runs for visit in run.notes})
    rows = [row for group in groups for row in _notes(group, visits)]
    if rows:
        columns = ("method", "figure", *(f"visit {visit}" for visit in visits))
        title = "What methods recorded, last in each visit, mean over runs"
        parts.append(Table(title, columns, rows, mixed=True))
    for group in groups:  # of one run each: these are figures of single nets
        kept = [run for run in group.runs if (run.path / "importances").is_dir()]
        parts += _importances(group.label, kept[0]) if kept else []
        if dict(group.first.config.get("method", {})).get("name") == "pathnet":
            parts += path_parts(group.label, group.first)
        for run in group.runs:
            for path in sorted(run.path.glob("sensitivities*.json")):
                parts += _sensitivities(run, path)
    return Section("Inside", parts) if parts else None


def _notes(group: Group, visits: Sequence[int]) -> list[list[Cell]]:
    found: dict[str, dict[int, list[float]]] = {}
    for run in group.runs:
        for visit, notes in run.notes.items():
            for name, value in notes.items():
                found.setdefault(name, {}).setdefault(visit, []).append(value)
    return [
        [group.label, name.replace("_", " "), *(mean_of_all(of.get(k, [])) for k in visits)]
        for name, of in sorted(found.items())
    ]


def _importances(label: str, run: Run) -> list[Part]:
    """Return how alike visits' importances are, and how far weights moved against them."""
    from clrl.study.importances import WHOLE, load_importances, overlap_matrix, weighted_change

    try:
        visits = [visit for visit in load_importances(run.path) if visit.importance]
        if len(visits) < 2:
            return []
        names = [_visit_name(run, visit.visit) for visit in visits]
        overlap = overlap_matrix(visits)
        changes = {
            name: weighted_change(before.weight, after.weight, before.importance)
            for name, before, after in zip(names, visits, visits[1:], strict=False)
        }
    except ClrlError as error:
        return [Caution([str(error)])]
    rows: list[list[Cell]] = [[name, *row] for name, row in zip(names, overlap, strict=True)]
    layers = [layer for layer in next(iter(changes.values())) if layer != WHOLE]
    moved: list[list[Cell]] = [
        [layer, *(change.get(layer) for change in changes.values())] for layer in [*layers, WHOLE]
    ]
    return [
        Text(f"{label}, seed {run.seed}: importances were kept at the end of each visit."),
        Table(
            "Overlap of what visits hold important (1: alike), all layers",
            ("visit", *names),
            rows,
            [[None, *row] for row in overlap],
        ),
        Table(
            "Squared change of a weight in the next visit, weighted by importance",
            ("layer", *(f"after {name}" for name in changes)),
            moved,
        ),
    ]


def _sensitivities(run: Run, path: Path) -> list[Part]:
    """Return which columns a policy rests on, by layer."""
    from clrl.study.sensitivity import load_sensitivities

    try:
        found = load_sensitivities(path)
    except ClrlError as error:
        return [Caution([str(error)])]
    parts: list[Part] = []
    for title, shares in (("AFS (Fisher)", found.afs), ("APS (noise)", found.aps)):
        if shares is None:
            continue
        values = [[None if x != x else float(x) for x in row] for row in shares.share]
        rows: list[list[Cell]] = [
            [layer, *row] for layer, row in zip(shares.layers, values, strict=True)
        ]
        parts.append(
            Table(
                f"{run.name}: columns that {found.task} rests on, {title}",
                ("layer", *shares.columns),
                rows,
                [[None, *row] for row in values],
            )
        )
    return parts


def _visit_name(run: Run, visit: int) -> str:
    if visit > len(run.visits):
        return f"{visit}."
    return f"{visit}. {run.tasks[run.visits[visit - 1]]}"
