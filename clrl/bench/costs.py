"""What is paid beside training: memory, start-up, evaluation."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from time import perf_counter
from typing import TYPE_CHECKING

from clrl.bench.figure import Measurement, Setting, Workload, interleave, seconds_per_unit

if TYPE_CHECKING:
    from clrl.types import Task

__all__ = ["evaluation", "evaluation_share", "memory", "startup"]

EPISODES = 10
SHARE_STEPS = 1_000_000  # of each visit of the run whose evaluations are counted


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
        from clrl.types import ClrlError

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

    The net has learned next to nothing: its games are as short as they get, and seeding the
    emulators, which loads their ROM anew, weighs most. They are open already, as in a run.

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
            [evaluated / trained for evaluated, trained in rows],
            {
                "evaluation_steps_per_second": [1 / evaluated for evaluated, _ in rows],
                "training_steps_per_second": [1 / trained for _, trained in rows],
                "evaluation_steps": lengths[1:],
                "episodes": EPISODES,
                "precision": precision,
                **threads(learner),
            },
        )


def evaluation_share(setting: Setting) -> Measurement:
    """Measure what share of a run its evaluations take, on the default schedule.

    Counted together from the time of a training step and of one evaluation of each game by a net
    that has learned next to nothing: a run of PPO, default settings, on the sequence `quick3`.
    """
    from clrl.agents.ppo import PPO
    from clrl.bench.subject import assembled, best_precision, finish_work, threads
    from clrl.bench.subject import training as train
    from clrl.envs.sequences import SEQUENCES
    from clrl.run.config import EvaluationConfig

    games = SEQUENCES["quick3"].entries(None)
    schedule, precision = EvaluationConfig(), best_precision(setting.device)
    learner, tasks = assembled(setting, PPO(), games, precision=precision)
    with closing(learner):
        learner.begin_task(tasks[0])
        wait = finish_work(learner.settings.device)

        def evaluating(task: Task) -> Workload:
            def play() -> int:
                learner.evaluate(task, schedule.episodes, seed=learner.seed_for(2, task.id))
                return 1

            return lambda: seconds_per_unit(play, 0.0, wait)

        sides = train(learner, setting.seconds), *(evaluating(task) for task in tasks)
        rows = interleave(*sides, pairs=setting.pairs)
    during = SHARE_STEPS // schedule.every - 1  # the last one of a visit is its end's
    n = len(tasks)
    counts = [1 + n + during * (n - k) for k in range(n)]  # before, at ends, once begun
    spent = [sum(c * s for c, s in zip(counts, row[1:], strict=True)) for row in rows]
    trained = [row[0] * SHARE_STEPS * n for row in rows]
    return Measurement(
        [e / (e + t) for e, t in zip(spent, trained, strict=True)],
        {
            "evaluation_seconds": spent,
            "training_seconds": trained,
            "every": schedule.every,
            "episodes": schedule.episodes,
            "precision": precision,
            **threads(learner),
        },
    )
