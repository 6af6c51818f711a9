"""Append-only JSONL records: whole lines or none, through full disks, kills and resumes."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from clrl.errors import ClrlError
from clrl.run.checkpoint import CheckpointError

__all__ = ["RecordFile", "read_records"]

log = logging.getLogger(__name__)

MAX_WAITING = 10_000  # rows kept in memory while the disk is full; the oldest go first
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0  # seconds between attempts, doubling


class RecordFile:
    """One JSONL file of a run; opening it drops a half-written last line.

    A full disk never stops the training: one warning, rows wait in memory (at most
    `MAX_WAITING`) and are tried again with growing pauses.

    Args:
        path: the file, made if absent.
        clock: seconds, monotonic; what the pauses are measured with.

    Raises:
        ClrlError: exit code 2: the file cannot be opened.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._delay = 0.0  # 0: the disk is fine
        self._next_try = -math.inf
        try:
            self._file = path.open("ab", buffering=0)
            size = path.stat().st_size
        except OSError as error:
            raise ClrlError(f"cannot write records to {path}: {error.strerror}", 2) from error
        self._offset = _end_of_line(path, size)
        if self._offset < size:
            log.warning("%s: a half-written last line was dropped", path)
            self._cut()

    @property
    def offset(self) -> int:
        """Bytes of whole rows in the file: what a checkpoint stores, after `sync`."""
        return self._offset

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; NaN and infinities become null, numpy and tensor scalars plain numbers.

        Raises:
            TypeError: a value that JSON cannot hold.
        """
        line = json.dumps(_plain(row), allow_nan=False).encode() + b"\n"
        if len(self._waiting) == MAX_WAITING:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(line)
        if self._clock() >= self._next_try:
            self._write_waiting()

    def sync(self) -> None:
        """Make every row durable; call before `offset` goes into a checkpoint.

        Raises:
            CheckpointError: rows still wait for disk space, so a checkpoint would lose them.
        """
        self._write_waiting()
        try:
            if not self._waiting:
                os.fsync(self._file.fileno())
                return
            why = f"{len(self._waiting)} rows wait for disk space"
        except OSError as error:
            why = error.strerror or str(error)
        raise CheckpointError(f"no checkpoint now: {self.path} is behind ({why})")

    def truncate(self, offset: int) -> None:
        """Go back to a checkpoint's offset: later rows will be written again by the resumed run.

        Raises:
            ClrlError: the file cannot be cut.
        """
        if self._offset < offset:
            log.warning(
                "%s has %d bytes but the checkpoint was taken at %d: rows in between are missing",
                self.path,
                self._offset,
                offset,
            )
        self._waiting.clear()
        try:
            self._offset = _end_of_line(self.path, min(offset, self._offset))
            self._cut()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise ClrlError(f"cannot cut {self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Write what waits, if the disk lets us, and close; closing twice is fine."""
        if self._file.closed:
            return
        self._write_waiting()
        if self._waiting:
            log.warning("%s: %d rows could not be written", self.path, len(self._waiting))
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _write_waiting(self) -> None:
        """Write the waiting rows in order, one `write` each, up to the first that fails."""
        while self._waiting:
            line = self._waiting[0]
            try:
                if self._delay:
                    self._cut()  # the part of a line that the failed attempt may have left
                if self._file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, "No space for a whole line")
            except OSError as error:
                self._wait(error)
                return
            self._offset += len(line)
            self._waiting.popleft()
        if self._delay:
            log.warning("%s is written again; %d rows were lost", self.path, self._lost)
        self._delay, self._lost = 0.0, 0

    def _wait(self, error: OSError) -> None:
        if not self._delay:
            log.warning(
                "cannot write to %s: %s; training goes on, rows are kept in memory and tried again",
                self.path,
                error.strerror,
            )
        self._delay = min(2 * self._delay, LONGEST_DELAY) or FIRST_DELAY
        self._next_try = self._clock() + self._delay

    def _cut(self) -> None:
        os.ftruncate(self._file.fileno(), self._offset)


def read_records(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of a JSONL file, and how many lines were no rows and are skipped.

    A half-written last line is one of these, as a run may be writing it now. No file: no rows.

    Raises:
        ClrlError: the file is there and cannot be read.
    """
    rows: list[dict[str, Any]] = []
    skipped = 0
    try:
        with path.open("rb") as file:
            for line in file:
                row = _parse(line)
                if row is None:
                    skipped += 1
                else:
                    rows.append(row)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ClrlError(f"cannot read {path}: {error.strerror}") from error
    return rows, skipped


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _plain(value: Any) -> Any:
    """Turn a record's value into strict JSON."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # a numpy or tensor scalar
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _end_of_line(path: Path, limit: int) -> int:
    """Return where the last whole line within the first `limit` bytes ends."""
    block = 1 << 16
    with path.open("rb") as file:
        while limit > 0:
            start = max(0, limit - block)
            file.seek(start)
            newline = file.read(limit - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            limit = start
    return 0
