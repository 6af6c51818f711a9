"""Routes within a rollout: asked for again where games finish, of the task that they belong to."""

from __future__ import annotations

import pytest
import torch

from clrl.agents.learner import RunSettings
from clrl.agents.ppo import PPO
from clrl.envs.toy import toy_sequence
from clrl.method import Method
from clrl.types import Linear, NetSpec, as_route

SEQUENCE = toy_sequence(3)


class Told(Method):
    """Learns two tasks together and writes down what it was asked."""

    def mixture(self, begun):
        return list(dict.fromkeys(begun))

    def build(self, spec):
        self.asked = []
        self.scores = []
        self.routes = []
        return super().build(spec)

    def route(self, task, n, *, training, finished=()):
        self.asked.append((task.id, n, training, tuple(finished)))
        return as_route(task, n)

    def observe(self, batch, progress):
        self.scores.append(batch.score)
        self.routes.append(batch.route)


def learner_with(n_envs: int = 5, n_steps: int = 32) -> PPO:
    learner = PPO(n_envs=n_envs, n_steps=n_steps, batch_size=n_envs * n_steps, n_epochs=1)
    spec = NetSpec((2, 12, 12), (Linear(8),), SEQUENCE.tasks)
    learner.setup(Told(), spec, RunSettings(0, 4000, 3, torch.device("cpu")))
    for k in (0, 2):
        learner.begin_task(SEQUENCE.tasks[k])
    return learner


def test_a_method_is_told_of_finished_games_by_task_each_counted_from_its_own_first():
    learner = learner_with()
    method = learner.method
    for _ in range(3):
        learner.update()
    learner.close()
    starts = [asked for asked in method.asked if not asked[3]]
    assert starts == [(0, 3, True, ()), (2, 2, True, ())] * 3  # once a rollout
    scores = torch.cat(method.scores)
    for task, first, n in ((0, 0, 3), (2, 3, 2)):
        told = [e for k, size, _, ended in method.asked if k == task and size == n for e in ended]
        for env in range(n):
            own = scores[:, first + env]
            returns = [e.return_ for e in told if e.env == env]
            assert returns == own[~own.isnan()].tolist()
        assert {e.env for e in told} == set(range(n))


def test_routes_of_a_step_are_those_it_was_played_with():
    learner = learner_with()
    ids = torch.tensor([0, 0, 0, 2, 2])
    learner.update()
    (route,) = learner.method.routes
    assert torch.equal(route, ids.expand(32, 5))
    learner.close()


@pytest.mark.parametrize("training", [True, False])
def test_data_of_the_final_policy_keep_their_routes(training):
    learner = learner_with()
    learner.method.asked.clear()
    route = learner._route(training=training)
    learner.collect(route, training=training)
    again = [asked for asked in learner.method.asked if asked[3]]
    assert bool(again) is training
    learner.close()
