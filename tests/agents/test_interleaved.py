"""Several games as one: every row belongs to the game it did alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clrl.agents.interleaved import Interleaved, shares
from clrl.agents.learner import RunSettings
from clrl.agents.ppo import PPO
from clrl.envs.protocol import AtariProtocol
from clrl.envs.sequences import build_sequence
from clrl.envs.toy import toy_sequence
from clrl.method import Method
from clrl.types import ClrlError, Linear, NetSpec

SEQUENCE = toy_sequence(3)


class Together(Method):
    def mixture(self, begun):
        return list(dict.fromkeys(begun))


@pytest.mark.parametrize(
    ("n_envs", "n_tasks", "each"), [(8, 1, [8]), (8, 2, [4, 4]), (8, 3, [3, 3, 2]), (3, 3, [1] * 3)]
)
def test_environments_are_shared_out_evenly(n_envs, n_tasks, each):
    assert shares(n_envs, n_tasks) == each


def test_fewer_environments_than_tasks_are_refused_before_anything_begins():
    with pytest.raises(ClrlError, match=r"agent.n_envs is 2: expected at least 3") as caught:
        shares(2, 3)
    assert caught.value.exit_code == 2
    learner = PPO(n_envs=2, n_steps=8, batch_size=16)
    spec = NetSpec((2, 12, 12), (Linear(8),), SEQUENCE.tasks)
    with pytest.raises(ClrlError, match=r"agent.n_envs is 2"):
        learner.setup(Together(), spec, RunSettings(0, 1, 3, torch.device("cpu")))


def parts(seeds=(5, 6)):
    a, b = SEQUENCE.tasks[0], SEQUENCE.tasks[1]
    return a.open(3, seeds[0], training=True), b.open(2, seeds[1], training=True)


def test_its_rows_are_those_of_the_parts_alone():
    joined, alone = Interleaved(parts()), parts()
    obs = joined.reset(5)
    assert np.array_equal(obs, np.concatenate([alone[0].reset(5), alone[1].reset(6)]))
    ended = truncations = 0
    for _ in range(60):
        actions = np.array([0, 1, 2, 0, 1])
        joined.send(actions)
        ours = joined.recv()
        for part, own in zip(alone, (slice(0, 3), slice(3, 5)), strict=True):
            part.send(actions[own])
            theirs = part.recv()
            for field in ("obs", "reward", "terminated", "truncated"):
                assert np.array_equal(getattr(ours, field)[own], getattr(theirs, field)), field
            if theirs.final_obs is not None:
                truncations += 1
                cut = theirs.truncated
                assert np.array_equal(ours.final_obs[own][cut], theirs.final_obs[cut])
            for episode in theirs.episodes:
                ended += 1
                assert episode._replace(env=episode.env + own.start) in ours.episodes
    assert ended > 5
    assert truncations > 2
    joined.close()


def test_its_state_restores():
    first, second = Interleaved(parts()), Interleaved(parts((9, 9)))
    first.reset(5)
    actions = np.array([0, 1, 2, 0, 1])
    for _ in range(7):
        first.send(actions)
        last = first.recv()
    second.reset(0)
    assert np.array_equal(second.load_state_dict(first.state_dict()), last.obs)
    for env in (first, second):
        env.send(actions)
    one, two = first.recv(), second.recv()
    assert np.array_equal(one.obs, two.obs)
    assert one.episodes == two.episodes


@pytest.mark.atari
def test_real_games_side_by_side_restore_bit_for_bit():
    tasks = build_sequence(["Freeway", "Breakout"], 1, AtariProtocol(), False).tasks

    def opened() -> Interleaved:
        return Interleaved([t.open(2, 7, training=True, threads=1) for t in tasks])

    first, second = opened(), opened()
    try:
        first.reset(7)
        actions = np.array([1, 0, 3, 1])
        for _ in range(5):
            first.send(actions)
            last = first.recv().obs.copy()
        second.reset(8)
        assert np.array_equal(second.load_state_dict(first.state_dict()), last)
        for _ in range(5):
            first.send(actions)
            second.send(actions)
            assert np.array_equal(first.recv().obs, second.recv().obs)
    finally:
        first.close()
        second.close()


def test_returns_are_those_of_the_task_itself():
    learner = PPO(n_envs=4, n_steps=64, batch_size=64)
    spec = NetSpec((2, 12, 12), (Linear(8),), SEQUENCE.tasks)
    seen = []

    class Spy(Together):
        def observe(self, batch, progress):
            seen.append(batch.score[:, 2:])  # the second half plays the task being learned

    learner.setup(Spy(), spec, RunSettings(0, 4000, 3, torch.device("cpu")))
    for k in (0, 2):
        learner.begin_task(SEQUENCE.tasks[k])
    mean = learner.update()["rollout/return_mean"]
    learner.close()
    assert mean == pytest.approx(float(seen[0][~seen[0].isnan()].mean()))


def test_each_environment_is_routed_to_its_own_game():
    learner = PPO(n_envs=5, n_steps=8, batch_size=40)
    spec = NetSpec((2, 12, 12), (Linear(8),), SEQUENCE.tasks)
    seen = []

    class Spy(Together):
        def observe(self, batch, progress):
            seen.append((batch.route.clone(), batch.action.clone()))

    learner.setup(Spy(), spec, RunSettings(0, 400, 3, torch.device("cpu")))
    for k in (0, 2):
        learner.begin_task(SEQUENCE.tasks[k])
    for _ in range(4):
        learner.update()
    learner.close()
    for route, action in seen:
        assert route.tolist() == [[0, 0, 0, 2, 2]] * 8
        assert int(action[:, 3:].max()) <= 1  # the third game has two actions
