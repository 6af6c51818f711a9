"""A transfer study, from one file to `study.json`: what is missing is made, then all is compared.

    runs/<study>/
      study.yaml   resolved        study.json  study.csv  study.md   the result
      runs/<method>-<source>-<target>/seed<k>/   a run folder each      logs/
    runs/experts/  shared by all studies

Stopped or killed at any point, the same command goes on; what is done is never made twice.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from clrl.run.assemble import assemble, sequence_of
from clrl.run.config import Config, differences, load_config
from clrl.run.folder import RunFolder, write_json_atomic, write_text_atomic
from clrl.run.records import read_records
from clrl.run.stop import Stopped, StopSignals
from clrl.run.yaml_safe import dump
from clrl.study import experts as expert_store
from clrl.study.environments import commits, of_several_commits
from clrl.study.pace import Pace, in_words
from clrl.study.plan import PlannedRun, Study, load_study
from clrl.study.processes import Job, in_processes
from clrl.study.report import RENDERERS
from clrl.study.transfer_matrix import transfer_matrix
from clrl.study.transfer_metrics import Finished, Normalise
from clrl.study.transfer_text import csv_text, markdown, show
from clrl.types import ClrlError

__all__ = ["transfer"]

LISTED = 40  # runs that a dry run names
RESULT = ("study.json", "study.csv", "study.md")


def transfer(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    runs: Path,
    normalise: Normalise,
    jobs: int = 1,
    plan_only: bool = False,
) -> Path:
    """Make what is missing of a study, compare all, and return the study's folder.

    Args:
        path: the study's YAML file.
        overrides: `a.b=c`.
        runs: the folder of all studies; experts are kept in its `experts`.
        normalise: task and raw score to a scale on which random play has 0 and a human 1.
        jobs: runs at a time.
        plan_only: tell what remains, and stop.

    Raises:
        ClrlError: a study that cannot be run, one that is running, runs that were made on other
            terms, or runs that failed (the others are done).
        Stopped: after a signal, when everything has been saved.
    """
    study = load_study(path, overrides)
    _refuse_what_a_run_would(study)
    folder = runs / study.config.name
    if not plan_only:
        _make_folder(folder)
    todo = _Study(study, folder, runs / "experts", jobs, normalise)
    if plan_only:
        missing = [run for run, _ in todo.missing()]
        todo.announce(missing)
        _say_each(missing)
        return folder
    with StopSignals() as signals, RunFolder(folder).lock():
        try:
            todo.go(signals)
        except Stopped as stop:
            stop.again = "the same command"
            raise
    return folder


def _refuse_what_a_run_would(study: Study) -> None:
    """Assemble one run of each method, and each expert: bad settings and missing data end it."""
    first = {run.method: run for run in reversed(study.runs)}
    for run in [*study.experts, *first.values()]:
        assemble(run.config, sequence_of(run.config))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        strange = [item.name for item in folder.iterdir() if item.name.startswith("seed")]
    except OSError as error:
        raise ClrlError(f"{folder} cannot hold a study: {error.strerror}", 2) from error
    if strange:
        raise ClrlError(f"{folder} holds a run ({strange[0]}): give the study another name", 2)


@dataclass
class _Study:
    """A study under way."""

    study: Study
    folder: Path
    experts: Path
    at_a_time: int
    normalise: Normalise
    failed: list[str] = field(default_factory=list)
    places: list[tuple[PlannedRun, Path, Config]] = field(init=False)

    def __post_init__(self) -> None:
        self.places = [(run, *self._place(run)) for run in (*self.study.experts, *self.study.runs)]

    def go(self, signals: StopSignals) -> None:
        """Make what is missing, and write the result."""
        self.repair_experts()
        missing = self.missing()
        for name in (*RESULT, *RENDERERS):  # of another study.yaml, or of fewer runs
            (self.folder / name).unlink(missing_ok=True)
        write_text_atomic(self.folder / "study.yaml", dump(self.study.to_dict()))
        pace = self.announce([run for run, _ in missing])
        left = {job.path: run for run, job in missing}
        without: set[tuple[str, int]] = set()  # tasks and seeds whose expert failed

        def ended(job: Job, problem: str) -> None:
            run = left.pop(job.path)
            if not problem and not run.sources:
                problem = _sealed(job)
            if problem and not run.sources:
                without.add((run.target, run.seed))
            if problem:
                self.failed.append(f"{job.title}: {problem}")
            self._say_progress(job, run, problem, pace, list(left.values()))

        first = [job for run, job in missing if not run.shares]
        in_processes(first, self.at_a_time, signals, ended)
        rest = []  # they go on from experts
        for run, job in missing:
            if run.shares and run.first in without:
                self.failed.append(f"{job.title}: left out, as the expert it goes on from failed")
            elif run.shares:
                rest.append(job)
        in_processes(rest, self.at_a_time, signals, ended)
        if self.failed:
            lines = "\n".join(self.failed)
            raise ClrlError(f"{len(self.failed)} of the study's runs failed:\n{lines}")
        result = self.result()
        numbers, table, text = (self.folder / name for name in RESULT)
        write_text_atomic(table, csv_text(result))
        write_text_atomic(text, markdown(result))
        write_json_atomic(numbers, result)
        show(
            result,
            Console(stderr=True, width=None if sys.stderr.isatty() else 160, highlight=False),
        )

    def announce(self, missing: Sequence[PlannedRun]) -> Pace:
        """Say what there is, what remains and how long it will take; return what that rests on."""
        config, pace = self.study.config, Pace(self.places)
        _say(
            f"study {config.name}: {len(self.study.sources)} sources, {len(self.study.targets)} "
            f"targets, {len(config.methods)} methods, {len(config.seeds)} seeds: "
            f"{len(self.study.runs)} runs and {len(self.study.experts)} experts"
        )
        if not missing:
            _say("all of them are done")
            return pace
        if not pace.known:
            pace.measure([config for run, _, config in self.places if not run.sources])
        else:
            pace.measure_start_up(missing[0].config)
        experts = sum(not run.sources for run in missing)
        cores = len(os.sched_getaffinity(0)) // (config.run.threads or torch.get_num_threads())
        hint = f"; --jobs {cores} would use every core" if cores > self.at_a_time else ""
        _say(
            f"{len(missing) - experts} runs and {experts} experts remain: "
            f"{in_words(pace.of(missing, self.at_a_time))} with --jobs {self.at_a_time}"
            f"{pace.basis(missing)}{hint}"
        )
        return pace

    def missing(self) -> list[tuple[PlannedRun, Job]]:
        """Return what has to be run, experts first.

        Raises:
            ClrlError: a run is there that was made on other terms.
        """
        found = []
        for run, path, config in self.places:
            if run.sources:
                done = _is_done(run, path)
            else:
                done = expert_store.inspect(path, config)[0] == "sound"
            if not done:
                log = self.folder / "logs" / f"{path.parent.name}-{path.name}.log"
                found.append((run, Job(str(run), path, config, log)))
        return found

    def repair_experts(self) -> None:
        """Set damaged experts aside, and seal those that were killed before they were."""
        needed = {r.first for r, path, config in self.places if r.shares and not _is_done(r, path)}
        for run, path, config in self.places[: len(self.study.experts)]:
            state, why = expert_store.inspect(path, config)
            if state in ("sound", "unsealed") and (run.target, run.seed) in needed:
                why = expert_store.cannot_be_gone_on_from(path)
                state = "damaged" if why else state
            if state == "unsealed":
                expert_store.seal(path, config)
            elif state == "damaged":
                with RunFolder(path).lock():
                    aside = expert_store.set_aside(path)
                _say(f"{run}: damaged ({why}); kept as {aside}, to be made anew")

    def result(self) -> dict[str, Any]:
        """Return the study's numbers."""
        finished = []
        for run, path, _ in self.places:
            rows, skipped = read_records(RunFolder(path).evaluations)
            shown = path.relative_to(self.folder.parent).as_posix()
            summary = _summary(RunFolder(path))
            work = _multiply_adds(summary, len(run.sources) + 1)
            lost = max(0, summary.get("evaluation_rows", 0) - len(rows) - skipped)
            finished.append(Finished(run, shown, rows, skipped, work, lost))
        n = len(self.study.experts)
        result = transfer_matrix(self.study, finished[:n], finished[n:], self.normalise)
        made_in = [_environment(path) for _, path, _ in self.places]
        packages = _packages(made_in)
        result["warnings"] += [
            f"runs were made with several versions of {name}: {', '.join(versions)}"
            for name, versions in packages.items()
            if len(versions) > 1
        ]
        found = [commit for environment in made_in for commit in commits(environment)]
        result["warnings"] += of_several_commits(found)
        return result | {"packages": packages}

    def _place(self, run: PlannedRun) -> expert_store.Place:
        if not run.sources:
            return expert_store.place(self.experts, run)
        config = run.config
        if run.shares:
            first = next(e for e in self.study.experts if (e.target, e.seed) == run.first)
            source = str(expert_store.place(self.experts, first)[0].resolve())
            config = replace(config, sequence=replace(config.sequence, pretrained=source))
        return self.folder / "runs" / config.name / f"seed{run.seed}", config

    def _say_progress(
        self, job: Job, run: PlannedRun, problem: str, pace: Pace, left: list[PlannedRun]
    ) -> None:
        total = len(self.places)
        if problem:
            _say(f"[{total - len(left)}/{total}] {run}: FAILED: {problem}")
            return
        seconds = pace.learn_from(run, job.path)
        rest = f"; {in_words(pace.of(left, self.at_a_time))} left" if left else ""
        _say(f"[{total - len(left)}/{total}] {run}: {in_words(seconds)}{rest}")


