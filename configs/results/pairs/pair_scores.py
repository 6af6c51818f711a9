"""What comes of the runs of a pair of games: areas, scores beside a control, and their intervals.

`table.py` tells what each is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pair_arms import ARMS, SCRATCH  # beside this file
from pair_runs import Arms, Runs

from clrl.envs.scores import normalise_task
from clrl.errors import ClrlError
from clrl.study.curves import common_spans, mean_height, rescaled, shortfall
from clrl.study.gains import censored_speed, relative_speed
from clrl.study.ratios import interval_of_ratios, is_unsteady, ratio_of_means
from clrl.study.statistics import paired_differences, t_interval

NEAR_ZERO = 0.1  # of the largest seed's: what is less may not be divided by alone


def spans_of(arms: Arms) -> list[tuple[float, float]]:
    return common_spans([run.curve for runs in arms.values() for run in runs.values()])


def areas(arms: Arms, target: str | None = None) -> dict[str, dict[int, float]]:
    """Return mean heights, of human-normalised scores if the target is given."""
    within = spans_of(arms)
    result: dict[str, dict[int, float]] = {}
    for arm, runs in arms.items():
        result[arm] = {}
        for seed, run in runs.items():
            curve = run.curve
            if target:
                curve = rescaled(curve, lambda score: normalise_task(target, score))
            height = mean_height(curve, within)
            if height is None:
                raise ClrlError(
                    f"{run.folder}: no two evaluations of {run.walk[-1]} in a row are known of it "
                    "and of all others, so there is no area; see evaluation.every"
                )
            result[arm][seed] = height
    return result


def line_of(arms: Arms, target: str) -> float | None:
    """Return from which last score on the target is learned; None if from scratch none is."""
    return halfway_up(target, [run.last for run in arms.get("b1", {}).values()])


def halfway_up(game: str, last: Sequence[float]) -> float | None:
    """Return what is half of the way from random play to a mean; None if that is not above it."""
    random = random_score(game)
    if random is None or not last or np.mean(last) <= random:
        return None
    return (random + float(np.mean(last))) / 2


def random_score(game: str) -> float | None:
    """Return the published score of random play; None of a game that has none."""
    at_0, at_1 = normalise_task(game, 0.0), normalise_task(game, 1.0)
    return None if at_0 is None or at_1 is None else 0.0 - at_0 / (at_1 - at_0)  # linear


def halfway(control: Runs) -> float | None:
    """Return the criterion of speed; None where the control learned nothing."""
    if not control:
        return None
    scores = [[p.score for p in run.curve if p.score is not None] for run in control.values()]
    first, last = (np.mean([each[k] for each in scores]) for k in (0, -1))
    return float(first + last) / 2 if last > first else None


def scores_of(arms: Arms, arm: str, control: str, target: str) -> list[str]:
    """Return what an arm comes to beside its control, in the order of `SCORES`."""
    of_arm, normalised = areas(arms), areas(arms, target)
    shares = paired(normalised[arm], normalised[control])
    ours, theirs = arms[arm], arms[control]
    criterion = halfway(arms.get(SCRATCH[ARMS[control].net], {}))
    within = spans_of(arms)
    speeds, short = [], []
    for seed in sorted(ours.keys() & theirs.keys()):
        curves = ours[seed].curve, theirs[seed].curve
        speed = relative_speed(*curves, criterion)
        speeds.append(f"{speed:.2f}" if speed else censored_speed(*curves, criterion) or "-")
        if criterion is not None:
            mine, other = (shortfall(curve, criterion, within) or 0.0 for curve in curves)
            short.append((other, mine))
    return [
        ratio(paired(of_arm[arm], of_arm[control]), 100),
        ratio(shares, 100),
        ratio([(share - other, 1 - other) for share, other in shares], 1),
        ", ".join(speeds),
        ratio(short, 1),
    ]


def paired(ours: dict[int, float], theirs: dict[int, float]) -> list[tuple[float, float]]:
    return [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]


def ratio(parts: Sequence[tuple[float, float]], scale: float) -> str:
    """Return the ratio of the means of both sides, with its interval where there is a sound one."""
    middle = ratio_of_means(parts)
    if middle is None:
        return "-"
    form = "{:.0f}" if scale == 100 else "{:.2f}"
    text = form.format(scale * middle)
    below = [part[1] for part in parts]
    if is_unsteady(parts) or min(below) < NEAR_ZERO * max(below):
        return f"{text} (unsteady)"
    interval = interval_of_ratios({"": parts})
    if interval is None:
        return text
    return f"{text} ({form.format(scale * interval.low)} to {form.format(scale * interval.high)})"


def difference(ours: dict[int, float], theirs: dict[int, float]) -> str:
    """Return the mean difference over seeds, its t interval, and each seed's."""
    each = [one for _, one in sorted(paired_differences(ours, theirs).items())]
    text, interval = amount(float(np.mean(each))), t_interval(each)
    if interval is not None:
        text += f" ± {amount((interval.high - interval.low) / 2)}"
    return f"{text} ({', '.join(amount(one) for one in each)})"


def points(score: float) -> str:
    return f"{score:.4g}" if abs(score) < 1_000 else f"{score:,.0f}"


def amount(value: float) -> str:
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"
