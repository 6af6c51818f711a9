"""The run folder: its places, its lock, its STATUS, and small files that are whole or absent."""

from __future__ import annotations

import difflib
import fcntl
import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from clrl.errors import ClrlError

__all__ = ["RunFolder", "Status", "fsync_folder", "write_durable", "write_json_atomic"]
__all__ += ["write_text_atomic"]

log = logging.getLogger(__name__)

Status = Literal["running", "preempted", "failed", "done"]

_LEFTOVER = re.compile(
    r"\.lock|.+\.tmp-[0-9]+"
)  # of a start that was killed before it wrote a word


# --------------------------------------------------------------------------------- small files


def write_durable(path: Path, data: bytes) -> None:
    """Write a file and return only when the disk has it; raises `OSError` (a full disk, ...)."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a rename is not, before its folder is synced."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_text_atomic(path: Path, text: str) -> None:
    """Replace a small file: a reader, or a crash, meets the old text or the new, never a part.

    Raises:
        OSError: it cannot be written; the old file is untouched and nothing is left over.
    """
    tmp = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        write_durable(tmp, text.encode())
        tmp.replace(path)
    finally:
        tmp.unlink(missing_ok=True)
    fsync_folder(path.parent)


def write_json_atomic(path: Path, value: Any) -> None:
    """Replace a small JSON file as `write_text_atomic` does; NaN is refused (`ValueError`)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomic(path, text + "\n")


# ------------------------------------------------------------------------------------- the run


@dataclass(frozen=True)
class RunFolder:
    """One run's folder, `runs/<name>/seed<k>`; the layout is a public interface."""

    path: Path

    @classmethod
    def create(cls, runs: Path, name: str, seed: int) -> Self:
        """Make the folder of a new run; take its `lock` before writing anything into it.

        Raises:
            ClrlError: exit code 2: a bad name, a run that exists already, a place not writable.
        """
        if name in ("", ".", "..") or re.search(r"[/\\\x00-\x1f\x7f]", name):
            raise ClrlError(
                f"run name {name!r}: expected a plain folder name, without '/', '\\' or control "
                "characters; set `name` in the configuration",
                2,
            )
        path = runs / name / f"seed{seed}"
        try:
            path.mkdir(parents=True, exist_ok=True)
            found = {item.name for item in path.iterdir() if not _LEFTOVER.fullmatch(item.name)}
            if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
                raise PermissionError(None, "Permission denied")
            fsync_folder(path.parent)
        except (OSError, ValueError) as error:
            raise _unusable(path, error) from error
        run = cls(path)
        if run.config.name in found:
            raise ClrlError(
                f"{path} exists ({run.status or 'never finished'}); resume it with "
                f"`clrl resume {path}`, or choose another name or seed",
                2,
            )
        if found:
            raise ClrlError(
                f"{path} is not empty (it holds {min(found)!r}) and is no run of ours; choose "
                "another name or seed",
                2,
            )
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
        """Return an existing run; raises `ClrlError` with exit code 2 where there is none."""
        run = cls(path)
        if run.config.is_file():
            return run
        places = [*path.glob("seed*"), *path.parent.glob("*"), *path.parent.parent.glob("*/seed*")]
        runs = [str(place) for place in places if (place / run.config.name).is_file()]
        near = difflib.get_close_matches(str(path), runs, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ClrlError(f"{path} is no run: expected a folder with {run.config.name}{hint}", 2)

    @property
    def config(self) -> Path:
        """The resolved configuration; a folder that has it is a run."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, hardware, commit, checksums of the ROMs."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """The training records."""
        return self.path / "metrics.jsonl"

    @property
    def evaluations(self) -> Path:
        """The evaluation records: every metric comes from this file."""
        return self.path / "evaluations.jsonl"

    @property
    def summary(self) -> Path:
        """The score matrix, metrics and costs of the finished run."""
        return self.path / "summary.json"

    @property
    def checkpoints(self) -> Path:
        """The folder that `clrl.run.checkpoint` keeps."""
        return self.path / "checkpoints"

    @property
    def ends(self) -> Path:
        """Checkpoints of the net at the end of every visit, likewise; not to go on from."""
        return self.path / "ends"

    @property
    def videos(self) -> Path:
        """What `clrl record` makes."""
        return self.path / "videos"

    @property
    def status(self) -> str | None:
        """How the run stands, as last written; None before the first word.

        A killed run still says `running`; whether it truly does, only the lock tells.
        """
        try:
            return (self.path / "STATUS").read_text(errors="replace").strip() or None
        except OSError:
            return None

    def set_status(self, status: Status) -> None:
        """Write STATUS; a full disk is logged, not raised: it must not hide why a run ended."""
        try:
            write_text_atomic(self.path / "STATUS", status + "\n")
        except OSError as error:
            log.warning("STATUS=%s not written in %s: %s", status, self.path, error.strerror)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process alone; the kernel lets go of it when the process dies.

        Raises:
            ClrlError: exit code 2: another process holds it (named), or it cannot be locked.
        """
        try:
            fd = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise _unusable(self.path, error) from error
        _held.add(fd)
        try:
            self._claim(fd)
            yield
            os.ftruncate(fd, 0)
        finally:
            if fd in _held:  # not so in a forked child, which has closed it already
                _held.remove(fd)
                os.close(fd)

    def _claim(self, fd: int) -> None:
        """Take the lock or name its holder; what a dead one left is written over."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClrlError(
                f"{self.path} is in use by {_holder(fd) or 'another process'}; wait for it to "
                "end, or stop it first",
                2,
            ) from None
        except OSError as error:
            raise _unusable(self.path, error) from error
        if holder := _holder(fd):
            log.info("taking over %s from %s, which is gone", self.path, holder)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        claim = {"pid": os.getpid(), "host": socket.gethostname(), "started": now}
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(claim).encode(), 0)
        except OSError as error:
            raise _unusable(self.path, error) from error


def _holder(fd: int) -> str | None:
    """Describe who wrote the lock file; None if nobody did (or only half)."""
    try:
        claim = json.loads(os.pread(fd, 4096, 0))
        return f"process {claim['pid']} on {claim['host']} since {claim['started']}"
    except (ValueError, KeyError, TypeError):
        return None


def _unusable(path: Path, error: Exception) -> ClrlError:
    why = getattr(error, "strerror", None) or str(error)
    return ClrlError(f"{path} cannot hold a run: {why}; choose another folder with --runs", 2)


_held: set[int] = set()


def _close_in_child() -> None:
    # A forked environment worker that outlives its parent would otherwise go on holding the lock.
    for fd in _held:
        os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
