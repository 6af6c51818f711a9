"""What is paid beside training: memory, start-up, evaluation."""

from __future__ import annotations

import json
import subprocess
import sys
from time import perf_counter

from clrl.bench.figure import Measurement, Setting, Workload, interleave, seconds_per_unit
from clrl.types import ClrlError

__all__ = ["evaluation", "memory", "startup"]

EPISODES = 10


def startup(setting: Setting, *arguments: str) -> Measurement:
    """Measure how long `clrl ARGUMENTS` takes, from starting Python to its end."""
    rows = interleave(_process("-m", "clrl", *arguments), _process("-c", ""), pairs=setting.pairs)
    times = [clrl for clrl, _ in rows]
    return Measurement(
        times, {"clrl_seconds": times, "python_alone_seconds": [bare for _, bare in rows]}
    )


def _process(*arguments: str) -> Workload:
    def run() -> float:
        began = perf_counter()
        _python(*arguments)
        return perf_counter() - began

    return run


def _python(*arguments: str) -> str:
    """Run Python in a fresh process and return what it printed."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ClrlError(f"{' '.join(command)}: exit code {done.returncode}: {last}")
    return done.stdout


def memory(setting: Setting, what: str) -> Measurement:
    """Measure memory in fresh processes, which nothing measured before has filled.

    Args:
        setting: how; a pair is one process.
        what: a function of `clrl.bench.memory`.
    """
    module = ("-m", "clrl.bench.memory", what, setting.device)
    rows = [json.loads(_python(*module).splitlines()[-1]) for _ in range(setting.pairs)]
    parts = {key: [row["parts"][key] for row in rows] for key in rows[0]["parts"]}
    return Measurement([row["value"] for row in rows], parts | rows[0]["facts"])


def evaluation(setting: Setting, name: str, game: str) -> Measurement:
    """Measure the time of a step of `evaluate`, all included, over that of a training step.

    The net has learned next to nothing: its games are as short as they get, and opening the
    emulators weighs most.

    Args:
        setting: how.
        name: `a2c` or `ppo`.
        game: what is played.
    """
    # here: starting up is measured without torch in this process
    from clrl.bench.subject import agent_of, best_precision, finish_work, learning, threads
    from clrl.bench.subject import training as train

    precision = best_precision(setting.device)
    with learning(setting, agent_of(name), game, precision=precision) as learner:

        def play() -> int:
            rows = learner.evaluate(learner.task, EPISODES, seed=learner.seed_for(2, 0))
            lengths.append(sum(row["length"] for row in rows))
            return lengths[-1]

        lengths: list[int] = []
        wait = finish_work(learner.settings.device)
        rows = interleave(
            lambda: seconds_per_unit(play, 0.0, wait),
            train(learner, setting.seconds),
            pairs=setting.pairs,
        )
        return Measurement(
            [evaluate / train for evaluate, train in rows],
            {
                "evaluation_steps_per_second": [1 / evaluate for evaluate, _ in rows],
                "training_steps_per_second": [1 / train for _, train in rows],
                "evaluation_steps": lengths[1:],
                "episodes": EPISODES,
                "precision": precision,
                **threads(learner),
            },
        )
