"""What the script on the cost of columns measures."""

from __future__ import annotations

from types import ModuleType

import pytest

from clrl.bench.figure import Setting
from clrl.bench.subject import best_precision
from clrl.nets.bodies import body
from clrl.nets.progressive import ProgressiveNet
from clrl.nets.stacked import Stacked
from clrl.types import NetSpec, Task


@pytest.fixture(scope="module")
def script(load_script) -> ModuleType:
    return load_script("progressive/cost.py")


def test_acting_takes_the_way_that_it_takes_in_a_run(script, monkeypatch):
    passes = []
    call = Stacked.__call__
    monkeypatch.setattr(Stacked, "__call__", lambda self, x: passes.append(self.k) or call(self, x))
    tasks = tuple(Task(k, f"noise-{k}", 6) for k in range(3))
    net = ProgressiveNet(NetSpec(script.SHAPE, body("a3c"), tasks))
    found = script.observation(Setting(pairs=1, device="cpu", seconds=0.0), net)
    assert set(passes) == {2}  # both frozen columns at once
    assert found["observation_seconds"] > 0
    assert [any(p.requires_grad for p in c.parameters()) for c in net.columns] == [
        False,
        False,
        True,
    ]


def test_memory_is_weights_gradients_moments_and_a_rollouts_activations(script):
    row = script.measured(Setting(pairs=1, device="cpu", seconds=0.0), 2, "pnn")

    tasks = tuple(Task(k, f"noise-{k}", 6) for k in range(2))
    net = ProgressiveNet(NetSpec(script.SHAPE, body("pnn"), tasks))
    for task in tasks:
        net.add_task(task)
    counts = [sum(p.numel() for p in column.parameters()) for column in net.columns]
    assert row["weights_megabytes"] == pytest.approx(4e-6 * sum(counts))
    assert row["gradients_and_moments_megabytes"] == pytest.approx(4e-6 * 3 * counts[1])
    kept = 1_024 * (12 * 400 + 12 * 81 + 12 * 42 + 256)  # of the first column's layers
    in_bf16 = best_precision("cpu") == "bf16"
    assert row["contexts_megabytes"] == pytest.approx((2e-6 if in_bf16 else 4e-6) * kept)
    assert script.total(row) == pytest.approx(
        sum(row[f"{k}_megabytes"] for k in ("weights", "gradients_and_moments", "contexts"))
    )
