"""Progressive nets in learners: what is trained, kept, refused and resumed."""

from __future__ import annotations

import copy
import dataclasses
import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clrl.agents.a2c import A2C
from clrl.agents.learner import Learner, RunSettings
from clrl.agents.ppo import PPO
from clrl.agents.supervised import Supervised
from clrl.envs.toy import toy_sequence
from clrl.methods import progressive
from clrl.methods.progressive import Progressive
from clrl.nets import progressive as nets
from clrl.nets.bodies import body
from clrl.run import checkpoint
from clrl.run.config import load_config
from clrl.run.records import read_records
from clrl.run.train import resume, train
from clrl.types import ClrlError, Conv, Linear, NetSpec, Task

SEQUENCE = toy_sequence(3)
SMALL_PPO = {"n_envs": 4, "n_steps": 16, "batch_size": 32, "learning_rate": 3e-3}
LEARNERS: dict[str, Any] = {
    "ppo, adam": lambda: PPO(**SMALL_PPO),
    "a2c, rmsprop": lambda: A2C(n_envs=4),
    "supervised, adam": lambda: Supervised(batch_size=16),
    "supervised, momentum": lambda: Supervised(
        batch_size=16, optimizer_name="sgd", momentum=0.9, learning_rate=0.05
    ),
}
BODY = (Conv(4, 4, 2), Linear(16))


def learner_with(
    agent: str = "ppo, adam", bf16: bool = False, shared_head: bool = False, **method: Any
) -> Learner:
    torch.manual_seed(0)
    learner: Learner = LEARNERS[agent]()
    tasks = toy_sequence(3, shared_head=shared_head).tasks
    has_value = learner.kind == "rl"
    spec = NetSpec((2, 12, 12), BODY, tasks, shared_head=shared_head, has_value=has_value)
    settings = RunSettings(0, 640, 3, torch.device("cpu"), bf16=bf16)
    learner.setup(Progressive(**method), spec, settings)
    return learner


def learn(learner: Learner, task: int, updates: int = 4) -> None:
    learner.begin_task(SEQUENCE.tasks[task])
    for _ in range(updates):
        learner.update()
    learner.end_task()


