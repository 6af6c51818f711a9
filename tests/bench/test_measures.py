"""What is measured, in its smallest form: whole, and with parts that agree with the figure."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clrl.agents.a2c import A2C
from clrl.agents.ppo import PPO
from clrl.agents.rollout import OnPolicy
from clrl.bench import costs, memory, methods, pictures, sb3, speed, subject
from clrl.bench.figure import Measurement, Setting
from clrl.envs.vector import AtariVectorEnv
from clrl.methods.ewc import EWC
from clrl.methods.fisher import exact_fisher
from clrl.methods.si import SI
from clrl.nets.bodies import body
from clrl.nets.plain import PlainNet
from clrl.types import ClrlError, LossFn, NetSpec, Task, as_route

TINY = Setting(pairs=2, device="cpu", seconds=0.0)


def tiny(name: str) -> OnPolicy:
    if name == "a2c":
        return A2C(n_envs=2, n_steps=3)
    return PPO(n_envs=2, n_steps=4, batch_size=4, n_epochs=3)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (subject, speed, methods):
        monkeypatch.setattr(module, "agent_of", tiny)
    monkeypatch.setattr(sb3, "CALL", 1)
    monkeypatch.setattr(methods, "TURNS", 2)


@pytest.fixture(autouse=True)
def _all_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hold that every vector of emulators that is opened is closed."""
    opened: list[AtariVectorEnv] = []
    closed: list[AtariVectorEnv] = []
    init, close = AtariVectorEnv.__init__, AtariVectorEnv.close

    def noted_init(self: AtariVectorEnv, *args: Any, **keywords: Any) -> None:
        opened.append(self)
        init(self, *args, **keywords)

    def noted_close(self: AtariVectorEnv) -> None:
        closed.append(self)
        close(self)

    monkeypatch.setattr(AtariVectorEnv, "__init__", noted_init)
    monkeypatch.setattr(AtariVectorEnv, "close", noted_close)
    yield
    assert {id(env) for env in opened} <= {id(env) for env in closed}


def parts(measured: Measurement, *names: str) -> list[np.ndarray]:
    """Return lists of parts as arrays, one entry a pair; all of it must go into JSON."""
    json.dumps(dict(measured.parts))
    assert len(measured.values) == TINY.pairs
    assert all(len(v) == TINY.pairs for v in measured.parts.values() if isinstance(v, list))
    return [np.array(measured.parts[name]) for name in names]


@pytest.mark.atari
@pytest.mark.parametrize("name", ["a2c", "ppo"])
def test_our_speed_over_theirs(name: str) -> None:
    measured = speed.over_sb3(TINY, name, "float32")
    ours, theirs = parts(measured, "ours_steps_per_second", "sb3_steps_per_second")
    assert measured.values == pytest.approx(ours / theirs)
    assert measured.parts["ours_precision"] == measured.parts["sb3_precision"] == "float32"


def test_stable_baselines3_runs_without_what_our_command_sets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "python"  # answers every line with a word of its environment
    fake.write_text("#!/bin/sh\nwhile read -r line; do echo 0.${GOMP_SPINCOUNT:-25}; done\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sb3.sys, "executable", str(fake))
    monkeypatch.setenv("GOMP_SPINCOUNT", "500")
    with sb3.sb3(tiny("ppo"), TINY, "cpu") as learn:
        assert [learn(), learn()] == [0.25, 0.25]
    fake.write_text("#!/bin/sh\n")
    with sb3.sb3(tiny("ppo"), TINY, "cpu") as learn, pytest.raises(ClrlError, match="gave up"):
        learn()


@pytest.mark.atari
@pytest.mark.parametrize(("name", "epochs", "batch"), [("a2c", 1, 6), ("ppo", 3, 4)])
def test_the_share_of_the_limit_follows_from_its_parts(name: str, epochs: int, batch: int) -> None:
    measured = speed.share_of_limit(TINY, name)
    ours, emulators, forward, train = parts(
        measured,
        *("ours_steps_per_second", "emulators_steps_per_second"),
        *("forward_samples_per_second", "training_samples_per_second"),
    )
    limit = 1 / (1 / emulators + 1 / forward + epochs / train)
    assert measured.values == pytest.approx(ours / limit)
    assert (measured.parts["epochs"], measured.parts["training_batch"]) == (epochs, batch)


@pytest.mark.atari
def test_ewc_is_measured_with_the_tasks_folded_in(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Task] = []
    end_task = EWC.end_task

    def counted(self: EWC, task: Task, data: Any) -> None:
        ended.append(task)
        end_task(self, task, data)
        assert self.penalty.weight

    monkeypatch.setattr(EWC, "end_task", counted)
    measured = methods.update(TINY, "ewc", 3)
    ewc, finetune = parts(measured, "ewc_step_seconds", "finetune_step_seconds")
    assert measured.values == pytest.approx(ewc / finetune)
    assert len(ended) == measured.parts["tasks"] == 3


def test_the_fisher_of_the_loop_is_the_exact_one() -> None:
    task = Task(0, "game", 5)
    net = PlainNet(NetSpec((4, 84, 84), body("a3c"), (task,), logits_gain=1.0))
    x, route = torch.randint(0, 256, (3, 4, 84, 84), dtype=torch.uint8), as_route(task, 3)
    exact = exact_fisher(net, x, route)
    for name, slow in methods.loop_fisher(net, x, route).items():
        torch.testing.assert_close(slow, exact[name], rtol=1e-4, atol=1e-7)


def test_the_loop_of_the_fisher_is_scaled_to_all_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "STATES", 4)
    monkeypatch.setattr(methods, "LOOP_STATES", 1)
    measured = methods.fisher_over_loop(TINY)
    exact, loop = parts(measured, "exact_seconds", "loop_seconds_scaled")
    assert measured.values == pytest.approx(loop / exact)
    assert measured.parts["actions"] == 18 and measured.parts["loop_states"] == 1
    assert methods.fisher_seconds(TINY).parts["states"] == 4


