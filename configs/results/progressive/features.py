"""Which features transferred: sensitivities of finished runs, as JSON, table and figure.

    python configs/results/progressive/features.py [RUN...] [--task NAME] [--no-aps]

RUN is a run folder of method progressive, `runs/NAME/seedK`: its newest checkpoint plays the task
(by default the last one begun), and what is found is written to `NAME_TASK_seedK.json` beside this
file. All such files are then printed as a Markdown table and drawn: `features.svg`, a panel for
each NAME and TASK, shares being means over seeds. Takes some minutes a run, most of them for APS.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np

from clrl.study.features import sensitivities
from clrl.study.figures import save, shares_figure
from clrl.study.sensitivity import Shares, load_sensitivities

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--task", help="the target; else the task begun last")
    parser.add_argument("--states", type=int, default=2_048, help="of the Fisher information")
    parser.add_argument("--episodes", type=int, default=10, help="full games of each score")
    parser.add_argument("--no-aps", action="store_true", help="leave out the search for noise")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("clrl").setLevel(logging.INFO)
    for run in given.runs:
        settings = {"states": given.states, "episodes": given.episodes, "perturb": not given.no_aps}
        found = sensitivities(run, given.task, **settings)
        found.save(HERE / f"{run.resolve().parent.name}_{found.task}_{run.resolve().name}.json")
    drawn = panels()
    if drawn:
        save(shares_figure(drawn), HERE / "features.svg")


def panels() -> dict[str, Shares]:
    """Print a line for each layer, and return mean shares by the panel's title."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(HERE.glob("*_seed*.json")):
        groups.setdefault(path.stem.rpartition("_")[0], []).append(path)
    drawn = {}
    print("| run, task | score (random) | layer | column | AFS | APS | sigma, by seed |")
    print("|---|---:|---|---|---:|---:|---|")
    for name, paths in groups.items():
        seeds = [load_sensitivities(path) for path in paths]
        first = seeds[0]
        kinds = {"AFS": mean([s.afs for s in seeds])}
        perturbed = [s.aps for s in seeds if s.aps is not None]
        if perturbed:
            kinds["APS"] = mean(perturbed)
        source = " + ".join(first.columns[:-1])
        drawn |= {f"{source} $\\to$ {first.task}: {kind}": one for kind, one in kinds.items()}
        score, chance = (np.mean([getattr(s, a) for s in seeds]) for a in ("score", "random_score"))
        for i, layer in enumerate(first.layers):
            for k, column in enumerate(first.columns):
                shares = [
                    f"{kinds[a].share[i, k]:.2f}" if a in kinds else "-" for a in ("AFS", "APS")
                ]
                noise = [s.noise[i][k] for s in seeds if s.noise is not None]
                sigmas = ", ".join(f"{n.sigma:.2g}{' (bound)' * n.bound}" for n in noise)
                cells = [f"{name}, {len(seeds)} seeds", f"{score:,.1f} ({chance:,.1f})"]
                print("| " + " | ".join([*cells, layer, column, *shares, sigmas]) + " |")
    return drawn


def mean(seeds: list[Shares]) -> Shares:
    """Return mean shares; a bound is told if any of them is one."""
    share = np.mean([s.share for s in seeds], 0)
    return Shares(seeds[0].layers, seeds[0].columns, share, np.any([s.bound for s in seeds], 0))


if __name__ == "__main__":
    main()
