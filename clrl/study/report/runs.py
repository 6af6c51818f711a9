"""What a report needs of a run folder, read line by line: files in, a few numbers out."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clrl.errors import ClrlError
from clrl.run import yaml_safe
from clrl.study.curves import PHASES, Curve, run_curve, visit_curve
from clrl.study.forgetting import continual_world_forgetting
from clrl.study.metrics import score_matrix

__all__ = ["Look", "Run", "read_run"]

NORMS = ("weight_norm", "gradient_norm")
_VISIT = re.compile(rb'"visit": ?([0-9]+)')


@dataclass(frozen=True)
class Look:
    """What was seen of a net's plasticity at one moment.

    Attributes:
        step: of the whole run.
        visit: number of the visit, from 1.
        values: `dormant` (mean over layers), `effective_rank`, `weight_norm`, `gradient_norm` (of
            all layers together), those that were recorded.
        layers: by what was recorded (`dormant/<layer>`, ...), only of the last look at a visit.
    """

    step: int
    visit: int
    values: Mapping[str, float]
    layers: Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        path: its folder.
        seed: its seed.
        config: resolved, as plain values.
        environment: versions, hardware.
        status: as its STATUS says.
        tasks: names of the distinct tasks.
        visits: index of the task of each visit.
        unit: `return` or `accuracy`.
        matrix: the score matrix, rows up to the last moment that was evaluated.
        curves: each task's scores over the whole run.
        first_visit: the first task's scores over the first visit.
        last_visit: the last task's scores over the last visit; empty while it has not begun.
        forgotten: Continual World's forgetting of each task; None while unfinished.
        ends: the steps at which visits ended.
        looks: at the net's plasticity, if recorded.
        notes: by visit, the last `method/` records.
        cost: as in `summary.json`.
        config_hash: as there.
        skipped: by file, lines that were no records.
        lost: how many evaluations are not there of those that were written.
    """

    path: Path
    seed: int
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    status: str
    tasks: tuple[str, ...]
    visits: tuple[int, ...]
    unit: str
    matrix: list[list[float | None]]
    curves: Mapping[str, Curve]
    first_visit: Curve
    last_visit: Curve
    forgotten: Mapping[str, float | None]
    ends: tuple[int, ...]
    looks: tuple[Look, ...]
    notes: Mapping[int, Mapping[str, float]]
    cost: Mapping[str, Any]
    config_hash: str
    skipped: Mapping[str, int]
    lost: int

    @property
    def name(self) -> str:
        """How it is called in the report."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def finished(self) -> bool:
        """Whether every visit has been measured."""
        return len(self.matrix) == len(self.visits) + 1


def read_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        ClrlError: there is no run, a file is damaged, or nothing was evaluated yet.
    """
    config = yaml_safe.read(path / "config.yaml")
    summary = _json(path / "summary.json")
    rows, counted, skipped = _evaluations(path / "evaluations.jsonl")
    if not rows:
        raise ClrlError(f"{path} has no evaluations yet: nothing to report", 3)
    tasks, visits = _sequence(path, summary)
    looks, notes, lost = _records(path / "metrics.jsonl")
    matrix = score_matrix(rows, tasks)
    finished = len(matrix) == len(visits) + 1
    ends = {row["visit"]: row["step"] for row in rows if row["phase"] == "end"}
    begun = any(row["visit"] == len(visits) for row in rows)
    evaluation = config.get("evaluation")
    at_ends = isinstance(evaluation, Mapping) and evaluation.get("earlier") == "ends"
    status = path / "STATUS"
    return Run(
        path=path,
        seed=int(config.get("seed", 0)),
        config=config,
        environment=_json(path / "environment.json"),
        status=status.read_text(errors="replace").strip() if status.exists() else "unknown",
        tasks=tasks,
        visits=visits,
        unit="accuracy" if "accuracy" in rows[0] else "return",
        matrix=matrix,
        curves={task: run_curve(rows, task) for task in tasks},
        first_visit=visit_curve(rows, tasks[visits[0]], 1),
        last_visit=visit_curve(rows, tasks[visits[-1]], len(visits)) if begun else (),
        forgotten=(
            continual_world_forgetting(rows, tasks, visits, earlier_at_ends=at_ends)
            if finished
            else dict.fromkeys(tasks, None)
        ),
        ends=tuple(int(step) for _, step in sorted(ends.items())),
        looks=tuple(looks),
        notes=notes,
        cost=summary.get("cost", {}),
        config_hash=str(summary.get("config_hash", "")),
        skipped={"evaluations.jsonl": skipped, "metrics.jsonl": lost},
        lost=max(0, summary.get("evaluation_rows", 0) - counted - skipped),
    )


