"""What policy-gradient losses share: log-probabilities, entropy, and running means of records."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

__all__ = ["Statistics", "policy_terms"]


def policy_terms(logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Return log pi(action) (B,) and the mean entropy, a scalar, from logits (B, A).

    Masked logits (-1e9) have probability 0 and add exactly 0 to the entropy.
    """
    log_pi = logits.log_softmax(-1)
    logp = log_pi.gather(-1, action[:, None]).squeeze(-1)
    return logp, -(log_pi.exp() * log_pi).sum(-1).mean()


class Statistics:
    """Means of named scalars over the gradient steps of one update, read once at its end."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[Tensor]] = defaultdict(list)

    def add(self, **values: Tensor) -> None:
        """Take one value of each name, without waiting for the device."""
        for name, value in values.items():
            self._values[name].append(value.detach())

    def means(self) -> dict[str, float]:
        """Return `train/<name>` means."""
        return {f"train/{k}": float(torch.stack(v).mean()) for k, v in self._values.items()}
