"""Many quadratics folded into one, its gradient, and its proximal step."""

from __future__ import annotations

import pytest
import torch

from clrl.methods.quadratic import Quadratic


def random_term(generator: torch.Generator, size: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights, a third of them zero, and anchors."""
    w = torch.rand(size, generator=generator)
    return w * (torch.rand(size, generator=generator) > 0.3), torch.randn(size, generator=generator)


def test_ten_folded_anchors_equal_ten_separate_penalties_in_value_and_gradient():
    generator = torch.Generator().manual_seed(0)
    folded, separate = Quadratic(), []
    for _ in range(10):
        w, a = random_term(generator)
        folded.add({"w": w}, {"w": a})
        separate.append((w.double(), a.double()))
    theta = torch.randn(50, generator=generator, requires_grad=True)
    folded.add_gradient({"w": theta}, 1.0)
    there = theta.detach().double().requires_grad_()
    expected = sum((w * (there - a).square()).sum() for w, a in separate)
    expected.backward()
    assert folded.value({"w": theta}) == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(theta.grad.double(), there.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 0.3, 20.0])
def test_the_proximal_step_is_the_minimum_of_the_penalty_and_the_distance(scale):
    # scale * sum w (x - a)^2 + 1/2 |x - theta|^2, minimised by Newton's method in double: one step
    generator = torch.Generator().manual_seed(0)
    (w, a), theta = random_term(generator), torch.randn(50, generator=generator)
    quadratic = Quadratic()
    quadratic.add({"w": w}, {"w": a})
    x = theta.double().requires_grad_()
    objective = scale * (w * (x - a).square()).sum() + 0.5 * (x - theta).square().sum()
    (slope,) = torch.autograd.grad(objective, x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)  # diagonal: entries do not meet
    expected = (x - slope / curvature).detach()
    moved = theta.clone().requires_grad_()
    quadratic.pull({"w": moved}, scale)
    torch.testing.assert_close(moved.detach().double(), expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(moved.detach()[w == 0], theta[w == 0])


def test_the_proximal_step_follows_the_scale_and_what_was_folded_in_since():
    def moved(quadratic: Quadratic, scale: float) -> float:
        theta = torch.ones(1, requires_grad=True)
        quadratic.pull({"w": theta}, scale)
        return theta.item()

    quadratic = Quadratic()
    one, zero = {"w": torch.ones(1)}, {"w": torch.zeros(1)}
    quadratic.add(one, zero)
    assert moved(quadratic, 0.5) == pytest.approx(1 / 2)  # 1 / (1 + 2 * 0.5 * 1)
    assert moved(quadratic, 1.0) == pytest.approx(1 / 3)
    assert moved(quadratic, 0.0) == 1.0
    quadratic.add(one, zero)
    assert moved(quadratic, 1.0) == pytest.approx(1 / 5)
    quadratic.recentre(one, zero, 0.5)  # weight (2 + 1) / 2
    assert moved(quadratic, 1.0) == pytest.approx(1 / 4)
    quadratic.load_state_dict({"weight": one, "anchor": zero, "constant": 0.0}, torch.device("cpu"))
    assert moved(quadratic, 1.0) == pytest.approx(1 / 3)


def test_the_proximal_step_goes_to_the_anchor_and_not_beyond_at_any_strength():
    generator = torch.Generator().manual_seed(0)
    (w, a), theta = random_term(generator), torch.randn(50, generator=generator)
    quadratic = Quadratic()
    quadratic.add({"w": w}, {"w": a})
    moved = theta.clone().requires_grad_()
    for _ in range(100):
        quadratic.pull({"w": moved}, 1e6)
    torch.testing.assert_close(moved.detach()[w > 0], a[w > 0])
    assert torch.equal(moved.detach()[w == 0], theta[w == 0])


def test_recentring_keeps_all_weight_and_one_anchor():
    quadratic = Quadratic()
    quadratic.add({"w": torch.tensor([2.0])}, {"w": torch.tensor([5.0])})
    quadratic.recentre({"w": torch.tensor([4.0])}, {"w": torch.tensor([1.0])}, 0.5)
    assert quadratic.value({"w": torch.tensor([3.0])}) == 0.5 * (2.0 + 4.0) * 2.0**2


def test_what_needs_no_gradient_is_neither_moved_nor_given_one():
    quadratic = Quadratic()
    quadratic.add({"w": torch.ones(2)}, {"w": torch.zeros(2)})
    frozen = torch.ones(2)
    quadratic.add_gradient({"w": frozen}, 1.0)
    quadratic.pull({"w": frozen}, 1.0)
    assert frozen.grad is None
    assert torch.equal(frozen, torch.ones(2))
