"""The classifier: a bare torch loop's twin, epochs, several tasks together, resuming."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clrl.agents.learner import RunSettings
from clrl.agents.supervised import LabelledBatch, Supervised
from clrl.envs.toy import ToyTask, toy_sequence
from clrl.method import Method
from clrl.types import Linear, NetSpec

SEQUENCE = toy_sequence(3)


def learner_with(method: Method | None = None, steps: int = 100, **settings: Any) -> Supervised:
    torch.manual_seed(0)
    learner = Supervised(**{"batch_size": 100, **settings})
    spec = NetSpec((2, 12, 12), (Linear(16),), SEQUENCE.tasks, has_value=False, logits_gain=1.0)
    learner.setup(method or Method(), spec, RunSettings(3, steps, 3, torch.device("cpu")))
    return learner


class Watching(Method):
    """Keeps what the learner shows a method."""

    def build(self, spec):
        self.seen: list[LabelledBatch] = []
        self.progress: list[float] = []
        return super().build(spec)

    def observe(self, batch, progress):
        self.seen.append(copy.deepcopy(batch))
        self.progress.append(progress)


def test_fine_tuning_equals_a_bare_torch_loop_bit_for_bit():
    method = Watching()
    learner = learner_with(method)
    bare = copy.deepcopy(learner.net)
    learner.begin_task(SEQUENCE.tasks[0])
    for _ in range(3):
        learner.update()
    optimizer = torch.optim.Adam(bare.parameters(), lr=1e-3, fused=True)
    for batch in method.seen:
        optimizer.zero_grad()
        x = batch.x.float().contiguous(memory_format=torch.channels_last) / 255.0
        h = torch.relu(F.linear(x.flatten(1), bare.trunk[1].weight, bare.trunk[1].bias))
        logits = F.linear(h, bare.heads.policy[0].weight, bare.heads.policy[0].bias)
        F.cross_entropy(logits, batch.label).backward()
        optimizer.step()
    assert len(method.seen) == 30
    for name in ("trunk.1.weight", "trunk.1.bias", "heads.policy.0.weight", "heads.policy.0.bias"):
        assert torch.equal(learner.net.get_parameter(name), bare.get_parameter(name)), name


def test_an_epoch_shows_every_picture_once_in_a_new_order_and_leaves_out_the_rest():
    method = Watching()
    learner = learner_with(method)
    learner.begin_task(SEQUENCE.tasks[0])
    learner.update()  # 10 batches of 100 of 512 pictures: two epochs of 5
    pictures = {x.numpy().tobytes(): i for i, x in enumerate(SEQUENCE.tasks[0].examples("train").x)}
    shown = [[pictures[x.numpy().tobytes()] for x in batch.x] for batch in method.seen]
    first, second = ([i for part in shown[e : e + 5] for i in part] for e in (0, 5))
    assert len(set(first)) == len(set(second)) == 500
    assert first != second


def test_what_a_method_observes():
    method = Watching()
    learner = learner_with(method, steps=20)
    task = SEQUENCE.tasks[1]
    learner.begin_task(task)
    net = copy.deepcopy(learner.net)
    learner.update()
    batch = method.seen[0]
    assert torch.equal(batch.target, batch.label)
    assert batch.route.tolist() == [1] * 100
    right = net(batch.x, batch.route).logits.argmax(-1) == batch.label
    assert torch.equal(batch.score, right.float())
    assert method.progress == [k / 20 for k in range(1, 11)]


def test_it_takes_exactly_the_steps_asked_for_and_counts_pictures():
    learner = learner_with(steps=25)
    learner.begin_task(SEQUENCE.tasks[0])
    while learner.task_step < 25:
        learner.update()
    assert learner.step == learner.task_step == 25
    assert learner.frames == 2500


def test_it_learns_and_evaluates_on_other_pictures():
    learner = learner_with(steps=300)
    task = SEQUENCE.tasks[0]
    before = learner.evaluate(task, 5, 0)[0]
    learner.begin_task(task)
    while learner.task_step < 300:
        learner.update()
    (after,) = learner.evaluate(task, 5, 0)
    assert after["n"] == len(task.examples("test").label) == 256
    assert before["accuracy"] < 70 < 99 < after["accuracy"] <= 100
    test = task.examples("test")
    with torch.no_grad():
        logits = learner.net(test.x, torch.zeros(256, dtype=torch.long)).logits
    assert after["loss"] == pytest.approx(float(F.cross_entropy(logits, test.label)), rel=1e-5)
    share = float((logits.argmax(-1) == test.label).float().mean())
    assert after["accuracy"] == pytest.approx(100 * share)


def test_evaluation_in_parts_equals_evaluation_at_once(monkeypatch):
    learner = learner_with()
    task = SEQUENCE.tasks[0]
    whole = learner.evaluate(task, 1, 0)[0]
    monkeypatch.setattr("clrl.agents.supervised.EVALUATED_AT_ONCE", 100)  # 256 = 100 + 100 + 56
    parts = learner.evaluate(task, 1, 0)[0]
    assert parts["accuracy"] == whole["accuracy"]
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-6)


class Together(Method):
    def mixture(self, begun):
        return list(dict.fromkeys(begun))


def test_several_tasks_learned_together_come_each_with_its_own_route_and_labels():
    class Spy(Together, Watching):
        pass

    method = Spy()
    learner = learner_with(method)
    learner.begin_task(SEQUENCE.tasks[0])
    learner.begin_task(SEQUENCE.tasks[2])
    learner.update()
    label_of: dict[tuple[int, bytes], int] = {}
    for task in (SEQUENCE.tasks[0], SEQUENCE.tasks[2]):
        examples = task.examples("train")
        for x, label in zip(examples.x, examples.label, strict=True):
            label_of[task.id, x.numpy().tobytes()] = int(label)
    routes = torch.cat([batch.route for batch in method.seen])
    assert set(routes.tolist()) == {0, 2}
    assert 0.4 < float((routes == 0).float().mean()) < 0.6
    for batch in method.seen:
        for x, route, label in zip(batch.x, batch.route, batch.label, strict=True):
            assert label_of[int(route), x.numpy().tobytes()] == int(label)


def test_for_the_end_of_a_task_the_training_set_comes_without_end_and_is_counted():
    drawn = []

    class Draws(Method):
        def end_task(self, task, data):
            drawn.extend(next(data) for _ in range(8))

    learner = learner_with(Draws())
    learner.begin_task(SEQUENCE.tasks[0])
    learner.end_task()
    assert [len(batch) for batch in drawn] == [100] * 5 + [12] + [100] * 2
    assert learner.extra_steps == 8
    assert not learner.net.training


def test_resumed_in_the_middle_of_an_epoch_it_goes_on_the_same():
    whole = learner_with()
    whole.begin_task(SEQUENCE.tasks[0])
    whole.begin_task(SEQUENCE.tasks[1])
    for _ in range(2):
        whole.update()
    again = learner_with()
    assert again.load_state_dict(copy.deepcopy(whole.state_dict()), SEQUENCE.tasks) is None
    for _ in range(2):
        assert whole.update() == again.update()
    for ours, theirs in zip(whole.net.parameters(), again.net.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.9), (0.9, 0.0), (0.9, 0.5)])
def test_resumed_with_another_momentum_it_goes_on_with_that(before, after):
    """Beside the update by hand: torch's state holds settings too, those of before."""
    first = learner_with(optimizer_name="sgd", momentum=before)
    first.begin_task(SEQUENCE.tasks[0])
    first.update()
    second = learner_with(optimizer_name="sgd", momentum=after)
    second.load_state_dict(copy.deepcopy(first.state_dict()), SEQUENCE.tasks)
    parameters = list(second.net.body_parameters().values())
    buffers = [torch.zeros_like(p) for p in parameters]
    if before:
        body = first.net.body_parameters().values()
        buffers = [first.optimizer.state[p]["momentum_buffer"] for p in body]
    gradients, weights = [], []
    step = second.optimizer.step

    def watched(*args):
        gradients.append([p.grad.clone() for p in parameters])
        weights.append([p.detach().clone() for p in parameters])
        return step(*args)

    second.optimizer.step = watched
    second.update()
    weights.append([p.detach() for p in parameters])
    for grads, old, new in zip(gradients, weights[:-1], weights[1:], strict=True):
        moves = grads
        if after:
            buffers = moves = [after * b + g for b, g in zip(buffers, grads, strict=True)]
        for p, move, q in zip(old, moves, new, strict=True):
            torch.testing.assert_close(q, p - second.learning_rate * move)


