"""Proximal policy optimisation (Schulman et al. 2017), as stable-baselines3 has it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from clrl.agents.learner import Schedule
from clrl.agents.rollout import OnPolicy, RolloutBatch
from clrl.agents.statistics import Statistics, policy_terms
from clrl.step import gradient_step

__all__ = ["PPO"]


@dataclass(kw_only=True)
class PPO(OnPolicy):
    """Several epochs of clipped policy updates on each rollout."""

    batch_size: int = 256
    """Samples of one gradient step."""
    n_epochs: int = 4
    """Passes over each rollout: more squeezes out more, at the risk of overfitting it."""
    clip_range: float = 0.1
    """How far the probability ratio may move before its gradient is cut (the paper's epsilon)."""
    clip_range_schedule: Schedule = "constant"
    """`linear` narrows the clip range to 0 along with the schedule."""
    normalize_advantage: bool = True
    """Scale the advantages of each minibatch to mean 0, deviation 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive("batch_size", "n_epochs", "clip_range")
        smallest = (self.n_envs * self.n_steps) % self.batch_size or self.batch_size
        if self.normalize_advantage and smallest == 1:
            raise ValueError(
                f"batch_size is {self.batch_size}: of {self.n_envs} x {self.n_steps} samples it "
                "leaves a minibatch of one, whose advantage has no deviation; choose a divisor"
            )

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        # fused: 1 ms instead of 7 for the Nature net on a CPU, the same to rounding
        return Adam(parameters, lr=self.learning_rate, eps=1e-5, fused=True)

    def permutation(self, n: int) -> Tensor:
        """Return (n,) a random order of the rollout's samples for one epoch."""
        return torch.randperm(n, generator=self.generator).to(self.settings.device)

    def learn(self, batch: RolloutBatch) -> dict[str, float]:
        self._clip = self.scheduled(self.clip_range, self.clip_range_schedule)
        self._statistics = Statistics()
        for _ in range(self.n_epochs):
            for index in torch.split(self.permutation(len(batch)), self.batch_size):
                _, norm = gradient_step(
                    self.method,
                    self.optimizer,
                    batch[index],
                    self.loss,
                    self.max_grad_norm,
                    self.autocast,
                )
                self._statistics.add(gradient_norm=norm)
        return self._statistics.means() | {"train/clip_range": self._clip}

    def loss(self, batch: RolloutBatch) -> Tensor:
        with self.autocast():
            output = self.net(batch.x, batch.route, batch.context)
        logp, entropy = policy_terms(output.logits, batch.action)
        advantage = batch.advantage
        if self.normalize_advantage:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)

        ratio = (logp - batch.logp).exp()
        clipped = ratio.clamp(1 - self._clip, 1 + self._clip)
        policy_loss = -torch.min(advantage * ratio, advantage * clipped).mean()  # eq. 7
        assert output.value is not None
        value_loss = F.mse_loss(output.value, batch.return_)

        with torch.no_grad():
            kl = ((ratio - 1) - (logp - batch.logp)).mean()  # Schulman's low-variance estimate
            outside = ((ratio - 1).abs() > self._clip).float().mean()
        self._statistics.add(
            policy_loss=policy_loss,
            value_loss=value_loss,
            entropy=entropy,
            approx_kl=kl,
            clip_fraction=outside,
        )
        return policy_loss - self.ent_coef * entropy + self.vf_coef * value_loss  # eq. 9
