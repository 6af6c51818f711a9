"""`summary.json`: the score matrix, the metrics and what the run cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clrl.agents.learner import Learner
from clrl.run.console import Console
from clrl.run.costs import sizes
from clrl.study.metrics import basic_metrics, normalised, score_matrix
from clrl.types import TaskSequence

__all__ = ["DIGITS", "in_short", "row_names", "show", "summarise"]

DIGITS = {"return": None, "accuracy": 2}  # shown of a score; None: as its size deserves


def summarise(
    rows: list[dict[str, Any]],
    sequence: TaskSequence,
    learner: Learner,
    normalise: Callable[[str, float], float | None],
    spent: dict[str, float],
    of_visits: list[dict[str, Any]],
    config_hash: str,
) -> dict[str, Any]:
    """Return the summary of a run, finished or not.

    Args:
        rows: the records of `evaluations.jsonl`.
        sequence: tasks and visits.
        learner: for the counters and the net's size.
        normalise: task name and raw score to a score on a common scale, None where there is none.
        spent: wall time and peak memory so far, of all processes of the run, by name.
        of_visits: what each visit has cost.
        config_hash: of everything that determines the result.
    """
    names = [task.name for task in sequence.tasks]
    matrix = score_matrix(rows, names)
    share = normalised(matrix, names, normalise)
    return {
        "tasks": names,
        "visits": list(sequence.visits),
        "score": learner.score,
        "matrix": matrix,
        "metrics": basic_metrics(matrix, sequence.visits),
        "normalised": {"matrix": share, "metrics": basic_metrics(share, sequence.visits)},
        "cost": {
            "steps": learner.step,
            "steps_for_end_task": learner.extra_steps,
            "frames": learner.frames,
            **spent,
            **sizes(learner.net),
            "visits": of_visits,
        },
        "seeds": {"run": learner.settings.seed},
        "config_hash": config_hash,
        "evaluation_rows": len(rows),
    }


def in_short(summary: dict[str, Any]) -> dict[str, float]:
    """Return the metrics and costs of a summary that are numbers, by `summary/<name>`."""
    parts = {
        "": summary["metrics"],
        "normalised/": summary["normalised"]["metrics"],
        "cost/": summary["cost"],
    }
    return {
        f"summary/{part}{name}": value
        for part, values in parts.items()
        for name, value in values.items()
        if isinstance(value, int | float)
    }


def show(summary: dict[str, Any], console: Console | None = None) -> None:
    """Print the score matrix of a summary."""
    tasks, share = summary["tasks"], summary["normalised"]["matrix"]
    known = any(score is not None for row in share for score in row)
    console = console or Console(tasks, 0, DIGITS[summary.get("score", "return")])
    console.matrix(tasks, summary["matrix"], row_names(summary), share if known else None)


def row_names(summary: dict[str, Any]) -> list[str]:
    """Return what each row of the score matrix is called."""
    visits = [summary["tasks"][k] for k in summary["visits"]]
    return ["before", *(f"after {i} {name}" for i, name in enumerate(visits, 1))]
