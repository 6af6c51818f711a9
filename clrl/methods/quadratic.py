"""Many quadratic penalties folded into one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["Quadratic"]


class Quadratic:
    """A sum of quadratics, kept as one: memory and time do not grow with the number of tasks.

    `sum_k sum_i w_k,i (theta_i - a_k,i)^2 = sum_i W_i (theta_i - A_i)^2 + constant`, where W is
    the sum of the weights and A the weighted mean of the anchors. The constant matters to no
    gradient; it is kept so that values agree with the separate form.
    """

    def __init__(self) -> None:
        self.weight: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}
        self.constant = 0.0
        self._scratch: dict[str, Tensor] = {}  # new memory at every step would cost twice the time
        self._share: dict[str, Tensor] = {}  # of the way to the anchors, at the scale below
        self._share_scale = 0.0

    def add(self, weight: Mapping[str, Tensor], anchor: Mapping[str, Tensor]) -> None:
        """Fold in `sum_i weight_i (theta_i - anchor_i)^2`; weights must not be negative."""
        for name, w in weight.items():
            a = anchor[name].detach()
            if name not in self.weight:
                self.weight[name], self.anchor[name] = w.clone(), a.clone()
                continue
            total = self.weight[name] + w
            share = torch.where(total > 0, w / total, 0.0)
            moved = a - self.anchor[name]
            # in double: the constant is a small sum of large products
            spread = self.weight[name].double() * share.double() * moved.double().square()
            self.constant += float(spread.sum())
            self.anchor[name] += share * moved
            self.weight[name] = total
        self._share_scale = 0.0

    def recentre(
        self, weight: Mapping[str, Tensor], anchor: Mapping[str, Tensor], gamma: float
    ) -> None:
        """Add to the weights, multiply them by `gamma`, and let `anchor` be the only anchor."""
        for name, w in weight.items():
            before = self.weight.get(name)
            self.weight[name] = gamma * (w if before is None else before + w)
            self.anchor[name] = anchor[name].detach().clone()
        self.constant = 0.0
        self._share_scale = 0.0

    @torch.no_grad()
    def value(self, theta: Mapping[str, Tensor]) -> float:
        """Return the sum; 0.0 before anything was added."""
        terms = [
            (theta[name] - self.anchor[name]).square_().mul_(w).sum()
            for name, w in self.weight.items()
        ]
        return float(torch.stack(terms).sum()) + self.constant if terms else 0.0

    @torch.no_grad()
    def add_gradient(self, theta: Mapping[str, Tensor], scale: float) -> None:
        """Add the gradient of `scale * value(theta)` to every `.grad` of `theta`.

        The same as a backward pass through `value`, at a fraction of its time. What needs no
        gradient gets none.
        """
        for name, w in self.weight.items():
            p = theta[name]
            if not p.requires_grad:
                continue
            if p.grad is None:  # the learner's loss did not depend on it; the penalty does
                p.grad = torch.zeros_like(p)
            away = torch.sub(p, self.anchor[name], out=self._scratch.get(name))
            self._scratch[name] = away
            p.grad.addcmul_(w, away, value=2 * scale)

    @torch.no_grad()
    def pull(self, theta: Mapping[str, Tensor], scale: float) -> None:
        """Move `theta` to the minimum of `scale * value(x) + 1/2 ||x - theta||^2`.

        `theta_i <- (theta_i + 2 scale W_i A_i) / (1 + 2 scale W_i)`: towards the anchor, never
        beyond. What needs no gradient stays.
        """
        if scale == 0:
            return
        if scale != self._share_scale:  # step sizes often last for many steps
            for name, w in self.weight.items():
                share = torch.add(w, 1 / (2 * scale), out=self._share.get(name))
                self._share[name] = torch.div(w, share, out=share)
            self._share_scale = scale
        for name, anchor in self.anchor.items():
            if theta[name].requires_grad:
                theta[name].lerp_(anchor, self._share[name])

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight, "anchor": self.anchor, "constant": self.constant}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self.weight = {k: v.to(device) for k, v in state["weight"].items()}
        self.anchor = {k: v.to(device) for k, v in state["anchor"].items()}
        self.constant = float(state["constant"])
        self._share_scale = 0.0
