"""What the script on the cost of columns measures."""

from __future__ import annotations

from types import ModuleType

import pytest

from clrl.bench.figure import Setting
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
