"""Learning in bfloat16 beside float32: training curves, their areas, and the last score.

    python configs/results/precision/figure.py [GAME:SIDE=FOLDER...]

GAME is Freeway or Breakout, SIDE one of `SIDES`, FOLDER holds seed<k> runs (`configs/
precision_freeway.yaml`, `configs/parity_breakout_ppo.yaml`). What is needed of the runs is first
copied to `<game>_<side>_<seed>.csv` beside this file; without arguments those are read. Prints a
Markdown table, writes `curves.svg`. A curve is the mean raw score of the last 100 games.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from clrl.study.figures import save
from clrl.study.statistics import mean, stratified_bootstrap

HERE = Path(__file__).parent
GAMES = {"Freeway": 200_000, "Breakout": 500_000}  # agent steps
SIDES = {
    "float32": ("float32", "#009E73", "-"),
    "bf16": ("bf16, heads in float32", "#0072B2", "--"),
    "bf16heads": ("bf16, heads too", "#D55E00", ":"),
}
EVERY = 4_096  # agent steps between the points that are kept

Curve = tuple[np.ndarray, np.ndarray]  # steps, scores


def copy_curves(game: str, side: str, folder: Path) -> None:
    for run in sorted(folder.glob("seed*")):
        kept, last = [], -EVERY
        for line in (run / "metrics.jsonl").read_text().splitlines():
            row = json.loads(line)
            if "rollout/return_mean" in row and row["global_step"] - last >= EVERY:
                last = row["global_step"]
                kept.append((last, round(row["rollout/return_mean"], 3)))
        with (HERE / f"{game}_{side}_{run.name[4:]}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("step", "return_mean"), *kept])


def curves(game: str, side: str) -> dict[int, Curve]:
    found = {}
    for path in sorted(HERE.glob(f"{game}_{side}_*.csv")):
        rows = list(csv.DictReader(path.open()))
        steps = np.array([float(row["step"]) for row in rows])
        found[int(path.stem.rsplit("_", 1)[1])] = (
            steps,
            np.array([float(row["return_mean"]) for row in rows]),
        )
    return found


def whole(game: str, curve: Curve) -> bool:
    return bool(curve[0][-1] >= 0.97 * GAMES[game])


def area(curve: Curve) -> float:
    """Return the mean height, from the first point to the last."""
    steps, scores = curve
    return float(np.trapezoid(scores, steps) / (steps[-1] - steps[0]))


def row(game: str, side: str) -> str | None:
    own = curves(game, side)
    done = {seed: curve for seed, curve in own.items() if whole(game, curve)}
    if not own:
        return None
    areas = [area(curve) for curve in done.values()]
    ends = stratified_bootstrap({game: areas}, mean)
    shown = f"{np.mean(areas):.1f}" if areas else ""
    shown += f" ({ends.low:.1f} to {ends.high:.1f})" if ends else ""
    last = ", ".join(
        f"{curve[1][-1]:.1f}" + ("" if seed in done else f" (stopped at {curve[0][-1] / 1e3:.0f}k)")
        for seed, curve in own.items()
    )
    seeds = ", ".join(map(str, own))
    return f"| {game} | {SIDES[side][0]} | {seeds} | {last} | {shown} |"


def drawn() -> Figure:
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    lines = {}
    for axis, game in zip(figure.subplots(1, len(GAMES)), GAMES, strict=True):
        for side, (label, color, style) in SIDES.items():
            for steps, scores in curves(game, side).values():
                (lines[label],) = axis.plot(steps / 1e3, scores, style, color=color, lw=1.4)
        axis.set(title=f"PPO on {game}", xlabel="thousand agent steps")
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("raw score, mean of 100 games")
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=3, frameon=False)
    return figure


def main() -> None:
    for argument in sys.argv[1:]:
        what, _, folder = argument.partition("=")
        game, _, side = what.partition(":")
        copy_curves(game, side, Path(folder))
    print("| game | precision | seeds | last score of each | mean height of the curve |")
    print("|---|---|---|---|---:|")
    for game in GAMES:
        for side in SIDES:
            if text := row(game, side):
                print(text)
    save(drawn(), HERE / "curves.svg")


if __name__ == "__main__":
    main()
