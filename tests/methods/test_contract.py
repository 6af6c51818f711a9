"""What every method keeps, with every learner; a new one is tested by being in the registry."""

from __future__ import annotations

import ast
import copy
import dataclasses
import importlib
import inspect
import itertools
import textwrap
from typing import Any

import pytest
import torch

from clrl.agents import registry as agents
from clrl.agents.learner import Learner, RunSettings
from clrl.envs.toy import toy_sequence
from clrl.method import Method
from clrl.methods import REGISTRY
from clrl.run.plasticity import plasticity
from clrl.types import ClrlError, Linear, NetSpec

SMALL: dict[str, dict[str, Any]] = {  # settings that make a method quick, nothing else
    "ewc": {"n_samples": 32, "n_batches": 2},
    "mas": {"n_samples": 32, "n_batches": 2},
    "spp": {"n_samples": 32, "n_batches": 2, "batch_size": 16},
}
LEARNERS: dict[str, dict[str, Any]] = {
    "ppo": {"n_envs": 4, "n_steps": 16, "batch_size": 32},
    "a2c": {"n_envs": 4},
    "supervised": {"batch_size": 16},
}
SEQUENCE = toy_sequence(3)
TEACH_OLD_HEADS = {"joint", "lwf"}  # while a later task is learned
NEED_THE_TASK = {"progressive", "pathnet"}  # refuse scenarios that hide it


def named(registry: Any, name: str, **settings: Any) -> Any:
    module, _, cls = registry[name][0].partition(":")
    return getattr(importlib.import_module(module), cls)(**settings)


def learner_with(
    agent: str, method: str, shared_head: bool = False, masks: bool = True, bf16: bool = False
) -> Learner:
    torch.manual_seed(0)
    sequence = toy_sequence(3, shared_head=shared_head)
    learner: Learner = named(agents.REGISTRY, agent, **LEARNERS[agent])
    spec = NetSpec(
        (2, 12, 12),
        (Linear(16),),
        sequence.tasks,
        shared_head=shared_head,
        masks=masks,
        has_value=learner.kind == "rl",
    )
    settings = RunSettings(0, 640, 3, torch.device("cpu"), bf16=bf16)
    learner.setup(named(REGISTRY, method, **SMALL.get(method, {})), spec, settings)
    return learner


def learn(learner: Learner, task: int, updates: int = 4) -> None:
    learner.begin_task(SEQUENCE.tasks[task])
    for _ in range(updates):
        learner.update()
    learner.end_task()


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return copy.deepcopy(learner.net.state_dict())


both = [
    pytest.mark.parametrize("method", REGISTRY),
    pytest.mark.parametrize("agent", agents.REGISTRY),
]


def with_both(test: Any) -> Any:
    for mark in both:
        test = mark(test)
    return test


@with_both
def test_fields_are_hyper_parameters_and_a_copy_is_a_fresh_method(agent, method):
    made: Method = named(REGISTRY, method)
    assert dataclasses.is_dataclass(made)
    again = dataclasses.replace(made)
    assert again == made
    assert not any(
        isinstance(getattr(made, f.name), torch.Tensor) for f in dataclasses.fields(made)
    )


def test_a_class_says_what_it_is_and_each_setting_what_it_does():
    for registry in (REGISTRY, agents.REGISTRY):
        for name, (_, line) in registry.items():
            cls = type(named(registry, name))
            assert cls.__doc__
            assert line
            for base in (c for c in cls.__mro__ if dataclasses.is_dataclass(c)):
                body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body
                for statement, after in itertools.pairwise([*body, None]):
                    if not isinstance(statement, ast.AnnAssign):
                        continue
                    if "ClassVar" in ast.unparse(statement.annotation):
                        continue
                    told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                    assert told, f"{base.__name__}.{statement.target.id} has no line of its own"


