"""How the numbers came to be: protocol, what is too little to be evidence, commands, versions."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clrl.run.yaml_safe import dump
from clrl.study.environments import changes, commits, of_several_commits
from clrl.study.report.document import Cell, Code, Links, Part, Section, Table
from clrl.study.report.groups import Group, differing, flat, method_of
from clrl.study.report.runs import Run
from clrl.study.statistics import ENOUGH_RUNS, FEWEST_RUNS, TOO_NARROW

__all__ = [
    "cautions",
    "making",
    "protocol_table",
    "protocol_text",
    "skipped_lines",
    "too_small",
    "versions",
    "videos",
]

PUBLISHED = 10_000_000  # agent steps a game that published scores are mostly at
FEW_GAMES = 10  # an evaluation; with fewer, chance moves a mean a lot


def protocol_table(first: Run) -> Table:
    """Return what all runs have in common."""
    settings = flat(first.config)
    games = first.unit == "return"
    wanted = ["sequence.steps", "agent.name", "net.body", "net.heads"]
    wanted += ["protocol.preset", "protocol.sticky", "protocol.life_loss_ends"] if games else []
    wanted += ["protocol.actions", "protocol.frame_skip"] if games else ["sequence.scenario"]
    wanted += ["evaluation.every", "evaluation.unseen"]
    wanted += ["evaluation.episodes", "evaluation.policy"] if games else []
    rows: list[list[Cell]] = [["visits in order", " → ".join(first.tasks[j] for j in first.visits)]]
    rows += [[key, _as_text(settings[key])] for key in wanted if key in settings]
    return Table("Protocol", ("what", "value"), rows, folded=True)


def protocol_text(first: Run) -> str:
    """Return the protocol in a sentence."""
    settings = flat(first.config)
    games, steps = first.unit == "return", settings.get("sequence.steps")
    told = " → ".join(first.tasks[j] for j in first.visits)
    told += f", {_as_text(steps)} {'agent' if games else 'gradient'} steps each; "
    told += f"learner {settings.get('agent.name')}, body {settings.get('net.body')}"
    if games:
        told += (
            f"; protocol {settings.get('protocol.preset')}, every score the mean raw return of "
            f"{settings.get('evaluation.episodes')} full games"
        )
    return told + "."


def _as_text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def skipped_lines(runs: Sequence[Run]) -> list[str]:
    """Say which files had lines that are no records, and which lack some."""
    return [
        f"{run.name}: {n} {'line' if n == 1 else 'lines'} of {file} skipped: not a whole record"
        for run in runs
        for file, n in run.skipped.items()
        if n
    ] + [
        f"{run.name}: evaluations.jsonl lacks {run.lost} of the records that were written"
        for run in runs
        if run.lost
    ]


def cautions(groups: Sequence[Group]) -> list[str]:
    """Return, in plain words, why what follows may be no evidence."""
    found: list[str] = []
    few = [g.label for g in groups if len(g.finished) < FEWEST_RUNS]
    if few:
        found.append(
            f"fewer than {FEWEST_RUNS} finished runs of {', '.join(few)}: no intervals, and no "
            "evidence; a guide to what to run next"
        )
    narrow = [g.label for g in groups if FEWEST_RUNS <= len(g.finished) < ENOUGH_RUNS]
    if narrow:
        found.append(f"fewer than {ENOUGH_RUNS} runs of {', '.join(narrow)}: {TOO_NARROW}")
    for group in groups:
        waiting = [run for run in group.runs if not run.finished]
        if waiting:
            names = ", ".join(f"seed {run.seed} ({run.status})" for run in waiting)
            found.append(f"{group.label}: not finished, only in the curves: {names}")
    found += too_small(groups[0].first)
    found += _not_learned(groups)
    seeds = {g.label: {run.seed for run in g.runs} for g in groups}
    others = [label for label, own in seeds.items() if own != seeds[groups[0].label]]
    if others:
        found.append(
            f"other seeds than {groups[0].label}: {', '.join(others)}; only shared seeds are paired"
        )
    packages = {str(sorted(_packages(run).items())) for group in groups for run in group.runs}
    if len(packages) > 1:
        found.append("runs were made with different versions of packages: see Making")
    everything = [run for group in groups for run in group.runs]
    found += of_several_commits(commit for run in everything for commit in commits(run.environment))
    found += [f"{run.name}: {told}" for run in everything for told in changes(run.environment)]
    return found + skipped_lines(everything)


def too_small(run: Run) -> list[str]:
    """Say in which ways a run of games is small beside published ones."""
    if run.unit != "return":
        return []
    settings, found = flat(run.config), []
    steps, episodes = settings.get("sequence.steps"), settings.get("evaluation.episodes")
    if isinstance(steps, int | float) and steps < PUBLISHED:
        found.append(
            f"{steps:,.0f} agent steps a visit; published scores are mostly at {PUBLISHED:,}: "
            "compare methods with each other here, not with published scores"
        )
    if isinstance(episodes, int) and episodes < FEW_GAMES:
        found.append(f"every score is a mean over only {episodes} full games")
    return found


def _not_learned(groups: Sequence[Group]) -> list[str]:
    """Name the tasks that a method's runs did not learn: nothing follows from keeping them."""
    found = []
    for group in groups:
        for j, task in enumerate(group.first.tasks):
            own = [k for k, visit in enumerate(group.first.visits, 1) if visit == j]
            if not own or not group.finished:
                continue
            pairs = [(run.matrix[0][j], run.matrix[own[-1]][j]) for run in group.finished]
            failed = sum(a is not None and b is not None and b <= a for a, b in pairs)
            if failed:
                found.append(
                    f"{group.label}: {task} was not learned by {failed} of {len(pairs)} runs "
                    "(after its visit no better than before any training)"
                )
    return found


