"""What all penalties promise, and the two forms in which they act."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from clrl.method import Method
from clrl.methods import REGISTRY
from clrl.methods.ewc import EWC
from clrl.methods.penalty import Penalty
from clrl.step import gradient_step
from clrl.types import Batch, ClrlError, Linear, NetSpec, Task

TASKS = (Task(0, "a", 3), Task(1, "b", 3), Task(2, "c", 2))


def class_of(name: str) -> type[Method]:
    module, _, cls = REGISTRY[name][0].partition(":")
    made: type[Method] = getattr(importlib.import_module(module), cls)
    return made


PENALTIES = [name for name in REGISTRY if issubclass(class_of(name), Penalty)]
WITH_STRENGTH = [name for name in REGISTRY if hasattr(class_of(name), "strength")]
every_penalty = pytest.mark.parametrize("name", PENALTIES)


@dataclass
class Labelled(Batch):
    label: torch.Tensor

    @property
    def target(self) -> torch.Tensor:
        return self.label


def built(name: str, shared_head: bool = False, **settings: object) -> Method:
    torch.manual_seed(0)
    method = class_of(name)(**settings)
    tasks = TASKS if not shared_head else (Task(0, "a", 3, (0, 1)), Task(1, "b", 3))
    method.build(NetSpec((6,), (Linear(8),), tasks, shared_head=shared_head, logits_gain=1.0))
    return method


def batches(task: Task, size: int = 80, seed: int = 0) -> Iterator[Labelled]:
    generator = torch.Generator().manual_seed(seed)
    for _ in itertools.count():
        x = torch.randn(size, 6, generator=generator)
        label = torch.randint(0, 2, (size,), generator=generator)
        yield Labelled(x, torch.full((size,), task.id), torch.zeros(size), label)


def loss_of(method: Method) -> Callable[[Labelled], torch.Tensor]:
    def loss(batch: Labelled) -> torch.Tensor:
        logits = method.net(batch.x, batch.route).logits
        return torch.nn.functional.cross_entropy(logits, batch.label)

    return loss


def visit(method: Method, task: Task, steps: int = 5, learning_rate: float = 0.1) -> None:
    method.end_task(task, learn(method, task, steps, learning_rate))


def learn(method: Method, task: Task, steps: int, learning_rate: float) -> Iterator[Batch]:
    """Begin a visit; return more of its data."""
    method.begin_task(task)
    optimizer = torch.optim.SGD(method.trainable(), lr=learning_rate)
    data = batches(task, seed=task.id)
    for _ in range(steps):
        gradient_step(method, optimizer, next(data), loss_of(method), float("inf"))
    return data


def weights(method: Method) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in method.net.parameters()])


@pytest.mark.parametrize("name", WITH_STRENGTH)
@pytest.mark.parametrize("form", ["loss", "decoupled"])
def test_strength_zero_equals_fine_tuning_bit_for_bit_and_draws_nothing(name, form):
    settings = {"form": form} if name in PENALTIES else {}
    zero, plain = built(name, strength=0.0, **settings), built("finetune")

    def never() -> Iterator[Batch]:
        raise AssertionError("data was drawn")
        yield

    for task in TASKS:
        visit(plain, task)
        visit(zero, task)
        zero.end_task(task, never())
    assert torch.equal(weights(zero), weights(plain))
    assert zero.records() == {}


@every_penalty
@pytest.mark.parametrize("form", ["loss", "decoupled"])
def test_it_holds_weights_back_and_shows_that_it_acts(name, form):
    strong, weak = (built(name, form=form, normalise=True, strength=s) for s in (2.0, 1e-6))
    for method in (strong, weak):
        assert method.records() == {}
        visit(method, TASKS[0])
        assert method.records()["penalty"] == pytest.approx(0.0, abs=1e-12)
    anchor = {n: p.detach().clone() for n, p in strong.protected.items()}
    omega = strong.importances()
    assert set(omega) == set(anchor) == set(strong.net.body_parameters())

    def distance(method: Penalty) -> float:
        moved = {n: p.detach() - anchor[n] for n, p in method.protected.items()}
        return sum(float((omega[n] * d.square()).sum()) for n, d in moved.items())

    for method in (strong, weak):
        learn(method, TASKS[1], steps=60, learning_rate=0.01)
        pulls = method.factor * method.strength * distance(method)
        assert method.records()["penalty"] == pytest.approx(pulls, rel=1e-4) != 0
    assert 0 < distance(strong) < 0.8 * distance(weak)


@every_penalty
@pytest.mark.parametrize("anchors", ["separate", "online"])
def test_importance_is_finite_and_not_negative_and_what_is_kept_does_not_grow(name, anchors):
    method = built(name, anchors=anchors)
    sizes = []
    for task in (*TASKS, *TASKS):
        visit(method, task, steps=2)
        for values in (method.penalty.weight, method.importances()):
            assert all(bool(torch.isfinite(v).all()) for v in values.values())
            assert all(bool((v >= 0).all()) for v in values.values())
            assert any(bool((v > 0).any()) for v in values.values())
        sizes.append(numbers_in(method.state_dict()))
    assert len(set(sizes)) == 1


def numbers_in(state: object) -> int:
    if isinstance(state, torch.Tensor):
        return state.numel()
    return sum(numbers_in(part) for part in state.values()) if isinstance(state, dict) else 1


VARIANTS = [
    *((name, {}) for name in PENALTIES),
    *(("ewc", {"estimator": estimator}) for estimator in ("sample", "empirical", "batched")),
]


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_importance_that_is_not_finite_is_refused_before_it_is_stored(name, settings, bad):
    method = built(name, **settings)
    visit(method, TASKS[0])
    before = {
        part: {k: v.clone() for k, v in method.state_dict()["penalty"][part].items()}
        for part in ("weight", "anchor")
    }
    method.begin_task(TASKS[1])
    with torch.no_grad():
        method.net.get_parameter("trunk.0.weight")[0, 0] = bad
    with pytest.raises(ClrlError, match=r"trunk\.0\.\w+ after 'b' is not finite: .*learning_rate"):
        method.end_task(TASKS[1], batches(TASKS[1]))
    for part, values in before.items():
        for key, value in method.state_dict()["penalty"][part].items():
            assert torch.equal(value, values[key])


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (torch.nan, "is not finite: .*learning_rate"),
        (torch.inf, "is not finite: .*learning_rate"),
        (-1.0, "is negative: .*mend Wrong.importance"),
    ],
)
def test_importance_that_is_no_number_from_0_is_refused_though_the_weights_are_fine(value, told):
    class Wrong(Penalty):
        def importance(self, data: Iterator[Batch]) -> dict[str, torch.Tensor]:
            return {n: torch.full_like(p, value) for n, p in self.protected.items()}

    method = Wrong()
    method.build(NetSpec((6,), (Linear(8),), TASKS))
    with pytest.raises(ClrlError, match=f"after 'a' {told}"):
        method.end_task(TASKS[0], batches(TASKS[0]))
    assert not method.penalty.weight


@every_penalty
def test_normalised_importances_have_mean_one_over_the_protected_weights(name):
    method = built(name, normalise=True)
    visit(method, TASKS[0])
    values = torch.cat([v.flatten() for v in method.penalty.weight.values()])
    assert float(values.mean()) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("size", [1.4e-45, 1e-40, 1e-10, 1.0, 3e38])
def test_importance_of_any_size_is_finite_once_normalised(size, caplog):
    class Sized(Penalty):
        def importance(self, data: Iterator[Batch]) -> dict[str, torch.Tensor]:
            found = {n: torch.full_like(p, size) for n, p in self.protected.items()}
            found["trunk.0.bias"].zero_()  # so that the mean is smaller than any of them
            return found

    method = Sized()
    method.build(NetSpec((6,), (Linear(8),), TASKS))
    method.end_task(TASKS[0], batches(TASKS[0]))
    kept = method.penalty.weight["trunk.0.weight"]
    assert torch.allclose(kept, torch.full_like(kept, 7 / 6))  # 8 x 6 weights beside 8 biases
    assert not caplog.records


def test_clipping_lowers_what_is_above_the_quantile_to_it_and_nothing_else():
    whole, cut = (built("ewc", normalise=False, clip_quantile=q) for q in (1.0, 0.9))
    found = []
    for method in (whole, cut):
        visit(method, TASKS[0])
        found.append(torch.cat([v.flatten() for v in method.penalty.weight.values()]))
    most = found[0].sort().values[round(0.9 * len(found[0])) - 1]
    assert torch.equal(found[1], found[0].clamp(max=most))
    assert (found[0] > most).sum() == len(found[0]) - round(0.9 * len(found[0]))


@every_penalty
def test_heads_of_their_own_are_free_and_a_shared_one_is_protected_if_asked(name):
    assert set(built(name).protected) == {"trunk.0.weight", "trunk.0.bias"}
    trunk = set(built(name).protected)
    policy = {"heads.policy.0.weight", "heads.policy.0.bias"}
    value = {"heads.value.0.weight", "heads.value.0.bias"}
    shared = {"shared_head": True}
    assert set(built(name, **shared).protected) == trunk | policy
    assert set(built(name, **shared, value=True).protected) == trunk | policy | value
    assert set(built(name, **shared, value=True, protect_head=False).protected) == trunk
    method = built(name, **shared)
    visit(method, Task(0, "a", 3, (0, 1)))
    assert method.penalty.weight["heads.policy.0.weight"].any()


@pytest.mark.parametrize("name", ["ewc", "mas", "spp"])
def test_value_protects_what_the_value_relies_on(name):
    def found(value: bool) -> dict[str, torch.Tensor]:
        method = built(name, shared_head=True, value=value, normalise=False)
        visit(method, Task(0, "a", 3, (0, 1)))
        return method.penalty.weight

    with_value, without = found(True), found(False)
    assert with_value["heads.value.0.weight"].any()
    assert not torch.equal(with_value["trunk.0.weight"], without["trunk.0.weight"])
    torch.testing.assert_close(with_value["heads.policy.0.bias"], without["heads.policy.0.bias"])


@every_penalty
def test_value_means_nothing_to_a_net_without_one(name):
    torch.manual_seed(0)
    method = class_of(name)(value=True)
    method.build(NetSpec((6,), (Linear(8),), TASKS, has_value=False, logits_gain=1.0))
    visit(method, TASKS[0])
    assert any(bool(v.any()) for v in method.penalty.weight.values())


def protecting(**settings: object) -> EWC:
    """Return a method that protects a task and whose weights have moved since."""
    method = built("ewc", **settings)
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
    assert built("ewc", strength=7.0).records() == {}
    method = protecting(strength=7.0, normalise=False)
    expected = 0.5 * 7.0 * sum(float(f.sum()) for f in method.penalty.weight.values()) * 0.01
    assert method.records()["penalty"] == pytest.approx(expected, rel=1e-4)


def test_what_is_recorded_is_what_pulls_not_what_remains_between_anchors():
    method = protecting(normalise=False)
    visit(method, TASKS[1])  # another anchor, beside that of the visit before
    with torch.no_grad():
        for name, anchor in method.penalty.anchor.items():
            method.net.get_parameter(name).copy_(anchor)
    assert method.penalty.value(method.protected) > 1e-6
    assert method.records()["penalty"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", ["mas", "si", "spp"])
def test_the_others_have_no_half(name):
    method = built(name, strength=7.0)
    visit(method, TASKS[0])
    with torch.no_grad():
        for p in method.net.parameters():
            p += 0.1
    expected = 7.0 * sum(float(f.sum()) for f in method.penalty.weight.values()) * 0.01
    assert method.records()["penalty"] == pytest.approx(expected, rel=1e-4)


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


@pytest.mark.parametrize("max_norm", [0.5, float("inf")])
def test_a_step_is_one_on_the_loss_with_the_penalty_in_it(max_norm):
    ours, plain = protecting(strength=7.0), protecting(strength=7.0)
    batch = next(batches(TASKS[1]))
    optimizers = [torch.optim.SGD(m.net.parameters(), lr=0.1) for m in (ours, plain)]
    gradient_step(ours, optimizers[0], batch, loss_of(ours), max_norm)
    (loss_of(plain)(batch) + written(plain)).backward()
    torch.nn.utils.clip_grad_norm_(plain.net.parameters(), max_norm)
    optimizers[1].step()
    for p, q in zip(ours.net.parameters(), plain.net.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_decoupled_the_optimizer_steps_on_the_loss_alone_and_the_proximal_step_follows():
    ours, plain = protecting(strength=7.0, form="decoupled"), protecting(strength=0.0)
    batch = next(batches(TASKS[1]))
    optimizers = [torch.optim.Adam(m.net.parameters(), lr=0.1) for m in (ours, plain)]
    for method, optimizer in zip((ours, plain), optimizers, strict=True):
        gradient_step(method, optimizer, batch, loss_of(method), 0.5)
    for name, p in plain.net.named_parameters():
        expected = p
        if name in ours.protected:
            sw = 0.1 * 7.0 * ours.penalty.weight[name]  # 2 * 1/2 * strength * learning rate
            expected = (p + sw * ours.penalty.anchor[name]) / (1 + sw)
        torch.testing.assert_close(ours.net.get_parameter(name), expected)


def test_decoupled_at_a_tiny_strength_is_the_loss_form_with_sgd_to_first_order():
    strength, batch = 1e-3, next(batches(TASKS[1]))
    moved = {}
    for form in ("loss", "decoupled", "none"):
        method = protecting(strength=strength, form=form if form != "none" else "loss")
        if form == "none":
            method.strength = 0.0
        optimizer = torch.optim.SGD(method.net.parameters(), lr=0.1)
        method.net.double()
        for part in (method.penalty.weight, method.penalty.anchor):
            part.update({k: v.double() for k, v in part.items()})
        batch.x = batch.x.double()
        gradient_step(method, optimizer, batch, loss_of(method), float("inf"))
        moved[form] = weights(method)
    by_loss, by_pull = moved["loss"] - moved["none"], moved["decoupled"] - moved["none"]
    # they differ in lr * strength * W * (lr * gradient) and in (lr * strength * W)^2 * distance
    assert by_loss.norm() > 0
    assert (by_loss - by_pull).norm() < 0.2 * by_loss.norm()


@pytest.mark.parametrize("form", ["loss", "decoupled"])
def test_at_strength_1e6_the_decoupled_form_is_stable_and_the_other_is_not(form):
    method = protecting(strength=1e6, form=form)
    before = method.penalty.value(method.protected)
    optimizer = torch.optim.SGD(method.net.parameters(), lr=0.1)
    data = batches(TASKS[1])
    for _ in range(3):
        gradient_step(method, optimizer, next(data), loss_of(method), float("inf"))
    after = method.penalty.value(method.protected)
    assert (after < 1e-3 * before) if form == "decoupled" else (after > 1e3 * before)


@pytest.mark.parametrize("form", ["loss", "decoupled"])
def test_a_frozen_parameter_is_left_alone(form):
    method = protecting(form=form)
    frozen = method.net.get_parameter("trunk.0.weight").requires_grad_(False)
    before = frozen.clone()
    method.edit_gradients(lambda batch: batch.x.sum())
    method.after_step(0.1)
    assert frozen.grad is None
    assert torch.equal(frozen, before)


def test_after_one_task_separate_and_online_anchors_agree_if_gamma_is_one():
    separate, online, fading = (
        protecting(**settings)
        for settings in ({}, {"anchors": "online"}, {"anchors": "online", "gamma": 0.5})
    )
    assert online.records() == separate.records() != {}
    assert fading.records()["penalty"] == pytest.approx(0.5 * separate.records()["penalty"])
    for method in (separate, online):
        method.edit_gradients(lambda batch: batch.x.sum())
    for p, q in zip(separate.protected.values(), online.protected.values(), strict=True):
        assert torch.equal(p.grad, q.grad)


def test_online_importance_fades_by_gamma_and_is_centred_at_the_latest_weights():
    # F*_2 = gamma F_1 + F_2; the penalty is strength / 2 gamma F*_2 (theta - theta_2)^2
    method = protecting(anchors="online", gamma=0.5, normalise=False)
    first = {k: 2 * v for k, v in method.penalty.weight.items()}  # F_1
    method.end_task(TASKS[1], batches(TASKS[1]))
    latest = {n: p.detach().clone() for n, p in method.protected.items()}
    second = method.importances()
    with torch.no_grad():
        for p in method.net.parameters():
            p -= 0.3
    expected = 0.5 * sum(
        (0.5 * (0.5 * first[n] + second[n]) * (p - latest[n]).square()).sum().item()
        for n, p in method.protected.items()
    )
    assert method.records()["penalty"] == pytest.approx(expected, rel=1e-5)


def test_small_batches_are_drawn_until_there_are_enough_samples():
    method = built("ewc", n_samples=30, n_batches=5)
    assert len(method.draw(batches(TASKS[0], size=4))) == 30


def test_importance_that_is_zero_everywhere_is_told(caplog):
    class Idle(class_of("ewc")):
        def importance(self, data):
            return {name: torch.zeros_like(p) for name, p in self.protected.items()}

    method = Idle()
    method.build(NetSpec((6,), (Linear(8),), TASKS))
    method.end_task(TASKS[0], batches(TASKS[0]))
    assert "the importance after 'a' is 0 everywhere" in caplog.text
    assert method.records() == {"penalty": 0.0, "importance_mean": 0.0}


def test_samples_are_drawn_from_as_many_batches_as_asked():
    method = built("ewc", n_samples=30, n_batches=5)
    drawn = []

    def counted() -> Iterator[Labelled]:
        for batch in batches(TASKS[0], size=40):
            drawn.append(batch)
            yield batch

    sample = method.draw(counted())
    assert len(drawn) == 5
    assert sample.x.shape == (30, 6)
    assert len(torch.unique(sample.x, dim=0)) == 30
    everything = torch.cat([b.x for b in drawn]), torch.cat([b.label for b in drawn])
    for x, label in zip(sample.x, sample.label, strict=True):  # rows stay together
        assert (everything[1][(everything[0] == x).all(1)] == label).all()


def test_samples_of_a_rollout_are_spread_over_its_steps_in_every_environment():
    """Steps of a rollout follow one another: a stride near N would take a few of them, in a row."""
    T, N = 64, 16
    method = built("ewc", n_samples=512, n_batches=8)

    def rollouts() -> Iterator[Labelled]:
        for k in itertools.count():  # x tells where a sample stands: rollout, step, environment
            t, n = torch.arange(T)[:, None].expand(T, N), torch.arange(N).expand(T, N)
            x = torch.stack([torch.full((T, N), k), t, n], -1).flatten(0, 1).float()
            zeros = torch.zeros(T * N)
            yield Labelled(x=x, route=zeros.long(), score=zeros, label=zeros.long())

    sample = method.draw(rollouts())
    assert len(torch.unique(sample.x, dim=0)) == 512
    gaps = []
    for k, n in itertools.product(range(8), range(N)):
        own = sample.x[(sample.x[:, 0] == k) & (sample.x[:, 2] == n)]
        steps = own[:, 1].sort().values
        gaps += steps.diff().tolist()
    # 4 of 64 steps by chance: 16 apart on average less what the ends take, and seldom neighbours
    assert 10 < np.mean(gaps) < 16
    assert np.mean(np.array(gaps) == 1) < 0.15


@pytest.mark.parametrize(
    "settings",
    [
        {"strength": -1.0},
        {"strength": float("inf")},
        {"n_batches": 0},
        {"n_batches": 600},
        {"gamma": 0.0, "anchors": "online"},
        {"gamma": 1.5, "anchors": "online"},
        {"gamma": 0.9, "anchors": "separate"},
        {"clip_quantile": 0.0},
    ],
)
@every_penalty
def test_settings_out_of_range_are_refused(name, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        class_of(name)(**settings)
