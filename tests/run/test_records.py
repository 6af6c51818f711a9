"""Records: whole rows or none, through full disks, kills and resumes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clrl.run import records
from clrl.run.checkpoint import CheckpointError
from clrl.run.records import RecordFile, read_records
from clrl.types import ClrlError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics ü.jsonl"


def test_rows_come_back_and_the_offset_counts_their_bytes(path: Path) -> None:
    rows: list[dict[str, Any]] = [{"step": 1, "x": 0.1}, {"task": "Pong ü\u2028\n", "x": [1, 2]}]
    with RecordFile(path) as file:
        assert file.offset == 0
        for row in rows:
            file.append(row)
            assert file.offset == path.stat().st_size  # visible at once, before any close
    assert read_records(path) == (rows, 0)
    with RecordFile(path) as file:
        assert file.offset == path.stat().st_size
        file.append({"step": 3})
    assert read_records(path) == ([*rows, {"step": 3}], 0)


def test_every_line_is_strict_json_whatever_the_numbers(path: Path) -> None:
    row = {
        "nan": float("nan"),
        "inf": [np.float32("inf"), {"deep": np.float64("nan")}],
        "numpy": (np.int64(3), np.bool_(True), np.float32(0.5)),
        "tensor": torch.tensor(2.5),
        "nan tensor": torch.tensor(float("nan")),
        7: None,
    }
    with RecordFile(path) as file:
        file.append(row)  # type: ignore[arg-type]

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    (line,) = path.read_text().splitlines()
    assert json.loads(line, parse_constant=refuse) == {
        "nan": None,
        "inf": [None, {"deep": None}],
        "numpy": [3, True, 0.5],
        "tensor": 2.5,
        "nan tensor": None,
        "7": None,
    }


def test_each_row_is_one_write(path: Path) -> None:
    writes: list[bytes] = []
    with RecordFile(path) as file:
        real = file._file

        class Watched:
            closed = False

            def write(self, data: bytes) -> int | None:
                writes.append(data)
                return real.write(data)

        file._file = Watched()  # type: ignore[assignment]
        for step in range(3):
            file.append({"step": step})
        file._file = real
    assert writes == [b'{"step": 0}\n', b'{"step": 1}\n', b'{"step": 2}\n']


# -------------------------------------------------------------------------------------- resume


def test_resume_cuts_back_to_the_checkpoint_and_no_row_is_double_or_missing(path: Path) -> None:
    with RecordFile(path) as file:
        for step in range(5):
            file.append({"step": step})
        file.sync()
        stored = file.offset
        for step in range(5, 9):
            file.append({"step": step})
    with RecordFile(path) as file:
        file.truncate(stored)
        assert file.offset == stored == path.stat().st_size
        for step in range(5, 9):
            file.append({"step": step})
    assert [row["step"] for row in read_records(path)[0]] == list(range(9))


@pytest.mark.parametrize("kept", range(1, 12))
def test_a_half_written_last_line_is_repaired_when_the_file_is_opened(
    path: Path, caplog: pytest.LogCaptureFixture, kept: int
) -> None:
    path.write_bytes(b'{"step": 0}\n' + b'{"step": 1}\n'[:kept])
    assert read_records(path) == ([{"step": 0}], 1)
    with RecordFile(path) as file:
        assert file.offset == 12
        file.append({"step": 1})
    assert read_records(path) == ([{"step": 0}, {"step": 1}], 0)
    assert "half-written" in caplog.text


def test_a_half_line_longer_than_any_block_is_repaired_too(path: Path) -> None:
    path.write_bytes(b"{}\n" + b"x" * 200_000)
    with RecordFile(path) as file:
        assert file.offset == 3
    path.write_bytes(b"x" * 200_000)
    with RecordFile(path) as file:
        assert file.offset == 0
    assert path.read_bytes() == b""


def test_a_file_shorter_than_the_checkpoint_says_is_a_warning(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(b'{"step": 0}\n')
    with RecordFile(path) as file:
        file.truncate(100)
        assert file.offset == 12
        file.append({"step": 9})
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "has 12 bytes but the checkpoint was taken at 100" in record.getMessage()
    assert read_records(path) == ([{"step": 0}, {"step": 9}], 0)


def test_an_offset_within_a_line_never_makes_half_a_row(path: Path) -> None:
    path.write_bytes(b'{"step": 0}\n{"step": 1}\n')
    with RecordFile(path) as file:
        file.truncate(15)
        assert file.offset == 12
    assert path.read_bytes() == b'{"step": 0}\n'


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    for bad in (tmp_path, tmp_path / "none" / "x.jsonl"):
        with pytest.raises(ClrlError, match="cannot write records") as info:
            RecordFile(bad)
        assert info.value.exit_code == 2


# ------------------------------------------------------------------------------------- reading


def test_the_reader_counts_what_is_no_row(path: Path) -> None:
    good = b'{"a": 1}\n'
    lines = [b"\n", b"garbage\n", b"[1]\n", b"3\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n"]
    path.write_bytes(good + good.join(lines) + good + b'{"a": 1}')
    assert read_records(path) == ([{"a": 1}] * 7, 7)


def test_no_file_is_no_rows_and_no_readable_file_is_an_error(tmp_path: Path) -> None:
    assert read_records(tmp_path / "none.jsonl") == ([], 0)
    with pytest.raises(ClrlError, match="cannot read"):
        read_records(tmp_path)


# ----------------------------------------------------------------------------------- full disk

FULL_DISK = """
import resource, sys
from pathlib import Path
from clrl.run.checkpoint import CheckpointError
from clrl.run.records import RecordFile
now = 0.0
file = RecordFile(Path(sys.argv[1]), clock=lambda: now)
for step in range(3):
    file.append({"step": step})
