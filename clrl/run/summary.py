"""`summary.json`: the score matrix, the metrics and what the run cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clrl.agents.learner import Learner
from clrl.run.costs import sizes
from clrl.study.metrics import basic_metrics, normalised, score_matrix
from clrl.types import TaskSequence

__all__ = ["summarise"]


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
        spent: wall time so far, all processes of the run together, by name.
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
    }