@pytest.mark.atari
def test_evaluation_is_measured_by_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "EPISODES", 2)
    measured = costs.evaluation(TINY, "a2c", "Breakout")
    evaluated, trained = parts(measured, "evaluation_steps_per_second", "training_steps_per_second")
    assert measured.values == pytest.approx(trained / evaluated)
    assert min(measured.parts["evaluation_steps"]) > 2 * 50  # no game is over sooner


@pytest.mark.atari
def test_a_slower_penalty_is_a_larger_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    step = EWC.edit_gradients

    def slow(method: EWC, loss_fn: LossFn) -> None:
        time.sleep(0.2)
        step(method, loss_fn)

    monkeypatch.setattr(EWC, "edit_gradients", slow)
    measured = methods.update(TINY, "ewc", 1)
    assert min(measured.values) > 1.5
    assert measured.parts["ewc_step_seconds"][0] * 80 > 0.2  # 16 environments, 5 steps


def test_penalties_are_measured_on_pictures_too(monkeypatch: pytest.MonkeyPatch) -> None:
    step = SI.after_step

    def slow(method: SI, step_size: float) -> None:
        assert method.penalty.weight  # tasks lie behind it
        time.sleep(0.02)
        step(method, step_size)

    monkeypatch.setattr(pictures, "HIDDEN", (8, 8))
    fast = methods.update(TINY, "si", 2, kind="pictures")
    end_task = SI.end_task

    def ended(method: SI, task: Task, data: Any) -> None:
        end_task(method, task, data)
        monkeypatch.setattr(SI, "after_step", slow)

    monkeypatch.setattr(SI, "end_task", ended)
    measured = methods.update(TINY, "si", 1, kind="pictures")
    si, finetune = parts(measured, "si_step_seconds", "finetune_step_seconds")
    assert measured.values == pytest.approx(si / finetune)
    assert min(si) > 0.02 > max(finetune)
    assert max(fast.values) < min(measured.values)


@pytest.mark.atari
def test_the_share_of_evaluations_follows_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(learner: OnPolicy, task: Task, *_: object, **__: object) -> list[object]:
        time.sleep(0.03 * (task.id + 1))
        return []

    monkeypatch.setattr(OnPolicy, "evaluate", evaluate)
    measured = costs.evaluation_share(TINY)
    # three visits of five evaluations: four on the way, of the games begun, and one of all at each
    # end, after one of all before the first
    counts = [1 + 3 + 4 * 3, 1 + 3 + 4 * 2, 1 + 3 + 4 * 1]
    least = 0.03 * (counts[0] + 2 * counts[1] + 3 * counts[2])
    spent, trained = parts(measured, "evaluation_seconds", "training_seconds")
    assert least <= min(spent) < 1.25 * least
    assert measured.values == pytest.approx(spent / (spent + trained))


@pytest.mark.atari
def test_memory_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PEAK_ENVS", 2)
    monkeypatch.setattr(memory, "TASKS", 6)
    monkeypatch.setattr(memory, "UPDATES", 1)
    monkeypatch.setattr(memory, "MAX_FRAMES", 200)
    kept, end_task = [], OnPolicy.end_task

    def leaking(learner: OnPolicy) -> None:
        end_task(learner)
        kept.append(torch.ones(50_000_000))  # 200 MB a task

    monkeypatch.setattr(OnPolicy, "end_task", leaking)
    block = torch.ones(50_000_000)  # 200 MB that are there all the while
    peak = memory.peak(TINY)
    assert peak["value"] * 1e9 >= memory._status("VmRSS") >= block.nbytes
    grown = memory.growth(TINY)
    assert len(kept) == 6
    assert 300 < grown["value"] < 500  # the last two tasks'
    json.dumps([peak, grown])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's C library gives back")
def test_memory_in_use_is_without_the_free_heap() -> None:
    blocks = [torch.ones(8192) for _ in range(4_000)]  # 32 KB each: of the heap, not mapped
    kept = blocks[-1]  # above all the others: the heap's end cannot sink
    held = memory._in_use()
    del blocks
    assert held - memory._in_use() > 100_000_000
    assert kept.sum() == 8192


def test_memory_is_measured_in_a_process_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def python(*arguments: str) -> str:
        asked.append(arguments)
        row = {"value": len(asked), "parts": {"gigabytes": len(asked)}, "facts": {"n_envs": 64}}
        return f"a banner\n{json.dumps(row)}\n"

    monkeypatch.setattr(costs, "_python", python)
    measured = costs.memory(TINY, "peak")
    assert asked == [("-m", "clrl.bench.memory", "peak", "cpu")] * 2
    assert measured == Measurement([1, 2], {"gigabytes": [1, 2], "n_envs": 64})


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ({"avx512f"}, "float32"),
        ({"avx512_bf16"}, "bf16"),
        ({"amx_bf16"}, "bf16"),
        (set(), "float32"),
    ],
)
def test_bf16_only_where_the_processor_has_units_for_it(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], precision: str
) -> None:
    monkeypatch.setattr(subject, "_cpu_flags", lambda: flags)
    assert subject.best_precision("cpu") == precision
