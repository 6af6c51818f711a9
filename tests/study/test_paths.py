"""What is read of paths is what the run did; figures show it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from clrl.envs.toy import toy_sequence
from clrl.run import checkpoint
from clrl.run.config import load_config
from clrl.run.train import train
from clrl.study.figures import save
from clrl.study.path_figures import (
    evolution_figure,
    frozen_figure,
    module_overlap_figure,
    paths_figure,
)
from clrl.study.paths import WHOLE, Evolution, Paths, load_paths
from clrl.study.report import path_parts, write_report
from clrl.types import ClrlError

CONFIG = """
name: toy
sequence: {tasks: [Freeway, Breakout], steps: 192}
agent: {name: ppo, n_envs: 4, n_steps: 16, batch_size: 32, n_epochs: 1}
method: METHOD
net: {body: mlp, hidden: [12, 8]}
evaluation: {every: 0, episodes: 2}
threads: 1
device: cpu
"""
PATHNET = "{name: pathnet, modules: 6, active: 2, population: 8, tournament: 2}"


def run_of(folder: Path, method: str = PATHNET, cycles: int = 1) -> Path:
    path = folder / "toy.yaml"
    path.write_text(CONFIG.replace("METHOD", method))
    return train(load_config(path), folder / "runs", toy_sequence(2, cycles=cycles))


def evolution(winner: list[float]) -> Evolution:
    values = np.array(winner)
    seen, lost = 2 + 2 * np.arange(len(values)), np.arange(len(values)) % 2
    return Evolution(seen, values, values, values, values, values / 2, lost)


def made(always_on: bool = False) -> Paths:
    active = np.zeros((3, 2, 4), dtype=bool)
    active[0, 0, [0, 1]] = active[0, 1, [0]] = True
    active[1, 0, [1, 2]] = active[1, 1, [3]] = True
    active[2, 0, [3]] = active[2, 1, [3]] = True
    frozen = np.zeros_like(active)
    frozen[1] = active[0]
    frozen[2] = active[0] | active[1]
    names = ("a", "b", "a again")
    used = active | frozen if always_on else active
    over_time = tuple(evolution([0.2 * k, 0.9, 0.4]) for k in range(3))
    return Paths(names, active, used, frozen, always_on, over_time, 2, (1, 2, 4))


def test_overlap_is_modules_in_both_over_modules_in_either():
    overlap = made().overlap()
    assert list(overlap) == ["all layers", "layer 1", "layer 2"]
    assert overlap["layer 1"] == [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]]
    assert overlap["layer 2"] == [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
    assert overlap["all layers"][0] == [1, 1 / 5, 0]  # 1 of 0, 1, 2 and 0, 3
    assert overlap["all layers"][1] == [1 / 5, 1, 1 / 4]


def test_overlap_by_chance_is_that_of_modules_drawn_without_regard_to_each_other():
    paths = made()
    found = paths.overlap_by_chance()
    assert list(found) == list(paths.overlap())
    # layer 1: two of 4 modules and two others; k in common have the hypergeometric chance
    chance = stats.hypergeom(4, 2, 2).pmf
    assert found["layer 1"][0][1] == pytest.approx(sum(chance(k) * k / (4 - k) for k in range(3)))
    # both layers: 2 and 1 of 4 with 2 and 1 of 4, over modules in either of them in both
    both = [(k + j, chance(k) * (1 / 4, 3 / 4)[1 - j]) for k in range(3) for j in (0, 1)]
    expected = sum(p * k / (6 - k) for k, p in both)
    assert found["all layers"][0][1] == found["all layers"][1][0] == pytest.approx(expected)
    assert [row[i] for i, row in enumerate(found["layer 2"])] == [None] * 3
    # and of random genotypes
    draw = np.random.default_rng(0)
    shares = []
    for _ in range(4_000):
        one, other = np.zeros((2, 2, 10), dtype=bool)
        for path, sizes in ((one, (3, 4)), (other, (2, 4))):
            for layer, n in zip(path, sizes, strict=True):
                layer[draw.choice(10, n, replace=False)] = True
        shares.append((one & other).sum() / (one | other).sum())
    active = np.stack([one, other])
    drawn = Paths(("a", "b"), active, active, np.zeros_like(active), False, (), 3, (1, 2))
    error = np.std(shares) / len(shares) ** 0.5
    assert abs(drawn.overlap_by_chance()["all layers"][0][1] - np.mean(shares)) < 4 * error


def test_frozen_and_reused_shares_by_layer():
    paths = made()
    frozen = paths.frozen_share()
    assert frozen["1. a"] == {"layer 1": 0.5, "layer 2": 0.25, "all layers": 3 / 8}
    assert frozen["2. b"] == {"layer 1": 0.75, "layer 2": 0.5, "all layers": 5 / 8}
    assert frozen["4. a again"] == {"layer 1": 1.0, "layer 2": 0.5, "all layers": 6 / 8}
    reused = paths.reused()
    assert reused["1. a"] == {"layer 1": 0.0, "layer 2": 0.0, "all layers": 0.0}
    assert reused["2. b"] == {"layer 1": 0.5, "layer 2": 0.0, "all layers": 1 / 3}
    assert reused["4. a again"] == {"layer 1": 0.0, "layer 2": 1.0, "all layers": 1 / 2}
    always_on = made(always_on=True)
    assert always_on.overlap() == paths.overlap()  # of what genotypes name
    assert always_on.frozen_share() == frozen
    assert always_on.reused()["4. a again"] == {"layer 1": 3 / 4, "layer 2": 1, "all layers": 5 / 6}
    assert made().kinds()[2].tolist() == [[3, 3, 3, 1], [3, 0, 0, 2]]
    assert always_on.kinds()[2].tolist() == [[2, 2, 2, 1], [2, 0, 0, 2]]


def test_a_run_tells_its_paths(tmp_path):
    run = run_of(tmp_path, cycles=2)  # the second time around evolves nothing
    paths = load_paths(run)
    assert paths.visits == ("toy-a", "toy-b")
    assert paths.names == ["1. toy-a", "2. toy-b"]
    state = checkpoint.load_latest(run / "checkpoints").state["learner"]
    net = {name: w for name, w in state["net"].items() if name in ("paths", "frozen")}
    assert np.array_equal(paths.active[0], net["paths"][0].numpy())
    assert np.array_equal(paths.active.any(0), net["frozen"].numpy())
    # games keep frozen modules active: the second task's path in the net has them too
    assert paths.always_on
    assert np.array_equal(paths.used[:2], net["paths"].numpy())
    assert np.array_equal(paths.used[1], paths.active[1] | paths.active[0])
    assert not paths.frozen[0].any()
    assert np.array_equal(paths.frozen[1], paths.active[0])
    for one in paths.evolution:
        assert len(one.seen) > 3
        assert np.all(np.diff(one.seen) >= 0)
        assert one.seen[-1] == len(one.seen)  # one game an evaluation
        assert np.all(one.winner >= one.measured)
        assert np.all(one.best >= one.mean)
        assert np.all((one.diversity >= 0) & (one.diversity <= 1))
        assert len({len(x) for x in vars(one).values()}) == 1
        assert set(one.overwritten) <= {0.0, 1.0}
        assert np.all(one.winner[one.overwritten == 1] > one.measured[one.overwritten == 1])
    assert paths.n_active == 2


@pytest.mark.parametrize(
    ("method", "message"),
    [("{name: finetune}", "has learned no paths: expected a run of the method pathnet")],
)
def test_another_methods_run_is_refused(tmp_path, method, message):
    run = run_of(tmp_path, method)
    with pytest.raises(ClrlError, match=message) as caught:
        load_paths(run)
    assert caught.value.exit_code == 2


def test_a_run_without_its_checkpoints_is_told_so_and_not_taken_for_another_method(tmp_path):
    run = run_of(tmp_path)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(
        ClrlError, match="has no checkpoint, where a run's paths are kept"
    ) as caught:
        load_paths(run)
    assert caught.value.exit_code == 2


def test_a_report_of_paths_holds_no_torch_in_memory(
    tmp_path: Path, report_without_torch: Callable[[Path], None]
) -> None:
    run = run_of(tmp_path)
    (run / "report.md").unlink()
    report_without_torch(run)
    assert "evolution, a row a visit" in (run / "report.md").read_text()


def parts_of(paths: Paths, run: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(path_parts, "load_paths", lambda _: paths)
    named = SimpleNamespace(path=run, seed=3)
    return path_parts.path_parts("ours", named)


@pytest.mark.parametrize("always_on", [False, True])
def test_the_report_has_a_row_a_visit_and_draws_what_the_figures_do(
    tmp_path, monkeypatch, always_on
):
    paths = made(always_on)
    short, visits, evolved, drawn, frozen, shared = parts_of(paths, tmp_path, monkeypatch)
    assert short.texts == [
        "ours, seed 3: when a again began, modules free were 1 in layer 1, and a path takes 2 "
        "of each: there it had to share frozen ones"
    ]
    both = paths.frozen.copy()
    both[2] = True
    short, *_ = parts_of(replace(paths, frozen=both), tmp_path, monkeypatch)
    assert len(short.texts) == 1
    assert "modules free were 0 in layer 1, 0 in layer 2, and a path takes" in short.texts[0]
    roomy = replace(paths, n_active=1)
    assert len(parts_of(roomy, tmp_path, monkeypatch)) == 5
    assert visits.title == "ours, seed 3: evolution, a row a visit"
    assert visits.rows[0] == ["1. a", 3, 1, 6, 0.0, 0.4, 0.0, 0.2, "1 2 / 1"]
    assert [row[-1] for row in visits.rows] == ["1 2 / 1", "2 3 / 4", "4 / 4"]
    lines = evolved.panels[0].lines
    assert [x for x, _ in lines[1].mean] == [2, 4, 6]
    assert [y for _, y in lines[1].mean] == pytest.approx([0.2, 0.9, 0.4])
    assert [y for _, y in evolved.panels[1].lines[1].mean] == pytest.approx([0.1, 0.45, 0.2])
    assert evolved.legend == [row[0] for row in visits.rows]
    assert [panel.kinds.tolist() for panel in drawn.panels] == paths.kinds().tolist()
    expected = ["frozen, always on"] if always_on else ["reused", "frozen, unused"]
    assert drawn.legend == ["new", *expected]
    svg = drawn.panels[1].svg()
    n_free = int((paths.kinds()[1] == 0).sum())
    assert svg.count('fill="#999"') == n_free
    assert svg.count("<circle") - n_free == int((paths.kinds()[1] == 1).sum())  # new: style 0
    assert frozen.panels[0].lines[2].mean == [(1, 1.0), (2, 0.5)]
    assert shared.rows[0][:3] == ["1. a and 2. b", "all layers", 1 / 5]
    assert shared.rows[0][3] == paths.overlap_by_chance()[WHOLE][0][1]
    assert len(shared.rows) == 3 * 3  # pairs, and all layers with each
    assert ("always on" in shared.title) is always_on
    for part in (visits, evolved.table, drawn.table, frozen.table, shared):
        assert all(len(row) == len(part.columns) for row in part.rows)


def test_a_runs_report_shows_its_paths_and_an_older_run_none(tmp_path, monkeypatch):
    run = run_of(tmp_path)
    write_report([run], out=tmp_path / "out", normalise=lambda *_: None)
    page = (tmp_path / "out" / "report.html").read_text()
    for title in ("evolution, a row a visit", "the path of each visit", "fitness and diversity"):
        assert f"seed 0: {title}" in page
    assert "frozen, always on" in page
    load = checkpoint.load_latest

    def older(folder: Path, **how: Any) -> Any:
        found = load(folder, **how)
        del found.state["learner"]["method"]["paths"]
        return found

    monkeypatch.setattr(checkpoint, "load_latest", older)
    with pytest.raises(ClrlError, match="is of an older version"):
        load_paths(run)
    write_report([run], out=tmp_path / "old", normalise=lambda *_: None)
    page = (tmp_path / "old" / "report.html").read_text()
    assert "a row a visit" not in page
    assert "no paths are shown:" in page
    assert "is of an older version" in page


def test_figures_show_the_numbers(tmp_path):
    paths = made()
    figure = paths_figure(paths)
    assert [axes.get_title() for axes in figure.axes] == list(paths.visits)
    shown = {c.get_label(): len(c.get_offsets()) for c in figure.axes[1].collections}
    assert shown == {"free": 3, "frozen, unused": 2, "reused": 1, "new": 2}
    save(figure, tmp_path / "paths.svg")
    figure = paths_figure(made(always_on=True))
    shown = {c.get_label(): len(c.get_offsets()) for c in figure.axes[1].collections}
    assert shown == {"free": 3, "frozen, unused": 0, "frozen, always on": 3, "new": 2}
    told = "".join(text.get_text() for text in figure.axes[-1].texts)
    assert "frozen, always on" in told and "unused" not in told
    assert figure.axes[0].get_xticks().tolist() == [1, 2, 3, 4]

    figure = module_overlap_figure(paths)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["all layers", "layer 1", "layer 2"]
    assert figure.axes[1].images[0].get_array().tolist() == paths.overlap()["layer 1"]
    assert figure.axes[3].get_title() == "by chance"
    assert figure.axes[3].images[0].get_array()[0, 1] == paths.overlap_by_chance()[WHOLE][0][1]
    assert figure.axes[-1].get_ylabel() == "share in common"
    save(figure, tmp_path / "overlap.svg")

    (axes,) = frozen_figure(paths).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines == {"1. a": [0.5, 0.25], "2. b": [0.75, 0.5], "4. a again": [1.0, 0.5]}

    fitness, spread = evolution_figure(paths).axes
    for axes, column in ((fitness, "mean"), (spread, "diversity")):
        for line, one in zip(axes.lines, paths.evolution, strict=True):
            assert line.get_xdata().tolist() == [2, 4, 6]
            assert line.get_ydata().tolist() == getattr(one, column).tolist()
        assert {text.get_text() for text in axes.texts} == set(paths.visits)
    save(evolution_figure(paths), tmp_path / "evolution.png")

    one, *others = paths.evolution  # raw scores of games: one is 100 times the others'
    scores = replace(one, mean=100 * one.mean)
    games = replace(paths, evolution=(scores, *others))
    *fitness, spread = evolution_figure(games).axes
    assert [axes.get_title() for axes in fitness] == list(paths.visits)
    for axes, own in zip(fitness, games.evolution, strict=True):
        (line,) = axes.lines
        assert line.get_ydata().tolist() == own.mean.tolist()
    assert len(spread.lines) == 3
    low = replace(one, mean=np.array([0.1, 0.1, 0.12]))  # accuracies: one hardly above chance
    assert replace(paths, evolution=(low, *others)).by_scale == [[0, 1, 2]]
    begun = replace(one, mean=np.array([]), seen=np.array([]), diversity=np.array([]))
    assert replace(paths, evolution=(begun, *others)).by_scale == [[0, 1, 2]]
    nothing = replace(one, mean=np.zeros(3))  # learned nothing: it has no scale, others share one
    assert replace(paths, evolution=(nothing, scores, scores)).by_scale == [[0, 1, 2]]
    assert replace(paths, evolution=(nothing, scores, one)).by_scale == [[0], [1], [2]]
    charts = path_parts._over_games(games)
    titles = ["mean fitness, 1. a", "mean fitness, 2. b", "mean fitness, 4. a again", "diversity"]
    assert [chart.title for chart in charts] == titles
    assert [len(chart.lines) for chart in charts] == [1, 1, 1, 3]
    assert [chart.title for chart in path_parts._over_games(paths)] == [
        "mean fitness",
        "diversity",
    ]
    assert torch.initial_seed() == 0  # drawing draws nothing by chance
