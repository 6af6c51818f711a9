"""Sums over per-sample gradients against closed forms and naive loops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clrl.methods.fisher import exact_fisher, fisher_at, mean_over_samples
from clrl.nets.plain import PlainNet
from clrl.types import Conv, LayerSpec, Linear, MaxPool, NetSpec, Output, Task

Scalar = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]


def net_of(shape: tuple[int, ...], body: tuple[LayerSpec, ...], *outputs: int) -> PlainNet:
    torch.manual_seed(1)
    tasks = tuple(Task(k, str(k), n) for k, n in enumerate(outputs))
    return PlainNet(NetSpec(shape, body, tasks, logits_gain=1.0))


def naive(net: PlainNet, x: torch.Tensor, route: torch.Tensor) -> dict[str, torch.Tensor]:
    """Square one sample's and one output's gradient at a time."""
    total = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for i in range(len(x)):
        width = net.spec.tasks[int(route[i])].n_outputs
        for y in range(width):
            net.zero_grad()
            log_p = net(x[i : i + 1], route[i : i + 1]).logits[0, :width].log_softmax(-1)[y]
            log_p.backward()
            for name, p in net.named_parameters():
                if p.grad is not None:
                    total[name] += log_p.detach().exp() * p.grad.square() / len(x)
    return total


def test_it_is_the_closed_form_of_a_linear_softmax():
    # log p_y = z_y - logsumexp z, z = W x + b, so d log p_y / d W_kj = (1[y = k] - p_k) x_j and
    # E_y of its square is p_k (1 - p_k) x_j^2.
    net = net_of((5,), (), 3)
    x = torch.randn(7, 5)
    p = net(x, torch.zeros(7, dtype=torch.long)).logits.softmax(-1).detach()
    spread = p * (1 - p)
    fisher = exact_fisher(net, x, torch.zeros(7, dtype=torch.long))
    torch.testing.assert_close(fisher["heads.policy.0.weight"], spread.T @ x.square() / 7)
    torch.testing.assert_close(fisher["heads.policy.0.bias"], spread.mean(0))


def test_two_samples_with_opposite_gradients_do_not_cancel():
    net = net_of((2,), (), 2)
    with torch.no_grad():
        net.heads.policy[0].weight.zero_()
    x = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])  # p = 1/2 for both, so F = x^2 / 4
    fisher = exact_fisher(net, x, torch.zeros(2, dtype=torch.long))["heads.policy.0.weight"]
    torch.testing.assert_close(fisher, torch.tensor([[0.25, 1.0], [0.25, 1.0]]))


CASES = {
    "linear": ((6,), (Linear(9), Linear(7)), (4, 2)),
    "convolutional": ((2, 12, 12), (Conv(3, 4, 2), Conv(4, (2, 3)), Linear(8)), (3, 5)),
    "strides that leave pixels over": (
        (2, 13, 12),
        (Conv(3, 3), Conv(4, 3, 2), Conv(2, 2, 3)),
        (3,),
    ),
    "convolutional without a linear layer": ((1, 6, 6), (Conv(2, 3),), (2,)),
    "padding and strides": ((2, 9, 8), (Conv(3, 3, 2, 1), Conv(4, 4, 3, 2), Linear(5)), (3,)),
    "padding and pools": (
        (2, 9, 8),
        (
            *(Conv(3, 3, padding=1), Conv(3, 3, padding=1), MaxPool(2)),
            *(Conv(4, 3, padding=1), MaxPool(2), Linear(5)),
        ),
        (3, 2),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_equals_one_backward_pass_per_sample_and_output(case):
    shape, body, outputs = CASES[case]
    net = net_of(shape, body, *outputs)
    x = torch.randn(10, *shape)
    route = torch.arange(10) % len(outputs)
    expected = naive(net, x, route)
    for name, f in exact_fisher(net, x, route, chunk=3).items():
        torch.testing.assert_close(f, expected[name], atol=1e-7, rtol=1e-4)
    assert expected["trunk.0.weight"].abs().sum() > 0


def test_it_equals_the_naive_loop_on_pictures_and_the_nature_body():
    nature = (Conv(32, 8, 4), Conv(64, 4, 2), Conv(64, 3), Linear(512))
    net = net_of((4, 84, 84), nature, 18)
    x = torch.randint(0, 256, (3, 4, 84, 84), dtype=torch.uint8)
    route = torch.zeros(3, dtype=torch.long)
    expected = naive(net, x, route)
    for name, f in exact_fisher(net, x, route, chunk=2).items():
        torch.testing.assert_close(f, expected[name], atol=1e-7, rtol=1e-4)


def test_under_a_shared_head_the_outputs_a_task_lacks_add_nothing():
    torch.manual_seed(1)
    tasks = (Task(0, "a", 5, (0, 2, 3)), Task(1, "b", 5, (1, 2)))
    net = PlainNet(NetSpec((6,), (Linear(9),), tasks, shared_head=True, logits_gain=1.0))
    x, route = torch.randn(8, 6), torch.arange(8) % 2
    fisher = exact_fisher(net, x, route)
    for name, expected in naive(net, x, route).items():
        torch.testing.assert_close(fisher[name], expected, atol=1e-7, rtol=1e-4)
    assert not fisher["heads.policy.0.weight"][4].any()
    assert fisher["heads.policy.0.weight"][:4].any(1).all()


def test_a_layer_used_twice_is_refused():
    class Twice(PlainNet):
        def forward(self, x: torch.Tensor, route: torch.Tensor) -> Output:
            return self.heads(self.trunk(self.trunk(x)), route)

    net = Twice(NetSpec((6,), (Linear(6),), (Task(0, "a", 2),)))
    with pytest.raises(ValueError, match=r"trunk\.0 is used twice"):
        exact_fisher(net, torch.randn(3, 6), torch.zeros(3, dtype=torch.long))
    assert not any(module._forward_hooks for module in net.modules())


def test_it_leaves_the_net_as_it_was_and_works_on_frozen_layers():
    net = net_of((6,), (Linear(9),), 4)
    x, route = torch.randn(5, 6), torch.zeros(5, dtype=torch.long)
    free = exact_fisher(net, x, route)
    for p in net.body_parameters().values():
        p.requires_grad_(False)
    frozen = exact_fisher(net, x, route)
    torch.testing.assert_close(frozen, free)
    assert not any(p.requires_grad for p in net.body_parameters().values())
    assert all(p.grad is None for p in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


def test_the_value_head_has_none():
    net = net_of((6,), (Linear(9),), 4)
    fisher = exact_fisher(net, torch.randn(5, 6), torch.zeros(5, dtype=torch.long))
    assert not fisher["heads.value.0.weight"].any()


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.LayerNorm(6),
        torch.nn.Conv2d(1, 1, 3, dilation=2),
        torch.nn.Conv2d(1, 1, 3, padding="same"),
        torch.nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"),
    ],
    ids=["norm", "dilated", "padded as needed", "padded with itself"],
)
def test_a_layer_without_a_formula_is_refused_and_not_left_at_zero(layer: torch.nn.Module):
    net = PlainNet(NetSpec((6,), (Linear(6),), (Task(0, "a", 2),)))
    net.trunk.append(layer)
    with pytest.raises(ValueError, match=r"trunk\.2.*no formula"):
        exact_fisher(net, torch.zeros(1, 6), torch.zeros(1, dtype=torch.long))


def one_at_a_time(net: PlainNet, x: torch.Tensor, scalar: Scalar) -> dict[str, torch.Tensor]:
    """Return every sample's gradient of a scalar of its logits and value, stacked."""
    each: dict[str, list[torch.Tensor]] = {name: [] for name, _ in net.named_parameters()}
    for i in range(len(x)):
        net.zero_grad()
        logits, value = net(x[[i]], torch.zeros(1, dtype=torch.long))
        scalar(i, logits[0], value[0]).backward()
        for name, p in net.named_parameters():
            each[name].append(torch.zeros_like(p) if p.grad is None else p.grad.clone())
    return {name: torch.stack(g) for name, g in each.items()}


