"""Elastic weight consolidation: the folded quadratic, what it protects, what it refuses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch

from clrl.methods.ewc import EWC
from clrl.methods.penalty import Quadratic
from clrl.step import gradient_step
from clrl.types import Batch, ClrlError, Linear, NetSpec, Task

TASKS = (Task(0, "a", 3), Task(1, "b", 2))


def built(shared_head: bool = False, **settings: object) -> EWC:
    torch.manual_seed(0)
    method = EWC(**settings)
    tasks = TASKS if not shared_head else (Task(0, "a", 3, (0, 1)), Task(1, "b", 3))
    method.build(NetSpec((6,), (Linear(8),), tasks, shared_head=shared_head, logits_gain=1.0))
    return method


def batches(task: Task, size: int = 40, seed: int = 0) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    for _ in itertools.count():
        x = torch.randn(size, 6, generator=generator)
        yield Batch(x, torch.full((size,), task.id), torch.zeros(size))


def test_ten_folded_anchors_equal_ten_separate_penalties_in_value_and_gradient():
    generator = torch.Generator().manual_seed(0)
    folded, separate = Quadratic(), []
    for _ in range(10):
        w = {"w": torch.rand(50, generator=generator) * (torch.rand(50, generator=generator) > 0.3)}
        a = {"w": torch.randn(50, generator=generator)}
        folded.add(w, a)
        separate.append((w["w"].double(), a["w"].double()))
    theta = torch.randn(50, generator=generator, requires_grad=True)
    value = folded.value({"w": theta})
    value.backward()
    there = theta.detach().double().requires_grad_()
    expected = sum((w * (there - a).square()).sum() for w, a in separate)
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(theta.grad.double(), there.grad, atol=1e-5, rtol=1e-5)


def test_the_state_does_not_grow_with_the_number_of_tasks():
    method = built()
    sizes = set()
    for _ in range(5):
        method.end_task(TASKS[0], batches(TASKS[0]))
        state = method.state_dict()["penalty"]
        sizes.add(sum(v.numel() for part in ("weight", "anchor") for v in state[part].values()))
    protected = sum(p.numel() for p in method.net.shared_parameters().values())
    assert sizes == {2 * protected}


def protecting(**settings: object) -> EWC:
    """Return a method that protects a task and whose weights have moved since."""
    method = built(**settings)
    method.end_task(TASKS[0], batches(TASKS[0]))
    with torch.no_grad():
        for p in method.net.parameters():
            p += 0.1
    return method


def written(method: EWC) -> torch.Tensor:
    """Return the penalty as the paper writes it."""
    fisher, anchor = method.penalty.weight, method.penalty.anchor
    theta = method.net.shared_parameters()
    terms = [(f * (theta[n] - anchor[n]) ** 2).sum() for n, f in fisher.items()]
    return method.strength / 2 * torch.stack(terms).sum()


def test_the_penalty_is_half_the_strength_times_the_weighted_square_distance():
    assert built(strength=7.0).records() == {}
    method = protecting(strength=7.0, normalise=False)
    expected = 0.5 * 7.0 * sum(float(f.sum()) for f in method.penalty.weight.values()) * 0.01
    assert method.records() == {"penalty": pytest.approx(expected, rel=1e-4)}


def test_the_gradient_added_is_what_autograd_gives_for_the_written_penalty():
    method = protecting(strength=7.0)
    theta = method.net.shared_parameters()
    names = list(theta)
    expected = dict(zip(names, torch.autograd.grad(written(method), theta.values()), strict=True))
    theta[names[0]].grad = torch.ones_like(theta[names[0]])  # names[1] has none: it gets its own
    method.edit_gradients(lambda batch: batch.x.sum())
    assert expected[names[1]].any()
    torch.testing.assert_close(theta[names[0]].grad, 1 + expected[names[0]])
    torch.testing.assert_close(theta[names[1]].grad, expected[names[1]])
    assert all(p.grad is None for n, p in method.net.named_parameters() if n not in theta)


def test_a_frozen_parameter_gets_no_gradient():
    method = protecting()
    frozen = method.net.get_parameter("trunk.0.weight").requires_grad_(False)
    method.edit_gradients(lambda batch: batch.x.sum())
    assert frozen.grad is None


@pytest.mark.parametrize("max_norm", [0.5, float("inf")])
def test_a_step_is_one_on_the_loss_with_the_penalty_in_it(max_norm):
    def loss_of(method: EWC) -> Callable[[Batch], torch.Tensor]:
        return lambda batch: method.net(batch.x, batch.route).logits.square().sum()

    ours, plain = protecting(strength=7.0), protecting(strength=7.0)
    batch = next(batches(TASKS[1]))
    optimizers = [torch.optim.SGD(m.net.parameters(), lr=0.1) for m in (ours, plain)]
    gradient_step(ours, optimizers[0], batch, loss_of(ours), max_norm)
    (loss_of(plain)(batch) + written(plain)).backward()
    torch.nn.utils.clip_grad_norm_(plain.net.parameters(), max_norm)
    optimizers[1].step()
    for p, q in zip(ours.net.parameters(), plain.net.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_normalised_importances_have_mean_one_over_the_protected_weights():
    method = built()
    method.end_task(TASKS[0], batches(TASKS[0]))
    values = torch.cat([f.flatten() for f in method.penalty.weight.values()])
    assert float(values.mean()) == pytest.approx(1.0, rel=1e-5)
    assert (values >= 0).all()


def test_heads_of_their_own_are_free_and_a_shared_one_is_protected():
    method = built()
    method.end_task(TASKS[0], batches(TASKS[0]))
    assert set(method.penalty.weight) == set(method.net.body_parameters())
    method = built(shared_head=True)
    method.end_task(TASKS[0], batches(TASKS[0]))
    assert method.penalty.weight["heads.policy.0.weight"].any()
    assert not method.penalty.weight["heads.value.0.weight"].any()  # the policy's Fisher only


def test_states_are_drawn_from_as_many_batches_as_asked():
    method = built(n_states=30, n_batches=5)
    drawn = []

    def counted() -> Iterator[Batch]:
        for batch in batches(TASKS[0]):
            drawn.append(batch)
            yield batch

    x, _ = method._states(counted())
    assert len(drawn) == 5
    assert x.shape == (30, 6)
    assert len(torch.unique(x, dim=0)) == 30


def test_strength_zero_draws_no_data_and_adds_nothing():
    method = built(strength=0.0)

    def never() -> Iterator[Batch]:
        raise AssertionError("data was drawn")
        yield

    method.end_task(TASKS[0], never())
    method.edit_gradients(lambda batch: batch.x.sum())
    assert all(p.grad is None for p in method.net.parameters())
    method = protecting()
    method.strength = 0.0
    method.edit_gradients(lambda batch: batch.x.sum())
    assert all(p.grad is None for p in method.net.parameters())
    assert method.records() == {}


def test_a_fisher_that_is_not_finite_is_refused_before_it_is_stored():
    method = built()
    method.end_task(TASKS[0], batches(TASKS[0]))
    before = {k: v.clone() for k, v in method.penalty.weight.items()}
    with torch.no_grad():
        method.net.get_parameter("trunk.0.weight")[0, 0] = torch.nan
    with pytest.raises(ClrlError, match="not finite"):
        method.end_task(TASKS[1], batches(TASKS[1]))
    for name, value in method.penalty.weight.items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("settings", [{"strength": -1.0}, {"n_batches": 0}, {"n_batches": 600}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        EWC(**settings)
