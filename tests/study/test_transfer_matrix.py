"""A transfer study's numbers, from evaluations written by hand."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from clrl.study.plan import PlannedRun, Study, load_study
from clrl.study.transfer_matrix import transfer_matrix
from clrl.study.transfer_metrics import Finished
from clrl.study.transfer_text import csv_text, markdown, show
from clrl.types import ClrlError

Write = Callable[..., Path]
RUN = {
    "sequence": {"steps": 100},
    "agent": {"name": "ppo", "n_envs": 2, "n_steps": 5, "batch_size": 5},
    "evaluation": {"every": 50},
}
RANDOM = {"Freeway": 0.0, "Pong": -20.0}
RANGE = {"Freeway": 20.0, "Pong": 40.0}


def normalise(task: str, score: float) -> float | None:
    return None if task not in RANGE else (score - RANDOM[task]) / RANGE[task]


def rows(walk: Sequence[str], scores: dict[int, Sequence[float | None]]) -> list[dict[str, Any]]:
    """Write a run down: of each visit its task's scores at 0, 50 and 100 steps of it."""
    found = []
    for visit, curve in scores.items():
        for k, score in enumerate(curve):
            before = k == 0
            where = {
                "visit": visit - 1 if before else visit,
                "phase": ("start" if visit == 1 else "end") if before else ("during", "end")[k - 1],
                "step": 100 * (visit - 1) + 50 * k,
                "task_evaluated": walk[visit - 1],
                "return": score,
            }
            found.append(where)
    return found


def finished(run: PlannedRun, scores: dict[int, Sequence[float | None]], **more: Any) -> Finished:
    made = rows([*run.sources, run.target], scores) + more.pop("also", [])
    return Finished(run, f"{run.config.name}/seed{run.seed}", made, **more)


def at_end(task: str, score: float) -> dict[str, Any]:
    where = {"visit": 2, "phase": "end", "step": 200, "task_evaluated": task}
    return where | {"return": score}


@pytest.fixture
def study(write_study: Write, tmp_path: Path) -> Study:
    two = {"sources": ["Pong", "Freeway"], "targets": ["Pong", "Freeway"]}
    methods = {"finetune": {}, "progressive": {}}
    return load_study(write_study(tmp_path, **two, methods=methods, seeds=[0, 1], run=RUN))


EXPERTS = {  # by target and seed
    ("Pong", 0): [-20.0, -16.0, -12.0],  # area over the visit: -16; over its second half: -14
    ("Pong", 1): [-20.0, -20.0, -16.0],  # -19 and -18
    ("Freeway", 0): [0.0, 4.0, 16.0],  # 6 and 10
    ("Freeway", 1): [0.0, 12.0, 16.0],  # 10 and 14
}
# Criteria, half of the way of the experts' means: Pong (-20 -> -14): -17; Freeway (0 -> 16): 8.
RUNS = {  # by method, target and seed
    ("finetune", "Pong", 0): [-18.0, -10.0, -6.0],  # second half: -8
    ("finetune", "Pong", 1): [-20.0, -18.0, -18.0],  # -18; never at the criterion
    ("finetune", "Freeway", 0): [2.0, 8.0, 16.0],  # 12
    ("finetune", "Freeway", 1): [0.0, 4.0, 10.0],  # 7
    ("progressive", "Pong", 0): [None, -14.0, -10.0],  # -12
    ("progressive", "Pong", 1): [None, -16.0, -16.0],  # -16
    ("progressive", "Freeway", 0): [None, 6.0, 14.0],  # 10
    ("progressive", "Freeway", 1): [None, 10.0, 18.0],  # 14
}


def of_study(study: Study, **more: Any) -> tuple[list[Finished], list[Finished]]:
    experts = [finished(run, {1: EXPERTS[run.target, run.seed]}) for run in study.experts]
    runs = []
    for run in study.runs:
        source = [5.0, 7.0, 11.0]
        scores = {1: source, 2: RUNS[run.method, run.target, run.seed]}
        kept = 11.0 if run.method == "progressive" else 1.0 + run.seed
        runs.append(finished(run, scores, also=[at_end(run.source, kept)], **more))
    return experts, runs


