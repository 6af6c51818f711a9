"""Measuring every task: who is evaluated when, with which seeds, and what is written down."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clrl.agents.learner import Learner
from clrl.envs.scores import normalise_task
from clrl.run import checkpoint
from clrl.run.assemble import assemble, sequence_of
from clrl.run.config import load_config
from clrl.run.folder import RunFolder
from clrl.run.sections import EvaluationConfig
from clrl.run.yaml_safe import nearest
from clrl.types import ClrlError, Task

__all__ = ["Evaluator", "Phase", "evaluate_run"]

Phase = Literal["start", "during", "end"]


@dataclass(frozen=True)
class Evaluator:
    """Evaluates the tasks of a sequence.

    Attributes:
        learner: what is measured.
        tasks: the distinct tasks.
        settings: how many games, and which tasks are measured when.
    """

    learner: Learner
    tasks: tuple[Task, ...]
    settings: EvaluationConfig

    def measured(self, phase: Phase) -> list[Task]:
        """Return the tasks to measure now, of those that the net can play."""
        learner, at_end = self.learner, phase != "during"
        begun = {task.id for task in learner.begun}
        unseen = self.settings.unseen == "always" or (self.settings.unseen == "ends" and at_end)
        earlier = self.settings.earlier == "always" or at_end

        def asked(task: Task) -> bool:
            if task.id not in begun:
                return unseen
            return earlier or task.id == learner.task.id

        return [task for task in self.tasks if asked(task) and learner.net.can_play(task)]

    def rows(
        self, phase: Phase, visit: int, tick: Callable[[], None], only: Task | None = None
    ) -> list[dict[str, Any]]:
        """Evaluate and return one record an episode.

        Args:
            phase: which part of the walk this belongs to.
            visit: 0 before anything is trained, else the number of the visit (1, 2, ...).
            tick: called at every step; may raise to give up.
            only: the one task to measure; None: those that the settings ask for.
        """
        learner = self.learner
        begun = learner.task.name if learner.begun else None
        rows = []
        for task in self.measured(phase) if only is None else [only]:
            # Always the same games: two scores of a task then differ by what was learned between
            # them, and a net that has not changed scores exactly the same. By name, so that runs of
            # one seed play the same games of it, whatever comes before it.
            seed = learner.seed_for(2, zlib.crc32(task.name.encode()))
            for row in learner.evaluate(task, self.settings.episodes, seed, tick):
                where = {"step": learner.step, "frames": learner.frames, "visit": visit}
                names = {"task_trained": begun, "task_evaluated": task.name, "phase": phase}
                rows.append(where | names | row)
        return rows


def evaluate_run(
    run: Path, *, task: str | None = None, episodes: int | None = None
) -> list[dict[str, Any]]:
    """Play full games with a run's newest checkpoint; changes nothing in the run.

    Args:
        run: the run folder.
        task: name of one of its tasks; None: all that the net can play.
        episodes: full games a task; None: as many as the configuration says.

    Returns:
        A row a task: `task`, `mean`, `std`, `min`, `max`, `episodes`, and the human-normalised
        mean where there is a reference (else None); for pictures `task`, `accuracy`, `loss`, `n`.

    Raises:
        ClrlError: no such run, no checkpoint yet, no such task, fewer than one episode.
    """
    folder = RunFolder.open(run)
    config = load_config(folder.config)
    sequence = sequence_of(config)
    names = [t.name for t in sequence.tasks]
    episodes = config.evaluation.episodes if episodes is None else episodes
    if episodes < 1:
        raise ClrlError(f"--episodes {episodes}: expected at least 1", 2)
    if task is not None and task not in names:
        raise ClrlError(f"{run} has no task {task!r}{nearest(task, names)}", 2)
    found = checkpoint.load_latest(folder.checkpoints)
    if found is None:
        raise ClrlError(f"{run} has no checkpoint yet: nothing to evaluate", 2)
    learner = assemble(config, sequence)
    learner.load_net(found.state["learner"], sequence.tasks)
    rows: list[dict[str, Any]] = []
    for t in sequence.tasks:
        if task not in (None, t.name) or not learner.net.can_play(t):
            continue
        seed = learner.seed_for(4, learner.step, t.id)  # other games than the run's own evaluations
        measured = learner.evaluate(t, episodes, seed)
        learner.close()  # environments of one task at a time
        if learner.kind == "supervised":
            rows += [{"task": t.name} | row for row in measured]
            continue
        scores = np.array([row["return"] for row in measured])
        rows.append(
            {
                "task": t.name,
                "mean": float(scores.mean()),
                "std": float(scores.std()),
                "min": float(scores.min()),
                "max": float(scores.max()),
                "episodes": episodes,
                "normalised": normalise_task(t.name, float(scores.mean())),
            }
        )
    return rows
