"""Pairs of noisy binary MNIST tasks (Fernando et al. 2017): generations to a training accuracy.

    python configs/results/pathnet/binary_mnist.py OUT [--seeds 20] [--population 20]

A generation is two windows of 50 batches of 16 (PathNet: a tournament). Counted is the first in
which a window's mean accuracy, batches scored before they are learned from, is at least 98, 99 and
99.8 %: the last, the paper's, is what is compared, as was settled before any run; 99 is the ports'.

    pathnet     both tasks of a pair by PathNet
    fixed       both by a net of a path's size, all of it trained: fine-tuning

Four pairs in a ring: every task is once the first of a pair, learned from scratch, and once the
second. One pair shares a digit, three share none. A speed-up is the generations of a task from
scratch over those of the same task as the second; the mean over pairs is geometric.

The fixed net is a path at its largest: 3 modules of 20 units in each of 3 layers, summed as in
PathNet but for the last, which is averaged, a head a task. It trains all its modules in every
batch; of PathNet's ten, one is in about a quarter of them. So each is beside its own start from
scratch; PathNet's second task beside the fixed net's first and second too: scratch, fine-tuning.

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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clrl.agents.learner import RunSettings
from clrl.agents.supervised import Supervised
from clrl.envs.vision import build_image_sequence
from clrl.method import Method
from clrl.methods.pathnet import PathNetMethod
from clrl.nets.pathnet import PathNet, PathSettings
from clrl.run.assemble import GAINS
from clrl.study.paths import WHOLE, Paths
from clrl.types import Batch, Linear, Net, NetSpec, Task

TASKS = ("1+3", "1+2", "4+5", "6+7")
PAIRS = tuple(zip(TASKS, TASKS[1:] + TASKS[:1], strict=True))
ARMS = ("pathnet", "fixed")
THRESHOLDS = (0.98, 0.99, 0.998)
WINDOW, GENERATION, LIMIT = 50, 100, 500
WIDTH, ACTIVE, LAYERS = 20, 3, 3
INTERVALS = (
    "Means are over tasks, of each one's mean over seeds; medians over all runs; what is not "
    f"within {LIMIT} generations counts as {LIMIT}. Speed-ups are ratios of means, their mean over "
    "tasks geometric. Behind them 95 % percentile bootstrap intervals: 2,000 times seeds drawn "
    "anew within each task and net, seed 0; all runs share one draw of noise, which they leave out."
)
PUBLISHED = (
    "Published means (Fernando et al. 2017): 195 from scratch (of which of the two nets is not "
    "known to us), 229 fine-tuned, 167 by PathNet. The best port, at 99 %, with frozen paths "
    "always on and other pairs: 1.66 to 2.04 times as fast second as first."
)


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


def run(arm: str, pair: tuple[str, str], seed: int, population: int) -> list[dict[str, Any]]:
    """Return a row for each of the two tasks; no number: not within the limit."""
    method: Method = Watched()
    if arm == "pathnet":
        method = PathNetMethod(
            active=ACTIVE,
            population=population,
            aggregate="sum",
            aggregate_last="mean",
            window=WINDOW,
        )
    learner = learner_of(method, pair, len(PAIRS) * seed + PAIRS.index(pair))
    rows: list[dict[str, Any]] = []
    for place, (task, digits) in enumerate(zip(learner.net.spec.tasks, pair, strict=True), 1):
        reached = generations(learner, task)
        row = {"pair": " then ".join(pair), "seed": seed, "arm": arm, "place": place}
        row["population"] = population
        rows.append(row | {"task": digits} | {str(t): reached.get(t, "") for t in THRESHOLDS})
    shared, by_chance = overlap(method, pair) if isinstance(method, PathNetMethod) else ("", "")
    learner.close()
    return [row | {"overlap": shared, "by_chance": by_chance} for row in rows]


def overlap(method: PathNetMethod, pair: tuple[str, str]) -> tuple[float, float]:
    """Return which share of their modules the two tasks' paths have in common, and by chance."""
    taken = method.state_dict()["paths"]
    active = np.stack([taken[1].numpy(), taken[2].numpy()])
    paths = Paths(pair, active, active, np.zeros_like(active), False, ())
    found = [matrix[WHOLE][0][1] for matrix in (paths.overlap(), paths.overlap_by_chance())]
    assert found[0] is not None and found[1] is not None
    return found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--population", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)  # the layers are small
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.csv"
    rows: list[dict[str, Any]] = []
    if path.exists():
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if others := {row.get("population", "unknown") for row in rows} - {str(args.population)}:
            sys.exit(
                f"{path} is of a population of {', '.join(sorted(others))}, not {args.population}: "
                "give another OUT"
            )
    done = {(row["pair"], str(row["seed"]), row["arm"]) for row in rows}
    for seed in range(args.seeds):  # the outer loop: stopped early, all pairs have as many
        for pair in PAIRS:
            for arm in ARMS:
                if (" then ".join(pair), str(seed), arm) in done:
                    continue
                rows += run(arm, pair, seed, args.population)
                write(path, rows)
                print(*rows[-2:], sep="\n", flush=True)
                (args.out / "table.md").write_text(table(rows))
    print(table(rows))


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    tmp = path.with_suffix(".tmp")
    with tmp.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    tmp.replace(path)


