"""Checkpoints that are whole or absent, and that never run code when they are read.

A checkpoint is a folder `step_<n>` of three data files and a manifest:

    tensors.safetensors   every torch tensor, named by its place in the state ("net/body.0.weight")
    arrays.npz            every numpy array, named likewise, uncompressed
    state.json            the rest: the state itself, with references where tensors and arrays were
    manifest.json         schema, step, meta, versions, size and sha256 of the above and of itself

`save` writes it beside its final place and renames it there; `load_latest` takes the newest that
verifies. What is read is judged as if a stranger had sent it: sizes before memory, digests before
parsing, no symlinks, no pickle.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import re
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from clrl.errors import ClrlError
from clrl.run.folder import fsync_folder, write_durable, write_text_atomic
from clrl.run.state_files import ARRAYS, Broken, from_npz, put_together, take_apart, to_npz

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SCHEMA_VERSION", "AllBroken", "Checkpoint", "CheckpointError", "clean", "load_each"]
__all__ += ["load_latest", "save"]

SCHEMA_VERSION = 1
MAX_FILE_BYTES = 16 << 30
MAX_MANIFEST_BYTES = 1 << 20

_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_FINAL = re.compile(r"step_([0-9]+)(?:\.old-[0-9]+)?")  # .old: while it is being replaced
_ASIDE = re.compile(r"(.+)\.(tmp|old)-([0-9]+)")
_SAFE_NAME = re.compile(r"[A-Za-z0-9._-]+")


class CheckpointError(ClrlError):
    """A checkpoint could not be taken; those before it are intact, so training may go on."""


class AllBroken(ClrlError):
    """There are checkpoints, but no whole one."""


@dataclass(frozen=True)
class Checkpoint:
    """What `load_latest` found.

    Attributes:
        state: as given to `save`; tensors on the CPU, numpy scalars as plain numbers.
        meta: as given to `save`, after a trip through JSON.
        step: as given to `save`.
        path: its folder.
        skipped: one line for each newer checkpoint that could not be used, and why.
    """

    state: dict[str, Any]
    meta: dict[str, Any]
    step: int
    path: Path
    skipped: list[str] = field(default_factory=list)


# ---------------------------------------------------------------------------------------- save


def save(
    folder: Path, step: int, state: Mapping[str, Any], meta: Mapping[str, Any], keep: int = 2
) -> Path:
    """Write `folder/step_<step>`, durable before it is visible; keep it and `keep - 1` older ones.

    Checkpoints of later steps are removed too: a run that saves here has left that future.

    Args:
        folder: the checkpoints folder of a run, made if absent; one process at a time (the lock).
        step: counts up, at least 0; a checkpoint of the same step is replaced.
        state: nested dicts (str or int keys), lists and tuples of torch tensors of any device and
            dtype, numeric numpy arrays and scalars, str, int, float, bool, None. Tensors that
            share memory come back apart.
        meta: JSON for the manifest: config hash, counters, offsets of the record files.
        keep: how many checkpoints to keep, at least 1.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: the disk is full or refuses; nothing half-written stays behind.
        TypeError: a leaf that cannot be stored, named by its place.
    """
    final = folder / f"step_{step}"
    tmp = folder / f"{final.name}.tmp-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir()
        _write(tmp, step, state, meta)
        _read_verified(tmp, step)  # what does not read back never gets a name
        _fault("before_rename")
        _rename(tmp, final)
        _fault("before_latest")
        write_text_atomic(folder / "LATEST", final.name + "\n")
        _prune(folder, step, keep)
    except (OSError, Broken) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(
            f"checkpoint of step {step} not saved in {folder}: {why}; earlier ones are intact, "
            "make room or mend the folder"
        ) from error
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    return final


def _write(tmp: Path, step: int, state: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    from safetensors.torch import save as save_tensors  # here: who only reads needs no torch

    tensors: dict[str, Tensor] = {}
    arrays: dict[str, NDArray[Any]] = {}
    skeleton = take_apart(state, "", tensors, arrays)
    writers: dict[str, Callable[[], bytes]] = {  # called one by one: one file in memory at a time
        _TENSORS: lambda: save_tensors(tensors),
        ARRAYS: lambda: to_npz(arrays),
        _STATE: lambda: _json(skeleton),
    }
    files = {}
    for name, data_of in writers.items():
        data = data_of()
        write_durable(tmp / name, data)
        files[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        _fault("slow_save")
        _fault(f"after_{name}")
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "step": step,
        "files": files,
        "meta": dict(meta),
        "versions": _versions(),
    }
    manifest["sha256"] = _digest(manifest)
    write_durable(tmp / _MANIFEST, _json(manifest))
    fsync_folder(tmp)


def _rename(tmp: Path, final: Path) -> None:
    """Put a finished folder in its place; a kill in between loses neither the old nor the new."""
    old = final.with_name(f"{final.name}.old-{os.getpid()}")
    replacing = final.exists()
    if replacing:  # in two steps: a folder that is not empty cannot be replaced in one
        final.replace(old)
        _fault("between_renames")
    tmp.replace(final)
    fsync_folder(final.parent)
    if replacing:
        _discard(old)


def _prune(folder: Path, step: int, keep: int) -> None:
    older = [path for n, path in _candidates(folder) if n < step]
    later = [path for n, path in _candidates(folder) if n > step]
    for path in older[max(keep - 1, 0) :] + later:
        _discard(path)


def _discard(path: Path) -> None:
    # First renamed, so that a kill halfway leaves rubbish for `clean` and not a broken checkpoint.
    rubbish = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    shutil.rmtree(rubbish, ignore_errors=True)
    path.replace(rubbish)
    shutil.rmtree(rubbish, ignore_errors=True)


def clean(folder: Path) -> None:
    """Remove what a killed process left of its saves; call once at start, holding the lock."""
    for path in sorted(folder.glob("*")):
        match = _ASIDE.fullmatch(path.name)
        if not match or _lives(int(match[3])):
            continue
        final = folder / match[1]
        if match[2] == "old" and not final.exists():
            path.replace(final)  # killed between two renames: the old one is still good
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    """Tell whether another process has this pid; our own was a dead one's (as in a container)."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


