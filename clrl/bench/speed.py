"""How fast we train: beside stable-baselines3, and beside what the machine could do at best."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import cast

import numpy as np
import torch

from clrl.agents.ppo import PPO
from clrl.agents.rollout import GameTask, OnPolicy
from clrl.bench.figure import Measurement, Setting, interleave, seconds_per_unit
from clrl.bench.sb3 import sb3
from clrl.bench.subject import (
    Precision,
    agent_of,
    best_precision,
    finish_work,
    learning,
    threads,
    training,
)
from clrl.types import as_route

__all__ = ["over_sb3", "share_of_limit"]


def over_sb3(setting: Setting, name: str, precision: Precision | str) -> Measurement:
    """Measure our steps/s over stable-baselines3's, with the same settings on the same game.

    Each in a process of its own, as its users run it, with as many threads as it takes by itself.

    Args:
        setting: how.
        name: `a2c` or `ppo`.
        precision: ours; `best` takes bf16 where the device has units for it. Theirs is float32.
    """
    agent = agent_of(name)
    ours = best_precision(setting.device) if precision == "best" else cast(Precision, precision)
    with (
        learning(setting, agent, precision=ours) as learner,
        sb3(agent, setting, learner.settings.device.type) as theirs,
    ):
        rows = interleave(training(learner, setting.seconds), theirs, pairs=setting.pairs)
        return Measurement(
            [stock / own for own, stock in rows],
            {
                "ours_steps_per_second": [1 / own for own, _ in rows],
                "sb3_steps_per_second": [1 / stock for _, stock in rows],
                "ours_precision": ours,
                "sb3_precision": "float32",
                **threads(learner),
            },
        )


def share_of_limit(setting: Setting, name: str) -> Measurement:
    """Measure which share of the additive limit training reaches.

    The limit: a step that costs what the emulators, one forward pass and `epochs` passes forward
    and backward cost when each has the machine for itself. No optimizer is in it, no loss to speak
    of, no advantages and no copying, and nothing that overlaps.
    """
    agent, precision = agent_of(name), best_precision(setting.device)
    epochs, n_train = 1, agent.n_envs * agent.n_steps
    if isinstance(agent, PPO):
        epochs, n_train = agent.n_epochs, agent.batch_size
    least = setting.seconds / 2
    with learning(setting, agent, precision=precision) as learner, _emulators(learner) as step:
        wait = finish_work(learner.settings.device)
        forward, train = _forward(learner, agent.n_envs), _train(learner, n_train)
        rows = interleave(
            training(learner, setting.seconds),
            lambda: seconds_per_unit(step, least),
            lambda: seconds_per_unit(forward, least, wait),
            lambda: seconds_per_unit(train, least, wait),
            pairs=setting.pairs,
        )
        limits = [1 / (emulate + infer + epochs * fit) for _, emulate, infer, fit in rows]
        return Measurement(
            [1 / own / limit for (own, *_), limit in zip(rows, limits, strict=True)],
            {
                "ours_steps_per_second": [1 / own for own, *_ in rows],
                "limit_steps_per_second": limits,
                "emulators_steps_per_second": [1 / emulate for _, emulate, _, _ in rows],
                "forward_samples_per_second": [1 / infer for _, _, infer, _ in rows],
                "training_samples_per_second": [1 / fit for *_, fit in rows],
                "epochs": epochs,
                "forward_batch": agent.n_envs,
                "training_batch": n_train,
                "precision": precision,
                **threads(learner),
            },
        )


@contextmanager
def _emulators(learner: OnPolicy) -> Iterator[Callable[[], int]]:
    """Yield a step of all environments, as the learner has them, with random actions."""
    n, task = learner.n_envs, cast(GameTask, learner.task)
    env = task.open(n, 0, training=True, threads=learner.settings.threads)
    with closing(env):
        env.reset(0)
        actions = np.random.default_rng(0).integers(0, env.n_actions, (1000, n))
        turn = iter(range(10**12))

        def step() -> int:
            env.send(actions[next(turn) % len(actions)])
            env.recv()
            return n

        yield step


def _forward(learner: OnPolicy, n: int) -> Callable[[], int]:
    x, route = _pixels(learner, n), as_route(learner.task, n, learner.settings.device)

    @torch.no_grad()
    def forward() -> int:
        with learner.autocast():  # one context a rollout, as in training: weights are cast once
            for _ in range(learner.n_steps):
                learner.net(x, route)
        return n * learner.n_steps

    return forward


def _train(learner: OnPolicy, n: int) -> Callable[[], int]:
    x, route = _pixels(learner, n), as_route(learner.task, n, learner.settings.device)

    def train() -> int:
        learner.net.zero_grad(set_to_none=True)
        with learner.autocast():
            output = learner.net(x, route)
        assert output.value is not None
        (output.logits.square().mean() + output.value.square().mean()).backward()  # type: ignore[no-untyped-call]
        return n

    return train


def _pixels(learner: OnPolicy, n: int) -> torch.Tensor:
    """Return (n, *obs_shape) random pixels in the layout of a rollout's."""
    x = torch.randint(0, 256, (n, *learner.task.input_shape), dtype=torch.uint8)
    return x.to(learner.settings.device).contiguous(memory_format=torch.channels_last)
