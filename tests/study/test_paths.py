"""What is read of paths is what the run did; figures show it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

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
from clrl.study.paths import Evolution, Paths, load_paths
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
    return Evolution(np.arange(len(values)), values, values, values, values, values / 2)


def made() -> Paths:
    active = np.zeros((3, 2, 4), dtype=bool)
    active[0, 0, [0, 1]] = active[0, 1, [0]] = True
    active[1, 0, [1, 2]] = active[1, 1, [3]] = True
    active[2, 0, [3]] = active[2, 1, [3]] = True
    frozen = np.zeros_like(active)
    frozen[1] = active[0]
    frozen[2] = active[0] | active[1]
    names = ("a", "b", "a again")
    return Paths(names, active, frozen, tuple(evolution([0.2 * k, 0.9, 0.4]) for k in range(3)))


def test_overlap_is_modules_in_both_over_modules_in_either():
    overlap = made().overlap()
    assert list(overlap) == ["all layers", "layer 1", "layer 2"]
    assert overlap["layer 1"] == [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]]
    assert overlap["layer 2"] == [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
    assert overlap["all layers"][0] == [1, 1 / 5, 0]  # 1 of 0, 1, 2 and 0, 3
    assert overlap["all layers"][1] == [1 / 5, 1, 1 / 4]


def test_frozen_and_reused_shares_by_layer():
    paths = made()
    frozen = paths.frozen_share()
    assert frozen["1 a"] == {"layer 1": 0.5, "layer 2": 0.25, "all layers": 3 / 8}
    assert frozen["2 b"] == {"layer 1": 0.75, "layer 2": 0.5, "all layers": 5 / 8}
    assert frozen["3 a again"] == {"layer 1": 1.0, "layer 2": 0.5, "all layers": 6 / 8}
    reused = paths.reused()
    assert reused["1 a"] == {"layer 1": 0.0, "layer 2": 0.0, "all layers": 0.0}
    assert reused["2 b"] == {"layer 1": 0.5, "layer 2": 0.0, "all layers": 1 / 3}
    assert reused["3 a again"] == {"layer 1": 0.0, "layer 2": 1.0, "all layers": 1 / 2}


def test_generations_to_a_threshold_count_from_one():
    assert evolution([0.1, 0.998, 1.0]).generations_to(0.998) == 2
    assert evolution([0.998]).generations_to(0.998) == 1
    assert evolution([0.1, 0.9]).generations_to(0.998) is None


def test_a_run_tells_its_paths(tmp_path):
    run = run_of(tmp_path, cycles=2)  # the second time around evolves nothing
    paths = load_paths(run)
    assert paths.visits == ("toy-a", "toy-b")
    state = checkpoint.load_latest(run / "checkpoints").state["learner"]
    net = {name: w for name, w in state["net"].items() if name in ("paths", "frozen")}
    assert np.array_equal(paths.active[0], net["paths"][0].numpy())
    assert np.array_equal(paths.active.any(0), net["frozen"].numpy())
    # games keep frozen modules active: the second task's path in the net has them too
    assert np.array_equal((paths.active | paths.frozen)[1], net["paths"][1].numpy())
    assert not paths.frozen[0].any()
    assert np.array_equal(paths.frozen[1], paths.active[0])
    for one in paths.evolution:
        assert len(one.seen) > 3
        assert np.all(np.diff(one.seen) == 1)  # one game an evaluation
        assert np.all(one.winner >= one.measured)
        assert np.all(one.best >= one.mean)
        assert np.all((one.diversity >= 0) & (one.diversity <= 1))
        assert len({len(x) for x in vars(one).values()}) == 1


@pytest.mark.parametrize(
    ("method", "message"),
    [("{name: finetune}", "has learned no paths: expected a run of the method pathnet")],
)
def test_another_methods_run_is_refused(tmp_path, method, message):
    run = run_of(tmp_path, method)
    with pytest.raises(ClrlError, match=message) as caught:
        load_paths(run)
    assert caught.value.exit_code == 2


def test_figures_show_the_numbers(tmp_path):
    paths = made()
    figure = paths_figure(paths)
    assert [axes.get_title() for axes in figure.axes] == list(paths.visits)
    shown = {c.get_label(): len(c.get_offsets()) for c in figure.axes[1].collections}
    assert shown == {"free": 3, "frozen, unused": 2, "reused": 1, "new": 2}
    save(figure, tmp_path / "paths.svg")

    figure = module_overlap_figure(paths)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["all layers", "layer 1", "layer 2"]
    assert figure.axes[1].images[0].get_array().tolist() == paths.overlap()["layer 1"]
    assert figure.axes[-1].get_ylabel() == "share in common"
    save(figure, tmp_path / "overlap.svg")

    (axes,) = frozen_figure(paths).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines == {"1 a": [0.5, 0.25], "2 b": [0.75, 0.5], "3 a again": [1.0, 0.5]}

    fitness, spread = evolution_figure(paths).axes
    for axes, column in ((fitness, "mean"), (spread, "diversity")):
        for line, one in zip(axes.lines, paths.evolution, strict=True):
            assert line.get_xdata().tolist() == [1, 2, 3]
            assert line.get_ydata().tolist() == getattr(one, column).tolist()
        assert {text.get_text() for text in axes.texts} == set(paths.visits)
    save(evolution_figure(paths), tmp_path / "evolution.png")
    assert torch.initial_seed() == 0  # drawing draws nothing by chance