def test_fewer_pictures_than_a_batch_are_one_batch():
    learner = learner_with(batch_size=1000)
    learner.begin_task(SEQUENCE.tasks[0])
    assert math.isfinite(learner.update()["train/loss"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"momentum": 0.9}, "only optimizer_name 'sgd' has it"),
        ({"optimizer_name": "sgd", "momentum": 2.0}, "momentum is 2.0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm is -1.0"),
    ],
)
def test_bad_settings_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Supervised(**settings)


def test_sgd_is_plain_sgd():
    method = Watching()
    learner = learner_with(method, optimizer_name="sgd", learning_rate=0.1)
    learner.begin_task(SEQUENCE.tasks[0])
    before: nn.Module = copy.deepcopy(learner.net)
    learner.settings = RunSettings(3, 1, 3, torch.device("cpu"))
    learner.update()
    batch = method.seen[0]
    F.cross_entropy(before(batch.x, batch.route).logits, batch.label).backward()
    for ours, theirs in zip(learner.net.parameters(), before.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad)


def test_the_toy_pictures_are_the_same_every_time():
    task = SEQUENCE.tasks[0]
    assert isinstance(task, ToyTask)
    for split in ("train", "test"):
        one, two = task.examples(split), task.examples(split)
        assert torch.equal(one.x, two.x)
        assert torch.equal(one.label, two.label)
