"""Rollouts, schedules and learning itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clrl.agents.a2c import A2C
from clrl.agents.learner import RunSettings
from clrl.agents.play import sample
from clrl.agents.ppo import PPO
from clrl.agents.rollout import KEPT_OPEN, OnPolicy, gae
from clrl.agents.statistics import policy_terms
from clrl.envs.toy import toy_sequence
from clrl.method import Method
from clrl.types import MASKED, Episode, Linear, NetSpec, StepResult, Task

TASK = toy_sequence(1).tasks[0]


def set_up(learner: OnPolicy, task: Task = TASK, **settings: object) -> OnPolicy:
    torch.manual_seed(0)
    run = {"seed": 0, "steps_per_visit": 10_000, "n_visits": 1, "device": torch.device("cpu")}
    spec = NetSpec(task.input_shape, (Linear(32),), (task,))
    learner.setup(Method(), spec, RunSettings(**(run | settings)))
    learner.begin_task(task)
    return learner


def mean_score(learner: OnPolicy) -> float:
    rows = learner.evaluate(learner.task, 32, seed=1)
    return float(np.mean([row["return"] / row["length"] for row in rows]))


@pytest.mark.parametrize(
    "learner",
    [
        PPO(n_envs=8, n_steps=32, learning_rate=3e-3, batch_size=64, gamma=0.0),
        A2C(n_envs=8, n_steps=8, learning_rate=3e-3, gamma=0.0, optimizer_name="rmsprop"),
    ],
    ids=["ppo", "a2c"],
)
def test_it_solves_the_toy_game(learner):
    set_up(learner, steps_per_visit=12_000)
    chance = mean_score(learner)
    while learner.task_step < 12_000:
        learner.update()
    assert chance < 0.5  # 1 of 3 actions is right
    assert mean_score(learner) > 0.9


class Script:
    """One environment that plays a fixed script of (reward, terminated, truncated)."""

    n_envs, n_actions, obs_shape, frame_skip = 1, 2, (2,), 1

    def __init__(self, steps: list[tuple[float, bool, bool]]) -> None:
        self.steps, self.t = steps, 0

    def reset(self, seed):
        return self.obs(0)

    def obs(self, t):
        return np.full((1, 2), t, dtype=np.uint8)

    def send(self, actions):
        pass

    def recv(self):
        reward, terminated, truncated = self.steps[self.t]
        self.t += 1
        episodes = [Episode(0, 7.0, 3, truncated)] if terminated or truncated else []
        return StepResult(
            self.obs(self.t),
            np.array([reward], np.float32),
            np.array([terminated]),
            np.array([truncated]),
            self.obs(100 + self.t),
            episodes,
        )

    def close(self):
        pass


class ScriptTask(Task):
    input_shape = (2,)
    script: list[tuple[float, bool, bool]]

    def open(self, n_envs, seed, *, training, threads=0):
        return Script(ScriptTask.script)


def collected(script, **settings):
    ScriptTask.script = script
    learner = set_up(
        A2C(n_envs=1, n_steps=len(script), gamma=0.9, gae_lambda=0.8),
        ScriptTask(0, "script", 2),
        **settings,
    )
    batch = learner.collect(torch.zeros(1, dtype=torch.long))
    return learner, batch


def value_of(learner: OnPolicy, t: int) -> float:
    x = torch.full((1, 2), t, dtype=torch.uint8)
    with torch.no_grad():
        return float(learner.net(x, torch.zeros(1, dtype=torch.long)).value)


def test_a_truncated_episode_is_bootstrapped_from_its_own_last_observation():
    learner, batch = collected([(1.0, False, False), (2.0, False, True), (3.0, True, False)])
    v = [value_of(learner, t) for t in range(4)]
    reward = torch.tensor([[1.0], [2.0 + 0.9 * value_of(learner, 102)], [3.0]])
    done = torch.tensor([[False], [True], [True]])
    expected = gae(reward, torch.tensor(v[:3])[:, None], done, torch.tensor([v[3]]), 0.9, 0.8)
    torch.testing.assert_close(batch.advantage, expected)
    torch.testing.assert_close(batch.return_, expected + torch.tensor(v[:3])[:, None])
    assert abs(value_of(learner, 102)) > 1e-3


def test_scores_are_raw_returns_where_a_game_ended_and_nan_elsewhere():
    _, batch = collected([(1.0, False, False), (2.0, False, True), (3.0, False, False)])
    assert batch.score[1, 0] == 7.0
    assert batch.score[[0, 2], 0].isnan().all()


@pytest.mark.parametrize(("clip", "learned"), [(True, [1.0, -1.0, 0.0]), (False, [4.0, -0.5, 0.0])])
def test_rewards_are_clipped_to_their_sign_only_if_asked(clip, learned):
    script = [(4.0, True, False), (-0.5, True, False), (0.0, True, False)]
    _, batch = collected(script, clip_rewards=clip)
    torch.testing.assert_close((batch.advantage + batch.value).flatten(), torch.tensor(learned))


def test_ppo_ratios_are_one_before_the_first_update():
    learner = set_up(PPO(n_envs=4, n_steps=16, batch_size=64, n_epochs=1))
    batch = learner.collect(torch.zeros(4, dtype=torch.long)).flat()
    with torch.no_grad():
        logp, _ = policy_terms(learner.net(batch.x, batch.route).logits, batch.action)
    torch.testing.assert_close((logp - batch.logp).exp(), torch.ones(64), atol=1e-6, rtol=0)


def test_indexing_a_batch_selects_from_every_field():
    learner = set_up(A2C(n_envs=4, n_steps=5))
    batch = learner.collect(torch.zeros(4, dtype=torch.long))
    flat = batch.flat()
    assert (len(batch), len(flat)) == (5, 20)
    part = flat[torch.tensor([3, 0])]
    assert torch.equal(part.x[1], batch.x[0, 0])
    assert torch.equal(part.action, flat.action[[3, 0]])
    assert torch.equal(part.advantage, flat.advantage[[3, 0]])


@pytest.mark.parametrize("over", ["task", "sequence"])
def test_schedules_fall_to_zero_over_the_task_or_over_the_sequence(over):
    learner = set_up(
        A2C(
            n_envs=4,
            n_steps=5,
            learning_rate=1.0,
            learning_rate_schedule="linear",
            schedule_over=over,
        ),
        steps_per_visit=100,
        n_visits=2,
    )
    seen = []
    for visit in range(2):
        if visit:
            learner.begin_task(TASK)
        while learner.task_step < 100:
            learner.task_step += 20
            seen.append(learner.set_learning_rate())
    task = [0.8, 0.6, 0.4, 0.2, 0.0]
    expected = task * 2 if over == "task" else [1 - 0.1 * k for k in range(1, 11)]
    assert seen == pytest.approx(expected)
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(0.0)


def test_a_constant_schedule_stays():
    learner = set_up(A2C(learning_rate_schedule="constant", learning_rate=0.5, n_envs=4))
    learner.task_step = 9_999
    assert learner.set_learning_rate() == 0.5


def test_a_new_visit_begins_with_a_new_optimizer():
    learner = set_up(PPO(n_envs=4, n_steps=16, batch_size=32))
    learner.update()
    assert learner.optimizer.state
    learner.begin_task(TASK)
    assert not learner.optimizer.state


def test_entropy_and_samples_ignore_masked_actions():
    logits = torch.tensor([[0.0, 0.0, MASKED], [1.0, MASKED, MASKED]])
    logp, entropy = policy_terms(logits, torch.tensor([0, 0]))
    assert float(entropy) == pytest.approx(math.log(2) / 2)
    torch.testing.assert_close(logp, torch.tensor([-math.log(2), 0.0]))
    drawn = sample(logits.log_softmax(-1).repeat(500, 1), torch.Generator().manual_seed(0))
    assert set(drawn[::2].tolist()) == {0, 1}
    assert set(drawn[1::2].tolist()) == {0}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"n_envs": 0}, "n_envs"),
        ({"gamma": 1.5}, "gamma"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"clip_range": 0.0}, "clip_range"),
        ({"n_envs": 3, "n_steps": 11, "batch_size": 16}, "batch_size"),
        ({"batch_size": 1}, "batch_size"),
        ({"learning_rate": math.inf}, "learning_rate"),
        ({"ent_coef": -5.0}, "ent_coef"),
    ],
)
def test_settings_out_of_range_are_refused(settings, named):
    with pytest.raises(ValueError, match=named):
        PPO(**settings)


def test_bfloat16_changes_the_passes_and_not_the_weights():
    torch.manual_seed(0)
    exact = set_up(PPO(n_envs=4, n_steps=16, batch_size=32))
    rounded = set_up(PPO(n_envs=4, n_steps=16, batch_size=32), bf16=True)
    a = exact.collect(torch.zeros(4, dtype=torch.long))
    b = rounded.collect(torch.zeros(4, dtype=torch.long))
    assert not torch.equal(a.value, b.value)
    torch.testing.assert_close(a.value[0], b.value[0], atol=2e-2, rtol=2e-2)
    rounded.update()
    assert {p.dtype for p in rounded.net.parameters()} == {torch.float32}


@pytest.mark.gpu
def test_a_gpu_gives_the_same_update_as_the_cpu():
    learners = [
        set_up(PPO(n_envs=4, n_steps=16, batch_size=32), device=torch.device(name))
        for name in ("cpu", "cuda")
    ]
    for learner in learners:
        learner.update()
    cpu, cuda = (dict(learner.net.named_parameters()) for learner in learners)
    for name, p in cpu.items():
        torch.testing.assert_close(p, cuda[name].cpu(), atol=1e-5, rtol=1e-4)


class Counted:
    """Opens a toy task and counts the environments that are open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = self.opened = 0
        task_type = type(TASK)
        really = task_type.open

        def opening(task, *args, **kwargs):
            env = really(task, *args, **kwargs)
            self.open, self.opened = self.open + 1, self.opened + 1
            close = env.close

            def closing() -> None:
                self.open -= 1
                close()

            env.close = closing
            return env

        monkeypatch.setattr(task_type, "open", opening)


