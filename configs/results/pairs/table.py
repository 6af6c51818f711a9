"""Transfer between two games: progressive nets beside the paper's four baselines, and PathNet.

    python configs/results/pairs/table.py RUNS OUT [PAIR_ARM=FOLDER...]

RUNS holds folders `<pair>_<arm>/seed<k>`, as `make_runs.py` makes them: pairs as in `PAIRS`, arms
as in `ARMS`. FOLDER stands in for one of them: runs of a longer sequence are runs of a pair too, by
the first visit to the target after the source. Writes OUT/table.md, short.md, results.csv and
curves.svg.

Learned: the target's last score is at least half of the way from random play (the shipped table's)
to the mean last score of baseline 1; one line for all arms of a pair. A game like Freeway is
learned or stays at 0, so any line between does; in the middle, games evaluated by chance are least
likely to cross it. Arms with transfer have no part in it.

In what runs of a pair must agree, `pair_runs.py` says. Their seeds may differ: what is compared is
of the seeds that both have. Areas are mean heights over the steps of the target's visit that every
curve covers.

Transfer score: the mean area of an arm's seeds over that of its control's, times 100 (Rusu et al.
2016), of scores as they are and above random play. Forward transfer: Continual World's, on
human-normalised scores. Relative speed (Fernando et al. 2017): the control's steps to a criterion
over the arm's, seed by seed, and as areas below the criterion, which need no arrival; the criterion
is half of the way from the mean first to the mean last score from scratch by the control's net.

Intervals: 95 % percentile bootstrap, seeds of both arms drawn together (2,000 times, seed 0); with
three seeds about the range of the seeds. There is none, but `(unsteady)`, where what is divided by
is about 0 with some seed: in a draw of such seeds alone the ratio is as large as chance will have
it. An arm less another: 95 % t interval of the differences by seed.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from pair_arms import ARMS, OTHERS, PAIRS, title  # beside this file
from pair_runs import BY_NET, Arms, Runs, runs_of
from pair_scores import (
    NEAR_ZERO,
    amount,
    areas,
    difference,
    halfway_up,
    line_of,
    points,
    random_score,
    scores_of,
    spans_of,
)

from clrl.errors import ClrlError
from clrl.study.figures import save
from clrl.study.paths import WHOLE, load_paths
from clrl.study.statistics import ENOUGH_RUNS, TOO_NARROW, paired_differences, t_interval

COMPARED = [(arm, control) for arm, own in ARMS.items() for control in own.beside]
SCORES = ("transfer score", "above random", "forward transfer", "relative speed", "by area")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, help="holds <pair>_<arm>/seed<k>, by make_runs.py")
    parser.add_argument("out", type=Path, help="where the table, its data and the figure go")
    parser.add_argument(
        "instead", nargs="*", metavar="PAIR_ARM=FOLDER", help="p1_pnn=runs/mine: runs of your own"
    )
    arguments = parser.parse_args()
    runs, out = arguments.runs, arguments.out
    instead = dict(given(text) for text in arguments.instead)
    found = {pair: runs_of(runs, pair, instead) for pair in PAIRS}
    found = {pair: arms for pair, arms in found.items() if arms}
    if not found:
        names = f"{next(iter(PAIRS))}_{next(iter(ARMS))}"
        raise ClrlError(f"{runs} has no finished run of a pair: expected {names}/seed0 or alike", 3)
    out.mkdir(parents=True, exist_ok=True)
    rows = [row for pair, arms in found.items() for row in rows_of(pair, arms)]
    with (out / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    text = table(found) + overlaps(found)
    (out / "table.md").write_text(text)
    (out / "short.md").write_text(short(found))
    print(text, end="")
    save(drawn(found), out / "curves.svg")


# ------------------------------------------------------------------------------------ what is read


def given(text: str) -> tuple[str, Path]:
    """Split `PAIR_ARM=FOLDER`."""
    name, _, folder = text.partition("=")
    if name not in [f"{pair}_{arm}" for pair in PAIRS for arm in ARMS]:
        pairs, arms = ", ".join(PAIRS), ", ".join(ARMS)
        raise ClrlError(f"{text!r}: expected PAIR_ARM=FOLDER, of {pairs} and {arms}", 2)
    if not any(Path(folder).glob("seed*/summary.json")):
        raise ClrlError(f"{text!r}: {folder or '.'} has no finished run seed<k>", 3)
    return name, Path(folder)


# -------------------------------------------------------------------------------------- the tables


def rows_of(pair: str, arms: Arms) -> list[dict]:
    source, target, _ = PAIRS[pair]
    of_arm, normalised, line = areas(arms), areas(arms, target), line_of(arms, target)
    return [
        {
            "source": source,
            "target": target,
            "arm": ARMS[arm].label,
            "seed": seed,
            "learned": "" if line is None else int(run.last >= line),
            "last": run.last,
            "area": round(of_arm[arm][seed], 3),
            "normalised_area": round(normalised[arm][seed], 5),
            "source_last": run.source_last,
            "weights_trained": run.trained,
            "curve": " ".join(f"{p.step}:{p.score:g}" for p in run.curve if p.score is not None),
        }
        for arm, runs in arms.items()
        for seed, run in runs.items()
    ]


def table(found: dict[str, Arms]) -> str:
    """Return what every arm came to, then each beside its controls, and what is to be known."""
    told = [*learned(found), "", *compared(found), "", *notes(found), ""]
    told += ["An arm less another, in area, paired by seed, with Student's 95 % intervals:", ""]
    for pair, arms in found.items():
        of_arm = areas(arms)
        stretch = ", ".join(f"{a:,} to {b:,}" for a, b in spans_of(arms))
        told.append(f"- {title(pair)} (areas over steps {stretch} of the target's visit):")
        for arm, other in COMPARED:
            if set(arms.get(arm, ())) & set(arms.get(other, ())):
                names = f"{ARMS[arm].label} less {ARMS[other].label}"
                told.append(f"    - {names}: {difference(of_arm[arm], of_arm[other])}")
    return "\n".join([*told, "", apart(found), ""])


def short(found: dict[str, Arms]) -> str:
    """Return a line an arm, a column a pair: the mean area, and each seed's."""
    heads = [f"{title(pair)} (random play {points(random_of(pair))})" for pair in found]
    lines = [row(["arm", *heads]), "|---|" + "---|" * len(found)]
    of_pair = [areas(arms) for arms in found.values()]
    for arm, own in ARMS.items():
        each = [list(of_arm.get(arm, {}).values()) for of_arm in of_pair]
        cells = [
            f"{amount(float(np.mean(one)))} ({', '.join(map(amount, one))})" if one else ""
            for one in each
        ]
        if any(cells):
            lines.append(row([own.label, *cells]))
    return "\n".join(lines) + "\n"