def _sequence(path: Path, summary: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return tasks and visits; those of an unfinished run follow from its configuration."""
    if "tasks" in summary:
        return tuple(map(str, summary["tasks"])), tuple(map(int, summary["visits"]))
    from clrl.run.assemble import sequence_of  # late: it brings all methods, learners and games
    from clrl.run.config import load_config

    sequence = sequence_of(load_config(path / "config.yaml"))
    return tuple(task.name for task in sequence.tasks), sequence.visits


def _json(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds; {} if it is not there.

    Raises:
        ClrlError: it is damaged.
    """
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ClrlError(f"{path} cannot be read ({error}): write it anew, or delete it") from None
    if not isinstance(data, dict):
        raise ClrlError(f"{path} holds {data!r:.40}: expected an object")
    return data


# ---------------------------------------------------------------------------------- line by line


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file; none if it is not there."""
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        return
    except OSError as error:
        raise ClrlError(f"cannot read {path}: {error.strerror}") from error


def _record(line: bytes) -> dict[str, Any]:
    """Return a line's record; {} where it is none, as the half-written last line."""
    try:
        row = json.loads(line.decode()) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _evaluations(path: Path) -> tuple[list[dict[str, Any]], int, int]:
    """Return the mean over episodes of every task and moment; how many lines are records, and not.

    A score that is null (it was no number) is left out of the mean; the moment stays.
    """
    sums: defaultdict[tuple[Any, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
    counted = skipped = 0
    for row in map(_record, _lines(path)):
        try:
            unit = "accuracy" if "accuracy" in row else "return"
            if row["phase"] not in PHASES:
                raise ValueError(row["phase"])
            where = (int(row["visit"]), str(row["phase"]), int(row["step"]), unit)
            score = None if row[unit] is None else float(row[unit])
            own = sums[*where, str(row["task_evaluated"])]
        except (KeyError, TypeError, ValueError):
            skipped += 1
            continue
        counted += 1
        own[0] += score or 0.0
        own[1] += score is not None
    return (
        [
            {"visit": visit, "phase": phase, "step": step, "task_evaluated": task}
            | {unit: total / n if n else None}
            for (visit, phase, step, unit, task), (total, n) in sums.items()
        ],
        counted,
        skipped,
    )


def _records(path: Path) -> tuple[list[Look], dict[int, dict[str, float]], int]:
    """Return what is kept of `metrics.jsonl`, and how many lines were skipped.

    Most lines are of no use here, and are told by their text: reading them all takes far longer.
    """
    looks: list[Look] = []
    last: dict[bytes, bytes] = {}  # by visit
    skipped = 0
    for line in _lines(path):
        visit = _VISIT.search(line)
        if visit is None or not line.endswith(b"}\n"):
            skipped += 1
            continue
        if b'"method/' in line:
            last[visit[1]] = line
        if b'"plasticity/' in line:
            row = _record(line)
            seen = _under("plasticity/", row)
            if not seen or not isinstance(row.get("global_step"), int):
                skipped += 1
                continue
            if looks and looks[-1].visit == row["visit"]:  # only a visit's last keeps its layers
                looks[-1] = Look(looks[-1].step, looks[-1].visit, looks[-1].values, {})
            looks.append(Look(row["global_step"], row["visit"], _joined(seen), seen))
    notes = {int(visit): _under("method/", _record(line)) for visit, line in last.items()}
    return looks, notes, skipped


def _under(prefix: str, row: Mapping[str, Any]) -> dict[str, float]:
    """Return a record's numbers whose keys begin so, without the beginning."""
    return {
        key.removeprefix(prefix): float(value)
        for key, value in row.items()
        if key.startswith(prefix) and isinstance(value, int | float)
    }


def _joined(seen: Mapping[str, float]) -> dict[str, float]:
    """Return a number for all layers together of each kind that was recorded."""
    values = {}
    dormant = [v for k, v in seen.items() if k.startswith("dormant/")]
    if dormant:
        values["dormant"] = sum(dormant) / len(dormant)
    if "effective_rank" in seen:
        values["effective_rank"] = seen["effective_rank"]
    for kind in NORMS:
        norms = [v for k, v in seen.items() if k.startswith(f"{kind}/")]
        if norms:
            values[kind] = math.hypot(*norms)
    return values