@pytest.fixture
def result(study: Study) -> dict[str, Any]:
    return transfer_matrix(study, *of_study(study), normalise)


def cell(result: dict[str, Any], metric: str, method: str, target: str) -> list[float | None]:
    source = {"Pong": "Freeway", "Freeway": "Pong"}[target]
    values: list[float | None] = result["matrix"][metric][method][source][target]["values"]
    return values


def test_areas_are_over_what_every_run_knows_and_it_is_said(result: dict[str, Any]) -> None:
    for target in ("Pong", "Freeway"):
        assert result["experts"][target]["areas_within"] == [[50, 100]]
        assert any(f"{target}: areas are over steps 50 to 100" in w for w in result["warnings"])
    assert result["experts"]["Pong"]["mean_score"] == [-14.0, -18.0]


def test_every_metric_worked_by_hand(result: dict[str, Any]) -> None:
    def values(metric: str, target: str) -> list[float | None]:
        return cell(result, metric, "finetune", target)

    assert values("transfer_score", "Pong") == [None, None]  # areas below 0
    assert values("transfer_score", "Freeway") == pytest.approx([120.0, 50.0])
    above = values("transfer_score_above_random", "Pong")
    assert above == pytest.approx([100 * 12 / 6, 100 * 2 / 2])
    # on [0, 1]: Pong -8 -> 0.3, -14 -> 0.15; -18 and -18; Freeway 12, 10 of 20; 7, 14 of 20
    assert values("forward_transfer", "Pong") == pytest.approx([0.15 / 0.85, 0.0])
    assert values("forward_transfer", "Freeway") == pytest.approx([0.1 / 0.5, -0.35 / 0.3])
    assert values("area_gain", "Pong") == pytest.approx([6.0, 0.0])
    assert values("jump_start", "Pong") == [2.0, 0.0]
    assert result["experts"]["Pong"]["criterion"] == -17.0
    assert result["experts"]["Pong"]["time_to_threshold"] == [50, 100]
    assert values("time_to_threshold", "Pong") == [50.0, None]
    assert values("relative_speed", "Pong") == [1.0, None]
    assert result["experts"]["Freeway"]["time_to_threshold"] == [100, 50]
    assert values("time_to_threshold", "Freeway") == [50.0, 100.0]
    assert values("relative_speed", "Freeway") == [2.0, 0.5]
    # below 8 over 50..100: expert 4 -> 16 is below for a third, 4/2 high: 2/3; ours 8 -> 16: 0
    assert values("relative_speed_by_area", "Freeway") == [None, pytest.approx(0.0)]
    # Pong 11 -> 1 and 11 -> 2, of a range of 40
    assert values("source_forgetting", "Freeway") == pytest.approx([10 / 40, 9 / 40])
    assert values("source_forgetting", "Pong") == pytest.approx([10 / 20, 9 / 20])  # Freeway's
    assert cell(result, "source_forgetting", "progressive", "Freeway") == [0.0, 0.0]


def test_a_column_that_did_not_exist_has_no_jump_start_but_all_else(result: dict[str, Any]) -> None:
    assert cell(result, "jump_start", "progressive", "Freeway") == [None, None]
    assert cell(result, "transfer_score", "progressive", "Freeway") == pytest.approx([100, 100])
    assert cell(result, "relative_speed", "progressive", "Freeway") == [1.0, 1.0]


def test_a_mean_over_seeds_needs_them_all(result: dict[str, Any]) -> None:
    cells = result["matrix"]["time_to_threshold"]["finetune"]
    assert cells["Freeway"]["Pong"] == {
        "values": [50, None],
        "mean": None,
        "low": None,
        "high": None,
    }
    assert cells["Pong"]["Freeway"]["mean"] == 75.0


