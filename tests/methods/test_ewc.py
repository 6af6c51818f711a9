"""Elastic weight consolidation: the Fisher estimators it has a choice of."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from clrl.methods.ewc import EWC
from clrl.methods.fisher import exact_fisher
from clrl.types import Batch, Linear, NetSpec, Task

TASK = Task(0, "a", 3)
ESTIMATORS = ["exact", "sample", "empirical", "batched"]


@dataclass
class Labelled(Batch):
    label: torch.Tensor

    @property
    def target(self) -> torch.Tensor:
        return self.label


def built(*body: Linear, **settings: object) -> EWC:
    torch.manual_seed(0)
    method = EWC(normalise=False, **settings)
    method.build(NetSpec((6,), body, (TASK,), shared_head=True, logits_gain=1.0))
    return method


def batches(size: int = 64) -> Iterator[Labelled]:
    generator = torch.Generator().manual_seed(0)
    for _ in itertools.count():
        x = torch.randn(size, 6, generator=generator)
        label = torch.randint(0, 3, (size,), generator=generator)
        yield Labelled(x, torch.zeros(size, dtype=torch.long), torch.zeros(size), label)


def gradients(method: EWC, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the gradient of the mean log-likelihood of y."""
    method.net.zero_grad()
    logits = method.net(x, torch.zeros(len(x), dtype=torch.long)).logits
    (-torch.nn.functional.cross_entropy(logits, y)).backward()
    return {n: p.grad.clone() for n, p in method.protected.items()}


def test_empirical_is_the_mean_of_squares_of_each_samples_gradient_at_its_target():
    method = built(Linear(7), estimator="empirical", n_samples=20, n_batches=1)
    sample = method.draw(batches())
    found = method.importance(batches())
    each = [gradients(method, sample.x[[i]], sample.label[[i]]) for i in range(20)]
    for name in method.protected:
        expected = sum(g[name].square() for g in each) / 20
        torch.testing.assert_close(found[name], expected, atol=1e-8, rtol=1e-4)


def test_batched_is_the_mean_of_squares_of_batch_gradients():
    method = built(Linear(7), estimator="batched", batch_size=8, n_samples=24, n_batches=1)
    sample = method.draw(batches())
    found = method.importance(batches())
    each = [
        gradients(method, x, y)
        for x, y in zip(sample.x.split(8), sample.label.split(8), strict=True)
    ]
    for name in method.protected:
        expected = sum(g[name].square() for g in each) / 3
        torch.testing.assert_close(found[name], expected, atol=1e-8, rtol=1e-4)


@pytest.mark.parametrize(("estimator", "cancels"), [(e, e == "batched") for e in ESTIMATORS])
def test_two_samples_with_opposite_gradients_cancel_in_the_batched_one_only(estimator, cancels):
    # a linear softmax with p = 1/2 each: x and -x of one class have gradients (1 - 1/2) (+-x)
    method = EWC(normalise=False, estimator=estimator, n_samples=2, n_batches=1)
    method.build(NetSpec((2,), (), (Task(0, "a", 2),), shared_head=True))
    with torch.no_grad():
        for p in method.net.parameters():
            p.zero_()
    x, zeros = torch.tensor([[1.0, 2.0], [-1.0, -2.0]]), torch.zeros(2, dtype=torch.long)
    found = method.importance(itertools.repeat(Labelled(x, zeros, torch.zeros(2), zeros)))
    expected = torch.zeros(2, 2) if cancels else torch.tensor([[0.25, 1.0], [0.25, 1.0]])
    torch.testing.assert_close(found["heads.policy.0.weight"], expected)


def test_sampled_outputs_give_the_exact_fisher_on_average():
    method = built(Linear(7), estimator="sample", n_samples=16, n_batches=1)
    sample = method.draw(batches())
    exact = exact_fisher(method.net, sample.x, sample.route)
    draws = [method.importance(batches()) for _ in range(400)]
    for name in method.protected:
        values = torch.stack([d[name] for d in draws]).flatten(1)
        error = values.std(0) / len(draws) ** 0.5
        off = (values.mean(0) - exact[name].flatten()).abs()
        assert (off <= 4.5 * error + 1e-7).all()  # each is beyond it once in 100,000
        assert off.sum() < 0.1 * exact[name].sum()


def test_the_sampler_goes_on_from_where_its_state_was_saved():
    first, second, fresh = (built(Linear(7), estimator="sample") for _ in range(3))
    first.end_task(TASK, batches())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    ours, theirs, others = (m.importance(batches()) for m in (first, second, fresh))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(not torch.equal(ours[name], others[name]) for name in ours)


def test_exact_is_the_default_and_takes_the_value_in_if_asked():
    method = built(Linear(7), value=True)
    sample = method.draw(batches())
    expected = exact_fisher(method.net, sample.x, sample.route, value=True)
    for name, found in method.importance(batches()).items():
        assert torch.equal(found, expected[name])


@pytest.mark.parametrize("estimator", ["sample", "empirical", "batched"])
def test_the_values_part_is_the_same_whatever_the_estimator(estimator):
    # the value head sees features h: dV/dw = h, so its mean square is E h^2 (batched: (E h)^2)
    method = built(estimator=estimator, value=True, n_samples=64, n_batches=1, batch_size=64)
    x = method.draw(batches()).x
    expected = x.mean(0).square() if estimator == "batched" else x.square().mean(0)
    found = method.importance(batches())["heads.value.0.weight"][0]
    torch.testing.assert_close(found, expected)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="batch_size is 0"):
        EWC(batch_size=0)
