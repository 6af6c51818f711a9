"""The script that draws what evolution found."""

from __future__ import annotations

import csv
import sys
from math import comb
from pathlib import Path

import numpy as np
import pytest

from clrl.study.paths import Evolution, Paths
from clrl.types import ClrlError


def rows_in(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.parametrize("n_visits", [1, 2])
def test_it_draws_paths_overlap_frozen_shares_and_evolution(
    load_script, tmp_path: Path, monkeypatch, n_visits
):
    script = load_script("pathnet/figures.py")
    active = np.eye(3, dtype=bool)[None].repeat(n_visits, 0)
    one = Evolution(*np.arange(14.0).reshape(7, 2))
    paths = Paths(
        ("a", "b")[:n_visits],
        active,
        active,
        ~active,
        False,
        (one,) * n_visits,
        1,
        (1, 3)[:n_visits],
    )
    monkeypatch.setattr(script, "load_paths", lambda run: paths)
    given = ["figures.py", str(tmp_path / "out"), "runs/x/seed0", "runs/x/seed1"]
    monkeypatch.setattr(sys, "argv", given)
    script.main()
    drawn = {path.name for path in (tmp_path / "out").iterdir()}
    both = {"overlap.svg", "overlap.csv"} if n_visits == 2 else set()
    assert drawn == {"visits.csv", "paths.svg", "frozen.svg", "evolution.svg"} | both
    visits = rows_in(tmp_path / "out/visits.csv")
    assert [(row["run"], row["visit"], row["task"]) for row in visits] == [
        (run, *visit)
        for run in ("x/seed0", "x/seed1")
        for visit in (("1", "a"), ("3", "b"))[:n_visits]
    ]
    for row in visits:
        assert (row["path"], row["frozen_before"]) == ("1 / 2 / 3", "2 / 2 / 2")
        # seven columns of two rows: seen, winner, measured, best, mean, diversity, overwritten
        assert (row["tournaments"], row["overwritten"], row["seen"]) == ("2", "25", "1")
        assert (row["mean_fitness"], row["diversity"]) == ("9", "11.000")
    if n_visits == 2:
        pairs = rows_in(tmp_path / "out/overlap.csv")
        assert [row["visits"] for row in pairs] == ["1. a and 3. b"] * 2
        # of three layers, each with one of three modules: k alike by Binomial(3, 1/3)
        chance = sum(comb(3, k) * 2 ** (3 - k) / 27 * k / (6 - k) for k in range(4))
        assert {(row["shared"], row["by_chance"]) for row in pairs} == {("1.000", f"{chance:.3f}")}


def test_what_is_no_run_is_told(load_script, tmp_path: Path, monkeypatch):
    script = load_script("pathnet/figures.py")
    monkeypatch.setattr(sys, "argv", ["figures.py", str(tmp_path / "out"), str(tmp_path)])
    with pytest.raises(ClrlError, match="is no run"):
        script.main()
    assert not (tmp_path / "out").exists()
