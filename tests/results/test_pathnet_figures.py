"""The script that draws what evolution found."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from clrl.study.paths import Evolution, Paths
from clrl.types import ClrlError


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
        (1, 2)[:n_visits],
    )
    monkeypatch.setattr(script, "load_paths", lambda run: paths)
    monkeypatch.setattr(sys, "argv", ["figures.py", str(tmp_path / "out"), "runs/x/seed0"])
    script.main()
    drawn = {path.name for path in (tmp_path / "out").iterdir()}
    both = {"overlap.svg"} if n_visits == 2 else set()
    assert drawn == {"paths.svg", "frozen.svg", "evolution.svg"} | both


def test_what_is_no_run_is_told(load_script, tmp_path: Path, monkeypatch):
    script = load_script("pathnet/figures.py")
    monkeypatch.setattr(sys, "argv", ["figures.py", str(tmp_path / "out"), str(tmp_path)])
    with pytest.raises(ClrlError, match="is no run"):
        script.main()
    assert not (tmp_path / "out").exists()
