"""Experts: runs that learn one task alone, from scratch, made once and found again.

An expert lies in `EXPERTS/<task>-<key>/seed<k>`; the key is a hash of everything that determines it
(`determinants`). When it is done it is sealed: `expert.json` holds the sha256 of its files. An
expert is used only if its seal holds; one that stopped half-way is gone on with, and one that is
damaged, or stopped and has no whole checkpoint left, is set aside and made anew.

What determines an expert: its resolved configuration but for `name`, `tracking` and `checkpoint`,
which change nothing; the device in fact used; and the versions of the packages whose code it runs.
The processor is not in it: on another one floats may differ in their last bits, but the expert is
as good. Nor is the state of a checkout: while developing `clrl` itself, delete the folder.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from clrl.run import checkpoint
from clrl.run.config import Config, differences, load_config, to_dict
from clrl.run.folder import RunFolder, write_json_atomic
from clrl.run.pretrained import ended_first_visit
from clrl.run.records import read_records
from clrl.study.curves import visit_curve
from clrl.study.plan import PlannedRun, json_ready, short_name
from clrl.study.seal import SEAL, broken_seal, hashes
from clrl.types import ClrlError

__all__ = ["Place", "cannot_be_gone_on_from", "determinants", "expert_key", "inspect", "place"]
__all__ += ["seal", "set_aside", "settings"]

PACKAGES = ("clrl", "torch", "numpy", "gymnasium", "ale-py", "opencv-python-headless")
CHANGE_NOTHING = ("name", "tracking", "checkpoint")
SCHEMA = 1

State = Literal["missing", "unfinished", "unsealed", "sound", "damaged"]
Place = tuple[Path, Config]  # the folder of a run, and its configuration there


def determinants(config: Config) -> dict[str, Any]:
    """Return everything that determines a run, its seed aside, as plain values."""
    data = settings(config)
    del data["seed"]
    packages = list(PACKAGES)
    if any(task.partition(":")[0].lower() == "digits" for task in config.sequence.tasks or ()):
        packages.append("scikit-learn")  # which they come from
    return {
        "schema": SCHEMA,
        "config": data,
        "packages": {name: _version(name) for name in packages},
    }


def settings(config: Config) -> dict[str, Any]:
    """Return the settings that matter to a run's result; the device is the one in fact used."""
    data = to_dict(config)
    for key in CHANGE_NOTHING:
        del data[key]
    if config.device == "auto":
        data["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    return data


def expert_key(config: Config) -> str:
    """Return 12 hex digits of the sha256 of `determinants`."""
    text = json.dumps(determinants(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def place(experts: Path, run: PlannedRun) -> Place:
    """Return where an expert lies, or will, and its configuration there."""
    name = f"{short_name(run.target)}-{expert_key(run.config)}"
    return experts / name / f"seed{run.seed}", replace(run.config, name=name)


def inspect(path: Path, config: Config) -> tuple[State, str]:
    """Tell how an expert stands, and why it is damaged if it is.

    Args:
        path: its folder.
        config: what it must have been made with.

    Returns:
        `missing`; `unfinished`: to be resumed; `unsealed`: done, whole, killed before its seal;
        `sound`: to be used; `damaged`: to be set aside.

    Raises:
        ClrlError: its checkpoint is of a newer clrl.
    """
    folder = RunFolder(path)
    if not folder.config.exists():
        names = [item.name for item in path.glob("*")]
        others = [n for n in names if n != ".lock" and ".tmp-" not in n]
        return ("damaged", "config.yaml is not there") if others else ("missing", "")
    try:
        made_with = load_config(folder.config)
    except ClrlError as error:
        return "damaged", f"config.yaml: {str(error).splitlines()[0]}"
    if changes := differences(settings(made_with), settings(config)):
        return "damaged", f"config.yaml: {changes[0]}"
    if (path / SEAL).exists():
        why = broken_seal(path)
        return ("damaged", why) if why else ("sound", "")
    if folder.status != "done":
        why = _broken_checkpoints(folder)
        return ("damaged", why) if why else ("unfinished", "")
    why = _incomplete(folder)
    return ("damaged", why) if why else ("unsealed", "")


def cannot_be_gone_on_from(path: Path) -> str:
    """Return why other runs cannot take a finished expert's visit over, or ""."""
    try:
        found = checkpoint.load_latest(RunFolder(path).checkpoints)
    except checkpoint.AllBroken as error:
        return str(error)
    if found is None:
        return "its checkpoints are gone"
    return "" if ended_first_visit(found) else "its last checkpoint is gone"


def seal(path: Path, config: Config) -> None:
    """Mark a finished expert as whole.

    Raises:
        ClrlError: it is not.
    """
    if why := _incomplete(RunFolder(path)):
        raise ClrlError(f"the expert {path} is done but not whole: {why}; delete it")
    sealed = json_ready(determinants(config)) | {"sha256": hashes(path)}
    write_json_atomic(path / SEAL, sealed)


def set_aside(path: Path) -> Path:
    """Rename the folder of a damaged expert, so that it is never used again, and return it."""
    n = 1
    while (aside := path.with_name(f"{path.name}.damaged-{n}")).exists():
        n += 1
    return path.rename(aside)


def _broken_checkpoints(folder: RunFolder) -> str:
    """Return why a run cannot be resumed from any checkpoint, or ""; before the first, it can."""
    try:
        checkpoint.load_latest(folder.checkpoints)
    except checkpoint.AllBroken as error:
        return str(error)
    return ""


def _incomplete(folder: RunFolder) -> str:
    """Return what is missing of a finished run, or "" where nothing is."""
    try:
        summary = json.loads(folder.summary.read_text())
        rows, skipped = read_records(folder.evaluations)
        task = summary["tasks"][summary["visits"][-1]]
        ended = any(row["phase"] == "end" and row["visit"] == 1 for row in rows)
        curve = visit_curve(rows, task, 1)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        return f"summary.json or evaluations.jsonl cannot be used ({type(error).__name__})"
    if skipped:
        return f"evaluations.jsonl has {skipped} lines that are no records"
    if len(rows) < summary.get("evaluation_rows", 0):  # older summaries do not count them
        return f"evaluations.jsonl has {len(rows)} of {summary['evaluation_rows']} records"
    if not ended or any(point.score is None for point in curve[1:]):
        return "evaluations.jsonl lacks evaluations"
    return ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
