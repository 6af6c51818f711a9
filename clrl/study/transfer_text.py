"""A transfer study in words: Markdown, CSV, and tables for a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from clrl.run.score_table import number
from clrl.study.alone import over_alone
from clrl.study.metrics import mean_of_all

__all__ = ["OF_ALONE", "SCHEMA", "csv_text", "markdown", "show"]

SHOWN = ("transfer_score", "forward_transfer", "relative_speed", "jump_start", "time_to_threshold")
FEW = 3  # runs that are listed beside their mean; more have an interval
SCHEMA = 2  # of study.json; in 1 chances were of being higher, and differences were bootstrapped
OF_ALONE = (
    '"Over fine-tuning alone" is over the expert. A method that learns otherwise from the first is '
    "slower or faster than that whatever it learned before: to that measure its pace is transfer. "
    '"Over the method alone" is over its own control: the first visits of its runs that begin with '
    "the target, from scratch, with the same seed and budget; where a seed has several, the mean "
    "of what is measured of each. Of a method that begins as fine-tuning does the two are the same "
    "but for evaluations that controls lack."
)

Result = Mapping[str, Any]  # of `transfer_matrix`


def csv_text(result: Result) -> str:
    """Return a row for each run and metric: source, target, method, seed, metric, value."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["source", "target", "method", "seed", "metric", "value"])
    for run in result["runs"]:
        where = [" > ".join(run["sources"]), run["target"], run["method"], run["seed"]]
        for name, value in run["metrics"].items():
            table.writerow([*where, name, "" if value is None else repr(value)])
    return out.getvalue()


def markdown(result: Result) -> str:
    """Return the study as Markdown: protocol, warnings, a table for each metric."""
    study = result["study"]
    run = study["run"]
    lines = [
        f"# {study['name']}",
        "",
        f"{len(result['sources'])} sources, {len(result['targets'])} targets, methods "
        f"{', '.join(result['methods'])}; seeds {', '.join(map(str, result['seeds']))}; "
        f"{run['sequence']['steps']:,} steps a visit, {run['agent']['name']}, body "
        f"{run['net']['body']}, evaluated every {run['evaluation']['every']:,} steps.",
        "",
        "Every run learns a source and then a target; it is compared with an expert, which learned "
        "the target alone, from scratch, by fine-tuning, with the same seed and budget. The "
        "criterion is "
        f"{study['criterion']:.0%} of the experts' way from their first score to their last. "
        "Where areas are divided (transfer scores, forward transfer, speed by area), a cell is the "
        "ratio of means: the mean over seeds of what is above the line over that of what is below, "
        "so that no expert that learned little rules it. "
        f"[ ]: 95 % bootstrap intervals ({study['resamples']} resamples of seeds, a run together "
        "with its expert, and the same seeds for all pairs and methods; seed "
        f"{study['bootstrap_seed']}), of differences Student's, of a number a seed; ( ): each run. "
        "A ratio over what may as well be 0 has no interval. All pairs together: a method that "
        "lacks a pair that another has gets no mean, as what is lost is seldom lost by chance; "
        "the chance to be better counts a run that never came to the criterion, where its control "
        "did, as the slowest.",
        "",
    ]
    if result["methods_alone"]:
        lines += [OF_ALONE, ""]
    lines += [f"**Note:** {_escaped(warning)}\n" for warning in result["warnings"]]
    lines += [
        "## Experts",
        "",
        *_rows(
            ["target", "mean score", "last score", "criterion", "steps to it"],
            [
                [
                    name,
                    _runs(told["mean_score"], mean_of_all(told["mean_score"])),
                    _runs(told["last_score"], mean_of_all(told["last_score"])),
                    number(told["criterion"]),
                    _runs(told["time_to_threshold"], mean_of_all(told["time_to_threshold"])),
                ]
                for name, told in result["experts"].items()
            ],
        ),
    ]
    if result["methods_alone"]:
        rows = [
            [method, name, str(sum(map(len, told["folders"].values())))]
            + [_runs(told[key], mean_of_all(told[key])) for key in ("mean_score", "last_score")]
            for name, of in result["methods_alone"].items()
            for method, told in of.items()
        ]
        lines += ["## Methods alone", ""]
        lines += _rows(["method", "target", "controls", "mean score", "last score"], rows)
    for name, metric in result["metrics"].items():
        header = ["method", "source", *(f"to {target}" for target in result["targets"])]
        lines += [
            f"## {metric['title'][0].upper()}{metric['title'][1:]}",
            "",
            *_rows(header, _table(result, name)),
        ]
    lines += ["## All pairs together", "", *_rows(*_summary(result))]
    best = {m: number(v) for m, v in result["summary"]["reference_transfer"].items()}
    lines += [
        "Reference transfer (mean over targets of the best source's forward transfer): "
        + ", ".join(f"{method} {value}" for method, value in best.items())
        + ".",
        "",
    ]
    return "\n".join(lines)


def show(result: Result, console: Console) -> None:
    """Print the main metrics as tables."""
    for name in result["metrics"]:
        if name.removesuffix(over_alone("")) not in SHOWN:
            continue
        metric = result["metrics"][name]
        table = Table(
            box=box.SIMPLE_HEAD,
            title=Text(metric["title"]),
            title_justify="left",
            title_style="bold",
        )
        for column in ("method", "source"):
            table.add_column(column, overflow="fold")
        for target in result["targets"]:
            table.add_column(Text(f"to {target}"), justify="right", overflow="fold")
        for row in _table(result, name):
            table.add_row(*map(Text, row))
        console.print(table)
    notes = [Text(f"note: {warning}", style="yellow") for warning in result["warnings"]]
    console.print(Group(*notes))


def _table(result: Result, metric: str) -> list[list[str]]:
    """Return a row for each method and source, with a cell for each target."""
    rows = []
    for method, sources in result["matrix"][metric].items():
        for source, cells in sources.items():
            shown = (_cell(cells.get(target)) for target in result["targets"])
            rows.append([method, source, *shown])
    return rows


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None:  # a task is no source of its own
        return ""
    if cell["low"] is not None:
        return f"{number(cell['mean'])} [{number(cell['low'])}, {number(cell['high'])}]"
    return _runs(cell["values"], cell["mean"])


def _runs(values: list[float | None], mean: float | None) -> str:
    """Return a mean and, of a few, each: "104 (101, 107)"; "-" where it has none."""
    known = [value for value in values if value is not None]
    if len(values) < 2 or not known:
        return number(mean)
    if len(values) > FEW:
        return f"{number(mean)} ({len(known)} of {len(values)} known)"
    return f"{number(mean)} ({', '.join(map(number, values))})"


def _summary(result: Result) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of what all pairs say together, beside the first method."""
    baseline = result["methods"][0]
    header = ["metric", "method", "pairs", "mean", "IQM"]
    header += [f"difference to {baseline}", f"chance to be better than {baseline}"]
    rows = []
    for name, methods in result["summary"].items():
        if name == "reference_transfer":
            continue
        for method, told in methods.items():
            versus = told.get("versus", {}).get(baseline, {})
            values = [told.get("mean"), told.get("iqm"), versus.get("difference")]
            values += [versus.get("probability_of_improvement")]
            rows.append([name, method, f"{told['pairs']} of {told['of']}", *map(_value, values)])
    return header, rows


def _value(told: Mapping[str, Any] | None) -> str:
    if told is None:
        return "-"
    if told["low"] is None:
        return number(told["value"])
    return f"{number(told['value'])} [{number(told['low'])}, {number(told['high'])}]"


def _rows(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [*("| " + " | ".join(map(_escaped, line)) + " |" for line in lines), ""]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