def outputs(learner: Learner, task: int) -> list[Tensor]:
    """Return logits and value of a task, for a small batch and for a large one."""
    found = []
    for n in (8, 64):
        x = torch.randint(
            0, 256, (n, 2, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
        )
        with torch.no_grad():
            output = learner.net(x, torch.full((n,), task))
        found += [output.logits] if output.value is None else list(output)
    return found


def all_equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("agent", LEARNERS)
def test_earlier_tasks_outputs_stay_the_same_bit_for_bit(agent):
    learner = learner_with(agent)
    kept = []
    for task in range(3):
        learn(learner, task)
        kept.append(outputs(learner, task))
        for earlier in range(task + 1):
            assert all_equal(outputs(learner, earlier), kept[earlier]), earlier
    learn(learner, 0)  # its heads learn; the others see nothing of it
    assert not all_equal(outputs(learner, 0), kept[0])
    assert all_equal(outputs(learner, 1) + outputs(learner, 2), kept[1] + kept[2])


@pytest.mark.parametrize("agent", LEARNERS)
def test_the_optimizer_holds_exactly_the_new_column(agent):
    learner = learner_with(agent)
    for task in range(3):
        learn(learner, task)
        own = {n: p for n, p in learner.net.named_parameters() if n.startswith(f"columns.{task}.")}
        held = [p for group in learner.optimizer.param_groups for p in group["params"]]
        assert {id(p) for p in held} == {id(p) for p in own.values()}
        assert set(learner.optimizer.state) <= set(own.values())
        for name, p in learner.net.named_parameters():
            assert p.requires_grad is (name in own), name
            assert (p.grad is None) is (name not in own), name
    assert any(name.endswith("lateral.alpha") for name in own)


@pytest.mark.parametrize("agent", ["ppo, adam", "a2c, rmsprop"])
@pytest.mark.parametrize("bf16", [False, True])
def test_frozen_columns_see_an_observation_once(agent, bf16, monkeypatch):
    learner = learner_with(agent, bf16)
    learn(learner, 0)
    learner.begin_task(SEQUENCE.tasks[1])
    learner.begin_task(SEQUENCE.tasks[2])
    calls = []
    original = nets.ProgressiveNet._frozen
    monkeypatch.setattr(
        nets.ProgressiveNet,
        "_frozen",
        lambda self, x, k: (calls.append(k), original(self, x, k))[1],
    )
    beyond: list[int] = []
    cut = type(learner)._value_beyond
    monkeypatch.setattr(
        type(learner), "_value_beyond", lambda *args: (beyond.append(1), cut(*args))[1]
    )
    batch = learner.collect(learner._route(training=True)).flat()
    n = learner.n_steps + 1  # the last for the value of what comes after the rollout
    assert n <= len(calls) <= n + len(beyond)
    assert set(calls) == {2}
    assert batch.context.dtype == (torch.bfloat16 if bf16 else torch.float32)
    assert batch.context.shape == (learner.n_steps * 4, 2 * (4 * 25 + 16))
    again = torch.cat(
        [_context(learner, batch.x[rows], bf16) for rows in torch.arange(len(batch)).split(4)]
    )
    assert torch.equal(again, batch.context)
    calls.clear()
    learner.learn(batch)
    assert calls == []


def _context(learner: Learner, x: Tensor, bf16: bool) -> Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return learner.net.context(x, torch.full((len(x),), 2))


@pytest.mark.parametrize("agent", ["ppo, adam", "a2c, rmsprop"])
def test_the_loss_of_kept_contexts_is_the_loss_without_them(agent):
    learner = learner_with(agent)
    learn(learner, 0)
    learn(learner, 1)
    learner.begin_task(SEQUENCE.tasks[2])
    batch = learner.collect(learner._route(training=True)).flat()
    found = []
    for context in (batch.context, None):
        learner.net.zero_grad()
        loss = learner.loss(dataclasses.replace(batch, context=context))
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in learner.method.trainable())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_another_methods_rollouts_keep_no_context():
    from clrl.method import Method

    learner = PPO(**SMALL_PPO)
    spec = NetSpec((2, 12, 12), BODY, SEQUENCE.tasks)
    learner.setup(Method(), spec, RunSettings(0, 640, 3, torch.device("cpu")))
    learner.begin_task(SEQUENCE.tasks[0])
    assert learner.collect(learner._route(training=True)).context.shape == (16, 4, 0)


def test_a_random_first_column_is_frozen_and_read():
    learner = learner_with(random_first=True)
    first = copy.deepcopy(learner.net.columns[0].state_dict())
    assert not any(learner.net.can_play(task) for task in SEQUENCE.tasks)
    learn(learner, 0)
    assert len(learner.net.columns) == 2
    assert learner.net.columns[1].body[1].lateral.alpha.shape == (1,)
    for name, w in learner.net.columns[0].state_dict().items():
        assert torch.equal(w, first[name])
    x = torch.rand(4, 2, 12, 12)
    route = torch.zeros(4, dtype=torch.long)
    before = learner.net(x, route).value
    with torch.no_grad():
        learner.net.columns[0].body[0].own.weight.neg_()
    assert not torch.equal(before, learner.net(x, route).value)


@pytest.mark.parametrize("agent", ["ppo, adam", "supervised, adam"])
def test_it_learns_in_bf16_and_with_a_shared_head(agent):
    learner = learner_with(agent, bf16=True, shared_head=True)
    for k, task in enumerate(toy_sequence(3, shared_head=True).tasks):
        learner.begin_task(task)
        records = [learner.update() for _ in range(2)]
        assert records[-1]["train/gradient_norm"] > 0
        learner.end_task()
        assert learner.net.columns[k].heads.policy.own.out_features == 4
        learner.evaluate(task, 2, seed=0)


# ------------------------------------------------------------------------------------- refusals


def test_where_the_task_is_not_known_it_is_refused():
    spec = NetSpec((2, 12, 12), BODY, SEQUENCE.tasks, shared_head=True, masks=False)
    with pytest.raises(ClrlError, match=r"choose a column by the task.*hides") as caught:
        Progressive().build(spec)
    assert caught.value.exit_code == 2


