"""Elastic weight consolidation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clrl.method import Method
from clrl.methods.fisher import exact_fisher
from clrl.methods.penalty import Quadratic
from clrl.types import Batch, ClrlError, LossFn, Net, NetSpec, Task

__all__ = ["EWC"]


@dataclass
class EWC(Method):
    """Pull weights that mattered towards where they were (Kirkpatrick et al. 2017).

    `L(theta) + strength / 2 * sum_k sum_i F_k,i (theta_i - theta*_k,i)^2`, one term k for every
    finished visit, folded into one quadratic (`Quadratic`). F_k is the diagonal Fisher information
    of the policy at the end of visit k, over states that the final policy visits. The penalty's
    gradient, strength * W * (theta - A) of the folded quadratic, is added to the loss's in closed
    form; its value is computed only for the records, of the weights as they are then.

    Differs from the paper:
    - the Fisher is exact over all actions, not of sampled ones: less variance, no more cost;
    - with `normalise` it is divided by its mean over the protected weights, because policies that
      hardly hesitate have tiny Fishers: one strength then serves every game (the scale is free,
      as in Schwarz et al. 2018, section 4);
    - protected are the parameters that tasks share: the trunk, and the policy head if it is one
      for all. The value head's part of the Fisher is zero: it does not change the policy;
    - its gradient is clipped together with the learner's (`max_grad_norm`), as a part of the loss
      would be: a strong one takes the budget from learning;
    - every visit counts: a game visited twice is protected twice as strongly;
    - there is no waiting period (20M frames in the paper) before a game is protected.
    """

    strength: float = 1.0
    """The paper's lambda (400 there, unnormalised): higher forgets less and learns less."""
    n_states: int = 512
    """States the Fisher is averaged over."""
    n_batches: int = 8
    """Rollouts (or batches) the states are drawn from, evenly: more are less alike."""
    normalise: bool = True
    """Divide each task's Fisher by its mean."""

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise ValueError(f"strength is {self.strength}: expected a number from 0")
        if not 1 <= self.n_batches <= self.n_states:
            raise ValueError(
                f"n_batches is {self.n_batches}: expected from 1 to n_states ({self.n_states})"
            )

    def build(self, spec: NetSpec) -> Net:
        self.penalty = Quadratic()
        return super().build(spec)

    def end_task(self, task: Task, data: Iterator[Batch]) -> None:
        if self.strength == 0:
            return  # nothing is computed that would be multiplied by zero
        x, route = self._states(data)
        shared = self.net.shared_parameters()
        fisher = {n: f for n, f in exact_fisher(self.net, x, route).items() if n in shared}
        for name, f in fisher.items():
            if not bool(torch.isfinite(f).all()):
                raise ClrlError(
                    f"the Fisher information of {name} after {task.name!r} is not finite: the net "
                    "has diverged; lower agent.learning_rate and resume from the last checkpoint"
                )
        if self.normalise:
            mean = sum(float(f.sum()) for f in fisher.values()) / sum(
                f.numel() for f in fisher.values()
            )
            fisher = {n: f / mean for n, f in fisher.items()} if mean > 0 else fisher
        self.penalty.add(fisher, {n: p.detach() for n, p in shared.items()})

    def _states(self, data: Iterator[Batch]) -> tuple[Tensor, Tensor]:
        """Draw states evenly spaced within `n_batches` batches, so that no generator is needed."""
        per_batch = -(-self.n_states // self.n_batches)
        drawn = []
        for _ in range(self.n_batches):
            batch = next(data)
            index = torch.linspace(0, len(batch) - 1, min(per_batch, len(batch)))
            rows = index.round().long().to(batch.x.device)
            drawn.append((batch.x[rows].clone(), batch.route[rows].clone()))
        x, route = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        return x[: self.n_states], route[: self.n_states]

    def edit_gradients(self, loss_fn: LossFn) -> None:
        if self.strength > 0:
            self.penalty.add_gradient(self.net.shared_parameters(), 0.5 * self.strength)

    @torch.no_grad()
    def records(self) -> dict[str, float]:
        if not self.penalty.weight or self.strength == 0:
            return {}
        value = self.penalty.value(self.net.shared_parameters())
        return {"penalty": 0.5 * self.strength * float(value)}

    def state_dict(self) -> dict[str, Any]:
        return {"penalty": self.penalty.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = next(self.net.parameters()).device
        self.penalty.load_state_dict(state["penalty"], device)