def test_environments_for_evaluation_are_used_again_and_bounded(monkeypatch):
    counted, tasks = Counted(monkeypatch), toy_sequence(KEPT_OPEN + 2).tasks
    learner = A2C(n_envs=2, n_steps=2)
    spec = NetSpec(tasks[0].input_shape, (Linear(8),), tasks)
    learner.setup(Method(), spec, RunSettings(0, 100, 1, torch.device("cpu")))
    first = learner.evaluate(tasks[0], 2, seed=1)
    assert learner.evaluate(tasks[0], 2, seed=1) == first
    assert (counted.opened, counted.open) == (1, 1)
    for task in tasks:
        learner.evaluate(task, 2, seed=1)
    assert (counted.opened, counted.open) == (len(tasks), KEPT_OPEN)
    learner.close()
    assert counted.open == 0


def test_an_evaluation_given_up_leaves_no_environment_in_the_middle_of_a_step(monkeypatch):
    counted = Counted(monkeypatch)
    learner = set_up(A2C(n_envs=2, n_steps=2))

    def give_up() -> None:
        raise KeyboardInterrupt

    before = learner.evaluate(TASK, 2, seed=1)
    with pytest.raises(KeyboardInterrupt):
        learner.evaluate(TASK, 2, seed=1, tick=give_up)
    assert counted.open == 1  # that of the training
    assert learner.evaluate(TASK, 2, seed=1) == before
