"""Where a run stands, saved so that it can go on from there, bit for bit on the CPU."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any, Literal

import torch

from clrl.agents.learner import Learner
from clrl.run import checkpoint
from clrl.run.config import Config, config_hash, differences, to_dict
from clrl.run.console import Console
from clrl.run.costs import peak_memory
from clrl.run.folder import RunFolder
from clrl.run.random_state import random_state, set_random_state
from clrl.run.records import RecordFile
from clrl.types import TaskSequence

__all__ = ["Cursor", "Saver"]


@dataclass
class Cursor:
    """Where in its walk a run stands.

    Attributes:
        visit: index of the visit that is under way or next.
        stage: `start` before row 0, `begin` before `begin_task`, `meet` before a sub-network that
            was made for this task is evaluated, which could not be before, `learn` until the
            visit's steps are spent and `end_task` is through, `measure` before the visit's row.
        evaluated: task steps at the last evaluation of this visit.
        seconds: wall time of all processes of the run so far.
        evaluating: how much of it went into evaluations.
        began: wall time when this visit began.
        costs: what each visit that is through has cost.
        peak_memory: the largest of all processes of the run so far.
    """

    visit: int = 0
    stage: Literal["start", "begin", "meet", "learn", "measure"] = "start"
    evaluated: int = 0
    seconds: float = 0.0
    evaluating: float = 0.0
    began: float = 0.0
    costs: list[dict[str, Any]] = field(default_factory=list)
    peak_memory: dict[str, float] = field(default_factory=dict)


@dataclass
class Saver:
    """Takes a run's checkpoints, and puts the run back where one was taken."""

    config: Config
    folder: RunFolder
    learner: Learner
    metrics: RecordFile
    evaluations: RecordFile
    console: Console
    edited: list[dict[str, Any]] = field(default_factory=list)
    """From which steps on the settings were others than before, and which."""
    wandb_run_id: str | None = None
    saved: int = -1  # agent steps at the newest checkpoint

    @property
    def due(self) -> bool:
        """Whether the schedule asks for a checkpoint."""
        return self.learner.step - self.saved >= self.config.checkpoint.every

    def save(self, cursor: Cursor, *, must: bool = False) -> None:
        """Take a checkpoint; if the disk refuses, go on with a notice unless it `must` be."""
        try:
            self.metrics.sync()
            self.evaluations.sync()
            cursor.peak_memory = peak_memory(cursor.peak_memory)
            state = {
                "learner": self.learner.state_dict(),
                "cursor": asdict(cursor),
                "random": random_state(self.learner.settings.device),
            }
            meta = {
                "config": to_dict(self.config),
                "config_hash": config_hash(self.config),
                "offsets": {
                    "metrics": self.metrics.offset,
                    "evaluations": self.evaluations.offset,
                },
                "wandb_run_id": self.wandb_run_id,
                "edited": self.edited,
                "made_with": self._made_with(),
            }
            keep = self.config.checkpoint.keep
            checkpoint.save(self.folder.checkpoints, self.learner.step, state, meta, keep)
        except checkpoint.CheckpointError as error:
            if must:
                raise
            self.console.notice(f"{error}; training goes on")
            return
        self.saved = self.learner.step

    def restore(self, found: checkpoint.Checkpoint | None, sequence: TaskSequence) -> Cursor:
        """Stand where the checkpoint was taken, or at the start, and tell how exactly."""
        if found is None:
            self.metrics.truncate(0)
            self.evaluations.truncate(0)
            return Cursor()
        why = self.learner.load_state_dict(found.state["learner"], sequence.tasks)
        set_random_state(found.state["random"], self.learner.settings.device)
        self.metrics.truncate(found.meta["offsets"]["metrics"])
        self.evaluations.truncate(found.meta["offsets"]["evaluations"])
        before, here = found.meta["made_with"], self._made_with()
        reasons = [f"{k} {before.get(k)} -> {v}" for k, v in here.items() if before.get(k) != v]
        if "cuda" in here["device"]:
            reasons.append("a GPU rounds differently from run to run")
        if why:
            reasons.append(why)
        level = f"same learner ({'; '.join(reasons)})" if reasons else "bitwise"
        self.console.resumed(level, found.step, found.path, found.skipped)
        self.wandb_run_id = found.meta["wandb_run_id"]
        self.edited = list(found.meta.get("edited", []))  # not in older ones
        if changed := differences(found.meta["config"], self.config):
            self.edited.append({"step": found.step, "changed": changed})
        self.saved = self.learner.step
        return Cursor(**found.state["cursor"])

    def _made_with(self) -> dict[str, str]:
        """Return all beside the state that must stay the same for a bitwise resume."""
        packages = {name: version(name) for name in ("torch", "numpy", "ale-py")}
        return packages | {
            "threads": str(torch.get_num_threads()),
            "device": str(self.learner.settings.device),
            "configuration": config_hash(self.config)[:8],
        }
