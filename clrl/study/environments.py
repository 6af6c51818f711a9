"""What `environment.json` tells of how runs were made: at which commits, changed on their way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["changes", "commits", "of_several_commits"]


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
    """Say from which steps on a run had other settings than before, and which."""
    resumed = {part["step"]: part.get("changed") for part in environment.get("resumed", [])}
    return [  # of several at one step the last: what is before it led to no checkpoint
        f"from step {step:,} on with other settings: {'; '.join(changed)}"
        for step, changed in resumed.items()
        if changed
    ]