# ---------------------------------------------------------------------------------------- load


def load_latest(folder: Path, *, as_numpy: bool = False) -> Checkpoint | None:
    """Return the newest checkpoint that verifies, or None where none was ever taken.

    Args:
        folder: the checkpoints folder of a run.
        as_numpy: return arrays for tensors, without loading torch.

    Raises:
        AllBroken: there are checkpoints, but no whole one.
        ClrlError: one is of a newer clrl.
    """
    skipped: list[str] = []
    for step, path in _candidates(folder):
        try:
            return replace(_load(path, step, as_numpy), skipped=skipped)
        except Broken as error:
            skipped.append(f"{path}: {error}")
    if skipped:
        raise AllBroken("no checkpoint can be used: " + "; ".join(skipped))
    return None


def load_each(folder: Path) -> Iterator[Checkpoint]:
    """Yield all checkpoints of a folder, oldest first.

    Raises:
        ClrlError: one of them is broken.
    """
    for step, path in reversed(_candidates(folder)):
        try:
            yield _load(path, step)
        except Broken as error:
            raise ClrlError(f"{path} cannot be used: {error}") from error


def _load(path: Path, step: int, as_numpy: bool = False) -> Checkpoint:
    """Raise `Broken` for what is not usable, and `ClrlError` for what is of a newer clrl."""
    library = importlib.import_module(f"safetensors.{'numpy' if as_numpy else 'torch'}")
    try:
        manifest, data = _read_verified(path, step)
        tensors = library.load(data[_TENSORS])
        state = put_together(json.loads(data[_STATE]), tensors, from_npz(data[ARRAYS]))
        return Checkpoint(state, manifest["meta"], step, path)
    except (ClrlError, Broken):
        raise
    except Exception as error:  # whatever hostile bytes make a parser say: not usable
        raise Broken(f"unreadable ({type(error).__name__}: {error})") from error


def _candidates(folder: Path) -> list[tuple[int, Path]]:
    """List what bears a checkpoint's name, newest first, one being replaced after its new self."""
    found = [(match, path) for path in folder.glob("step_*") if (match := _match(path))]
    found.sort(key=lambda item: (-int(item[0][1]), len(item[1].name)))
    return [(int(match[1]), path) for match, path in found]


def _match(path: Path) -> re.Match[str] | None:
    return _FINAL.fullmatch(path.name)


def _read_verified(path: Path, step: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the manifest and the bytes of every file it names, all of them verified."""
    if path.is_symlink() or not path.is_dir():
        raise Broken("not a folder")
    manifest = _read_manifest(path, step)
    data = {}
    for name, entry in manifest["files"].items():
        data[name] = _read(path / name, MAX_FILE_BYTES, entry["size"])
        if hashlib.sha256(data[name]).hexdigest() != entry["sha256"]:
            raise Broken(f"{name} is damaged (its sha256 is not the manifest's)")
    return manifest, data


def _read_manifest(path: Path, step: int) -> dict[str, Any]:
    try:
        manifest = json.loads(_read(path / _MANIFEST, MAX_MANIFEST_BYTES))
        schema, files, digest = manifest["schema_version"], manifest["files"], manifest["sha256"]
        names = list(files)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Broken(f"{_MANIFEST} is no manifest ({type(error).__name__}: {error})") from None
    if type(schema) is int and schema > SCHEMA_VERSION:
        raise ClrlError(
            f"{path} has checkpoint schema {schema}, this clrl reads up to {SCHEMA_VERSION}; "
            f"resume it with the clrl that wrote it ({manifest.get('versions')})"
        )
    if schema != SCHEMA_VERSION:
        raise Broken(f"unknown checkpoint schema {schema!r}")
    if bad := [name for name in names if not _SAFE_NAME.fullmatch(name) or name in (".", "..")]:
        raise Broken(f"{_MANIFEST} names {bad[0]!r}, which is no plain file name")
    if missing := {_TENSORS, ARRAYS, _STATE} - set(names):
        raise Broken(f"{_MANIFEST} lacks {min(missing)}")
    if digest != _digest({key: manifest[key] for key in manifest if key != "sha256"}):
        raise Broken(f"{_MANIFEST} is damaged (its own sha256 does not fit)")
    if manifest["step"] != step:
        raise Broken(f"{_MANIFEST} is of step {manifest['step']}")
    return dict(manifest)


def _read(path: Path, limit: int, size: int | None = None) -> bytes:
    """Read a plain file of the expected size, which is checked before memory is reserved."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Broken(f"{path.name} cannot be opened ({error.strerror})") from None
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise Broken(f"{path.name} is no plain file")
        if size is not None and info.st_size != size:
            raise Broken(f"{path.name} has {info.st_size} bytes, the manifest says {size}")
        if info.st_size > limit:
            raise Broken(f"{path.name} has {info.st_size} bytes, more than the limit of {limit}")
        return file.read(info.st_size)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(_json(manifest)).hexdigest()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("clrl", "torch", "numpy", "safetensors", "ale-py", "gymnasium"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return versions


def _fault(point: str) -> None:
    """For tests: die here, or stall, if `CLRL_FAULT` names this point."""
    if os.environ.get("CLRL_FAULT") == point:
        if point == "slow_save":
            time.sleep(0.5)
        else:
            os.kill(os.getpid(), signal.SIGKILL)
