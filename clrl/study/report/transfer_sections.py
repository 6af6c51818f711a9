"""What a transfer study found, as sections: the verdict and the matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clrl.study.alone import over_alone
from clrl.study.report.charts import DotChart, Row
from clrl.study.report.document import Cell, Estimate, Figure, Part, Section, Table, Text, shown
from clrl.study.report.verdict import reading
from clrl.study.statistics import FEWEST_RUNS

__all__ = ["Result", "matrices", "verdict"]

Result = Mapping[str, Any]  # of `clrl.study.transfer_matrix`


def verdict(result: Result, metric: str) -> Section:
    study, title = result["study"], result["metrics"][metric]["title"]
    text = (
        f"Over all runs; [ ]: 95 % bootstrap intervals ({study['resamples']:,} resamples of seeds, "
        f"the same for all pairs and methods; seed {study['bootstrap_seed']}), from {FEWEST_RUNS} "
        "seeds on; of differences Student's, of a number a seed. A method that lacks a pair that "
        "another has gets no mean: what is lost is seldom lost by chance. Nor has a ratio an "
        "interval where what is divided by may as well be 0."
    )
    if any(told.get("is_ratio") for told in result["metrics"].values()):
        text += (
            " Where areas are divided (transfer scores, forward transfer, speed by area), a number "
            "is a ratio of means: the runs' mean over that of their experts, not a mean of ratios."
        )
    beside = [name for name in (metric, over_alone(metric)) if name in result["metrics"]]
    parts: list[Part] = [Text(line) for name in beside for line in _sentences(result, name)]
    parts += [Text(text), _summary(result)]
    best = result["summary"].get("reference_transfer", {})
    rows: list[list[Cell]] = [[method, value] for method, value in best.items()]
    if any(value is not None for value in best.values()):
        note = "Reference transfer: mean over targets of the best single source's forward transfer"
        parts.append(Table(note, ("method", "reference transfer"), rows))
    dots, every = _dots(result, metric)
    parts.append(
        Figure(
            f"Every run: {title}",
            "A panel a pair. A ring is a run; the filled mark is the matrix's number, the bar its "
            "interval.",
            dots,
            Table(f"every run: {title}", ("method", "source", "target", "seed", "value"), every),
        )
    )
    return Section("Verdict", parts)


def _sentences(result: Result, metric: str) -> list[str]:
    told = result["summary"].get(metric, {})
    title, higher = (result["metrics"][metric][key] for key in ("title", "higher_is_better"))
    means = {m: _told(one.get("mean")) for m, one in told.items()}
    known = {m: e for m, e in means.items() if e.value is not None}
    if not known:
        return [f"{title}: no value for all pairs together; see each pair below."]
    pick = max if higher else min
    best = pick(known, key=lambda method: known[method].value or 0.0)
    lines = [f"{title}, over all pairs: " + "; ".join(f"{m} {shown(e)}" for m, e in known.items())]
    lost = [
        f"{m} has none, {told[m]['pairs']} of {told[m]['of']} pairs" for m in told.keys() - known
    ]
    if lost:
        lines[0] += f". {'; '.join(sorted(lost))}"
    elif len(known) > 1:
        lines[0] += f". {best} has the {'highest' if higher else 'lowest'}"
    first, n = result["methods"][0], len(result["seeds"])
    apart: dict[str, list[str]] = {}  # by what it shows
    for method, one in told.items():
        less = _told(one.get("versus", {}).get(first, {}).get("difference"))
        if less.value is not None:
            shows = reading(less, n, higher, "seeds")
            apart.setdefault(shows, []).append(f"{method} {shown(less)}")
    if apart:
        counted = f"{n} {'seed' if n == 1 else 'seeds'}"
        differences = (f"{', '.join(of)} ({counted}: {shows})" for shows, of in apart.items())
        lines.append(f"Less {first}: {'; '.join(differences)}")
    return [f"{line}." for line in lines]


def _summary(result: Result) -> Table:
    rows: list[list[Cell]] = []
    for name, methods in result["summary"].items():
        if name == "reference_transfer" or not any(told["pairs"] for told in methods.values()):
            continue
        for method, told in methods.items():
            versus: Mapping[str, Any] = next(iter(told.get("versus", {}).values()), {})
            rows.append(
                [
                    result["metrics"][name]["title"],
                    method,
                    f"{told['pairs']}/{told['of']}",
                    *(_told(told.get(word)) for word in ("mean", "iqm")),
                    *(_told(versus.get(w)) for w in ("difference", "probability_of_improvement")),
                ]
            )
    first = result["methods"][0]
    columns = (
        "metric",
        "method",
        "pairs",
        "mean",
        "IQM",
        f"less {first}",
        f"chance to be better than {first}",
    )
    return Table("All pairs together", columns, rows, mixed=True)


def _told(told: Mapping[str, Any] | None) -> Estimate:
    if not told:
        return Estimate(None)
    return Estimate(told.get("value", told.get("mean")), told.get("low"), told.get("high"))


def _dots(result: Result, metric: str) -> tuple[list[DotChart], list[list[Cell]]]:
    cells = result["matrix"][metric]
    title, panels = result["metrics"][metric]["title"], []
    for source in result["sources"]:
        for target in result["targets"]:
            rows = [
                Row(method, i + 1, cell["values"], _told(cell))
                for i, method in enumerate(result["methods"])
                if (cell := cells.get(method, {}).get(source, {}).get(target))
            ]
            if rows:
                panels.append(DotChart(f"{source} → {target}", title, rows))
    every: list[list[Cell]] = [
        [r["method"], " > ".join(r["sources"]), r["target"], r["seed"], r["metrics"].get(metric)]
        for r in result["runs"]
    ]
    return panels, every


def matrices(result: Result, metric: str) -> Section:
    first = [name for name in (metric, over_alone(metric)) if name in result["metrics"]]
    names = [*first, *(name for name in result["metrics"] if name not in first)]
    parts: list[Part] = [
        Text(
            "From each source (row) to each target (column), over all seeds; blue: it helped "
            "(or was better than elsewhere, where no number means neither), orange: it hurt."
        )
    ]
    open_ = (metric, over_alone(metric), "source_forgetting")
    parts += [_matrix(result, name, folded=name not in open_) for name in names]
    return Section("Transfer matrix", parts)


LEAST = 0.1  # shades are no deeper than for a tenth where all is alike; of percents, for 10
NEUTRAL = {  # what means neither help nor harm
    "transfer_score": 100.0,
    "transfer_score_above_random": 100.0,
    "relative_speed": 1.0,
    "relative_speed_by_area": 1.0,
}


def _matrix(result: Result, metric: str, folded: bool) -> Table:
    told = result["metrics"][metric]
    by_target: dict[str, list[float]] = {}
    rows: list[list[Cell]] = []
    for method, sources in result["matrix"][metric].items():
        for source, cells in sources.items():
            found = [_told(cells.get(target)) for target in result["targets"]]
            known: list[Cell] = [cell if cell.value is not None else None for cell in found]
            for j, target in enumerate(result["targets"]):
                known[j] = known[j] if target in cells else ""  # a task is no source of its own
            rows.append([method, source, *known])
            for target, cell in zip(result["targets"], found, strict=True):
                if cell.value is not None:
                    by_target.setdefault(target, []).append(cell.value)
    kind = metric.removesuffix(over_alone(""))
    sign, neutral = (1.0 if told["higher_is_better"] else -1.0), NEUTRAL.get(kind, 0.0)
    compared = metric == "time_to_threshold"  # no number of steps is good or bad by itself
    every = [abs(value - neutral) for among in by_target.values() for value in among]
    least = LEAST * (100 if neutral == 100 else 1)
    shades = []
    for row in rows:
        shade: list[float | None] = [None, None]
        for target, number in zip(result["targets"], row[2:], strict=True):
            if isinstance(number, Estimate) and number.value is not None:
                among = by_target[target]
                middle = (min(among) + max(among)) / 2 if compared else neutral
                if told.get("has_unit"):  # of the target
                    reach = max(abs(v - middle) for v in among)
                else:
                    reach = max(*every, least)
                shade.append(sign * (number.value - middle) / reach if reach else 0.0)
            else:
                shade.append(None)
        shades.append(shade)
    columns = ("method", "source", *(f"to {target}" for target in result["targets"]))
    return Table(told["title"], columns, rows, shades, folded)
