"""The table of transfer between two games, from records written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

TARGET = "Freeway-vflip"


@pytest.fixture(scope="module")
def table(load_script) -> ModuleType:
    return load_script("pairs/table.py")


def write(runs: Path, arm: str, seed: int, *scores: float) -> None:
    """Write a run whose target is evaluated at 0, 100, 200... steps of its visit."""
    folder = runs / f"p1_{arm}" / f"seed{seed}"
    folder.mkdir(parents=True)
    visit = 1 if arm in ("b1", "b4", "pathnet_alone") else 2  # others learned the source first
    rows = []
    for k, score in enumerate(scores):
        phase = "during" if 0 < k < len(scores) - 1 else "end"
        which = visit if k else visit - 1
        if which == 0:
            phase = "start"
        row = {"phase": phase, "visit": which, "step": 1_000 * (visit - 1) + 100 * k}
        rows.append(row | {"task_evaluated": TARGET, "episode": 0, "return": score})
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "summary.json").write_text("{}")


def cells(line: str) -> list[str]:
    """Return area, score at the end, transfer score, forward transfer, and both speeds."""
    return [cell.strip() for cell in line.split("|")][3:9]


def test_scores_and_differences_are_those_worked_by_hand(table, tmp_path):
    # heights of the curves (trapezoids): b1 1, 2, 3; pnn 4, 4, 7; b3 2, 2, 2
    for seed, (b1, pnn) in enumerate([(2.0, 8.0), (4.0, 8.0), (6.0, 14.0)]):
        write(tmp_path, "b1", seed, 0.0, b1)
        write(tmp_path, "pnn", seed, 0.0, pnn)
        write(tmp_path, "b3", seed, 1.0, 3.0)
    text = table.table({"p1": table.curves_of(tmp_path, "p1")})
    (columns,) = [line for line in text.splitlines() if line.startswith("|  | two columns")]
    area, end, score, forward, speeds, by_area = cells(columns)
    assert (area, end) == ("4.0, 4.0, 7.0", "8, 8, 14")
    assert score == "250 (200 to 400)"  # 15 / 6, 4 / 2, 4 / 1
    assert forward.split()[0] == f"{(5 - 2) / (29.6 - 2):.2f}"  # a human's score is 29.6
    assert speeds == "1.00, 1.00, 1.00"  # evaluated at 100 only
    # below 2, half of what b1 comes to: a line from 0 to h leaves 2 / h of a height of 1
    assert by_area.split()[0] == f"{(2 / 2 + 2 / 4 + 2 / 6) / (2 / 8 + 2 / 8 + 2 / 14):.2f}"
    assert "areas over steps 0 to 100 of" in text
    half = stats.t.ppf(0.975, 2) * np.std([2, 2, 5], ddof=1) / np.sqrt(3)
    assert f"3 fine-tuned: 3.0 ± {half:.1f} (2.0, 2.0, 5.0)" in text


def test_a_first_baseline_that_learned_nothing_gives_no_interval(table, tmp_path):
    for seed, b1 in enumerate([14.0, 0.0, 15.0]):
        write(tmp_path, "b1", seed, 0.0, b1)
        write(tmp_path, "pnn", seed, 0.0, 29.0)
    text = table.table({"p1": table.curves_of(tmp_path, "p1")})
    (columns,) = [line for line in text.splitlines() if line.startswith("|  | two columns")]
    assert cells(columns)[2] == "300"
    assert "nan" not in text


def test_pathnet_stands_beside_its_own_control(table, tmp_path):
    for seed, scores in enumerate([(0.0, 8.0, 8.0), (8.0, 8.0, 8.0), (0.0, 0.0, 0.0)]):
        write(tmp_path, "b1", seed, 0.0, 20.0, 20.0)
        write(tmp_path, "pathnet_alone", seed, 0.0, 0.0, 8.0)
        write(tmp_path, "pathnet", seed, *scores)
    text = table.table({"p1": table.curves_of(tmp_path, "p1")})
    (columns,) = [line for line in text.splitlines() if line.startswith("|  | PathNet |")]
    area, _, score, _, speeds, by_area = cells(columns)
    assert area == "6.0, 8.0, 0.0"
    assert score.split()[0] == f"{100 * (6 + 8 + 0) / (2 + 2 + 2):.0f}"
    assert speeds == "2.00, faster, slower"  # to 4: 200 / 100; there before it began; never
    # below 4, over 200 steps: each control 4 for 100 steps, then 2 on average for 50
    assert by_area.split()[0] == f"{3 * (4 * 100 + 2 * 50) / (2 * 50 + 0 + 4 * 200):.2f}"


def test_an_area_is_over_what_every_curve_covers(table, tmp_path):
    write(tmp_path, "b1", 0, 0.0, 10.0)
    write(tmp_path, "pnn", 0, 0.0, 10.0, 50.0)
    text = table.table({"p1": table.curves_of(tmp_path, "p1")})
    assert "| two columns | 5.0 | 50 | 100 |" in text
