"""All pairs of a study together, and methods beside each other: worked by hand, and by scipy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from clrl.run.yaml_safe import dump
from clrl.study.plan import PlannedRun, Study, load_study
from clrl.study.ratios import interval_of_ratios
from clrl.study.report.document import Table
from clrl.study.report.transfer_sections import matrices, verdict
from clrl.study.statistics import iqm, mean
from clrl.study.transfer_matrix import transfer_matrix
from clrl.study.transfer_metrics import Finished
from clrl.study.transfer_text import markdown

Curve = Sequence[float]
SEEDS = [0, 1, 2]
RUN = {
    "sequence": {"steps": 100},
    "agent": {"name": "ppo", "n_envs": 2, "n_steps": 5, "batch_size": 5},
    "evaluation": {"every": 50},
}
STUDY = {
    "sources": ["Pong"],
    "targets": ["Freeway", "Krull"],
    "methods": {"finetune": {}, "progressive": {}},
    "seeds": SEEDS,
    "run": RUN,
}


@pytest.fixture
def study(write_study: Callable[..., Path], tmp_path: Path) -> Study:
    return load_study(write_study(tmp_path, **STUDY))


def normalise(task: str, score: float) -> float | None:
    return score / 20


def finished(run: PlannedRun, curves: Sequence[Curve], source_at_end: float = 0.0) -> Finished:
    rows = []
    for k, (task, curve) in enumerate(zip([*run.sources, run.target], curves, strict=True)):
        moments = [(k, "end" if k else "start"), (k + 1, "during"), (k + 1, "end")]
        for i, ((visit, phase), score) in enumerate(zip(moments, curve, strict=True)):
            where = {"visit": visit, "phase": phase, "step": 100 * k + 50 * i}
            rows.append(where | {"task_evaluated": task, "return": score})
    if run.sources:
        where = {"visit": 2, "phase": "end", "step": 200, "task_evaluated": run.sources[0]}
        rows.append(where | {"return": source_at_end})
    return Finished(run, f"{run.config.name}/seed{run.seed}", rows)


Runs = Mapping[tuple[str, str], Sequence[Curve]]  # by method and target, a curve a seed


def result_of(
    study: Study, runs: Runs, expert: Curve = (10.0,) * 3, kept: Mapping[str, float] | None = None
) -> dict[str, Any]:
    kept = kept or {}
    return transfer_matrix(
        study,
        [finished(run, [expert]) for run in study.experts],
        [
            finished(
                run,
                [[0.0, 0.0, 4.0], runs[run.method, run.target][run.seed]],
                kept.get(run.method, 4.0),
            )
            for run in study.runs
        ],
        normalise,
    )


def level(*scores: float) -> list[Curve]:
    return [[score] * 3 for score in scores]


LEVEL = {  # over experts at 10, in percent: 110 each; 120, 130, 170 and 100, 110, 120
    ("finetune", "Freeway"): level(11, 11, 11),
    ("finetune", "Krull"): level(11, 11, 11),
    ("progressive", "Freeway"): level(12, 13, 17),
    ("progressive", "Krull"): level(10, 11, 12),
}


def versus(result: dict[str, Any], metric: str) -> dict[str, Any]:
    found: dict[str, Any] = result["summary"][metric]["progressive"]["versus"]["finetune"]
    return found


def test_a_difference_has_students_interval_of_a_number_a_seed(study: Study) -> None:
    found = versus(result_of(study, LEVEL), "transfer_score")["difference"]
    by_seed = [(10 - 10) / 2, (20 + 0) / 2, (60 + 10) / 2]
    assert found["value"] == pytest.approx(15)
    low, high = stats.t.interval(0.95, 2, np.mean(by_seed), stats.sem(by_seed))
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert low < min(by_seed)  # which no draw of seeds would be


@pytest.mark.parametrize(
    ("runs", "by_seed"),
    [
        ((6.5, 13.0, 19.5), (30, 30, 30)),  # 1.3 times each expert, whichever are drawn
        # 1.3 on the mean; 8 - 1.3 * 5 = 1.5, 0 and -1.5 over the mean of 10 are the rest
        ((8.0, 13.0, 18.0), (30 + 15, 30, 30 - 15)),
    ],
)
def test_what_is_divided_by_varies_in_a_difference_too(
    study: Study, runs: Sequence[float], by_seed: Sequence[float]
) -> None:
    experts = (5.0, 10.0, 15.0)
    scores = {"finetune": experts, "progressive": runs}
    result = transfer_matrix(
        study,
        [finished(run, [[experts[run.seed]] * 3]) for run in study.experts],
        [finished(r, [[0.0] * 3, [scores[r.method][r.seed]] * 3]) for r in study.runs],
        normalise,
    )
    found = versus(result, "transfer_score")["difference"]
    assert found["value"] == pytest.approx(30)
    expected = (30, 30)
    if np.std(by_seed):
        expected = stats.t.interval(0.95, 2, np.mean(by_seed), stats.sem(by_seed))
    assert (found["low"], found["high"]) == pytest.approx(expected)


def test_the_numbers_do_not_depend_on_how_python_hashes(study: Study, tmp_path: Path) -> None:
    program = """
