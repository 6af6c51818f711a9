"""What a run was made with: versions, hardware, commit, ROMs, data."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from clrl.envs.datasets import paths
from clrl.envs.vision import VisionTask
from clrl.types import Task

__all__ = ["describe_environment"]

PACKAGES = (
    *("clrl", "torch", "numpy", "gymnasium", "ale-py", "stable-baselines3", "wandb"),
    "scikit-learn",  # whose digits are a data set
)


def describe_environment(tasks: Sequence[Task]) -> dict[str, Any]:
    """Return what `environment.json` holds; absent facts are None."""
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "commit": _commit(),
        "roms": {game: _md5(path) for game, path in sorted(_roms(tasks))},
        "data": {f"{p.parent.name}/{p.name}": _md5(p) for p in _data(tasks) if p.exists()},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, None)


def _commit() -> str | None:
    """Return the commit of the checkout this package is imported from, if it is one."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _roms(tasks: Iterable[Task]) -> set[tuple[str, Path]]:
    from clrl.envs.games import rom_path  # here: data-set runs need no emulator

    games = {getattr(task, "game", None) for task in tasks} - {None}
    return {(str(game), rom_path(str(game))) for game in games}


def _data(tasks: Iterable[Task]) -> list[Path]:
    names = sorted({task.dataset for task in tasks if isinstance(task, VisionTask)})
    return [path for name in names for path in paths(name)]


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
