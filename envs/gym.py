"""The gymnasium back-end: slower than the native one, with modes, difficulties and screens.

It follows the native one frame by frame, down to its random numbers, so that both give the same
bytes for the same seeds and actions. A test holds this.
"""

from __future__ import annotations

from typing import Any

import ale_py
import cv2
import gymnasium
import numpy as np
from numpy.typing import NDArray

from clrl.envs.backend import EmulatorSpec, EmulatorStep
from clrl.envs.games import rom_path

__all__ = ["GymBackend"]


class _Emulator:
    """One game, with the preprocessing of ale-py's native environment."""

    def __init__(self, spec: EmulatorSpec) -> None:
        protocol = spec.protocol
        self._skip = protocol.frame_skip
        self._size = (protocol.size, protocol.size)
        self._max_frames = protocol.max_frames
        self._noop_max = protocol.noop_max
        self._fire_reset = spec.fire_reset
        env: Any = gymnasium.make(
            f"ALE/{spec.game}-v5",
            frameskip=1,
            repeat_action_probability=protocol.sticky,
            full_action_space=spec.full_actions,
            max_num_frames_per_episode=None,  # counted here, from the first observation on
            mode=spec.mode,
            difficulty=spec.difficulty,
            disable_env_checker=True,
        )
        self._env = env.unwrapped
        self._ale = self._env.ale
        full = spec.full_actions
        self._actions = self._ale.getLegalActionSet() if full else self._ale.getMinimalActionSet()
        self._rng = np.random.RandomState()  # seeded, it is the C++ library's mt19937
        self._screens = np.zeros((2, *self._ale.getScreenDims()), dtype=np.uint8)
        self.stack = np.zeros((protocol.stack, *self._size), dtype=np.uint8)

    @property
    def lives(self) -> int:
        return int(self._ale.lives())

    @property
    def frame(self) -> int:
        return int(self._ale.getEpisodeFrameNumber())

    def reset(self, seed: int) -> None:
        """Begin a game; a seed below 0 seeds nothing."""
        if seed >= 0:
            self._ale.setInt("random_seed", seed)
            self._rng = np.random.RandomState(seed)
            self._env.load_game()
        self._ale.reset_game()
        if self._fire_reset:
            self._ale.act(ale_py.Action.FIRE)
        for _ in range(self._idle_frames() - int(self._fire_reset)):
            self._ale.act(ale_py.Action.NOOP)
            if self._ale.game_over():
                self._ale.reset_game()
        self.stack[:] = 0
        self._ale.getScreenGrayscale(self._screens[0])
        self._screens[1] = 0
        self._push()
        self._elapsed = 0

    def step(self, action: int) -> tuple[float, bool, bool]:
        """Hold an action for the frames of a step: raw reward, game over, truncated."""
        reward = 0.0
        for left in range(self._skip, 0, -1):
            reward += self._ale.act(self._actions[action])
            self._elapsed += 1
            over = bool(self._ale.game_over())
            if over or self._elapsed >= self._max_frames:
                break  # without this frame, as the native one does
            if left <= 2:
                self._ale.getScreenGrayscale(self._screens[left - 1])
        self._push()
        return reward, over, self._elapsed >= self._max_frames and not over

    def screen(self) -> NDArray[np.uint8]:
        screen: NDArray[np.uint8] = self._ale.getScreenRGB()
        return screen

    def close(self) -> None:
        self._env.close()

    def _push(self) -> None:
        np.maximum(self._screens[0], self._screens[1], out=self._screens[0])
        self.stack[:-1] = self.stack[1:]
        self.stack[-1] = cv2.resize(self._screens[0], self._size, interpolation=cv2.INTER_AREA)

    def _idle_frames(self) -> int:
        """Draw from 0..noop_max-1 as libstdc++'s uniform_int_distribution does (Lemire 2019)."""
        n = max(1, self._noop_max)
        while True:
            product = int(self._rng.randint(0, 2**32, dtype=np.uint32)) * n
            if product % 2**32 >= 2**32 % n:
                return product >> 32


class GymBackend:
    """N emulators of one game, stepped one after another in the calling thread."""

    def __init__(self, spec: EmulatorSpec, n_envs: int) -> None:
        rom_path(spec.game)  # a missing ROM is reported in our words
        gymnasium.register_envs(ale_py)
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._emulators = [_Emulator(spec) for _ in range(n_envs)]
        self._sent: NDArray[np.int64] = np.zeros(n_envs, dtype=np.int64)

    def reset(
        self, mask: NDArray[np.bool_], seeds: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]:
        """Seed and restart the emulators in `mask`."""
        for i, seed in zip(np.flatnonzero(mask), seeds, strict=True):
            self._emulators[i].reset(int(seed))
        return self._now()

    def send(self, actions: NDArray[np.int64]) -> None:
        """Keep the actions for `recv`."""
        self._sent = actions

    def recv(self) -> EmulatorStep:
        """Play the step."""
        results, final = [], None
        for i, emulator in enumerate(self._emulators):
            result = emulator.step(int(self._sent[i]))
            results.append(result)
            if result[1] or result[2]:
                if final is None:
                    final = np.zeros((len(self._emulators), *emulator.stack.shape), dtype=np.uint8)
                final[i] = emulator.stack
                emulator.reset(-1)
        reward, over, truncated = (np.array(column) for column in zip(*results, strict=True))
        obs, lives, frame = self._now()
        return EmulatorStep(reward.astype(np.float32), over, truncated, obs, lives, frame, final)

    def render(self) -> NDArray[np.uint8]:
        """Return the screens, (N, height, width, 3)."""
        return np.stack([emulator.screen() for emulator in self._emulators])

    def close(self) -> None:
        """End the emulators."""
        for emulator in self._emulators:
            emulator.close()

    def _now(self) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]:
        obs = np.stack([emulator.stack for emulator in self._emulators])
        lives = np.array([emulator.lives for emulator in self._emulators], dtype=np.int32)
        frame = np.array([emulator.frame for emulator in self._emulators], dtype=np.int32)
        return obs, lives, frame
