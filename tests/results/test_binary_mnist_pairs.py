"""The evidence on binary MNIST: what the fixed net is, and what is divided by what."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from clrl.envs.toy import toy_sequence
from clrl.methods.pathnet import PathNetMethod
from clrl.nets.pathnet import PathNet
from clrl.types import Linear, Net, NetSpec


@pytest.fixture(scope="module")
def script(load_script) -> ModuleType:
    return load_script("pathnet/binary_mnist.py")


def row(arm: str, pair: str, seed: int, generations: int) -> dict[str, Any]:
    return {"arm": arm, "pair": pair, "seed": seed, "generations": generations}


def test_each_arm_is_divided_by_its_own_control_and_by_alone(script: ModuleType) -> None:
    rows = []
    for pair in ("a then b", "c then d"):
        for seed, (ours, alone, tuned, fixed) in enumerate(
            ((10, 30, 50, 25), (20, 60, 100, 50), (30, 330, 500, 75))
        ):
            counts = {"pathnet": ours, "alone": alone, "finetune": tuned, "fixed alone": fixed}
            rows += [row(arm, pair, seed, n) for arm, n in counts.items()]
    lines = [line.split(" | ") for line in script.table(rows).splitlines() if line[:2] == "| "]
    told = {line[0].strip("| "): line[1:] for line in lines}
    assert told["second task"][3:6] == [
        "not within 500",
        "speed-up over its own control",
        "over alone",
    ]
    pathnet, tuned = told["pathnet"], told["finetune"]
    assert pathnet[0] == "6" and pathnet[1].startswith("20 (")
    assert pathnet[2:4] == ["20", "0"]  # the median, and none was late
    for place in (4, 5):  # means 140 and 20, medians 60 and 20
        assert pathnet[place].startswith("7.00 (") and pathnet[place].endswith("medians 3.00")
    assert tuned[2:4] == ["100", "2"]
    assert tuned[4].startswith("0.23 (") and tuned[4].endswith("medians 0.50")  # 50 / 216.7
    assert tuned[5].startswith("0.65 (") and tuned[5].endswith("medians 0.60")  # 140 / 216.7
    assert told["alone"][4:6] == ["", ""]


def test_the_fixed_net_is_a_path_at_its_largest(script: ModuleType) -> None:
    tasks = toy_sequence(2).tasks
    spec = NetSpec((784,), (Linear(20),) * 3, tasks, has_value=False)
    net: Net = script.Watched().build(spec)
    assert isinstance(net, PathNet)
    paths = PathNetMethod(active=3, aggregate_last="mean").build(spec)
    assert isinstance(paths, PathNet)
    assert (net.settings.aggregate, net.settings.aggregate_last) == (
        paths.settings.aggregate,
        paths.settings.aggregate_last,
    )
    of_path = 0
    for i, n_inputs in enumerate((784, 20, 20)):
        module = next(iter(paths.layers[i]))
        assert sum(p.numel() for p in module.parameters()) == (n_inputs + 1) * 20
        of_path += 3 * (n_inputs + 1) * 20
    assert sum(p.numel() for p in net.body_parameters().values()) == of_path


def test_the_fixed_net_fine_tunes_all_of_it_and_counts_pairs_of_windows(script: ModuleType) -> None:
    from clrl.agents.learner import RunSettings
    from clrl.agents.supervised import Supervised

    tasks = toy_sequence(2).tasks
    learner = Supervised(batch_size=16, optimizer_name="sgd", learning_rate=0.05)
    spec = NetSpec((2, 12, 12), (Linear(20),) * 3, tasks, has_value=False)
    learner.setup(script.Watched(), spec, RunSettings(0, 150, 2, torch.device("cpu")))
    for task in tasks:
        before = {n: p.clone() for n, p in learner.net.body_parameters().items()}
        learner.begin_task(task)
        for _ in range(15):  # of ten batches: three windows
            learner.update()
        assert learner.method.records()["generations"] == 2
        learner.end_task()
        moved = [not torch.equal(p, before[n]) for n, p in learner.net.body_parameters().items()]
        assert all(moved)
