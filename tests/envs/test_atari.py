"""Real games: both back-ends give the same bytes, follow the rules, and resume exactly."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clrl.envs.atari import AtariTask, AtariVectorEnv
from clrl.envs.native import NativeBackend
from clrl.envs.protocol import AtariProtocol
from clrl.envs.sequences import build_sequence
from clrl.types import ClrlError, StepResult

pytestmark = pytest.mark.atari


def task_of(entry: str, *, shared: bool = False, **rules: Any) -> AtariTask:
    (task,) = build_sequence([entry], 1, AtariProtocol(**rules), shared).tasks
    assert isinstance(task, AtariTask)
    return task


def actions_of(env: AtariVectorEnv, steps: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, env.n_actions, (steps, env.n_envs))


def step(env: AtariVectorEnv, actions: NDArray[np.int64]) -> StepResult:
    env.send(actions)
    return env.recv()


def assert_same(one: StepResult, two: StepResult) -> None:
    for a, b in zip(one[:4], two[:4], strict=True):
        assert isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert list(one.episodes) == list(two.episodes)
    assert (one.final_obs is None) == (two.final_obs is None)
    if one.final_obs is not None and two.final_obs is not None:
        rows = one.truncated  # the others are not promised
        np.testing.assert_array_equal(one.final_obs[rows], two.final_obs[rows])


@pytest.mark.parametrize(
    ("game", "rules", "ended"),
    [
        ("Pong", {"noop_max": 0, "max_frames": 401}, "truncated"),
        ("Breakout", {"noop_max": 0}, "terminated"),
        ("Freeway", {"noop_max": 0, "max_frames": 400}, "truncated"),
        ("Breakout", {"sticky": 0.25}, "terminated"),
        ("Seaquest", {"preset": "machado"}, "terminated"),
    ],
)
def test_both_back_ends_give_the_same_bytes(game: str, rules: dict[str, Any], ended: str) -> None:
    native = task_of(game, **rules).open(2, 3, training=True, threads=1)
    gym = task_of(game, **rules, backend="gym").open(2, 3, training=True)
    np.testing.assert_array_equal(native.reset(), gym.reset())
    ends = games = 0
    for actions in actions_of(native, 220 if ended == "truncated" else 380):
        one, two = step(native, actions), step(gym, actions)
        assert_same(one, two)
        np.testing.assert_array_equal(native._lives, gym._lives)
        np.testing.assert_array_equal(native._frame, gym._frame)
        ends += int(getattr(one, ended).sum())
        games += len(one.episodes)
    assert games > 0 and ends > 0  # the comparison went across the ends of games
    native.close()
    gym.close()


@pytest.mark.parametrize("backend", ["native", "gym"])
@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_a_restored_game_goes_on_as_if_it_had_never_stopped(
    backend: str, sticky: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AtariVectorEnv, "SEED_SPAN", 80)
    task = task_of("Breakout", backend=backend, sticky=sticky)
    env, other = (task.open(3, seed, training=True, threads=1) for seed in (1, 2))
    env.reset()
    actions = actions_of(env, 560)
    for action in actions[:260]:
        obs = step(env, action).obs
    state = env.state_dict()
    assert state["counts"].min() > 1  # across games and seeds,
    assert len(set(state["log_lengths"])) == 3  # at different steps
    np.testing.assert_array_equal(other.load_state_dict(state), obs)
    lost = games = 0
    for action in actions[260:]:
        one, two = step(env, action), step(other, action)
        assert_same(one, two)
        lost += int(one.terminated.sum())
        games += len(one.episodes)
    assert lost > games > 0
    for key, value in env.state_dict().items():
        np.testing.assert_array_equal(value, other.state_dict()[key])
    env.close()
    other.close()


def test_taking_states_changes_nothing() -> None:
    task = task_of("Breakout", sticky=0.25)
    env, other = (task.open(2, 1, training=True, threads=1) for _ in range(2))
    np.testing.assert_array_equal(env.reset(), other.reset())
    for action in actions_of(env, 80):
        env.state_dict()
        assert_same(step(env, action), step(other, action))
    env.close()
    other.close()


def test_a_state_of_another_game_or_number_is_refused() -> None:
    env = task_of("Breakout").open(2, 1, training=True, threads=1)
    env.reset()
    state = env.state_dict()
    for task, n_envs in (
        (task_of("Pong"), 2),
        (task_of("Breakout"), 3),
        (task_of("Breakout", sticky=0.1), 2),
    ):
        other = task.open(n_envs, 1, training=True, threads=1)
        with pytest.raises(ClrlError, match="2 x Breakout"):
            other.load_state_dict(state)
        other.close()
    env.close()


def test_a_lost_life_does_not_restart_the_game() -> None:
    task = task_of("Breakout")
    training = task.open(1, 4, training=True, threads=1)
    evaluation = task.open(1, 4, training=False, threads=1)
    training.reset()
    evaluation.reset()
    ends, score, lives = 0, 0.0, [5]
    for action in actions_of(training, 600):
        one, two = step(training, action), step(evaluation, action)
        np.testing.assert_array_equal(one.obs, two.obs)  # the same game goes on
        ends += int(one.terminated[0])
        score += float(one.reward[0])
        assert two.terminated[0] == bool(two.episodes)
        lives.append(int(training._lives[0]))
        if one.episodes:
            break
    assert ends == 5
    assert [a for a, b in zip(lives, [*lives[1:], None], strict=True) if a != b] == [
        5,
        4,
        3,
        2,
        1,
        5,
    ]
    assert one.episodes[0].return_ == score > 0
    training.close()
    evaluation.close()


def test_the_seed_decides_what_is_seen() -> None:
    env = task_of("SpaceInvaders").open(2, 1, training=True, threads=1)

    def seen(seed: int | None = None) -> NDArray[np.uint8]:
        first = env.reset(seed)
        assert not first[:, :3].any() and first[:, 3].any()  # frames before the start are zero
        return np.stack([first.copy(), *(step(env, np.zeros(2, np.int64)).obs for _ in range(25))])

    one = seen()
    assert (one[:, 0] != one[:, 1]).any()
    np.testing.assert_array_equal(seen(), one)
    assert (seen(2) != one).any()
    env.close()


def test_a_shared_head_plays_the_same_game_with_ales_numbers() -> None:
    # Freeway has no FIRE: with all 18 actions ale-py would press it at the start all the same.
    for game, own in (("Freeway", [1, 2, 0, 1]), ("Breakout", [1, 2, 3, 0])):
        narrow, wide = task_of(game, noop_max=0), task_of(game, noop_max=0, shared=True)
        assert wide.legal is not None
        one = narrow.open(1, 5, training=True, threads=1)
        two = wide.open(1, 5, training=True, threads=1)
        np.testing.assert_array_equal(one.reset(), two.reset())
        assert one._frame == two._frame == (1 if game == "Breakout" else 0)  # FIRE takes a frame
        for place in own * 10:
            a = step(one, np.array([place]))
            assert_same(a, step(two, np.array([wide.legal[place]])))
        with pytest.raises(ClrlError, match="legal"):
            two.send(np.array([17]))
        one.close()
        two.close()


def test_variants_change_every_picture() -> None:
    plain = task_of("Freeway").open(1, 5, training=True, threads=1)
    flipped = task_of("Freeway-vflip").open(1, 5, training=True, threads=1)
    np.testing.assert_array_equal(plain.reset()[:, :, ::-1], flipped.reset())
    for action in actions_of(plain, 5):
        one, two = step(plain, action), step(flipped, action)
        np.testing.assert_array_equal(one.obs[:, :, ::-1], two.obs)
    plain.close()
    flipped.close()


def test_modes_are_other_games_and_can_be_seen() -> None:
    seen = []
    for entry in ("Freeway:mode=0", "Freeway:mode=1"):
        env = task_of(entry, backend="gym", noop_max=0).open(1, 5, training=True)
        env.reset()
        for _ in range(20):
            obs = step(env, np.array([0])).obs
        seen.append(obs)
        assert env.render().shape == (1, 210, 160, 3)
        env.close()
    assert (seen[0] != seen[1]).any()


def test_a_step_that_never_comes_is_noticed_and_ends_nothing_else() -> None:
    # In a process of its own: the emulators that hang cannot be ended.
    code = """
