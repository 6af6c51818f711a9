"""Choosing actions, and playing whole games to measure a net."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from clrl.agents.learner import EvaluationRow
from clrl.types import Net, VectorEnv

__all__ = ["play", "sample"]


def sample(log_pi: Tensor, generator: torch.Generator) -> Tensor:
    """Draw (N,) long actions from (N, A) float log-probabilities on the CPU."""
    return torch.multinomial(log_pi.exp(), 1, generator=generator).squeeze(-1)


@torch.no_grad()
def play(
    net: Net,
    env: VectorEnv,
    route: Tensor,
    seed: int,
    greedy: bool,
    device: torch.device,
    tick: Callable[[], None],
) -> list[EvaluationRow]:
    """Play one full game in every environment.

    As many episodes as environments, each environment's first: stopping at a number of steps
    instead would favour short games.

    Args:
        net: plays as it is; put it in `eval` mode first.
        env: opened for evaluation (no life-loss ends).
        route: (N,) long.
        seed: of the environments and of the sampled actions.
        greedy: take the most likely action.
        device: where the net lives.
        tick: called at every step; may raise to give up.

    Returns:
        A row an environment, in order: `episode, seed, return, length, truncated`.
    """
    generator = torch.Generator().manual_seed(seed)
    obs = env.reset(seed)
    rows: dict[int, EvaluationRow] = {}
    playing = np.arange(env.n_envs)
    action = np.zeros(env.n_envs, dtype=np.int64)
    while len(playing):
        tick()
        x = torch.from_numpy(obs[playing]).to(device)
        log_pi = net(x, route[playing].to(device)).logits.float().cpu().log_softmax(-1)
        chosen = log_pi.argmax(-1) if greedy else sample(log_pi, generator)
        action[:] = 0  # those that have finished play no-ops, which every game has
        action[playing] = chosen.numpy()
        env.send(action)
        result = env.recv()
        obs = result.obs
        for end in result.episodes:
            if end.env not in rows:
                rows[end.env] = {
                    "episode": end.env,
                    "seed": seed,
                    "return": float(end.return_),
                    "length": end.length,
                    "truncated": end.truncated,
                }
        if result.episodes:
            playing = np.array([i for i in playing if i not in rows], dtype=np.int64)
    return [rows[i] for i in range(env.n_envs)]