def random_of(pair: str) -> float:
    score = random_score(PAIRS[pair].target)
    assert score is not None, "a game without a published score of random play"
    return score


def apart(found: dict[str, Arms]) -> str:
    """Return which of the differences have intervals that leave out 0, and what that is worth."""
    some, n = list[str](), 0
    for pair, arms in found.items():
        of_arm = areas(arms)
        for arm, other in COMPARED:
            each = paired_differences(of_arm.get(arm, {}), of_arm.get(other, {}))
            if (interval := t_interval(list(each.values()))) is None:
                continue
            n += 1
            if interval.low > 0 or interval.high < 0:
                order = "above" if interval.low > 0 else "below"
                some.append(f"{title(pair)}: {ARMS[arm].label} {order} {ARMS[other].label}")
    if not n:
        return "No two arms have three seeds in common yet: no difference has an interval."
    told = "\n".join(f"- {one}" for one in some) or "- none"
    return (
        f"Of these {n} differences with three seeds or more, {len(some)} have an interval that "
        f"leaves out 0, where chance alone gives about {n / 20:.2g}. They are not independent, and "
        f"of fewer than six seeds `clrl report` calls none better or worse:\n\n{told}"
    )


def learned(found: dict[str, Arms]) -> list[str]:
    columns = ["pair", "arm", "seeds", "learned", "last score, each seed", "area, each seed"]
    columns += ["the source's last score", "source learned", "weights trained"]
    lines = [row(columns), "|" + "---|" * len(columns)]
    for pair, arms in found.items():
        of_arm, line = areas(arms), line_of(arms, PAIRS[pair].target)
        known = {(seed, run.source_last) for runs in arms.values() for seed, run in runs.items()}
        of_source = [last for _, last in known if last is not None]
        source_line = halfway_up(PAIRS[pair].source, of_source)
        for arm, runs in arms.items():
            each = list(runs.values())
            k = "-" if line is None else sum(run.last >= line for run in each)
            sources = [run.source_last for run in each if run.source_last is not None]
            able = sum(source_line is not None and last >= source_line for last in sources)
            trained = dict.fromkeys(run.trained for run in each if run.trained is not None)
            cells = [title(pair) if arm == next(iter(arms)) else "", ARMS[arm].label]
            cells += [", ".join(map(str, runs)), f"{k} of {len(each)}"]
            cells += [", ".join(points(run.last) for run in each)]
            cells += [", ".join(amount(area) for area in of_arm[arm].values())]
            cells += [", ".join(map(points, sources))]
            cells += [f"{able} of {len(sources)}" if sources else ""]
            cells += [", ".join(f"{n:,}" for n in trained)]
            lines.append(row(cells))
    told = [
        f"{title(pair)}: no line, as from scratch the mean is not above random play"
        if (line := line_of(arms, PAIRS[pair].target)) is None
        else f"{title(pair)}: {points(line)}"
        for pair, arms in found.items()
    ]
    lines += [
        "",
        "Learned: the last score is at least half of the way from random play to the mean last "
        f"score of `{ARMS['b1'].label}` ({'; '.join(told)}); of a source, to the mean of all runs "
        "that learned it. Where a source was not learned, there is nothing to carry over.",
    ]
    return lines


