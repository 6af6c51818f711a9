"""Training curves of stable-baselines3, to lay beside ours: every game's raw score by agent step.

    python sb3_curves.py ppo Freeway 300_000 0 out.csv

`classic` rules (make_atari_env, frame stack), CnnPolicy, float32, one thread; the settings are
those of `configs/parity_*.yaml`. Weights lie channels-last in memory, which changes only the time
that its convolutions take. Columns: step, return (raw score of a game that ended), wall (s).
"""

import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ale_py
import gymnasium
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.vec_env import VecFrameStack


class Record(BaseCallback):
    """Writes a row for every game that ends."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.file = path.open("w", newline="")
        self.rows = csv.writer(self.file)
        self.rows.writerow(["step", "return", "wall"])
        self.began = time.monotonic()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                wall = round(time.monotonic() - self.began, 1)
                self.rows.writerow([self.num_timesteps, info["episode"]["r"], wall])
                self.file.flush()
        return True


def falling(value: float) -> Callable[[float], float]:
    """Return SB3's form of a linear schedule to 0."""
    return lambda remaining: remaining * value


def settings(algorithm: str, game: str) -> tuple[int, dict[str, Any]]:
    """Return the number of environments and the algorithm's keywords."""
    shared = {"ent_coef": 0.01, "device": "cpu"}
    if algorithm == "a2c":
        policy = {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"eps": 1e-5}}
        own = {"n_steps": 5, "learning_rate": 7e-4, "vf_coef": 0.25, "policy_kwargs": policy}
        return 16, shared | own
    shared |= {"n_epochs": 4, "batch_size": 256, "vf_coef": 0.5}
    if game == "Freeway":
        return 16, shared | {"n_steps": 64, "learning_rate": falling(5e-4), "clip_range": 0.1}
    zoo = {"n_steps": 128, "learning_rate": falling(2.5e-4), "clip_range": falling(0.1)}
    return 8, shared | zoo


def main(algorithm: str, game: str, steps: str, seed: str, out: str) -> None:
    """Train and write the curve."""
    torch.set_num_threads(1)
    gymnasium.register_envs(ale_py)
    n_envs, keywords = settings(algorithm, game)
    env = make_atari_env(f"{game}NoFrameskip-v4", n_envs=n_envs, seed=int(seed))
    cls = {"ppo": PPO, "a2c": A2C}[algorithm]
    model = cls("CnnPolicy", VecFrameStack(env, 4), seed=int(seed), **keywords)
    model.policy.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.learn(int(steps), callback=Record(Path(out)))


if __name__ == "__main__":
    main(*sys.argv[1:])
