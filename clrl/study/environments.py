"""What `environment.json` tells of how runs were made: at which commits, changed on their way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["changes", "commits", "of_several_commits"]

WITHOUT_EFFECT = ("name:", "tracking.", "checkpoint.")  # on results: `config_hash` leaves them out


def commits(environment: Mapping[str, Any]) -> list[str]:
    """Return the commits that a run was made at, from its `environment.json`; resumed, several."""
    parts = [environment, *environment.get("resumed", [])]
    return [str(part["commit"]) for part in parts if part.get("commit")]


def of_several_commits(found: Iterable[str]) -> list[str]:
    """Say in words whether runs were made at several commits, or with changes not committed."""
    every = sorted(set(found))
    told = [f"runs were made at several commits: {', '.join(every)}"] if len(every) > 1 else []
    if dirty := [commit for commit in every if commit.endswith("-dirty")]:
        told.append(f"runs were made with changes that were not committed: {', '.join(dirty)}")
    return told


def changes(environment: Mapping[str, Any]) -> list[str]:
    """Say from which steps on a run had other settings than before, and which that matter."""
    told = []
    for edit in environment.get("edited", []):
        matter = [line for line in edit["changed"] if not line.startswith(WITHOUT_EFFECT)]
        if matter:
            told.append(f"from step {edit['step']:,} on with other settings: {'; '.join(matter)}")
    return told