@with_both
@pytest.mark.parametrize("how", ["a head per task", "a shared head", "not masked", "bf16"])
def test_it_learns_three_tasks_in_turn(agent, method, how):
    if how == "not masked" and agent != "supervised":
        pytest.skip("a game is always known")
    if how == "not masked" and method in NEED_THE_TASK:
        with pytest.raises(ClrlError, match="hides") as caught:
            learner_with(agent, method, shared_head=True, masks=False)
        assert caught.value.exit_code == 2
        return
    shared_head = how in ("a shared head", "not masked")
    learner = learner_with(
        agent, method, shared_head, masks=how != "not masked", bf16=how == "bf16"
    )
    for task in range(3):
        learner.begin_task(learner.net.spec.tasks[task])
        before = weights(learner)
        for _ in range(4):
            learner.update()
        learner.end_task()
        assert any(not torch.equal(before[k], v) for k, v in weights(learner).items())
    learner.close()


@with_both
def test_its_state_restores_into_a_fresh_one_which_goes_on_the_same(agent, method):
    first = learner_with(agent, method)
    learn(first, 0)
    first.begin_task(SEQUENCE.tasks[1])
    first.update()
    second = learner_with(agent, method)
    assert second.load_state_dict(copy.deepcopy(first.state_dict()), SEQUENCE.tasks) is None
    for _ in range(3):
        assert first.update() == second.update()
    first.end_task()
    second.end_task()
    for (name, ours), theirs in zip(weights(first).items(), weights(second).values(), strict=True):
        assert torch.equal(ours, theirs), name
    for learner in (first, second):
        torch.manual_seed(1)  # new weights are drawn from it: a run restores it
        learner.begin_task(SEQUENCE.tasks[2])
    assert first.update() == second.update()


@with_both
def test_a_first_visit_that_is_said_to_be_fine_tunings_is(agent, method):
    plain, ours = learner_with(agent, "finetune"), learner_with(agent, method)
    if not ours.method.starts_plainly:
        pytest.skip("it learns its first task in its own way")
    first = SEQUENCE.tasks[0]
    for learner in (plain, ours):
        learner.begin_task(first)
    start = plain.net.first_parameters(first)
    with torch.no_grad():  # nets draw their first weights in orders of their own
        for weight, other in zip(ours.net.first_parameters(first), start, strict=True):
            weight.copy_(other)
    books = copy.deepcopy(ours.method.state_dict())
    for learner in (plain, ours):
        torch.manual_seed(1)
        for _ in range(4):
            learner.update()
    torch.testing.assert_close(ours.method.state_dict(), books, rtol=0, atol=0)
    both = zip(ours.net.first_parameters(first), plain.net.first_parameters(first), strict=True)
    assert all(torch.equal(one, other) for one, other in both)


def test_what_is_derived_from_a_method_does_not_say_how_it_begins():
    for name in REGISTRY:
        method = type(named(REGISTRY, name))
        assert not type("Mine", (method,), {})().starts_plainly, name


@with_both
def test_evaluating_changes_nothing(agent, method):
    watched, alone = learner_with(agent, method), learner_with(agent, method)
    for learner in (watched, alone):
        torch.manual_seed(1)
        learner.begin_task(SEQUENCE.tasks[0])
        seen = SEQUENCE.tasks[1 if learner.net.can_play(SEQUENCE.tasks[1]) else 0]
        for _ in range(3):
            learner.update()
            if learner is watched:
                rows = learner.evaluate(seen, 3, seed=5)
                assert len(rows) == (3 if learner.kind == "rl" else 1)
                assert all(learner.score in row for row in rows)
                assert rows == learner.evaluate(seen, 3, seed=5)
    for ours, theirs in zip(weights(watched).values(), weights(alone).values(), strict=True):
        assert torch.equal(ours, theirs)


@with_both
def test_other_tasks_heads_are_left_alone(agent, method):
    learner = learner_with(agent, method)
    learn(learner, 0)
    learner.begin_task(SEQUENCE.tasks[1])
    before = weights(learner)
    for _ in range(4):
        learner.update()
    learner.end_task()
    after = weights(learner)
    others = ["heads.policy.2", "heads.value.2"]
    if method not in TEACH_OLD_HEADS:
        others += ["heads.policy.0", "heads.value.0", "columns.0."]
    for name in before:
        if name.startswith(tuple(others)):
            assert torch.equal(before[name], after[name]), name
    own = {"heads.policy.1.weight", "columns.1.heads.policy.own.weight"} & before.keys()
    assert len(own) == 1
    assert not any(torch.equal(before[name], after[name]) for name in own)


