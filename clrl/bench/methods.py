"""What continual-learning methods cost: an update's time, an importance's."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from clrl.agents.learner import Learner
from clrl.agents.rollout import OnPolicy
from clrl.bench.figure import Measurement, Setting, Workload, interleave, seconds_per_unit
from clrl.bench.pictures import Noise, noise_config
from clrl.bench.subject import (
    agent_of,
    assembled,
    best_precision,
    finish_work,
    learning,
    threads,
    training,
)
from clrl.method import Method
from clrl.methods import REGISTRY
from clrl.methods.fisher import exact_fisher
from clrl.run.assemble import assemble
from clrl.types import Net, Task, TaskSequence, as_route

__all__ = ["fisher_over_loop", "fisher_seconds", "loop_fisher", "update"]

FEW = {"n_samples": 8, "n_batches": 1, "batch_size": 8}
TURNS = 10  # short ones: what is measured is a few per cent
STATES, GAME, LOOP_STATES = 500, "Seaquest", 8  # Seaquest has 18 actions


def update(
    setting: Setting,
    name: str,
    n_tasks: int,
    settings: Mapping[str, Any] | None = None,
    kind: Literal["games", "pictures"] = "games",
) -> Measurement:
    """Measure a learner's time per step under a method over its time under fine-tuning.

    Args:
        setting: how.
        name: of the method.
        n_tasks: finished tasks, each taken in by `end_task` (with few states: how many an
            importance was averaged over does not show in an update).
        settings: of the method, where they are not its defaults.
        kind: `games`: A2C with the Nature net; `pictures`: batches of 128 and 400-400 units, where
            there is next to nothing beside the weights for a penalty to hide behind.
    """
    module, _, cls_name = REGISTRY[name][0].partition(":")
    cls = getattr(importlib.import_module(module), cls_name)
    few = {f.name: FEW[f.name] for f in fields(cls) if f.name in FEW}
    method = cls(**(few | dict(settings or {})))
    precision = best_precision(setting.device)
    with _learner(setting, kind, method) as protected, _learner(setting, kind, Method()) as free:
        for _ in range(n_tasks):
            protected.update()
            protected.end_task()
        protected.begin_task(protected.task)
        least = setting.seconds / TURNS
        sides = training(protected, least), training(free, least)
        rows = interleave(*sides, pairs=setting.pairs, turns=TURNS)
        return Measurement(
            [ours / finetune for ours, finetune in rows],
            {
                f"{name}_step_seconds": [ours for ours, _ in rows],
                "finetune_step_seconds": [finetune for _, finetune in rows],
                "tasks": n_tasks,
                "precision": precision,
                **threads(free),
            },
        )


@contextmanager
def _learner(
    setting: Setting, kind: Literal["games", "pictures"], method: Method
) -> Iterator[Learner]:
    """Yield a learner that has begun a task."""
    if kind == "games":
        precision = best_precision(setting.device)
        with learning(setting, agent_of("a2c"), method=method, precision=precision) as learner:
            yield learner
        return
    task = Noise(0, "noise", 2)
    config = replace(noise_config(setting), method=method)
    pictures = assemble(config, TaskSequence((task,), (0,)))
    pictures.begin_task(task)
    yield pictures


def fisher_over_loop(setting: Setting) -> Measurement:
    """Measure the exact Fisher's speed over that of a loop over samples and actions.

    The loop is timed on a few of the states and scaled up: its time is proportional to them.
    """
    learner, (task,) = assembled(setting, agent_of("a2c"), (GAME,))
    exact = _fisher(learner, task, exact_fisher, STATES)
    loop = _fisher(learner, task, loop_fisher, LOOP_STATES)
    rows = interleave(exact, loop, pairs=setting.pairs)
    scaled = [seconds * STATES / LOOP_STATES for _, seconds in rows]
    return Measurement(
        [slow / fast for (fast, _), slow in zip(rows, scaled, strict=True)],
        {
            "exact_seconds": [seconds for seconds, _ in rows],
            "loop_seconds_scaled": scaled,
            "loop_states": LOOP_STATES,
            **_facts(task),
        },
    )


def fisher_seconds(setting: Setting) -> Measurement:
    """Measure the time of an exact Fisher."""
    learner, (task,) = assembled(setting, agent_of("a2c"), (GAME,))
    rows = interleave(_fisher(learner, task, exact_fisher, STATES), pairs=setting.pairs)
    seconds = [row[0] for row in rows]
    return Measurement(seconds, {"exact_seconds": seconds, **_facts(task)})


def _facts(task: Task) -> dict[str, int]:
    threads = torch.get_num_threads()
    return {"states": STATES, "actions": task.n_outputs, "torch_threads": threads}


def _fisher(
    learner: OnPolicy, task: Task, function: Callable[[Net, Tensor, Tensor], object], n: int
) -> Workload:
    """Return a computation of the Fisher from `n` states of noise: its seconds."""
    device = learner.settings.device
    x = torch.randint(0, 256, (n, *task.input_shape), dtype=torch.uint8).to(device)
    route = as_route(task, n, device)

    def compute() -> int:
        function(learner.net, x, route)
        return 1

    return lambda: seconds_per_unit(compute, 0.0, finish_work(device))


def loop_fisher(net: Net, x: Tensor, route: Tensor) -> dict[str, Tensor]:
    """Return what `exact_fisher` does, one sample and one action at a time."""
    parameters = dict(net.named_parameters())
    fisher = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for i in range(len(x)):
        log_p = net(x[i : i + 1], route[i : i + 1]).logits.log_softmax(-1)[0]
        for one in log_p:
            gradients = torch.autograd.grad(
                one, list(parameters.values()), retain_graph=True, allow_unused=True
            )
            for f, g in zip(fisher.values(), gradients, strict=True):
                if g is not None:
                    f += one.detach().exp() * g.square() / len(x)
    return fisher
