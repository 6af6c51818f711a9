"""The rules common to all back-ends, on scripted emulators whose every step is known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from clrl.envs.backend import EmulatorStep
from clrl.envs.vector import AtariVectorEnv
from clrl.types import ClrlError, Episode

N = 2


@dataclass
class Script:
    """Two emulators: lives, game over, truncation and reward of each step are given."""

    lives: list[tuple[int, int]]
    over: list[tuple[int, int]] = field(default_factory=list)
    cut: list[tuple[int, int]] = field(default_factory=list)
    reward: tuple[float, float] = (7.0, -3.0)
    skip: int = 4
    seeds: list[tuple[list[int], list[int]]] = field(default_factory=list)
    sent: list[list[int]] = field(default_factory=list)
    closed: bool = False

    def reset(
        self, mask: NDArray[np.bool_], seeds: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]:
        self.seeds.append((np.flatnonzero(mask).tolist(), seeds.tolist()))
        if mask.all():
            self._frame = np.zeros(N, dtype=np.int32)
            self._lives = np.array([3, 3], dtype=np.int32)
        return self._obs(), self._lives, self._frame

    def send(self, actions: NDArray[np.int64]) -> None:
        self.sent.append(actions.tolist())

    def recv(self) -> EmulatorStep:
        step = len(self.sent) - 1
        over, cut = (
            np.array(rows[step] if step < len(rows) else (0, 0), dtype=np.bool_)
            for rows in (self.over, self.cut)
        )
        self._lives = np.array(self.lives[min(step, len(self.lives) - 1)], dtype=np.int32)
        self._frame = np.where(over | cut, 0, self._frame + self.skip).astype(np.int32)
        final = self._obs() + 1 if (over | cut).any() else None
        reward = np.array(self.reward, dtype=np.float32)
        return EmulatorStep(reward, over, cut, self._obs(), self._lives, self._frame, final)

    def close(self) -> None:
        self.closed = True

    def _obs(self) -> NDArray[np.uint8]:
        return np.full((N, 1, 2, 2), 10 * len(self.sent), dtype=np.uint8)


def make(script: Script, **changes: object) -> AtariVectorEnv:
    settings: dict[str, object] = {
        "frame_skip": 4,
        "legal": None,
        "life_loss_ends": True,
        "fire": 1,
        "look": None,
    }
    env = AtariVectorEnv(script, "script", N, 0, (1, 2, 2), 4, **settings | changes)  # type: ignore[arg-type]
    env.reset()
    return env


IDLE = np.array([2, 3])


def test_a_lost_life_ends_an_episode_but_not_the_game() -> None:
    lives = [(3, 3), (2, 3), (2, 3), (2, 1), (3, 1)]
    env = make(Script(lives, over=[(0, 0)] * 4 + [(1, 0)]))
    ends, games = [], []
    for _ in lives:
        env.send(IDLE)
        result = env.recv()
        ends.append(result.terminated.tolist())
        games += list(result.episodes)
    assert ends == [[False, False], [True, False], [False, False], [False, True], [True, False]]
    assert games == [Episode(0, 35.0, 5, False)]


def test_every_game_is_counted_from_its_own_start() -> None:
    over = [(0, 0), (1, 0), (0, 0), (0, 0), (1, 1)]
    env = make(Script([(3, 3)], over=over))
    games: list[Episode] = []
    for _ in over:
        env.send(IDLE)
        games += env.recv().episodes
    assert games == [
        Episode(0, 14.0, 2, False),
        Episode(0, 21.0, 3, False),
        Episode(1, -15.0, 5, False),
    ]


def test_without_the_rule_only_game_over_ends_an_episode() -> None:
    env = make(Script([(2, 3), (3, 2)], over=[(0, 0), (1, 0)]), life_loss_ends=False)
    for expected in ([False, False], [True, False]):
        env.send(IDLE)
        assert env.recv().terminated.tolist() == expected


def test_the_last_life_ends_with_the_game_and_not_before() -> None:
    # Qbert plays on for some frames at 0 lives, and comes back from game over with 3.
    env = make(Script([(1, 3), (0, 3), (3, 3), (3, 3)], over=[(0, 0), (0, 0), (1, 0)]))
    ends = []
    for _ in range(4):
        env.send(IDLE)
        ends.append(bool(env.recv().terminated[0]))
    assert ends == [True, False, True, False]


def test_fire_follows_a_lost_life_whatever_was_chosen() -> None:
    lives = [(3, 3), (2, 3), (2, 3), (2, 2), (2, 2)]
    for life_loss_ends in (True, False):
        script = Script(lives)
        env = make(script, life_loss_ends=life_loss_ends)
        for _ in lives:
            env.send(IDLE)
            env.recv()
        assert script.sent == [[2, 3], [2, 3], [1, 3], [2, 3], [2, 1]]
    script = Script(lives)
    env = make(script, fire=None)
    for _ in lives:
        env.send(IDLE)
        env.recv()
    assert script.sent == [[2, 3]] * 5


def test_truncated_games_are_counted_and_their_last_picture_kept() -> None:
    env = make(Script([(3, 3)], cut=[(0, 0), (0, 1)]), look=lambda obs: obs + 100)
    env.send(IDLE)
    assert env.recv().final_obs is None
    env.send(IDLE)
    result = env.recv()
    assert result.truncated.tolist() == [False, True]
    assert result.terminated.tolist() == [False, False]
    assert list(result.episodes) == [Episode(1, -6.0, 2, True)]
    assert result.final_obs is not None
    assert (result.obs == 120).all() and (result.final_obs == 121).all()


def test_rewards_are_raw_and_frames_are_counted() -> None:
    env = make(Script([(3, 3)]))
    env.send(IDLE)
    assert env.recv().reward.tolist() == [7.0, -3.0]
    assert env.frames == 4 * N


def test_a_wrong_frame_skip_is_noticed() -> None:
    env = make(Script([(3, 3)], skip=16))
    env.send(IDLE)
    with pytest.raises(RuntimeError, match="not 4"):
        env.recv()


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (np.array([0, 4]), r"expected 0\.\.3"),
        (np.array([-1, 0]), r"expected 0\.\.3"),
        (np.array([2, 0]), r"legal in this game are \[0, 1, 3\]"),
        (np.array([0]), r"shape \(2,\)"),
        (np.array([0.0, 1.0]), "integers"),
    ],
)
def test_no_emulator_sees_a_wrong_action(actions: NDArray[np.int64], words: str) -> None:
    script = Script([(3, 3)])
    env = make(script, legal=(0, 1, 3))
    with pytest.raises(ClrlError, match=words):
        env.send(actions)
    assert script.sent == []
    env.send(np.array([3, 1]))  # and it goes on


def test_steps_out_of_turn_are_refused() -> None:
    env = make(Script([(3, 3)]))
    with pytest.raises(ClrlError, match="without send"):
        env.recv()
    env.send(IDLE)
    for call in (lambda: env.send(IDLE), env.state_dict):
        with pytest.raises(ClrlError, match="out of turn"):
            call()


def test_emulators_are_seeded_again_at_the_first_game_over_after_the_span(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(AtariVectorEnv, "SEED_SPAN", 3)
    over = [(0, 0), (1, 0), (0, 0), (0, 0), (1, 0), (1, 1), (0, 0)]
    script = Script([(3, 3)], over=over)
    env = make(script)
    for _ in over:
        env.send(IDLE)
        env.recv()
    assert [who for who, _ in script.seeds] == [[0, 1], [0], [1]]  # 0 after 5 steps, 1 after 6
    every = [seed for _, seeds in script.seeds for seed in seeds]
    assert len(set(every)) == 4
    assert all(0 <= seed < 2**31 for seed in every)
    assert env.state_dict()["log_lengths"].tolist() == [2, 1]


def test_a_state_of_something_else_is_refused() -> None:
    env = make(Script([(3, 3)]))
    state = env.state_dict()
    other = dict(state, identity=np.frombuffer(b"other rules", dtype=np.uint8))
    with pytest.raises(ClrlError, match="a state of other rules: expected script"):
        env.load_state_dict(other)
    with pytest.raises(ClrlError, match="do not lead to"):
        env.load_state_dict(dict(state, checksum=state["checksum"] + 1))


def test_closing_closes_the_emulators_and_native_ones_have_no_pictures() -> None:
    script = Script([(3, 3)])
    env = make(script)
    with pytest.raises(ClrlError, match="backend=gym"):
        env.render()
    env.close()
    assert script.closed