def compared(found: dict[str, Arms]) -> list[str]:
    columns = ["pair", "arm", "beside", "seeds of both", *SCORES]
    lines = [row(columns), "|---|---|---|---|" + "---:|" * len(SCORES)]
    for pair, arms in found.items():
        for arm, control in COMPARED:
            if arm in arms and control in arms:
                both = sorted(arms[arm].keys() & arms[control].keys())
                cells = [title(pair), ARMS[arm].label, ARMS[control].label]
                cells += [", ".join(map(str, both)) or "none"]
                scores = scores_of(arms, arm, control, PAIRS[pair].target) if both else []
                lines.append(row(cells + (scores or [""] * len(SCORES))))
    return lines


def notes(found: dict[str, Arms]) -> list[str]:
    """Return what a reader must know of the comparisons."""
    told = [
        "- Transfer score: the arm's mean area over that of what it stands beside, times 100 (Rusu "
        "et al. 2016, whose areas are of training games, not of evaluations); above random: the "
        "same with random play taken off both. Forward transfer: Continual World's, of "
        "human-normalised scores. Relative speed: steps to a criterion of what it stands beside "
        "over the arm's, each seed (faster: only the arm came to it, or was there from the start; "
        "slower: the other way round; neither: neither); by area: areas below the criterion, "
        "likewise. In brackets 95 % bootstrap intervals over seeds. A dash: with some seed what is "
        "divided by is not above 0.",
        "- The criterion of speed is half of the way from the mean first to the mean last score of "
        "the target alone, learned from scratch by the net of what an arm stands beside.",
        "- (unsteady): no interval, as what is divided by is about 0 with some seed (below "
        f"{NEAR_ZERO:g} of the largest seed's), or its mean is within 2 standard errors of 0: with "
        "other seeds the ratio might be anything. See how many seeds learned.",
    ]
    fewest = min(len(runs) for arms in found.values() for runs in arms.values())
    if fewest < ENOUGH_RUNS:
        seeds = "seed" if fewest == 1 else "seeds"
        told.append(
            f"- Some arm has {fewest} {seeds}: {TOO_NARROW}; of fewer than 3 there are none."
        )
    for pair, arms in found.items():
        nets = {ARMS[arm].net: next(iter(runs.values())).settings for arm, runs in arms.items()}
        others = nets.pop(OTHERS, None)
        for net, settings in nets.items() if others else ():
            for key in BY_NET:
                own, theirs = settings.get((key, net), "?"), others.get((key, OTHERS), "?")
                if own != theirs:
                    told.append(
                        f"- {title(pair)}: {key} of {net} is {own}, of {OTHERS} {theirs}: between "
                        "these it is not the method alone that differs."
                    )
        for arm, runs in arms.items():
            walks = dict.fromkeys(run.walk for run in runs.values())
            told += [
                f"- {title(pair)}, {ARMS[arm].label}: learned {', '.join(walk)}"
                for walk in walks
                if walk not in (PAIRS[pair][:2], PAIRS[pair][1:2])
            ]
    return told


