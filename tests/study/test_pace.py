"""How long a study will take."""

from __future__ import annotations

import doctest
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clrl.study import pace, processes
from clrl.study.pace import Pace, measure
from clrl.study.plan import PlannedRun, Study, load_study


@pytest.fixture
def study(write_study: Callable[..., Path], tmp_path: Path) -> Study:
    return load_study(write_study(tmp_path), ["share_sources=false"])  # 40 steps a visit


def done(run: PlannedRun, path: Path, seconds: float) -> tuple[PlannedRun, Path, object]:
    path.mkdir()
    (path / "STATUS").write_text("done\n")
    (path / "summary.json").write_text(json.dumps({"cost": {"seconds": seconds}}))
    return run, path, run.config


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(pace)
    assert (result.failed, result.attempted > 0) == (0, True)


def test_a_method_goes_at_its_own_pace_and_one_unseen_at_that_of_all(
    study: Study, tmp_path: Path
) -> None:
    finetune, weak = study.runs[:2]
    expert = study.experts[0]
    places = [done(finetune, tmp_path / "a", 8.0), done(expert, tmp_path / "b", 12.0)]
    known = Pace(places)  # type: ignore[arg-type]
    assert known.of([finetune, finetune], 1) == pytest.approx(16.0)  # 0.1 s a step, 80 steps
    assert known.of([expert], 1) == pytest.approx(12.0)  # 0.3, 40
    assert known.of([weak], 1) == pytest.approx(16.0)  # 0.2, between the two
    assert known.of([finetune] * 4, 2) == pytest.approx(16.0)
    assert known.of([finetune], 8) == pytest.approx(8.0)  # one run is no faster for it
    assert known.basis([finetune, expert]) == ""
    assert known.basis([finetune, weak, weak]) == (
        " (weak not timed yet: taken to be as fast as those that were)"
    )


def test_a_source_that_is_taken_over_takes_no_time_but_counts_in_what_is_told(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    run = load_study(write_study(tmp_path)).runs[0]
    assert run.shares
    known = Pace([done(run, tmp_path / "a", 8.0)])  # type: ignore[list-item]
    assert known.of([run], 1) == pytest.approx(4.0)  # 0.1 s a step, 40 of 80 steps


def test_what_every_run_pays_once_is_no_matter_of_its_steps(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, expert = study.runs[0], study.experts[0]
    known = Pace([done(run, tmp_path / "a", 8.0)])  # type: ignore[list-item]
    monkeypatch.setattr(pace, "start_up", lambda config: 3.0)
    known.measure_start_up(run.config)
    assert known.of([run] * 4, 2) == pytest.approx(4 * (3 + 8) / 2)
    assert known.of([expert], 1) == pytest.approx(3 + 8 / 2)  # half as many steps
    fresh = Pace([])
    monkeypatch.setattr(pace, "measure", lambda config: 0.01)
    fresh.measure([expert.config])
    assert fresh.of([run], 1) == pytest.approx(3 + 80 * 0.01)


@pytest.mark.slow
def test_starting_a_process_takes_some_time(study: Study) -> None:
    assert 1e-3 < processes.start_up(study.experts[0].config) < 60


def test_nothing_to_go_by_is_said(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "start_up", lambda config: 0.0)
    unknown = Pace([])
    assert not unknown.known
    assert unknown.of([study.runs[0]], 1) is None
    monkeypatch.setattr(pace, "measure", lambda config: 0.5)
    unknown.measure([run.config for run in study.experts])
    assert unknown.of([study.runs[0]], 1) == pytest.approx(40.0)
    assert "fine-tuning" in unknown.basis(study.runs)


def test_a_measurement_is_some_seconds_of_the_real_thing(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "MEASURED", 0.05)
    assert 1e-6 < measure(study.experts[0].config) < 1.0
