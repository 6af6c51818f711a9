"""Advantage actor-critic (Mnih et al. 2016, synchronous), as stable-baselines3 has it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer, RMSprop

from clrl.agents.rollout import OnPolicy, RolloutBatch
from clrl.agents.statistics import Statistics, policy_terms
from clrl.step import gradient_step

__all__ = ["A2C"]


@dataclass(kw_only=True)
class A2C(OnPolicy):
    """One update on each short rollout."""

    n_envs: int = 16
    """Parallel environments."""
    n_steps: int = 5
    """Steps of each environment in one rollout."""
    learning_rate: float = 7e-4
    """Step size at the start of a schedule."""
    gae_lambda: float = 1.0
    """Bias against variance of the advantages: 1 is the n-step return of the paper."""
    vf_coef: float = 0.25
    """Weight of the value loss."""
    normalize_advantage: bool = False
    """Scale the advantages of each rollout to mean 0, deviation 1."""
    optimizer_name: Literal["rmsprop_tf", "rmsprop"] = "rmsprop_tf"
    """`rmsprop_tf` adds epsilon inside the root and starts at 1, as TensorFlow does: steadier."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalize_advantage and self.n_envs * self.n_steps == 1:
            raise ValueError("normalize_advantage is true: expected false for rollouts of one step")

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        if self.optimizer_name == "rmsprop":
            return RMSprop(parameters, lr=self.learning_rate, alpha=0.99, eps=1e-5)
        # imported here: it brings all of stable-baselines3 with it
        from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike

        return RMSpropTFLike(parameters, lr=self.learning_rate, alpha=0.99, eps=1e-5)

    def learn(self, batch: RolloutBatch) -> dict[str, float]:
        self._statistics = Statistics()
        _, norm = gradient_step(
            self.method, self.optimizer, batch, self.loss, self.max_grad_norm, self.autocast
        )
        self._statistics.add(gradient_norm=norm)
        return self._statistics.means()

    def loss(self, batch: RolloutBatch) -> Tensor:
        with self.autocast():
            output = self.net(batch.x, batch.route, batch.context)
        logp, entropy = policy_terms(output.logits, batch.action)
        advantage = batch.advantage
        if self.normalize_advantage:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        policy_loss = -(advantage * logp).mean()
        assert output.value is not None
        value_loss = F.mse_loss(output.value, batch.return_)
        self._statistics.add(policy_loss=policy_loss, value_loss=value_loss, entropy=entropy)
        return policy_loss - self.ent_coef * entropy + self.vf_coef * value_loss
