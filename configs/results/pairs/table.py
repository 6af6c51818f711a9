"""Transfer between two games: progressive nets beside the paper's four baselines.

    python configs/results/pairs/table.py RUNS OUT

RUNS holds folders `<pair>_<arm>/seed<k>`: pairs as in `PAIRS`, arms as in `ARMS` (configs
`pair_<arm>.yaml` with another `sequence.tasks`). Writes OUT/table.md, OUT/results.csv and
OUT/curves.svg. Areas are mean heights over the steps of the target's visit that every curve covers.

Transfer score: the mean area of an arm's seeds over that of the first baseline's, times 100
(Rusu et al. 2016); above random: the random score taken off both first. Forward transfer: Continual
World's, on human-normalised scores. Their intervals: 95 % percentile bootstrap, seeds of both arms
drawn together (2,000 times, seed 0); with three seeds about the range of the seeds, and none where
a draw of the first baseline learned nothing. Two columns less another arm: 95 % t interval.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import t as student

from clrl.envs.games import rom_name
from clrl.envs.scores import REFERENCE, normalise_task
from clrl.run.records import read_records
from clrl.study.curves import Curve, common_spans, mean_height, rescaled, visit_curve
from clrl.study.figures import save
from clrl.study.ratios import interval_of_ratios, ratio_of_means

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
SCORES = ("transfer score", "above random", "forward transfer")

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
    columns = ["pair", "arm", "area, each seed", "at the end", *SCORES]
    lines = ["| " + " | ".join(columns) + " |", "|---|---|---|---|" + "---:|" * len(SCORES)]
    notes = []
    for pair, arms in found.items():
        source, target = PAIRS[pair]
        of_arm, normalised = areas(arms), areas(arms, target)
        random, _ = REFERENCE[rom_name(target.split("-")[0])]
        for arm in arms:
            name = f"{source} to {target}" if arm == "b1" else ""
            shown = ", ".join(amount(area) for area in of_arm[arm].values())
            ends = ", ".join(f"{curve[-1].score:,.4g}" for curve in arms[arm].values())
            scores = [""] * len(SCORES)
            if arm != "b1":
                whole = paired(of_arm[arm], of_arm["b1"])
                above = [(ours - random, theirs - random) for ours, theirs in whole]
                left = paired(normalised[arm], normalised["b1"])
                gained = [(ours - theirs, 1 - theirs) for ours, theirs in left]
                scores = [ratio(whole, 100), ratio(above, 100), ratio(gained, 1)]
            cells = (name, ARMS[arm][0], shown, ends, *scores)
            lines.append("| " + " | ".join(cells) + " |")
        spans = common_spans([curve for curves in arms.values() for curve in curves.values()])
        stretch = ", ".join(f"{span[0]:,} to {span[1]:,}" for span in spans)
        notes.append(f"- {source} to {target} (areas over steps {stretch} of the target's visit):")
        for other in ("b3", "b4", "b1"):
            if "pnn" in arms and other in arms:
                notes.append(f"    - {difference(of_arm['pnn'], of_arm[other], ARMS[other][0])}")
    return "\n".join(
        [*lines, "", "Two columns less another arm, in area, paired by seed:", "", *notes, ""]
    )


def paired(ours: dict[int, float], theirs: dict[int, float]) -> list[tuple[float, float]]:
    return [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]


def ratio(parts: list[tuple[float, float]], scale: float) -> str:
    """Return the ratio of the means of both sides, with its interval where every draw has one."""
    middle = ratio_of_means(parts)
    if middle is None:
        return "-"
    form = "{:.0f}" if scale == 100 else "{:.2f}"
    text, interval = form.format(scale * middle), interval_of_ratios({"": parts})
    if interval is None:
        return text
    return f"{text} ({form.format(scale * interval.low)} to {form.format(scale * interval.high)})"


def difference(ours: dict[int, float], theirs: dict[int, float], name: str) -> str:
    """Return the mean difference over seeds, its t interval, and each seed's."""
    each = np.array([one - other for one, other in paired(ours, theirs)])
    text = f"{name}: {amount(each.mean())}"
    if len(each) >= 3:
        half = student.ppf(0.975, len(each) - 1) * each.std(ddof=1) / np.sqrt(len(each))
        text += f" ± {amount(half)}"
    return f"{text} ({', '.join(amount(one) for one in each)})"


def amount(value: float) -> str:
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"


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
