"""The table of transfer between two games, from records written by hand."""

from __future__ import annotations

import csv
import json
import re
import sys
from dataclasses import replace
from itertools import permutations
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
}
LAYERS = {"name": "pathnet", "modules": 3, "active": 1, "keep_frozen_active": False}
MODULES = {"name": "pathnet", "modules": 10, "active": 4, "keep_frozen_active": True}
METHODS |= {
    "pathnet_alone": LAYERS | {"population": 8, "edges": "wrap"},
    "pathnet": LAYERS | {"population": 8, "edges": "wrap"},
    "stays": LAYERS | {"population": 1, "edges": "wrap"},
    "small_alone": MODULES | {"population": 8, "edges": "wrap"},
    "small": MODULES | {"population": 8, "edges": "wrap"},
}
BODIES = {"small_alone": "pathnet_atari", "small": "pathnet_atari"}


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
    assert beside(text, "two columns", "4 random first column")[1].startswith("129 (")
    ours, theirs = "two columns", "4 random first column"
    assert f"{ours} less {theirs}: 0.9 ± 3.0 (2.0, 1.2, -0.4)" in text
    assert "Of these 2 differences with three seeds or more, 1 have an interval that leaves" in text
    assert "where chance alone gives about 0.1." in text
    assert text.endswith(f"\n\n- {SOURCE} to {TARGET}: two columns above 3 fine-tuned\n")


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


def test_learned_is_half_of_the_way_from_random_play_to_the_mean_from_scratch(table, tmp_path):
    for seed, (b1, b3) in enumerate([(22.0, 6.9), (0.0, 40.0), (20.0, 7.0)]):
        write(tmp_path, "b1", seed, 0.0, b1)
        write(tmp_path, "b3", seed, 0.0, b3)
        write(tmp_path, "pathnet_alone", seed, 0.0, 30.0)  # another net's
    text = text_of(table, tmp_path)
    assert arm(text, "1 from scratch")[:3] == ["0, 1, 2", "2 of 3", "22, 0, 20"]
    assert arm(text, "3 fine-tuned")[1:3] == ["2 of 3", "6.9, 40, 7"]
    assert f"from scratch` ({SOURCE} to {TARGET}: 7)" in text


def test_without_a_seed_from_scratch_above_random_play_none_is_called_learned(table, tmp_path):
    write(tmp_path, "b1", 0, 0.0, 0.0)
    write(tmp_path, "b3", 0, 0.0, 20.0)
    text = text_of(table, tmp_path)
    assert arm(text, "3 fine-tuned")[1] == "- of 1"
    assert "no line, as from scratch the mean is not above random play" in text


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
    assert "agent.n_envs of PathNet is 8, of all without PathNet 16: between" in text
    assert "net.body" not in text
    assert "agent.n_steps" not in text


def test_the_short_table_has_the_mean_area_of_every_arm_and_each_seeds(table, tmp_path):
    for k, each in enumerate(METHODS):  # areas of 10 k + 1 and 10 k + 2
        for seed in range(2):
            height = 2.0 * (10 * k + 1 + seed)
            write(tmp_path, each, seed, 0.0, height)
    write(tmp_path, "b1", 2, 0.0, 0.0)
    walk = ["CrazyClimber", "KungFuMaster"]
    write(tmp_path, "b3", 0, 258.5, 458.5, name="p3_b3", walk=walk)
    (file,) = tmp_path.glob("p3_*/seed0/evaluations.jsonl")
    file.write_text(file.read_text().replace(TARGET, "KungFuMaster"))
    text = table.short({pair: table.runs_of(tmp_path, pair) for pair in ("p1", "p3")})
    head, _, first, second, third, *rows = text.splitlines()
    titles = (f"{SOURCE} to {TARGET} (random play 0)", f"{' to '.join(walk)} (random play 258.5)")
    assert head == f"| arm | {titles[0]} | {titles[1]} |"
    assert first == "| 1 from scratch | 1.0 (1.0, 2.0, 0.0) |  |"
    assert second == "| 2 frozen, new head | 11.5 (11.0, 12.0) |  |"
    assert third == "| 3 fine-tuned | 21.5 (21.0, 22.0) | 358 (358) |"
    means = [float(re.findall(r"\| ([0-9.]+) \(", line)[0]) for line in rows]
    assert means == [10 * k + 1.5 for k in range(3, 10)]


