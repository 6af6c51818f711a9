"""Runs in processes of their own, several at a time; each is trained, or resumed where it stopped.

A process is forked from one that has imported everything and done nothing. What a run prints goes
to a log. A run whose study died stops by itself, as after SIGTERM: with all saved.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from clrl.run.config import Config
from clrl.run.folder import RunFolder
from clrl.run.stop import INTERRUPTED, PREEMPTED, Stopped, StopSignals
from clrl.run.train import resume, train
from clrl.types import ClrlError

__all__ = ["Job", "in_processes", "work"]

# What a run imports on its way, in seconds; this process has tried the runs, so it knows which.
LATE_IMPORTS = ("torch._dynamo", "sklearn.datasets")
POLL = 0.5  # s between looks at the signals
PATIENCE = 60.0  # s that a run of a study that was killed is given to save and let go


@dataclass(frozen=True)
class Job:
    """A run to be made.

    Attributes:
        title: what it is called on the way.
        path: its folder, `.../<config.name>/seed<config.seed>`.
        config: its configuration.
        log: the file that its output is added to.
    """

    title: str
    path: Path
    config: Config
    log: Path


def in_processes(
    jobs: Sequence[Job],
    at_a_time: int,
    signals: StopSignals,
    ended: Callable[[Job, str], None],
) -> None:
    """Make runs, `at_a_time` of them at once, in their order.

    Args:
        jobs: the runs.
        at_a_time: processes.
        signals: looked at all the time.
        ended: called with each run that has ended and what went wrong, "" if nothing.

    Raises:
        Stopped: after a signal, when all runs under way have saved and ended.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *(m for m in LATE_IMPORTS if m in sys.modules)])
    waiting: list[Job] = list(jobs)
    active: list[tuple[Job, ForkServerProcess]] = []
    try:
        while waiting or active:
            signals.check()
            while waiting and len(active) < at_a_time:
                active.append((waiting[0], _started(context, waiting.pop(0))))
            wait([process.sentinel for _, process in active], timeout=POLL)
            signals.check()  # before a run that the same signal has ended is taken for a failed one
            over = [pair for pair in active if not pair[1].is_alive()]
            active = [pair for pair in active if pair not in over]
            for job, process in over:
                process.join()
                if process.exitcode in (PREEMPTED, INTERRUPTED):  # somebody stopped this one
                    raise Stopped(process.exitcode)
                ended(job, _what_went_wrong(job, process.exitcode))
    except BaseException:
        for _, process in active:
            _send(process, signal.SIGTERM)  # it saves, and ends
        raise
    finally:
        try:
            _wait_for_all(process for _, process in active)
        except KeyboardInterrupt:  # asked a second time
            for _, process in active:
                _send(process, signal.SIGKILL)
            raise


def _wait_for_all(started: Iterable[ForkServerProcess]) -> None:
    """Wait until processes are gone.

    One whose fork server was killed, by a signal to all processes of a session, has no more to
    say by itself, and may still be saving.
    """
    until = time.monotonic() + PATIENCE
    for process in started:
        process.join()
        while _send(process, 0) and time.monotonic() < until:
            time.sleep(POLL / 10)


def _send(process: ForkServerProcess, number: int) -> bool:
    """Send a signal and return whether there was a process to take it."""
    try:
        assert process.pid is not None
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def _started(context: ForkServerContext, job: Job) -> ForkServerProcess:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=work, args=(job,), name=job.title)
    process.start()
    return process


def work(job: Job) -> None:
    """Train, or resume, one run; the process ends with the exit codes of `clrl train`."""
    threading.Thread(target=_stop_with_the_study, daemon=True).start()
    log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    logging.basicConfig(level=logging.WARNING, format="clrl: %(message)s", stream=sys.stderr)
    logging.getLogger("clrl").setLevel(logging.INFO)
    try:
        make(job)
    except Stopped as stop:
        sys.exit(stop.exit_code)
    except ClrlError as error:
        print(f"clrl: error: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)


def make(job: Job) -> None:
    """Train, or resume, one run in this process."""
    if RunFolder(job.path).config.exists():
        _wait_until_free(RunFolder(job.path))
        resume(job.path)
    else:
        train(job.config, job.path.parent.parent)


def _stop_with_the_study() -> None:
    study = multiprocessing.parent_process()
    if study is not None:
        wait([study.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _wait_until_free(folder: RunFolder) -> None:
    """Wait for a process of a study that was killed a moment ago."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with folder.lock():
                return
        except ClrlError:
            if time.monotonic() > until:
                raise
            time.sleep(POLL)


def _what_went_wrong(job: Job, code: int | None) -> str:
    if code == 0:
        return ""
    try:
        lines = job.log.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    said = [line.partition(": error: ")[2] for line in lines if line.startswith("clrl: error: ")]
    return said[-1] if said and code and code > 0 else f"exit code {code}, see {job.log}"
