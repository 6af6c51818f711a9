"""How long the runs of a study take: from those that are done, or from a short measurement."""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from clrl.run.assemble import assemble, sequence_of
from clrl.run.config import Config
from clrl.run.folder import RunFolder
from clrl.study.plan import PlannedRun
from clrl.study.processes import start_up

__all__ = ["Pace", "in_words", "measure"]

MEASURED = 1.0  # s of learning
MOST = 3  # tasks
GAMES = 5  # of each, to see how long an evaluation takes


class Pace:
    """Seconds per step of each method, evaluations and all, and what every run pays once."""

    def __init__(self, places: Sequence[tuple[PlannedRun, Path, Config]]) -> None:
        """Read it from the runs that are done."""
        self._seconds: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
        self._measured: float | None = None
        self._start_up = 0.0
        for run, path, _ in places:
            if RunFolder(path).status == "done":
                self.learn_from(run, path)

    @property
    def known(self) -> bool:
        """Whether there is anything to go by."""
        return bool(self._seconds) or self._measured is not None

    def basis(self, runs: Sequence[PlannedRun]) -> str:
        """Return what the estimate of runs rests on, where it is weak."""
        if not self._seconds:
            if self._measured is None:
                return ""
            return " (measured on fine-tuning, just now; other methods take longer)"
        new = dict.fromkeys(run.method for run in runs if run.method not in self._seconds)
        if not new:
            return ""
        return f" ({', '.join(new)} not timed yet: taken to be as fast as those that were)"

    def learn_from(self, run: PlannedRun, path: Path) -> float | None:
        """Take in a finished run and return its seconds; None where it does not tell."""
        try:
            seconds = float(json.loads(RunFolder(path).summary.read_text())["cost"]["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        self._seconds[run.method].append((seconds, _steps(run)))
        return seconds

    def measure(self, configs: Sequence[Config]) -> None:
        """Measure how some experts begin, for want of anything better; takes some seconds."""
        first = list({config.sequence.tasks: config for config in configs}.values())[:MOST]
        self._measured = statistics.mean(measure(config) for config in first)
        self.measure_start_up(first[0])

    def measure_start_up(self, config: Config) -> None:
        """Measure what a run takes however short it is."""
        self._start_up = start_up(config)

    def of(self, runs: Sequence[PlannedRun], at_a_time: int) -> float | None:
        """Return the seconds that runs take; None where there is nothing to go by."""
        known = {
            method: [seconds / steps for seconds, steps in done]  # from when a run begins to learn
            for method, done in self._seconds.items()
        }
        every = [x for values in known.values() for x in values]
        other = statistics.median(every) if every else self._measured
        total = 0.0
        for run in runs:
            own = known.get(run.method)
            pace = statistics.median(own) if own else other
            if pace is None:
                return None
            total += self._start_up + pace * (_steps(run) - run.shares * run.config.sequence.steps)
        return total / min(at_a_time, max(1, len(runs)))


def measure(config: Config) -> float:
    """Return seconds per step of a run of one task: some updates, and one evaluation's share.

    Raises:
        ClrlError: as a run would.
    """
    sequence = sequence_of(config)
    learner = assemble(config, sequence)
    try:
        learner.begin_task(sequence.tasks[0])
        learner.update()  # the first one warms up
        before, clock = learner.task_step, time.monotonic()
        while time.monotonic() - clock < MEASURED and learner.task_step < config.sequence.steps:
            learner.update()
        step = (time.monotonic() - clock) / max(1, learner.task_step - before)
        clock = time.monotonic()
        games = min(config.evaluation.episodes, GAMES)
        learner.evaluate(sequence.tasks[0], games, 0)
        share = config.evaluation.episodes / games if learner.kind == "rl" else 1
        evaluation = share * (time.monotonic() - clock)
    finally:
        learner.close()
    return step + evaluation / config.evaluation.every


def in_words(seconds: float | None) -> str:
    """Return a time as people say it.

    >>> in_words(7900), in_words(61), in_words(3.2), in_words(None)
    ('about 2 h 12 min', 'about 1 min', 'about 3 s', 'an unknown time')
    """
    if seconds is None:
        return "an unknown time"
    if seconds < 60:
        return f"about {max(1, round(seconds))} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"about {hours} h {minutes} min" if hours else f"about {minutes} min"


def _steps(run: PlannedRun) -> int:
    """Return the steps that a run's time stands for: what it takes over counts as learned."""
    return (len(run.sources) + 1) * run.config.sequence.steps
