"""Which runs the script on transferred features shows, and which it tells are left out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from clrl.study.sensitivity import Noise, Sensitivities, load_sensitivities
from clrl.types import ClrlError

COLUMNS = ("CrazyClimber", "KungFuMaster")
Run = Callable[..., list[str]]


def found(score: float, columns: tuple[str, ...] = COLUMNS, perturb: bool = True) -> Sensitivities:
    """Return what a run of two columns gives: Fisher information 1 and 3, sigma 2 and 1."""
    noise = [[Noise(2.0, False), Noise(1.0, False)]] if perturb else None
    task = columns[-1]
    return Sensitivities(task, ("conv 1",), columns, 9, score, 250.0, [[[1.0], [3.0]]], noise)


@pytest.fixture
def script(load_script, tmp_path: Path, monkeypatch) -> ModuleType:
    monkeypatch.chdir(tmp_path)
    return load_script("progressive/features.py")


@pytest.fixture
def shown(script: ModuleType, monkeypatch) -> list[Any]:
    """Return the figures that were drawn."""
    figures: list[Any] = []
    monkeypatch.setattr(script, "save", lambda figure, path: figures.append(figure))
    return figures


@pytest.fixture
def run(script: ModuleType, monkeypatch) -> Run:
    """Return what runs the script on `NAME/seedK` folders of the given scores."""

    def run(scores: dict[str, float | str], *options: str) -> list[str]:
        def sensitivities(run: Path, task: str | None, *, perturb: bool, **_: Any) -> Sensitivities:
            score = scores["/".join(run.parts[-2:])]
            if score == "noise" and not perturb:
                score = 4_000.0
            if isinstance(score, str):
                raise ClrlError(score)
            if perturb and score <= 250.0:
                raise ClrlError("nothing that noise could halve")
            run.mkdir(parents=True, exist_ok=True)
            columns = ("random", "KungFuMaster") if "b4" in str(run) else COLUMNS
            return found(score, columns, perturb)

        monkeypatch.setattr(script, "sensitivities", sensitivities)
        monkeypatch.setattr(sys, "argv", ["features.py", "out", *scores, *options])
        script.main()
        return sorted(path.name for path in Path("out").glob("*.json"))

    return run


def titles(figure: Any) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def test_runs_of_the_same_tasks_have_panels_of_their_own(run: Run, shown):
    run({"p3_pnn/seed0": 4_000.0, "quick3_progressive/seed0": 4_000.0, "p3_b4/seed0": 4_000.0})
    walk = "CrazyClimber $\\to$ KungFuMaster"
    names = {"p3_b4": walk.replace("CrazyClimber", "random")}
    names |= {"p3_pnn": walk, "quick3_progressive": walk}
    expected = [f"{n}, 1 of 1 seeds\n{t}: {k}" for n, t in names.items() for k in ("AFS", "APS")]
    assert titles(shown[0]) + titles(shown[1]) == expected
    assert len(titles(shown[0])) == 4  # a figure a pair


def test_a_figure_is_named_by_what_its_runs_begin_with(run: Run, script, monkeypatch):
    names: dict[str, str] = {}
    monkeypatch.setattr(
        script, "save", lambda figure, path: names.update({path.name: figure.get_supxlabel()})
    )
    run({"pnn/seed0": 4_000.0, "pnn/seed1": 250.0, "p3_pnn/seed0": 4_000.0})
    left = "pnn_KungFuMaster, seed1: left out: scores 250.0, random play 250.0"
    assert names == {"features_p3.svg": "", "features_pnn.svg": left}


def test_hardly_above_random_play_is_not_learned(run: Run, shown):
    below, above = 250.0 + 2_247.7, 250.0 + 2_248.0  # a tenth of the way to a human is 2,247.8
    run({"p3_pnn/seed0": below, "p3_pnn/seed1": above})
    assert all("p3_pnn, 1 of 2 seeds\n" in title for title in titles(shown[0]))


def test_a_seed_that_learned_nothing_is_left_out_and_told(run: Run, shown, capsys):
    files = run({f"p3_pnn/seed{k}": s for k, s in enumerate((4_000.0, 250.0, 3_000.0))})
    assert files == [f"p3_pnn_KungFuMaster_seed{k}.json" for k in range(3)]  # told next time too
    for k in range(3):
        kept = load_sensitivities(Path(f"p3_pnn/seed{k}/sensitivities_KungFuMaster.json"))
        assert vars(kept) == vars(load_sensitivities(Path("out") / files[k]))
    out = capsys.readouterr().out
    left = "p3_pnn_KungFuMaster, seed1: left out: scores 250.0, random play 250.0"
    assert f"\n- {left}\n" in out
    assert "2 of 3 seeds | 3,500.0 (250.0) | conv 1 | CrazyClimber | 0.25 | 0.20 | 2, 2 |" in out
    assert shown[0].get_supxlabel() == left
    assert all("p3_pnn, 2 of 3 seeds\n" in title for title in titles(shown[0]))
    heights = [bars[0].get_height() for bars in shown[0].axes[1].containers]
    np.testing.assert_allclose(heights, [1 / 5, 4 / 5])  # 1 / sigma^2: 1/4 and 1


def test_without_noise_too_a_seed_that_learned_nothing_is_left_out(run: Run, shown):
    run({"p3_pnn/seed0": 4_000.0, "p3_pnn/seed1": 100.0}, "--no-aps")
    assert titles(shown[0]) == ["p3_pnn, 1 of 2 seeds\nCrazyClimber $\\to$ KungFuMaster: AFS"]


def test_a_run_that_fails_stops_no_other(run: Run, shown, capsys):
    run({"p3_pnn/seed0": "no checkpoint yet", "p3_pnn/seed1": 4_000.0})
    told = "p3_pnn, seed0: not analysed: no checkpoint yet"
    assert f"- {told}\n" in capsys.readouterr().out
    assert shown[0].get_supxlabel() == told


@pytest.mark.parametrize("score", [100.0, "no checkpoint yet"])
def test_it_fails_if_nothing_could_be_analysed(run: Run, shown, score):
    with pytest.raises(SystemExit, match="nothing could be analysed"):
        run({"p3_pnn/seed0": score})
    assert not shown


def test_it_fails_too_if_only_what_was_found_earlier_is_drawn(run: Run, shown):
    run({"p3_pnn/seed0": 4_000.0})
    with pytest.raises(SystemExit, match="nothing could be analysed"):
        run({"p3_pnn/seed1": "no checkpoint yet"})
    assert len(shown) == 1  # and none is drawn over


def test_a_fault_in_the_search_for_noise_is_not_taken_for_a_seed_that_learned_nothing(
    run: Run, shown, capsys
):
    with pytest.raises(SystemExit):
        run({"p3_pnn/seed0": "noise"})
    assert "p3_pnn, seed0: not analysed: noise" in capsys.readouterr().out


def test_what_was_found_earlier_is_drawn_again(run: Run, shown):
    run({"p3_pnn/seed0": 4_000.0})
    run({})
    assert titles(shown[0]) == titles(shown[1])
