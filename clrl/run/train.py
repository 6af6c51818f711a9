"""One run, from a configuration to a run folder: where tasks, learner and method meet.

    before anything   every task is evaluated: row 0 of the matrix
    each visit        begin_task, updates (evaluations and checkpoints on schedule), end_task,
                      every task is evaluated: the next row
    at the end        metrics from the stored evaluations: summary.json

A checkpoint holds all that the rest of the run depends on, and is taken only where nothing is half
done; on the CPU a resumed run goes on bit for bit as if it had never stopped.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from clrl.agents.learner import Learner
from clrl.envs.scores import normalise_task
from clrl.run import checkpoint
from clrl.run.assemble import assemble, sequence_of
from clrl.run.config import (
    Config,
    config_hash,
    differences,
    load_config,
    protected,
    to_dict,
    to_yaml,
)
from clrl.run.console import Console
from clrl.run.environment import describe_environment
from clrl.run.evaluate import Evaluator, Phase
from clrl.run.folder import RunFolder, write_json_atomic, write_text_atomic
from clrl.run.random_state import random_state, set_random_state
from clrl.run.records import RecordFile, read_records
from clrl.run.stop import Stopped, StopSignals
from clrl.run.summary import summarise
from clrl.run.tracking import open_trackers
from clrl.types import ClrlError, TaskSequence

__all__ = ["resume", "train"]

log = logging.getLogger(__name__)

RECORD_EVERY = 1_000  # agent steps between rows of metrics.jsonl


def train(config: Config, runs: Path, sequence: TaskSequence | None = None) -> Path:
    """Run a configuration to its end and return the run folder.

    Args:
        config: validated; its agent and method are copied, not used up.
        runs: where the folder `<name>/seed<k>` is made.
        sequence: tasks to learn in place of the configuration's (for tasks made in code).

    Raises:
        ClrlError: bad configuration, missing ROM, a folder in use.
        Stopped: after a signal, when everything has been saved.
    """
    sequence = sequence or sequence_of(config)
    learner = assemble(config, sequence)
    folder = RunFolder.create(runs, config.name, config.seed)
    with folder.lock():
        write_text_atomic(folder.config, to_yaml(config))
        write_json_atomic(folder.environment, describe_environment(sequence.tasks))
        _Run(config, folder, sequence, learner).go(None)
    return folder.path


def resume(run: Path, *, allow_change: bool = False, sequence: TaskSequence | None = None) -> Path:
    """Go on with a run from its newest whole checkpoint and return its folder.

    Args:
        run: the run folder; its `config.yaml` may have been edited in what is not protected.
        allow_change: accept changed protected keys too.
        sequence: as given to `train`.

    Raises:
        ClrlError: no such run, one in use, changed protected keys, no usable checkpoint.
        Stopped: after a signal, when everything has been saved.
    """
    folder = RunFolder.open(run)
    config = load_config(folder.config)
    with folder.lock():
        if folder.status == "done":
            log.warning("%s is done already: nothing to resume", run)
            return folder.path
        checkpoint.clean(folder.checkpoints)
        found = checkpoint.load_latest(folder.checkpoints)
        if found is not None:
            _check_changes(config, found.meta["config"], allow_change)
        sequence = sequence or sequence_of(config)
        _Run(config, folder, sequence, assemble(config, sequence)).go(found)
    return folder.path


def _check_changes(config: Config, before: dict[str, Any], allow_change: bool) -> None:
    changes = differences(before, to_dict(config))
    if forbidden := [] if allow_change else protected(changes):
        raise ClrlError(
            f"config.yaml has changed since the checkpoint: {'; '.join(forbidden)}; "
            "undo it, start another run, or pass --allow-change",
            2,
        )
    for change in changes:
        log.warning("config.yaml has changed since the checkpoint: %s", change)


@dataclass
class Cursor:
    """Where in its walk a run stands.

    Attributes:
        visit: index of the visit that is under way or next.
        stage: `start` before row 0, `begin` before `begin_task`, `learn` until the visit's steps
            are spent and `end_task` is through, `measure` before the visit's row.
        evaluated: task steps at the last evaluation of this visit.
        seconds: wall time of all processes of the run so far.
    """

    visit: int = 0
    stage: Literal["start", "begin", "learn", "measure"] = "start"
    evaluated: int = 0
    seconds: float = 0.0


@dataclass
class _Run:
    config: Config
    folder: RunFolder
    sequence: TaskSequence
    learner: Learner
    cursor: Cursor = field(default_factory=Cursor)

    def go(self, found: checkpoint.Checkpoint | None) -> None:
        """Walk from the checkpoint, or from the start, to the end; leave STATUS behind."""
        names = [self.sequence.tasks[k].name for k in self.sequence.visits]
        with (
            StopSignals() as self.signals,
            Console(names, self.config.sequence.steps) as self.console,
            RecordFile(self.folder.metrics) as self.metrics,
            RecordFile(self.folder.evaluations) as self.evaluations,
        ):
            self.folder.set_status("running")
            resume_id = self._restore(found)
            self.tracker = open_trackers(
                self.config.tracking,
                self.folder.path,
                self.config.name,
                self.config.seed,
                to_dict(self.config),
                resume_id,
                self.console.notice,
            )
            self._began = time.monotonic() - self.cursor.seconds
            self._saved = self.learner.step
            exit_code = 1
            try:
                self._walk()
                exit_code = 0
                self.folder.set_status("done")
            except Stopped as stop:
                exit_code = stop.exit_code
                self._save(must=True)
                self.folder.set_status("preempted")
                stop.run = self.folder.path
                raise
            except BaseException:
                self.folder.set_status("failed")
                raise
            finally:
                self.learner.close()
                self.tracker.finish(exit_code)

    # ------------------------------------------------------------------------------- the walk

    def _walk(self) -> None:
        if self.cursor.stage == "start":
            self._evaluate("start", 0)
            self.cursor.stage = "begin"
            self._save()
        while self.cursor.visit < len(self.sequence.visits):
            self._visit()
        self._finish()

    def _visit(self) -> None:
        cursor, learner, steps = self.cursor, self.learner, self.config.sequence.steps
        self.console.start_visit(cursor.visit)
        if cursor.stage == "begin":
            learner.begin_task(self.sequence.tasks[self.sequence.visits[cursor.visit]])
            cursor.stage, cursor.evaluated = "learn", 0
        if cursor.stage == "learn":
            while learner.task_step < steps:
                self.signals.check()
                self._evaluate_if_due()
                self._save_if_due()
                self._update()
            self.signals.check()
            learner.end_task()
            cursor.stage = "measure"
        self._evaluate("end", cursor.visit + 1)
        cursor.visit, cursor.stage = cursor.visit + 1, "begin"
        self._track_matrix(self._summary())
        self._save()

    def _update(self) -> None:
        learner, before, clock = self.learner, self.learner.task_step, time.monotonic()
        try:
            records = learner.update()
        except ArithmeticError as error:
            raise ClrlError(
                f"learning {learner.task.name!r} broke down at step {learner.step}: {error}; the "
                f"last checkpoint is kept: lower agent.learning_rate and resume {self.folder.path}"
            ) from error
        speed = (learner.task_step - before) / (time.monotonic() - clock)
        self.cursor.seconds = time.monotonic() - self._began
        self.console.progress(
            self.cursor.visit, learner.task_step, speed, records.get("rollout/return_mean"), records
        )
        if learner.task_step // RECORD_EVERY == before // RECORD_EVERY:
            return
        where = {
            "global_step": learner.step,
            "frames": learner.frames,
            "task_step": learner.task_step,
            "visit": self.cursor.visit + 1,
        }
        times = {"time/steps_per_second": speed, "time/seconds": self.cursor.seconds}
        self.metrics.append(where | {"task": learner.task.name} | records | times)
        self.tracker.log(where | records | times)

    def _evaluate_if_due(self) -> None:
        every, done = self.config.evaluation.every, self.learner.task_step
        if every and done // every > self.cursor.evaluated // every:
            self._evaluate("during", self.cursor.visit + 1)
            self.cursor.evaluated = done

    def _evaluate(self, phase: Phase, visit: int) -> None:
        """Evaluate all tasks; nothing is written if a stop is asked for on the way."""
        evaluator = Evaluator(
            self.learner,
            self.sequence.tasks,
            self.config.evaluation.episodes,
            self.config.evaluation.unseen,
        )
        rows = evaluator.rows(phase, visit, self.signals.check)
        means: dict[str, float] = {}
        for row in rows:
            self.evaluations.append(row)
        for name in dict.fromkeys(row["task_evaluated"] for row in rows):
            scores = [row["return"] for row in rows if row["task_evaluated"] == name]
            means[name] = float(np.mean(scores))
            self.console.evaluation(max(0, visit - 1), name, means[name], len(scores))
        where = {
            "global_step": self.learner.step,
            "frames": self.learner.frames,
            "task_step": self.learner.task_step,
        }
        self.tracker.log(where | {f"eval/{name}/return": mean for name, mean in means.items()})

    def _finish(self) -> None:
        summary = self._summary()
        write_json_atomic(self.folder.summary, summary)
        share = summary["normalised"]["matrix"]
        self.console.matrix(summary["tasks"], summary["matrix"], self._row_names(), share)

    def _summary(self) -> dict[str, Any]:
        rows, _ = read_records(self.folder.evaluations)
        spent, key = self.cursor.seconds, config_hash(self.config)
        return summarise(rows, self.sequence, self.learner, normalise_task, spent, key)

    def _track_matrix(self, summary: dict[str, Any]) -> None:
        table = [[n, *r] for n, r in zip(self._row_names(), summary["matrix"], strict=False)]
        self.tracker.table("score_matrix", ["", *summary["tasks"]], table)

    def _row_names(self) -> list[str]:
        names = [self.sequence.tasks[k].name for k in self.sequence.visits]
        return ["before", *(f"after {i} {name}" for i, name in enumerate(names, 1))]

    # ---------------------------------------------------------------------------- checkpoints

    def _save_if_due(self) -> None:
        due = self.learner.step - self._saved >= self.config.checkpoint.every
        if due or self.signals.take_save():
            self._save()

    def _save(self, must: bool = False) -> None:
        """Take a checkpoint; if the disk refuses, go on with a notice unless it `must` be."""
        try:
            self.metrics.sync()
            self.evaluations.sync()
            state = {
                "learner": self.learner.state_dict(),
                "cursor": asdict(self.cursor),
                "random": random_state(),
            }
            meta = {
                "config": to_dict(self.config),
                "config_hash": config_hash(self.config),
                "offsets": {
                    "metrics": self.metrics.offset,
                    "evaluations": self.evaluations.offset,
                },
                "wandb_run_id": self.tracker.run_id,
                "threads": torch.get_num_threads(),
                "device": str(self.learner.settings.device),
            }
            keep = self.config.checkpoint.keep
            checkpoint.save(self.folder.checkpoints, self.learner.step, state, meta, keep)
        except checkpoint.CheckpointError as error:
            if must:
                raise
            self.console.notice(f"{error}; training goes on")
        self._saved = self.learner.step

    def _restore(self, found: checkpoint.Checkpoint | None) -> str | None:
        """Stand where the checkpoint was taken; return the tracker's run id."""
        if found is None:
            self.metrics.truncate(0)
            self.evaluations.truncate(0)
            return None
        why = self.learner.load_state_dict(found.state["learner"], self.sequence.tasks)
        self.cursor = Cursor(**found.state["cursor"])
        set_random_state(found.state["random"])
        self.metrics.truncate(found.meta["offsets"]["metrics"])
        self.evaluations.truncate(found.meta["offsets"]["evaluations"])
        device = str(self.learner.settings.device)
        here = {"threads": torch.get_num_threads(), "device": device}
        changed = [f"{k} {found.meta[k]} -> {v}" for k, v in here.items() if found.meta[k] != v]
        if "cuda" in device:
            changed.append("a GPU rounds differently from run to run")
        level = "same learner" if changed or why else "bitwise"
        reasons = "; ".join(filter(None, [*changed, why]))
        level += f" ({reasons})" if reasons else ""
        self.console.resumed(level, found.step, found.path, found.skipped)
        run_id: str | None = found.meta["wandb_run_id"]
        return run_id