def test_all_pairs_together_are_strata_and_methods_are_compared_run_by_run(
    result: dict[str, Any],
) -> None:
    told = result["summary"]["forward_transfer"]
    # gains over what there was to gain, means over the two seeds below the line
    values = [0.15 / 0.9, 0.0 / 0.9, 0.1 / 0.4, -0.35 / 0.4]
    assert told["finetune"]["mean"]["value"] == pytest.approx(sum(values) / 4)
    assert told["finetune"]["iqm"]["value"] == pytest.approx((values[0] + values[1]) / 2)
    ours = [0.05 / 0.9, 0.05 / 0.9, 0.0, 0.0]
    versus = told["progressive"]["versus"]["finetune"]
    assert versus["difference"]["value"] == pytest.approx((sum(ours) - sum(values)) / 4)
    # Pong: 2 of 4 comparisons are won; Freeway: 0 beats -1.17 twice, and loses to 0.2 twice
    assert versus["probability_of_improvement"]["value"] == pytest.approx((0.5 + 0.5) / 2)
    assert result["summary"]["transfer_score"]["finetune"]["pairs"] == 1  # Pong has none
    means = [0.15 / (0.85 + 0.95), (0.1 - 0.35) / (0.5 + 0.3)]
    assert result["summary"]["reference_transfer"]["finetune"] == pytest.approx(sum(means) / 2)
    assert "jump_start" not in result["summary"]  # steps and scores of games have no common unit


def test_two_seeds_have_no_interval_and_a_warning(result: dict[str, Any]) -> None:
    assert any("2 seeds: fewer than 3" in warning for warning in result["warnings"])
    text = json.dumps(result["matrix"]) + json.dumps(result["summary"])
    assert '"low": null' in text
    assert not any(f'"low": {digit}' in text for digit in "-0123456789")


def test_three_seeds_have_intervals(write_study: Write, tmp_path: Path) -> None:
    study = load_study(
        write_study(tmp_path, sources=["Pong"], targets=["Freeway"], seeds=[0, 1, 2], run=RUN)
    )
    experts = [finished(run, {1: [0.0, 5.0, 10.0]}) for run in study.experts]
    runs = [
        finished(r, {1: [0, 0, 1], 2: [0.0, 5.0 + r.seed, 10.0]}, also=[at_end("Pong", 1)])
        for r in study.runs
    ]
    result = transfer_matrix(study, experts, runs, normalise)
    found = result["matrix"]["transfer_score"]["finetune"]["Pong"]["Freeway"]
    assert found["values"] == pytest.approx([100, 110, 120])
    assert found["mean"] == pytest.approx(110)
    assert (found["low"], found["high"]) == pytest.approx((100, 120), abs=4)
    assert not any("fewer" in warning for warning in result["warnings"])
    assert "110.0 [1" in markdown(result)


@pytest.fixture
def pair(write_study: Write, tmp_path: Path) -> Study:
    two = {"sources": ["Pong"], "targets": ["Freeway"], "methods": {"finetune": {}}}
    return load_study(write_study(tmp_path, **two, seeds=[0, 1, 2], run=RUN))


def flat(study: Study, experts: Sequence[float], runs: Sequence[float]) -> dict[str, Any]:
    """Return the result of runs and experts that are level all the way, by seed."""
    source = [0.0, 0.0, 0.0]
    return transfer_matrix(
        study,
        [finished(e, {1: [experts[e.seed]] * 3}) for e in study.experts],
        [finished(r, {1: source, 2: [runs[r.seed]] * 3}) for r in study.runs],
        normalise,
    )


def test_an_expert_that_learned_little_does_not_rule_a_ratio(pair: Study) -> None:
    result = flat(pair, [10.0, 10.0, 0.1], [12.0, 12.0, 12.0])
    for metric in ("transfer_score", "transfer_score_above_random"):  # random play has 0
        found = result["matrix"][metric]["finetune"]["Pong"]["Freeway"]
        assert found["values"] == pytest.approx([120, 120, 12000])
        assert found["mean"] == pytest.approx(100 * 36 / 20.1)
        # seeds are drawn in pairs: thrice the third gives 12000, thrice one of the others 120
        assert found["low"] == pytest.approx(120)
        assert found["high"] == pytest.approx(12000)
        assert result["summary"][metric]["finetune"]["mean"]["value"] == found["mean"]
    gain = result["matrix"]["forward_transfer"]["finetune"]["Pong"]["Freeway"]
    # of 20 points: gains 2, 2, 11.9; left to gain 10, 10, 19.9
    assert gain["mean"] == pytest.approx(15.9 / 39.9)


