"""The run folder: one process, one word on how it stands, and refusals before anything starts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clrl.run import folder as folder_module
from clrl.run.folder import RunFolder, write_json_atomic, write_text_atomic
from clrl.types import ClrlError

HOLDER = """
import os, sys, time
from pathlib import Path
from clrl.run.folder import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    ready, tell = os.pipe()
    worker = os.fork() if "fork" in sys.argv else None
    if worker == 0:
        os.write(tell, b"!")
    else:
        if worker:
            os.read(ready, 1)  # it runs, and so has let go of what it must not hold
        print("locked", worker, flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(path: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Run another process that holds the lock."""
    command = [sys.executable, "-c", HOLDER, str(path), *args]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


def refused(call: Any, match: str) -> None:
    with pytest.raises(ClrlError, match=match) as info:
        call()
    assert info.value.exit_code == 2
    assert "\n" not in str(info.value)


# -------------------------------------------------------------------------------------- create


def test_create_makes_the_folder_of_the_layout(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "runs", "smoke", 3)
    assert run.path == tmp_path / "runs" / "smoke" / "seed3"
    assert run.path.is_dir()
    assert run.status is None
    places = [run.config, run.environment, run.metrics, run.evaluations, run.summary]
    assert [place.name for place in places] == [
        *("config.yaml", "environment.json", "metrics.jsonl", "evaluations.jsonl", "summary.json")
    ]
    assert run.checkpoints == run.path / "checkpoints"


@pytest.mark.parametrize("name", ["mein Lauf", "漢字 ü", "<script>", "a.b", "-x", "...x"])
def test_spaces_and_unicode_in_paths_work(tmp_path: Path, name: str) -> None:
    run = RunFolder.create(tmp_path / "räume 1", name, 0)
    with run.lock():
        run.set_status("running")
    run.config.touch()
    assert RunFolder.open(tmp_path / "räume 1" / name / "seed0").status == "running"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc", "a/b", "a\\b", "a\0b", "a\nb"])
def test_a_name_that_is_no_plain_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    refused(lambda: RunFolder.create(tmp_path / "runs", name, 0), "run name")
    assert list(tmp_path.iterdir()) == []


def test_a_name_too_long_for_the_disk_is_refused(tmp_path: Path) -> None:
    refused(lambda: RunFolder.create(tmp_path, "x" * 300, 0), "File name too long")


@pytest.mark.parametrize("status", ["running", "preempted", "failed", "done"])
def test_an_existing_run_is_refused_with_the_command_to_resume_it(
    tmp_path: Path, status: folder_module.Status
) -> None:
    run = RunFolder.create(tmp_path, "a", 0)
    run.config.touch()
    run.set_status(status)
    refused(
        lambda: RunFolder.create(tmp_path, "a", 0), rf"exists \({status}\).*clrl resume {run.path}"
    )
    assert RunFolder.create(tmp_path, "a", 1).path.is_dir()


def test_a_run_killed_before_its_first_word_can_be_resumed_and_so_is_refused(
    tmp_path: Path,
) -> None:
    RunFolder.create(tmp_path, "a", 0).config.touch()
    refused(lambda: RunFolder.create(tmp_path, "a", 0), r"exists \(never finished\)")


def test_an_empty_folder_of_a_failed_start_is_used_and_a_strangers_is_not(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "a", 0)
    with run.lock():
        pass
    (run.path / "config.yaml.tmp-123").touch()  # killed while it wrote its first file
    assert RunFolder.create(tmp_path, "a", 0) == run
    (run.path / "thesis.tex").touch()
    refused(lambda: RunFolder.create(tmp_path, "a", 0), "not empty.*thesis.tex")


@pytest.mark.parametrize("place", ["runs", "runs/a", "runs/a/seed0"])
def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).touch()
    refused(lambda: RunFolder.create(tmp_path / "runs", "a", 0), "cannot hold a run: ")


@pytest.mark.parametrize("made", [False, True])
def test_a_read_only_place_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    place = tmp_path / "a" / "seed0" if made else tmp_path
    place.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path)  # the way there may be closed to the user we become
    for path in (tmp_path, tmp_path / "a"):
        if path.exists():
            path.chmod(0o755)
    place.chmod(0o555)
    root = os.geteuid() == 0
    try:
        if root:  # who may write anywhere
            os.seteuid(65534)
        refused(lambda: RunFolder.create(Path(), "a", 0), "cannot hold a run: Permission denied")
    finally:
        if root:
            os.seteuid(0)
        place.chmod(0o755)


def test_open_finds_a_run_or_names_the_nearest(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "smoke", 0)
    run.config.touch()
    assert RunFolder.open(run.path) == run
    for wrong in (tmp_path / "smoke", tmp_path / "smoke" / "seed1", tmp_path / "smok" / "seed0"):
        refused(lambda wrong=wrong: RunFolder.open(wrong), f"is no run.*did you mean {run.path}\\?")
    refused(lambda: RunFolder.open(tmp_path / "x" / "y" / "z"), "is no run: expected a folder")


# ---------------------------------------------------------------------------------------- lock


def test_a_second_process_is_refused_by_pid_and_host_and_a_killed_ones_lock_is_taken_over(
    tmp_path: Path,
) -> None:
    run = RunFolder(tmp_path)
    with holder(tmp_path) as process:
        assert process.stdout
        assert process.stdout.readline() == "locked None\n"
        host = socket.gethostname()
        refused(lambda: run.lock().__enter__(), f"in use by process {process.pid} on {host} since")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == process.pid  # stale
        with run.lock():
            assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_worker_that_outlives_its_killed_parent_does_not_hold_the_lock(tmp_path: Path) -> None:
    with holder(tmp_path, "fork") as process:
        assert process.stdout
        worker = int(process.stdout.readline().removeprefix("locked "))
        try:
            process.kill()
            process.wait()
            os.kill(worker, 0)  # still there
            with RunFolder(tmp_path).lock():
                pass
        finally:
            os.kill(worker, signal.SIGKILL)


def test_the_lock_is_free_again_afterwards_also_after_an_error(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with run.lock():
        refused(lambda: run.lock().__enter__(), f"in use by process {os.getpid()}")
    with pytest.raises(ZeroDivisionError), run.lock():
        raise ZeroDivisionError
    with run.lock():
        pass
    assert not folder_module._held


@pytest.mark.parametrize("rubbish", ["", "{", "[]", '{"pid": 1}', "\0" * 100])
def test_rubbish_in_the_lock_file_does_not_matter(tmp_path: Path, rubbish: str) -> None:
    (tmp_path / ".lock").write_text(rubbish)
    run = RunFolder(tmp_path)
    with run.lock():
        (tmp_path / ".lock").write_text(rubbish)
        refused(lambda: run.lock().__enter__(), "in use by another process")


def test_a_folder_that_cannot_be_locked_is_refused(tmp_path: Path) -> None:
    refused(lambda: RunFolder(tmp_path / "gone").lock().__enter__(), "No such file")
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    refused(lambda: RunFolder(tmp_path).lock().__enter__(), "cannot hold a run")
    assert not (tmp_path / "elsewhere").exists()


# --------------------------------------------------------------------------------- small files


def test_status_is_one_word_and_a_full_disk_does_not_raise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder(tmp_path)
    run.set_status("running")
    assert (tmp_path / "STATUS").read_text() == "running\n"

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module, "write_durable", full)
    run.set_status("failed")
    assert run.status == "running"
    assert "STATUS=failed not written" in caplog.text


def test_a_failed_write_leaves_the_old_text_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "summary.json"
    write_json_atomic(path, {"ä": [1, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ä": [1, None]}

    def torn(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", torn)
    with pytest.raises(OSError, match="No space"):
        write_text_atomic(path, "new")
    assert json.loads(path.read_text(encoding="utf-8")) == {"ä": [1, None]}
    assert list(tmp_path.iterdir()) == [path]


def test_the_text_is_durable_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watch_fsync(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if path.is_file():
            assert path.read_text() == "text"
        events.append("sync folder" if path == tmp_path else "sync file")
        fsync(fd)

    def watch_replace(source: Any, target: Any) -> None:
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "replace", watch_replace)
    write_text_atomic(tmp_path / "x", "text")
    assert events == ["sync file", "rename", "sync folder"]


def test_json_refuses_what_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomic(tmp_path / "x.json", float("nan"))
    assert list(tmp_path.iterdir()) == []
