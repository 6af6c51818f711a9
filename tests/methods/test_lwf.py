"""Learning without forgetting against its formula; what it distils in each scenario."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch

from clrl.methods.lwf import LwF
from clrl.step import gradient_step
from clrl.types import Batch, Linear, NetSpec, Task

OWN = (Task(0, "a", 3), Task(1, "b", 2), Task(2, "c", 2))


def built(tasks: tuple[Task, ...] = OWN, *, masks: bool = True, **settings: float) -> LwF:
    torch.manual_seed(0)
    method = LwF(**settings)
    shared = tasks is not OWN
    spec = NetSpec((6,), (Linear(8),), tasks, shared, masks, logits_gain=1.0, has_value=False)
    method.build(spec)
    return method


def batch_of(task: int, size: int = 20) -> Batch:
    return Batch(torch.randn(size, 6), torch.full((size,), task), torch.zeros(size))


def drift(method: LwF) -> None:
    with torch.no_grad():
        for p in method.net.parameters():
            p += 0.3 * torch.randn_like(p)


def never(batch: Batch) -> torch.Tensor:
    raise AssertionError("the learner's loss was computed")


def softened(net: torch.nn.Module, x: torch.Tensor, task: int, columns: list[int], t: float):
    logits = net(x, torch.full((len(x),), task)).logits[:, columns]
    return (logits / t).exp() / (logits / t).exp().sum(1, keepdim=True)


CLASSES = tuple(Task(k, str(k), 6, (2 * k, 2 * k + 1)) for k in range(3))
SAME = tuple(Task(k, str(k), 4) for k in range(3))
GAMES = (Task(0, "a", 4, (0, 1)), Task(1, "b", 4, (0, 1)), Task(2, "c", 4, (1, 3)))
SCENARIOS = {  # tasks, masks, visits, what is distilled at the last: (any of its tasks, outputs)
    "own heads": (OWN, True, (0, 1, 2), [(0, [0, 1, 2]), (1, [0, 1])]),
    "own heads, a visit again": (OWN, True, (0, 1, 0), [(1, [0, 1])]),
    "domain-incremental": (SAME, True, (0, 1, 2), [(0, [0, 1, 2, 3])]),
    "class-incremental": (CLASSES, False, (0, 1, 2), [(0, [0, 1, 2, 3])]),
    "shared and masked": (CLASSES, True, (0, 1, 2), [(0, [0, 1]), (1, [2, 3])]),
    "shared and masked alike": (GAMES, True, (0, 1, 2), [(0, [0, 1])]),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("temperature", [2.0, 1.0])
def test_its_loss_and_gradient_are_the_formulas(scenario, temperature):
    tasks, masks, visits, distilled = SCENARIOS[scenario]
    method = built(tasks, masks=masks, strength=3.0, temperature=temperature)
    for k in visits[:-1]:
        method.begin_task(tasks[k])
    drift(method)
    method.begin_task(tasks[visits[-1]])
    old = copy.deepcopy(method.net)
    drift(method)
    batch = batch_of(visits[-1])
    divergence, cross_entropy = torch.zeros(()), torch.zeros(())
    for task, columns in distilled:
        q = softened(old, batch.x, task, columns, temperature).detach()
        p = softened(method.net, batch.x, task, columns, temperature)
        divergence = divergence + (q * (q / p).log()).sum(1).mean()
        cross_entropy = cross_entropy - (q * p.log()).sum(1).mean()
    found = method.loss(batch, never)
    torch.testing.assert_close(found, 3.0 * divergence)
    assert found > 0
    parameters = list(method.net.parameters())
    ours = torch.autograd.grad(  # whose trunk is the paper's here, just passed
        found, parameters, retain_graph=True, materialize_grads=True, allow_unused=True
    )
    paper = torch.autograd.grad(
        3.0 * cross_entropy, parameters, materialize_grads=True, allow_unused=True
    )
    for g, h in zip(ours, paper, strict=True):
        torch.testing.assert_close(g, h, atol=1e-6, rtol=1e-4)
    assert method.records() == {"distillation": pytest.approx(found.item() / 3.0)}


def test_a_two_class_example_worked_by_hand():
    # old logits (2 ln 3, 0), new (0, 0): at T = 2 q = (3/4, 1/4), p = (1/2, 1/2)
    method = LwF(strength=1.0)
    method.build(NetSpec((1,), (), (Task(0, "a", 2), Task(1, "b", 2)), has_value=False))
    method.begin_task(Task(0, "a", 2))
    weight, bias = method.net.heads.policy[0].weight, method.net.heads.policy[0].bias
    with torch.no_grad():
        weight.zero_()
        bias.copy_(torch.tensor([2 * math.log(3), 0.0]))
    method.begin_task(Task(1, "b", 2))
    with torch.no_grad():
        bias.zero_()
    batch = Batch(torch.ones(4, 1), torch.ones(4, dtype=torch.long), torch.zeros(4))
    expected = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    assert method.loss(batch, never).item() == pytest.approx(expected, rel=1e-5)


def test_nothing_is_added_during_the_first_task_however_often_it_is_visited():
    method = built()
    for _ in range(2):
        method.begin_task(OWN[0])
        assert method.loss(batch_of(0), never) == 0.0
    assert method.records() == {}


def test_the_trunk_runs_once_for_the_old_net_and_once_for_the_new():
    method = built()
    for task in OWN:
        method.begin_task(task)
    runs = []
    for net in (method.net, method._teacher):
        net.trunk.register_forward_hook(lambda *args: runs.append(1))
    method.loss(batch_of(2), never)
    assert len(runs) == 2


def protecting(**settings: float) -> LwF:
    method = built(**settings)
    for task in OWN:
        method.begin_task(task)
    drift(method)
    return method


def cross_entropy_of(method: LwF):
    return lambda batch: torch.nn.functional.cross_entropy(
        method.net(batch.x, batch.route).logits, batch.route % 2
    )


def test_the_learners_own_pass_through_the_trunk_is_not_repeated():
    batch, runs = batch_of(2), []
    alone, beside = protecting(), protecting()
    beside.net.load_state_dict(alone.net.state_dict())
    beside.load_state_dict(alone.state_dict())
    beside.net.trunk.register_forward_hook(lambda *args: runs.append(1))
    learners = cross_entropy_of(beside)(batch)
    again = beside.loss(batch, never)
    assert len(runs) == 1
    assert torch.equal(again, alone.loss(batch, never))
    (learners + again).backward()
    (
        cross_entropy_of(alone)(batch) + alone.loss(replace(batch, x=batch.x.clone()), never)
    ).backward()
    for p, q in zip(beside.net.parameters(), alone.net.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_a_net_that_remembers_a_pass_can_be_copied_and_one_that_distils_nothing_remembers_none():
    method, batch = protecting(), batch_of(2)
    method.net(batch.x, batch.route)
    assert method.net._seen is not None
    copied = copy.deepcopy(method.net)
    assert copied._seen is None
    assert torch.equal(copied(batch.x, batch.route).logits, method.net(batch.x, batch.route).logits)
    for idle in (built(), built(strength=0.0)):
        idle.begin_task(OWN[0])
        idle.net(batch.x, batch.route)
        assert idle.net._seen is None


def test_a_pass_of_other_inputs_is_not_taken_for_the_batchs():
    method, batch = protecting(), batch_of(2)
    expected = method.loss(batch, never)
    method.net(batch_of(2).x, batch.route)
    assert torch.equal(method.loss(batch, never), expected)


def test_what_the_trunk_made_of_a_batch_is_forgotten_once_the_weights_change():
    method, batch = protecting(), batch_of(2)
    optimizer = torch.optim.SGD(method.trainable(), lr=1.0)
    gradient_step(method, optimizer, batch, cross_entropy_of(method), math.inf)
    assert torch.equal(
        method.loss(batch, never), method.loss(replace(batch, x=batch.x.clone()), never)
    )


def test_the_old_net_is_neither_trained_nor_in_the_optimizer():
    method = built()
    method.begin_task(OWN[0])
    method.begin_task(OWN[1])
    before = copy.deepcopy(method._teacher.state_dict())
    optimizer = torch.optim.SGD(method.trainable(), lr=1.0)
    drift(method)
    for _ in range(3):
        method.loss(batch_of(1), never).backward()
        optimizer.step()
    assert all(torch.equal(before[k], v) for k, v in method._teacher.state_dict().items())
    assert all(p.grad is None for p in method._teacher.parameters())


def test_resumed_it_distils_the_old_net_and_not_the_one_it_finds():
    first, second = built(), built()
    first.begin_task(OWN[0])
    drift(first)
    first.begin_task(OWN[1])
    drift(first)
    drift(second)
    for task in OWN[:2]:
        second.begin_task(task)
    second.net.load_state_dict(first.net.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    batch = batch_of(1)
    assert second.loss(batch, never).item() == first.loss(batch, never).item() > 0


def test_a_state_without_an_old_net_leaves_the_one_at_hand():
    method = built(strength=0.0)
    for task in OWN[:2]:
        method.begin_task(task)
    state = method.state_dict()
    method.strength = 1.0  # changed on resume
    method.begin_task(OWN[1])
    method.load_state_dict(state)
    assert method._teacher is not None


def test_its_state_does_not_grow():
    method = built()
    sizes = []
    for task in (*OWN, *OWN):
        method.begin_task(task)
        teacher = method.state_dict()["teacher"]
        sizes.append(0 if teacher is None else sum(v.numel() for v in teacher.values()))
    assert sizes[0] == 0
    assert len(set(sizes[1:])) == 1


@pytest.mark.parametrize("settings", [{"strength": -1.0}, {"temperature": 0.0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        LwF(**settings)
