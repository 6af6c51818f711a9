"""Signals: a request to stop or to save is noted, and obeyed where the state is whole."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Self

__all__ = ["PREEMPTED", "StopSignals", "Stopped"]

PREEMPTED = 75  # EX_TEMPFAIL: run `clrl resume` again
INTERRUPTED = 130


class Stopped(Exception):
    """The run was asked to stop.

    Attributes:
        exit_code: 75 after SIGTERM, 130 after SIGINT.
        run: the run folder, once all is saved in it.
        again: what to do to go on, where it is not to resume that run.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"asked to stop (exit code {exit_code})")
        self.exit_code = exit_code
        self.run: Path | None = None
        self.again: str | None = None


class StopSignals:
    """While entered: SIGTERM and SIGINT ask to stop, SIGUSR1 asks to save; a second SIGINT kills.

    Outside the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self._exit_code: int | None = None
        self._save = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for which, handler in (
                (signal.SIGTERM, self._stop),
                (signal.SIGINT, self._stop),
                (signal.SIGUSR1, self._note_save),
            ):
                self._before[which] = signal.signal(which, handler)
        return self

    def __exit__(self, *exc: object) -> None:
        for which, handler in self._before.items():
            signal.signal(which, handler)

    def check(self) -> None:
        """Raise `Stopped` if a stop was asked for; called where nothing is half done."""
        if self._exit_code is not None:
            raise Stopped(self._exit_code)

    def take_save(self) -> bool:
        """Tell whether a save was asked for since the last call."""
        asked, self._save = self._save, False
        return asked

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._exit_code is not None:
            raise KeyboardInterrupt
        self._exit_code = INTERRUPTED if number == signal.SIGINT else PREEMPTED

    def _note_save(self, number: int, frame: FrameType | None) -> None:
        self._save = True
