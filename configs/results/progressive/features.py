"""Which features transferred: sensitivities of finished runs, as JSON, table and figure.

    python configs/results/progressive/features.py OUT [RUN...] [--task NAME] [--no-aps]

RUN is a run folder of method progressive, `runs/NAME/seedK`: its newest checkpoint plays the task
(by default the last one begun), and what is found is written to `OUT/NAME_TASK_seedK.json`, and to
`RUN/sensitivities_TASK.json`, which `clrl report` shows. All such files in OUT, earlier ones too,
are then printed as a Markdown table and drawn, shares being means over seeds:
`features_PAIR.svg`, PAIR being what NAME begins with up to a `_`, has a panel for each NAME and
TASK. Takes some minutes a run, most of them for APS.

A net that plays hardly better than chance rests on little that noise could take from it: a seed
less than a tenth of the way from random play to a human is left out of the means, and named, with
its score, under the table and the figure. What is shown is thus of the seeds that learned the task,
and on condition of it. A run that cannot be analysed at all is told there too. The exit status is 1
only if no run could be; then nothing is drawn. (Learned is not what pairs/table.py calls so: half
of the way to the best from scratch. Here a tenth of a human's is enough to rest on something.)

Runs of baseline 4 (`pair_baseline4.yaml`) are the control of reuse: their first column is random,
and what the policy rests on it is what it would take from any features. A source's column is
reused as far as its share is above that.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from pathlib import Path

import numpy as np

from clrl.envs.scores import normalise_task
from clrl.errors import ClrlError
from clrl.study.features import sensitivities
from clrl.study.figures import save, shares_figure
from clrl.study.sensitivity import Sensitivities, Shares, load_sensitivities

LEARNED = 0.1  # of the way from random play to a human's score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--task", help="the target; else the task begun last")
    parser.add_argument("--states", type=int, default=2_048, help="of the Fisher information")
    parser.add_argument("--episodes", type=int, default=10, help="full games of each score")
    parser.add_argument("--no-aps", action="store_true", help="leave out the search for noise")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("clrl").setLevel(logging.INFO)
    learned, failed = 0, []
    for run in given.runs:
        name, seed = run.resolve().parent.name, run.resolve().name
        try:
            found = analysed(run, given)
        except ClrlError as error:
            failed.append(f"{name}, {seed}: not analysed: {error}")
            continue
        given.out.mkdir(parents=True, exist_ok=True)
        found.save(given.out / f"{name}_{found.task}_{seed}.json")
        found.save(run / f"sensitivities_{found.task}.json")
        learned += has_learned(found)
    drawn, left_out = panels(given.out)
    notes = left_out + failed
    print("".join(f"\n- {note}" for note in notes))
    if not (learned if given.runs else drawn):
        sys.exit("nothing could be analysed")
    for pair in dict.fromkeys(map(pair_of, drawn)):
        figure = shares_figure({title: x for title, x in drawn.items() if pair_of(title) == pair})
        for axes in figure.axes:
            axes.title.set_fontsize("small")
        if own := [note for note in notes if pair_of(note) == pair]:
            figure.supxlabel("\n".join(own), fontsize="x-small")
        save(figure, given.out / f"features_{pair}.svg")


def analysed(run: Path, given: argparse.Namespace) -> Sensitivities:
    """Analyse a run; without the noise where there is no score that it could halve."""
    settings = {"states": given.states, "episodes": given.episodes}
    try:
        return sensitivities(run, given.task, **settings, perturb=not given.no_aps)
    except ClrlError:
        if given.no_aps:
            raise
        found = sensitivities(run, given.task, **settings, perturb=False)
        if has_learned(found):
            raise
        return found


def has_learned(found: Sensitivities) -> bool:
    ours = normalise_task(found.task, found.score)
    chance = normalise_task(found.task, found.random_score)
    if ours is None or chance is None:
        return found.score > found.random_score
    return ours - chance >= LEARNED


def pair_of(title: str) -> str:
    """Return what a name begins with, up to a `_`, out of a title or note that begins with it."""
    return re.split("[_,]", title, maxsplit=1)[0]


def panels(out: Path) -> tuple[dict[str, Shares], list[str]]:
    """Print a line for each layer; return mean shares by the panel's title, and who is left out."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(out.glob("*_seed*.json")):
        groups.setdefault(path.stem.rpartition("_")[0], []).append(path)
    drawn, left_out = {}, []
    print("| run, task | score (random) | layer | column | AFS | APS | sigma, by seed |")
    print("|---|---:|---|---|---:|---:|---|")
    for name, paths in groups.items():
        everyone = {path.stem.rpartition("_")[2]: load_sensitivities(path) for path in paths}
        left_out += [
            f"{name}, {seed}: left out: scores {s.score:,.1f}, random play {s.random_score:,.1f}"
            for seed, s in everyone.items()
            if not has_learned(s)
        ]
        seeds = [s for s in everyone.values() if has_learned(s)]
        if not seeds:
            continue
        first = seeds[0]
        perturbed = [s.aps for s in seeds if s.aps is not None]
        of_seeds = {"AFS": [s.afs for s in seeds], "APS": perturbed}
        kinds = {kind: mean(shares) for kind, shares in of_seeds.items() if shares}
        title = f"{' + '.join(first.columns[:-1])} $\\to$ {first.task}"
        run = name.removesuffix(f"_{first.task}")
        for kind, one in kinds.items():  # runs of other names may have learned the same tasks
            counted = f"{len(of_seeds[kind])} of {len(everyone)} seeds"
            drawn[f"{run}, {counted}\n{title}: {kind}"] = one
        score, chance = (np.mean([getattr(s, a) for s in seeds]) for a in ("score", "random_score"))
        for i, layer in enumerate(first.layers):
            for k, column in enumerate(first.columns):
                shares = [
                    f"{kinds[a].share[i, k]:.2f}" if a in kinds else "-" for a in ("AFS", "APS")
                ]
                noise = [s.noise[i][k] for s in seeds if s.noise is not None]
                sigmas = ", ".join(f"{n.sigma:.2g}{' (bound)' * n.bound}" for n in noise)
                counted = f"{name}, {len(seeds)} of {len(everyone)} seeds"
                cells = [counted, f"{score:,.1f} ({chance:,.1f})"]
                print("| " + " | ".join([*cells, layer, column, *shares, sigmas]) + " |")
    return drawn, left_out


def mean(seeds: list[Shares]) -> Shares:
    """Return mean shares; a bound is told if any of them is one."""
    share = np.mean([s.share for s in seeds], 0)
    return Shares(seeds[0].layers, seeds[0].columns, share, np.any([s.bound for s in seeds], 0))


if __name__ == "__main__":
    main()
