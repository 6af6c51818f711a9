"""What a tracker is, and the thread that keeps a slow or broken one away from training."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from clrl.types import ClrlError

__all__ = [
    "Backend",
    "BackgroundTracker",
    "CombinedTracker",
    "Notice",
    "Row",
    "Tracker",
    "TrackingSettings",
]

Notice = Callable[[str], None]  # shows one line to the user; called from trackers' threads too
Row = Sequence[str | float | None]


class TrackingSettings(Protocol):
    """What a configuration says about trackers."""

    @property
    def wandb(self) -> str: ...  # "disabled", "offline" or "online"
    @property
    def project(self) -> str: ...
    @property
    def entity(self) -> str | None: ...
    @property
    def group(self) -> str | None: ...  # None: the experiment's name
    @property
    def tags(self) -> Sequence[str]: ...
    @property
    def tensorboard(self) -> bool: ...


class Backend(Protocol):
    """A tracking library, called from one thread only; it may be slow and it may raise."""

    def log(self, record: Mapping[str, float]) -> None: ...
    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None: ...
    def report(self, html: str, markdown: str) -> None: ...
    def finish(self, exit_code: int) -> None: ...


class Tracker(Protocol):
    """A mirror of the run's records: no call raises; only `finish` waits, for a bounded time."""

    @property
    def run_id(self) -> str | None:
        """The W&B run's id, to be kept in the checkpoint; None where W&B is disabled."""
        ...

    def log(self, record: Mapping[str, float]) -> None:
        """Pass on one record; it holds `global_step` (agent steps), the x axis of everything."""
        ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Pass on a table, such as the score matrix so far; None is a cell without a value."""
        ...

    def report(self, html: str, markdown: str) -> None:
        """Pass on the run's report, a page with its figures, and the same as text."""
        ...

    def finish(self, exit_code: int) -> None:
        """Close. What has not been passed on within the time allowed is left behind."""
        ...


class BackgroundTracker:
    """Serves one backend from a daemon thread, through a bounded queue.

    A backend that raises is not called again; records that find the queue full are dropped. Either
    is said once, in one line, and training goes on: the run's own JSONL files are complete.

    Args:
        label: how notices name it.
        open_backend: makes the backend, in the thread, since this may take long or fail.
        notice: shows a line to the user.
        run_id: see `Tracker.run_id`.
        capacity: most records waiting at a time.
        patience: most seconds `finish` waits.
    """

    def __init__(
        self,
        label: str,
        open_backend: Callable[[], Backend],
        notice: Notice,
        *,
        run_id: str | None = None,
        capacity: int = 10_000,
        patience: float = 60.0,
    ) -> None:
        self.run_id = run_id
        self._label, self._open_backend, self._notice = label, open_backend, notice
        self._capacity, self._patience = capacity, patience
        self._waiting: deque[Callable[[Backend], None]] = deque()
        self._changed = threading.Condition()  # guards the four below and `_waiting`
        self._exit_code: int | None = None  # set: no more will come
        self._broken = False
        self._dropping = False
        self._abandoned = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {label}", daemon=True)
        self._thread.start()

    def log(self, record: Mapping[str, float]) -> None:
        """Queue a copy of the record."""
        copy = dict(record)
        self._put(lambda backend: backend.log(copy))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Queue a copy of the table."""
        heads, cells = list(columns), [list(row) for row in rows]
        self._put(lambda backend: backend.table(name, heads, cells))

    def report(self, html: str, markdown: str) -> None:
        """Queue the report."""
        self._put(lambda backend: backend.report(html, markdown))

    def finish(self, exit_code: int) -> None:
        """Let the thread empty the queue and close the backend, and wait for it for a while."""
        with self._changed:
            if self._exit_code is not None:
                return
            self._exit_code = exit_code
            self._changed.notify()
        started = time.monotonic()
        self._thread.join(self._patience)
        if self._thread.is_alive():
            with self._changed:
                self._abandoned = True
            waited = time.monotonic() - started
            self._say(f"not finished after {waited:.0f} s, what it still held was left behind")

    def _put(self, call: Callable[[Backend], None]) -> None:
        with self._changed:
            if self._broken or self._exit_code is not None:
                return
            full = len(self._waiting) >= self._capacity
            first, self._dropping = full and not self._dropping, self._dropping or full
            if not full:
                self._waiting.append(call)
                self._changed.notify()
        if first:
            self._say(f"{self._capacity} records are waiting, newer ones are dropped")

    def _next(self) -> Callable[[Backend], None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._exit_code is not None)
            return self._waiting.popleft() if self._waiting and not self._abandoned else None

    def _work(self) -> None:
        backend: Backend | None = None
        try:
            backend = self._open_backend()
            while call := self._next():
                call(backend)
        # Whatever a library raises, SystemExit included, must not reach the run.
        except BaseException as error:
            self._fail(error)
        if backend is None:
            return
        with self._changed:  # a broken backend is closed at the run's end, with its exit code
            self._changed.wait_for(lambda: self._exit_code is not None)
        try:
            backend.finish(self._exit_code or 0)
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            again, self._broken = self._broken, True
            self._waiting.clear()
        if again:
            return
        text = str(error).strip().partition("\n")[0]
        if isinstance(error, ClrlError):
            self._say(text)
        else:
            self._say(f"{type(error).__name__}: {text}; nothing more is sent to it")

    def _say(self, text: str) -> None:
        try:
            self._notice(f"{self._label}: {text} (metrics.jsonl has everything)")
        except Exception:  # a closed terminal is no reason to stop either
            return


class CombinedTracker:
    """Passes every call on to each of several trackers; none is fine."""

    def __init__(self, trackers: Iterable[Tracker]) -> None:
        self._trackers = tuple(trackers)

    @property
    def run_id(self) -> str | None:
        """The first run id among the trackers."""
        return next((t.run_id for t in self._trackers if t.run_id is not None), None)

    def log(self, record: Mapping[str, float]) -> None:
        """Pass on one record."""
        for tracker in self._trackers:
            tracker.log(record)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Pass on a table."""
        for tracker in self._trackers:
            tracker.table(name, columns, rows)

    def report(self, html: str, markdown: str) -> None:
        """Pass on the report."""
        for tracker in self._trackers:
            tracker.report(html, markdown)

    def finish(self, exit_code: int) -> None:
        """Close every tracker, one after the other."""
        for tracker in self._trackers:
            tracker.finish(exit_code)
