"""The table of transfer between two games, from records written by hand."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from clrl.study.paths import Evolution, Paths
from clrl.types import ClrlError

SOURCE, TARGET = "Freeway", "Freeway-vflip"
ALONE = ("b1", "b4", "pathnet_alone", "small_alone")
METHODS: dict[str, dict[str, Any]] = {
    "b1": {"name": "finetune"},
    "b2": {"name": "frozen"},
    "b3": {"name": "finetune"},
    "b4": {"name": "progressive", "random_first": True, "width": 1.0},
    "pnn": {"name": "progressive", "random_first": False, "width": 1.0},
    "pathnet_alone": {"name": "pathnet", "modules": 3, "population": 8},
    "pathnet": {"name": "pathnet", "modules": 3, "population": 8},
    "stays": {"name": "pathnet", "modules": 3, "population": 1},
    "small_alone": {"name": "pathnet", "modules": 10, "population": 8},
    "small": {"name": "pathnet", "modules": 10, "population": 8},
}
BODIES = {"small_alone": "other", "small": "other", "pathnet_alone": "pathnet_atari"}
BODIES |= dict.fromkeys(("pathnet", "stays"), "pathnet_atari")


@pytest.fixture(scope="module")
def table(load_script) -> ModuleType:
    return load_script("pairs/table.py")


def write(
    runs: Path,
    arm: str,
    seed: int,
    *scores: float,
    walk: list[str] | None = None,
    visit: int | None = None,
    settings: dict[str, Any] | None = None,
    name: str | None = None,
) -> None:
    """Write a run that learned the walk, 1,000 steps a visit.

    The target is evaluated at 0, 100, 200... steps of one visit (its last), and every task at 900
    plus its visit's number after its own visit, but for that one.
    """
    walk = walk or ([TARGET] if arm in ALONE else [SOURCE, TARGET])
    visit = visit or len(walk)
    folder = runs / (name or f"p1_{arm}") / f"seed{seed}"
    folder.mkdir(parents=True)
    rows = []

    def add(phase: str, in_visit: int, step: int, task: str, score: float) -> None:
        trained = walk[in_visit - 1] if in_visit else None
        row = {"phase": phase, "visit": in_visit, "step": step, "task_trained": trained}
        rows.append(row | {"task_evaluated": task, "episode": 0, "return": score})

    began = 1_000 * (visit - 1)
    add("end" if visit > 1 else "start", visit - 1, began, TARGET, scores[0])
    for k, score in enumerate(scores[1:], 1):
        phase = "during" if k < len(scores) - 1 else "end"
        add(phase, visit, began + 100 * k, TARGET, score)
    for k, task in enumerate(walk, 1):
        if k != visit:
            add("end", k, 1_000 * k, task, 900.0 + k)
    rows.sort(key=lambda row: row["step"])
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cost = [{"visit": k, "parameters_trained": 1_000 * k} for k in range(1, len(walk) + 1)]
    summary = {"cost": {"visits": cost}, "evaluation_rows": len(rows)}
    (folder / "summary.json").write_text(json.dumps(summary))
    config: dict[str, Any] = {"precision": "bf16", "method": METHODS[arm]}
    config["sequence"] = {"steps": 1_000}
    config["evaluation"] = {"every": 100, "episodes": 3, "policy": "sampled"}
    config["agent"] = {"n_envs": 16, "n_steps": 64, "learning_rate": 5e-4}
    config["protocol"] = {"preset": "classic"}
    config["net"] = {"body": BODIES.get(arm, "a3c"), "heads": "per_task"}
    config["net"]["hidden"] = "none"
    for key, value in (settings or {}).items():
        part, _, inner = key.partition(".")
        config[part] = config[part] | {inner: value} if inner else value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def text_of(table: ModuleType, runs: Path, pair: str = "p1") -> str:
    return table.table({pair: table.runs_of(runs, pair)})


def arm(text: str, name: str) -> list[str]:
    """Return an arm's seeds, learned, last scores, areas, sources' last, learned, and weights."""
    (line,) = re.findall(rf"^\|[^|]*\| {name} \| (\d.*) \|$", text.partition("\n\n")[0], re.M)
    return [cell.strip() for cell in line.split("|")]


def beside(text: str, name: str, control: str = "1 from scratch") -> list[str]:
    """Return the seeds of both, both transfer scores, forward transfer, and both speeds."""
    (line,) = re.findall(rf"^\|[^|]*\| {name} \| {control} \|(.*)\|$", text, re.M)
    return [cell.strip() for cell in line.split("|")]


def test_scores_and_differences_are_those_worked_by_hand(table, tmp_path):
    # heights of the curves (trapezoids): b1 1, 2, 3; pnn 4, 4, 7; b3 2, 2, 2
    for seed, (b1, pnn) in enumerate([(2.0, 8.0), (4.0, 8.0), (6.0, 14.0)]):
        write(tmp_path, "b1", seed, 0.0, b1)
        write(tmp_path, "pnn", seed, 0.0, pnn)
        write(tmp_path, "b3", seed, 1.0, 3.0)
    text = text_of(table, tmp_path)
    assert arm(text, "two columns")[2:4] == ["8, 8, 14", "4.0, 4.0, 7.0"]
    seeds, score, above, forward, speeds, by_area = beside(text, "two columns")
    assert seeds == "0, 1, 2"
    assert score == above == "250 (200 to 400)"  # 15 / 6, 4 / 2, 4 / 1; random play scores 0
    assert forward.split()[0] == f"{(5 - 2) / (29.6 - 2):.2f}"  # a human's score is 29.6
    assert speeds == "1.00, 1.00, 1.00"  # evaluated at 100 only
    # below 2, half of what b1 comes to: a line from 0 to h leaves 2 / h of a height of 1
    assert by_area.split()[0] == f"{(2 / 2 + 2 / 4 + 2 / 6) / (2 / 8 + 2 / 8 + 2 / 14):.2f}"
    assert "areas over steps 0 to 100 of" in text
    half = stats.t.ppf(0.975, 2) * np.std([2, 2, 5], ddof=1) / np.sqrt(3)
    assert f"two columns less 3 fine-tuned: 3.0 ± {half:.1f} (2.0, 2.0, 5.0)" in text


def test_two_columns_stand_beside_fine_tuning_and_a_random_column_too(table, tmp_path):
    for seed, (b3, b4, pnn) in enumerate([(4.0, 4.0, 8.0), (4.0, 6.0, 8.4), (4.0, 9.0, 8.2)]):
        write(tmp_path, "b3", seed, 0.0, b3)
        write(tmp_path, "b4", seed, 0.0, b4)
        write(tmp_path, "pnn", seed, 0.0, pnn)
    text = text_of(table, tmp_path)
    assert beside(text, "two columns", "3 fine-tuned")[1] == "205 (200 to 210)"  # 24.6 / 12
    assert beside(text, "two columns", "4 beside a random column")[1].startswith("129 (")
    ours, theirs = "two columns", "4 beside a random column"
    assert f"{ours} less {theirs}: 0.9 ± 3.0 (2.0, 1.2, -0.4)" in text
    assert "Settled, of these 2 differences" in text
    assert f"): two columns above 3 fine-tuned ({SOURCE} to {TARGET}). What" in text


def test_the_criterion_of_speed_is_between_a_controls_first_and_last_scores(table, tmp_path):
    write(tmp_path, "b1", 0, 10.0, 12.0, 30.0)
    write(tmp_path, "pnn", 0, 10.0, 19.0, 30.0)  # 20 between the two is arrived at with 30
    assert beside(text_of(table, tmp_path), "two columns")[4] == "1.00"
    write(tmp_path, "b1", 1, 10.0, 21.0, 30.0)
    write(tmp_path, "pnn", 1, 10.0, 17.0, 21.0)
    assert beside(text_of(table, tmp_path), "two columns")[4] == "1.00, 0.50"


def test_the_score_above_random_play_takes_it_off_both_sides(table, tmp_path):
    for seed in range(3):
        for name, score in (("p3_b1", 1_258.5), ("p3_pnn", 2_258.5)):
            walk = ["KungFuMaster"] if name == "p3_b1" else ["CrazyClimber", "KungFuMaster"]
            write(tmp_path, name[3:], seed, score, score, walk=walk, name=name)
            file = tmp_path / name / f"seed{seed}" / "evaluations.jsonl"
            file.write_text(file.read_text().replace(TARGET, "KungFuMaster"))
    text = text_of(table, tmp_path, "p3")
    _, score, above, *_ = beside(text, "two columns")
    assert score == f"{100 * 2258.5 / 1258.5:.0f} (179 to 179)"
    assert above == "200 (200 to 200)"  # random play scores 258.5
    assert f"(CrazyClimber to KungFuMaster: {(1258.5 + 258.5) / 2})" in text  # is learned


def test_learned_is_half_of_the_way_from_random_play_to_the_best_from_scratch(table, tmp_path):
    for seed, (b1, b3) in enumerate([(22.0, 10.9), (0.0, 40.0), (20.0, 11.0)]):
        write(tmp_path, "b1", seed, 0.0, b1)
        write(tmp_path, "b3", seed, 0.0, b3)
    text = text_of(table, tmp_path)
    assert arm(text, "1 from scratch")[:3] == ["0, 1, 2", "2 of 3", "22, 0, 20"]
    assert arm(text, "3 fine-tuned")[1:3] == ["2 of 3", "10.9, 40, 11"]
    assert f"from scratch ({SOURCE} to {TARGET}: 11)" in text


def test_either_net_from_scratch_tells_what_learned_is_and_no_other_arm(table, tmp_path):
    write(tmp_path, "b1", 0, 0.0, 0.0)
    write(tmp_path, "b4", 0, 0.0, 30.0)
    write(tmp_path, "pathnet_alone", 0, 0.0, 20.0)
    text = text_of(table, tmp_path)
    assert f"({SOURCE} to {TARGET}: 10)" in text
    assert arm(text, "1 from scratch")[1] == "0 of 1"


def test_without_a_seed_from_scratch_above_random_play_none_is_called_learned(table, tmp_path):
    write(tmp_path, "b1", 0, 0.0, 0.0)
    write(tmp_path, "b3", 0, 0.0, 20.0)
    text = text_of(table, tmp_path)
    assert arm(text, "3 fine-tuned")[1] == "- of 1"
    assert "no line, as none from scratch is above random play" in text


@pytest.mark.parametrize("least", [0.0, 0.04, 1.0])
def test_there_is_no_interval_over_a_control_that_hardly_learned_with_some_seed(
    table, tmp_path, least
):
    for seed, b1 in enumerate([14.0, least, 15.0 - least]):
        write(tmp_path, "b1", seed, 0.0, b1)
        write(tmp_path, "pnn", seed, 0.0, 29.0)
    text = text_of(table, tmp_path)
    assert beside(text, "two columns")[1] == "300 (unsteady)"
    assert "- (unsteady): no interval, as" in text
    assert "nan" not in text


def test_a_mean_within_two_standard_errors_of_0_has_no_interval(table, tmp_path):
    # mean 35 / 3, standard error 6.0; the least is above a tenth of the largest
    for seed, b1 in enumerate([6.0, 6.0, 6.0, 60.0]):
        write(tmp_path, "b1", seed, 0.0, b1)
        write(tmp_path, "pnn", seed, 0.0, 39.0)
    assert beside(text_of(table, tmp_path), "two columns")[1] == "200 (unsteady)"


def test_pathnet_stands_beside_its_own_control_from_scratch_and_fine_tuning(table, tmp_path):
    for seed, scores in enumerate([(0.0, 7.0, 8.0), (8.0, 8.0, 8.0), (0.0, 0.0, 0.0)]):
        write(tmp_path, "b1", seed, 0.0, 0.0, 16.0)
        write(tmp_path, "b3", seed, 0.0, 12.0, 12.0)
        write(tmp_path, "pathnet_alone", seed, 0.0, 0.0, 8.0, settings={"agent.n_envs": 8})
        write(tmp_path, "pathnet", seed, *scores, settings={"agent.n_envs": 8})
    text = text_of(table, tmp_path)
    assert arm(text, "PathNet")[3] == "5.5, 8.0, 0.0"
    _, score, _, _, speeds, by_area = beside(text, "PathNet", "PathNet from scratch")
    assert score.split()[0] == f"{100 * (5.5 + 8 + 0) / (2 + 2 + 2):.0f}"
    assert speeds == "2.00, faster, slower"  # to 4: 200 / 100; there before it began; never
    # below 4, over 200 steps: each control 4 for 100 steps, then 2 on average for 50
    assert by_area.split()[0] == f"{3 * (4 * 100 + 2 * 50) / (4 * 4 / 7 * 50 + 0 + 4 * 200):.2f}"
    _, score, _, _, speeds, _ = beside(text, "PathNet")
    assert score.split()[0] == f"{100 * (5.5 + 8 + 0) / (4 + 4 + 4):.0f}"
    assert speeds == "1.00, faster, slower"  # to 8, half of what b1 comes to, at 200
    _, score, _, _, speeds, _ = beside(text, "PathNet", "3 fine-tuned")
    assert score.split()[0] == f"{100 * (5.5 + 8 + 0) / (9 + 9 + 9):.0f}"
    assert speeds == "0.50, faster, slower"  # to 8 still, which 12 is above at 100
    assert "PathNet less 3 fine-tuned: " in text
    assert "net.body of PathNet is pathnet_atari, of all without PathNet a3c: between" in text
    assert "agent.n_envs of PathNet is 8, of all without PathNet 16" in text
    assert "agent.n_steps" not in text


def test_the_short_table_has_every_arm_beside_its_control_above_random_play(table, tmp_path):
    for seed in range(3):  # areas of 10, of 5, 4.5 and 4, and of 8; random play scores 0
        write(tmp_path, "b1", seed, 0.0, 10.0, 20.0)
        write(tmp_path, "pnn", seed, 0.0, 5.0, 10.0 - 2 * seed)
        write(tmp_path, "pathnet_alone", seed, 0.0, 8.0, 16.0)
        write(tmp_path, "pathnet", seed, 0.0, 8.0, 16.0)
        write(tmp_path, "b1", seed, 258.5, 258.5, 458.5, name="p3_b1", walk=["KungFuMaster"])
        walk = ["CrazyClimber", "KungFuMaster"]
        write(tmp_path, "b3", seed, 258.5, 358.5, 458.5, name="p3_b3", walk=walk)
        for file in tmp_path.glob(f"p3_*/seed{seed}/evaluations.jsonl"):
            file.write_text(file.read_text().replace(TARGET, "KungFuMaster"))
    text = table.short({pair: table.runs_of(tmp_path, pair) for pair in ("p1", "p3")})
    head, _, *rows = text.splitlines()
    assert head.split(" | ")[1:] == ["Freeway to Freeway-vflip", "CrazyClimber to KungFuMaster |"]
    assert rows == [
        "| 1 from scratch | 3 of 3 | 3 of 3 |",
        "| 3 fine-tuned |  | 200 (200 to 200); 3 of 3 |",
        "| two columns | 45 (40 to 50); 1 of 3 |  |",
        "| PathNet from scratch | 3 of 3 |  |",
        "| PathNet | 100 (100 to 100); 3 of 3 |  |",
    ]


def test_an_area_is_over_what_every_curve_covers(table, tmp_path):
    write(tmp_path, "b1", 0, 0.0, 10.0)
    write(tmp_path, "pnn", 0, 0.0, 10.0, 50.0)
    assert arm(text_of(table, tmp_path), "two columns")[2:4] == ["50", "5.0"]


def test_arms_of_other_seeds_are_compared_on_those_of_both(table, tmp_path):
    for seed in range(5):
        write(tmp_path, "b1", seed, 0.0, 4.0 + 2 * seed)
    for seed in (1, 3, 4, 10):
        write(tmp_path, "b4", seed, 0.0, 12.0)
    text = text_of(table, tmp_path)
    assert arm(text, "1 from scratch")[0] == "0, 1, 2, 3, 4"
    assert arm(text, "4 beside a random column")[0] == "1, 3, 4, 10"
    seeds, score, *_ = beside(text, "4 beside a random column")
    assert seeds == "1, 3, 4"
    assert score.split()[0] == f"{100 * 3 * 12 / (6 + 10 + 12):.0f}"


def test_arms_without_a_common_seed_are_not_compared(table, tmp_path):
    write(tmp_path, "b1", 0, 0.0, 4.0)
    write(tmp_path, "pnn", 1, 0.0, 4.0)
    text = text_of(table, tmp_path)
    assert beside(text, "two columns") == ["none", "", "", "", "", ""]
    assert "two columns less" not in text
    assert "No two arms have three seeds in common yet" in text


def test_paths_overlap_is_of_the_source_and_the_target(table, tmp_path, monkeypatch):
    active = np.zeros((3, 1, 4), dtype=bool)
    active[0, 0, :2] = active[1, 0, 2:] = active[2, 0, 1:3] = True  # 1 of 3 in common, 0 and 2
    lost = ([0, 1, 1], [0, 0, 0], [1, 0, 0, 0])
    evolution = tuple(Evolution(*[np.zeros(len(x))] * 6, np.array(x)) for x in lost)
    paths = Paths(("a", "b", "c"), active, active, active, False, evolution, 2)
    monkeypatch.setattr(table, "load_paths", lambda run: paths)
    write(tmp_path, "pathnet", 0, 0.0, 4.0, walk=[SOURCE, "Freeway-hflip", TARGET])
    write(tmp_path, "stays", 3, 0.0, 4.0)
    write(tmp_path, "pathnet_alone", 0, 0.0, 4.0)
    told = table.overlaps({"p1": table.runs_of(tmp_path, "p1")})
    # of 4 modules 2 and 2: none, one or both in common in 1, 4 and 1 of 6 ways
    by_chance = f"by chance {(4 / 3 + 1) / 6:.2f}"
    assert f"- {SOURCE} to {TARGET}, PathNet: 0.33, {by_chance}; paths of 2 of 4 modules" in told
    assert "on the source and on the target: 3 (2) and 4 (1)\n" in told
    assert "that stay: 0.00, " in told  # the first task's and the second's: not the third's
    assert "from scratch" not in told


# ----------------------------------------------------------------------------- what runs are taken


@pytest.mark.parametrize(
    ("walk", "visit"),
    [
        ([SOURCE, TARGET, "Freeway-hflip", TARGET], 2),
        ([SOURCE, "Freeway-hflip", TARGET], 3),
        ([TARGET, SOURCE, TARGET], 3),
    ],
)
def test_a_longer_run_serves_by_the_first_visit_to_the_target_after_the_source(
    table, tmp_path, walk, visit
):
    write(tmp_path, "pnn", 0, 3.0, 5.0, walk=walk, visit=visit)
    run = table.runs_of(tmp_path, "p1")["pnn"][0]
    assert [tuple(point) for point in run.curve] == [(0, 3.0), (100, 5.0)]
    assert run.source_last == 901.0 + walk.index(SOURCE)
    assert run.trained == 1_000 * visit
    told = f"two columns: learned {', '.join(walk[:visit])}\n" in text_of(table, tmp_path)
    assert told == (walk[:visit] != [SOURCE, TARGET])


@pytest.mark.parametrize(
    ("arm", "walk", "wanted"),
    [
        ("pnn", ["Freeway-hflip", TARGET], "Freeway, later Freeway-vflip"),
        ("pnn", [TARGET, SOURCE], "Freeway, later Freeway-vflip"),
        ("b1", [SOURCE, TARGET], "Freeway-vflip first"),
    ],
)
def test_a_run_of_another_walk_is_refused(table, tmp_path, arm, walk, wanted):
    write(tmp_path, arm, 0, 3.0, 5.0, walk=walk)
    with pytest.raises(ClrlError, match=f"learned {', '.join(walk)}: expected {wanted}"):
        table.runs_of(tmp_path, "p1")


def test_a_path_is_of_a_tasks_first_visit(table, tmp_path):
    write(tmp_path, "pathnet", 0, 3.0, 5.0, walk=[TARGET, SOURCE, TARGET], visit=3)
    with pytest.raises(ClrlError, match="visits Freeway-vflip twice: its path is of the first"):
        table.runs_of(tmp_path, "p1")


def test_sources_and_weights_are_told_by_arm(table, tmp_path):
    for seed in range(2):
        write(tmp_path, "b1", seed, 0.0, 10.0)
        write(tmp_path, "pnn", seed, 0.0, 10.0)
    text = text_of(table, tmp_path)
    assert arm(text, "two columns")[4:] == ["901, 901", "2 of 2", "2,000"]
    assert arm(text, "1 from scratch")[4:] == ["", "", "1,000"]


def test_a_source_is_learned_from_half_of_the_way_to_the_best_run_on(table, tmp_path):
    for seed, last in enumerate(["901.0", "451.0", "450.0", "0.0"]):
        write(tmp_path, "pnn", seed, 0.0, 10.0)
        file = tmp_path / f"p1_pnn/seed{seed}/evaluations.jsonl"
        file.write_text(file.read_text().replace('"return": 901.0', f'"return": {last}'))
    write(tmp_path, "b1", 0, 0.0, 10.0)
    assert arm(text_of(table, tmp_path), "two columns")[4:6] == ["901, 451, 450, 0", "2 of 4"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("precision", "float32"),
        ("sequence.steps", 2_000),
        ("evaluation.every", 50),
        ("evaluation.episodes", 5),
        ("evaluation.policy", "greedy"),
        ("net.hidden", "some"),
        ("agent.n_envs", 8),
        ("agent.learning_rate", 1.0),
        ("protocol.preset", "machado"),
        ("net.heads", "shared"),
        ("net.body", "nature"),
    ],
)
def test_runs_of_a_pair_that_were_made_otherwise_are_refused(table, tmp_path, key, value):
    write(tmp_path, "b1", 0, 0.0, 10.0)
    write(tmp_path, "pnn", 0, 0.0, 10.0)
    write(tmp_path, "pnn", 1, 0.0, 10.0, settings={key: value})
    with pytest.raises(ClrlError, match=rf"p1_pnn/seed1 has {key} {value}, .*p1_b1/seed0 "):
        table.runs_of(tmp_path, "p1")


@pytest.mark.parametrize(
    ("arms", "key", "value"),
    [
        (("pathnet_alone", "pathnet"), "method.modules", 10),
        (("pathnet_alone", "pathnet"), "net.body", "a3c"),
        (("pathnet", "stays"), "method.modules", 10),
        (("pathnet_alone", "pathnet"), "method.population", 1),
        (("small_alone", "small"), "net.body", "a3c"),
        (("b3", "pnn"), "sequence.pretrained", "runs/source"),
        (("b4", "pnn"), "method.width", 2.0),
    ],
)
def test_what_some_arms_alone_must_agree_in(table, tmp_path, arms, key, value):
    for arm in ("b1", arms[0]):
        write(tmp_path, arm, 0, 0.0, 10.0)
    write(tmp_path, arms[1], 0, 0.0, 10.0, settings={key: value})
    told = rf"p1_{arms[1]}/seed0 has {key} {value}, .*p1_{arms[0]}/seed0 "
    with pytest.raises(ClrlError, match=told):
        table.runs_of(tmp_path, "p1")


def test_pathnets_two_nets_need_not_agree(table, tmp_path):
    for each in METHODS:
        write(tmp_path, each, 0, 0.0, 10.0)
    text = text_of(table, tmp_path)
    for net, body in (("PathNet", "pathnet_atari"), ("PathNet with small modules", "other")):
        assert f"net.body of {net} is {body}, of all without PathNet a3c" in text
    assert beside(text, "PathNet", "PathNet, paths at random that stay")[0] == "0"
    small = beside(text, "PathNet with small modules", "PathNet's small modules from scratch")
    assert small[0] == "0"


@pytest.mark.parametrize(
    ("folder", "arm"),
    [("b2", "b3"), ("b3", "b2"), ("b4", "b1"), ("b1", "b4"), ("stays", "pathnet")],
)
def test_an_arm_is_what_its_method_says_and_not_its_folder(table, tmp_path, folder, arm):
    write(tmp_path, arm, 0, 0.0, 10.0, name=f"p1_{folder}")
    with pytest.raises(ClrlError, match=rf"p1_{folder}/seed0 has the method .*: expected "):
        table.runs_of(tmp_path, "p1")


def test_a_run_that_has_lost_records_is_refused(table, tmp_path):
    write(tmp_path, "b1", 0, 0.0, 5.0, 10.0)
    file = tmp_path / "p1_b1/seed0/evaluations.jsonl"
    rows = [line for line in file.read_text().splitlines() if '"return": 5.0' not in line]
    file.write_text("\n".join(rows) + "\n")
    with pytest.raises(ClrlError, match="p1_b1/seed0 has lost 1 records of evaluations"):
        table.runs_of(tmp_path, "p1")


def test_curves_of_other_lengths_are_drawn_their_mean_where_all_have_a_point(table, tmp_path):
    write(tmp_path, "b1", 0, 0.0, 10.0, 20.0)
    write(tmp_path, "b1", 1, 0.0, 30.0)
    (axes,) = table.drawn({"p1": table.runs_of(tmp_path, "p1")}).axes
    mean = axes.lines[-1]
    assert list(zip(*mean.get_data(), strict=True)) == [(0.0, 0.0), (0.1, 20.0)]


def test_a_run_that_was_evaluated_once_has_no_area(table, tmp_path):
    write(tmp_path, "pnn", 0, 0.0, 10.0)
    file = tmp_path / "p1_pnn/seed0/evaluations.jsonl"
    rows = [line for line in file.read_text().splitlines() if '"return": 0.0' not in line]
    file.write_text("\n".join(rows) + "\n")
    (file.parent / "summary.json").write_text("{}")  # of an older version
    with pytest.raises(ClrlError, match="no two evaluations of Freeway-vflip in a row"):
        text_of(table, tmp_path)


def test_the_script_writes_its_files_with_another_folder_for_an_arm(table, tmp_path, monkeypatch):
    runs, out = tmp_path / "runs", tmp_path / "out"
    write(runs, "b1", 0, 0.0, 10.0)
    write(runs, "pnn", 0, 0.0, 20.0, name="four", walk=[SOURCE, TARGET, "Pong"], visit=2)
    monkeypatch.setattr(sys, "argv", ["table.py", str(runs), str(out), f"p1_pnn={runs / 'four'}"])
    table.main()
    with (out / "results.csv").open() as file:
        found = [(row["arm"], row["learned"], row["last"]) for row in csv.DictReader(file)]
    assert found == [("1 from scratch", "1", "10.0"), ("two columns", "1", "20.0")]
    assert "two columns" in (out / "table.md").read_text()
    assert (out / "curves.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["p9_pnn=."], r"'p9_pnn=\.': expected PAIR_ARM=FOLDER"),
        (["p1_pnn=absent"], "absent has no finished run"),
        ([], "has no finished run of a pair"),
    ],
)
def test_what_is_not_there_is_refused(table, tmp_path, monkeypatch, arguments, text):
    monkeypatch.setattr(sys, "argv", ["table.py", str(tmp_path), str(tmp_path / "o"), *arguments])
    with pytest.raises(ClrlError, match=text):
        table.main()
