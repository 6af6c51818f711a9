"""What brings emulators back to where they were: their seeds, and the actions played since."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["History"]


class History:
    """Seeds and executed actions of N emulators. Neither back-end can copy an emulator's state."""

    def __init__(self, n_envs: int) -> None:
        self.base_seed = 0
        self.counts = np.zeros(n_envs, dtype=np.int64)  # how often each has been seeded
        self.seeds = np.zeros(n_envs, dtype=np.int64)
        self.lengths = np.zeros(n_envs, dtype=np.int64)  # actions since it was last seeded
        self._actions = np.zeros((n_envs, 1024), dtype=np.uint8)
        self._rows = np.arange(n_envs)

    def begin(self, base_seed: int) -> NDArray[np.int64]:
        """Forget everything and return the first seeds (N,) that follow from `base_seed`."""
        self.base_seed = base_seed
        self.counts[:] = 0
        return self.reseed(np.ones(len(self.counts), dtype=np.bool_))

    def reseed(self, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Forget the actions of the emulators in `mask` (N,) and return a new seed for each."""
        for i in np.flatnonzero(mask):
            sequence = np.random.SeedSequence((self.base_seed, int(i), int(self.counts[i])))
            self.seeds[i] = sequence.generate_state(1)[0] >> 1  # ALE's seeds are 31 bits
        self.counts[mask] += 1
        self.lengths[mask] = 0
        return self.seeds[mask]

    def record(self, actions: NDArray[np.int64]) -> None:
        """Append one executed action (N,) for each emulator."""
        if self.lengths.max() == self._actions.shape[1]:
            self._actions = np.concatenate([self._actions, np.zeros_like(self._actions)], axis=1)
        self._actions[self._rows, self.lengths] = actions
        self.lengths += 1

    def steps_to_replay(self) -> int:
        """Return how many steps bring all emulators to the present."""
        return int(self.lengths.max())

    def beginning_at(self, step: int) -> NDArray[np.bool_]:
        """Tell which emulators (N,) begin before a step of the replay, so that all end together."""
        begins: NDArray[np.bool_] = self.lengths == self.steps_to_replay() - step
        return begins

    def actions_at(self, step: int) -> NDArray[np.int64]:
        """Return the actions (N,) of a step of the replay; 0 for those that have not begun."""
        place = step - (self.steps_to_replay() - self.lengths)
        actions = self._actions[self._rows, np.maximum(place, 0)].astype(np.int64)
        return np.where(place >= 0, actions, 0)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return the state as arrays; the actions of all emulators one after another."""
        logs = [self._actions[i, :n] for i, n in enumerate(self.lengths)]
        return {
            "base_seed": np.array(self.base_seed, dtype=np.int64),
            "counts": self.counts.copy(),
            "seeds": self.seeds.copy(),
            "log_lengths": self.lengths.copy(),
            "log": np.concatenate(logs),
        }

    def load_state_dict(self, state: dict[str, NDArray[Any]]) -> None:
        """Restore what `state_dict` returned."""
        self.base_seed = int(state["base_seed"])
        self.counts = state["counts"].astype(np.int64)
        self.seeds = state["seeds"].astype(np.int64)
        self.lengths = state["log_lengths"].astype(np.int64)
        capacity = max(1024, int(self.lengths.max()) + 1)
        self._actions = np.zeros((len(self.lengths), capacity), dtype=np.uint8)
        logs = np.split(state["log"], np.cumsum(self.lengths)[:-1])
        for i, log in enumerate(logs):
            self._actions[i, : len(log)] = log
