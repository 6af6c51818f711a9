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

from clrl.run.assemble import assemble, sequence_of
from clrl.run.config import Config
from clrl.run.folder import RunFolder
from clrl.run.stop import INTERRUPTED, PREEMPTED, Stopped, StopSignals
from clrl.run.train import resume, train
from clrl.types import ClrlError

__all__ = ["Job", "in_processes", "start_up", "work"]

log = logging.getLogger(__name__)

# What a run imports on its way, in seconds: every optimizer's first step, and some tasks' data.
LATE_IMPORT = "torch._dynamo"
LATE_IMPORTS_OF_SOME = ("sklearn.datasets",)  # this process has tried the runs: it knows which
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
    context = _context()
    waiting: list[Job] = list(jobs)
    active: list[_Started] = []
    noticed: set[Path] = set()
    try:
        while waiting or active:
            signals.check()
            while len(active) < at_a_time and (job := _next_free(waiting, noticed)):
                waiting.remove(job)
                active.append(_started(context, job))
            wait([one.process.sentinel for one in active], timeout=POLL)
            signals.check()  # before a run that the same signal has ended is taken for a failed one
            over = [one for one in active if not one.process.is_alive()]
            active = [one for one in active if one not in over]
            for one in over:
                one.process.join()
                code = one.process.exitcode
                if code in (PREEMPTED, INTERRUPTED):  # somebody stopped this one
                    raise Stopped(code)
                ended(one.job, _what_went_wrong(one, code))
    except BaseException:
        for one in active:
            _send(one.process, signal.SIGTERM)  # it saves, and ends
        raise
    finally:
        try:
            _wait_for_all(one.process for one in active)
        except KeyboardInterrupt:  # asked a second time
            for one in active:
                _send(one.process, signal.SIGKILL)
            raise


def start_up(config: Config) -> float:
    """Return the seconds of a process that makes a run of one update: what every run pays once."""
    context = _context()
    seconds = 0.0
    for target in (sequence_of, _begin):  # the first one also starts the server of forks
        clock = time.monotonic()
        process = context.Process(target=target, args=(config,))
        process.start()
        process.join()
        seconds = time.monotonic() - clock
    return seconds


def _begin(config: Config) -> None:
    sequence = sequence_of(config)
    learner = assemble(config, sequence)
    learner.begin_task(sequence.tasks[0])
    learner.update()
    learner.close()


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    of_these = (module for module in LATE_IMPORTS_OF_SOME if module in sys.modules)
    context.set_forkserver_preload([__name__, LATE_IMPORT, *of_these])
    return context


@dataclass(frozen=True)
class _Started:
    job: Job
    process: ForkServerProcess
    logged: int  # bytes that were in the log before


def _next_free(waiting: Sequence[Job], noticed: set[Path]) -> Job | None:
    """Return the first run that no other process holds; say once of each that one does."""
    for job in waiting:
        holder = _holder(RunFolder(job.path))
        if not holder:
            return job
        if job.path not in noticed:
            noticed.add(job.path)
            log.warning("%s waits: %s", job.title, holder)
    return None


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


def _started(context: ForkServerContext, job: Job) -> _Started:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    logged = job.log.stat().st_size if job.log.exists() else 0
    process = context.Process(target=work, args=(job,), name=job.title)
    process.start()
    return _Started(job, process, logged)


def work(job: Job) -> None:
    """Train, or resume, one run; the process ends with the exit codes of `clrl train`."""
    threading.Thread(target=_stop_with_the_study, daemon=True).start()
    output = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
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
    """Train, or resume, one run in this process; wait as long as another process is at it."""
    folder = RunFolder(job.path)
    while True:
        _wait_until_free(folder)
        try:
            if folder.config.exists():
                resume(job.path)
            else:
                train(job.config, job.path.parent.parent)
        except ClrlError as error:
            # another study was quicker by a moment, or has only looked who is at it
            if _was_held(error) or _holder(folder):
                continue
            raise
        return


def _stop_with_the_study() -> None:
    study = multiprocessing.parent_process()
    if study is not None:
        wait([study.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _wait_until_free(folder: RunFolder) -> None:
    """Wait for a process of another study, or of one that was killed a moment ago."""
    said = False
    while holder := _holder(folder):
        if not said:
            log.warning("waiting: %s", holder)
            said = True
        time.sleep(POLL)


def _holder(folder: RunFolder) -> str:
    """Say which process is at a run; "" if none is: the kernel frees what a dead one held."""
    if not folder.path.is_dir():
        return ""
    try:
        with folder.lock():
            return ""
    except ClrlError as error:
        # Whatever else is wrong with the folder, the run itself tells best.
        return str(error) if _was_held(error) else ""


def _was_held(error: ClrlError) -> bool:
    """Tell whether a run was refused because another process held its lock."""
    return isinstance(error.__context__, BlockingIOError)


def _what_went_wrong(one: _Started, code: int | None) -> str:
    if code == 0:
        return ""
    try:
        written = one.job.log.read_bytes()[one.logged :]  # before lie earlier attempts
    except OSError:
        written = b""
    lines = written.decode(errors="replace").splitlines()
    said = [line.partition(": error: ")[2] for line in lines if line.startswith("clrl: error: ")]
    return said[-1] if said and code and code > 0 else f"exit code {code}, see {one.job.log}"
