"""Transfer between two games: progressive nets beside the paper's four baselines, and PathNet.

    python configs/results/pairs/table.py RUNS OUT

RUNS holds folders `<pair>_<arm>/seed<k>`: pairs as in `PAIRS`, arms as in `ARMS` (configs
`pair_<arm>.yaml` with another `sequence.tasks`). Writes OUT/table.md, OUT/results.csv and
OUT/curves.svg. Areas are mean heights over the steps of the target's visit that every curve covers.

Every arm stands beside its control: PathNet beside PathNet on the target alone, all others beside
the first baseline. Transfer score: the mean area of an arm's seeds over that of its control's,
times 100 (Rusu et al. 2016). Forward transfer: Continual World's, on human-normalised scores.
Relative speed (Fernando et al. 2017): the control's steps to a criterion over the arm's, seed by
seed, and as areas below the criterion, which need no arrival; the criterion is half of the way from
the control's first mean score to its last. Intervals: 95 % percentile bootstrap, seeds of both arms
drawn together (2,000 times, seed 0); with three seeds about the range of the seeds, and none where
a draw of the control learned nothing. Two columns less another arm: 95 % t interval.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import t as student

from clrl.envs.scores import normalise_task
from clrl.run.records import read_records
from clrl.study.curves import Curve, common_spans, mean_height, rescaled, shortfall, visit_curve
from clrl.study.figures import save
from clrl.study.gains import censored_speed, relative_speed
from clrl.study.paths import WHOLE, load_paths
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
    "pathnet_alone": ("PathNet from scratch", "#666666", "-"),
    "pathnet": ("PathNet", "#009E73", "-"),
}
CONTROL = {"b1": None, "pathnet_alone": None, "pathnet": "pathnet_alone"}  # others: b1
SCORES = ("transfer score", "forward transfer", "relative speed", "by area")

Curves = dict[int, Curve]  # by seed


def main() -> None:
    runs, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    found = {pair: curves_of(runs, pair) for pair in PAIRS}
    found = {pair: arms for pair, arms in found.items() if arms}
    rows = [row for pair, arms in found.items() for row in rows_of(pair, arms)]
    with (out / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    text = table(found) + overlaps(runs)
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
        of_arm = areas(arms)
        for arm in arms:
            name = f"{source} to {target}" if arm == next(iter(arms)) else ""
            shown = ", ".join(amount(area) for area in of_arm[arm].values())
            ends = ", ".join(f"{curve[-1].score:,.4g}" for curve in arms[arm].values())
            control = CONTROL.get(arm, "b1")
            scores = scores_of(arms, arm, control, target) if control in arms else []
            scores = scores or [""] * len(SCORES)
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


def scores_of(arms: dict[str, Curves], arm: str, control: str, target: str) -> list[str]:
    """Return what an arm comes to beside its control, in the order of `SCORES`."""
    of_arm, normalised = areas(arms), areas(arms, target)
    left = paired(normalised[arm], normalised[control])
    ours, theirs = arms[arm], arms[control]
    criterion = halfway(theirs)
    within = common_spans([curve for curves in arms.values() for curve in curves.values()])
    speeds, short = [], []
    for seed in sorted(ours.keys() & theirs.keys()):
        speed = relative_speed(ours[seed], theirs[seed], criterion)
        censored = censored_speed(ours[seed], theirs[seed], criterion)
        speeds.append(f"{speed:.2f}" if speed else censored or "-")
        if criterion is not None:
            below = (shortfall(c[seed], criterion, within) or 0.0 for c in (theirs, ours))
            short.append(tuple(below))
    return [
        ratio(paired(of_arm[arm], of_arm[control]), 100),
        ratio([(ours - theirs, 1 - theirs) for ours, theirs in left], 1),
        ", ".join(speeds),
        ratio(short, 1) if short else "-",
    ]


def halfway(control: Curves) -> float | None:
    """Return the criterion of speed; None where the control learned nothing."""
    scores = [[p.score for p in curve if p.score is not None] for curve in control.values()]
    first, last = (np.mean([each[k] for each in scores]) for k in (0, -1))
    return float(first + last) / 2 if last > first else None


def overlaps(runs: Path) -> str:
    """Return how much of their modules PathNet's two paths share, by pair, and by chance."""
    lines = []
    for pair, (source, target) in PAIRS.items():
        done = sorted(f.parent for f in runs.glob(f"{pair}_pathnet/seed*/summary.json"))
        paths = [load_paths(run) for run in done]
        if paths:
            found = ", ".join(f"{p.overlap()[WHOLE][0][1]:.2f}" for p in paths)
            chance = ", ".join(f"{p.overlap_by_chance()[WHOLE][0][1]:.2f}" for p in paths)
            lines.append(f"- {source} to {target}: {found}; by chance {chance}")
    if not lines:
        return ""
    title = "Modules that both of PathNet's paths name, of those that either does, each seed:"
    return "\n".join(["", title, "", *lines, ""])


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
