"""stable-baselines3 as its users run it: in a process of its own, which nothing of ours has set up.

    python -m clrl.bench.sb3 JSON

It learns for a while at every line on stdin, and answers with the seconds that a step took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stdout, suppress
from typing import Any

from clrl.agents.ppo import PPO
from clrl.agents.rollout import OnPolicy
from clrl.bench.figure import Setting, Workload, seconds_per_unit
from clrl.types import ClrlError

__all__ = ["sb3"]

SHARED = ("n_steps", "learning_rate", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm")
PPO_ONLY = ("batch_size", "n_epochs", "clip_range")
CALL = 1_000  # steps that are asked for at once: starting `learn` then costs nothing
OURS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # what the command `clrl` sets


@contextmanager
def sb3(agent: OnPolicy, setting: Setting, device: str) -> Iterator[Workload]:
    """Yield stable-baselines3's training, stock, with an agent's settings: seconds per step."""
    ppo = isinstance(agent, PPO)
    rollout = agent.n_envs * agent.n_steps
    wanted = {
        "algorithm": "PPO" if ppo else "A2C",
        "n_envs": agent.n_envs,
        "keywords": {k: getattr(agent, k) for k in (*SHARED, *(PPO_ONLY if ppo else ()))},
        "device": device,
        "steps": max(1, CALL // rollout) * rollout,
        "seconds": setting.seconds,
    }
    command = [sys.executable, "-m", "clrl.bench.sb3", json.dumps(wanted)]
    stock = {key: value for key, value in os.environ.items() if key not in OURS}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=stock, text=True)
    assert process.stdin is not None and process.stdout is not None
    question, answers = process.stdin, process.stdout

    def learn() -> float:
        with suppress(BrokenPipeError):
            print(file=question, flush=True)
        answer = answers.readline()
        if not answer:
            raise ClrlError("stable-baselines3 gave up: what it said stands above")
        return float(answer)

    try:
        yield learn
    finally:
        process.kill()
        process.wait()
        for end in (question, answers):
            with suppress(BrokenPipeError):
                end.close()


def _serve(wanted: dict[str, Any]) -> None:
    import ale_py
    import gymnasium
    import stable_baselines3
    import torch
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
    from stable_baselines3.common.vec_env import VecFrameStack

    gymnasium.register_envs(ale_py)
    keywords = wanted["keywords"]
    if wanted["algorithm"] == "A2C":
        optimizer = {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"eps": 1e-5}}
        keywords["policy_kwargs"] = optimizer
    env = VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4", wanted["n_envs"], seed=0), 4)
    answers = sys.stdout
    with closing(env), redirect_stdout(sys.stderr):
        algorithm = getattr(stable_baselines3, wanted["algorithm"])
        model = algorithm("CnnPolicy", env, device=wanted["device"], seed=0, **keywords)

        def learn() -> int:
            model.learn(wanted["steps"], reset_num_timesteps=False)
            return int(wanted["steps"])

        wait = torch.cuda.synchronize if wanted["device"] == "cuda" else lambda: None
        for _ in sys.stdin:
            print(seconds_per_unit(learn, wanted["seconds"], wait), file=answers, flush=True)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