def test_an_expert_at_exactly_nothing_takes_its_own_ratio_alone(pair: Study) -> None:
    result = flat(pair, [10.0, 10.0, 0.0], [12.0, 12.0, 12.0])
    found = result["matrix"]["transfer_score"]["finetune"]["Pong"]["Freeway"]
    assert found["values"] == [pytest.approx(120), pytest.approx(120), None]
    assert found["mean"] == pytest.approx(180)
    assert (found["low"], found["high"]) == (None, None)  # it may be drawn thrice
    assert "| finetune | Pong | 180.0 (120.0, 120.0, -) |" in markdown(result)
    summary = result["summary"]["transfer_score"]["finetune"]
    assert (summary["pairs"], summary["mean"]["value"]) == (1, pytest.approx(180))
    none = flat(pair, [0.0, 0.0, 0.0], [12.0, 12.0, 12.0])
    assert none["matrix"]["transfer_score"]["finetune"]["Pong"]["Freeway"]["mean"] is None
    assert none["summary"]["transfer_score"]["finetune"]["pairs"] == 0


def test_experts_on_both_sides_of_0_give_no_ratio(pair: Study) -> None:
    """The mean of -3, 1.6 and 1.7 is 0.1: a ratio of 2000 % would say nothing."""
    result = flat(pair, [-3.0, 1.6, 1.7], [2.0, 2.0, 2.0])
    found = result["matrix"]["transfer_score"]["finetune"]["Pong"]["Freeway"]
    assert found["mean"] is None
    assert result["summary"]["transfer_score"]["finetune"]["pairs"] == 0


def test_a_ratio_over_what_may_be_0_is_said(pair: Study) -> None:
    def warned(*experts: float) -> list[str]:
        told = flat(pair, experts, [12.0, 12.0, 12.0])["warnings"]
        return [warning for warning in told if "within 2 standard errors of 0" in warning]

    # mean 3.4, standard error 3.3
    assert [w.partition(":")[0] for w in warned(0.1, 0.1, 10.0)] == [
        "PNN's transfer score (% of the expert's area)",
        "PNN's transfer score above random play (%)",
    ]
    assert "for Freeway the mean divided by" in warned(0.1, 0.1, 10.0)[0]
    assert not warned(8.0, 9.0, 10.0)


def test_speeds_that_are_no_number_are_counted_by_direction(pair: Study) -> None:
    """The criterion is 8, half of the experts' mean way from 0 to 16."""
    experts = [[0.0, 8.0, 16.0], [8.0, 9.0, 16.0], [-8.0, 0.0, 16.0]]
    runs = [[9.0, 9.0, 9.0], [0.0, 9.0, 9.0], [0.0, 1.0, 2.0]]
    result = transfer_matrix(
        pair,
        [finished(e, {1: experts[e.seed]}) for e in pair.experts],
        [finished(r, {1: [0.0] * 3, 2: runs[r.seed]}) for r in pair.runs],
        normalise,
    )
    assert result["experts"]["Freeway"]["criterion"] == 8.0
    # there before it began; the expert was; never, and the expert at 100
    assert cell(result, "relative_speed", "finetune", "Freeway") == [None, None, None]
    assert [run["speed_censored"] for run in result["runs"]] == ["faster", "slower", "slower"]
    (told,) = [w for w in result["warnings"] if "relative speed is no number" in w]
    assert told.startswith("finetune: relative speed is no number in 3 of 3 runs: 1 faster")
    assert "2 slower" in told
    assert "0 of no direction" in told


