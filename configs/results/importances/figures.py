"""What methods hold important, and how far weights moved against it: figures 6 to 8 of Peng et al.

    python configs/results/importances/figures.py OUT NAME=RUN [NAME=RUN...] [--layer trunk.3]

Each run must have kept its importances: `clrl train ... tracking.importances=true`. Writes to OUT

    histogram.svg    (6)   shares of weights by their importance after the first visit
    overlap.svg      (7b)  how alike the importances of the first two visits are, by layer
    change.svg       (7c)  how far the weights that the first visit needs had moved at the end
    map_<NAME>.png   (8)   the same weight by weight in one layer
    numbers.csv            the numbers of 7b and 7c, and the rank correlation of 8
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from clrl.errors import ClrlError
from clrl.study.figures import (
    change_figure,
    change_maps_figure,
    histogram_figure,
    overlap_figure,
    save,
)
from clrl.study.importances import (
    change_maps,
    frechet_overlap,
    histogram,
    load_importances,
    weighted_change,
)
from clrl.study.report.groups import find_runs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--layer", default=None, help="of figure 8; the largest if left out")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    histograms, overlaps, changes, rows = {}, {}, {}, []
    for text in args.runs:
        name, is_named, given = text.partition("=")
        if not is_named:
            parser.error(f"{text!r}: expected NAME=RUN")
        runs = find_runs([Path(given)])
        if len(runs) > 1:
            parser.error(f"{given} holds {len(runs)} runs: expected one, such as {runs[0]}")
        visits = load_importances(runs[0])
        if len(visits) < 2:
            parser.error(f"{given} has importances of {len(visits)} visit(s): expected two or more")
        first, second, last = visits[0], visits[1], visits[-1]
        histograms[name] = histogram(first.importance)
        overlaps[name] = frechet_overlap(first.importance, second.importance)
        changes[name] = weighted_change(first.weight, last.weight, first.importance)
        weights = {k: v for k, v in first.importance.items() if k.endswith(".weight")}
        largest = max(weights, key=lambda k: weights[k].numel())
        shown = f"{args.layer}.weight" if args.layer else largest
        if shown not in weights:
            known = ", ".join(k.removesuffix(".weight") for k in weights)
            parser.error(f"--layer is {args.layer!r}: expected one of {known}")
        maps = change_maps(first.weight, last.weight, first.importance, shown)
        save(change_maps_figure(maps), args.out / f"map_{name}.png")
        rows += [
            {"method": name, "layer": layer, "overlap": overlap, "change": changes[name][layer]}
            for layer, overlap in overlaps[name].items()
        ]
        rows.append({"method": name, "layer": shown, "rank_correlation": maps.correlation})
    save(histogram_figure(histograms), args.out / "histogram.svg")
    save(overlap_figure(overlaps), args.out / "overlap.svg")
    save(change_figure(changes), args.out / "change.svg")
    with (args.out / "numbers.csv").open("w", newline="") as file:
        columns = ("method", "layer", "overlap", "change", "rank_correlation")
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    try:
        main()
    except ClrlError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