before = file.offset
resource.setrlimit(resource.RLIMIT_FSIZE, (before + 5, resource.RLIM_INFINITY))
for step in range(3, 50):
    now += 0.5
    file.append({"step": step})
    assert file.offset == before
try:
    file.sync()
except CheckpointError as error:
    print(error, error.exit_code)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
now += 60
file.append({"step": 50})
file.sync()
file.append({"step": 51})
file.close()
"""


def test_a_full_disk_is_one_warning_and_every_row_arrives_later(path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read_records(path) == ([{"step": step} for step in range(52)], 0)
    warning, good_news = done.stderr.splitlines()
    assert f"cannot write to {path}: " in warning
    assert "written again; 0 rows were lost" in good_news
    assert done.stdout == f"no checkpoint now: {path} is behind (47 rows wait for disk space) 1\n"


class FullDisk:
    """A file of which every write fails, and how often that was tried."""

    closed = False

    def __init__(self, real: Any) -> None:
        self.real, self.tries = real, 0

    def write(self, data: bytes) -> int:
        self.tries += 1
        raise OSError(28, "No space left on device")

    def fileno(self) -> int:
        return int(self.real.fileno())


def test_pauses_double_up_to_a_minute(path: Path) -> None:
    now = 0.0
    with RecordFile(path, clock=lambda: now) as file:
        real = file._file
        disk = FullDisk(real)
        file._file = disk  # type: ignore[assignment]
        tried = []
        for second in range(400):
            now = float(second)
            before = disk.tries
            file.append({"second": second})
            if disk.tries > before:
                tried.append(second)
        file._file = real
    assert tried == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363]
    assert len(read_records(path)[0]) == 400


def test_the_queue_is_bounded_and_says_what_was_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(records, "MAX_WAITING", 10)
    with RecordFile(path, clock=lambda: 0.0) as file:
        real = file._file
        file._file = FullDisk(real)  # type: ignore[assignment]
        for step in range(25):
            file.append({"step": step})
        file._file = real
        file.sync()
    assert [row["step"] for row in read_records(path)[0]] == list(range(15, 25))
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "15 rows were lost" in caplog.text


def test_a_device_that_is_full_for_ever_never_stops_anything(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with RecordFile(Path("/dev/full")) as file:
        for step in range(1000):
            file.append({"step": step})
        with pytest.raises(CheckpointError, match="1000 rows wait"):
            file.sync()
    assert "1000 rows could not be written" in caplog.text
    assert len(caplog.records) == 2


def test_sync_makes_rows_durable_before_the_offset_is_stored(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))
    with RecordFile(path) as file:
        file.append({"step": 0})
        file.sync()
        assert synced == [file.offset]
