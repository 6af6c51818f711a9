"""`clrl doctor`: it finds what is there and what is missing, and names what mends it."""

from __future__ import annotations

import importlib.util
import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from ale_py import roms

from clrl import doctor
from clrl.doctor import Check, examine, usable


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Look at no one's own settings."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("ALE_ROMS_DIR", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def named(checks: list[Check], name: str) -> Check:
    (found,) = [check for check in checks if check.name == name]
    return found


def without(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Make a module look as if it were not installed."""
    find = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name == module else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def test_a_machine_with_everything_is_usable(tmp_path: Path) -> None:
    checks = examine(tmp_path / "runs")
    assert usable(checks)
    assert named(checks, "python").value.startswith(platform.python_version())
    assert named(checks, "torch").value == torch.__version__
    total = len(roms.get_all_rom_ids())
    assert named(checks, "ROMs") == Check("ROMs", "ok", f"{total} of {total} present, md5 right")
    assert "GiB free" in named(checks, "disk").value
    assert not (tmp_path / "runs").exists()
    for check in checks:
        assert check.state == "ok" or check.remedy, check


@pytest.mark.parametrize("name", list(doctor.REQUIRED))
def test_a_missing_requirement_is_told_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module = doctor.REQUIRED[name]
    without(monkeypatch, module)
    check = doctor._package(name, module)
    assert (check.state, check.remedy) == ("missing", f"pip install '{name}'")
    assert not usable([check])


def test_a_missing_option_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "tensorboard")
    check = doctor._package("tensorboard", *doctor.OPTIONAL["tensorboard"])
    assert (check.state, check.remedy) == ("note", "pip install tensorboard")
    assert usable([check])


def test_roms_are_compared_by_their_content(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    none = doctor._roms()
    assert (none.state, none.remedy) == ("missing", "unset ALE_ROMS_DIR")
    source = Path(roms.__file__).parent
    for path in source.glob("*.bin"):
        (tmp_path / path.name).symlink_to(path)
    assert doctor._roms().state == "ok"
    (tmp_path / "pong.bin").unlink()
    (tmp_path / "pong.bin").write_bytes(b"not Pong")
    one = doctor._roms()
    assert one.state == "note" and one.value.endswith("not: pong")


def test_without_ale_py_there_are_no_roms(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "ale_py")
    assert doctor._roms() == Check(
        "ROMs", "missing", "ale-py is not installed", "pip install ale-py"
    )


def test_a_key_is_found_and_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert doctor._wandb_key().state == "note"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret-one\n")
    found = doctor._wandb_key()
    assert found.state == "ok" and "secret" not in str(found)
    (tmp_path / "netrc").write_text("machine elsewhere.org login user password secret-one\n")
    assert doctor._wandb_key().state == "note"
    (tmp_path / "netrc").write_text("no netrc at all {")
    assert doctor._wandb_key().state == "note"
    monkeypatch.setenv("WANDB_API_KEY", "secret-two")
    found = doctor._wandb_key()
    assert found.state == "ok" and "secret" not in str(found)


@pytest.mark.parametrize(
    ("version", "state"),
    [("3.10.2", "missing"), ("3.11.0", "ok"), ("3.13.9", "ok"), ("3.14.0", "missing")],
)
def test_the_python_versions_are_those_of_the_package(
    monkeypatch: pytest.MonkeyPatch, version: str, state: str
) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: version)
    monkeypatch.setattr(platform, "python_version_tuple", lambda: tuple(version.split(".")))
    assert doctor._python().state == state


def test_data_sets_that_are_there_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLRL_DATA", str(tmp_path))
    (check,) = doctor._data_sets()
    assert check == Check("data sets", "ok", f"digits ({tmp_path})", "clrl fetch NAME, for others")
    (tmp_path / "cifar-100-binary").mkdir()
    for name in ("train.bin", "test.bin"):
        (tmp_path / "cifar-100-binary" / name).touch()
    without(monkeypatch, "sklearn")
    assert doctor._data_sets()[0].value == f"cifar100 ({tmp_path})"
    monkeypatch.setenv("CLRL_DATA", str(tmp_path / "nowhere"))
    (check,) = doctor._data_sets()
    assert check.state == "note" and "nowhere" in check.value and "CLRL_DATA" in check.remedy


def test_little_disk_is_a_note_and_a_closed_folder_is_not_usable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = type("usage", (), {"free": doctor.LITTLE_DISK - 1})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage)
    assert doctor._disk(tmp_path / "a" / "b").state == "note"
    monkeypatch.setattr(doctor.os, "access", lambda folder, mode: False)
    assert doctor._disk(tmp_path / "a" / "b").state == "missing"


def test_a_limit_on_threads_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert doctor._cores().state == "note"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert doctor._cores().state == "ok"


@pytest.mark.parametrize(
    ("load", "cores", "state"), [(0.2, 2, "ok"), (1.0, 2, "note"), (3.9, 8, "ok")]
)
def test_a_busy_machine_is_told_of(
    load: float, cores: int, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (load, 9.0, 9.0), raising=False)
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: cores)
    (check,) = doctor._load()
    assert check.state == state
    assert ("threads=1" in check.remedy) == (state == "note")
