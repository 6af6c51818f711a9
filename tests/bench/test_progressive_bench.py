"""What columns cost, measured in its smallest form."""

from __future__ import annotations

import pytest
import torch

from clrl.agents.ppo import PPO
from clrl.bench import progressive
from clrl.bench.figure import Setting
from clrl.nets.bodies import body
from clrl.nets.progressive import ProgressiveNet
from clrl.types import NetSpec, Task


def test_a_later_column_is_measured_over_the_first(monkeypatch):
    tiny = PPO(n_envs=2, n_steps=4, batch_size=4, n_epochs=2)
    monkeypatch.setattr(progressive, "agent_of", lambda name: tiny)
    measured = progressive.column(Setting(pairs=2, device="cpu", seconds=0.0), 3, "pnn")
    later, first = (measured.parts[f"column_{n}_seconds_per_step"] for n in (3, 1))
    assert measured.values == pytest.approx([a / b for a, b in zip(later, first, strict=True)])
    context = 2 * (12 * 400 + 12 * 81 + 12 * 42 + 256)  # two columns' activations
    size = {"float32": 4, "bf16": 2}[measured.parts["precision"]]
    assert measured.parts["context_megabytes"] == pytest.approx(8 * context * size / 1e6)
    net = ProgressiveNet(NetSpec((4, 84, 84), body("pnn"), (Task(0, "a", 6),)))
    assert measured.parts["parameters"] == sum(net.column_size(k, 6) for k in range(3))


def test_what_is_measured_learns_in_its_last_column(monkeypatch):
    monkeypatch.setattr(
        progressive, "agent_of", lambda name: PPO(n_envs=2, n_steps=4, batch_size=4)
    )
    with progressive._learning(Setting(pairs=1, device="cpu"), 3, "pnn") as learner:
        assert [task.id for task in learner.begun] == [0, 1, 2]
        frozen = [not any(p.requires_grad for p in c.parameters()) for c in learner.net.columns]
        assert frozen == [True, True, False]
        before = [p.clone() for p in learner.net.columns[2].parameters()]
        learner.update()
        after = learner.net.columns[2].parameters()
        assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
