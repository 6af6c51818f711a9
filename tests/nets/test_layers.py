"""Bodies and heads."""

from __future__ import annotations

import math

import pytest
import torch

from clrl.nets.bodies import body
from clrl.nets.plain import PlainNet
from clrl.types import MASKED, ClrlError, Conv, Linear, NetSpec, Task

THREE = (Task(0, "freeway", 3), Task(1, "breakout", 4), Task(2, "alien", 18))


def plain(name: str = "a3c", tasks: tuple[Task, ...] = THREE, **kwargs: bool) -> PlainNet:
    torch.manual_seed(0)
    return PlainNet(NetSpec((4, 84, 84), body(name), tasks, **kwargs))


def pixels(n: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 4, 84, 84), dtype=torch.uint8)


# Parameters of trunk and of one head of 6 actions with its value, counted by hand from the papers.
COUNTS = {
    # Mnih et al. 2015: 84 -> 20 -> 9 -> 7
    "nature": (
        32 * (4 * 64 + 1) + 64 * (32 * 16 + 1) + 64 * (64 * 9 + 1) + 512 * (7 * 7 * 64 + 1),
        512,
    ),
    # Mnih et al. 2016 (after Mnih et al. 2013): 84 -> 20 -> 9
    "a3c": (16 * (4 * 64 + 1) + 32 * (16 * 16 + 1) + 256 * (9 * 9 * 32 + 1), 256),
    # Rusu et al. 2016, appendix: 84 -> 20 -> 9 -> 7 x 6
    "pnn": (
        12 * (4 * 64 + 1) + 12 * (12 * 16 + 1) + 12 * (12 * 12 + 1) + 256 * (7 * 6 * 12 + 1),
        256,
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_body_has_as_many_parameters_as_its_paper_says(name):
    trunk, features = COUNTS[name]
    net = plain(name, (Task(0, "pong", 6),))
    assert sum(p.numel() for p in net.body_parameters().values()) == trunk
    assert sum(p.numel() for p in net.parameters()) == trunk + (features + 1) * 7


def test_initial_weights_are_orthogonal_with_the_references_gains():
    net = plain("nature", (Task(0, "pong", 6),))
    expected = {"trunk.0": math.sqrt(2), "trunk.7": math.sqrt(2)}
    expected |= {"heads.policy.0": 0.01, "heads.value.0": 1.0}
    for name, gain in expected.items():
        weight = net.get_parameter(f"{name}.weight").detach().flatten(1)
        small = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
        torch.testing.assert_close(small, gain**2 * torch.eye(len(small)), atol=1e-4, rtol=1e-3)
        assert not net.get_parameter(f"{name}.bias").any()


def test_pixels_are_scaled_to_the_unit_interval_and_floats_are_not():
    net = plain()
    x, route = pixels(3), torch.zeros(3, dtype=torch.long)
    torch.testing.assert_close(net(x, route).logits, net(x.float() / 255, route).logits)


@pytest.mark.parametrize("shared_head", [False, True])
def test_a_batch_that_mixes_tasks_equals_one_pass_a_task(shared_head):
    tasks = THREE
    if shared_head:
        tasks = (Task(0, "freeway", 18, (0, 2, 5)), Task(1, "alien", 18))
    net = plain(tasks=tasks, shared_head=shared_head)
    x, route = pixels(8), torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
    mixed = net(x, route)
    for k in (0, 1):
        rows = route == k
        alone = net(x[rows], route[rows])
        torch.testing.assert_close(mixed.logits[rows], alone.logits)
        torch.testing.assert_close(mixed.value[rows], alone.value)


def test_outputs_a_task_lacks_are_masked_and_never_sampled():
    net = plain()
    logits = net(pixels(4), torch.tensor([0, 0, 1, 2])).logits
    assert logits.shape == (4, 18)
    assert (logits[:2, 3:] == MASKED).all()
    assert (logits[2, 4:] == MASKED).all()
    assert (logits != MASKED).sum(1).tolist() == [3, 3, 4, 18]
    probability = logits.softmax(-1)
    assert (probability[0, 3:] == 0).all()
    assert (probability * logits.log_softmax(-1)).isfinite().all()


def test_a_shared_head_masks_what_is_not_legal_in_a_game():
    tasks = (Task(0, "freeway", 18, (0, 2, 5)), Task(1, "alien", 18))
    net = plain(tasks=tasks, shared_head=True)
    assert len(net.heads.policy) == 1
    logits = net(pixels(2), torch.tensor([0, 1])).logits
    assert (logits[0] != MASKED).nonzero().flatten().tolist() == [0, 2, 5]
    assert (logits[1] != MASKED).all()


def test_shared_parameters_are_the_trunk_and_a_shared_head():
    assert all(n.startswith("trunk.") for n in plain().shared_parameters())
    two = (Task(0, "a", 18), Task(1, "b", 18))
    names = set(plain(tasks=two, shared_head=True).shared_parameters())
    assert {"trunk.0.weight", "heads.policy.0.weight", "heads.value.0.bias"} <= names


def test_gradients_reach_only_the_head_of_the_task():
    net = plain()
    output = net(pixels(2), torch.tensor([1, 1]))
    (output.logits[:, :4].sum() + output.value.sum()).backward()
    assert net.heads.policy[0].weight.grad is None
    assert net.heads.policy[1].weight.grad is not None


@pytest.mark.parametrize("chain", [(Conv(8, 8, 4), Conv(8, 30)), (Linear(3), Conv(2, 2))])
def test_a_body_that_does_not_fit_is_refused_with_its_layer(chain):
    with pytest.raises(ClrlError, match=r"layer 2 of the body") as caught:
        PlainNet(NetSpec((4, 84, 84), chain, THREE))
    assert caught.value.exit_code == 2
