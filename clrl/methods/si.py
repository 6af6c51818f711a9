"""Synaptic intelligence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from clrl.methods.penalty import Penalty
from clrl.types import Batch, LossFn, Net, NetSpec, Task

__all__ = ["SI"]


@dataclass
class SI(Penalty):
    """Pull weights whose movement lowered the loss (Zenke et al. 2017).

    `L(theta) + strength * sum_i Omega_i (theta_i - theta*_i)^2` with the latest weights theta* and
    `Omega_i = sum_k max(0, w_k,i) / (Delta_k,i^2 + xi)`. Delta_k is how far a weight moved in visit
    k, and `w_k,i = -sum_t g_i(t) (theta_i(t+1) - theta_i(t))` its share of what that took from the
    loss: g is the gradient of the learner's loss alone, neither clipped nor with the penalty's; the
    weights are those before and after the optimizer (and the proximal step, if `decoupled`).

    Differs from the paper:
    - w below 0, which noisy gradients leave behind, counts as 0: a negative importance would push
      weights away. The author's code cuts off the running sum instead, so that a visit below 0
      takes from what earlier ones left; here each counts by itself, as other penalties' do;
    - `normalise` is off, as in the paper: Omega is in units of the loss, and a strength of 1 stands
      for what the path took from it. On pictures more was better here: 100 on Split MNIST by task,
      where the paper has 1. Losses of games are in no such unit: turn it on there.
    Draws no data, so that `n_samples` and `n_batches` mean nothing; `value` decides about a shared
    value head only, because the loss whose path is followed contains the value's.
    """

    anchors: Literal["separate", "online"] = "online"
    """Pull to the weights after each visit, or with all importance to the latest (published)."""
    normalise: bool = False
    """Divide each visit's importance by its mean, for games."""
    xi: float = 0.1
    """The paper's damping: higher flattens the importance of weights that hardly moved."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.xi < float("inf"):
            raise ValueError(f"xi is {self.xi}: expected a number above 0")

    def build(self, spec: NetSpec) -> Net:
        self._start: dict[str, Tensor] = {}  # weights when the visit began
        self._path: dict[str, Tensor] = {}  # w
        self._before: dict[str, Tensor] = {}  # weights before the step now being taken
        self._gradient: dict[str, Tensor] = {}  # the learner's, of that step
        return super().build(spec)

    def begin_task(self, task: Task) -> None:
        if self.strength > 0:
            theta = self.protected
            self._start = {name: p.detach().clone() for name, p in theta.items()}
            self._path = {name: torch.zeros_like(p) for name, p in theta.items()}
            self._before = {name: torch.empty_like(p) for name, p in theta.items()}
            self._gradient = {name: torch.zeros_like(p) for name, p in theta.items()}

    @torch.no_grad()
    def edit_gradients(self, loss_fn: LossFn) -> None:
        if self.strength > 0:
            for name, p in self.protected.items():
                self._before[name].copy_(p)
                if p.grad is None:
                    self._gradient[name].zero_()
                else:  # clipping works in place
                    self._gradient[name].copy_(p.grad)
        super().edit_gradients(loss_fn)

    @torch.no_grad()
    def after_step(self, step_size: float) -> None:
        super().after_step(step_size)
        if self.strength > 0:
            for name, p in self.protected.items():
                before = self._before[name]
                moved = torch.sub(p, before, out=before)
                self._path[name].addcmul_(self._gradient[name], moved, value=-1.0)

    @torch.no_grad()
    def importance(self, data: Iterator[Batch]) -> dict[str, Tensor]:
        return {
            name: w.clamp(min=0) / ((self.protected[name] - self._start[name]).square() + self.xi)
            for name, w in self._path.items()
        }

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"start": self._start, "path": self._path}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        device = next(self.net.parameters()).device
        # where strength was 0 until now, the path begins here
        self._start |= {name: t.to(device) for name, t in state["start"].items()}
        self._path |= {name: t.to(device) for name, t in state["path"].items()}
