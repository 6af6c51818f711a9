"""The report of a transfer study: its matrices, curves beside the experts', its runs, the cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from clrl.errors import ClrlError
from clrl.run.yaml_safe import dump, nearest
from clrl.study.alone import over_alone
from clrl.study.report.charts import ScatterChart
from clrl.study.report.costs import cost_table, visit_costs
from clrl.study.report.document import (
    Caution,
    Cell,
    Code,
    Figure,
    Part,
    Report,
    Section,
    Table,
    Text,
)
from clrl.study.report.groups import Group, require_comparable
from clrl.study.report.pairs import of_pairs
from clrl.study.report.plasticity import plasticity
from clrl.study.report.provenance import protocol_table, skipped_lines, too_small, versions
from clrl.study.report.runs import Run, read_run
from clrl.study.report.scores import Normalise
from clrl.study.report.transfer_curves import EXPERT, curves
from clrl.study.report.transfer_sections import Result, matrices, verdict
from clrl.study.seal import SEAL, broken_seal
from clrl.study.transfer_text import OF_ALONE, SCHEMA

__all__ = ["is_study", "transfers"]

KEYS = (
    *("study", "sources", "targets", "methods", "seeds", "metrics", "experts", "runs", "matrix"),
    *("summary", "warnings"),
)


def is_study(path: Path) -> bool:
    """Tell whether a folder is a study's."""
    return (path / "study.json").exists() or (path / "study.yaml").exists()


def transfers(
    path: Path,
    *,
    out: Path,
    normalise: Normalise,
    metric: str | None = None,
    question: str | None = None,
) -> Report:
    """Return the report of a study.

    Args:
        path: the study's folder, with `study.json`.
        out: the folder that the report will lie in: addresses of videos are relative to it.
        normalise: task and raw score to a scale on which random play has 0 and a human 1.
        metric: what the verdict is about, one of the study's metrics.
        question: what was asked.

    Raises:
        ClrlError: the study is empty, unfinished or damaged, or the metric unknown.
    """
    result = _result(path)
    metric = metric or "transfer_score"
    if metric not in result["metrics"]:
        raise ClrlError(
            f"--metric {metric!r}: unknown{nearest(metric, list(result['metrics']))}", 2
        )
    groups, missing = _runs(path, result)
    sections = [
        _opening(result, groups, missing, question),
        verdict(result, metric),
        matrices(result, metric),
        curves(result, groups),
        *of_pairs(result, groups, out, normalise),
        plasticity(groups, one_experiment=False),
        _costs(path, result, groups, metric),
        _making(path, result, groups),
    ]
    name = str(result["study"]["name"])
    return Report(f"Transfer study {name}", [s for s in sections if s is not None])


