"""Compare methods on pictures: choose each one's strength on held-out data, then test five seeds.

    python configs/results/images/sweep.py configs/split_mnist.yaml RUNS OUT [KEY=VALUE...]
        [--methods ewc,si] [--seeds 0,1,2,3,4] [--scenario domain] [--trials 3]
        [--strengths ewc=0.003,0.01,0.03 spp=0.003,0.01,0.03]
        [--settings 'ewc=normalise: false, n_samples: 5000'] [--rates 0.0005,0.001 ewc=0.001]

Every method gets the same net, heads, budget and number of trials (`STRENGTHS`, five each, or every
other one, or those given; each with every learning rate given, for all methods or for one), with
seed 100 and a tenth of the training set held out and evaluated in place of the test set; the best
average accuracy wins. Of a single strength and rate there are no trials. Finished runs are not made
again, so it can be stopped and started. Writes OUT/trials.csv, OUT/results.csv (with the commit of
each run), OUT/environment.json (of the newest) and OUT/table.md.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from clrl.errors import ClrlError
from clrl.run.config import differences, load_config
from clrl.run.stop import Stopped
from clrl.run.train import resume, train
from clrl.study.metrics import spp_forward_transfer
from clrl.study.statistics import t_interval

STRENGTHS = {
    "l2": (0.1, 1, 10, 100, 1000),
    "ewc": (1, 10, 100, 1000, 10000),
    "mas": (1, 10, 100, 1000, 10000),
    "si": (0.1, 1, 10, 100, 1000),
    "spp": (1, 10, 100, 1000, 10000),
    "lwf": (0.25, 0.5, 1, 2, 4),
}
METHODS = ("finetune", "frozen", *STRENGTHS, "joint")
TUNING_SEED, HELD_OUT = 100, 0.1


def summary_of(config: Path, runs: Path, name: str, seed: int, changes: list[str]) -> dict:
    """Return the summary of a run, making or finishing the run first where need be."""
    folder = runs / name / f"seed{seed}"
    wanted = load_config(config, [f"name={name}", f"seed={seed}", *changes])
    if not (folder / "config.yaml").exists():
        train(wanted, runs)
    elif changed := differences(load_config(folder / "config.yaml"), wanted):
        raise ClrlError(f"{folder} was made otherwise ({'; '.join(changed)}): delete it", 2)
    elif not (folder / "summary.json").exists():
        resume(folder)
    return json.loads((folder / "summary.json").read_text())


Choice = tuple[float | None, float]  # strength and learning rate


@dataclass
class Comparison:
    """What is compared: methods, what is tried of each, and with which seeds the best is run."""

    config: Path
    runs: Path
    out: Path
    methods: list[str]
    seeds: list[int]
    common: list[str]  # KEY=VALUE of all runs
    prefix: str  # of their names
    usual: float  # the learning rate that names leave out
    strengths: dict[str, tuple[float, ...]]  # by method, as all that follow
    rates: dict[str, tuple[float, ...]]
    settings: dict[str, str]

    def choices(self, method: str) -> list[Choice]:
        return list(itertools.product(self.strengths.get(method, [None]), self.rates[method]))

    def changes(self, method: str, choice: Choice) -> list[str]:
        """Return what a choice changes in the configuration."""
        strength, rate = choice
        text = "" if strength is None else f", strength: {strength}"
        own = f"method={{name: {method}{text}{self.settings[method]}}}"
        return [*self.common, f"agent.learning_rate={rate}", own]

    def name(self, method: str, choice: Choice) -> str:
        strength, rate = choice
        parts = [self.prefix, method, *([] if strength is None else [f"{strength:g}"])]
        return "-".join([*parts, *([] if rate == self.usual else [f"lr{rate:g}"])])

    def trial(self, method: str, choice: Choice) -> float:
        """Return the accuracy on what is held out of training."""
        name, held_out = f"{self.name(method, choice)}-trial", f"sequence.held_out={HELD_OUT}"
        changes = [*self.changes(method, choice), held_out]
        summary = summary_of(self.config, self.runs, name, TUNING_SEED, changes)
        return summary["metrics"]["average_performance"]

    def result(self, method: str, choice: Choice, seed: int) -> dict:
        """Return a row of the results."""
        name, (strength, rate) = self.name(method, choice), choice
        changes = self.changes(method, choice)
        summary = summary_of(self.config, self.runs, name, seed, changes)
        return (
            {"method": method, "strength": "" if strength is None else strength}
            | {"learning_rate": rate, "seed": seed}
            | figures(summary)
            | {"commit": environment(self.runs / name / f"seed{seed}", self.out)["commit"]}
        )


def main() -> None:
    what = comparison()
    what.out.mkdir(parents=True, exist_ok=True)
    trials, results = [], {}
    for method in what.methods:
        choices = what.choices(method)
        accuracies = {}
        for choice in choices if len(choices) > 1 else []:
            accuracies[choice] = what.trial(method, choice)
            trials.append(
                dict(zip(("method", "strength", "learning_rate"), (method, *choice), strict=True))
                | {"held_out_accuracy": accuracies[choice]}
            )
            write(what.out / "trials.csv", trials)
        best = max(choices, key=lambda choice: accuracies.get(choice, 0.0))
        results[method] = [what.result(method, best, seed) for seed in what.seeds]
        write(what.out / "results.csv", [row for rows in results.values() for row in rows])
        (what.out / "table.md").write_text(table(results))
    print(table(results))


def comparison() -> Comparison:
    """Understand the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--scenario", choices=["task", "domain", "class"], default="task")
    parser.add_argument("--trials", type=int, choices=[3, 5], default=5)
    parser.add_argument("--strengths", nargs="*", default=[], metavar="METHOD=A,B,C")
    parser.add_argument("--rates", nargs="*", default=[], metavar="[METHOD=]A,B,C")
    parser.add_argument("--settings", nargs="*", default=[], metavar="METHOD=KEY: VALUE, ...")
    args = parser.parse_intermixed_args()

    def method_of(text: str) -> tuple[str, str]:
        name, _, given = text.partition("=")
        if name not in METHODS:
            parser.error(
                f"{text!r}: expected METHOD=..., of {', '.join(METHODS)}; KEY=VALUE goes before "
                "the options"
            )
        return name, given

    def numbers(text: str) -> tuple[float, ...]:
        try:
            return tuple(float(number) for number in text.split(","))
        except ValueError:
            parser.error(f"{text!r}: expected numbers with commas between them")

    if not all(seed.isdecimal() for seed in args.seeds.split(",")):
        parser.error(f"--seeds is {args.seeds!r}: expected numbers with commas between them")
    usual = load_config(args.config, args.changes).agent.learning_rate
    strengths = {name: grid[:: 1 if args.trials == 5 else 2] for name, grid in STRENGTHS.items()}
    strengths |= {name: numbers(given) for name, given in map(method_of, args.strengths)}
    rates = dict.fromkeys(METHODS, (usual,))
    for text in sorted(args.rates, key=lambda text: "=" in text):  # one method's come last
        name, given = method_of(text) if "=" in text else ("", text)
        rates |= dict.fromkeys([name] if name else METHODS, numbers(given))
    own = {name: f", {given}" for name, given in map(method_of, args.settings)}
    heads = "per_task" if args.scenario == "task" else "shared"
    return Comparison(
        args.config,
        args.runs,
        args.out,
        methods=[method_of(name)[0] for name in args.methods.split(",")],
        seeds=list(map(int, args.seeds.split(","))),
        common=[f"sequence.scenario={args.scenario}", f"net.heads={heads}", *args.changes],
        prefix=f"{args.config.stem}-{args.scenario}",
        usual=usual,
        strengths=strengths,
        rates=rates,
        settings=dict.fromkeys(METHODS, "") | own,
    )


