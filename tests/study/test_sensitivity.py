"""Sensitivities against finite differences, closed forms, and a small run of toy games."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clrl.envs.toy import toy_sequence
from clrl.nets.progressive import ColumnSettings, ProgressiveNet
from clrl.run.config import load_config
from clrl.run.train import train
from clrl.study import features, sensitivity
from clrl.study.features import sensitivities
from clrl.study.figures import save, shares_figure
from clrl.study.report import write_report
from clrl.study.sensitivity import (
    Noise,
    Sensitivities,
    Shares,
    activations,
    halving_noise,
    load_sensitivities,
    noisy,
)
from clrl.types import MASKED, ClrlError, Conv, Linear, NetSpec, Output, Task

TASKS = tuple(Task(k, f"task-{k}", n) for k, n in enumerate((3, 2, 4)))
BODY = (Conv(2, 3, 2), Linear(4))
SHAPE = (1, 7, 7)


def grown(n: int = 3, **settings: Any) -> ProgressiveNet:
    net = ProgressiveNet(
        NetSpec(SHAPE, BODY, TASKS[:n], logits_gain=1.0),
        ColumnSettings(**({"scale_init": 0.8} | settings)),
    )
    for task in TASKS[:n]:
        net.add_task(task)
        net.train_only(task)
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() == 1:
                p.add_(0.2 * torch.rand_like(p))
    return net.double().eval()


def found(net: ProgressiveNet, x: Tensor, k: int = 2, seed: int = 0):
    route = torch.full((len(x),), k)
    return activations(net, x, route, torch.Generator().manual_seed(seed))


def result(fisher: list[list[list[float]]], noise: list[list[Noise]] | None = None):
    layers = tuple(f"fc {i + 1}" for i in range(len(fisher)))
    columns = tuple(f"task-{k}" for k in range(len(fisher[0])))
    return Sensitivities("task", layers, columns, 10, 2.0, 1.0, fisher, noise)


# --------------------------------------------------------------- Fisher, by finite differences


def log_pi(net: ProgressiveNet, x: Tensor, moved: dict[tuple[int, int], Tensor]) -> Any:
    """Return log pi of the third column for one sample, equation by equation, and all h_i^(k).

    `moved` is added to h_i^(k), and goes on from there as h does.
    """
    w = {name: p.detach() for name, p in net.named_parameters()}
    h: dict[tuple[int, int], Tensor] = {}

    def lateral(name: str, i: int, k: int) -> Tensor:
        scaled = torch.cat([w[f"{name}.alpha"][j] * h[i, j] for j in range(k)])
        z = torch.einsum("oc,c...->o...", w[f"{name}.down.weight"], scaled)
        return (z + w[f"{name}.down.bias"].reshape(-1, *[1] * (z.dim() - 1))).clamp(0).flatten()

    for k in range(3):
        c = f"columns.{k}"
        conv = F.conv2d(x[None], w[f"{c}.body.0.own.weight"], w[f"{c}.body.0.own.bias"], 2)[0]
        h[0, k] = conv.clamp(0) + moved.get((0, k), 0)
        total = w[f"{c}.body.1.own.weight"] @ h[0, k].flatten() + w[f"{c}.body.1.own.bias"]
        if k:
            total += w[f"{c}.body.1.up.weight"] @ lateral(f"{c}.body.1.lateral", 0, k)
        h[1, k] = total.clamp(0) + moved.get((1, k), 0)
    logits = w[f"{c}.heads.policy.own.weight"] @ h[1, 2] + w[f"{c}.heads.policy.own.bias"]
    logits += w[f"{c}.heads.policy.up.weight"] @ lateral(f"{c}.heads.lateral", 1, 2)
    return logits.log_softmax(0), h


def naive_fisher(net: ProgressiveNet, x: Tensor, actions: Tensor) -> dict[tuple[int, int], Tensor]:
    eps, fisher = 1e-6, {}
    clean = [log_pi(net, sample, {})[1] for sample in x]
    for place in clean[0]:
        h = torch.stack([one[place] for one in clean])
        units = h.transpose(0, 1).flatten(1)  # a unit's or map's values, all samples and positions
        std = units.std(1, correction=0)
        total = torch.zeros(len(std), dtype=torch.double)
        for sample, action, own in zip(x, actions.tolist(), h, strict=True):
            for at in np.ndindex(*own.shape):
                step = torch.zeros_like(own)
                step[at] = eps
                up, down = (log_pi(net, sample, {place: s})[0][action] for s in (step, -step))
                total[at[0]] += ((up - down) / (2 * eps) * std[at[0]]) ** 2
        fisher[place] = total / len(x)
    return fisher


@pytest.mark.parametrize("rows", [2, 256])
def test_the_fisher_information_is_that_of_finite_differences(rows, monkeypatch):
    monkeypatch.setattr(sensitivity, "ROWS", rows)
    net, x = grown(), torch.rand((4, *SHAPE), dtype=torch.double)
    draw = torch.Generator().manual_seed(3)
    actions = [
        torch.multinomial(
            torch.stack([log_pi(net, s, {})[0].exp() for s in part]), 1, generator=draw
        )
        for part in x.split(rows)
    ]
    expected = naive_fisher(net, x, torch.cat(actions)[:, 0])
    ours = found(net, x, seed=3)
    assert set(ours) == set(expected)
    for place, fisher in expected.items():
        torch.testing.assert_close(ours[place].fisher, fisher, rtol=1e-5, atol=1e-9)
        assert fisher.sum() > 1e-4
        assert ours[place].is_map is (place[0] == 0)
    assert all(p.grad is None for p in net.parameters())


def test_what_nothing_reads_has_exactly_no_sensitivity():
    net, x = grown(), torch.rand((5, *SHAPE), dtype=torch.double)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("alpha"):
                p[0] = 0
    fisher = {place: one.fisher for place, one in found(net, x).items()}
    for i in (0, 1):
        assert not fisher[i, 0].any()
        assert fisher[i, 1].any()
        assert fisher[i, 2].any()
    afs = result([[fisher[i, k].tolist() for k in range(3)] for i in (0, 1)]).afs
    assert afs.share[:, 0].tolist() == [0, 0]
    headless = found(grown(lateral_heads=False), x)
    assert not headless[1, 1].fisher.any()  # the last layer of a column is for its heads only
    assert headless[0, 1].fisher.any()


def test_only_the_columns_up_to_the_targets_are_looked_at():
    x = torch.rand((5, *SHAPE), dtype=torch.double)
    assert set(found(grown(), x, k=1)) == {(i, k) for i in (0, 1) for k in (0, 1)}


# ---------------------------------------------------------------------------------- the shares


def test_shares_of_columns_sum_to_1_for_layers_and_for_units():
    found = result([[[1.0, 0.0, 3.0], [3.0, 0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert found.afs.share[0].tolist() == [0.5, 0.5]
    assert np.isnan(found.afs.share[1]).all()  # nothing is sensitive: no shares
    first, second = found.afs_units
    np.testing.assert_array_equal(first, [[0.25, math.nan, 0.75], [0.75, math.nan, 0.25]])
    assert np.isnan(second).all()
    wide = result([[[1.0, 1.0], [2.0, 2.0, 2.0]]])
    assert wide.afs_units == [None]
    assert wide.afs.share.tolist() == [[0.25, 0.75]]
    assert found.aps is None


def test_shares_of_perturbation_are_of_precisions_and_bounds_are_told():
    noise = [[Noise(2.0, False), Noise(100.0, True)], [Noise(0.5, False), Noise(1.0, False)]]
    aps = result([[[1.0], [1.0]]] * 2, noise).aps
    expected = [[0.25 / 0.2501, 0.0001 / 0.2501], [0.8, 0.2]]
    np.testing.assert_allclose(aps.share, expected, rtol=1e-12)
    assert aps.bound.tolist() == [[False, True], [False, False]]


def test_what_is_saved_is_read_again(tmp_path: Path):
    for noise in (None, [[Noise(2.0, False), Noise(100.0, True)]]):
        first = result([[[1.0, 0.1], [3.0, 1 / 3]]], noise)
        first.save(tmp_path / "s.json")
        assert vars(load_sensitivities(tmp_path / "s.json")) == vars(first)
    (tmp_path / "s.json").write_text("{}")
    with pytest.raises(ClrlError, match="holds no sensitivities"):
        load_sensitivities(tmp_path / "s.json")
    with pytest.raises(ClrlError, match="cannot read"):
        load_sensitivities(tmp_path / "t.json")
    with pytest.raises(ClrlError, match="cannot write"):
        first.save(tmp_path / "absent" / "s.json")


def test_the_figure_stacks_columns_by_layer_and_hatches_bounds(tmp_path: Path):
    share = np.array([[0.25, 0.75], [math.nan, math.nan], [0.99, 0.01]])
    bound = np.array([[False, False], [False, False], [False, True]])
    shown = Shares(("conv 1", "conv 2", "fc 3"), ("Pong", "Pong-zoom"), share, bound)
    figure = shares_figure({"AFS": shown, "APS": shown})
    assert [axes.get_title() for axes in figure.axes] == ["AFS", "APS"]
    for axes in figure.axes:
        bars = [[(bar.get_y(), bar.get_height()) for bar in part] for part in axes.containers]
        np.testing.assert_allclose(bars[0], [(0, 0.25), (0, 0), (0, 0.99)])
        np.testing.assert_allclose(bars[1], [(0.25, 0.75), (0, 0), (0.99, 0.01)])
        assert [bar.get_hatch() for bar in axes.containers[1]] == [None, None, "///"]
        assert [t.get_text() for t in axes.get_xticklabels()] == list(shown.layers)
        assert [t.get_text() for t in axes.texts] == ["Pong", "Pong-zoom"]
        colors = [part[0].get_facecolor() for part in axes.containers]
        assert len(set(colors)) == 2
    save(figure, tmp_path / "s.svg")


# --------------------------------------------------------------------------------------- noise


def asked(score: Callable[[float], float]) -> tuple[Callable[[float], float], list[float]]:
    sigmas: list[float] = []
    return lambda sigma: (sigmas.append(sigma), score(sigma))[1], sigmas


@pytest.mark.parametrize("tolerance", [1.5, 1.1, 1.001])
def test_the_noise_that_halves_a_score_is_found(tolerance):
    score, sigmas = asked(lambda sigma: 20 * math.exp(-(sigma**2)) - 5)
    noise = halving_noise(score, (15 - 5) / 2, (0.01, 100.0), tolerance)
    assert noise.bound is False
    ratio = noise.sigma / math.sqrt(math.log(2))
    assert 1 / math.sqrt(tolerance) <= ratio <= math.sqrt(tolerance)
    assert len(sigmas) == 1 + math.ceil(math.log2(math.log(1e4) / math.log(tolerance)))
    assert all(0.01 <= sigma <= 100.0 for sigma in sigmas)


def test_beyond_the_bracket_there_is_only_a_bound():
    score, sigmas = asked(lambda sigma: 1.0)
    assert halving_noise(score, 0.5, (0.01, 8.0)) == Noise(8.0, bound=True)
    assert sigmas == [8.0]
    assert halving_noise(lambda sigma: 0.0, 0.5, (0.01, 8.0)) == Noise(0.01, bound=True)
    just = halving_noise(lambda sigma: float(sigma < 0.0101), 0.5, (0.01, 8.0))
    assert just.bound is False
    assert just.sigma == pytest.approx(0.0101, rel=0.05)


def test_noise_is_of_a_units_own_size_fresh_and_in_its_place_alone():
    h, std = torch.ones(2_000, 3, 4, 2), torch.tensor([0.0, 0.5, 2.0])
    change = noisy((1, 0), std, 3.0, torch.Generator().manual_seed(0))
    for elsewhere in ((0, 0), (1, 1), (0, 1)):
        assert change(*elsewhere, h) is h
    first, second = change(1, 0, h) - h, change(1, 0, h) - h
    torch.testing.assert_close(first.std((0, 2, 3)), 3 * std, rtol=0.03, atol=0)
    assert first.mean((0, 2, 3)).abs().max() < 0.2
    maps = first[:, 1].flatten(1)
    assert torch.corrcoef(torch.stack([maps[:, 0], maps[:, 1]]))[0, 1].abs() < 0.1
    assert not torch.equal(first[:, 1:], second[:, 1:])
    vector = noisy((0, 0), std, 1.0, torch.Generator())(0, 0, torch.zeros(2_000, 3))
    torch.testing.assert_close(vector.std(0), std, rtol=0.08, atol=0)


def test_both_analyses_of_a_net_whose_shares_are_known():
    """A policy that is right where x > 2, x 1 or 3, and sees x by two columns: c0 h0 + c1 h1.

    Both activations have standard deviation 1, so noise on column k makes it right with chance
    Phi(1 / (c_k sigma)): the score is half-way between 1 and chance at c_k sigma = 1 / Phi^-1(3/4).
    Lambda_k, and the squared gradient, are proportional to c_k^2.
    """
    c = torch.tensor([0.25, 0.75])
    net = ProgressiveNet(NetSpec((1,), (Linear(1),), tuple(Task(k, str(k), 2) for k in (0, 1))))
    for task in net.spec.tasks:
        net.add_task(task)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        for column in net.columns:
            column.body[0].own.weight.fill_(1.0)
        heads = net.columns[1].heads
        heads.lateral.alpha.fill_(1.0)
        heads.lateral.down.weight.fill_(1.0)
        heads.lateral.down.bias.fill_(1_000.0)  # far from where its ReLU bends
        heads.policy.up.weight[1] = c[0]
        heads.policy.own.weight[1] = c[1]
        heads.policy.own.bias[1] = -2.0 - 1_000.0 * c[0]
    x = torch.tensor([1.0, 3.0]).repeat(20_000)[:, None]
    route = torch.ones(len(x), dtype=torch.long)
    known = activations(net, x, route, torch.Generator().manual_seed(0))
    noise = []
    for k in (0, 1):
        assert known[0, k].std.item() == pytest.approx(1.0)

        def score(sigma: float, k: int = k) -> float:
            change = noisy((0, k), known[0, k].std, sigma, torch.Generator().manual_seed(0))
            logits = net.traced(x, route, change).logits
            return float((logits.argmax(-1) == (x[:, 0] > 2)).double().mean())

        noise.append(halving_noise(score, (1.0 + 0.5) / 2, tolerance=1.01))
        assert noise[k].sigma == pytest.approx(1 / (0.67449 * c[k].item()), rel=0.04)
    both = result([[known[0, k].fisher.tolist() for k in (0, 1)]], [noise])
    np.testing.assert_allclose(both.afs.share, [[0.1, 0.9]], atol=1e-4)
    np.testing.assert_allclose(both.aps.share, [[0.1, 0.9]], atol=0.01)


# ----------------------------------------------------------------------------------------- runs


def trained(folder: Path, **changes: str) -> Path:
    lines = {
        "name": "toy",
        "sequence": "{tasks: [Freeway, Breakout], steps: 2_000}",  # replaced by toy tasks
        "agent": "{name: ppo, n_envs: 8, n_steps: 16, batch_size: 64, learning_rate: 5.0e-3}",
        "method": "{name: progressive, random_first: true}",
        "net": "{body: mlp, hidden: [32, 32]}",
        "evaluation": "{episodes: 2, policy: greedy}",
        "threads": "1",
        "device": "cpu",
    }
    path = folder / "toy.yaml"
    path.write_text("".join(f"{k}: {v}\n" for k, v in (lines | changes).items()))
    return train(load_config(path), folder / "runs", toy_sequence(2))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("columns"))


def test_a_finished_run_is_analysed_and_left_as_it_is(run: Path):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    search = {"bracket": (0.1, 10.0), "tolerance": 4.0, "sequence": toy_sequence(2)}
    first = sensitivities(run, states=300, **search)
    again = sensitivities(run, "toy-b", states=300, **search)
    assert vars(first) == vars(again)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert (first.task, first.layers, first.n_states) == ("toy-b", ("fc 1", "fc 2"), 300)
    assert first.columns == ("random", "toy-a", "toy-b")
    assert first.score > first.random_score + 1
    for shares in (first.afs, first.aps):
        np.testing.assert_allclose(shares.share.sum(1), 1)
        assert (shares.share > 0).all()
    assert [[len(units) for units in row] for row in first.fisher] == [[32] * 3] * 2


def test_a_report_shows_what_lies_in_the_run(run: Path, tmp_path: Path):
    found = sensitivities(run, states=50, perturb=False, sequence=toy_sequence(2))
    found.save(run / "sensitivities_toy-b.json")
    write_report([run], out=tmp_path, normalise=lambda *_: None)
    (run / "sensitivities_toy-b.json").unlink()
    report = (tmp_path / "report.md").read_text()
    assert "columns that toy-b rests on, AFS (Fisher)" in report
    assert "columns that toy-b rests on, APS" not in report
    (line,) = (line for line in report.splitlines() if line.startswith("| fc 2 |"))
    shown = [float(cell) for cell in line.strip("| ").split("|")[1:]]
    np.testing.assert_allclose(shown, found.afs.share[1], atol=6e-3)


def test_an_earlier_task_is_analysed_in_its_own_column(run: Path):
    found = sensitivities(run, "toy-a", states=50, perturb=False, sequence=toy_sequence(2))
    assert found.columns == ("random", "toy-a")
    assert found.noise is None
    assert found.aps is None


def test_noise_must_take_half_of_what_is_above_random_play_by_a_sampling_policy(run, monkeypatch):
    halves, policies, assemble = [], [], features.assemble

    def halving(score: Callable[[float], float], half: float, *search: Any) -> Noise:
        halves.append((half, *search))
        return Noise(1.0, bound=False)

    def assembled(config: Any, sequence: Any) -> Any:
        policies.append(config.evaluation.policy)  # the run's own is greedy
        return assemble(config, sequence)

    monkeypatch.setattr(features, "halving_noise", halving)
    monkeypatch.setattr(features, "assemble", assembled)
    given = {"states": 50, "bracket": (0.5, 2.0), "tolerance": 1.5}
    found = sensitivities(run, **given, sequence=toy_sequence(2))
    assert found.random_score > 0
    half = found.random_score + (found.score - found.random_score) / 2
    assert halves == [(pytest.approx(half), (0.5, 2.0), 1.5)] * 6
    assert policies == ["sample"]


def test_noise_cannot_halve_what_is_no_better_than_chance(run: Path, monkeypatch):
    monkeypatch.setattr(features._Games, "at_random", lambda games, x, route: games.net(x, route))
    with pytest.raises(ClrlError, match=r"the net scores .* on 'toy-b' and random play .* halve"):
        sensitivities(run, states=50, sequence=toy_sequence(2))
    sensitivities(run, states=50, perturb=False, sequence=toy_sequence(2))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"task": "toy-x"}, "has no task 'toy-x'; did you mean 'toy-"),
        ({"states": 0}, "states is 0, episodes 10: expected at least 1"),
        ({"episodes": 0}, "episodes 0: expected at least 1"),
        ({"bracket": (1.0, 1.0)}, r"bracket is \(1.0, 1.0\), tolerance 1.1: expected 0 < a < b"),
        ({"tolerance": 1.0}, "tolerance 1.0: expected 0 < a < b, and above 1"),
    ],
)
def test_bad_requests_are_refused(run: Path, given: dict[str, Any], text: str):
    with pytest.raises(ClrlError, match=text) as caught:
        sensitivities(run, **given, sequence=toy_sequence(2))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "{name: finetune}", "sequence": "{tasks: [Pong, Freeway], steps: 64}"},
        {
            "agent": "{name: supervised, batch_size: 32}",
            "sequence": '{tasks: ["digits:0+1", "digits:2+3"], steps: 64}',
        },
    ],
)
def test_a_run_without_columns_or_without_games_is_refused(tmp_path: Path, changes):
    other = trained(tmp_path, **changes)
    with pytest.raises(ClrlError, match=r"no column that plays 'toy-b': expected a run of games"):
        sensitivities(other, sequence=toy_sequence(2))


# --------------------------------------------------------------------------------- games, played


class Counting(torch.nn.Module):
    """A net of 3 outputs, the last illegal, that answers whatever it is asked."""

    def forward(self, x: Tensor, route: Tensor) -> Output:
        return Output(torch.tensor([[5.0, -5.0, MASKED]]).repeat(len(x), 1), None)


def counted(n_steps: int, seed: int = 0) -> features._Games:
    """Return games in which two environments meet the numbers 0, 1, ... in `n_steps` steps."""

    def evaluate(task: Task, episodes: int, seed: int) -> list[dict[str, float]]:
        for x in torch.arange(2 * n_steps)[:, None].split(2):
            player.net(x, torch.zeros(2))
        seeds.append(seed)
        return [{"return": 1.0}, {"return": 4.0}]

    seeds: list[int] = []
    player: Any = SimpleNamespace(net=Counting(), evaluate=evaluate, seeds=seeds)
    return features._Games(player, TASKS[0], 2, seed)


def test_states_are_drawn_evenly_from_whole_games():
    drawn = [counted(300, seed).states(50) for seed in range(40)]
    assert {score for score, _ in drawn} == {2.5}
    assert all(len(set(x.flatten().tolist())) == 50 for _, x in drawn)
    everything = torch.cat([x for _, x in drawn]).double()
    assert everything.mean().item() == pytest.approx(299.5, abs=4 * 173.2 / math.sqrt(2_000))
    assert everything.std().item() == pytest.approx(173.2, rel=0.1)


def test_short_games_are_followed_by_others():
    games: Any = counted(10, seed=7)
    _, x = games.states(50)
    assert len(x) == 50
    assert games.player.seeds == [7, 8, 9]
    assert isinstance(games.player.net, Counting)  # put back


def test_noise_is_fresh_at_each_step_and_the_same_in_each_score():
    games: Any = counted(3)
    seen: list[Tensor] = []

    def traced(x: Tensor, route: Tensor, change: sensitivity.Change) -> Output:
        seen.append(change(1, 2, torch.zeros(2, 4)))
        return games.net(x, route)

    games.net.traced = traced
    for _ in range(2):
        assert games.score_with_noise((1, 2), torch.ones(4), 0.5) == 2.5
        torch.rand(1)  # others draw too
    first, again = torch.stack(seen[:3]), torch.stack(seen[3:])
    assert torch.equal(first, again)
    assert len(first.unique()) == first.numel()


def test_random_play_chooses_evenly_among_legal_actions():
    output = counted(1).at_random(torch.zeros(4, 1), torch.zeros(4))
    assert output.logits.softmax(-1).tolist() == [[0.5, 0.5, 0.0]] * 4