def _is_done(run: PlannedRun, path: Path) -> bool:
    folder = RunFolder(path)
    if not folder.config.exists():
        return False
    made_with, wanted = (expert_store.settings(c) for c in (load_config(folder.config), run.config))
    changes = [
        line
        for line in differences(made_with, wanted)
        if not (run.shares and line.startswith("sequence.pretrained"))  # wherever it lay
    ]
    if changes:
        raise ClrlError(
            f"{path} was made on other terms: {'; '.join(changes[:3])}; undo the change, give the "
            "study another name, or delete that folder",
            2,
        )
    return folder.status == "done" and folder.summary.exists()


def _environment(path: Path) -> dict[str, Any]:
    """Return what a run was made with; {} where that cannot be read."""
    try:
        told = json.loads(RunFolder(path).environment.read_text())
        return {**told, "packages": dict(told["packages"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _packages(environments: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the versions of each package that the runs began with."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for environment in environments:
        for name, version in environment.get("packages", {}).items():
            found[name].add(str(version))
    return {name: sorted(versions) for name, versions in sorted(found.items())}


def _summary(folder: RunFolder) -> dict[str, Any]:
    """Return a run's summary; {} where it cannot be read."""
    try:
        return dict(json.loads(folder.summary.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _multiply_adds(summary: Mapping[str, Any], visit: int) -> int | None:
    """Return what an answer took in a visit; None where the summary does not tell."""
    try:
        costs = summary["cost"]["visits"]
        return next(int(cost["multiply_adds"]) for cost in costs if cost["visit"] == visit)
    except (ValueError, KeyError, TypeError, StopIteration):
        return None


def _sealed(job: Job) -> str:
    try:
        expert_store.seal(job.path, job.config)
    except ClrlError as error:
        return str(error)
    return ""


def _say_each(missing: Sequence[PlannedRun]) -> None:
    for run in missing[:LISTED]:
        _say(f"  {run}")
    if len(missing) > LISTED:
        _say(f"  and {len(missing) - LISTED} more")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