def overlaps(found: dict[str, Arms]) -> str:
    """Return how much of their modules PathNet's two paths share, and what evolution did."""
    lines = list[str]()
    for pair, arms in found.items():
        for arm, runs in arms.items():
            if ARMS[arm].net != OTHERS and not ARMS[arm].alone:
                lines.append(f"- {title(pair)}, {ARMS[arm].label}: {shared(runs)}")
    if not lines:
        return ""
    head = (
        "Modules that both of PathNet's paths name, of those that either does, each seed (in the "
        "paper a path is of 4 of 10 small ones):"
    )
    return "\n".join(["", head, "", *lines, ""])


def shared(runs: Runs) -> str:
    overlap, chance, evolved, of = list[str](), list[str](), list[str](), dict[str, None]()
    always_on = False
    if lost := [seed for seed, run in runs.items() if not (run.folder / "checkpoints").is_dir()]:
        return f"not known: no checkpoint is there of seed {', '.join(map(str, lost))}"
    for run in runs.values():
        assert run.source_place is not None
        paths = load_paths(run.folder)
        a, b = (paths.visits.index(run.walk[place]) for place in (run.source_place, -1))
        always_on |= paths.always_on
        overlap.append(f"{paths.overlap()[WHOLE][a][b]:.2f}")
        chance.append(f"{paths.overlap_by_chance()[WHOLE][a][b]:.2f}")
        each = (paths.evolution[a], paths.evolution[b])
        evolved.append(" and ".join(f"{len(e.seen)} ({e.overwritten.sum():.0f})" for e in each))
        of[f"{paths.n_active} of {paths.active.shape[2]}"] = None
    text = (
        f"{', '.join(overlap)}, by chance {', '.join(chance)}; paths of {', '.join(of)} modules a "
        "layer; evaluations (genotypes overwritten) on the source and on the target: "
        f"{'; '.join(evolved)}"
    )
    hidden = " (frozen modules were on, named or not: this does not tell of reuse)"
    return text + hidden if always_on else text


# ---------------------------------------------------------------------------------- how it is told


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def drawn(found: dict[str, Arms]) -> Figure:
    """Return the target's learning curves: each seed thin, their mean thick; a panel a pair."""
    columns = min(len(found), 2)
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(4.2 * columns + 1.4, 3.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in panels[len(found) :]:
        axis.set_visible(False)
    for i, (axis, (pair, arms)) in enumerate(zip(panels, found.items(), strict=False)):
        for arm, runs in arms.items():
            label, (color, style) = ARMS[arm].label, ARMS[arm].line
            lines = [[p for p in run.curve if p.score is not None] for run in runs.values()]
            for line in lines:
                x, y = [p.step / 1_000 for p in line], [p.score for p in line]
                axis.plot(x, y, color=color, lw=0.6, alpha=0.5)
            scores = [dict(line) for line in lines]
            steps = sorted(set.intersection(*map(set, scores)))
            mean = [np.mean([each[step] for each in scores]) for step in steps]
            x = [step / 1_000 for step in steps]
            axis.plot(x, mean, style, color=color, lw=2, label=label)
        axis.set_title(title(pair), fontsize="medium")
        axis.set(xlabel="thousand agent steps", ylabel="" if i % columns else "score")
        axis.spines[["top", "right"]].set_visible(False)
    shown = [axis.get_legend_handles_labels() for axis in panels]
    lines = {label: line for own in shown for line, label in zip(*own, strict=True)}
    labels = [arm.label for arm in ARMS.values() if arm.label in lines]
    handles = [lines[label] for label in labels]
    figure.legend(handles, labels, frameon=False, fontsize="small", loc="outside right center")
    return figure


if __name__ == "__main__":
    try:
        main()
    except ClrlError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