# -------------------------------------------------------------------------------- how it was made


def making(groups: Sequence[Group]) -> Section:
    """Return commands, configurations, seeds and versions."""
    lines, parts = [], list[Part]()
    for group in groups:
        folder, slash, _ = group.label.rpartition("/")
        place = f" --runs {shlex.quote(folder)}" if slash else ""  # folders of the same name
        command = f"clrl train {shlex.quote(_file(group))}"
        lines += [f"{command} seed={run.seed}{place}" for run in group.runs]
    parts.append(
        Code("Each run, with the configurations below saved under these names", "\n".join(lines))
    )
    first = groups[0].first
    rows: list[list[Cell]] = []
    for group in groups:
        lines = differing(first, group.first)
        apart = "; ".join(x for x in lines if not x.startswith("method.")) or "its method only"
        seeds_told = ", ".join(str(run.seed) for run in group.runs)
        hashes = ", ".join(run.config_hash[:8] or "-" for run in group.runs)
        beside = "" if group is groups[0] else apart
        rows.append([group.label, method_of(group.first), seeds_told, beside, hashes])
    columns = ("method", "what it is", "seeds", f"else than {groups[0].label}", "config hash")
    parts.append(Table("Methods", columns, rows))
    parts.append(versions([(g.label, run) for g in groups for run in g.runs]))
    for group in groups:
        config = dump(dict(group.first.config))
        parts.append(Code(_file(group), config, folded=True))
    return Section("Making", parts)


def _file(group: Group) -> str:
    """Return where a group's configuration is to be saved: no two labels are the same."""
    return f"{group.label}.yaml"


def _packages(run: Run) -> Mapping[str, Any]:
    packages = run.environment.get("packages", {})
    return packages if isinstance(packages, Mapping) else {}


def versions(runs: Sequence[tuple[str, Run]]) -> Table:
    """Return what runs were made with and on, a row for each combination."""
    made: dict[tuple[Cell, ...], list[str]] = {}
    names = sorted({name for _, run in runs for name in _packages(run)})
    for label, run in runs:
        here, packages = run.environment, _packages(run)
        machine = f"{here.get('processor') or '?'}, {here.get('cores', '?')} cores"
        machine += f", {here['gpu']}" if here.get("gpu") else ""
        row = (
            str(here.get("python", "?")),
            *(str(packages.get(name, "?")) for name in names),
            str(here.get("commit") or "-")[:12],
            machine,
        )
        made.setdefault(row, []).append(f"{label} seed {run.seed}")
    rows = [[_folded(who), *row] for row, who in made.items()]
    columns = ("runs", "python", *names, "commit", "machine")
    return Table("Versions and machines", columns, rows)


def _folded(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def videos(groups: Sequence[Group], out: Path) -> Section | None:
    """Return links to the runs' videos, relative to the report's folder; None where none are."""
    rows = []
    for group in groups:
        for run in group.runs:
            for path in sorted((run.path / "videos").glob("[!.]*.mp4")):  # a dot: being written
                beside = os.path.relpath(path, out).replace(os.sep, "/")
                name = path.relative_to(run.path / "videos").as_posix()
                rows.append((f"{group.label} seed {run.seed}: {name}", quote(beside)))
    return Section("Videos", [Links(rows)]) if rows else None
