"""Soft parameter pruning against an example worked by hand, for each sign and curvature."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch

from clrl.methods.spp import SPP
from clrl.types import Batch, NetSpec, Task

TASK = Task(0, "a", 2)
A, B = math.log(3) + 1, 1.0  # the weights: z = (A x, B x), so that p = (3/4, 1/4) at x = 1


def built(**settings: object) -> SPP:
    method = SPP(normalise=False, **{"n_samples": 2, "n_batches": 1, "batch_size": 2} | settings)
    method.build(NetSpec((1,), (), (TASK,), shared_head=True))
    with torch.no_grad():
        for p in method.net.parameters():
            p.zero_()
        method.net.get_parameter("heads.policy.0.weight").copy_(torch.tensor([[A], [B]]))
    return method


def data(*x: float) -> Iterator[Batch]:
    n = len(x)
    inputs = torch.tensor(x)[:, None]
    return itertools.repeat(Batch(inputs, torch.zeros(n, dtype=torch.long), torch.zeros(n)))


# With p = sigmoid(d), d = (A - B) x, S = -p ln p - (1 - p) ln (1 - p) has dS/dA = -p (1 - p) d x
# and dS/dB = +p (1 - p) d x. At x = 1 and at x = -1 these are -+ 3/16 ln 3: summed, -+ G.
# The Fisher information of a sample is p (1 - p) x^2 = 3/16 for both weights: summed, 3/8.
G = 3 / 8 * math.log(3)
SECOND = {
    "entropy_batch": (0.5 * A**2 * G**2, 0.5 * B**2 * G**2),
    "loglik_exact": (0.5 * A**2 * 3 / 8, 0.5 * B**2 * 3 / 8),
}


@pytest.mark.parametrize("curvature", SECOND)
@pytest.mark.parametrize("sign", ["paper", "entropy_increase"])
def test_it_is_the_example_worked_by_hand(sign, curvature):
    first = (-A * G, B * G) if sign == "paper" else (A * G, -B * G)
    expected = [[max(0.0, f + s)] for f, s in zip(first, SECOND[curvature], strict=True)]
    found = built(sign=sign, curvature=curvature).importance(data(1.0, -1.0))
    torch.testing.assert_close(found["heads.policy.0.weight"], torch.tensor(expected))
    assert not found["heads.policy.0.bias"].any()  # it is 0: nothing is lost by pruning it
    assert sorted(e > 0 for (e,) in expected) == [False, True]


def test_the_published_sign_and_curvature_are_the_default():
    assert (SPP().sign, SPP().curvature, SPP().batch_size) == ("paper", "entropy_batch", 100)
    assert (SPP().anchors, SPP().gamma) == ("online", 1.0)


def test_pruning_really_raises_the_entropy_by_what_entropy_increase_says():
    # its first-order term, for a small weight: S(theta_i = 0) - S(theta) ~ -theta_i dS/dtheta_i
    method = built(sign="entropy_increase", curvature="entropy_batch")
    weight = method.net.get_parameter("heads.policy.0.weight")

    def entropy() -> float:
        p = (torch.tensor([1.0, -1.0])[:, None] @ weight.detach().T).softmax(-1)
        return float(-(p * p.log()).sum())

    with torch.no_grad():
        weight.copy_(torch.tensor([[1e-3], [-1.0]]))
    before = entropy()
    found = method.importance(data(1.0, -1.0))["heads.policy.0.weight"][0, 0]
    with torch.no_grad():
        weight[0] = 0.0
    assert entropy() > before
    assert float(found) == pytest.approx(entropy() - before, rel=0.01)


def test_batches_are_cut_off_at_zero_one_by_one_then_averaged_and_a_rest_is_left_out(monkeypatch):
    method = built(n_samples=5)
    monkeypatch.setattr(method, "draw", next)  # in the order given
    found = method.importance(data(1.0, -1.0, 0.0, 0.0, 7.0))["heads.policy.0.weight"]
    expected = built().importance(data(1.0, -1.0))["heads.policy.0.weight"] / 2
    torch.testing.assert_close(found, expected)


def test_with_value_weights_it_relies_on_matter_too():
    # V = v x with v = 2: S does not depend on v; C = (sum_n x_n)^2, or the sum of squares
    for curvature, c in (("entropy_batch", (1.0 + 3.0) ** 2), ("loglik_exact", 1.0 + 9.0)):
        method = built(value=True, curvature=curvature)
        with torch.no_grad():
            method.net.get_parameter("heads.value.0.weight").fill_(2.0)
        found = method.importance(data(1.0, 3.0))["heads.value.0.weight"]
        assert found.item() == pytest.approx(0.5 * 2.0**2 * c)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"batch_size is 501.*n_samples"):
        SPP(batch_size=501)
