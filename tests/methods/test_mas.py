"""Memory aware synapses against an example worked by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch

from clrl.methods.mas import MAS
from clrl.types import Batch, NetSpec, Task


def built(*tasks: Task, weight: list[list[float]], **settings: object) -> MAS:
    """Return MAS on a linear net under one head, z = W x, that averages over two samples."""
    method = MAS(normalise=False, n_samples=2, n_batches=1, **settings)
    method.build(NetSpec((2,), (), tasks, shared_head=True))
    with torch.no_grad():
        for p in method.net.parameters():
            p.zero_()
        method.net.get_parameter("heads.policy.0.weight").copy_(torch.tensor(weight))
    return method


def data(x: list[list[float]], task: int = 0) -> Iterator[Batch]:
    n = len(x)
    return itertools.repeat(Batch(torch.tensor(x), torch.full((n,), task), torch.zeros(n)))


def test_it_is_the_example_worked_by_hand():
    # W = [[1, 0], [0, 1]]; x_1 = (3, 1): z = (3, 1), centred (1, -1), gradient 2 z x^T =
    # [[6, 2], [-6, -2]]; x_2 = (1, 2): z = (1, 2), centred (-1/2, 1/2): [[-1, -2], [1, 2]].
    # The mean of absolute values is [[3.5, 2], [3.5, 2]]; summed first they would give [[2.5, 0],..
    method = built(Task(0, "a", 2), weight=[[1.0, 0.0], [0.0, 1.0]])
    found = method.importance(data([[3.0, 1.0], [1.0, 2.0]]))
    expected = torch.tensor([[3.5, 2.0], [3.5, 2.0]])
    torch.testing.assert_close(found["heads.policy.0.weight"], expected)
    torch.testing.assert_close(found["heads.policy.0.bias"], torch.tensor([1.5, 1.5]))
    assert not found["heads.value.0.weight"].any()


def test_a_constant_added_to_all_logits_changes_nothing():
    found = []
    for shift in (0.0, 5.0):
        method = built(Task(0, "a", 2), weight=[[1.0, 0.0], [0.0, 1.0]])
        with torch.no_grad():
            method.net.get_parameter("heads.policy.0.bias").fill_(shift)
        found.append(method.importance(data([[3.0, 1.0], [1.0, 2.0]])))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name])


@pytest.mark.parametrize("shared_head", [True, False])
def test_outputs_that_the_task_lacks_are_left_out(shared_head):
    if shared_head:
        tasks = Task(0, "a", 3, (0, 2)), Task(1, "b", 3)
        method = built(*tasks, weight=[[1.0, 0.0], [7.0, 7.0], [0.0, 1.0]])
        rows = [0, 2]
    else:
        method = MAS(n_samples=2, n_batches=1)
        method.build(NetSpec((2,), (), (Task(0, "a", 2), Task(1, "b", 5))))
        with torch.no_grad():
            method.net.get_parameter("heads.policy.0.weight").copy_(torch.eye(2))
        rows = [0, 1]
    found = method.importance(data([[3.0, 1.0], [1.0, 2.0]]))["heads.policy.0.weight"]
    torch.testing.assert_close(found[rows], torch.tensor([[3.5, 2.0], [3.5, 2.0]]))
    assert found.sum() == found[rows].sum()


def test_with_value_the_norm_is_of_logits_and_value():
    # V = 2 x_1: x = (3, 1) gives V = 6 and dV^2/dw = 2 * 6 x = (36, 12); (1, 2): V = 2, (4, 8)
    method = built(Task(0, "a", 2), weight=[[1.0, 0.0], [0.0, 1.0]], value=True)
    with torch.no_grad():
        method.net.get_parameter("heads.value.0.weight").copy_(torch.tensor([[2.0, 0.0]]))
    found = method.importance(data([[3.0, 1.0], [1.0, 2.0]]))
    torch.testing.assert_close(found["heads.value.0.weight"], torch.tensor([[20.0, 10.0]]))
    expected = torch.tensor([[3.5, 2.0], [3.5, 2.0]])
    torch.testing.assert_close(found["heads.policy.0.weight"], expected)


def test_importance_accumulates_around_the_latest_weights():
    method = built(Task(0, "a", 2), weight=[[1.0, 0.0], [0.0, 1.0]])
    one = torch.tensor([[3.5, 2.0], [3.5, 2.0]])
    method.end_task(Task(0, "a", 2), data([[3.0, 1.0], [1.0, 2.0]]))
    with torch.no_grad():
        method.net.get_parameter("heads.policy.0.weight").mul_(2)
    method.end_task(Task(0, "a", 2), data([[3.0, 1.0], [1.0, 2.0]]))  # z, and its slope: doubled
    torch.testing.assert_close(method.penalty.weight["heads.policy.0.weight"], 3 * one)
    assert method.records()["penalty"] == 0.0
