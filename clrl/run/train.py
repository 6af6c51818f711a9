"""One run, from a configuration to a run folder: where tasks, learner and method meet.

    before anything   every task is evaluated: row 0 of the matrix
    each visit        begin_task, updates (evaluations and checkpoints on schedule), end_task,
                      every task is evaluated: the next row
    at the end        metrics from the stored evaluations: summary.json

A checkpoint holds all that the rest of the run depends on, and is taken only where nothing is half
done; on the CPU a resumed run goes on bit for bit as if it had never stopped.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
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
from clrl.run.costs import multiply_adds, sizes
from clrl.run.environment import describe_environment
from clrl.run.evaluate import Evaluator, Phase
from clrl.run.folder import RunFolder, Status, write_json_atomic, write_text_atomic
from clrl.run.plasticity import plasticity
from clrl.run.random_state import random_state, set_random_state
from clrl.run.records import RecordFile, read_records
from clrl.run.stop import Stopped, StopSignals
from clrl.run.summary import summarise
from clrl.run.tracking import Tracker, open_trackers
from clrl.study.importances import VisitImportance, save_visit
from clrl.study.report import write_report
from clrl.types import ClrlError, Task, TaskSequence

__all__ = ["resume", "train"]

log = logging.getLogger(__name__)

TENTHS = 10  # of a visit: how often the net's plasticity is looked at
DIGITS = {"return": None, "accuracy": 2}  # shown of a score; None: as its size deserves


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
    with StopSignals() as signals:
        sequence = sequence or sequence_of(config)
        learner = assemble(config, sequence)
        folder = RunFolder.create(runs, config.name, config.seed)
        with folder.lock():
            write_text_atomic(folder.config, to_yaml(config))
            _Run(config, folder, sequence, learner, signals).go(None)
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
    with StopSignals() as signals, folder.lock():
        if folder.status == "done":
            log.warning("%s is done already: nothing to resume", run)
            _show(json.loads(folder.summary.read_text()))
            return folder.path
        checkpoint.clean(folder.checkpoints)
        checkpoint.clean(folder.ends)
        found = checkpoint.load_latest(folder.checkpoints)
        _check_changes(config, folder, found, allow_change)
        sequence = sequence or sequence_of(config)
        _Run(config, folder, sequence, assemble(config, sequence), signals).go(found)
    return folder.path


def _check_changes(
    config: Config, folder: RunFolder, found: checkpoint.Checkpoint | None, allow_change: bool
) -> None:
    if folder.path.name != f"seed{config.seed}":
        raise ClrlError(
            f"{folder.config} says seed {config.seed}, but the folder is {folder.path.name}: "
            "undo the change or start another run",
            2,
        )
    changes = differences(found.meta["config"], to_dict(config)) if found else []
    if forbidden := [] if allow_change else protected(changes):
        raise ClrlError(
            f"config.yaml has changed since the checkpoint: {'; '.join(forbidden)}; "
            "undo it, start another run, or pass --allow-change",
            2,
        )
    for change in changes:
        log.warning("config.yaml has changed since the checkpoint: %s", change)


def _show(summary: dict[str, Any], console: Console | None = None) -> None:
    """Print the score matrix of a summary."""
    tasks, share = summary["tasks"], summary["normalised"]["matrix"]
    known = any(score is not None for row in share for score in row)
    console = console or Console(tasks, 0, DIGITS[summary.get("score", "return")])
    console.matrix(tasks, summary["matrix"], _row_names(summary), share if known else None)


def _row_names(summary: dict[str, Any]) -> list[str]:
    visits = [summary["tasks"][k] for k in summary["visits"]]
    return ["before", *(f"after {i} {name}" for i, name in enumerate(visits, 1))]


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
    """

    visit: int = 0
    stage: Literal["start", "begin", "meet", "learn", "measure"] = "start"
    evaluated: int = 0
    seconds: float = 0.0
    evaluating: float = 0.0
    began: float = 0.0
    costs: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class _Run:
    config: Config
    folder: RunFolder
    sequence: TaskSequence
    learner: Learner
    signals: StopSignals
    cursor: Cursor = field(default_factory=Cursor)

    def go(self, found: checkpoint.Checkpoint | None) -> None:
        """Walk from the checkpoint, or from the start, to the end; leave STATUS behind."""
        names = [self.sequence.tasks[k].name for k in self.sequence.visits]
        status: Status = "failed"
        exit_code = 1
        with (
            Console(names, self.config.sequence.steps, DIGITS[self.learner.score]) as self.console,
            RecordFile(self.folder.metrics) as self.metrics,
            RecordFile(self.folder.evaluations) as self.evaluations,
        ):
            self.folder.set_status("running")
            tracker: Tracker | None = None
            try:
                self._describe(found)
                self._restore(found)
                tracker = self.tracker = self._open_trackers(found)
                self._began = time.monotonic() - self.cursor.seconds
                self._saved = self.learner.step if found else -1
                try:
                    self._walk()
                    status, exit_code = "done", 0
                except Stopped as stop:
                    self._save(must=True)
                    status, exit_code = "preempted", stop.exit_code
                    stop.run = self.folder.path
                    raise
            finally:
                self.learner.close()
                self.folder.set_status(status)
                if tracker:
                    tracker.finish(exit_code)

    def _describe(self, found: checkpoint.Checkpoint | None) -> None:
        """Write `environment.json`; a resumed run adds where it goes on."""
        here = describe_environment(self.sequence.tasks)
        path = self.folder.environment
        if found and path.exists():
            first = json.loads(path.read_text())
            first.setdefault("resumed", []).append({"step": found.step} | here)
            here = first
        write_json_atomic(path, here)

    def _open_trackers(self, found: checkpoint.Checkpoint | None) -> Tracker:
        return open_trackers(
            self.config.tracking,
            self.folder.path,
            self.config.name,
            self.config.seed,
            to_dict(self.config),
            found.meta["wandb_run_id"] if found else None,
            self.console.notice,
        )

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
            cursor.began = time.monotonic() - self._began
            task = self.sequence.tasks[self.sequence.visits[cursor.visit]]
            new = not learner.net.can_play(task)
            learner.begin_task(task)
            meet = new and self.config.evaluation.every
            cursor.stage, cursor.evaluated = "meet" if meet else "learn", 0
        if cursor.stage == "meet":
            self._evaluate("during", cursor.visit + 1, only=learner.task)
            cursor.stage = "learn"
        if cursor.stage == "learn":
            while learner.task_step < steps:
                self.signals.check()
                self._evaluate_if_due()
                self._save_if_due()
                self._update()
            self.signals.check()
            learner.end_task()
            self._keep_importances()
            cursor.stage = "measure"
        self._evaluate("end", cursor.visit + 1)
        cursor.costs.append(self._cost())
        self._keep_end()
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
            self.cursor.visit,
            learner.task_step,
            speed,
            records.get("rollout/return_mean", records.get("train/accuracy")),
            records,
        )
        steps = self.config.sequence.steps
        if tenth := learner.task_step * TENTHS // steps > before * TENTHS // steps:
            assert learner.latest is not None
            with learner.autocast():
                records |= plasticity(learner.net, *learner.latest)
        every = learner.record_every
        if not tenth and learner.task_step // every == before // every:
            return
        records |= {f"method/{k}": v for k, v in learner.method.records().items()}
        where = {
            "global_step": learner.step,
            "frames": learner.frames,
            "task_step": learner.task_step,
            "visit": self.cursor.visit + 1,
        }
        times = {"time/steps_per_second": speed, "time/seconds": self.cursor.seconds}
        self.metrics.append(where | {"task": learner.task.name} | records | times)
        self.tracker.log(where | records | times)

    def _cost(self) -> dict[str, Any]:
        learner, task = self.learner, self.learner.task
        one = torch.zeros((1, *task.input_shape), dtype=torch.uint8)
        route = learner.method.route(task, 1, training=False)
        device = learner.settings.device
        return {
            "visit": self.cursor.visit + 1,
            "task": task.name,
            "seconds": round(time.monotonic() - self._began - self.cursor.began, 1),
            "multiply_adds": multiply_adds(learner.net, one.to(device), route.to(device)),
            **sizes(learner.net),
        }

    def _evaluate_if_due(self) -> None:
        every, done = self.config.evaluation.every, self.learner.task_step
        if every and done // every > self.cursor.evaluated // every:
            self._evaluate("during", self.cursor.visit + 1)
            self.cursor.evaluated = done

    def _evaluate(self, phase: Phase, visit: int, only: Task | None = None) -> None:
        """Evaluate all tasks, or one; nothing is written if a stop is asked for on the way."""
        clock = time.monotonic()
        evaluator = Evaluator(self.learner, self.sequence.tasks, self.config.evaluation)
        rows = evaluator.rows(phase, visit, self.signals.check, only)
        self.cursor.evaluating += time.monotonic() - clock
        means: dict[str, float] = {}
        score = self.learner.score
        for row in rows:
            self.evaluations.append(row)
        for name in dict.fromkeys(row["task_evaluated"] for row in rows):
            own = [row for row in rows if row["task_evaluated"] == name]
            means[name] = float(np.mean([row[score] for row in own]))
            n = sum(row.get("n", 1) for row in own)
            self.console.evaluation(max(0, visit - 1), name, means[name], n)
        where = {
            "global_step": self.learner.step,
            "frames": self.learner.frames,
            "task_step": self.learner.task_step,
        }
        self.tracker.log(where | {f"eval/{name}/{score}": mean for name, mean in means.items()})

    def _keep_importances(self) -> None:
        if self.config.tracking.importances:
            method = self.learner.method
            weight = {name: p.detach() for name, p in method.net.named_parameters()}
            visit = VisitImportance(self.cursor.visit + 1, method.importances(), weight)
            try:
                save_visit(self.folder.path, visit)
            except ClrlError as error:  # a full disk
                self.console.notice(f"{error}; training goes on")

    def _keep_end(self) -> None:
        if self.config.checkpoint.ends:
            learner, where = self.learner, {"visit": self.cursor.visit + 1}
            try:
                state = learner.played_state()
                checkpoint.save(self.folder.ends, learner.step, state, where, sys.maxsize)
            except checkpoint.CheckpointError as error:
                self.console.notice(f"{error}; training goes on")

    def _finish(self) -> None:
        if (
            self._saved != self.learner.step
        ):  # the disk was full; without this the end would be lost
            self._save(must=True)
        summary = self._summary()
        write_json_atomic(self.folder.summary, summary)
        _show(summary, self.console)
        self._report()

    def _report(self) -> None:
        """Write `report.html` and its kin; whatever goes wrong there, the run is done."""
        try:
            page, text, _ = write_report([self.folder.path], normalise=normalise_task)
            self.tracker.report(page.read_text(), text.read_text())
        except Exception as error:
            log.debug("no report", exc_info=True)
            again = f"make it with: clrl report {self.folder.path}"
            self.console.notice(f"no report ({type(error).__name__}: {error}); {again}")

    def _summary(self) -> dict[str, Any]:
        self.cursor.seconds = time.monotonic() - self._began
        rows, _ = read_records(self.folder.evaluations)
        spent = {
            "seconds": round(self.cursor.seconds, 1),
            "seconds_evaluating": round(self.cursor.evaluating, 1),
        }
        key = config_hash(self.config)
        costs = self.cursor.costs
        return summarise(rows, self.sequence, self.learner, normalise_task, spent, costs, key)

    def _track_matrix(self, summary: dict[str, Any]) -> None:
        table = [[n, *r] for n, r in zip(_row_names(summary), summary["matrix"], strict=False)]
        self.tracker.table("score_matrix", ["", *summary["tasks"]], table)

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
                "random": random_state(self.learner.settings.device),
            }
            meta = {
                "config": to_dict(self.config),
                "config_hash": config_hash(self.config),
                "offsets": {
                    "metrics": self.metrics.offset,
                    "evaluations": self.evaluations.offset,
                },
                "wandb_run_id": self.tracker.run_id,
                "made_with": self._made_with(),
            }
            keep = self.config.checkpoint.keep
            checkpoint.save(self.folder.checkpoints, self.learner.step, state, meta, keep)
        except checkpoint.CheckpointError as error:
            if must:
                raise
            self.console.notice(f"{error}; training goes on")
            return
        self._saved = self.learner.step

    def _made_with(self) -> dict[str, str]:
        """Return all beside the state that must stay the same for a bitwise resume."""
        packages = {name: version(name) for name in ("torch", "numpy", "ale-py")}
        return packages | {
            "threads": str(torch.get_num_threads()),
            "device": str(self.learner.settings.device),
            "configuration": config_hash(self.config)[:8],
        }

    def _restore(self, found: checkpoint.Checkpoint | None) -> None:
        """Stand where the checkpoint was taken, and tell how exactly."""
        if found is None:
            self.metrics.truncate(0)
            self.evaluations.truncate(0)
            return
        why = self.learner.load_state_dict(found.state["learner"], self.sequence.tasks)
        self.cursor = Cursor(**found.state["cursor"])
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