def test_few_seeds_are_said_to_have_narrow_intervals(pair: Study) -> None:
    warnings = flat(pair, [10.0] * 3, [12.0] * 3)["warnings"]
    assert any(w.startswith("3 seeds: bootstrap intervals of so few") for w in warnings)


def test_pairs_share_their_seeds_and_two_alike_say_no_more_than_one(
    write_study: Write, tmp_path: Path
) -> None:
    def summary(sources: list[str]) -> dict[str, Any]:
        two = {"sources": sources, "targets": ["Freeway"], "seeds": [0, 1, 2, 3], "run": RUN}
        study = load_study(write_study(tmp_path, **two))
        own = {"finetune": [6.0, 9.0, 15.0, 7.0], "weak": [9.0, 4.0, 8.0, 16.0]}
        result = transfer_matrix(
            study,
            [finished(e, {1: [5.0 + e.seed] * 3}) for e in study.experts],
            [finished(r, {1: [0.0] * 3, 2: [own[r.method][r.seed]] * 3}) for r in study.runs],
            normalise,
        )
        told: dict[str, Any] = result["summary"]["transfer_score"]["weak"]
        return told

    one, three = summary(["Pong"]), summary(["Pong", "Krull", "Alien"])
    for told in (one, three):
        told["both"] = told.pop("versus")["finetune"]
    assert (one["pairs"], three["pairs"]) == (1, 3)
    assert three["mean"] == pytest.approx(one["mean"])
    for what in ("difference", "probability_of_improvement"):
        assert three["both"][what] == pytest.approx(one["both"][what])
        assert one["both"][what]["low"] < one["both"][what]["high"]


def test_speed_by_area_is_a_ratio_of_means_too(result: dict[str, Any]) -> None:
    # below 8 over 50..100: experts 2/3 and 0; runs 0 and, 4 -> 10, two thirds of 4/2
    found = result["matrix"]["relative_speed_by_area"]["finetune"]["Pong"]["Freeway"]
    assert found["mean"] == pytest.approx((2 / 3) / (4 / 3))


def test_methods_are_compared_where_a_single_run_has_no_ratio(
    write_study: Write, tmp_path: Path
) -> None:
    two = {"sources": ["Pong"], "targets": ["Freeway"], "seeds": [0, 1], "run": RUN}
    study = load_study(write_study(tmp_path, **two))  # finetune and weak
    scores = {"finetune": 6.0, "weak": 9.0}
    result = transfer_matrix(
        study,
        [finished(e, {1: [10.0 * (1 - e.seed)] * 3}) for e in study.experts],
        [finished(r, {1: [0.0] * 3, 2: [scores[r.method]] * 3}) for r in study.runs],
        normalise,
    )
    versus = result["summary"]["transfer_score"]["weak"]["versus"]["finetune"]
    assert versus["difference"]["value"] == pytest.approx(100 * (18 - 12) / 10)
    assert versus["probability_of_improvement"]["value"] is None
    assert "| transfer_score | weak | 1 of 1 | 180.0 | 180.0 | 60.0 | - |" in markdown(result)


def test_experts_that_did_not_reach_the_criterion_are_named(pair: Study) -> None:
    def warned(*last: float) -> list[str]:
        experts = [finished(e, {1: [0.0, 0.0, last[e.seed]]}) for e in pair.experts]
        runs = [finished(r, {1: [0.0] * 3, 2: [0.0, 5.0, 9.0]}) for r in pair.runs]
        told = transfer_matrix(pair, experts, runs, normalise)["warnings"]
        return [warning for warning in told if "did not reach" in warning]

    (one,) = warned(10.0, 0.0, 20.0)  # criterion: half of 10
    assert one.startswith("Freeway: the expert of seed 1 did not reach the criterion (5.00)")
    (two,) = warned(0.0, 0.0, 30.0)
    assert two.startswith("Freeway: the experts of seeds 0, 1 did not reach")
    assert not warned(8.0, 9.0, 10.0)


