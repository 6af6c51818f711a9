"""The walk of a run through its visits.

    before anything   every task is evaluated: row 0 of the matrix
    each visit        begin_task, updates (evaluations and checkpoints on schedule), end_task,
                      every task is evaluated: the next row
    at the end        metrics from the stored evaluations: summary.json

`clrl.run.saving` keeps what is needed to walk on from where it was stopped.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch

from clrl.agents.learner import Learner
from clrl.envs.scores import normalise_task
from clrl.run import checkpoint
from clrl.run.config import Config, config_hash, to_dict
from clrl.run.console import Console
from clrl.run.costs import multiply_adds, peak_memory, sizes
from clrl.run.environment import describe_environment
from clrl.run.evaluate import Evaluator, Phase
from clrl.run.folder import RunFolder, Status, write_json_atomic
from clrl.run.plasticity import plasticity
from clrl.run.pretrained import find_pretrained
from clrl.run.records import RecordFile, read_records
from clrl.run.saving import Saver
from clrl.run.stop import Stopped, StopSignals
from clrl.run.summary import DIGITS, in_short, row_names, show, summarise
from clrl.run.tracking import Tracker, open_trackers
from clrl.study.importances import VisitImportance, save_visit
from clrl.study.report import write_report
from clrl.types import ClrlError, Task, TaskSequence

__all__ = ["Walk"]

log = logging.getLogger(__name__)

TENTHS = 10  # of a visit: how often the net's plasticity is looked at
WHOLE = ("effective_rank",)  # what is said of the whole net, not of a layer
MIRRORED = 1_000  # records of a visit taken over that trackers, whose queue is short, are told of


@dataclass
class Walk:
    """A run under way: what it learns, with what, and where it writes."""

    config: Config
    folder: RunFolder
    sequence: TaskSequence
    learner: Learner
    signals: StopSignals

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
                books = (self.metrics, self.evaluations)
                self.saver = Saver(self.config, self.folder, self.learner, *books, self.console)
                self.cursor = self.saver.restore(found, self.sequence)
                self._describe(found)
                tracker = self.tracker = self._open_trackers()
                self.saver.wandb_run_id = tracker.run_id
                self._began = time.monotonic() - self.cursor.seconds
                try:
                    self._walk()
                    status, exit_code = "done", 0
                except Stopped as stop:
                    self.cursor.seconds = time.monotonic() - self._began
                    self.saver.save(self.cursor, must=True)
                    status, exit_code = "preempted", stop.exit_code
                    stop.run = self.folder.path
                    raise
            finally:
                self.learner.close()
                self.folder.set_status(status)
                if tracker:
                    tracker.finish(exit_code)

    def _describe(self, found: checkpoint.Checkpoint | None) -> None:
        """Write `environment.json`; a resumed run adds where it goes on, and what was edited."""
        here = describe_environment(self.sequence.tasks)
        path = self.folder.environment
        if found and path.exists():
            first = json.loads(path.read_text())
            first.setdefault("resumed", []).append({"step": found.step} | here)
            first.pop("edited", None)  # the checkpoint knows: it may be an older one
            here = first
        if self.saver.edited:
            here["edited"] = self.saver.edited
        write_json_atomic(path, here)

    def _open_trackers(self) -> Tracker:
        return open_trackers(
            self.config.tracking,
            self.folder.path,
            self.config.name,
            self.config.seed,
            to_dict(self.config),
            self.saver.wandb_run_id,
            self.console.notice,
        )

    # ------------------------------------------------------------------------------- the walk

    def _walk(self) -> None:
        if self.cursor.stage == "start":
            self._evaluate("start", 0)
            self.cursor.stage = "begin"
            self.saver.save(self.cursor)
        while self.cursor.visit < len(self.sequence.visits):
            self._visit()
        self._finish()

    def _visit(self) -> None:
        cursor, learner, steps = self.cursor, self.learner, self.config.sequence.steps
        self.console.start_visit(cursor.visit)
        if cursor.stage == "begin":
            self._begin()
        if cursor.stage == "meet":
            self._evaluate("during", cursor.visit + 1, only=learner.task)
            cursor.stage = "learn"
        if cursor.stage == "learn":
            while learner.task_step < steps:
                self.signals.check()
                self._evaluate_if_due()
                if self.saver.due or self.signals.take_save():
                    self.saver.save(cursor)
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
        self.saver.save(cursor)

    def _begin(self) -> None:
        cursor, learner = self.cursor, self.learner
        cursor.began = time.monotonic() - self._began
        task = self.sequence.tasks[self.sequence.visits[cursor.visit]]
        if self.config.sequence.pretrained and not cursor.visit:
            self._take_over(task)
            cursor.stage = "learn"
            return
        new = not learner.net.can_play(task)
        learner.begin_task(task)
        meet = new and self.config.evaluation.every
        cursor.stage, cursor.evaluated = "meet" if meet else "learn", 0

    def _take_over(self, task: Task) -> None:
        """Stand at the end of the first visit's steps as another run has learned them."""
        source, cursor = find_pretrained(self.config, self.sequence), self.cursor
        known = self.learner.net.can_play(task)  # and so evaluated already, at the start
        why = self.learner.take_over(task, source.learner, source.weights)
        notice = f"{task.name!r} was learned by {source.run}: taken over"
        self.console.notice(f"{notice}; games begin anew ({why})" if why else notice)
        layers = dict(self.learner.net.named_modules())
        every = max(1, len(source.metrics) // MIRRORED)
        for k, row in enumerate(source.metrics):
            own = {  # a column calls its layers by other names
                key: value
                for key, value in row.items()
                if not key.startswith("plasticity/") or key.rpartition("/")[2] in {*layers, *WHOLE}
            }
            self.metrics.append(own)
            if k % every == 0:
                self.tracker.log({key: value for key, value in own.items() if key != "task"})
        for step, rows in groupby(source.evaluations, key=lambda row: row["step"]):
            if step > 0 or (self.config.evaluation.every and not known):
                group = list(rows)
                self._write(group, 1, {"global_step": step, "frames": group[0]["frames"]})
        self._began -= source.seconds  # as if it had been learned here
        cursor.evaluating += source.evaluating
        cursor.seconds = time.monotonic() - self._began

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
        where = self._where() | {"visit": self.cursor.visit + 1}
        times = {"time/steps_per_second": speed, "time/seconds": self.cursor.seconds}
        self.metrics.append(where | {"task": learner.task.name} | records | times)
        self.tracker.log(where | records | times)

    def _where(self) -> dict[str, int]:
        learner = self.learner
        steps = {"global_step": learner.step, "frames": learner.frames}
        return steps | {"task_step": learner.task_step}

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
        self._write(rows, visit, self._where())

    def _write(self, rows: Sequence[dict[str, Any]], visit: int, where: dict[str, int]) -> None:
        """Write the rows of one evaluation, show their means, and pass these on."""
        means, score = dict[str, float](), self.learner.score
        for row in rows:
            self.evaluations.append(row)
        for name in dict.fromkeys(row["task_evaluated"] for row in rows):
            own = [row for row in rows if row["task_evaluated"] == name]
            means[name] = float(np.mean([row[score] for row in own]))
            n = sum(row.get("n", 1) for row in own)
            self.console.evaluation(max(0, visit - 1), name, means[name], n)
        self.tracker.log(where | {f"eval/{name}/{score}": mean for name, mean in means.items()})

    # ------------------------------------------------------------------------ a visit's end

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
            **peak_memory(self.cursor.peak_memory),
        }

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

    def _summary(self) -> dict[str, Any]:
        self.cursor.seconds = time.monotonic() - self._began
        rows, _ = read_records(self.folder.evaluations)
        spent = {
            "seconds": round(self.cursor.seconds, 1),
            "seconds_evaluating": round(self.cursor.evaluating, 1),
            **peak_memory(self.cursor.peak_memory),
        }
        key = config_hash(self.config)
        costs = self.cursor.costs
        return summarise(rows, self.sequence, self.learner, normalise_task, spent, costs, key)

    def _track_matrix(self, summary: dict[str, Any]) -> None:
        table = [[n, *r] for n, r in zip(row_names(summary), summary["matrix"], strict=False)]
        self.tracker.table("score_matrix", ["", *summary["tasks"]], table)

    # -------------------------------------------------------------------------------- the end

    def _finish(self) -> None:
        if self.saver.saved != self.learner.step:  # the disk was full: the end would be lost
            self.saver.save(self.cursor, must=True)
        summary = self._summary()
        write_json_atomic(self.folder.summary, summary)
        show(summary, self.console)
        self.tracker.log(self._where() | in_short(summary))
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
