"""Plasticity and cost against closed forms, and as a run records them."""

from __future__ import annotations

import doctest
import math

import pytest
import torch

from clrl.nets.bodies import body
from clrl.nets.plain import PlainNet
from clrl.nets.progressive import ProgressiveNet
from clrl.run import plasticity as module
from clrl.run.costs import multiply_adds, peak_memory, sizes
from clrl.run.plasticity import dormant_share, effective_rank, plasticity
from clrl.types import Conv, Linear, NetSpec, Task

TASKS = (Task(0, "a", 3), Task(1, "b", 5))


def net_of(layers: tuple, shape: tuple[int, ...]) -> PlainNet:
    return PlainNet(NetSpec(input_shape=shape, body=layers, tasks=TASKS))


def test_the_examples_of_the_docstrings_hold() -> None:
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.failed == 0 and result.attempted > 0


def test_a_map_is_one_unit() -> None:
    maps = torch.zeros(2, 4, 3, 3)
    maps[:, 1] = 8.0
    maps[0, 2, 1, 1] = 18 * 0.1  # 0.1 on average, at one position of one sample only
    maps[:, 3] = 0.02  # 0.02 of 2.03, the layer's mean: below 0.025 of it; the third is above
    assert dormant_share(maps) == 2 / 4
    assert dormant_share(torch.zeros(5, 7)) == 1.0
    assert dormant_share(torch.ones(5, 7)) == 0.0


def test_the_effective_rank_is_that_of_the_spectrum() -> None:
    left, _ = torch.linalg.qr(torch.randn(8, 4, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    p = (0.5, 0.25, 0.125, 0.125)
    features = left @ torch.diag(torch.tensor(p, dtype=torch.float64)) @ right
    entropy = 0.5 * math.log(2) + 0.25 * math.log(4) + 2 * 0.125 * math.log(8)
    assert effective_rank(7 * features) == pytest.approx(math.exp(entropy), rel=1e-5)
    assert effective_rank(torch.zeros(8, 4)) == 0.0


def test_of_many_inputs_some_of_all_environments_are_looked_at() -> None:
    """16 environments, 128 steps: every second row would be those of even number alone."""
    net = net_of((Linear(16),), (16,))
    net.trunk[0].weight.data = torch.eye(16)
    net.trunk[0].bias.data.zero_()
    own = torch.eye(16).repeat(128, 1)  # row t N + n: environment n drives unit n
    records = plasticity(net, own, torch.zeros(len(own)).long())
    assert records["plasticity/dormant/trunk.0"] == 0.0


def test_records_of_a_net() -> None:
    net = net_of((Conv(3, 2), Linear(6)), (1, 4, 4))
    x, route = torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8), torch.zeros(5).long()
    with torch.no_grad():
        net.trunk[0].weight[1] = 0.0  # a map that never reacts
        net.trunk[0].weight[[0, 2]] = net.trunk[0].weight[[0, 2]].abs()
    net(x, route).logits.square().sum().backward()
    net.heads.requires_grad_(False)

    records = plasticity(net, x, route)

    conv, linear = net.trunk[0], net.trunk[3]
    assert records["plasticity/dormant/trunk.0"] == pytest.approx(1 / 3)
    features = linear(torch.flatten(conv(x / 255).relu(), 1)).relu()
    rank = effective_rank(features.detach())
    assert records["plasticity/effective_rank"] == pytest.approx(rank, rel=1e-4)
    for name, layer in (("trunk.0", conv), ("trunk.3", linear)):
        both = torch.cat([layer.weight.flatten(), layer.bias]).detach()
        grad = torch.cat([layer.weight.grad.flatten(), layer.bias.grad])
        assert records[f"plasticity/weight_norm/{name}"] == pytest.approx(float(both.norm()))
        assert records[f"plasticity/gradient_norm/{name}"] == pytest.approx(float(grad.norm()))
    assert not any("heads" in key for key in records)  # they are not being trained


def test_an_answers_multiply_adds_are_the_closed_form() -> None:
    net = net_of(body("a3c"), (4, 84, 84))
    x = torch.zeros(1, 4, 84, 84, dtype=torch.uint8)
    convolutions = 20 * 20 * 16 * (8 * 8 * 4) + 9 * 9 * 32 * (4 * 4 * 16)
    linear = 2592 * 256 + 256 * (5 + 1)
    assert multiply_adds(net, x, torch.tensor([1])) == convolutions + linear


def test_a_later_columns_multiply_adds_leave_out_what_is_not_connected() -> None:
    tasks = tuple(Task(k, str(k), 4) for k in range(3))
    net = ProgressiveNet(NetSpec((6,), (Linear(8), Linear(7), Linear(5)), tasks))
    for task in tasks:
        net.add_task(task)
        net.train_only(task)
    own = 6 * 8 + 8 * 7 + 7 * 5
    laterals = [sum(k * n * n + n * m for n, m in ((8, 7), (7, 5))) for k in (1, 2)]  # V and U
    heads = 5 * (4 + 1) + 2 * 5 * 5 + 5 * (4 + 1)  # W, V, U: V serves policy and value
    found = multiply_adds(net, torch.zeros(1, 6), torch.tensor([2]))
    assert found == 3 * own + sum(laterals) + heads


def test_sizes_tell_what_is_trained() -> None:
    net = net_of((Linear(4),), (3,))
    net.trunk.requires_grad_(False)
    found = sizes(net)
    heads = (4 + 1) * (3 + 5 + 1 + 1)
    assert found["parameters"] == heads + (3 + 1) * 4
    assert found["parameters_trained"] == heads


def test_peak_memory_is_of_all_processes_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    own = peak_memory({})["peak_memory_mb"]
    assert own > 10
    assert peak_memory({"peak_memory_mb": own + 1000})["peak_memory_mb"] == own + 1000
    assert peak_memory({"peak_memory_mb": 1.0})["peak_memory_mb"] >= own
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    assert peak_memory({})["peak_cuda_memory_mb"] == 3.0
    assert peak_memory({"peak_cuda_memory_mb": 5.0})["peak_cuda_memory_mb"] == 5.0