def test_answers_that_take_more_work_than_the_experts_are_said(study: Study) -> None:
    experts, runs = of_study(study)
    experts = [replace(one, multiply_adds=1000) for one in experts]

    def warned(finetune: int | None, progressive: Callable[[int], int | None]) -> list[str]:
        work = [
            replace(
                run,
                multiply_adds=finetune
                if run.planned.method == "finetune"
                else progressive(run.planned.seed),
            )
            for run in runs
        ]
        told = transfer_matrix(study, experts, work, normalise)["warnings"]
        return [warning for warning in told if "multiply-adds" in warning]

    assert not warned(1000, lambda seed: 1090)
    assert not warned(None, lambda seed: None)
    (told,) = warned(1000, lambda seed: 4000)
    assert told == (
        "progressive: an answer takes 4.0 times the expert's multiply-adds: the score is of "
        "capacity and transfer together"
    )
    assert "takes 2.0 to 3.0 times" in warned(1000, lambda seed: 2000 + 1000 * seed)[0]
    assert warned(1110, lambda seed: 1000)[0].startswith("finetune: an answer takes 1.1")
    assert warned(800, lambda seed: 1000)[0].startswith("finetune: an answer takes 0.8 times")


def test_experts_that_learned_nothing_give_no_criterion(study: Study) -> None:
    experts, runs = of_study(study)
    flat = [finished(e.planned, {1: [3.0, 3.0, 3.0]}) for e in experts]
    result = transfer_matrix(study, flat, runs, normalise)
    assert result["experts"]["Pong"]["criterion"] is None
    assert cell(result, "relative_speed", "finetune", "Pong") == [None, None]
    assert any("Pong: its experts learned nothing" in warning for warning in result["warnings"])


def test_experts_that_were_not_evaluated_before_are_not_said_to_have_learned_nothing(
    pair: Study,
) -> None:
    for curve, why in (
        ([None, 5.0, 10.0], "not evaluated before they learned it (evaluation.unseen: never?)"),
        ([0.0, 5.0, None], "the last evaluation of an expert is lost"),
    ):
        experts = [finished(e, {1: curve}) for e in pair.experts]
        runs = [finished(r, {1: [0.0] * 3, 2: [0.0, 5.0, 9.0]}) for r in pair.runs]
        warnings = transfer_matrix(pair, experts, runs, normalise)["warnings"]
        assert any(why in warning for warning in warnings)
        assert not any("learned nothing" in warning for warning in warnings)


def test_a_chain_is_measured_in_its_last_visit(write_study: Write, tmp_path: Path) -> None:
    chain = {"sources": [["Pong", "Breakout", "Pong"]], "targets": ["Freeway"]}
    chain["share_sources"] = False  # no expert for Pong then
    study = load_study(write_study(tmp_path, **chain, methods={"finetune": {}}, seeds=[0], run=RUN))
    (run,), (expert,) = study.runs, study.experts
    scores: dict[int, Sequence[float | None]] = {
        1: [-20.0, -20.0, -20.0],
        2: [0.0, 1.0, 2.0],
        3: [-20.0, -15.0, -10.0],
        4: [0.0, 10.0, 20.0],
    }
    ends = [at_end(task, score) | {"visit": 4, "step": 400} for task, score in
            (("Pong", -12.0), ("Breakout", 1.5))]  # fmt: skip
    result = transfer_matrix(
        study,
        [finished(expert, {1: [0.0, 5.0, 10.0]})],
        [finished(run, scores, also=ends)],
        normalise,
    )
    metrics = result["runs"][0]["metrics"]
    assert metrics["transfer_score"] == pytest.approx(200)
    assert metrics["source_forgetting"] is None  # Breakout has no scale here
    assert result["summary"]["reference_transfer"] == {"finetune": None}  # chains are not sources
    referenced = transfer_matrix(
        study,
        [finished(expert, {1: [0.0, 5.0, 10.0]})],
        [finished(run, scores, also=ends)],
        lambda task, score: score / 30 if task == "Breakout" else normalise(task, score),
    )
    # Pong -10 after its last visit, -12 at the end, of 40; Breakout 2 and 1.5, of 30
    lost = referenced["runs"][0]["metrics"]["source_forgetting"]
    assert lost == pytest.approx((2 / 40 + 0.5 / 30) / 2)


