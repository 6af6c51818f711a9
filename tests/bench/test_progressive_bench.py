"""What columns cost, measured in its smallest form."""

from __future__ import annotations

import pytest

from clrl.agents.ppo import PPO
from clrl.bench import progressive
from clrl.bench.figure import Setting


def test_a_later_column_is_measured_over_the_first(monkeypatch):
    tiny = PPO(n_envs=2, n_steps=4, batch_size=4, n_epochs=2)
    monkeypatch.setattr(progressive, "agent_of", lambda name: tiny)
    measured = progressive.column(Setting(pairs=2, device="cpu", seconds=0.0), 3, "pnn")
    later, first = (measured.parts[f"column_{n}_seconds_per_step"] for n in (3, 1))
    assert measured.values == pytest.approx([a / b for a, b in zip(later, first, strict=True)])
    context = 2 * (12 * 400 + 12 * 81 + 12 * 42 + 256)  # two columns' activations
    size = {"float32": 4, "bf16": 2}[measured.parts["precision"]]
    assert measured.parts["context_megabytes"] == pytest.approx(8 * context * size / 1e6)
