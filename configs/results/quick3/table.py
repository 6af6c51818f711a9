"""What methods kept and what they still learned on quick3: a table and a figure of run folders.

    python configs/results/quick3/table.py RUNS/NAME [RUNS/NAME...]

Each argument is a folder of `seed<k>` folders with a summary.json. Prints a Markdown table and
draws `kept.svg` beside this file: for each run, the share of the old games' scores that is left at
the end (human-normalised; mean of the games before the last) against the last game's own score.
"""

from __future__ import annotations

import json
import statistics
import sys
from itertools import product
from pathlib import Path

import yaml
from matplotlib.figure import Figure

from clrl.study.figures import COLORS, MARKERS, save

HERE = Path(__file__).parent


def main() -> None:
    groups = {Path(path).name: runs_of(Path(path)) for path in sys.argv[1:]}
    print("| method | seed | each game after its own visit | at the end | forgetting |")
    print("|---|---:|---:|---:|---:|")
    for runs in groups.values():
        for label, seed, summary in runs:
            matrix, visits = summary["matrix"], summary["visits"]
            own = " / ".join(shown(matrix[k + 1][j]) for k, j in enumerate(visits))
            end = " / ".join(shown(score) for score in matrix[-1])
            lost = summary["metrics"]["forgetting"]
            print(f"| {label} | {seed} | {own} | {end} | {lost:,.0f} |")
    save(drawn(groups), HERE / "kept.svg")


def runs_of(folder: Path) -> list[tuple[str, int, dict]]:
    """Return (label, seed, summary) of every finished run in a folder."""
    found = []
    for path in sorted(folder.glob("seed*/summary.json")):
        method = yaml.safe_load((path.parent / "config.yaml").read_text())["method"]
        words = [method["name"], *(f"{method[k]:g}" for k in ["strength"] if k in method)]
        words += [method["form"]] if method.get("form") == "decoupled" else []
        found.append((" ".join(words), int(path.parent.name[4:]), json.loads(path.read_text())))
    return found


def shown(score: float) -> str:
    return f"{score:,.0f}" if abs(score) >= 100 else f"{score:.1f}"


def drawn(groups: dict[str, list[tuple[str, int, dict]]]) -> Figure:
    """Return the figure."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axis = figure.add_subplot()
    styles = product(MARKERS, COLORS)  # more than will ever be wanted
    for runs, (marker, color) in zip(groups.values(), styles, strict=False):
        points = []
        for _, _, summary in runs:
            matrix = summary["normalised"]["matrix"]
            *old, new = range(len(matrix) - 1)
            before = statistics.mean(matrix[j + 1][j] for j in old)
            after = statistics.mean(matrix[-1][j] for j in old)
            points.append((100 * after / before, summary["matrix"][-1][new]))
        if points:
            x, y = zip(*points, strict=True)
            axis.plot(x, y, marker, ls="", color=color, ms=7, alpha=0.85, label=runs[0][0])
    axis.axvline(95, color="0.7", lw=0.8, ls=":")
    axis.set(xlabel="left of the old games' scores (%)", ylabel="the last game's score (Freeway)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


if __name__ == "__main__":
    main()
