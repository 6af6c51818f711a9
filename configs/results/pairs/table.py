"""Transfer between two games: progressive nets beside the paper's four baselines.

    python configs/results/pairs/table.py RUNS OUT

RUNS holds folders `<pair>_<arm>/seed<k>`: pairs as in `PAIRS`, arms as in `ARMS` (configs
`pair_<arm>.yaml` with another `sequence.tasks`). Writes OUT/table.md, OUT/results.csv and
OUT/curves.svg. Areas are over the stretch of the target's visit that every curve covers.

Transfer score: the mean area of an arm's seeds over that of the first baseline's, times 100
(Rusu et al. 2016). Forward transfer: Continual World's, on human-normalised scores. Intervals: 95 %
percentile bootstrap, seeds of both arms drawn anew together (2,000 times, seed 0).
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from clrl.envs.scores import normalise_task
from clrl.run.records import read_records
from clrl.study.curves import Curve, common_spans, mean_height, rescaled, visit_curve
from clrl.study.figures import save

PAIRS = {
    "p1": ("Freeway", "Freeway-vflip"),
    "p2": ("Freeway", "Freeway-noisy"),
    "p3": ("CrazyClimber", "KungFuMaster"),
}
ARMS = {
    "b1": ("1 from scratch", "#000000", "-"),
    "b2": ("2 new head only", "#CC79A7", ":"),
    "b3": ("3 fine-tuned", "#E69F00", "--"),
    "b4": ("4 beside a random column", "#56B4E9", "-."),
    "pnn": ("two columns", "#0072B2", "-"),
}
RESAMPLES = 2_000

Curves = dict[int, Curve]  # by seed


def main() -> None:
    runs, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    found = {pair: curves_of(runs, pair) for pair in PAIRS}
    found = {pair: arms for pair, arms in found.items() if "b1" in arms}
    rows = [row for pair, arms in found.items() for row in rows_of(pair, arms)]
    with (out / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    text = table(found)
    (out / "table.md").write_text(text)
    print(text, end="")
    save(drawn(found), out / "curves.svg")


def curves_of(runs: Path, pair: str) -> dict[str, Curves]:
    """Return the target's learning curves by arm and seed, of finished runs."""
    target, arms = PAIRS[pair][1], {}
    for arm in ARMS:
        curves: Curves = {}
        for run in sorted(runs.glob(f"{pair}_{arm}/seed*")):
            if (run / "summary.json").exists():
                rows, _ = read_records(run / "evaluations.jsonl")
                visit = max(row["visit"] for row in rows if row["task_evaluated"] == target)
                curves[int(run.name[4:])] = visit_curve(rows, target, visit)
        if curves:
            arms[arm] = curves
    return arms


def areas(arms: dict[str, Curves], target: str | None = None) -> dict[str, dict[int, float]]:
    """Return mean heights, of human-normalised scores if the target is given."""
    within = common_spans([curve for curves in arms.values() for curve in curves.values()])
    result: dict[str, dict[int, float]] = {}
    for arm, curves in arms.items():
        result[arm] = {}
        for seed, curve in curves.items():
            if target:
                curve = rescaled(curve, lambda score: normalise_task(target, score))
            height = mean_height(curve, within)
            assert height is not None
            result[arm][seed] = height
    return result


def rows_of(pair: str, arms: dict[str, Curves]) -> list[dict]:
    of_arm, normalised = areas(arms), areas(arms, PAIRS[pair][1])
    return [
        {
            "source": PAIRS[pair][0],
            "target": PAIRS[pair][1],
            "arm": ARMS[arm][0],
            "seed": seed,
            "area": round(of_arm[arm][seed], 3),
            "normalised_area": round(normalised[arm][seed], 5),
            "last": arms[arm][seed][-1].score,
            "curve": " ".join(
                f"{p.step}:{p.score:g}" for p in arms[arm][seed] if p.score is not None
            ),
        }
        for arm in arms
        for seed in arms[arm]
    ]


def table(found: dict[str, dict[str, Curves]]) -> str:
    lines = [
        "| pair | arm | seeds | area, each seed | at the end | transfer score | forward transfer |",
        "|---|---|---:|---|---|---:|---:|",
    ]
    for pair, arms in found.items():
        of_arm, normalised = areas(arms), areas(arms, PAIRS[pair][1])
        for arm in arms:
            scores = list(of_arm[arm].values())
            score = forward = ""
            if arm != "b1":
                score = interval(of_arm[arm], of_arm["b1"], lambda a, b: 100 * a / b, "{:.0f}")
                forward = interval(
                    normalised[arm], normalised["b1"], lambda a, b: (a - b) / (1 - b), "{:.2f}"
                )
            name = f"{PAIRS[pair][0]} to {PAIRS[pair][1]}" if arm == "b1" else ""
            shown = ", ".join(f"{s:,.1f}" if s < 100 else f"{s:,.0f}" for s in scores)
            ends = ", ".join(f"{curve[-1].score:,.4g}" for curve in arms[arm].values())
            cells = (name, ARMS[arm][0], len(scores), shown, ends, score, forward)
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def interval(ours: dict[int, float], theirs: dict[int, float], of, form: str) -> str:
    """Return `of(mean area, mean area of the first baseline)` with its interval."""
    seeds = sorted(ours.keys() & theirs.keys())
    a, b = (np.array([side[k] for k in seeds]) for side in (ours, theirs))
    if b.mean() <= 0:
        return "(the first baseline learned nothing)"
    middle = form.format(of(a.mean(), b.mean()))
    if len(seeds) < 3:
        return middle
    drawn_seeds = np.random.default_rng(0).integers(len(seeds), size=(RESAMPLES, len(seeds)))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = of(a[drawn_seeds].mean(1), b[drawn_seeds].mean(1))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return f"{middle} ({form.format(low)} to {form.format(high)})"


def drawn(found: dict[str, dict[str, Curves]]) -> Figure:
    """Return the target's learning curves: each seed thin, their mean thick; a panel a pair."""
    figure = Figure(figsize=(3.6 * len(found) + 1.4, 3.2), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axis, (pair, arms) in zip(panels, found.items(), strict=True):
        for arm, curves in arms.items():
            label, color, style = ARMS[arm]
            lines = [[p for p in curve if p.score is not None] for curve in curves.values()]
            for line in lines:
                x, y = [p.step / 1_000 for p in line], [p.score for p in line]
                axis.plot(x, y, color=color, lw=0.6, alpha=0.5)
            steps = [p.step / 1_000 for p in lines[0]]
            mean = np.mean([[p.score for p in line] for line in lines], axis=0)
            axis.plot(steps, mean, style, color=color, lw=2, label=label)
        axis.set_title(" to ".join(PAIRS[pair]), fontsize="medium")
        axis.set(xlabel="thousand agent steps", ylabel="score" if axis is panels[0] else "")
        axis.spines[["top", "right"]].set_visible(False)
    panels[-1].legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


if __name__ == "__main__":
    main()
