"""Pairs of noisy binary MNIST tasks (Fernando et al. 2017): generations to a training accuracy.

    python configs/results/pathnet/binary_mnist.py OUT [--seeds 20]

A generation is two windows of 50 batches of 16 (PathNet: a tournament). Counted is the first in
which a window's mean accuracy, batches scored before they are learned from, is at least 99.8 %:

    pathnet        the second task, after the first was learned to the same accuracy by PathNet
    alone          the second task alone, from scratch, by PathNet: the paper's independent control
    finetune       the second task, after the first, by a fixed net of a path's size, all trained
    fixed alone    the second task alone, by that fixed net

The fixed net is a path at its largest: 3 modules of 20 units in each of 3 layers, summed as in
PathNet, a head a task. So finetune's control is fixed alone, as pathnet's is alone.

SGD with rate 0.05 (of the ports; the paper's is said to be 0.0001, with which none arrives), salt
and pepper on half of the pixels, 10 modules, 3 of them in a path, 64 genotypes. A task not learned
within 500 generations counts as 500, so that means are too low and ratios of them too near to 1;
how many there are is told, and medians stand beside means. OUT/results.csv grows run by run:
stopped, the same command goes on. Writes OUT/table.md.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clrl.agents.learner import RunSettings
from clrl.agents.supervised import Supervised
from clrl.envs.vision import build_image_sequence
from clrl.method import Method
from clrl.methods.pathnet import PathNetMethod
from clrl.nets.pathnet import PathNet, PathSettings
from clrl.run.assemble import GAINS
from clrl.study.statistics import mean, stratified_bootstrap
from clrl.types import Batch, Linear, Net, NetSpec, Task

PAIRS = (("1+3", "4+5"), ("4+5", "1+2"), ("1+2", "6+7"), ("6+7", "1+3"))
ARMS = ("pathnet", "alone", "finetune", "fixed alone")
THRESHOLD, WINDOW, GENERATION, LIMIT = 0.998, 50, 100, 500
CONTROL = {"pathnet": "alone", "finetune": "fixed alone"}  # from scratch, by the same net
WIDTH, ACTIVE, LAYERS = 20, 3, 3
PUBLISHED = {"pathnet": 167, "alone": 195, "finetune": 229}  # the paper's means


@dataclass
class Watched(Method):
    """Fine-tuning of one path, which counts the generations that evolution would have had."""

    def build(self, spec: NetSpec) -> Net:
        self._path = PathNet(spec, PathSettings(ACTIVE, ACTIVE, "sum", "mean"))
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


def generations(learner: Supervised, task: Task) -> int:
    """Learn a task until the threshold, and return the generation it was reached in."""
    learner.begin_task(task)
    known = {}
    while learner.task_step < LIMIT * GENERATION:
        learner.update()
        if learner.task_step % WINDOW == 0:
            known = learner.method.records()
            if known.get("fitness_winner", 0.0) >= THRESHOLD:
                break
    learner.end_task()
    return int(known["generations"])


def run(arm: str, pair: tuple[str, str], seed: int) -> list[int]:
    """Return the generations of each task that the arm learns."""
    tasks = pair[1:] if "alone" in arm else pair
    fixed = arm in ("finetune", "fixed alone")
    method: Method = Watched()
    if not fixed:
        method = PathNetMethod(
            active=ACTIVE, population=64, aggregate="sum", aggregate_last="mean", window=WINDOW
        )
    learner = learner_of(method, tasks, seed)
    tasks_of = learner.net.spec.tasks
    found = [generations(learner, task) for task in tasks_of]
    learner.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)  # the layers are small
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.csv"
    rows: list[dict[str, Any]] = []
    if path.exists():
        rows = list(csv.DictReader(path.open()))
    done = {(row["pair"], row["seed"], row["arm"]) for row in rows}
    for seed in range(args.seeds):
        for pair in PAIRS:
            for arm in ARMS:
                name = " then ".join(pair)
                if (name, str(seed), arm) in done:
                    continue
                counted = run(arm, pair, seed)
                first = counted[0] if len(counted) == 2 else ""
                row = {"pair": name, "seed": seed, "arm": arm}
                rows.append(row | {"first_task": first, "generations": counted[-1]})
                write(path, rows)
                print(rows[-1], flush=True)
                (args.out / "table.md").write_text(table(rows))
    print(table(rows))


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    tmp = path.with_suffix(".tmp")
    with tmp.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    tmp.replace(path)


def table(rows: list[dict[str, Any]]) -> str:
    """Return means over pairs and seeds with 95 % bootstrap intervals, medians, and speed-ups.

    A speed-up is the control's generations over the arm's: of means with its interval, of medians.
    """
    values: dict[str, dict[str, dict[str, float]]] = {arm: {} for arm in ARMS}
    for row in rows:
        values[row["arm"]].setdefault(row["pair"], {})[str(row["seed"])] = float(row["generations"])
    lines = [
        f"| second task | runs | generations, mean | median | not within {LIMIT} | "
        "speed-up over its own control | over alone | published |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for arm, by_pair in values.items():
        everything = [v for seeds in by_pair.values() for v in seeds.values()]
        if not everything:
            continue
        late = sum(v >= LIMIT for v in everything)
        own = speed_up(values[CONTROL[arm]], by_pair) if arm in CONTROL else ""
        alone = speed_up(values["alone"], by_pair) if arm in CONTROL else ""
        lines.append(
            f"| {arm} | {len(everything)} | {interval(by_pair)} | {np.median(everything):.0f} | "
            f"{late} | {own} | {alone} | {PUBLISHED.get(arm, '')} |"
        )
    for pair in values["pathnet"]:
        shown = ", ".join(
            f"{arm} {np.mean(found):.0f} (median {np.median(found):.0f})"
            for arm in ARMS
            if (found := list(values[arm].get(pair, {}).values()))
        )
        lines.append(f"\n{pair}: {shown}")
    return "\n".join(lines) + "\n"


def interval(by_pair: dict[str, dict[str, float]]) -> str:
    scores = {pair: list(seeds.values()) for pair, seeds in by_pair.items()}
    middle = np.mean([np.mean(values) for values in scores.values()])
    ends = stratified_bootstrap(scores, mean)
    return f"{middle:.0f}" + (f" ({ends.low:.0f} to {ends.high:.0f})" if ends else "")


def speed_up(control: dict[str, dict[str, float]], ours: dict[str, dict[str, float]]) -> str:
    """Return the control's generations over ours, seeds drawn anew together within each pair."""
    pairs = [
        np.array([(control[pair][k], ours[pair][k]) for k in ours[pair] if k in control[pair]])
        for pair in ours
        if pair in control
    ]
    pairs = [both for both in pairs if len(both)]
    if not pairs:
        return ""

    def ratio(drawn: list[np.ndarray]) -> float:
        theirs, own = np.mean([both.mean(0) for both in drawn], axis=0)
        return float(theirs / own)

    draw = np.random.default_rng(0)
    drawn = [
        ratio([both[draw.integers(len(both), size=len(both))] for both in pairs])
        for _ in range(2_000)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    theirs, own = np.median(np.concatenate(pairs), axis=0)
    return f"{ratio(pairs):.2f} ({low:.2f} to {high:.2f}), medians {theirs / own:.2f}"


if __name__ == "__main__":
    main()
