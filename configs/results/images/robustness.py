"""Accuracy against the strength of a penalty, in both forms (after Fig. 4 of Peng et al. 2018).

    python configs/results/images/robustness.py configs/split_mnist.yaml RUNS OUT [KEY=VALUE...]

Six strengths over five decades, for EWC, MAS and SPP, each with the penalty in the loss (published)
and decoupled; one seed, a tenth of the training set held out and evaluated in place of the test
set. Uses the trials of sweep.py where they are there already. Writes OUT/robustness.csv and
OUT/robustness.svg.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure
from sweep import HELD_OUT, TUNING_SEED, summary_of

from clrl.errors import ClrlError
from clrl.run.stop import Stopped
from clrl.study.figures import save

METHODS = {"ewc": ("EWC", "#0072B2"), "mas": ("MAS", "#009E73"), "spp": ("SPP", "#D55E00")}
STRENGTHS = (0.1, 1, 10, 100, 1000, 10000)
FORMS = {"loss": "-", "decoupled": "--"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    prefix = f"{args.config.stem}-task"
    common = ["sequence.scenario=task", "net.heads=per_task", f"sequence.held_out={HELD_OUT}"]
    rows = []
    for method in METHODS:
        for form in FORMS:
            for strength in STRENGTHS:
                name = f"{prefix}-{method}-{strength:g}-trial"
                chosen = f"method={{name: {method}, strength: {strength}}}"
                if form == "decoupled":
                    name = f"{prefix}-{method}-{strength:g}-decoupled"
                    chosen = f"method={{name: {method}, strength: {strength}, form: decoupled}}"
                wanted = [*common, chosen, *args.changes]
                try:
                    summary = summary_of(args.config, args.runs, name, TUNING_SEED, wanted)
                    metrics = summary["metrics"]
                    accuracy, transfer = (
                        metrics["average_performance"],
                        metrics["backward_transfer"],
                    )
                except ClrlError as error:  # a penalty in the loss can diverge: that is a result
                    if not any(words in str(error) for words in ("broke down", "diverged")):
                        raise
                    print(f"{name}: {error}", file=sys.stderr)
                    accuracy = transfer = None
                rows.append(
                    {
                        "method": method,
                        "form": form,
                        "strength": strength,
                        "accuracy": accuracy,
                        "backward_transfer": transfer,
                    }
                )
    with (args.out / "robustness.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    save(drawn(rows), args.out / "robustness.svg")


def drawn(rows: list[dict]) -> Figure:
    """Return the figure: a line a method and form; a cross where training diverged."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axis = figure.add_subplot()
    lowest = min(row["accuracy"] for row in rows if row["accuracy"] is not None)
    for method, (label, color) in METHODS.items():
        for form, style in FORMS.items():
            own = [r for r in rows if r["method"] == method and r["form"] == form]
            known = [r for r in own if r["accuracy"] is not None]
            x, y = [r["strength"] for r in known], [r["accuracy"] for r in known]
            axis.plot(x, y, style, color=color, marker="o", ms=4, label=f"{label}, {form}")
            gone = [r["strength"] for r in own if r["accuracy"] is None]
            axis.plot(gone, [lowest] * len(gone), "x", color=color)
    axis.set(xscale="log", xlabel="strength", ylabel="mean accuracy after all tasks (%)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


if __name__ == "__main__":
    try:
        main()
    except (ClrlError, Stopped) as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
