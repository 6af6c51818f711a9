"""What an emulator back-end offers; all rules common to back-ends are in `envs.vector`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from clrl.envs.protocol import AtariProtocol

__all__ = ["Backend", "EmulatorSpec", "EmulatorStep", "Renders"]


@dataclass(frozen=True)
class EmulatorSpec:
    """What is needed to start N emulators of one game."""

    game: str
    protocol: AtariProtocol
    full_actions: bool  # whether actions are ALE's 18 numbers or indices of the minimal set
    fire_reset: bool  # press FIRE at the start of a game
    mode: int | None = None
    difficulty: int | None = None


class EmulatorStep(NamedTuple):
    """One step of N emulators; where a game ended, all but the first three are of the next one."""

    reward: NDArray[np.float32]  # (N,) raw
    game_over: NDArray[np.bool_]  # (N,)
    truncated: NDArray[np.bool_]  # (N,) the frame cap was reached, and not game over
    obs: NDArray[np.uint8]  # (N, stack, size, size)
    lives: NDArray[np.int32]  # (N,)
    frame: NDArray[np.int32]  # (N,) frames since the start of the game
    final_obs: NDArray[np.uint8] | None  # as obs, rows valid where a game ended; None if none did


class Backend(Protocol):
    """N emulators of one game that begin the next game by themselves when one ends."""

    def reset(
        self, mask: NDArray[np.bool_], seeds: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]:
        """Restart the emulators in `mask` (N,), with a seed for each (-1: none); the others stay.

        Returns:
            Observations, lives and frame numbers of all N emulators.
        """
        ...

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start a step; actions have been validated."""
        ...

    def recv(self) -> EmulatorStep:
        """Wait for the step; raises `ClrlError` if it does not come."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Renders(Protocol):
    """A back-end that can show its screens."""

    def render(self) -> NDArray[np.uint8]:
        """Return the screens, (N, height, width, 3)."""
        ...
