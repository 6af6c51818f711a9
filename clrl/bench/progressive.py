"""What columns cost: a training step in a later column over one in the first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from clrl.agents.rollout import OnPolicy
from clrl.bench.figure import Measurement, Setting, interleave
from clrl.bench.subject import ENDLESS, agent_of, best_precision, threads, training
from clrl.methods.progressive import Progressive
from clrl.nets.progressive import ProgressiveNet
from clrl.run.assemble import assemble
from clrl.run.config import Config, NetConfig, SequenceConfig
from clrl.types import Episode, StepResult, Task, TaskSequence

__all__ = ["column"]

FRAMES = 64  # of noise, shown in turn


def column(setting: Setting, n: int, body: str) -> Measurement:
    """Measure PPO's time per step in column n over its time in column 1.

    A step is an agent's: its share of acting in a rollout, where what frozen columns make of the
    observation is computed and kept, and of the epochs that learn from it. Observations are noise
    and cost nothing: with emulators the ratio is nearer to 1.
    """
    with _learning(setting, 1, body) as first, _learning(setting, n, body) as later:
        sides = training(later, setting.seconds), training(first, setting.seconds)
        rows = interleave(*sides, pairs=setting.pairs)
        net, precision = cast(ProgressiveNet, later.net), best_precision(setting.device)
        kept = net.context_size(n - 1) * later.n_envs * later.n_steps
        return Measurement(
            [ours / alone for ours, alone in rows],
            {
                f"column_{n}_seconds_per_step": [ours for ours, _ in rows],
                "column_1_seconds_per_step": [alone for _, alone in rows],
                "parameters": sum(p.numel() for p in net.parameters()),
                "context_megabytes": (2 if precision == "bf16" else 4) * kept / 1e6,
                "body": body,
                "precision": precision,
                **threads(first),
            },
        )


@contextmanager
def _learning(setting: Setting, n: int, body: str) -> Iterator[OnPolicy]:
    """Yield PPO in the n-th of as many noise games; it has learned nothing in the others."""
    tasks = tuple(_Noise(k, f"noise-{k}", 6) for k in range(n))
    config = Config(
        name="bench",
        sequence=SequenceConfig(tasks=("Breakout",), steps=ENDLESS),
        agent=agent_of("ppo"),
        method=Progressive(),
        net=NetConfig(body=body),
        device=setting.device,
        precision=best_precision(setting.device),
    )
    learner = assemble(config, TaskSequence(tasks, tuple(range(n))))
    assert isinstance(learner, OnPolicy)
    with closing(learner):
        for task in tasks:
            learner.begin_task(task)
        yield learner


@dataclass(frozen=True)
class _Noise(Task):
    """A game of random pictures that never ends and never rewards."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (4, 84, 84)

    def open(self, n_envs: int, seed: int, *, training: bool, threads: int = 0) -> _NoiseEnv:
        return _NoiseEnv(n_envs, self.n_outputs, self.input_shape)


class _NoiseEnv:
    """Its environments (a `VectorEnv`)."""

    frame_skip = 4

    def __init__(self, n_envs: int, n_actions: int, obs_shape: tuple[int, ...]) -> None:
        self.n_envs, self.n_actions, self.obs_shape = n_envs, n_actions, obs_shape
        size = (FRAMES, n_envs, *obs_shape)
        self._frames = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
        no, episodes = np.zeros(n_envs, dtype=np.bool_), list[Episode]()
        reward = np.zeros(n_envs, dtype=np.float32)
        self._still = StepResult(self._frames[0], reward, no, no, None, episodes)
        self._step = 0

    def reset(self, seed: int) -> NDArray[np.uint8]:
        return cast(NDArray[np.uint8], self._frames[0])

    def send(self, actions: NDArray[np.int64]) -> None:
        self._step += 1

    def recv(self) -> StepResult:
        return self._still._replace(obs=self._frames[self._step % FRAMES])

    def state_dict(self) -> dict[str, NDArray[np.int64]]:
        return {"step": np.array(self._step)}

    def load_state_dict(self, state: dict[str, NDArray[np.int64]]) -> NDArray[np.uint8]:
        self._step = int(state["step"])
        return cast(NDArray[np.uint8], self._frames[self._step % FRAMES])

    def close(self) -> None:
        """Do nothing: there is nothing to close."""
