"""What earlier tasks gave to a later one: its curve beside that of an expert.

An expert learned the same task alone, from scratch, with the same budget. Both curves are over one
visit, t in steps since it began (`clrl.study.curves.visit_curve`). Where one of them has a gap,
neither is counted: areas are taken over the stretches that both know, or those given as `within`
(several methods are then compared over the same).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from clrl.study.curves import Curve, Span, common_spans, mean_height, shortfall, time_to_threshold
from clrl.study.metrics import difference, mean_of_all

__all__ = [
    "area_gain",
    "censored_speed",
    "continual_world_forward_transfer",
    "jump_start",
    "pnn_transfer_score",
    "pnn_transfer_score_above_random",
    "reference_transfer",
    "relative_speed",
    "relative_speed_by_area",
]

Within = Sequence[Span] | None


def pnn_transfer_score(curve: Curve, expert: Curve, within: Within = None) -> float | None:
    """Return `AUC_j / AUC^b_j x 100` (Rusu et al. 2016); above 100 earlier tasks helped.

    None unless the expert's area is above 0: a share of a negative area says nothing. For games
    with negative scores see `pnn_transfer_score_above_random`.

    >>> from clrl.study.curves import Point
    >>> pnn_transfer_score([Point(0, 2.0), Point(10, 4.0)], [Point(0, 0.0), Point(10, 4.0)])
    150.0
    """
    return pnn_transfer_score_above_random(curve, expert, 0.0, within)


def pnn_transfer_score_above_random(
    curve: Curve, expert: Curve, random: float | None, within: Within = None
) -> float | None:
    """Return `(AUC_j - r) / (AUC^b_j - r) x 100`, r the score of random play.

    None where r is not known, or the expert's area is not above it.

    >>> from clrl.study.curves import Point
    >>> curve, expert = [Point(0, -20.0), Point(10, 0.0)], [Point(0, -20.0), Point(10, -12.0)]
    >>> pnn_transfer_score_above_random(curve, expert, -21.0)  # 11 / 5
    220.0
    """
    ours, theirs = _heights(curve, expert, within)
    above, reference = difference(ours, random), difference(theirs, random)
    if above is None or reference is None or reference <= 0:
        return None
    return 100 * above / reference


def continual_world_forward_transfer(
    curve: Curve, expert: Curve, within: Within = None
) -> float | None:
    """Return `(AUC_j - AUC^b_j) / (1 - AUC^b_j)` (Wolczyk et al. 2021), of scores in [0, 1].

    None where the expert's area leaves nothing to gain (1 or more).

    >>> from clrl.study.curves import Point
    >>> continual_world_forward_transfer(
    ...     [Point(0, 0.5), Point(10, 1.0)], [Point(0, 0.0), Point(10, 1.0)]
    ... )
    0.5
    """
    ours, theirs = _heights(curve, expert, within)
    if ours is None or theirs is None or theirs >= 1:
        return None
    return (ours - theirs) / (1 - theirs)


def area_gain(curve: Curve, expert: Curve, within: Within = None) -> float | None:
    """Return `AUC_j - AUC^b_j`: Continual World's forward transfer in the unit of the scores.

    >>> from clrl.study.curves import Point
    >>> area_gain([Point(0, 2.0), Point(10, 4.0)], [Point(0, 0.0), Point(10, 4.0)])
    1.0
    """
    return difference(*_heights(curve, expert, within))


def relative_speed(curve: Curve, expert: Curve, criterion: float | None) -> float | None:
    """Return the expert's time to a criterion over this run's (Fernando et al. 2017).

    Times are those of the first evaluation at or above it, so they are as coarse as the schedule
    of evaluations. None where there is no criterion, or one of the two never reaches it, or is
    there before it begins: no number says how much faster that is (see `censored_speed`).

    >>> from clrl.study.curves import Point
    >>> expert = [Point(0, 0.0), Point(10, 3.0), Point(20, 5.0)]
    >>> relative_speed([Point(0, 1.0), Point(10, 5.0), Point(20, 6.0)], expert, 5.0)
    2.0
    """
    if criterion is None:
        return None
    ours, theirs = (time_to_threshold(points, criterion) for points in (curve, expert))
    return theirs / ours if ours and theirs else None


def censored_speed(
    curve: Curve, expert: Curve, criterion: float | None
) -> Literal["faster", "slower", "neither"] | None:
    """Return on which side of all numbers a relative speed is; None if it is one, or has no sense.

    Faster: this run is at the criterion before it begins and the expert is not, or this run
    reaches it and the expert never does. Slower: the other way round.

    >>> from clrl.study.curves import Point
    >>> quick, slow = [Point(0, 5.0), Point(10, 6.0)], [Point(0, 0.0), Point(10, 6.0)]
    >>> censored_speed(quick, slow, 5.0), censored_speed(slow, quick, 5.0)
    ('faster', 'slower')
    """
    if criterion is None:
        return None
    ours, theirs = (time_to_threshold(points, criterion) for points in (curve, expert))
    if ours and theirs:
        return None
    a, b = (math.inf if time is None else time for time in (ours, theirs))
    return "neither" if a == b else "faster" if a < b else "slower"


def relative_speed_by_area(
    curve: Curve, expert: Curve, criterion: float | None, within: Within = None
) -> float | None:
    """Return the area that the expert lies below a criterion over the area that this run does.

    Unlike the times, it needs neither of them to arrive. None where this run is never below.

    >>> from clrl.study.curves import Point
    >>> expert = [Point(0, 0.0), Point(20, 4.0)]
    >>> relative_speed_by_area([Point(0, 0.0), Point(10, 4.0), Point(20, 4.0)], expert, 4.0)
    2.0
    """
    if criterion is None:
        return None
    within = common_spans([curve, expert]) if within is None else within
    ours, theirs = (shortfall(points, criterion, within) for points in (curve, expert))
    return theirs / ours if ours and theirs is not None else None


def jump_start(curve: Curve, expert: Curve) -> float | None:
    """Return by how much a run is ahead of the expert before either has learned the task.

    >>> from clrl.study.curves import Point
    >>> jump_start([Point(0, 2.5), Point(10, 4.0)], [Point(0, 1.0), Point(10, 4.0)])
    1.5
    """
    ours, theirs = (
        next((p.score for p in points if p.step == 0), None) for points in (curve, expert)
    )
    return difference(ours, theirs)


def reference_transfer(
    forward_transfer: Mapping[str, Mapping[str, float | None]],
) -> float | None:
    """Return `mean_j max_i FT(i -> j)` (Wolczyk et al. 2021): what the best single source gives.

    Args:
        forward_transfer: of every pair, by target and then by source.

    >>> reference_transfer({"B": {"A": 0.25, "C": 0.5}, "C": {"A": -0.25, "B": -0.5}})
    0.125
    """
    best = []
    for by_source in forward_transfer.values():
        known = [value for value in by_source.values() if value is not None]
        best.append(max(known) if known and len(known) == len(by_source) else None)
    return mean_of_all(best)


def _heights(curve: Curve, expert: Curve, within: Within) -> tuple[float | None, float | None]:
    within = common_spans([curve, expert]) if within is None else within
    return mean_height(curve, within), mean_height(expert, within)