@pytest.mark.parametrize("case", CASES)
def test_absolute_gradients_in_any_direction_equal_a_loop_over_samples(case):
    shape, body, outputs = CASES[case]
    net = net_of(shape, body, outputs[0])
    x, route = torch.randn(7, *shape), torch.zeros(7, dtype=torch.long)
    at_logits, at_value = torch.randn(7, outputs[0]), torch.randn(7)
    each = one_at_a_time(net, x, lambda i, z, v: at_logits[i] @ z + at_value[i] * v)
    found = mean_over_samples(
        net,
        x,
        route,
        lambda output, rows: (at_logits[None, rows], at_value[None, rows]),
        power=1,
        chunk=3,
    )
    for name, g in each.items():
        torch.testing.assert_close(found[name], g.abs().mean(0), atol=1e-7, rtol=1e-4)
    assert found["heads.value.0.weight"].any()


@pytest.mark.parametrize("case", ["linear", "padding and pools"])
def test_the_value_adds_the_square_of_its_own_gradient(case):
    shape, body, outputs = CASES[case]
    net = net_of(shape, body, outputs[0])
    x, route = torch.randn(7, *shape), torch.zeros(7, dtype=torch.long)
    y = torch.arange(7) % outputs[0]
    values = one_at_a_time(net, x, lambda i, z, v: v)
    at_y = one_at_a_time(net, x, lambda i, z, v: z.log_softmax(-1)[y[i]])
    exact, expected = exact_fisher(net, x, route, value=True, chunk=3), naive(net, x, route)
    at_targets = fisher_at(net, x, route, y, value=True, chunk=3)
    for name, g in values.items():
        both = expected[name] + g.square().mean(0)
        torch.testing.assert_close(exact[name], both, atol=1e-7, rtol=1e-4)
        both = at_y[name].square().mean(0) + g.square().mean(0)
        torch.testing.assert_close(at_targets[name], both, atol=1e-7, rtol=1e-4)
