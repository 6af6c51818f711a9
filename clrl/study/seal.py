"""The seal of a finished expert: the sha256 of the files that studies rest on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

__all__ = ["SEAL", "broken_seal", "hashes"]

SEAL = "expert.json"
SEALED = ("config.yaml", "evaluations.jsonl", "summary.json")


def hashes(path: Path) -> dict[str, str]:
    """Return the sha256 of every sealed file of a run folder."""
    return {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in SEALED}


def broken_seal(path: Path) -> str:
    """Return what differs from the seal, or "" where nothing does."""
    try:
        files = json.loads((path / SEAL).read_text())["sha256"]
        changed = [name for name, found in hashes(path).items() if found != files[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"what is sealed cannot be read: {error}"
    return f"{changed[0]} is not what was sealed" if changed else ""
