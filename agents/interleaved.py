"""Several games as one vector of environments, for methods that learn tasks together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clrl.types import ClrlError, StepResult, VectorEnv

__all__ = ["Interleaved", "shares"]


def shares(n_envs: int, n_tasks: int) -> list[int]:
    """Divide environments among tasks as evenly as can be, the first ones getting one more.

    Raises:
        ClrlError: (exit 2) fewer environments than tasks.
    """
    if n_envs < n_tasks:
        raise ClrlError(
            f"agent.n_envs is {n_envs}: expected at least {n_tasks}, one for each task that the "
            "method learns together",
            2,
        )
    return [n_envs // n_tasks + (k < n_envs % n_tasks) for k in range(n_tasks)]


class Interleaved:
    """Vectors of environments side by side (a `VectorEnv`): rows in the order they were given."""

    def __init__(self, parts: Sequence[VectorEnv]) -> None:
        """Join environments whose observations have one shape; they are closed together."""
        self._parts = parts
        self._ends = np.cumsum([part.n_envs for part in parts])
        self.n_envs = int(self._ends[-1])
        self.n_actions = max(part.n_actions for part in parts)
        self.obs_shape = parts[0].obs_shape
        self.frame_skip = parts[0].frame_skip

    def reset(self, seed: int) -> NDArray[np.uint8]:
        return np.concatenate([part.reset(seed + k) for k, part in enumerate(self._parts)])

    def send(self, actions: NDArray[np.int64]) -> None:
        for part, own in zip(self._parts, np.split(actions, self._ends[:-1]), strict=True):
            part.send(own)

    def recv(self) -> StepResult:
        results = [part.recv() for part in self._parts]
        episodes = [
            episode._replace(env=int(end) - part.n_envs + episode.env)
            for part, end, result in zip(self._parts, self._ends, results, strict=True)
            for episode in result.episodes
        ]
        final = [
            np.zeros_like(result.obs) if result.final_obs is None else result.final_obs
            for result in results
        ]
        any_final = any(result.final_obs is not None for result in results)
        return StepResult(
            obs=np.concatenate([result.obs for result in results]),
            reward=np.concatenate([result.reward for result in results]),
            terminated=np.concatenate([result.terminated for result in results]),
            truncated=np.concatenate([result.truncated for result in results]),
            final_obs=np.concatenate(final) if any_final else None,
            episodes=episodes,
        )

    def state_dict(self) -> dict[str, NDArray[Any]]:
        return {
            f"{k}.{name}": value
            for k, part in enumerate(self._parts)
            for name, value in part.state_dict().items()
        }

    def load_state_dict(self, state: dict[str, NDArray[Any]]) -> NDArray[np.uint8]:
        own: list[dict[str, NDArray[Any]]] = [{} for _ in self._parts]
        for key, value in state.items():
            k, _, name = key.partition(".")
            own[int(k)][name] = value
        return np.concatenate(
            [part.load_state_dict(one) for part, one in zip(self._parts, own, strict=True)]
        )

    def close(self) -> None:
        for part in self._parts:
            part.close()
