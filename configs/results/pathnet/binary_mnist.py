"""Pairs of noisy binary MNIST tasks (Fernando et al. 2017): generations to a training accuracy.

    python configs/results/pathnet/binary_mnist.py OUT [--seeds 20] [--jobs 1]
        [--population 20] [--init scaled|plain]

A generation is two windows of 50 batches of 16 (PathNet: a tournament). Counted is the first in
which a window's mean accuracy, batches scored before they are learned from, is at least 98, 99 and
99.8 %: the last, the paper's, is what is compared, as was settled before any run; 99 is the ports'.

    pathnet     both tasks of a pair by PathNet
    fixed       both by a net of a path's size, all of it trained: fine-tuning
    pathnet_on  as pathnet, but the first task's path stays on in the second: the ports' way

Four pairs in a ring: every task is once the first of a pair, learned from scratch, and once the
second. One pair shares a digit, three share none. A speed-up is the generations of a task from
scratch over those of the same task as the second; the mean over pairs is geometric.

The fixed net is a path at its largest: 3 modules of 20 units in each of 3 layers, summed as in
PathNet but for the last, which is averaged, a head a task. Of both nets three modules together
start like a layer, or with `--init plain` each module does. The fixed net trains all its modules in
every batch; of PathNet's ten, one is in about a quarter of them. So each is beside its own start
from scratch; PathNet's second task beside the fixed net's first and second too: scratch, fine-
tuning.

SGD with rate 0.05 (of the ports; the paper's is said to be 0.0001, with which none arrives), salt
and pepper on half of the pixels, 10 modules, 3 of them in a path. Noise is fixed for each picture
and the same in all runs, so that a digit in both tasks of a pair has the same pictures twice. 20
genotypes: the published numbers are said to be of 20, where the paper's text has 64. A task not
learned within 500 generations counts as 500, so that means are too low and speed-ups too near to 1;
how many there are is told, and medians stand beside means. OUT/results.csv grows run by run:
stopped, the same command goes on. Writes OUT/table.md.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import starmap
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from binary_table import ARMS, LIMIT, PAIRS, THRESHOLDS, table  # beside this file
from torch import Tensor

from clrl.agents.learner import RunSettings
from clrl.agents.supervised import Supervised
from clrl.envs.vision import build_image_sequence
from clrl.errors import ClrlError
from clrl.method import Method
from clrl.methods.pathnet import PathNetMethod
from clrl.nets.pathnet import PathNet, PathSettings
from clrl.run.assemble import GAINS
from clrl.study.paths import WHOLE, Paths
from clrl.types import Batch, Linear, Net, NetSpec, Task

WINDOW, GENERATION = 50, 100
WIDTH, ACTIVE, LAYERS = 20, 3, 3

Init = Literal["scaled", "plain"]


@dataclass
class Watched(Method):
    """Fine-tuning of one path, which counts the generations that evolution would have had."""

    init: Init = "scaled"

    def build(self, spec: NetSpec) -> Net:
        settings = PathSettings(ACTIVE, ACTIVE, "sum", "mean", self.init == "scaled")
        self._path = PathNet(spec, settings)
        for task in spec.tasks:
            self._path.set_path(task, torch.ones(LAYERS, ACTIVE, dtype=torch.bool))
        self._net = self._path
        self._scores: list[Tensor] = []
        return self._net

    def begin_task(self, task: Task) -> None:
        self._path.train_only(task, modules=True)
        self._scores = []

    def observe(self, batch: Batch, progress: float) -> None:
        self._scores.append(batch.score.mean())

    def records(self) -> dict[str, float]:
        windows = len(self._scores) // WINDOW
        last = self._scores[(windows - 1) * WINDOW : windows * WINDOW] if windows else []
        fitness = {"fitness_winner": float(torch.stack(last).mean())} if last else {}
        return {"generations": float(-(-windows * WINDOW // GENERATION))} | fitness


def learner_of(method: Method, pair: tuple[str, ...], seed: int) -> Supervised:
    torch.manual_seed(seed)
    entries = [f"mnist:{digits},noise=0.5" for digits in pair]
    tasks = build_image_sequence(entries, 1, "task", False, 0.0).tasks
    hidden_gain, logits_gain = GAINS["supervised"]
    spec = NetSpec(
        input_shape=tasks[0].input_shape,
        body=(Linear(WIDTH),) * LAYERS,
        tasks=tasks,
        has_value=False,
        hidden_gain=hidden_gain,
        logits_gain=logits_gain,
    )
    learner = Supervised(batch_size=16, optimizer_name="sgd", learning_rate=0.05)
    steps = LIMIT * GENERATION
    learner.setup(method, spec, RunSettings(seed, steps, len(tasks), torch.device("cpu")))
    return learner


def generations(learner: Supervised, task: Task) -> dict[float, int]:
    """Learn a task until the highest threshold; return the generation each was reached in."""
    learner.begin_task(task)
    reached: dict[float, int] = {}
    while learner.task_step < LIMIT * GENERATION and THRESHOLDS[-1] not in reached:
        learner.update()
        if learner.task_step % WINDOW == 0:
            known = learner.method.records()
            for threshold in THRESHOLDS:
                if known.get("fitness_winner", 0.0) >= threshold:
                    reached.setdefault(threshold, int(known["generations"]))
    learner.end_task()
    return reached


def method_of(arm: str, population: int, init: Init) -> Method:
    if arm == "fixed":
        return Watched(init)
    return PathNetMethod(
        active=ACTIVE,
        population=population,
        aggregate="sum",
        aggregate_last="mean",
        window=WINDOW,
        init=init,
        keep_frozen_active=arm == "pathnet_on",
    )


def run(
    arm: str, pair: tuple[str, str], seed: int, population: int, init: Init
) -> list[dict[str, Any]]:
    """Return a row for each of the two tasks; no number: not within the limit."""
    method = method_of(arm, population, init)
    learner = learner_of(method, pair, len(PAIRS) * seed + PAIRS.index(pair))
    rows: list[dict[str, Any]] = []
    for place, (task, digits) in enumerate(zip(learner.net.spec.tasks, pair, strict=True), 1):
        reached = generations(learner, task)
        row = {"pair": " then ".join(pair), "seed": seed, "arm": arm, "place": place}
        row |= {"population": population, "init": init}
        rows.append(row | {"task": digits} | {str(t): reached.get(t, "") for t in THRESHOLDS})
    shared, by_chance = "", ""
    if isinstance(method, PathNetMethod) and not method.keep_frozen_active:  # else it is no choice
        shared, by_chance = map(str, overlap(method, pair))
    learner.close()
    return [row | {"overlap": shared, "by_chance": by_chance} for row in rows]


def overlap(method: PathNetMethod, pair: tuple[str, str]) -> tuple[float, float]:
    """Return which share of their modules the two tasks' paths have in common, and by chance."""
    taken = method.state_dict()["paths"]
    active = np.stack([taken[1].numpy(), taken[2].numpy()])
    paths = Paths(pair, active, active, np.zeros_like(active), False, (), ACTIVE, (1, 2))
    found = [matrix[WHOLE][0][1] for matrix in (paths.overlap(), paths.overlap_by_chance())]
    assert found[0] is not None and found[1] is not None
    return found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--population", type=int, default=20)
    parser.add_argument("--init", choices=get_args(Init), default="scaled")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, a thread each")
    args = parser.parse_args()
    for name in ("seeds", "population", "jobs"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}: expected 1 or more")
    torch.set_num_threads(1)  # the layers are small
    path = args.out / "results.csv"
    rows: list[dict[str, Any]] = []
    if path.exists():
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for name in ("population", "init"):
            ours = str(getattr(args, name))
            if others := {row.get(name, "unknown") for row in rows} - {ours}:
                raise ClrlError(
                    f"{path} has {name} {', '.join(sorted(others))}, not {ours}: give another OUT",
                    2,
                )
    done = {(row["pair"], str(row["seed"]), row["arm"]) for row in rows}
    missing = [
        (arm, pair, seed, args.population, args.init)
        for seed in range(args.seeds)  # the outer loop: stopped early, all pairs have as many
        for pair in PAIRS
        for arm in ARMS
        if (" then ".join(pair), str(seed), arm) not in done
    ]
    for found in made(missing, args.jobs):
        rows = sorted([*rows, *found], key=order)
        args.out.mkdir(parents=True, exist_ok=True)
        write(path, rows)
        (args.out / "table.md").write_text(table(rows))
        print(*found, sep="\n", flush=True)
    print(table(rows))


def made(
    missing: Sequence[tuple[str, tuple[str, str], int, int, Init]], jobs: int
) -> Iterator[list[dict[str, Any]]]:
    """Make runs and return the rows of each as it is through."""
    if jobs == 1:
        yield from starmap(run, missing)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
        for future in as_completed([pool.submit(run, *each) for each in missing]):
            yield future.result()


def order(row: dict[str, Any]) -> tuple[int, ...]:
    pairs = [" then ".join(pair) for pair in PAIRS]
    places = pairs.index(row["pair"]), ARMS.index(row["arm"]), int(row["place"])
    return (int(row["seed"]), *places)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    tmp = path.with_suffix(".tmp")
    with tmp.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    tmp.replace(path)


if __name__ == "__main__":
    try:
        main()
    except ClrlError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
