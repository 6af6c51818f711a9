"""What the pairs of binary MNIST tasks come to: generations and speed-ups, with intervals.

`binary_mnist.py`, beside this file, makes the runs and tells what each number is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

TASKS = ("1+3", "1+2", "4+5", "6+7")
PAIRS = tuple(zip(TASKS, TASKS[1:] + TASKS[:1], strict=True))
ARMS = ("pathnet", "fixed", "pathnet_on")
THRESHOLDS = (0.98, 0.99, 0.998)
LIMIT = 500  # generations
DRAWS, ENDS = 2_000, (2.5, 97.5)
INTERVALS = (
    "Means are over tasks, of each one's mean over seeds; medians over all runs; what is not "
    f"within {LIMIT} generations counts as {LIMIT}. Speed-ups are ratios of means, their mean over "
    "tasks geometric. Behind them 95 % percentile bootstrap intervals: 2,000 times seeds drawn "
    "anew within each pair and net, both its tasks together, seed 0; all runs share one draw of "
    "noise, which they leave out."
)
PUBLISHED = (
    "Published means (Fernando et al. 2017): 195 from scratch (of which of the two nets is not "
    "known to us), 229 fine-tuned, 167 by PathNet. The best port, at 99 %, with frozen paths "
    "always on and other pairs: 1.66 to 2.04 times as fast second as first."
)


class Counts(NamedTuple):
    """Generations of one task, by one net, in one place: numbers of its runs, one a seed.

    Both tasks of a pair are of the same runs: they are drawn anew together.
    """

    values: NDArray[np.float64]  # (n,)
    drawn: NDArray[np.float64]  # (DRAWS, n)


def counts(rows: Sequence[dict[str, Any]], arm: str, place: int, threshold: float) -> list[Counts]:
    """Return generations by task, in the order of `PAIRS`' second tasks; `LIMIT` if not reached."""
    found = []
    for _, task in PAIRS:
        (k,) = (k for k, pair in enumerate(PAIRS) if pair[place - 1] == task)
        own = [r for r in rows if (r["arm"], r["pair"]) == (arm, " then ".join(PAIRS[k]))]
        values = np.array(
            [float(r[str(threshold)] or LIMIT) for r in own if int(r["place"]) == place]
        )
        n = len(values)
        chance = np.random.default_rng([0, ARMS.index(arm), k])
        found.append(Counts(values, values[chance.integers(max(n, 1), size=(DRAWS, n))]))
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return generations and speed-ups with 95 % bootstrap intervals."""
    lines = [
        "| net | training accuracy | runs | from scratch: mean (median) | second: mean (median) | "
        f"not within {LIMIT}: from scratch, second | speed-up | speed-up over fixed from scratch | "
        "over fixed second |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for threshold in reversed(THRESHOLDS):
        for arm in ARMS:
            if cells := compared(rows, arm, threshold):
                lines.append(f"| {' | '.join(cells)} |")
    populations, inits = (
        ", ".join(sorted({str(row[name]) for row in rows})) for name in ("population", "init")
    )
    lines += ["", f"Population: {populations}; initial weights: {inits}. {INTERVALS}", ""]
    lines += [PUBLISHED, ""]
    for k, pair in enumerate(PAIRS):
        if told := of_pair(rows, k):
            lines.append(f"- {' then '.join(pair)}: {'; '.join(told)}")
    return "\n".join(lines) + "\n"


def compared(rows: Sequence[dict[str, Any]], arm: str, threshold: float) -> list[str]:
    """Return the cells of a net's row at a threshold; none while some task has no run of it."""
    first, second = (counts(rows, arm, place, threshold) for place in (1, 2))
    if not all(c.values.size for c in (*first, *second)):
        return []
    late = [
        sum(
            int(row[str(threshold)] == "")
            for row in rows
            if (row["arm"], int(row["place"])) == (arm, place)
        )
        for place in (1, 2)
    ]
    across = []
    for place in (1, 2):
        fixed = counts(rows, "fixed", place, threshold)
        known = arm != "fixed" and all(c.values.size for c in fixed)
        across.append(speed_up(fixed, second) if known else "")
    return [
        arm,
        f"{100 * threshold:g} %",
        str(sum(c.values.size for c in second)),
        middle(first),
        middle(second),
        f"{late[0]}, {late[1]}",
        speed_up(first, second),
        *across,
    ]


def of_pair(rows: Sequence[dict[str, Any]], k: int) -> list[str]:
    """Return what each net came to in one pair, at the highest threshold, and what paths share."""
    told = []
    for arm in ARMS:
        first, second = (counts(rows, arm, place, THRESHOLDS[-1])[k] for place in (1, 2))
        if first.values.size and second.values.size:
            told.append(
                f"{arm} {first.values.mean():.0f} from scratch, {second.values.mean():.0f} "
                f"second, speed-up {speed_up([first], [second])}"
            )
    shares = [
        (float(row["overlap"]), float(row["by_chance"]))
        for row in rows
        if (row["pair"], row["arm"]) == (" then ".join(PAIRS[k]), "pathnet")
    ]
    if shares:
        found, chance = np.mean(shares, axis=0)
        told.append(f"paths share {found:.2f} of their modules, by chance {chance:.2f}")
    return told


def middle(by_task: Sequence[Counts]) -> str:
    """Return the mean over tasks of their means, with its interval, and the median of all."""
    value = np.mean([c.values.mean() for c in by_task])
    low, high = np.percentile(np.mean([c.drawn.mean(1) for c in by_task], axis=0), ENDS)
    median = np.median(np.concatenate([c.values for c in by_task]))
    return f"{value:.0f}, {low:.0f} to {high:.0f} ({median:.0f})"


def speed_up(control: Sequence[Counts], ours: Sequence[Counts]) -> str:
    """Return the geometric mean over tasks of mean control over mean ours, with its interval."""
    pairs = list(zip(control, ours, strict=True))
    value = np.exp(np.mean([np.log(a.values.mean() / b.values.mean()) for a, b in pairs]))
    drawn = [np.log(a.drawn.mean(1) / b.drawn.mean(1)) for a, b in pairs]
    low, high = np.exp(np.percentile(np.mean(drawn, axis=0), ENDS))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"
