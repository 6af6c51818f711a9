"""The finished runs of a pair of games, as `table.py` compares them: read, and held to agree.

The method of an arm must be that of `ARMS`, whatever its folder is called. Arms of a pair must
agree in `SAME`, those of each net in `BY_NET` too, and in what else their method has if it is the
same; arms that go on from a shared source must go on from the same one. Their seeds may differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pair_arms import ARMS, OTHERS, PAIRS  # beside this file

from clrl.errors import ClrlError
from clrl.run.folder import RunFolder
from clrl.run.records import read_records
from clrl.study.curves import Curve, visit_curve
from clrl.study.metrics import score_matrix

SAME = (  # a section: all of it
    *("precision", "agent", "protocol", "sequence.steps", "net.heads", "net.hidden"),
    *("evaluation.every", "evaluation.episodes", "evaluation.policy"),
)
BY_NET = ("agent.n_envs", "agent.n_steps", "net.body")  # but for these


class Run(NamedTuple):
    """What is told of a finished run.

    Attributes:
        folder: where it lies.
        curve: of the target, over its visit.
        walk: the tasks learned up to then, the target last.
        source_place: the source's in the walk; None where it was not learned.
        source_last: its score after its visit.
        trained: weights trained in the target's visit; None where not recorded.
        settings: what the run must agree in with others, and with whom: (key, group) to value.
    """

    folder: Path
    curve: Curve
    walk: tuple[str, ...]
    source_place: int | None
    source_last: float | None
    trained: int | None
    settings: dict[tuple[str, str], Any]

    @property
    def last(self) -> float:
        score = self.curve[-1].score
        if score is None:
            raise ClrlError(f"{self.folder}: the last evaluation of {self.walk[-1]} is lost")
        return score


Runs = dict[int, Run]  # by seed
Arms = dict[str, Runs]


def runs_of(runs: Path, pair: str, instead: Mapping[str, Path] | None = None) -> Arms:
    """Return the finished runs of a pair by arm and seed.

    Raises:
        ClrlError: a run that is none of its pair and arm, or another's setting (exit 2); a run
            that was not evaluated before and after it learned the target.
    """
    arms: Arms = {}
    for arm in ARMS:
        name = f"{pair}_{arm}"
        folder = (instead or {}).get(name, runs / name)
        done = {int(f.parent.name[4:]): f.parent for f in folder.glob("seed*/summary.json")}
        if done:
            arms[arm] = {seed: run_of(done[seed], pair, arm) for seed in sorted(done)}
    require_agreement(arms)
    return arms


def run_of(folder: Path, pair: str, arm: str) -> Run:
    source, target, _ = PAIRS[pair]
    config = yaml.safe_load(RunFolder.open(folder).config.read_text())
    wanted, alone = ARMS[arm].method, ARMS[arm].alone
    if (method := {key: config["method"].get(key) for key in wanted}) != wanted:
        raise ClrlError(f"{folder} has the method {method}: expected {wanted}", 2)
    summary = json.loads((folder / "summary.json").read_text())
    rows, _ = read_records(folder / "evaluations.jsonl")
    if (lost := summary.get("evaluation_rows", len(rows)) - len(rows)) > 0:
        raise ClrlError(f"{folder} has lost {lost} records of evaluations: make it anew", 2)
    ends = {row["visit"]: row["task_trained"] for row in rows if row["phase"] == "end"}
    walk = [ends.get(visit, "?") for visit in range(1, max(ends, default=0) + 1)]
    source_place = walk.index(source) if not alone and source in walk else None
    after = 0 if source_place is None else source_place + 1
    fits = walk[:1] == [target] if alone else source_place is not None
    if ARMS[arm].net != OTHERS and source_place and target in walk[:source_place]:
        raise ClrlError(f"{folder} visits {target} twice: its path is of the first visit", 2)
    if not fits or target not in walk[after:]:
        order = f"{target} first" if alone else f"{source}, later {target}"
        raise ClrlError(f"{folder} learned {', '.join(walk) or 'nothing'}: expected {order}", 2)
    visit = walk.index(target, after) + 1
    source_last = None
    if source_place is not None:
        source_last = score_matrix(rows, [source])[source_place + 1][0]  # row 0 is before any
    weights = {
        one["visit"]: one.get("parameters_trained")
        for one in summary.get("cost", {}).get("visits", [])
    }
    return Run(
        folder,
        visit_curve(rows, target, visit),
        tuple(walk[:visit]),
        source_place,
        source_last,
        weights.get(visit),
        settings_of(config, arm),
    )


def settings_of(config: dict[str, Any], arm: str) -> dict[tuple[str, str], Any]:
    """Return what a run of the arm must agree in with others, and with which."""
    inner = {
        f"{section}.{key}": value
        for section, part in config.items()
        if isinstance(part, dict)
        for key, value in part.items()
    }
    net, wanted = ARMS[arm].net, ARMS[arm].method
    alike = f"{wanted['name']}, {net}"
    found: dict[tuple[str, str], Any] = {}
    for key, value in (config | inner).items():
        section = key.partition(".")[0]
        if key in BY_NET:
            found[key, net] = value
        elif section == "method":
            if key != section and key.partition(".")[2] not in wanted:
                found[key, alike] = value
        elif not isinstance(value, dict) and (key in SAME or section in SAME):
            found[key, "all"] = value
    if ARMS[arm].shares:  # a configuration leaves out what is null
        found["sequence.pretrained", "those that share"] = config["sequence"].get("pretrained")
    return found


def require_agreement(arms: Arms) -> None:
    first: dict[tuple[str, str], tuple[Run, Any]] = {}
    for runs in arms.values():
        for run in runs.values():
            for place, value in run.settings.items():
                other, expected = first.setdefault(place, (run, value))
                if value != expected:
                    raise ClrlError(
                        f"{run.folder} has {place[0]} {value}, {other.folder} {expected}: expected "
                        "runs of a pair to agree in it; make one of them anew",
                        2,
                    )