@with_both
def test_its_nets_layers_can_be_looked_at(agent, method):
    learner = learner_with(agent, method)
    for k in (0, 1):
        learn(learner, k)
    before = weights(learner)
    records = plasticity(learner.net, *learner.latest)
    kinds = {name: value for name, value in records.items() if "/dormant/" in name}
    assert len(kinds) == 1  # of the body's one layer
    assert all(0 <= share <= 1 for share in kinds.values())
    assert 0 < records["plasticity/effective_rank"] <= 16
    (layer,) = (name.removeprefix("plasticity/dormant/") for name in kinds)
    assert any(name.startswith(f"{layer}.") for name in learner.net.body_parameters())
    if method != "frozen":  # whose body no longer learns
        assert records[f"plasticity/gradient_norm/{layer}"] > 0
    for name, value in weights(learner).items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("agent", agents.REGISTRY)
def test_frozen_leaves_every_output_of_the_first_task_bit_identical(agent):
    learner = learner_with(agent, "frozen")
    learn(learner, 0)
    x = torch.randint(0, 256, (16, 2, 12, 12), dtype=torch.uint8)
    route = torch.zeros(16, dtype=torch.long)
    before = learner.net(x, route)
    learn(learner, 1)
    learn(learner, 0, updates=0)  # a revisit keeps the trunk frozen
    assert not any(p.requires_grad for p in learner.net.body_parameters().values())
    learn(learner, 2)
    after = learner.net(x, route)
    assert torch.equal(before.logits, after.logits)
    assert before.value is after.value is None or torch.equal(before.value, after.value)
    held = {id(p) for group in learner.optimizer.param_groups for p in group["params"]}
    assert not held & {id(p) for p in learner.net.body_parameters().values()}


@pytest.mark.parametrize("agent", agents.REGISTRY)
@pytest.mark.parametrize("method", [m for m in REGISTRY if hasattr(named(REGISTRY, m), "strength")])
def test_strength_zero_equals_fine_tuning_bit_for_bit(agent, method):
    zero, plain = learner_with(agent, method), learner_with(agent, "finetune")
    zero.method.strength = 0.0
    for learner in (zero, plain):
        learn(learner, 0)
        learn(learner, 1)
    for ours, theirs in zip(weights(zero).values(), weights(plain).values(), strict=True):
        assert torch.equal(ours, theirs)


def test_ewc_stays_nearer_to_the_old_weights_the_stronger_it_is():
    moved = []
    for strength in (0.0, 1e2, 1e4):
        learner = learner_with("ppo", "ewc")
        learner.method.strength = 1.0  # so that the Fisher is taken
        learn(learner, 0, updates=10)
        learner.method.strength = strength
        anchor = weights(learner)
        importance = {k: v.clone() for k, v in learner.method.penalty.weight.items()}
        learn(learner, 1, updates=10)
        after = weights(learner)
        moved.append(
            sum(float((w * (after[k] - anchor[k]) ** 2).sum()) for k, w in importance.items())
        )
    assert moved[0] > 2 * moved[1] > 2 * moved[2] > 0


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("agent", agents.REGISTRY)
def test_lwf_passes_its_net_once_a_gradient_step(agent, bf16):
    learner = learner_with(agent, "lwf", bf16=bf16)
    learn(learner, 0)
    learner.begin_task(SEQUENCE.tasks[1])
    passes, steps = [], []
    learner.net.trunk.register_forward_hook(
        lambda *_: passes.append(1) if torch.is_grad_enabled() else None
    )
    step = learner.optimizer.step
    learner.optimizer.step = lambda *args: (steps.append(1), step(*args))[1]  # type: ignore
    for _ in range(3):
        learner.update()
    assert len(passes) == len(steps) > 0
    assert "distillation" in learner.method.records()


def test_a_method_that_does_not_serve_the_learner_is_refused_at_once():
    class OnlyPictures(Method):
        kinds = frozenset({"supervised"})

    learner = named(agents.REGISTRY, "ppo")
    spec = NetSpec((2, 12, 12), (Linear(4),), SEQUENCE.tasks)
    with pytest.raises(ClrlError, match=r"OnlyPictures serves \['supervised'\].*'rl'") as caught:
        learner.setup(OnlyPictures(), spec, RunSettings(0, 1, 1, torch.device("cpu")))
    assert caught.value.exit_code == 2