import numpy as np
from clrl.envs.native import NativeBackend
from clrl.envs.atari import AtariTask
from clrl.types import ClrlError
env = AtariTask(0, "Pong", 6, game="Pong").open(2, 1, training=True, threads=1)
env.reset()
NativeBackend.timeout = 0.5
env._backend.send(np.array([0, 77]))  # past the checks: one emulator fails, both wait for ever
try:
    env._backend.recv()
except ClrlError as error:
    print(error)
env.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Pong" in done.stdout and "[0, 77]" in done.stdout


def test_a_start_that_never_comes_is_noticed() -> None:
    env = task_of("Pong").open(2, 1, training=True, threads=1)
    backend, go_on = env._backend, threading.Event()
    assert isinstance(backend, NativeBackend)
    backend.timeout = 0.1
    backend._env = SimpleNamespace(ale=SimpleNamespace(reset=lambda *_: go_on.wait()))
    with pytest.raises(ClrlError, match=r"Pong.* the start of 2 games"):
        env.reset()
    go_on.set()


def test_a_process_that_was_stopped_gives_nothing_up() -> None:
    # Stopped in the middle of a step for longer than its timeout, in a process of its own.
    code = """
import time
from types import SimpleNamespace
from clrl.envs.native import NativeBackend
from clrl.envs.atari import AtariTask
env = AtariTask(0, "Pong", 6, game="Pong").open(1, 1, training=True, threads=1)
env._backend.timeout = 2.0
ale = env._backend._env.ale

def slow(*arguments):
    time.sleep(0.5)  # goes on after the stop
    return ale.reset(*arguments)

env._backend._env = SimpleNamespace(ale=SimpleNamespace(reset=slow))
print("begins", flush=True)
print(env.reset().shape)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begins\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.read() == "(1, 4, 84, 84)\n"
    assert process.returncode == 0
