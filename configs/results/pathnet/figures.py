"""What evolution found in a run of PathNet, drawn: paths, what they share, what is frozen, fitness.

    python configs/results/pathnet/figures.py OUT RUN

RUN is a run folder of method pathnet, `runs/NAME/seedK`, with a visit or more behind it. Writes to
OUT

    paths.svg        each visit's path through the modules: new, reused, frozen
    overlap.svg      which share of modules two visits' genotypes have in common, and by chance
    frozen.svg       which share of modules is frozen after each visit, by layer
    evolution.svg    mean fitness and diversity of the population over games or batches
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clrl.errors import ClrlError
from clrl.study.figures import save
from clrl.study.path_figures import (
    evolution_figure,
    frozen_figure,
    module_overlap_figure,
    paths_figure,
)
from clrl.study.paths import load_paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("run", type=Path)
    given = parser.parse_args()
    paths = load_paths(given.run)
    given.out.mkdir(parents=True, exist_ok=True)
    figures = {"paths": paths_figure, "frozen": frozen_figure, "evolution": evolution_figure}
    if len(paths.visits) > 1:
        figures["overlap"] = module_overlap_figure
    for name, draw in figures.items():
        save(draw(paths), given.out / f"{name}.svg")


if __name__ == "__main__":
    try:
        main()
    except ClrlError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