def test_more_columns_than_memory_holds_are_refused_before_they_are_made(monkeypatch):
    tasks = tuple(Task(k, str(k), 6) for k in range(10))
    spec = NetSpec((4, 84, 84), body("pnn"), tasks)
    probe = Progressive().build(spec)
    context = 9 * (12 * 400 + 12 * 81 + 12 * 42 + 256)  # of an observation, before the tenth
    weights, last = sum(map(probe.column_size, range(10))), probe.column_size(9)
    exact = 4 * (weights + 3 * last)  # weights, the last one's gradient and Adam's moments

    def available(n_bytes: int | None) -> None:
        monkeypatch.setattr(progressive, "_available_memory", lambda: n_bytes)

    available(exact - 1)
    with pytest.raises(ClrlError, match=r"10 columns need some 0\.03 GB \(6 million") as caught:
        Progressive().build(spec)
    assert caught.value.exit_code == 2
    available(exact)
    method = Progressive()
    assert not list(method.build(spec).parameters())  # pictures keep nothing more
    with pytest.raises(ClrlError, match="11 columns need"):
        Progressive(random_first=True).build(spec)
    for n_envs, n_steps, n_bytes in ((8, 128, 4), (8, 128, 2), (64, 128, 4)):
        kept = n_bytes * n_envs * n_steps * context
        available(exact + kept - 1)
        with pytest.raises(ClrlError, match=rf" of {n_envs} x 128 observ.*fewer agent\.n_envs"):
            method.require_rollout(n_envs, n_steps, n_bytes)
        available(exact + kept)
        method.require_rollout(n_envs, n_steps, n_bytes)
    available(None)
    Progressive().build(spec)


def test_what_a_rollout_keeps_is_counted_before_a_folder_is_made(monkeypatch, tmp_path):
    """By the run's own agent and precision."""
    source = """
    name: toy
    sequence: {tasks: [Freeway, Breakout], steps: 64}
    agent: {name: ppo, n_envs: 4, n_steps: 16, batch_size: 32, n_epochs: 1}
    method: {name: progressive}
    net: {body: mlp, hidden: [12, 8]}
    evaluation: {every: 0, episodes: 1}
    threads: 1
    device: cpu
    """
    (tmp_path / "toy.yaml").write_text(textwrap.dedent(source))
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(Progressive, "require_rollout", lambda self, *counts: asked.append(counts))
    for precision in ("float32", "bf16"):
        config = load_config(tmp_path / "toy.yaml", [f"precision={precision}", f"name={precision}"])
        train(config, tmp_path, toy_sequence(2))
    assert asked == [(4, 16, 4), (4, 16, 2)]
    monkeypatch.undo()
    monkeypatch.setattr(progressive, "_available_memory", lambda: 0)
    with pytest.raises(ClrlError, match=r"2 columns need some .* GB are available"):
        train(load_config(tmp_path / "toy.yaml"), tmp_path, toy_sequence(2))
    assert not (tmp_path / "toy").exists()


def test_the_limit_of_a_container_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(progressive, "CONTAINER", tmp_path)
    machine = progressive._available_memory()
    assert machine > 1_000_000
    of_files = "anon 300000\ninactive_file 50000\nactive_file 20000\n"
    for name, text in (("max", "1000000\n"), ("current", "400000\n"), ("stat", of_files)):
        (tmp_path / f"memory.{name}").write_text(text)
    assert progressive._available_memory() == 650_000  # files that nobody uses give way
    (tmp_path / "memory.max").write_text("max\n")  # no limit
    assert progressive._available_memory() > 1_000_000


def test_a_first_column_is_not_copied_from_the_random_one():
    with pytest.raises(ValueError, match=r"init is 'copy', which .* random_first .*: expected 'fr"):
        Progressive(init="copy", random_first=True)


def test_settings_reach_the_net_by_name():
    given = {"adapter": False, "scale_init": 0.5, "lateral_heads": True, "width": 2.0}
    for init in ("fresh", "copy"):
        net = Progressive(**given, init=init).build(learner_with().method.net.spec)
        assert dataclasses.asdict(net.settings) == given | {"init": init}


def test_the_systems_memory_is_known():
    available = progressive._available_memory()
    assert available is None or 10**7 < available < 10**14


