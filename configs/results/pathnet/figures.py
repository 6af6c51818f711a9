"""What evolution found in runs of PathNet: paths, what they share, what is frozen, fitness.

    python configs/results/pathnet/figures.py OUT RUN [RUN...]

RUN is a run folder of method pathnet, `runs/NAME/seedK`, with a visit or more behind it. Writes to
OUT, of all runs

    visits.csv       each visit's path (modules by layer, counted from 1), how many modules of each
                     layer were frozen before it, and how its evolution ended
    overlap.csv      which share of modules two visits' genotypes have in common, and by chance

and of the first

    paths.svg        each visit's path through the modules: new, reused, frozen
    overlap.svg      which share of modules two visits' genotypes have in common, and by chance
    frozen.svg       which share of modules is frozen after each visit, by layer
    evolution.svg    mean fitness and diversity of the population over games or batches
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from clrl.errors import ClrlError
from clrl.study.figures import save
from clrl.study.path_figures import (
    evolution_figure,
    frozen_figure,
    module_overlap_figure,
    paths_figure,
)
from clrl.study.paths import WHOLE, Paths, load_paths, modules_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    given = parser.parse_args()
    found = [(f"{run.resolve().parent.name}/{run.name}", load_paths(run)) for run in given.runs]
    given.out.mkdir(parents=True, exist_ok=True)
    write(given.out / "visits.csv", [row for each in found for row in visits(*each)])
    if pairs := [row for each in found for row in overlaps(*each)]:
        write(given.out / "overlap.csv", pairs)
    _, paths = found[0]
    figures = {"paths": paths_figure, "frozen": frozen_figure, "evolution": evolution_figure}
    if len(paths.visits) > 1:
        figures["overlap"] = module_overlap_figure
    for name, draw in figures.items():
        save(draw(paths), given.out / f"{name}.svg")


def visits(run: str, paths: Paths) -> list[dict[str, object]]:
    """Return a row a visit."""
    each = zip(paths.numbers, paths.visits, paths.used, paths.frozen, paths.evolution, strict=True)
    return [
        {
            "run": run,
            "visit": number,
            "task": task,
            "path": modules_text(used),
            "frozen_before": " / ".join(str(n) for n in frozen.sum(1)),
            "tournaments": len(one.seen),
            "overwritten": int(one.overwritten.sum()),
            "seen": int(one.seen[-1]) if len(one.seen) else 0,
            "mean_fitness": f"{one.mean[-1]:.6g}" if len(one.seen) else "",
            "diversity": f"{one.diversity[-1]:.3f}" if len(one.seen) else "",
        }
        for number, task, used, frozen, one in each
    ]


def overlaps(run: str, paths: Paths) -> list[dict[str, object]]:
    """Return a row for every two visits."""
    shared, by_chance = paths.overlap()[WHOLE], paths.overlap_by_chance()[WHOLE]
    return [
        {
            "run": run,
            "visits": f"{paths.names[i]} and {paths.names[j]}",
            "shared": f"{shared[i][j]:.3f}",
            "by_chance": f"{by_chance[i][j]:.3f}",
        }
        for i, j in combinations(range(len(paths.visits)), 2)
    ]


def write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    try:
        main()
    except ClrlError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
