"""Elastic weight consolidation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from clrl.methods.fisher import batched_fisher, exact_fisher, fisher_at
from clrl.methods.penalty import Penalty
from clrl.types import Batch, Net, NetSpec

__all__ = ["EWC"]


@dataclass
class EWC(Penalty):
    """Pull weights that mattered towards where they were (Kirkpatrick et al. 2017).

    `L(theta) + strength / 2 * sum_k sum_i F_k,i (theta_i - theta*_k,i)^2`, one term k for every
    finished visit. F_k is the diagonal Fisher information of the policy (or of the classes) at the
    end of visit k, over states that the final policy visits (or training images).
    With `anchors: online` it is online EWC (Schwarz et al. 2018, section 4):
    `strength / 2 * gamma sum_i F*_i (theta_i - theta*_i)^2` around the latest weights, and
    `F* <- gamma F* + F_k`.

    Differs from the papers:
    - the Fisher is exact over all outputs, not of sampled ones: less variance, no more cost
      (`estimator` has the others);
    - with `normalise` it is divided by its mean over the protected weights, because policies that
      hardly hesitate have tiny Fishers: strengths that serve games then differ less (the scale is
      free, as in Schwarz et al. 2018, section 4);
    - protected are the parameters that tasks share; without `value` the value head is not;
    - in the form `loss`, its gradient is clipped together with the learner's (`max_grad_norm`), as
      a part of the loss would be: a strong one takes the budget from learning;
    - every visit counts: a game visited twice is protected twice as strongly;
    - there is no waiting period (20M frames in the paper) before a game is protected.
    """

    factor: ClassVar[float] = 0.5

    estimator: Literal["exact", "sample", "empirical", "batched"] = "exact"
    """Whose log-probability is squared: `exact` every output's, weighted by its probability;
    `sample` one drawn; `empirical` the label (games: the action taken); `batched` the labels' of
    `batch_size` samples together, as much code wrongly has it."""
    batch_size: int = 128
    """Samples whose gradients `batched` averages before squaring: they cancel, others do not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.batch_size >= 1:
            raise ValueError(f"batch_size is {self.batch_size}: expected a number from 1")

    @property
    def starts_plainly(self) -> bool:
        return type(self) is EWC

    def build(self, spec: NetSpec) -> Net:
        # of its own, and in the state: a resumed run goes on
        self._generator = torch.Generator().manual_seed(torch.initial_seed())
        return super().build(spec)

    def importance(self, data: Iterator[Batch]) -> dict[str, Tensor]:
        sample = self.draw(data)
        x, route = sample.x, sample.route
        if self.estimator == "exact":
            return exact_fisher(self.net, x, route, self.value)
        if self.estimator == "sample":
            with torch.no_grad():
                p = self.net(x, route).logits.softmax(-1).cpu()
            # a diverged net is refused with its importance, not here
            y = torch.multinomial(p.nan_to_num(1.0), 1, generator=self._generator)
            return fisher_at(self.net, x, route, y.squeeze(1).to(x.device), self.value)
        if self.estimator == "empirical":
            return fisher_at(self.net, x, route, sample.target, self.value)
        return batched_fisher(self.net, x, route, sample.target, self.batch_size, self.value)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._generator.set_state(state["generator"].cpu())