def figures(summary: dict) -> dict:
    """Return what the table needs of a run."""
    metrics = summary["metrics"]
    return {
        "accuracy": metrics["average_performance"],
        "backward_transfer": metrics["backward_transfer"],
        "smt": metrics["smt"],
        "seconds": summary["cost"]["seconds"],
        "matrix": json.dumps(summary["matrix"]),
        "visits": json.dumps(summary["visits"]),
    }


def environment(run: Path, out: Path) -> dict:
    """Return what a run was made with, and leave a copy in OUT."""
    text = (run / "environment.json").read_text()
    (out / "environment.json").write_text(text)
    return json.loads(text)


def write(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def table(results: dict[str, list[dict]]) -> str:
    """Return a Markdown table: means over seeds with the half-width of a 95 % t interval."""
    upper = {row["seed"]: json.loads(row["matrix"])[-1] for row in results.get("joint", [])}
    lines = [
        "| method | strength | learning rate | ACC | BWT | FWT (SPP) | SMT |",
        "|---" * 7 + "|",
    ]
    for method, rows in results.items():
        transfers = [
            spp_forward_transfer(
                json.loads(row["matrix"]), json.loads(row["visits"]), upper[row["seed"]]
            )
            for row in rows
            if row["seed"] in upper
        ]
        cells = [
            interval([row["accuracy"] for row in rows]),
            interval([row["backward_transfer"] for row in rows]),
            interval(transfers) if method != "joint" else "",
            interval([row["smt"] for row in rows]),
        ]
        first = [method, f"{rows[0]['strength']}", f"{rows[0]['learning_rate']:g}"]
        lines.append(f"| {' | '.join([*first, *cells])} |")
    return "\n".join(lines) + "\n"


def interval(values: list[float | None]) -> str:
    known = [v for v in values if v is not None]
    if not known:
        return ""
    mean, found = statistics.mean(known), t_interval(known)
    return f"{mean:.2f}" + (f" ± {found.high - mean:.2f}" if found else "")


if __name__ == "__main__":
    try:
        main()
    except (ClrlError, Stopped) as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
