"""What methods kept and what they still learned on quick3: tables and a figure of run folders.

    python configs/results/quick3/table.py RUNS/NAME [RUNS/NAME...] [--scratch RUNS/NAME...]

Each argument is a folder of `seed<k>` folders with a config.yaml and a summary.json; those after
`--scratch` are of one game each; what lies in `earlier/` was made before samples of an importance
were drawn by chance and heads were float32. Beside this file it writes

    runs.md    every run: each game's score after its own visit, and all of them at the end
    table.md   every method: the share of each old game's score that is left at the end, and what
               later games came to, as a share of the same game alone, from scratch
    differences.md   of every two methods, paired by seed, with Student's 95 % intervals; *: of n
               intervals that of level 1 - 0.05 / n leaves out 0 too (Bonferroni)
    kept.svg   the share left, mean of the old games, against the last game's score, a point a run
    penalty.csv   what a penalty was worth, in units of the loss, in each visit it acted in: of
                  runs whose metrics.jsonl is there (the file committed is of runs that recorded
                  the rest between separate anchors with it: it was taken off afterwards, 5 times
                  the constant in each run's checkpoint at 551,936 steps)

Shares, forgetting and differences are of human-normalised scores: random play has 0, a human 1.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path

import yaml
from matplotlib.figure import Figure

from clrl.study.figures import COLORS, MARKERS, save
from clrl.study.statistics import paired_differences, t_interval

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--scratch", nargs="*", type=Path, default=[])
    args = parser.parse_args()
    groups = {str(path): runs_of(path) for path in args.folders}
    alone: dict[str, list[float]] = {}
    for path in args.scratch:
        for _, _, summary in runs_of(path):
            (game,), share = summary["tasks"], summary["normalised"]["matrix"][-1][0]
            alone.setdefault(game, []).append(share)
    (HERE / "runs.md").write_text(every_run(groups))
    (HERE / "differences.md").write_text(differences(groups))
    (HERE / "table.md").write_text(table(groups, {k: statistics.mean(v) for k, v in alone.items()}))
    print((HERE / "table.md").read_text())
    save(drawn(groups), HERE / "kept.svg")
    if found := [row for path in args.folders for row in penalties(path)]:
        with (HERE / "penalty.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, found[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(found)


def penalties(folder: Path) -> list[dict]:
    """Return a row for every visit of every run in a folder in which a penalty acted."""
    rows = []
    for path in sorted(folder.glob("seed*/metrics.jsonl")):
        method = yaml.safe_load((path.parent / "config.yaml").read_text())["method"]["name"]
        by_visit: dict[int, list[float]] = {}
        for record in map(json.loads, path.read_text().splitlines()):
            if "method/penalty" in record:
                by_visit.setdefault(record["visit"], []).append(record["method/penalty"])
        for visit, worth in by_visit.items():
            least, median, last = min(worth), statistics.median(worth), worth[-1]
            rows.append(
                {"method": method, "seed": int(path.parent.name[4:]), "visit": visit}
                | {"records": len(worth), "least": f"{least:.3g}"}
                | {"median": f"{median:.3g}", "last": f"{last:.3g}"}
            )
    return rows


def runs_of(folder: Path) -> list[tuple[str, int, dict]]:
    """Return (label, seed, summary) of every finished run in a folder."""
    found = []
    for path in sorted(folder.glob("seed*/summary.json")):
        method = yaml.safe_load((path.parent / "config.yaml").read_text())["method"]
        words = [method["name"], *(f"{method[k]:g}" for k in ["strength"] if k in method)]
        words += [method["form"]] if method.get("form") == "decoupled" else []
        words += ["(earlier)"] if folder.resolve().parent.name == "earlier" else []
        found.append((" ".join(words), int(path.parent.name[4:]), json.loads(path.read_text())))
    return found


def every_run(groups: dict[str, list[tuple[str, int, dict]]]) -> str:
    """Return a row a run."""
    lines = ["| method | seed | each game after its own visit | at the end | forgetting |"]
    lines.append("|---|---:|---:|---:|---:|")
    for runs in groups.values():
        for label, seed, summary in runs:
            matrix, visits = summary["matrix"], summary["visits"]
            own = " / ".join(shown(matrix[k + 1][j]) for k, j in enumerate(visits))
            end = " / ".join(shown(score) for score in matrix[-1])
            lost = summary["normalised"]["metrics"]["forgetting"]
            lines.append(f"| {label} | {seed} | {own} | {end} | {lost:.2f} |")
    return "\n".join(lines) + "\n"


def table(groups: dict[str, list[tuple[str, int, dict]]], alone: dict[str, float]) -> str:
    """Return a row a method: means over seeds, and each seed's value."""
    *_, (_, _, any_run) = next(iter(groups.values()))
    old, later = any_run["tasks"][:-1], any_run["tasks"][1:]
    head = ["method", "seeds", *(f"{game} kept" for game in old)]
    head += [f"{game}, of from scratch" for game in later]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for runs in groups.values():
        summaries = [summary for _, _, summary in runs]
        cells = [percent(shares) for shares in zip(*map(kept, summaries), strict=True)]
        for j, game in enumerate(any_run["tasks"]):
            if game in later:
                own = [summary["normalised"]["matrix"][j + 1][j] for summary in summaries]
                cells.append(percent([x / alone[game] for x in own]) if game in alone else "")
        seeds = ", ".join(str(seed) for _, seed, _ in runs)
        lines.append(f"| {runs[0][0]} | {seeds} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def differences(groups: dict[str, list[tuple[str, int, dict]]]) -> str:
    """Return a row for every two methods that have three seeds in common."""
    measures = ("average_performance", "forgetting")
    lines = ["| | seeds | average performance | forgetting |", "|---|---:|---:|---:|"]
    rows: list[tuple[str, list[list[float]]]] = []
    for ours, theirs in combinations(groups.values(), 2):
        each = []
        for measure in measures:
            a, b = (
                {seed: summary["normalised"]["metrics"][measure] for _, seed, summary in runs}
                for runs in (theirs, ours)
            )
            each.append(list(paired_differences(a, b).values()))
        if t_interval(each[0]):
            rows.append((f"{theirs[0][0]} less {ours[0][0]}", each))
    n = sum(any(found) for _, each in rows for found in each)  # two that lose nothing: no question
    for name, each in rows:
        cells = " | ".join(difference(found, n) for found in each)
        lines.append(f"| {name} | {len(each[0])} | {cells} |")
    return "\n".join(lines) + "\n"


def difference(found: list[float], n: int) -> str:
    """Return the mean of differences, its interval, and a star where it stands among n."""
    interval, wide = t_interval(found), t_interval(found, 1 - 0.05 / n)
    assert interval is not None and wide is not None
    star = " *" if wide.low > 0 or wide.high < 0 else ""
    return f"{statistics.mean(found):.2f} ({interval.low:.2f} to {interval.high:.2f}){star}"


def kept(summary: dict) -> list[float]:
    """Return the share of each old game's score that is left at the end."""
    matrix = summary["normalised"]["matrix"]
    return [matrix[-1][j] / matrix[j + 1][j] for j in range(len(matrix) - 2)]


def percent(shares: Sequence[float]) -> str:
    """Return a mean and what it is of, in percent."""
    each = ", ".join(f"{100 * share:.0f}" for share in shares)
    return f"{100 * statistics.mean(shares):.0f} % ({each})"


def shown(score: float) -> str:
    return f"{score:,.0f}" if abs(score) >= 100 else f"{score:.1f}"


def drawn(groups: dict[str, list[tuple[str, int, dict]]]) -> Figure:
    """Return the figure."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axis = figure.add_subplot()
    styles = product(MARKERS, COLORS)  # more than will ever be wanted
    for runs, (marker, color) in zip(groups.values(), styles, strict=False):
        x = [100 * statistics.mean(kept(summary)) for _, _, summary in runs]
        y = [summary["matrix"][-1][-1] for _, _, summary in runs]
        axis.plot(x, y, marker, ls="", color=color, ms=7, alpha=0.85, label=runs[0][0])
    axis.axvline(95, color="0.7", lw=0.8, ls=":")
    axis.set(xlabel="left of the old games' scores, mean of both (%)")
    axis.set_ylabel("the last game's score (Freeway)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


if __name__ == "__main__":
    main()
