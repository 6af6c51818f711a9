"""Measuring every task: who is evaluated when, with which seeds, and what is written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from clrl.agents.learner import Learner
from clrl.types import Task

__all__ = ["Evaluator", "Phase"]

Phase = Literal["start", "during", "end"]


@dataclass(frozen=True)
class Evaluator:
    """Evaluates the tasks of a sequence; see `EvaluationConfig` for the settings.

    Attributes:
        learner: what is measured.
        tasks: the distinct tasks.
        episodes: full games a task.
        unseen: whether tasks that have not begun are measured: `always`, at the `ends` of visits
            (and at the start) only, or `never`.
    """

    learner: Learner
    tasks: tuple[Task, ...]
    episodes: int
    unseen: Literal["always", "ends", "never"]

    def measured(self, phase: Phase) -> list[Task]:
        """Return the tasks to measure now: those that have begun, and the unseen ones as asked."""
        begun = {task.id for task in self.learner.begun}
        all_of_them = self.unseen == "always" or (self.unseen == "ends" and phase != "during")
        return [
            task
            for task in self.tasks
            if (task.id in begun or all_of_them) and self.learner.net.can_play(task)
        ]

    def rows(self, phase: Phase, visit: int, tick: Callable[[], None]) -> list[dict[str, Any]]:
        """Evaluate and return one record an episode.

        Args:
            phase: which part of the walk this belongs to.
            visit: 0 before anything is trained, else the number of the visit (1, 2, ...).
            tick: called at every step; may raise to give up.
        """
        learner = self.learner
        begun = learner.task.name if learner.begun else None
        rows = []
        for task in self.measured(phase):
            # own seeds for every measurement, the same whatever else was measured before
            seed = learner.seed_for(2, visit, learner.task_step, task.id)
            for row in learner.evaluate(task, self.episodes, seed, tick):
                where = {"step": learner.step, "frames": learner.frames, "visit": visit}
                names = {"task_trained": begun, "task_evaluated": task.name, "phase": phase}
                rows.append(where | names | row)
        return rows