import json, runpy, sys
from pathlib import Path
from clrl.study.plan import load_study
here = runpy.run_path(sys.argv[1])
study = load_study(Path(sys.argv[2]))
runs = {
    (method, target): here["level"](*(11.1 + k / 7 + i / 3 + len(method) / 9 for k in range(3)))
    for method in study.config.methods
    for i, target in enumerate(study.targets)
}
print(json.dumps(here["result_of"](study, runs)))
"""
    path = tmp_path / "of_five.yaml"
    targets = ["Freeway", "Krull", "Breakout", "Boxing", "Alien"]
    path.write_text(dump(study.to_dict() | {"targets": targets}))
    found = {
        subprocess.run(
            [sys.executable, "-c", program, __file__, path],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(found) == 1


def test_a_chance_is_of_being_better_whichever_way_that_is(study: Study) -> None:
    result = result_of(study, LEVEL, kept={"finetune": 1.0, "progressive": 4.0})
    # Freeway: every run of ours is above; Krull: of 3 x 3, 3 above, 3 the same
    gain = versus(result, "transfer_score")["probability_of_improvement"]
    assert gain["value"] == pytest.approx((1 + 0.5) / 2)
    assert gain["low"] < gain["value"] < gain["high"]
    kept = versus(result, "source_forgetting")["probability_of_improvement"]
    assert result["summary"]["source_forgetting"]["finetune"]["mean"]["value"] > 0
    assert (kept["value"], kept["low"], kept["high"]) == (1.0, 1.0, 1.0)
    assert "chance to be better than finetune" in markdown(result)


def test_every_statistic_has_its_own_interval(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    scores = [10.0, 11.0, 12.0, 13.0, 40.0]  # of three all alike often enough: the two agree
    more = {"targets": ["Freeway"], "methods": {"finetune": {}}, "seeds": [*range(5)]}
    study = load_study(write_study(tmp_path, **STUDY | more))
    runs = {("finetune", "Freeway"): level(*scores)}
    told = result_of(study, runs)["summary"]["transfer_score"]["finetune"]
    parts = {"": [(100 * score, 10.0) for score in scores]}
    for word, statistic in (("mean", mean), ("iqm", iqm)):
        expected = interval_of_ratios(parts, statistic=statistic)
        assert expected is not None
        found = (told[word]["low"], told[word]["high"])
        assert found == pytest.approx((expected.low, expected.high))
    assert told["iqm"]["high"] != pytest.approx(told["mean"]["high"])


EXPERT = [0.0, 5.0, 10.0]  # at 5, the criterion, after 50 steps
NEVER, AT_ONCE = [0.0, 0.0, 0.0], [6.0, 6.0, 6.0]


def test_a_method_that_lost_a_pair_has_a_rank_there_and_no_mean(study: Study) -> None:
    as_expert = [EXPERT] * 3
    runs = {
        ("finetune", "Freeway"): as_expert,
        ("finetune", "Krull"): as_expert,
        ("progressive", "Freeway"): [EXPERT, AT_ONCE, NEVER],
        ("progressive", "Krull"): [[0.0, 10.0, 10.0]] * 3,
    }
    result = result_of(study, runs, EXPERT)
    ours, theirs = (result["summary"]["relative_speed"][m] for m in ("progressive", "finetune"))
    assert (theirs["pairs"], theirs["mean"]["value"]) == (2, 1.0)
    assert (ours["pairs"], ours["of"]) == (1, 2)
    assert "mean" not in ours
    assert versus(result, "relative_speed")["difference"]["value"] is None
    # Freeway: the same thrice of 3, above all 3, above none; Krull: at 50 % of the steps as well
    chance = versus(result, "relative_speed")["probability_of_improvement"]["value"]
    assert chance == pytest.approx(((1.5 + 3 + 0) / 9 + 0.5) / 2)
    text = getattr(verdict(result, "relative_speed").parts[0], "text", "")
    assert "progressive has none, 1 of 2 pairs" in text
    assert "highest" not in text
    lost = {pair: [NEVER] * 3 for pair in runs} | {("finetune", "Freeway"): as_expert}
    again = versus(result_of(study, lost, EXPERT), "relative_speed")
    assert again["probability_of_improvement"]["value"] == pytest.approx((0 + 0.5) / 2)


def test_a_ratio_over_what_may_be_0_has_no_interval(study: Study) -> None:
    result = transfer_matrix(
        study,
        [finished(run, [[(0.1, 0.1, 10.0)[run.seed]] * 3]) for run in study.experts],
        [finished(r, [[0.0] * 3, LEVEL[r.method, r.target][r.seed]]) for r in study.runs],
        normalise,
    )
    cell = result["matrix"]["transfer_score"]["progressive"]["Pong"]["Freeway"]
    assert cell["mean"] == pytest.approx(100 * 42 / 10.2)
    told = result["summary"]["transfer_score"]["progressive"]
    for one in (cell, told["mean"], told["iqm"], versus(result, "transfer_score")["difference"]):
        assert (one["low"], one["high"]) == (None, None)
    assert cell["values"] == pytest.approx([12000, 13000, 170])
    assert result["matrix"]["area_gain"]["progressive"]["Pong"]["Freeway"]["low"] is not None


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("transfer_score", "progressive has the highest."),
        ("source_forgetting", "progressive has the lowest."),
    ],
)
def test_the_verdict_names_the_best_whichever_way_that_is(
    study: Study, metric: str, told: str
) -> None:
    result = result_of(study, LEVEL, kept={"finetune": 1.0, "progressive": 4.0})
    texts = [getattr(part, "text", "") for part in verdict(result, metric).parts]
    assert any(told in text for text in texts)


def test_shades_have_one_scale_over_all_targets_and_little_is_pale(study: Study) -> None:
    def shades(kept: float) -> dict[str, list[float | None]]:
        runs = LEVEL | {("progressive", "Krull"): level(5, 5, 5)}
        result = result_of(study, runs, kept={"finetune": kept, "progressive": 4.0})
        found = {}
        for table in matrices(result, "transfer_score").parts[1:]:
            assert isinstance(table, Table)
            for row, of in zip(table.rows, table.shades or [], strict=True):
                found[f"{table.title} {row[0]}"] = of[2:]
        return found

    found = shades(4.0 - 0.08)  # 0.4 % of the range of 20
    title = "PNN's transfer score (% of the expert's area)"
    assert found[f"{title} progressive"] == pytest.approx([40 / 50, -1.0])
    assert found[f"{title} finetune"] == pytest.approx([10 / 50, 10 / 50])
    (forgot,) = [
        of for name, of in found.items() if name.startswith("forgetting") and "fine" in name
    ]
    assert forgot == pytest.approx([-0.004 / 0.1] * 2)
