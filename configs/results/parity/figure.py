"""Draw our training curves beside stable-baselines3's; needs matplotlib.

    python figure.py [RUNS]

RUNS holds the runs of `configs/parity_*.yaml`; what is needed of them is first copied to
`<precision>_<agent>_<game>_<seed>.csv` beside this file. Without RUNS, those files are drawn.
A curve is the mean raw score of the last 100 games.
"""

import csv
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

HERE = Path(__file__).parent
PANELS = (("ppo", "Freeway"), ("ppo", "Breakout"), ("a2c", "Breakout"))
SIDES = {
    "sb3": ("stable-baselines3", "#D55E00"),
    "bf16": ("clrl, bf16", "#0072B2"),
    "float32": ("clrl, float32", "#009E73"),
}


def copy_curves(runs: Path) -> None:
    """Write `step, return_mean` of every parity run found."""
    for agent, game in PANELS:
        for run in sorted(runs.glob(f"parity_{game.lower()}_{agent}/seed*")):
            seed = run.name.removeprefix("seed")
            side = "bf16" if "precision: bf16" in (run / "config.yaml").read_text() else "float32"
            rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            with (HERE / f"{side}_{agent}_{game}_{seed}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["step", "return_mean"])
                for row in rows:
                    if "rollout/return_mean" in row:
                        writer.writerow([row["global_step"], row["rollout/return_mean"]])


def curve(path: Path) -> tuple[list[float], list[float]]:
    """Return steps and the mean score of the last 100 games."""
    rows = list(csv.DictReader(path.open()))
    steps = [float(row["step"]) for row in rows]
    if "return_mean" in rows[0]:
        return steps, [float(row["return_mean"]) for row in rows]
    scores = [float(row["return"]) for row in rows]
    return steps, [float(np.mean(scores[max(0, i - 99) : i + 1])) for i in range(len(scores))]


def main() -> None:
    """Copy the curves if there are new ones, and draw all."""
    if len(sys.argv) > 1:
        copy_curves(Path(sys.argv[1]))
    figure, axes = plt.subplots(1, len(PANELS), figsize=(11, 3.8), layout="constrained")
    lines = {}  # one legend for all panels
    for axis, (agent, game) in zip(axes, PANELS, strict=True):
        for side, (label, color) in SIDES.items():
            for path in sorted(HERE.glob(f"{side}_{agent}_{game}_*.csv")):
                seed = int(path.stem.rsplit("_", 1)[1])
                style = "--" if seed else "-"
                name = f"{label}, seed {seed}"
                (lines[name],) = axis.plot(*curve(path), style, color=color, lw=1.4)
        axis.set(title=f"{agent.upper()} on {game}", xlabel="agent steps")
        axis.spines[["top", "right"]].set_visible(False)
        axis.ticklabel_format(axis="x", style="plain")
        axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=5, frameon=False)
    axes[0].set_ylabel("raw score, mean of 100 games")
    figure.savefig(HERE / "curves.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
