"""The toy game keeps the promises of a `VectorEnv` and can be learned."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from clrl.envs.toy import TIME_LIMIT, ToyTask, toy_sequence
from clrl.types import ClrlError


def bright_quarter(obs: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Find the quarter by looking, as a net would have to."""
    halves = obs[:, 0].astype(float).reshape(len(obs), 2, 6, 2, 6).mean(axis=(2, 4))
    return halves.reshape(len(obs), 4).argmax(axis=1)


@pytest.mark.parametrize("shared_head", [False, True])
def test_the_answer_is_in_the_picture(shared_head: bool) -> None:
    for task in toy_sequence(4, shared_head=shared_head).tasks:
        assert isinstance(task, ToyTask)
        env = task.open(16, 5, training=True)
        obs = env.reset()
        for _ in range(30):
            env.send(np.array(task.answers)[bright_quarter(obs)])
            result = env.recv()
            obs = result.obs
            assert (result.reward == 1).all()


def test_tasks_contradict_each_other() -> None:
    tasks = toy_sequence(3).tasks
    assert [task.n_outputs for task in tasks] == [3, 4, 2]
    answers = [task.answers for task in tasks if isinstance(task, ToyTask)]
    assert all(a[0] != answers[0][0] or len(a) == 2 for a in answers[1:])
    assert [task.legal for task in toy_sequence(2, shared_head=True).tasks] == [
        (0, 1, 2),
        (0, 1, 2, 3),
    ]


def test_episodes_count_what_was_played() -> None:
    env = toy_sequence(1).tasks[0].open(8, 1, training=True)  # type: ignore[attr-defined]
    env.reset()
    total, played, cut = np.zeros(8), np.zeros(8), 0
    for _ in range(200):
        env.send(np.zeros(8, dtype=np.int64))
        result = env.recv()
        total += result.reward
        played += 1
        for episode in result.episodes:
            assert (episode.return_, episode.length) == (total[episode.env], played[episode.env])
            assert episode.truncated == result.truncated[episode.env]
            assert episode.truncated == (not result.terminated[episode.env])
            assert not episode.truncated or episode.length == TIME_LIMIT
            total[episode.env] = played[episode.env] = 0
            cut += episode.truncated
        ended = {episode.env for episode in result.episodes}
        assert ended == set(np.flatnonzero(result.terminated | result.truncated))
        assert (result.final_obs is not None) == result.truncated.any()
    assert cut > 0


def test_a_restored_game_goes_on_as_if_it_had_never_stopped() -> None:
    task = ToyTask(0, "toy", 3)
    env, other = task.open(4, 1, training=True), task.open(4, 2, training=True)
    env.reset()
    actions = np.random.default_rng(0).integers(0, 3, (120, 4))
    for action in actions[:50]:
        env.send(action)
        obs = env.recv().obs
    np.testing.assert_array_equal(other.load_state_dict(env.state_dict()), obs)
    for action in actions[50:]:
        env.send(action)
        other.send(action)
        one, two = env.recv(), other.recv()
        assert list(one.episodes) == list(two.episodes)
        for a, b in zip(one[:4], two[:4], strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_is_wrong_is_refused() -> None:
    env = ToyTask(0, "toy", 3).open(2, 1, training=True)
    with pytest.raises(ClrlError, match="reset"):
        env.send(np.zeros(2, dtype=np.int64))
    env.reset()
    with pytest.raises(ClrlError, match=r"expected 0\.\.2"):
        env.send(np.array([0, 3]))
    with pytest.raises(ClrlError, match="shape"):
        env.send(np.zeros(3, dtype=np.int64))
    with pytest.raises(ClrlError, match="expected 3"):
        ToyTask(0, "toy", 3).open(3, 1, training=True).load_state_dict(env.state_dict())
    with pytest.raises(ValueError, match="toy"):
        ToyTask(0, "toy", 5)
