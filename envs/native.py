"""The native back-end: ale-py's vectorised emulators, stepped by C++ threads."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from ale_py.vector_env import AtariVectorEnv as AleVectorEnv
from numpy.typing import NDArray

from clrl.envs.backend import EmulatorSpec, EmulatorStep
from clrl.envs.games import rom_name, rom_path
from clrl.types import ClrlError

__all__ = ["NativeBackend"]


class _Waiter:
    """Makes calls in a thread of its own, so that an answer that never comes can be noticed.

    ale-py's `recv` and `reset` cannot be interrupted, and wait for ever once one of its threads has
    failed.
    """

    def __init__(self) -> None:
        self._call: Callable[[], Any] = lambda: None
        self._go = threading.Semaphore(0)
        self._done = threading.Semaphore(0)
        self._result: Any = None
        self._stop = False
        self._thread = threading.Thread(target=self._loop, name="ale-wait", daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        while True:
            self._go.acquire()
            if self._stop:
                return
            try:
                self._result = self._call()
            except Exception as error:  # handed to the thread that waits
                self._result = error
            self._done.release()

    def begin(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._go.release()

    def wait(self, timeout: float) -> Any:
        """Return what the call gave, or None after `timeout` seconds.

        Waits a second at a time: a process that was stopped for an hour, or a laptop that slept,
        loses one of them and not all.
        """
        slices = max(1, round(timeout))
        if not any(self._done.acquire(timeout=timeout / slices) for _ in range(slices)):
            return None
        result, self._result = self._result, None
        if isinstance(result, Exception):
            raise result
        return result

    def stop(self) -> None:
        self._stop = True
        self._go.release()
        self._thread.join(timeout=1.0)


_abandoned: list[Any] = []  # destroying emulators that a thread waits on would crash the process


class NativeBackend:
    """N emulators of one game in `threads` C++ threads (0: as many as the machine has)."""

    timeout = 60.0  # seconds after which a step, or a start, is given up

    def __init__(self, spec: EmulatorSpec, n_envs: int, threads: int) -> None:
        protocol = spec.protocol
        rom_path(spec.game)  # a missing ROM is reported in our words
        self._game = spec.game
        # Lives are handled by the caller: `episodic_life` would restart the game at each one.
        self._env = AleVectorEnv(
            rom_name(spec.game),
            n_envs,
            num_threads=threads,
            max_num_frames_per_episode=protocol.max_frames,
            repeat_action_probability=protocol.sticky,
            full_action_space=spec.full_actions,
            autoreset_mode="SameStep",
            img_height=protocol.size,
            img_width=protocol.size,
            stack_num=protocol.stack,
            frameskip=protocol.frame_skip,
            noop_max=protocol.noop_max,
            episodic_life=False,
            life_loss_info=False,
            reward_clipping=False,
            use_fire_reset=spec.fire_reset,
        )
        self._strength = np.ones(n_envs, dtype=np.float32)
        self._waiter = _Waiter()
        self._finalizer = weakref.finalize(self, self._waiter.stop)
        self._sent: NDArray[np.int64] | None = None

    def reset(
        self, mask: NDArray[np.bool_], seeds: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]:
        """Seed and restart the emulators in `mask`; this loads their ROM again (50 ms each)."""
        ale, which = self._env.ale, np.flatnonzero(mask)  # not self: the thread would keep it alive
        self._waiter.begin(lambda: ale.reset(which, seeds))
        obs, info = self._answer(f"the start of {len(which)} games")
        return obs, info["lives"], info["episode_frame_number"]

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start a step."""
        self._sent = actions
        self._env.ale.send(actions, self._strength)
        self._waiter.begin(self._env.ale.recv)

    def recv(self) -> EmulatorStep:
        """Wait for the step; `ClrlError` if it has not come after `timeout` seconds."""
        sent = [] if self._sent is None else self._sent.tolist()
        obs, reward, game_over, truncated, info = self._answer(f"the actions {sent}")
        return EmulatorStep(
            reward.astype(np.float32),
            game_over,
            truncated,
            obs,
            info["lives"],
            info["episode_frame_number"],
            info.get("final_obs"),
        )

    def _answer(self, question: str) -> Any:
        result = self._waiter.wait(self.timeout)
        if result is None:
            _abandoned.append((self._env, self._waiter))
            self._finalizer.detach()
            raise ClrlError(
                f"{self._game}: the emulators gave no answer within {self.timeout:.0f} s "
                f"to {question}: resume the run from its last checkpoint"
            )
        return result

    def close(self) -> None:
        """Stop the receiving thread; the emulators end with their last reference."""
        self._finalizer()