# ---------------------------------------------------------------------------------------- table

Counts = NDArray[np.float64]  # of one task, arm and place: a number a seed


def counts(rows: Sequence[dict[str, Any]], arm: str, place: int, threshold: float) -> list[Counts]:
    """Return generations by task, in the order of `PAIRS`' second tasks; `LIMIT` if not reached."""
    return [
        np.array(
            [
                float(row[str(threshold)] or LIMIT)
                for row in rows
                if (row["arm"], int(row["place"]), row["task"]) == (arm, place, task)
            ]
        )
        for _, task in PAIRS
    ]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return generations and speed-ups with 95 % bootstrap intervals, seeds drawn within tasks."""
    lines = [
        "| net | training accuracy | runs | from scratch: mean (median) | second: mean (median) | "
        f"not within {LIMIT}: from scratch, second | speed-up | PathNet second over fixed from "
        "scratch | PathNet second over fixed second |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for threshold in reversed(THRESHOLDS):
        for arm in ARMS:
            first, second = (counts(rows, arm, place, threshold) for place in (1, 2))
            if not all(map(len, [*first, *second])):
                continue
            late = [
                sum(
                    int(row[str(threshold)] == "")
                    for row in rows
                    if (row["arm"], int(row["place"])) == (arm, place)
                )
                for place in (1, 2)
            ]
            across = []
            for place in (1, 2):
                fixed = counts(rows, "fixed", place, threshold)
                known = arm == "pathnet" and all(map(len, fixed))
                across.append(speed_up(fixed, second) if known else "")
            cells = [
                arm,
                f"{100 * threshold:g} %",
                str(sum(map(len, second))),
                middle(first),
                middle(second),
                f"{late[0]}, {late[1]}",
                speed_up(first, second),
                *across,
            ]
            lines.append(f"| {' | '.join(cells)} |")
    populations = ", ".join(sorted({str(row["population"]) for row in rows}))
    lines += ["", f"Population: {populations}. {INTERVALS}", "", PUBLISHED, ""]
    primary = THRESHOLDS[-1]
    for k, pair in enumerate(PAIRS):
        told = []
        for arm in ARMS:
            first, second = (counts(rows, arm, place, primary)[k] for place in (1, 2))
            if len(first) and len(second):
                told.append(
                    f"{arm} {first.mean():.0f} from scratch, {second.mean():.0f} second, "
                    f"speed-up {speed_up([first], [second])}"
                )
        shares = [
            (float(row["overlap"]), float(row["by_chance"]))
            for row in rows
            if (row["pair"], row["arm"]) == (" then ".join(pair), "pathnet")
        ]
        if shares:
            found, chance = np.mean(shares, axis=0)
            told.append(f"paths share {found:.2f} of their modules, by chance {chance:.2f}")
        if told:
            lines.append(f"- {' then '.join(pair)}: {'; '.join(told)}")
    return "\n".join(lines) + "\n"


def middle(by_task: Sequence[Counts]) -> str:
    """Return the mean over tasks of their means, with its interval, and the median of all."""
    value = np.mean([x.mean() for x in by_task])
    low, high = np.percentile(
        [np.mean([x.mean() for x in drawn]) for drawn in draws(by_task)], ENDS
    )
    return f"{value:.0f}, {low:.0f} to {high:.0f} ({np.median(np.concatenate(by_task)):.0f})"


def speed_up(control: Sequence[Counts], ours: Sequence[Counts]) -> str:
    """Return the geometric mean over tasks of mean control over mean ours, with its interval."""
    low, high = np.percentile(
        [ratio(drawn[: len(control)], drawn[len(control) :]) for drawn in draws([*control, *ours])],
        ENDS,
    )
    return f"{ratio(control, ours):.2f} ({low:.2f} to {high:.2f})"


def ratio(control: Sequence[Counts], ours: Sequence[Counts]) -> float:
    logs = [np.log(a.mean() / b.mean()) for a, b in zip(control, ours, strict=True)]
    return float(np.exp(np.mean(logs)))


ENDS = (2.5, 97.5)


def draws(samples: Sequence[Counts], n: int = 2_000) -> list[list[Counts]]:
    """Draw each sample's runs anew, n times: no two of them are paired."""
    chance = np.random.default_rng(0)
    return [[x[chance.integers(len(x), size=len(x))] for x in samples] for _ in range(n)]


if __name__ == "__main__":
    main()
