"""N copies of one Atari game: the rules that hold whatever emulates it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clrl.envs.backend import Backend, Renders
from clrl.envs.history import History
from clrl.types import ClrlError, Episode, StepResult

__all__ = ["AtariVectorEnv", "Look"]

Look = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]  # changes observations (N, 4, 84, 84)


class AtariVectorEnv:
    """N Atari games (a `VectorEnv`) that begin anew by themselves.

    Where `fire` is given, the first action after a lost life is FIRE whatever was chosen: many
    games wait for it, and a greedy agent that does not press it stands still for ever.

    Emulators are seeded again when a game ends and more than `SEED_SPAN` actions have been played
    since: this bounds what `load_state_dict` has to replay, and happens whether or not states are
    taken, so that taking one changes nothing.
    """

    SEED_SPAN = 10_000

    def __init__(
        self,
        backend: Backend,
        identity: str,
        n_envs: int,
        seed: int,
        obs_shape: tuple[int, ...],
        n_actions: int,
        *,
        frame_skip: int,
        legal: tuple[int, ...] | None,
        life_loss_ends: bool,
        fire: int | None,
        look: Look | None,
    ) -> None:
        """Wrap a back-end.

        Args:
            backend: the emulators.
            identity: game and rules in words; a state is only loaded where it is the same.
            n_envs: how many emulators.
            seed: what `reset` uses when it is not given one.
            obs_shape: of one observation.
            n_actions: actions are 0..n_actions-1.
            frame_skip: frames that every step must advance.
            legal: the only actions allowed; None: all.
            life_loss_ends: report a lost life as the end of an episode.
            fire: the action that follows a lost life; None: the chosen one.
            look: applied to all observations.
        """
        self.n_envs = n_envs
        self.n_actions = n_actions
        self.obs_shape = obs_shape
        self.frame_skip = frame_skip
        self.seed = seed
        self.frames = 0  # raw frames of all games so far (the last step of a game counts in full)
        self._backend = backend
        self._identity = identity
        self._legal = np.ones(n_actions, dtype=np.bool_)
        if legal is not None:
            self._legal[:] = False
            self._legal[list(legal)] = True
        self._life_loss_ends = life_loss_ends
        self._fire = fire
        self._look = look
        self._history = History(n_envs)
        self._obs = np.zeros((n_envs, *obs_shape), dtype=np.uint8)
        self._lives = np.zeros(n_envs, dtype=np.int32)
        self._frame = np.zeros(n_envs, dtype=np.int32)
        self._returns = np.zeros(n_envs, dtype=np.float64)
        self._lengths = np.zeros(n_envs, dtype=np.int64)
        self._must_fire = np.zeros(n_envs, dtype=np.bool_)
        self._ready = False
        self._sent = False

    def reset(self, seed: int | None = None) -> NDArray[np.uint8]:
        """Begin new games; without a seed, with the one given to `open`. Returns observations."""
        self.seed = self.seed if seed is None else seed
        self._begin(np.ones(self.n_envs, dtype=np.bool_), self._history.begin(self.seed))
        self._returns[:], self._lengths[:], self._must_fire[:] = 0.0, 0, False
        self.frames = 0
        self._ready, self._sent = True, False
        return self._seen(self._obs)

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start a step with one action per game.

        Raises:
            ClrlError: for an action that is out of range or not legal here: no emulator sees it.
        """
        if not self._ready or self._sent:
            raise ClrlError("send() out of turn: call reset(seed) first, then send() and recv()")
        actions = self._checked(actions)
        if self._fire is not None:
            actions = np.where(self._must_fire, self._fire, actions)
        self._history.record(actions)
        self._sent = True
        self._backend.send(actions)

    def recv(self) -> StepResult:
        """Wait for the step; `ClrlError` naming game and actions if it does not come."""
        if not self._sent:
            raise ClrlError("recv() without send(): send actions first")
        self._sent = False
        step = self._backend.recv()
        ended = step.game_over | step.truncated
        self._check_frames(step.frame, ended)
        # At 0 lives some games (Qbert) play on for a few frames: game over ends these episodes.
        life_lost = (step.lives < self._lives) & (step.lives > 0) & ~ended
        terminated = step.game_over | life_lost if self._life_loss_ends else step.game_over
        self._obs, self._lives, self._frame = step.obs, step.lives, step.frame
        self._must_fire = life_lost
        self._returns += step.reward
        self._lengths += 1
        episodes = self._finish(ended, step.truncated) if ended.any() else []
        final_obs = None
        if step.final_obs is not None and step.truncated.any():
            final_obs = self._seen(step.final_obs)
        return StepResult(
            self._seen(self._obs), step.reward, terminated, step.truncated, final_obs, episodes
        )

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return seeds, the actions since, and the scores so far; nothing is changed.

        Raises:
            ClrlError: between `send` and `recv`, or before `reset`.
        """
        if not self._ready or self._sent:
            raise ClrlError("state_dict() out of turn: call it after reset() or recv()")
        return {
            **self._history.state_dict(),
            "identity": np.frombuffer(self._identity.encode(), dtype=np.uint8),
            "returns": self._returns.copy(),
            "lengths": self._lengths.copy(),
            "must_fire": self._must_fire.copy(),
            "frames": np.array(self.frames, dtype=np.int64),
            "checksum": np.array(self._checksum(), dtype=np.int64),
        }

    def load_state_dict(self, state: dict[str, NDArray[Any]]) -> NDArray[np.uint8]:
        """Play again what led to a state, and return its observations.

        Takes as long as playing `SEED_SPAN` steps and one game at most.

        Raises:
            ClrlError: if the state is of another game, other rules or another number of games, or
                if the emulators do not come to it (another version of ale-py).
        """
        identity = state["identity"].tobytes().decode()
        if identity != self._identity:
            raise ClrlError(f"a state of {identity}: expected {self._identity}")
        self._history.load_state_dict(state)
        self._replay()
        if self._checksum() != int(state["checksum"]):
            raise ClrlError(
                f"the saved actions do not lead to the saved state of {identity}: "
                "resume with the version of ale-py that the run began with"
            )
        self.seed = self._history.base_seed
        self.frames = int(state["frames"])
        self._returns = state["returns"].astype(np.float64)
        self._lengths = state["lengths"].astype(np.int64)
        self._must_fire = state["must_fire"].astype(np.bool_)
        self._ready, self._sent = True, False
        return self._seen(self._obs)

    def render(self) -> NDArray[np.uint8]:
        """Return the screens (N, height, width, 3) as they are; `ClrlError` if native."""
        if not isinstance(self._backend, Renders):
            raise ClrlError("the native back-end has no pictures: set protocol.backend=gym", 2)
        return self._backend.render()

    def close(self) -> None:
        """End the emulators."""
        self._ready = False
        self._backend.close()

    def _begin(self, mask: NDArray[np.bool_], seeds: NDArray[np.int64]) -> None:
        self._obs, self._lives, self._frame = self._backend.reset(mask, seeds)

    def _seen(self, obs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return obs if self._look is None else self._look(obs)

    def _checked(self, actions: NDArray[np.int64]) -> NDArray[np.int64]:
        actions = np.asarray(actions)
        if actions.shape != (self.n_envs,) or actions.dtype.kind not in "iu":
            raise ClrlError(
                f"actions of shape {actions.shape} and type {actions.dtype}: "
                f"expected integers of shape ({self.n_envs},)"
            )
        if actions.min() < 0 or actions.max() >= self.n_actions:
            raise ClrlError(f"actions {actions.tolist()}: expected 0..{self.n_actions - 1}")
        if not self._legal[actions].all():
            legal = np.flatnonzero(self._legal).tolist()
            raise ClrlError(f"actions {actions.tolist()}: legal in this game are {legal}")
        return actions.astype(np.int64)

    def _check_frames(self, frame: NDArray[np.int32], ended: NDArray[np.bool_]) -> None:
        advanced = frame - self._frame
        if not ((advanced == self.frame_skip) | ended).all():
            raise RuntimeError(f"a step advanced {advanced} frames, not {self.frame_skip}")
        self.frames += self.frame_skip * self.n_envs

    def _finish(self, ended: NDArray[np.bool_], truncated: NDArray[np.bool_]) -> list[Episode]:
        episodes = [
            Episode(int(i), float(self._returns[i]), int(self._lengths[i]), bool(truncated[i]))
            for i in np.flatnonzero(ended)
        ]
        self._returns[ended] = 0.0
        self._lengths[ended] = 0
        due = ended & (self._history.lengths > self.SEED_SPAN)
        if due.any():
            self._begin(due, self._history.reseed(due))
        return episodes

    def _replay(self) -> None:
        """Play the recorded actions so that all emulators reach the present at the same step."""
        history = self._history
        steps = history.steps_to_replay()
        first = history.beginning_at(0)
        # Those that begin later play anything until then, from anywhere: -1 seeds nothing.
        self._begin(np.ones(self.n_envs, dtype=np.bool_), np.where(first, history.seeds, -1))
        for i in range(steps):
            self._backend.send(history.actions_at(i))
            step = self._backend.recv()
            self._obs, self._lives, self._frame = step.obs, step.lives, step.frame
            late = history.beginning_at(i + 1)
            if late.any():
                self._begin(late, history.seeds[late])

    def _checksum(self) -> int:
        where = np.concatenate([self._lives, self._frame]).astype(np.int64)
        return zlib.crc32(where.tobytes(), zlib.crc32(np.ascontiguousarray(self._obs).tobytes()))
