"""Synaptic intelligence: its path integral against sums worked by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch

from clrl.methods.si import SI
from clrl.step import gradient_step
from clrl.types import Batch, NetSpec, Task

TASK, OTHER = Task(0, "a", 2), Task(1, "b", 2)
ONE = Batch(torch.zeros(1, 1), torch.zeros(1, dtype=torch.long), torch.zeros(1))


def built(at: float = 1.0, **settings: object) -> SI:
    """Return SI on a net of which one bias, `theta`, matters."""
    method = SI(**settings)
    method.build(NetSpec((1,), (), (TASK, OTHER), shared_head=True, has_value=False))
    with torch.no_grad():
        theta(method).fill_(at)
    return method


def theta(method: SI) -> torch.Tensor:
    return method.net.get_parameter("heads.policy.0.bias")


def quadratic(method: SI, curvature: float, centre: float) -> Callable[[Batch], torch.Tensor]:
    """1/2 curvature (theta_0 - centre)^2, whose gradient is curvature (theta_0 - centre)."""
    return lambda batch: 0.5 * curvature * (theta(method)[0] - centre) ** 2


def steps(method: SI, n: int, loss: Callable[[Batch], torch.Tensor], **settings: float) -> None:
    optimizer = torch.optim.SGD(method.trainable(), lr=settings.get("lr", 0.1))
    for _ in range(n):
        gradient_step(method, optimizer, ONE, loss, settings.get("max_norm", float("inf")))


def nothing() -> Iterator[Batch]:
    raise AssertionError("data was drawn")
    yield


def importance(method: SI) -> list[float]:
    weight: torch.Tensor = method.penalty.weight["heads.policy.0.bias"]
    return weight.tolist()


def test_it_is_the_example_worked_by_hand():
    # theta: 1 -> 0.8 -> 0.64 with gradients 2 theta = 2, 1.6 and lr 0.1:
    # w = 2 * 0.2 + 1.6 * 0.16 = 0.656; Delta = -0.36; Omega = 0.656 / (0.1296 + 0.1)
    method = built(at=1.0)
    method.begin_task(TASK)
    steps(method, 2, quadratic(method, 2.0, 0.0))
    method.end_task(TASK, nothing())
    assert theta(method)[0].item() == pytest.approx(0.64)
    assert importance(method) == [pytest.approx(0.656 / 0.2296), 0.0]
    assert not method.penalty.weight["heads.policy.0.weight"].any()


def test_the_path_integral_is_what_the_loss_lost_to_first_order_in_the_step_size():
    # with curvature a and step size r, L falls by the path integral times 1 - a r / 2 exactly
    method = built(at=1.0)
    method.begin_task(TASK)
    loss = quadratic(method, 1.5, 0.2)
    before = loss(ONE).item()
    steps(method, 40, loss, lr=0.01)
    fallen = before - loss(ONE).item()
    assert fallen == pytest.approx((1 - 1.5 * 0.01 / 2) * method._path["heads.policy.0.bias"][0])


def test_it_integrates_the_tasks_gradient_unclipped_and_without_the_penalty_along_the_real_path():
    # a first visit leaves weight and anchor; then one step at theta = 2 with gradient 3 * 2 = 6
    method = built(at=1.0, strength=2.0)
    method.begin_task(TASK)
    steps(method, 3, quadratic(method, 2.0, 0.0))
    method.end_task(TASK, nothing())
    with torch.no_grad():
        theta(method)[0] = 2.0
    method.begin_task(OTHER)
    steps(method, 1, quadratic(method, 3.0, 0.0), max_norm=0.5)
    moved = theta(method)[0].item() - 2.0
    assert moved == pytest.approx(-0.1 * 0.5)  # the norm of all, penalty and loss, is 0.5
    assert method._path["heads.policy.0.bias"][0].item() == pytest.approx(6.0 * 0.05)


def test_decoupled_the_path_ends_where_the_proximal_step_does():
    method = built(at=1.0, strength=2.0, form="decoupled")
    method.begin_task(TASK)
    steps(method, 3, quadratic(method, 2.0, 0.0))
    method.end_task(TASK, nothing())
    with torch.no_grad():
        theta(method)[0] = 2.0
    method.begin_task(OTHER)
    steps(method, 1, quadratic(method, 3.0, 0.0))
    # w = 2 * 0.2 + 1.6 * 0.16 + 1.28 * 0.128 = 0.81984, Delta = 0.512 - 1; the optimizer goes from
    # 2 to 1.4, the proximal step with s = 2 * strength * learning rate from there towards 0.512
    sw = 2 * 2.0 * 0.1 * 0.81984 / (0.488**2 + 0.1)
    moved = theta(method)[0].item() - 2.0
    assert moved == pytest.approx((1.4 + sw * 0.512) / (1 + sw) - 2.0)
    assert method._path["heads.policy.0.bias"][0].item() == pytest.approx(-6.0 * moved)


def test_movement_that_raised_the_loss_counts_as_none():
    method = built(at=1.0)
    method.begin_task(TASK)
    uphill = torch.optim.SGD(method.trainable(), lr=0.1, maximize=True)
    gradient_step(method, uphill, ONE, quadratic(method, 2.0, 0.0), float("inf"))
    assert method._path["heads.policy.0.bias"][0] < 0
    method.end_task(TASK, nothing())
    assert importance(method) == [0.0, 0.0]


def test_importance_adds_up_over_visits_and_each_path_begins_anew():
    method = built(at=1.0, strength=1e-9)
    for _ in range(2):
        with torch.no_grad():
            theta(method)[0] = 1.0
        method.begin_task(TASK)
        steps(method, 2, quadratic(method, 2.0, 0.0))
        method.end_task(TASK, nothing())
    assert importance(method)[0] == pytest.approx(2 * 0.656 / 0.2296)


def test_a_visit_resumed_in_the_middle_ends_as_if_never_stopped():
    whole, resumed = built(at=1.0), built(at=1.0)
    whole.begin_task(TASK)
    steps(whole, 1, quadratic(whole, 2.0, 0.0))
    resumed.begin_task(TASK)
    resumed.net.load_state_dict(whole.net.state_dict())
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for method in (whole, resumed):
        steps(method, 1, quadratic(method, 2.0, 0.0))
        method.end_task(TASK, nothing())
    assert importance(resumed) == importance(whole)
    assert importance(whole)[0] == pytest.approx(0.656 / 0.2296)


def test_a_state_without_a_path_begins_one():
    off = built(strength=0.0)
    off.begin_task(TASK)
    method = built()
    method.begin_task(TASK)
    method.load_state_dict(off.state_dict())
    assert set(method._path) == set(method.protected)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="xi is 0"):
        SI(xi=0)