def test_accuracy_is_a_share_by_itself_and_has_no_random_score(
    write_study: Write, tmp_path: Path
) -> None:
    run = RUN | {"agent": {"name": "supervised"}, "net": {"body": "mlp"}}
    study = load_study(
        write_study(tmp_path, sources=["digits:0+1"], targets=["digits:2+3"], seeds=[0], run=run)
    )

    def of(planned: PlannedRun, curve: list[float]) -> Finished:
        scores: dict[int, Sequence[float | None]] = {1: [50.0, 60.0, 70.0]}
        made = finished(planned, scores | {len(planned.sources) + 1: curve})
        pictures = [{k: v for k, v in r.items() if k != "return"} for r in made.rows]
        for picture, r in zip(pictures, made.rows, strict=True):
            picture["accuracy"] = r["return"]
        return Finished(planned, made.folder, pictures)

    experts = [of(e, [40.0, 50.0, 60.0]) for e in study.experts]
    runs = [of(r, [60.0, 70.0, 80.0]) for r in study.runs]
    metrics = transfer_matrix(study, experts, runs, normalise)["runs"][0]["metrics"]
    assert metrics["forward_transfer"] == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    assert metrics["transfer_score_above_random"] is None


def test_skipped_lines_are_counted_and_said(study: Study) -> None:
    result = transfer_matrix(study, *of_study(study, skipped=1), normalise)
    assert {run["skipped_lines"] for run in result["runs"]} == {1}
    assert sum("of evaluations.jsonl 1 line is no record" in w for w in result["warnings"]) == len(
        study.runs
    )


def test_an_empty_study_and_a_run_without_expert_are_refused(study: Study) -> None:
    experts, runs = of_study(study)
    with pytest.raises(ClrlError, match="study 'toy' has no finished run"):
        transfer_matrix(study, experts, [], normalise)
    with pytest.raises(ClrlError, match="has no expert of its target and seed 1"):
        transfer_matrix(study, [e for e in experts if e.planned.seed == 0], runs, normalise)


def test_the_same_runs_give_the_same_texts(study: Study, result: dict[str, Any]) -> None:
    again = transfer_matrix(study, *of_study(study), normalise)
    assert json.dumps(again) == json.dumps(result)
    assert (markdown(again), csv_text(again)) == (markdown(result), csv_text(result))


def test_the_csv_has_every_run_and_metric(result: dict[str, Any]) -> None:
    lines = list(csv.DictReader(io.StringIO(csv_text(result))))
    assert len(lines) == len(result["runs"]) * len(result["metrics"])
    (found,) = [
        line
        for line in lines
        if (line["method"], line["target"], line["seed"]) == ("finetune", "Freeway", "0")
        and line["metric"] == "transfer_score"
    ]
    assert (found["source"], float(found["value"])) == ("Pong", pytest.approx(120))


def test_the_markdown_says_all_and_nothing_breaks_its_tables(result: dict[str, Any]) -> None:
    text = markdown(result)
    for metric in result["metrics"].values():
        assert metric["title"][1:] in text
    assert "| finetune | Pong |  | 79.2 (120.0, 50.0) |" in text  # 19 / 24
    assert "from scratch, by fine-tuning, with the same seed" in text
    assert "a cell is the ratio of means" in text
    assert "| finetune | Freeway | - (50.0, -) |  |" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    hostile = result | {"matrix": {name: {"a|<script>": {}} for name in result["metrics"]}}
    for by_method in hostile["matrix"].values():
        by_method["a|<script>"]["Pong"] = {}
    assert "| a\\|&lt;script> | Pong |" in markdown(hostile)


def test_the_terminal_shows_the_main_metrics(result: dict[str, Any]) -> None:
    console = Console(file=io.StringIO(), width=160)
    show(result, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "79.2 (120.0, 50.0)" in text
    assert "PNN's transfer score (% of the expert's area)" in text
    assert "note: 2 seeds" in text
