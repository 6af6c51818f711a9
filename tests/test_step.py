"""gradient_step: the one place where an optimizer steps."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clrl.method import Method
from clrl.step import NonFiniteGradientError, gradient_step
from clrl.types import Batch, Linear, NetSpec, Task


@dataclass
class Labelled(Batch):
    label: Tensor


def made(method: Method | None = None) -> tuple[Method, Labelled]:
    torch.manual_seed(3)
    tasks = (Task(0, "a", 4), Task(1, "b", 2))
    method = method or Method()
    method.build(NetSpec((6,), (Linear(8),), tasks, logits_gain=1.0))
    x = torch.randn(32, 6)
    label = torch.randint(0, 4, (32,))
    return method, Labelled(x, torch.zeros(32, dtype=torch.long), torch.zeros(32), label)


def cross_entropy(method: Method) -> object:
    return lambda batch: F.cross_entropy(method.net(batch.x, batch.route).logits, batch.label)


@pytest.mark.parametrize(
    "optimizer_of",
    [
        lambda p: torch.optim.Adam(p, 1e-2),
        lambda p: torch.optim.SGD(p, 1e-1, momentum=0.9),
        lambda p: torch.optim.RMSprop(p, 1e-3),
    ],
)
def test_fine_tuning_through_the_hooks_equals_a_bare_torch_loop_bit_for_bit(optimizer_of):
    method, batch = made()
    bare = copy.deepcopy(method.net)
    optimizer, bare_optimizer = optimizer_of(method.trainable()), optimizer_of(bare.parameters())
    for _ in range(20):
        gradient_step(method, optimizer, batch, cross_entropy(method), max_norm=0.05)
        bare_optimizer.zero_grad()
        F.cross_entropy(bare(batch.x, batch.route).logits, batch.label).backward()
        nn.utils.clip_grad_norm_(bare.parameters(), 0.05)
        bare_optimizer.step()
    for ours, theirs in zip(method.net.parameters(), bare.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_hooks_come_in_order_and_gradients_are_edited_before_they_are_clipped():
    seen: list[tuple[str, float]] = []

    class Spy(Method):
        def weight(self) -> nn.Parameter:
            return self.net.body_parameters()["trunk.0.weight"]

        def loss(self, batch, loss_fn):
            seen.append(("loss", float(self.weight().detach().sum())))
            return self.weight().sum() * 0.0

        def edit_gradients(self, loss_fn):
            assert self.weight().grad is not None
            self.weight().grad.mul_(1e6)  # type: ignore[union-attr]
            seen.append(("edit_gradients", float(self.weight().detach().sum())))

        def after_step(self, step_size):
            assert step_size == 1.0  # the optimizer's
            seen.append(("after_step", float(self.weight().detach().sum())))

    method, batch = made(Spy())
    optimizer = torch.optim.SGD(method.trainable(), 1.0)
    before = {n: p.detach().clone() for n, p in method.net.named_parameters()}
    _, norm = gradient_step(method, optimizer, batch, cross_entropy(method), max_norm=0.5)
    assert [name for name, _ in seen] == ["loss", "edit_gradients", "after_step"]
    assert seen[0][1] == seen[1][1] != seen[2][1]
    assert norm > 1e3  # measured after the edit
    moved = [(p.detach() - before[n]).flatten() for n, p in method.net.named_parameters()]
    assert float(torch.cat(moved).norm()) == pytest.approx(0.5, rel=1e-4)  # and clipped after it


def test_the_methods_loss_has_the_learners_autocast_and_the_rest_has_none():
    seen = []

    class Spy(Method):
        def loss(self, batch, loss_fn):
            seen.append(torch.is_autocast_enabled("cpu"))
            return 0.0

        def edit_gradients(self, loss_fn):
            seen.append(torch.is_autocast_enabled("cpu"))

    method, batch = made(Spy())
    optimizer = torch.optim.SGD(method.trainable(), 0.1)
    gradient_step(
        method,
        optimizer,
        batch,
        cross_entropy(method),
        max_norm=math.inf,
        autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    )
    assert seen == [True, False]


def test_the_methods_loss_is_added_to_the_learners():
    class Pull(Method):
        def loss(self, batch, loss_fn):
            return 3.0 * sum(p.sum() for p in self.net.body_parameters().values())

    method, batch = made(Pull())
    plain = copy.deepcopy(method.net)
    F.cross_entropy(plain(batch.x, batch.route).logits, batch.label).backward()
    optimizer = torch.optim.SGD(method.trainable(), 0.0)
    loss, _ = gradient_step(method, optimizer, batch, cross_entropy(method), max_norm=math.inf)
    for name, p in method.net.named_parameters():
        theirs = dict(plain.named_parameters())[name].grad
        extra = 3.0 if name.startswith("trunk") else 0.0
        assert p.grad is None if theirs is None else torch.allclose(p.grad, theirs + extra)
    own = F.cross_entropy(plain(batch.x, batch.route).logits, batch.label)
    assert torch.equal(loss, own.detach())  # what is reported is the learner's own


def test_a_gradient_that_is_not_finite_touches_no_weight():
    method, batch = made()
    batch.x[0, 0] = torch.nan
    optimizer = torch.optim.Adam(method.trainable())
    before = copy.deepcopy(method.net.state_dict())
    with pytest.raises(NonFiniteGradientError, match="nan"):
        gradient_step(method, optimizer, batch, cross_entropy(method), max_norm=0.5)
    for name, value in method.net.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_gradient_laid_out_otherwise_moves_the_right_weights() -> None:
    # torch's fused Adam walks weights and gradients in memory's order
    weight = torch.nn.Parameter(torch.zeros(4, 3, 2, 2))
    gradient = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))

    class Putting(Method):
        def edit_gradients(self, loss_fn: object) -> None:
            weight.grad = gradient.clone(memory_format=torch.channels_last)

    optimizer = torch.optim.Adam([weight], lr=0.1, fused=True)
    batch = Batch(torch.zeros(1), torch.zeros(1), torch.zeros(1))
    gradient_step(Putting(), optimizer, batch, lambda _: weight.sum(), torch.inf)
    assert torch.equal(weight.detach().sign(), -gradient.sign())
