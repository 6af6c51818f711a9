"""What is measured: our learners in the middle of a task, and the machine they run on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from clrl.agents.a2c import A2C
from clrl.agents.learner import Learner
from clrl.agents.ppo import PPO
from clrl.agents.rollout import OnPolicy
from clrl.bench.figure import Setting, Workload, seconds_per_unit
from clrl.envs.protocol import AtariProtocol
from clrl.method import Method
from clrl.run.assemble import assemble, sequence_of
from clrl.run.config import Config, SequenceConfig
from clrl.run.environment import describe_environment
from clrl.types import Task

__all__ = [
    "ENDLESS",
    "Precision",
    "agent_of",
    "assembled",
    "best_precision",
    "finish_work",
    "learning",
    "machine",
    "threads",
    "training",
]

Precision = Literal["float32", "bf16"]
SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # instruction sets that decide speed
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
ENDLESS = 10**9  # steps of a visit that is never finished: schedules stand still


def agent_of(name: str) -> OnPolicy:
    """Return `a2c` or `ppo` as stable-baselines3's zoo sets them for Atari."""
    if name == "a2c":
        return A2C(n_envs=16, n_steps=5, learning_rate=7e-4, vf_coef=0.25, ent_coef=0.01)
    return PPO(
        n_envs=8,
        n_steps=128,
        batch_size=256,
        n_epochs=4,
        learning_rate=2.5e-4,
        clip_range=0.1,
        ent_coef=0.01,
    )


def assembled(
    setting: Setting,
    agent: OnPolicy,
    games: tuple[str, ...] = ("Breakout",),
    method: Method | None = None,
    precision: Precision = "float32",
    protocol: AtariProtocol | None = None,
) -> tuple[OnPolicy, tuple[Task, ...]]:
    """Return a learner with the Nature net, and the games that it is for; opens no environment."""
    config = Config(
        name="bench",
        sequence=SequenceConfig(tasks=games, steps=ENDLESS),
        agent=agent,
        method=method or Method(),
        protocol=protocol or AtariProtocol(),
        device=setting.device,
        precision=precision,
    )
    sequence = sequence_of(config)
    learner = assemble(config, sequence)
    assert isinstance(learner, OnPolicy)
    return learner, sequence.tasks


@contextmanager
def learning(
    setting: Setting,
    agent: OnPolicy,
    game: str = "Breakout",
    method: Method | None = None,
    precision: Precision = "float32",
) -> Iterator[OnPolicy]:
    """Yield such a learner when it has begun to learn the game, and close it."""
    learner, tasks = assembled(setting, agent, (game,), method, precision)
    with closing(learner):
        learner.begin_task(tasks[0])
        yield learner


def training(learner: Learner, least: float) -> Workload:
    """Return training for `least` seconds, in whole updates: seconds per step.

    What a run records of its method every thousand steps is in it.
    """

    def update() -> int:
        before = learner.step
        learner.update()
        if learner.step // learner.record_every > before // learner.record_every:
            learner.method.records()
        return learner.step - before

    return lambda: seconds_per_unit(update, least, finish_work(learner.settings.device))


def finish_work(device: torch.device) -> Callable[[], None]:
    """Return a function that waits until a device has done all it was given."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def threads(learner: Learner) -> dict[str, int | str]:
    """Return the thread counts of torch and of the emulators."""
    emulators = learner.settings.threads
    return {
        "torch_threads": torch.get_num_threads(),
        "emulator_threads": emulators or "as many as cores",
    }


# ---------------------------------------------------------------------------------- the machine


def machine(device: str) -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, instruction sets, GPU, torch."""
    here = describe_environment(())
    return {
        "processor": here["processor"],
        "cores": here["cores"],
        "instruction_sets": [name for name in SETS if name in _cpu_flags()],
        "gpu": here["gpu"],
        "device": "cuda" if _on_gpu(device) else "cpu",
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "waiting_threads": {k: os.environ[k] for k in WAITING if k in os.environ},
    }


def best_precision(device: str) -> Precision:
    """Return `bf16` where the device has units for it: elsewhere it is emulated, and slow."""
    if _on_gpu(device):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bf16" if _cpu_flags() & {"avx512_bf16", "amx_bf16"} else "float32"


def _on_gpu(device: str) -> bool:
    return device != "cpu" and torch.cuda.is_available()


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return set()
    flags = (line.partition(":")[2].split() for line in lines if line.startswith("flags"))
    return set(next(flags, []))
