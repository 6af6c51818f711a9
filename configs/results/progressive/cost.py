"""What columns cost: parameters, time and memory of 1 to 10 of them, as table and figure.

    python configs/results/progressive/cost.py OUT [--columns 10] [--pairs 5] [--device cpu]

Writes `OUT/cost.json` and draws `OUT/cost.svg`. Times are measured beside column 1's, in
the same minutes of the machine (see `clrl.bench.progressive`): a step of training with PPO in the
last column, emulators left out; and an observation answered, in a batch of 8, frozen columns
included. Memory is counted, not measured: what training the last column keeps, which is all
columns' weights, the last one's gradients and Adam's two moments, and frozen columns' activations
for a rollout of 1,024 observations.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from matplotlib.figure import Figure

from clrl.bench.figure import Setting, interleave, seconds_per_unit
from clrl.bench.progressive import column
from clrl.bench.subject import best_precision, finish_work, machine
from clrl.nets.bodies import BODIES, body
from clrl.nets.progressive import ProgressiveNet
from clrl.study.figures import COLORS, save
from clrl.types import NetSpec, Task

SHAPE, N_ACTIONS, N_ENVS = (4, 84, 84), 6, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--body", choices=BODIES, default="pnn")
    parser.add_argument("--pairs", type=int, default=5, help="how often each side is measured")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    given = parser.parse_args()
    setting = Setting(pairs=given.pairs, device=given.device)
    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    print("| columns | million parameters | training step | of column 1 | observation | memory |")
    print("|---:|---:|---:|---:|---:|---:|")
    for n in range(1, given.columns + 1):
        rows.append(row := measured(setting, n, given.body))
        cells = f"| {n} | {row['parameters'] / 1e6:.2f} | {1e3 * row['training_seconds']:.2f} ms "
        cells += f"| {row['training_ratio']:.2f} | {1e3 * row['observation_seconds']:.2f} ms "
        print(cells + f"| {total(row):.0f} MB |", flush=True)
    where = {"body": given.body, "pairs": given.pairs, "machine": machine(given.device)}
    (given.out / "cost.json").write_text(json.dumps(where | {"rows": rows}, indent=1) + "\n")
    save(drawn(rows, given.body), given.out / "cost.svg")


def measured(setting: Setting, n: int, name: str) -> dict[str, float]:
    """Return what n columns cost; medians over the pairs."""
    training = column(setting, n, name)
    tasks = tuple(Task(k, f"noise-{k}", N_ACTIONS) for k in range(n))
    net = ProgressiveNet(NetSpec(SHAPE, body(name), tasks))
    last = net.column_size(n - 1)
    return {
        "columns": n,
        "parameters": training.parts["parameters"],
        "training_seconds": statistics.median(training.parts[f"column_{n}_seconds_per_step"]),
        "training_ratio": statistics.median(training.values),
        **observation(setting, net),
        "weights_megabytes": 4 * training.parts["parameters"] / 1e6,
        "gradients_and_moments_megabytes": 3 * 4 * last / 1e6,
        "contexts_megabytes": training.parts["context_megabytes"],
    }


def observation(setting: Setting, net: ProgressiveNet) -> dict[str, float]:
    """Measure acting in the last column beside acting in the first, a batch of 8 at a time."""
    cuda = setting.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    for task in net.spec.tasks:
        net.add_task(task)
    net.train_only(net.spec.tasks[-1])  # as in a run: those before it are frozen
    net = net.to(device).eval()
    x = torch.randint(0, 256, (N_ENVS, *SHAPE), dtype=torch.uint8, device=device)
    bf16 = best_precision(setting.device) == "bf16"

    def acting(k: int):
        route = torch.full((N_ENVS,), k, device=device)

        def act() -> int:
            net(x, route)
            return N_ENVS

        def work() -> float:
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                return seconds_per_unit(act, setting.seconds / 4, finish_work(device))

        return work

    pairs = interleave(acting(len(net.columns) - 1), acting(0), pairs=setting.pairs)
    return {
        "observation_seconds": statistics.median(ours for ours, _ in pairs),
        "observation_ratio": statistics.median(ours / first for ours, first in pairs),
    }


def total(row: dict[str, float]) -> float:
    return sum(value for key, value in row.items() if key.endswith("megabytes"))


def drawn(rows: list[dict[str, float]], name: str) -> Figure:
    """Return the figure: a panel each for parameters, time and memory."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    size, time, memory = figure.subplots(1, 3)
    n = [row["columns"] for row in rows]
    size.plot(n, [row["parameters"] / 1e6 for row in rows], "o-", color=COLORS[0])
    size.set(title=f"parameters, body {name}", ylabel="millions")
    for key, marker, color in (("training", "o", COLORS[0]), ("observation", "s", COLORS[1])):
        label = {"training": "training step", "observation": "observation, acting"}[key]
        time.plot(n, [row[f"{key}_ratio"] for row in rows], f"{marker}-", color=color, label=label)
    time.set(title="time in the last column", ylabel="times column 1's")
    parts = ("weights", "gradients_and_moments", "contexts")
    memory.stackplot(
        n,
        [[row[f"{part}_megabytes"] for row in rows] for part in parts],
        labels=("weights", "gradients, Adam", "frozen activations of a rollout"),
        colors=COLORS,
        alpha=0.85,
    )
    memory.set(title="memory to train the last", ylabel="MB")
    for axes in (size, time, memory):
        axes.set(xlabel="columns", xticks=n, ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (time, memory):
        axes.legend(frameon=False, fontsize="small", loc="upper left")
    return figure


if __name__ == "__main__":
    main()