@pytest.mark.parametrize("wrong", [{"scale_init": 0.0}, {"width": -1.0}, {"width": float("inf")}])
def test_settings_out_of_range_are_named(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} is {value}: expected a number above 0"):
        Progressive(**wrong)


# ----------------------------------------------------------------------------------- whole runs

CONFIG = """
name: toy
sequence: {tasks: [Freeway, Breakout], steps: 128}
agent: AGENT
method: {name: progressive, width: 1.0}
net: {body: mlp, hidden: [12, 8]}
evaluation: {every: 64, episodes: 2}
checkpoint: {every: 64}
threads: 1
device: cpu
"""
AGENTS = {
    "ppo": "{name: ppo, n_envs: 4, n_steps: 16, batch_size: 32, n_epochs: 2}",
    "a2c": "{name: a2c, n_envs: 4, n_steps: 8}",
    "supervised": "{name: supervised, batch_size: 8}",
}


class Killed(BaseException):
    """Stands for SIGKILL."""


def config_of(folder: Path, agent: str) -> Any:
    path = folder / "toy.yaml"
    path.write_text(CONFIG.replace("AGENT", AGENTS[agent]))
    return load_config(path)


def left_by(run: Path) -> tuple[dict[str, Any], list[Any]]:
    found = checkpoint.load_latest(run / "checkpoints")
    assert found is not None
    return found.state["learner"], read_records(run / "evaluations.jsonl")[0]


def kill_in_third_task(patch: pytest.MonkeyPatch, agent: str) -> None:
    cls = type(
        LEARNERS[{"ppo": "ppo, adam", "a2c": "a2c, rmsprop"}.get(agent, "supervised, adam")]()
    )
    update = cls.update

    def dying(self: Learner) -> dict[str, float]:
        if len(self.begun) == 3 and self.task_step >= 64:
            raise Killed
        return update(self)

    patch.setattr(cls, "update", dying)


@pytest.mark.parametrize("agent", AGENTS)
def test_three_columns_killed_and_resumed_are_as_if_never_stopped(agent, tmp_path, monkeypatch):
    config = config_of(tmp_path, agent)
    whole = train(config, tmp_path / "whole", toy_sequence(3))
    with monkeypatch.context() as patch:
        kill_in_third_task(patch, agent)
        with pytest.raises(Killed):
            train(config, tmp_path / "killed", toy_sequence(3))
    killed = resume(tmp_path / "killed/toy/seed0", sequence=toy_sequence(3))
    (ours, rows), (theirs, whole_rows) = left_by(killed), left_by(whole)
    assert rows == whole_rows
    assert ours["net"].keys() == theirs["net"].keys()
    assert any(name.startswith("columns.2.") for name in ours["net"])
    for name, w in ours["net"].items():
        assert torch.equal(w, theirs["net"][name]), name
    for name, moments in ours["optimizer"]["state"].items():
        for key, moment in moments.items():
            same = theirs["optimizer"]["state"][name][key]
            assert torch.equal(torch.as_tensor(moment), torch.as_tensor(same))
    summary = json.loads((killed / "summary.json").read_text())
    assert summary["metrics"]["forgetting"] == 0.0


def test_visits_in_cycles_train_heads_and_forget_nothing_of_others(tmp_path):
    run = train(config_of(tmp_path, "ppo"), tmp_path / "runs", toy_sequence(2, cycles=2))
    learner, _ = left_by(run)
    assert learner["begun"] == [0, 1, 0, 1]
    assert {name.split(".")[1] for name in learner["net"]} == {"0", "1"}


def test_another_column_width_is_refused_on_resume(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_in_third_task(patch, "ppo")
        with pytest.raises(Killed):
            train(config_of(tmp_path, "ppo"), tmp_path / "runs", toy_sequence(3))
    run = tmp_path / "runs/toy/seed0"
    text = (run / "config.yaml").read_text()
    assert "width: 1.0" in text
    (run / "config.yaml").write_text(text.replace("width: 1.0", "width: 0.5"))
    for allowed, message in ((False, "method.width: 1.0 -> 0.5"), (True, "of another shape")):
        with pytest.raises(ClrlError, match=message) as caught:
            resume(run, allow_change=allowed, sequence=toy_sequence(3))
        assert caught.value.exit_code == 2
        assert len(str(caught.value).splitlines()) == 1
