"""`clrl doctor`: what this machine offers a run, what is missing, and how to mend it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import netrc
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

import clrl

__all__ = ["Check", "examine", "usable"]

State = Literal["ok", "note", "missing"]
REQUIRED = {  # distribution: module
    "torch": "torch",
    "numpy": "numpy",
    "gymnasium": "gymnasium",
    "ale-py": "ale_py",
    "stable-baselines3": "stable_baselines3",
    "opencv-python-headless": "cv2",
    "pydantic": "pydantic",
    "PyYAML": "yaml",
    "rich": "rich",
    "safetensors": "safetensors",
    "typer": "typer",
    "wandb": "wandb",
}
OPTIONAL = {
    "tensorboard": ("tensorboard", "pip install tensorboard"),
    "scikit-learn": ("sklearn", "pip install 'clrl[images]'"),
    "pooch": ("pooch", "pip install 'clrl[images]'"),
}
PYTHONS = ((3, 11), (3, 14))  # from, below
GIB = 2**30
LITTLE_DISK = 2 * GIB


class Check(NamedTuple):
    """One thing looked at."""

    name: str
    state: State  # "missing": a run cannot work; "note": it can, without something
    value: str
    remedy: str = ""  # the command or step that mends it


def examine(runs: Path = Path("runs")) -> list[Check]:
    """Look at everything a run needs; changes nothing and uses no network.

    Args:
        runs: the folder that runs will be written to, for its disk space.
    """
    return [
        _python(),
        Check("clrl", "ok", f"{clrl.__version__} in {Path(clrl.__file__).parent}"),
        *(_package(name, module) for name, module in REQUIRED.items()),
        *(_package(name, *rest) for name, rest in OPTIONAL.items()),
        _cores(),
        *_load(),
        *_device(),
        _roms(),
        *_data_sets(),
        _disk(runs),
        _wandb_key(),
    ]


def usable(checks: list[Check]) -> bool:
    """Tell whether nothing is missing that a run needs."""
    return all(check.state != "missing" for check in checks)


def _python() -> Check:
    version = platform.python_version()
    low, high = (".".join(map(str, v)) for v in PYTHONS)
    parts = tuple(int(part) for part in platform.python_version_tuple()[:2])
    if PYTHONS[0] <= parts < PYTHONS[1]:
        return Check("python", "ok", f"{version} on {platform.platform(terse=True)}")
    return Check("python", "missing", version, f"use Python >= {low} and < {high}")


def _package(name: str, module: str, optional_remedy: str = "") -> Check:
    """Look a package up without importing it."""
    try:
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(module)
    except (ImportError, ValueError):  # ValueError: a broken module of that name
        remedy = optional_remedy or f"pip install '{name}'"
        return Check(name, "note" if optional_remedy else "missing", "not installed", remedy)
    try:
        return Check(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:  # e.g. another build of OpenCV brings the same module
        return Check(name, "ok", f"module {module}, from another package")


def _cores() -> Check:
    usable_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    total = os.cpu_count() or 1
    value = f"{usable_cores or total} of {total} usable"
    limit = os.environ.get("OMP_NUM_THREADS")
    if limit:
        return Check("cores", "note", f"{value}, OMP_NUM_THREADS={limit}", "unset OMP_NUM_THREADS")
    return Check("cores", "ok", value)


def _load() -> list[Check]:
    """Tell when other work has the cores: threads of two runs that wait for each other crawl."""
    if not hasattr(os, "getloadavg"):  # Windows
        return []
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    value = f"{load:.1f} on {cores} cores, mean of a minute"
    if load < max(1.0, cores / 2):
        return [Check("load", "ok", value)]
    remedy = "give each run that goes on at the same time its own cores: threads=1, or 2"
    return [Check("load", "note", value, remedy)]


def _device() -> list[Check]:
    try:
        import torch
    except Exception as error:
        why = f"torch cannot be imported: {type(error).__name__}: {error}"
        remedy = "pip install --force-reinstall torch"
        return [Check("device", "missing", why.splitlines()[0], remedy)]
    threads = Check("torch threads", "ok", str(torch.get_num_threads()))
    if not torch.cuda.is_available():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
        return [threads, Check("device", "ok", f"cpu (torch is built for {built}; no GPU seen)")]
    name = torch.cuda.get_device_name(0)
    memory = torch.cuda.get_device_properties(0).total_memory / GIB
    bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
    return [threads, Check("device", "ok", f"cuda: {name}, {memory:.0f} GiB, {bf16}")]


def _roms() -> Check:
    """Compare every ROM's md5 with ale-py's own list, without starting an emulator."""
    remedy = "pip install --force-reinstall --no-deps ale-py"
    spec = (
        importlib.util.find_spec("ale_py") if _package("ale-py", "ale_py").state == "ok" else None
    )
    if spec is None or spec.origin is None:
        return Check("ROMs", "missing", "ale-py is not installed", "pip install ale-py")
    listed = Path(spec.origin).parent / "roms" / "md5.json"
    folder = Path(os.environ.get("ALE_ROMS_DIR") or listed.parent)
    try:
        expected: dict[str, str] = json.loads(listed.read_text())
    except (OSError, ValueError) as error:
        return Check("ROMs", "missing", f"{listed}: {error}", remedy)
    bad = [name.removesuffix(".bin") for name in expected if _md5(folder / name) != expected[name]]
    good = len(expected) - len(bad)
    value = f"{good} of {len(expected)} present, md5 right"
    if not bad:
        return Check("ROMs", "ok", value)
    if "ALE_ROMS_DIR" in os.environ:
        remedy = "unset ALE_ROMS_DIR"
    shown = ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
    return Check("ROMs", "note" if good else "missing", f"{value}; not: {shown}", remedy)


def _md5(path: Path) -> str:
    try:
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    except OSError:
        return ""


def _data_sets() -> list[Check]:
    """Tell which image data sets are there; games need none."""
    try:
        from clrl.envs.datasets import DATASETS, folder, missing
        from clrl.envs.fetch import altered
    except ImportError:  # of what other checks tell already
        return []
    absent = {name for name in DATASETS if missing(name)}
    value = f"{', '.join(name for name in DATASETS if name not in absent) or 'none'} ({folder()})"
    if "CLRL_DATA" in os.environ and not folder().is_dir():
        remedy = "set CLRL_DATA to the folder of the data sets, or make it with: clrl fetch NAME"
        return [Check("data sets", "note", f"no folder {folder()}", remedy)]
    if wrong := [path for name in DATASETS if name not in absent for path in altered(name)]:
        shown = f"{value}; not as published: {', '.join(map(str, wrong))}"
        return [Check("data sets", "note", shown, "delete these, then: clrl fetch NAME")]
    return [Check("data sets", "ok", value, "clrl fetch NAME, for others" if absent else "")]


def _disk(runs: Path) -> Check:
    folder = runs.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    value = f"{free / GIB:.1f} GiB free in {folder}"
    if not os.access(folder, os.W_OK):
        return Check(
            "disk", "missing", f"cannot write in {folder}", "choose another with --runs DIR"
        )
    if free < LITTLE_DISK:
        return Check("disk", "note", value, "free some, or choose another with --runs DIR")
    return Check("disk", "ok", value)


def _wandb_key() -> Check:
    """Tell whether W&B has a key, never which."""
    if os.environ.get("WANDB_API_KEY"):
        return Check("W&B key", "ok", "in WANDB_API_KEY")
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        found = False
    if found:
        return Check("W&B key", "ok", "in the netrc file")
    return Check("W&B key", "note", "none: runs stay offline", "wandb login")
