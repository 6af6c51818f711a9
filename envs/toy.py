"""A game without an emulator, learned in seconds: press the button of the bright quarter.

The same as a set of pictures: the class is the button to press.

All that happens is a function of the seed and the step's number: its state is a few numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clrl.envs.datasets import Examples
from clrl.types import ClrlError, Episode, StepResult, Task, TaskSequence

__all__ = ["ToyTask", "ToyVectorEnv", "toy_sequence"]

SIDE = 12
TIME_LIMIT = 24  # agent steps; an episode this long is truncated
END_CHANCE = 1 / 16  # of game over at each step
PICTURES = {"train": (512, 1), "test": (256, 2)}  # how many, and the seed they are drawn with


class ToyVectorEnv:
    """N toy games (a `VectorEnv`): reward 1 for the action that belongs to the bright quarter.

    Observations are (N, 2, 12, 12) uint8: the first channel shows the quarter, the second noise.
    A game ends by chance (game over) or after 24 steps (truncated).
    """

    frame_skip = 1
    obs_shape = (2, SIDE, SIDE)

    def __init__(self, n_envs: int, n_actions: int, answers: Sequence[int], seed: int) -> None:
        """Make the games; `answers[q]` is the right action when quarter q is bright."""
        self.n_envs = n_envs
        self.n_actions = n_actions
        self.seed = seed
        self._answers = np.asarray(answers, dtype=np.int64)
        self._step = -1
        self._actions: NDArray[np.int64] | None = None

    def reset(self, seed: int | None = None) -> NDArray[np.uint8]:
        """Begin anew; without a seed, with the one given to `open`. Returns (N, 2, 12, 12)."""
        self.seed = self.seed if seed is None else seed
        self._step = 0
        self._returns = np.zeros(self.n_envs, dtype=np.float64)
        self._lengths = np.zeros(self.n_envs, dtype=np.int64)
        return self._draw()

    @property
    def answer(self) -> NDArray[np.int64]:
        """(N,) the action that the next step rewards."""
        return self._answers[self._bright]

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start a step with one action per game; `ClrlError` for one outside 0..n_actions-1."""
        if self._step < 0:
            raise ClrlError("send() before reset(): call reset(seed) first")
        actions = np.asarray(actions)
        if actions.shape != (self.n_envs,) or actions.dtype.kind != "i":
            raise ClrlError(
                f"actions of shape {actions.shape} and type {actions.dtype}: "
                f"expected integers of shape ({self.n_envs},)"
            )
        if actions.min() < 0 or actions.max() >= self.n_actions:
            raise ClrlError(f"actions {actions.tolist()}: expected 0..{self.n_actions - 1}")
        self._actions = actions.astype(np.int64)

    def recv(self) -> StepResult:
        """Finish the step begun by `send`."""
        if self._actions is None:
            raise ClrlError("recv() without send(): send actions first")
        reward = (self._actions == self.answer).astype(np.float32)
        self._actions = None
        last_obs = self._obs
        self._returns += reward
        self._lengths += 1
        terminated = self._over.copy()
        truncated = (self._lengths >= TIME_LIMIT) & ~terminated
        self._step += 1
        obs = self._draw()
        ended = np.flatnonzero(terminated | truncated)
        episodes = [
            Episode(int(i), float(self._returns[i]), int(self._lengths[i]), bool(truncated[i]))
            for i in ended
        ]
        self._returns[ended] = 0.0
        self._lengths[ended] = 0
        final_obs = last_obs if truncated.any() else None
        return StepResult(obs, reward, terminated, truncated, final_obs, episodes)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return the seed, the step's number and the scores so far."""
        return {
            "clock": np.array([self.seed, self._step], dtype=np.int64),
            "returns": self._returns.copy(),
            "lengths": self._lengths.copy(),
        }

    def load_state_dict(self, state: dict[str, NDArray[Any]]) -> NDArray[np.uint8]:
        """Restore a state and return its observations; `ClrlError` if it has other than N games."""
        if state["returns"].shape != (self.n_envs,):
            raise ClrlError(
                f"a state of {len(state['returns'])} environments: expected {self.n_envs}; "
                "resume with the n_envs it was saved with"
            )
        self.seed, self._step = (int(x) for x in state["clock"])
        self._returns = state["returns"].copy()
        self._lengths = state["lengths"].copy()
        self._actions = None
        return self._draw()

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _draw(self) -> NDArray[np.uint8]:
        rng = np.random.default_rng((self.seed, self._step))
        self._bright = rng.integers(len(self._answers), size=self.n_envs)
        self._over = rng.random(self.n_envs) < END_CHANCE
        obs = rng.integers(0, 40, size=(self.n_envs, *self.obs_shape), dtype=np.uint8)
        half = SIDE // 2
        quarters = obs[:, 0].reshape(self.n_envs, 2, half, 2, half)  # a view: rows, columns
        quarters[np.arange(self.n_envs), self._bright // 2, :, self._bright % 2] += 200
        self._obs = obs
        return obs


@dataclass(frozen=True)
class ToyTask(Task):
    """A toy game. Its legal actions (all, if `legal` is None), turned by `shift`, are the answers.

    Raises:
        ValueError: with fewer than one or more than four legal actions (there are four quarters).
    """

    shift: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.answers) <= 4:
            raise ValueError(f"toy task {self.name!r}: {len(self.answers)} legal actions, not 1..4")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(2, 12, 12): the shape of one observation."""
        return ToyVectorEnv.obs_shape

    @property
    def answers(self) -> tuple[int, ...]:
        """The right action for each quarter that can be bright."""
        actions = tuple(range(self.n_outputs)) if self.legal is None else self.legal
        turn = self.shift % max(1, len(actions))
        return actions[turn:] + actions[:turn]

    def open(self, n_envs: int, seed: int, *, training: bool, threads: int = 0) -> ToyVectorEnv:
        """Open `n_envs` games; `training` and `threads` change nothing here."""
        return ToyVectorEnv(n_envs, self.n_outputs, self.answers, seed)

    @property
    def evaluated_split(self) -> str:
        """The part of the pictures that evaluations use."""
        return "test"

    def examples(self, split: str) -> Examples:
        """Return pictures (n, 2, 12, 12) and the right action for each as its label."""
        n, seed = PICTURES[split]
        env = ToyVectorEnv(n, self.n_outputs, self.answers, seed)
        x = torch.from_numpy(env.reset())
        return Examples(x, torch.from_numpy(env.answer))


def toy_sequence(k: int, *, cycles: int = 1, shared_head: bool = False) -> TaskSequence:
    """Make k toy tasks that contradict each other, with 3, 4, 2, 3, ... actions.

    With `shared_head` all have 4 outputs, of which the first 3, 4, 2, ... are legal.
    """
    tasks = []
    for i in range(k):
        n = (3, 4, 2)[i % 3]
        name = f"toy-{chr(ord('a') + i)}"
        if shared_head:
            tasks.append(ToyTask(i, name, 4, tuple(range(n)), shift=i))
        else:
            tasks.append(ToyTask(i, name, n, shift=i))
    return TaskSequence(tuple(tasks), tuple(range(k)) * cycles)