def _result(path: Path) -> Result:
    try:
        told = json.loads((path / "study.json").read_bytes())
        result = {key: told[key] for key in KEYS}
        result["methods_alone"] = told.get("methods_alone", {})  # not in those made before
    except FileNotFoundError:
        raise ClrlError(
            f"{path} has no study.json: the study is not finished; go on with clrl transfer", 2
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClrlError(
            f"{path / 'study.json'} cannot be used ({error}): run clrl transfer"
        ) from None
    if told.get("schema", 1) < SCHEMA:
        for name in result["metrics"]:
            for of_method in result["summary"].get(name, {}).values():
                of_method.pop("versus", None)
        result["warnings"] = [
            *result["warnings"],
            "study.json is of an older clrl, whose comparisons of methods are left out: clrl "
            "transfer makes it anew",
        ]
    if not result["runs"]:
        raise ClrlError(f"{path} is an empty study: it has no finished run to report", 2)
    return result


def _runs(path: Path, result: Result) -> tuple[list[Group], list[str]]:
    """Read the study's run folders: the experts as one group and one for each method.

    Raises:
        ClrlError: runs on other terms than the rest.
    """
    places = [(EXPERT, f) for told in result["experts"].values() for f in told["folders"].values()]
    places += [(run["method"], run["folder"]) for run in result["runs"]]
    found: dict[str, list[Run]] = {}
    missing = []
    first: Run | None = None
    for label, folder in places:
        place = path.parent / folder
        if not (place / "config.yaml").is_file():
            missing.append(folder)
            continue
        run = read_run(place)
        first = first or run
        require_comparable(first, run, same_tasks=False)
        found.setdefault(label, []).append(run)
    return [Group(label, tuple(runs)) for label, runs in found.items()], missing


# --------------------------------------------------------------------------------------- opening


def _opening(
    result: Result, groups: Sequence[Group], missing: Sequence[str], question: str | None
) -> Section:
    study = result["study"]
    asked = question or (
        f"How much does {_either(result['sources'])}, learned first, help to learn "
        f"{_either(result['targets'])}; what is forgotten, and what does it cost?"
    )
    told = (
        "Every run learns a source (or a chain of them) and then a target. It is compared with an "
        "expert, which learned the target alone, from scratch, by fine-tuning, with the same seed "
        "and budget; areas are over the stretches of the visit that all runs of a target know. "
        f"The criterion of speed is {study['criterion']:.0%} of the experts' way from their "
        "first score to their last."
    )
    warnings = [str(warning) for warning in result["warnings"]]
    if missing:
        warnings.append(
            f"{len(missing)} run folders are not where the study says ({missing[0]}, ...): their "
            "curves and costs are left out"
        )
    known = [warning for warning in warnings if "evaluations.jsonl" in warning]
    warnings += skipped_lines(
        [
            run  # what was so when the study was made is among its warnings
            for group in groups
            for run in group.runs
            if not any(f"{run.name}: " in warning for warning in known)
        ]
    )
    warnings += [
        f"{run.name}, an expert: {why}; clrl transfer makes it anew"
        for group in groups
        for run in group.runs
        if group.label == EXPERT and (run.path / SEAL).exists() and (why := broken_seal(run.path))
    ]
    warnings += too_small(groups[0].first) if groups else []
    parts: list[Part] = [Text(asked), Text(told)]
    if over_alone("transfer_score") in result["metrics"]:
        parts.append(Text(OF_ALONE))
    parts += [Caution(warnings)] if warnings else []
    if groups:
        table = protocol_table(groups[0].first)
        rows = [*_plan(result), *table.rows[1:]]
        parts.append(Table(table.title, table.columns, rows, folded=True))
    return Section("Question and protocol", parts)


def _plan(result: Result) -> list[list[Cell]]:
    names = ("sources", "targets", "methods", "seeds")
    return [[name, ", ".join(map(str, result[name]))] for name in names]


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _costs(path: Path, result: Result, groups: Sequence[Group], metric: str) -> Section | None:
    """Return what a run has cost, beside what it gave."""
    paid = [(group.label, [run for run in group.runs if run.cost]) for group in groups]
    paid = [(label, runs) for label, runs in paid if runs]
    if not paid:
        return None
    labels, title = [label for label, _ in paid], result["metrics"][metric]["title"]
    runs = {run.path: run for _, of in paid for run in of}
    rows: list[list[Cell]] = []
    dots: list[tuple[int, float, float]] = []
    for told in result["runs"]:
        run, value = runs.get(path.parent / told["folder"]), told["metrics"].get(metric)
        if run is not None and value is not None and "seconds" in run.cost:
            hours = float(run.cost["seconds"]) / 3600
            rows.append([told["method"], " > ".join(told["sources"]), told["target"], hours, value])
            dots.append((labels.index(told["method"]), hours, float(value)))
    figure = Figure(
        "What a run gave, beside what it cost",
        "A mark is a run: high and far left is good, if high is good.",
        [ScatterChart("", "hours", title, dots)],
        Table("score beside cost", ("method", "source", "target", "hours", title), rows),
        labels,
    )
    kept = [Group(label, tuple(runs)) for label, runs in paid]
    visits = visit_costs(kept, tasks_differ=True)
    return Section("Cost", [*([figure] if dots else []), cost_table(paid), *visits])


def _making(path: Path, result: Result, groups: Sequence[Group]) -> Section:
    name = f"{path.resolve().name}.yaml"
    file = path / "study.yaml"
    text = file.read_text(errors="replace") if file.exists() else dump(dict(result["study"]))
    columns = ["method", "source", "target", "seed", "folder", *result["metrics"]]
    rows: list[list[Cell]] = [
        [r["method"], " > ".join(r["sources"]), r["target"], str(r["seed"]), r["folder"]]
        + [r["metrics"].get(metric) for metric in result["metrics"]]
        for r in result["runs"]
    ]
    command = f"clrl transfer {name}\nclrl report runs/{path.resolve().name}"
    return Section(
        "Making",
        [
            Code("With the file below saved under this name", command),
            versions([(group.label, run) for group in groups for run in group.runs]),
            Table("Every run", columns, rows, folded=True, mixed=True),
            Code(name, text, folded=True),
        ],
    )
