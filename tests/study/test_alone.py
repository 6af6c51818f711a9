"""Methods beside themselves alone: controls and what is measured over them, worked by hand."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from clrl.run.records import read_records
from clrl.run.train import train
from clrl.study.plan import PlannedRun, Study, load_study
from clrl.study.report import write_report
from clrl.study.report.document import Table
from clrl.study.report.transfer_sections import matrices
from clrl.study.transfer_matrix import transfer_matrix
from clrl.study.transfer_metrics import Finished
from clrl.study.transfer_text import OF_ALONE, csv_text, markdown

Write = Callable[..., Path]
Curve = Sequence[float | None]
RUN = {
    "sequence": {"steps": 100},
    "agent": {"name": "ppo", "n_envs": 2, "n_steps": 5, "batch_size": 5},
    "evaluation": {"every": 50},
}
GAMES = ["Pong", "Freeway", "Krull"]
PAIRS = {"sources": GAMES, "targets": [*GAMES], "seeds": [0, 1], "run": RUN, "criterion": 0.125}
METHODS = {"finetune": {}, "pathnet": {}}

EXPERT = [0.0, 8.0, 16.0]  # of Freeway: area 8; an eighth of the way, the criterion, is 2
FIRST: dict[tuple[str, int], Curve] = {  # pathnet on Freeway from scratch, by what came next
    ("Krull", 0): [0.0, 1.0, 2.0],  # area 1; at the criterion at 100
    ("Pong", 0): [0.0, 2.0, 6.0],  # 2.5; 50
    ("Krull", 1): [0.0, 4.0, 8.0],  # 4
    ("Pong", 1): [0.0, 4.0, 8.0],
}
AFTER: dict[tuple[str, int], Curve] = {  # on Freeway after Pong
    ("pathnet", 0): [1.0, 3.0, 5.0],  # area 3; 50
    ("pathnet", 1): [0.0, 6.0, 12.0],  # 6
    ("finetune", 0): [4.0, 10.0, 16.0],  # 10
    ("finetune", 1): [4.0, 10.0, 16.0],
}


def normalise(task: str, score: float) -> float | None:
    return score / 20 if task == "Freeway" else None


def finished(run: PlannedRun, *curves: Curve) -> Finished:
    """Write down a run whose visits have these curves, evaluated at 0, 50 and 100 of each."""
    walk, rows = [*run.sources, run.target], []
    for k, (task, curve) in enumerate(zip(walk, curves, strict=True)):
        moments = [(k, "end" if k else "start"), (k + 1, "during"), (k + 1, "end")]
        for i, ((visit, phase), score) in enumerate(zip(moments, curve, strict=True)):
            where = {"visit": visit, "phase": phase, "step": 100 * k + 50 * i}
            rows.append(where | {"task_evaluated": task, "return": score})
    return Finished(run, f"{run.config.name}/seed{run.seed}", rows)


def result_of(study: Study, first: dict[tuple[str, int], Curve] = FIRST) -> dict[str, Any]:
    runs = []
    for run in study.runs:
        source: Curve = [0.0, 1.0, 2.0]
        target: Curve = [0.0, 1.0, 2.0]
        if run.method == "pathnet" and run.sources[0] == "Freeway":
            source = first[run.target, run.seed]
        if (*run.sources, run.target) == ("Pong", "Freeway"):
            target = AFTER.get((run.method, run.seed), target)
        runs.append(finished(run, source, target))
    experts = [finished(run, EXPERT) for run in study.experts]
    return transfer_matrix(study, experts, runs, normalise)


@pytest.fixture
def study(write_study: Write, tmp_path: Path) -> Study:
    return load_study(write_study(tmp_path, **PAIRS, methods=METHODS))


@pytest.fixture
def result(study: Study) -> dict[str, Any]:
    return result_of(study)


def cell(result: dict[str, Any], metric: str, method: str = "pathnet") -> dict[str, Any]:
    found: dict[str, Any] = result["matrix"][metric][method]["Pong"]["Freeway"]
    return found


def test_a_slow_method_that_gains_is_below_fine_tuning_and_above_itself(
    result: dict[str, Any],
) -> None:
    assert cell(result, "transfer_score")["values"] == pytest.approx([100 * 3 / 8, 100 * 6 / 8])
    over = cell(result, "transfer_score_over_alone")
    assert over["values"] == pytest.approx([100 * 3 / 1.75, 100 * 6 / 4])  # 1.75: of 1 and 2.5
    assert over["mean"] == pytest.approx(100 * 9 / 5.75)
    assert result["summary"]["transfer_score_over_alone"]["pathnet"]["of"] == 6


def test_every_metric_over_the_method_alone_worked_by_hand(result: dict[str, Any]) -> None:
    def of_seed_0(metric: str) -> float:
        value: float = cell(result, f"{metric}_over_alone")["values"][0]
        return value

    assert of_seed_0("transfer_score_above_random") == pytest.approx(100 * 3 / 1.75)
    # of 20 points: 3 beside 1.75
    assert of_seed_0("forward_transfer") == pytest.approx((3 - 1.75) / (20 - 1.75))
    assert of_seed_0("area_gain") == pytest.approx(1.25)
    assert of_seed_0("jump_start") == pytest.approx(1.0)
    # the controls need 100 and 50 steps, the run 50; their mean curve (0, 1.5, 4) needs 100
    assert of_seed_0("relative_speed") == pytest.approx((100 / 50 + 50 / 50) / 2)
    # below 2: run 1 -> 3, a triangle of 1/2 by 1, of two pieces: 1/8; controls 1 and 1/2
    assert of_seed_0("relative_speed_by_area") == pytest.approx(0.75 / 0.125)


def test_the_control_of_what_begins_as_fine_tuning_is_the_expert(result: dict[str, Any]) -> None:
    for metric in ("transfer_score", "area_gain", "relative_speed", "jump_start"):
        over = cell(result, f"{metric}_over_alone", "finetune")
        assert over == cell(result, metric, "finetune")
    assert cell(result, "transfer_score", "finetune")["values"] == pytest.approx([125, 125])
    assert {name: list(of) for name, of in result["methods_alone"].items()} == {
        name: ["pathnet"] for name in GAMES
    }


def test_controls_are_told(result: dict[str, Any]) -> None:
    told = result["methods_alone"]["Freeway"]["pathnet"]
    folders = ["pathnet-Freeway-Pong", "pathnet-Freeway-Krull"]
    assert told["folders"] == {str(k): [f"{x}/seed{k}" for x in folders] for k in (0, 1)}
    assert told["mean_score"] == pytest.approx([1.75, 4.0])
    assert told["last_score"] == pytest.approx([4.0, 8.0])
    assert not any("no control" in warning for warning in result["warnings"])


def test_a_control_that_never_is_at_the_criterion_leaves_no_speed_and_a_direction(
    study: Study,
) -> None:
    result = result_of(study, FIRST | {("Krull", 0): [0.0, 1.0, 1.0]})
    assert cell(result, "relative_speed_over_alone")["values"][0] is None
    (run,) = [
        r
        for r in result["runs"]
        if (r["method"], r["sources"], r["target"], r["seed"])
        == ("pathnet", ["Pong"], "Freeway", 0)
    ]
    assert (run["speed_censored"], run["speed_censored_over_alone"]) == (None, "faster")
    (told,) = [w for w in result["warnings"] if "relative speed over the method alone" in w]
    assert told.startswith("pathnet: relative speed over the method alone is no number in 2 of 12")
    assert "only the control never there" in told  # of both runs to Freeway with that seed


def test_areas_leave_out_what_a_control_lacks(study: Study) -> None:
    result = result_of(study, FIRST | {("Krull", 0): [None, 1.0, 2.0]})
    # over the second half: run 3 -> 5 is 4, controls 1 -> 2 is 1.5 and 2 -> 6 is 4
    over = cell(result, "transfer_score_over_alone")["values"]
    assert over == pytest.approx([100 * 4 / 2.75, 100 * 9 / 6])
    assert cell(result, "transfer_score")["values"] == pytest.approx([37.5, 75])  # as ever
    (told,) = [w for w in result["warnings"] if "over the method alone, areas" in w]
    assert told.startswith("Freeway: over the method alone, areas are over steps 50 to 100 of")


def test_a_target_that_is_no_source_has_no_control_and_it_is_said(
    write_study: Write, tmp_path: Path
) -> None:
    def of(targets: list[str]) -> dict[str, Any]:
        two = PAIRS | {"sources": ["Pong", "Krull"], "targets": targets, "methods": METHODS}
        return result_of(load_study(write_study(tmp_path, **two)))

    some = of(["Freeway", "Krull"])
    assert cell(some, "transfer_score_over_alone")["values"] == [None, None]
    assert cell(some, "transfer_score_over_alone", "finetune")["mean"] == pytest.approx(125)
    # Krull from scratch is 0, 1, 2, and the same after Pong
    to_krull = some["matrix"]["transfer_score_over_alone"]["pathnet"]["Pong"]["Krull"]
    assert to_krull["values"] == pytest.approx([100, 100])
    none = of(["Freeway"])
    assert not any(name.endswith("_over_alone") for name in none["metrics"])
    assert none["methods_alone"] == {}
    assert none["metrics"]["transfer_score"]["title"].endswith("area)")
    for result in (some, none):
        (told,) = [w for w in result["warnings"] if "no control of the method alone" in w]
        assert told.startswith("pathnet: no run learns Freeway first, from scratch")


def test_whose_control_may_be_0_is_said(study: Study) -> None:
    def told(first: dict[tuple[str, int], Curve]) -> list[str]:
        return [w for w in result_of(study, first)["warnings"] if "errors of 0" in w]

    assert not told(FIRST)
    nothing: Curve = [0.0, 0.0, 0.1]
    warned = told(FIRST | {("Krull", 0): nothing, ("Pong", 0): nothing})
    assert warned
    for warning in warned:  # fine-tuning's control, the expert, is as steady as it was
        assert "over the method alone: for Freeway (pathnet) the mean divided by is" in warning


def test_what_learns_other_tasks_in_its_first_visit_is_no_control(
    write_study: Write, tmp_path: Path
) -> None:
    methods = {"finetune": {}, "joint": {"from_start": True}, "later": {"name": "joint"}}
    result = result_of(load_study(write_study(tmp_path, **PAIRS, methods=methods)))
    assert result["methods_alone"] == {}
    (told,) = [w for w in result["warnings"] if "no control of the method alone" in w]
    assert told.startswith("joint: its first visits may learn other tasks of their run too")


def test_all_texts_name_both(study: Study, result: dict[str, Any], runs: Path) -> None:
    text = markdown(result)
    title = "PNN's transfer score (% of the {} area), over {} alone"
    ours, theirs = title.format("control's", "the method"), title.format("expert's", "fine-tuning")
    assert f"## {ours}\n" in text
    assert f"## {theirs}\n" in text
    assert OF_ALONE in text
    assert "| pathnet | Freeway | 4 | 2.88 (1.75, 4.00) | 6.00 (4.00, 8.00) |" in text
    lines = list(csv.DictReader(io.StringIO(csv_text(result))))
    wanted = ("Pong", "Freeway", "pathnet", "1", "transfer_score_over_alone")
    (line,) = [x for x in lines if tuple(x.values())[:5] == wanted]
    assert float(line["value"]) == pytest.approx(150)
    folder = runs / "study"
    folder.mkdir()
    (folder / "study.json").write_text(json.dumps(result))
    page, *_ = write_report([folder], normalise=normalise)
    told = page.read_text()
    for one in (ours, theirs):
        assert one.replace("'", "&#x27;") + ", over all pairs:" in told
    assert "is over its own control: the first visits of its runs" in told
    less = result["summary"]["transfer_score"]["pathnet"]["versus"]["finetune"]["difference"]
    shows = "(2 seeds: fewer than 3, so no interval: not evidence)"
    assert f"Less finetune: pathnet {less['value']:.1f} {shows}." in told


def test_harm_over_the_method_alone_is_shaded_as_harm(result: dict[str, Any]) -> None:
    _, *tables = matrices(result, "transfer_score").parts
    over = tables[1]  # next to that over fine-tuning, and open as it is
    assert isinstance(over, Table)
    assert over.title.endswith("over the method alone")
    assert not over.folded
    shades = [(row[:2], of) for row, of in zip(over.rows, over.shades, strict=True)]
    (shade,) = [of for row, of in shades if row == ["finetune", "Pong"]]
    # none to Pong; to Freeway 125 % of the control, the expert; to Krull 12.5 %
    assert shade[2] is None
    assert shade[3] is not None and shade[3] > 0
    assert shade[4] is not None and shade[4] < 0


@pytest.mark.parametrize("method", ["si", "pathnet"])
def test_first_and_last_visits_are_evaluated_at_the_same_steps(
    write_study: Write, shared_settings: dict[str, Any], tmp_path: Path, runs: Path, method: str
) -> None:
    settings = {"pathnet": {"population": 2, "window": 1}}.get(method, {})
    two = ["digits:0+1", "digits:2+3"]
    run = shared_settings | {"sequence": {"steps": 45}}  # no whole number of batches of 8
    path = write_study(
        tmp_path, sources=two, targets=[*two], methods={method: settings}, seeds=[0], run=run
    )
    planned = load_study(path).runs[0]
    rows, _ = read_records(train(planned.config, runs) / "evaluations.jsonl")
    made = Finished(planned, "", rows)
    steps = [point.step for point in made.curve]
    assert steps[0] == 0
    assert len(steps) > 4
    assert [point.step for point in made.first_curve] == steps
    assert None not in [point.score for point in (*made.curve, *made.first_curve)]