def test_speed_is_to_what_the_controls_net_comes_to_from_scratch(table, tmp_path):
    write(tmp_path, "b1", 0, 0.0, 10.0, 20.0, 30.0, 40.0)  # half: 20, at 200
    write(tmp_path, "pathnet_alone", 0, 0.0, 10.0, 20.0, 20.0, 20.0)  # half: 10, at 100
    write(tmp_path, "small_alone", 0, 0.0, 30.0, 60.0, 60.0, 60.0)  # half: 30, at 100
    for name in ("pathnet", "stays", "small"):
        write(tmp_path, name, 0, 0.0, 5.0, 10.0, 20.0, 30.0)  # 10 at 200, 20 at 300, 30 at 400
    text = text_of(table, tmp_path)
    small = "PathNet, small modules"
    for ours, control, speed in (
        ("PathNet", "PathNet from scratch", 100 / 200),
        ("PathNet, a random path", "PathNet from scratch", 100 / 200),
        ("PathNet", "PathNet, a random path", 200 / 200),
        (small, f"{small}, from scratch", 100 / 400),
        ("PathNet", "1 from scratch", 200 / 300),
        (small, "1 from scratch", 200 / 300),
        ("PathNet, a random path", "1 from scratch", 200 / 300),
    ):
        assert beside(text, ours, control)[4] == f"{speed:.2f}", (ours, control)


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
    assert arm(text, "4 random first column")[0] == "1, 3, 4, 10"
    seeds, score, *_ = beside(text, "4 random first column")
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
    long = (SOURCE, "Freeway-hflip", TARGET)
    paths = Paths(long, active, active, active, False, evolution, 2, (1, 2, 4))
    direct = replace(paths, visits=(SOURCE, TARGET, "Freeway-hflip"), numbers=(1, 2, 3))
    monkeypatch.setattr(
        table, "load_paths", lambda run: paths if "p1_pathnet" in str(run) else direct
    )
    # another visit to the source evolves no path: places in the walk are not those of paths
    walk = [SOURCE, "Freeway-hflip", SOURCE, TARGET]
    write(tmp_path, "pathnet", 0, 0.0, 4.0, walk=walk)
    write(tmp_path, "stays", 3, 0.0, 4.0)
    write(tmp_path, "pathnet_alone", 0, 0.0, 4.0)
    for place in ("p1_pathnet/seed0", "p1_stays/seed3"):
        (tmp_path / place / "checkpoints").mkdir()
    told = table.overlaps({"p1": table.runs_of(tmp_path, "p1")})
    # of 4 modules 2 and 2: none, one or both in common in 1, 4 and 1 of 6 ways
    by_chance = f"by chance {(4 / 3 + 1) / 6:.2f}"
    assert f"- {SOURCE} to {TARGET}, PathNet: 0.33, {by_chance}; paths of 2 of 4 modules" in told
    assert "on the source and on the target: 3 (2) and 4 (1)\n" in told
    assert "random path: 0.00, " in told  # the first task's and the second's: not the third's
    assert "from scratch" not in told


def test_without_checkpoints_paths_are_not_known_and_the_rest_is(table, tmp_path):
    write(tmp_path, "pathnet", 1, 0.0, 4.0)
    found = {"p1": table.runs_of(tmp_path, "p1")}
    assert "PathNet: not known: no checkpoint is there of seed 1\n" in table.overlaps(found)
    assert "| PathNet | 1 |" in table.table(found)


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


def test_a_source_is_learned_from_half_of_the_way_to_the_mean_of_its_runs(table, tmp_path):
    # of 900, 450, 201 and 50 the mean is 400.25, though two arms go on from the first
    runs = [("pnn", 0, 900), ("pnn", 1, 450), ("pnn", 2, 201), ("pnn", 3, 50), ("b3", 0, 900)]
    for name, seed, last in runs:
        write(tmp_path, name, seed, 0.0, 10.0)
        file = tmp_path / f"p1_{name}/seed{seed}/evaluations.jsonl"
        file.write_text(file.read_text().replace('"return": 901.0', f'"return": {last}.0'))
    write(tmp_path, "b1", 0, 0.0, 10.0)
    assert arm(text_of(table, tmp_path), "two columns")[4:6] == ["900, 450, 201, 50", "3 of 4"]


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
        (("pathnet_alone", "pathnet"), "method.edges", "clamp"),
        (("pathnet_alone", "pathnet"), "net.body", "pathnet_atari"),
        (("pathnet", "stays"), "method.edges", "clamp"),
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
        changes = {"method.edges": "clamp"} if "small" in each else {}
        write(tmp_path, each, 0, 0.0, 10.0, settings=changes)
    told = "net.body of PathNet's small modules is pathnet_atari, of all without PathNet a3c"
    assert told in text_of(table, tmp_path)


@pytest.mark.parametrize(("folder", "arm"), list(permutations(METHODS, 2)))
def test_an_arm_is_what_its_run_is_and_not_its_folder(table, tmp_path, folder, arm):
    write(tmp_path, arm, 0, 0.0, 10.0, name=f"p1_{folder}")
    how = "has the method .*: expected " if METHODS[folder] != METHODS[arm] else "learned .*: expec"
    if (folder, arm) in (("b1", "b3"), ("b3", "b1")):
        how = "learned .*: expected"
    with pytest.raises(ClrlError, match=rf"p1_{folder}/seed0 {how}"):
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
    assert "| two columns | 10.0 (10.0) |" in (out / "short.md").read_text()
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
