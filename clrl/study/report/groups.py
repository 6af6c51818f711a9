"""Which runs belong together, and whether they may be compared."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from clrl.errors import ClrlError
from clrl.run.folder import RunFolder
from clrl.study.report.runs import Run, read_run

__all__ = ["Group", "differing", "find_runs", "flat", "grouped", "method_of", "require_comparable"]

# What must be the same for scores to be comparable: the tasks, how they are played and measured,
# and the budget. `sequence.name` and `tasks` are compared by what they come to.
SAME = (
    "sequence.steps",
    "sequence.scenario",
    "sequence.held_out",
    "protocol",
    "evaluation.episodes",
    "evaluation.policy",
)
ANY = ("name", "seed", "tracking", "checkpoint", "device", "threads")  # says nothing of a method
UNPLAYED = ("protocol", "evaluation.episodes", "evaluation.policy")  # means nothing for pictures


@dataclass(frozen=True)
class Group:
    """Runs of one experiment, which differ in their seed alone.

    Attributes:
        label: its name in the report.
        runs: by seed.
    """

    label: str
    runs: tuple[Run, ...]

    @property
    def finished(self) -> list[Run]:
        """Those that are through."""
        return [run for run in self.runs if run.finished]

    @property
    def first(self) -> Run:
        """The run with the lowest seed."""
        return self.runs[0]


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Return run folders: those given, or `seed<k>` in them, or `*/seed<k>`.

    What was set aside as damaged (`seed0.damaged-1`) is none.

    Raises:
        ClrlError: a path holds no run.
    """
    found: dict[str, Path] = {}
    for path in paths:
        below = [*_sorted(path.glob("seed*")), *_sorted(path.glob("*/seed*"))]
        inner = [path, *(place for place in below if re.fullmatch("seed[0-9]+", place.name))]
        runs = [place for place in inner if (place / "config.yaml").is_file()]
        if not runs:
            try:
                RunFolder.open(path)  # raises, and names the nearest run
            except ClrlError as error:
                raise ClrlError(f"{error} (or a study's, with study.yaml)", 2) from None
        for run in runs:
            found.setdefault(os.path.realpath(run), run)
    return list(found.values())


def _sorted(paths: Iterable[Path]) -> list[Path]:
    def key(path: Path) -> list[tuple[str, int]]:
        pieces = re.findall(r"([^0-9]*)([0-9]*)", str(path))  # 10 comes after 9
        return [(text, int(number or -1)) for text, number in pieces]

    return sorted(paths, key=key)


def grouped(paths: Sequence[Path]) -> list[Group]:
    """Read runs and put those of one folder together, in the order given.

    Raises:
        ClrlError: a run that cannot be read, or runs of one folder that are not of one experiment.
    """
    folders: dict[str, list[Run]] = {}
    for path in paths:
        run = read_run(path)
        folders.setdefault(os.path.realpath(path.parent), []).append(run)
    groups = []
    labels = _labels(list(folders))
    for folder, runs in folders.items():
        runs.sort(key=lambda run: (run.seed, run.path.name))
        _require_one_experiment(runs)
        groups.append(Group(labels[folder], tuple(runs)))
    return groups


def _labels(folders: Sequence[str]) -> dict[str, str]:
    """Return the shortest ends of the folders' paths that tell them apart."""
    for depth in range(1, max(len(Path(f).parts) for f in folders) + 1):
        labels = {f: "/".join(Path(f).parts[-depth:]) for f in folders}
        if len(set(labels.values())) == len(folders):
            return labels
    return {f: f for f in folders}


def _require_one_experiment(runs: Sequence[Run]) -> None:
    first = runs[0]
    for one, other in pairwise(runs):
        if one.seed == other.seed:
            raise ClrlError(f"{one.path} and {other.path} have the same seed, {one.seed}", 2)
    for run in runs[1:]:
        require_comparable(first, run)
        if lines := differing(first, run):
            raise ClrlError(
                f"{run.path} is of another experiment than {first.path}: {_some(lines)}; give "
                "their folders different names",
                2,
            )


def require_comparable(one: Run, other: Run, *, same_tasks: bool = True) -> None:
    """Refuse runs whose scores say nothing about each other.

    Raises:
        ClrlError: (exit 2) other tasks, protocol or budget; names the first differences.
    """
    lines = []
    for name, a, b in (
        ("tasks", list(one.tasks), list(other.tasks)),
        ("visits", list(one.visits), list(other.visits)),
    ):
        if same_tasks and a != b:
            lines.append(f"{name}: {a} -> {b}")
    keys = tuple(k for k in SAME if one.unit == "return" or k not in UNPLAYED)
    lines += _differences(one.config, other.config, lambda key: _under(key, keys))
    if lines:
        raise ClrlError(
            f"{one.path} and {other.path} cannot be compared: {_some(lines)}; report them apart",
            2,
        )


def differing(one: Run, other: Run) -> list[str]:
    """Return `key: a -> b` for all that differs in how two comparable runs learn."""
    aside = (*ANY, *SAME, "sequence", "evaluation.every", "evaluation.unseen")
    return _differences(one.config, other.config, lambda key: not _under(key, aside))


def method_of(run: Run) -> str:
    """Return the method in words: `ewc (strength 10.0, ...)`, settings that have a short value."""
    settings = dict(run.config.get("method", {}))
    name = str(settings.pop("name", "?"))
    known = [
        f"{key} {value}" for key, value in settings.items() if isinstance(value, int | float | str)
    ]
    return f"{name} ({', '.join(known[:3])})" if known else name


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted keys."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], wanted: Any) -> list[str]:
    """Return what differs; a key that only one of them has came later, and says nothing."""
    one, other = flat(a), flat(b)
    return [
        f"{key}: {json.dumps(one[key])} -> {json.dumps(other[key])}"
        for key in one
        if key in other and wanted(key) and one[key] != other[key]
    ]


def _under(key: str, sections: Iterable[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _some(lines: Sequence[str]) -> str:
    more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
    return "; ".join(lines[:3]) + more
