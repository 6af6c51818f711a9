"""What quadratic penalties share: how importance is taken, kept, and acts on training."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from clrl.method import Method
from clrl.methods.quadratic import Quadratic
from clrl.types import Batch, ClrlError, LossFn, Net, NetSpec, Task

__all__ = ["Penalty"]

log = logging.getLogger(__name__)


@dataclass
class Penalty(Method):
    """Pull weights towards where they were, each as strongly as it mattered to finished tasks.

    `L(theta) + factor * strength * sum_k sum_i Omega_k,i (theta_i - theta*_k,i)^2`, one term k for
    every finished visit, all folded into one quadratic (`Quadratic`). A subclass says in
    `importance` what Omega is. Protected are the parameters that tasks share: the trunk, and the
    head if it is one for all.

    The penalty acts in one of two forms. `loss`: its gradient is added to the loss's in closed
    form, and both are clipped and rescaled by Adam together, as papers' code does. `decoupled`: the
    optimizer steps on the learner's loss alone, then weights take the proximal step of the penalty,
    `theta <- (theta + s W A) / (1 + s W)` with `s = 2 * factor * strength * learning rate`: stable
    for any strength, neither eaten by clipping nor rescaled by Adam.
    """

    factor: ClassVar[float] = 1.0  # 1/2 where the paper has it

    strength: float = 1.0
    """The paper's lambda or c: higher forgets less and learns less; 0 is fine-tuning."""
    form: Literal["loss", "decoupled"] = "loss"
    """`loss`: add the penalty's gradient; `decoupled`: a proximal step after the optimizer's."""
    anchors: Literal["separate", "online"] = "separate"
    """Pull to the weights after each visit, or with all importance to the latest ones only."""
    gamma: float = 1.0
    """With `online` anchors: `W <- gamma (W + Omega)` when a visit ends; below 1, old ones fade."""
    normalise: bool = True
    """Divide each visit's importance by its mean, so that the strengths of games and data sets come
    nearer (they still differ: try several). Of tasks that are alike, those learned less surely then
    keep less than their share."""
    clip_quantile: float = 1.0
    """Lower importance above this quantile of a visit's to it (0.999, say); 1 leaves all."""
    value: bool = False
    """For games: protect what the estimate of the value relies on, too, not only the policy."""
    protect_head: bool = True
    """Protect a head that all tasks share; heads of their own are never protected."""
    n_samples: int = 512
    """States or images the importance is averaged over. Where the net is sure of nearly all, it
    comes from the few others: take thousands."""
    n_batches: int = 8
    """Rollouts or batches they are drawn from, evenly: more are less alike; more if these are
    too small for so many samples."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength < float("inf"):
            raise ValueError(f"strength is {self.strength}: expected a number from 0")
        for name in ("gamma", "clip_quantile"):
            share = getattr(self, name)
            if not 0 < share <= 1:
                raise ValueError(f"{name} is {share}: expected a number above 0, at most 1")
        if self.gamma != 1 and self.anchors != "online":
            raise ValueError(
                f"gamma is {self.gamma}: only anchors 'online' have it, not {self.anchors!r}"
            )
        if not 1 <= self.n_batches <= self.n_samples:
            raise ValueError(
                f"n_batches is {self.n_batches}: expected from 1 to n_samples ({self.n_samples})"
            )

    def build(self, spec: NetSpec) -> Net:
        self.penalty = Quadratic()
        self._last: dict[str, Tensor] = {}  # for onlookers; not kept
        self._mean = 0.0
        net = super().build(spec)
        self.protected = self._choose_protected()  # by name; looked up once, used at every step
        return net

    def importance(self, data: Iterator[Batch]) -> dict[str, Tensor]:
        """Return Omega of the visit that just ended, by name, of all `protected` at least.

        Args:
            data: batches of the finished task; `draw` takes samples of them.
        """
        raise NotImplementedError

    def end_task(self, task: Task, data: Iterator[Batch]) -> None:
        if self.strength == 0:
            return  # nothing is computed that would be multiplied by zero
        found = self.importance(data)
        omega = self._checked({name: found[name] for name in self.protected}, task)
        if self.clip_quantile < 1:
            values = torch.cat([o.flatten() for o in omega.values()])
            rank = max(1, round(self.clip_quantile * values.numel()))
            most = values.kthvalue(rank).values
            omega = {name: o.clamp(max=most) for name, o in omega.items()}
        n_weights = sum(o.numel() for o in omega.values())
        # in double: a sure net's importance lies near float32's least number, a lost one's near its
        # greatest, where a mean of float32 is 0 or infinite
        self._mean = sum(float(o.sum(dtype=torch.float64)) for o in omega.values()) / n_weights
        if self._mean == 0:
            log.warning(
                "the importance after %r is 0 everywhere: nothing of it is protected", task.name
            )
        elif self.normalise:
            omega = {name: (o.double() / self._mean).to(o.dtype) for name, o in omega.items()}
        if self.anchors == "separate":
            self.penalty.add(omega, self.protected)
        else:
            self.penalty.recentre(omega, self.protected, self.gamma)
        self._last = omega

    def _choose_protected(self) -> dict[str, nn.Parameter]:
        shared = self.net.shared_parameters()
        if not self.protect_head:
            return self.net.body_parameters()
        if self.value:
            return shared
        return {name: p for name, p in shared.items() if not name.startswith("heads.value.")}

    def draw(self, data: Iterator[Batch]) -> Batch:
        """Draw `n_samples` by chance from `n_batches` batches, the same ones every time.

        By chance, as a stride would keep time with the environments of a rollout, whose steps
        follow one another: it would take few moments of each, and several all but alike.
        """
        per_batch = -(-self.n_samples // self.n_batches)
        drawn: list[Batch] = []
        chance = torch.Generator().manual_seed(0)
        while sum(map(len, drawn)) < self.n_samples:
            batch = next(data)
            index = torch.randperm(len(batch), generator=chance)[:per_batch]
            drawn.append(batch[index.to(batch.x.device)])
        names = [f.name for f in fields(drawn[0]) if getattr(drawn[0], f.name) is not None]
        parts = {name: [getattr(b, name) for b in drawn] for name in names}
        return replace(
            drawn[0], **{name: torch.cat(p)[: self.n_samples] for name, p in parts.items()}
        )

    def edit_gradients(self, loss_fn: LossFn) -> None:
        if self.strength > 0 and self.form == "loss":
            self.penalty.add_gradient(self.protected, self.factor * self.strength)

    def after_step(self, step_size: float) -> None:
        if self.strength > 0 and self.form == "decoupled":
            self.penalty.pull(self.protected, self.factor * self.strength * step_size)

    def records(self) -> dict[str, float]:
        if not self.penalty.weight or self.strength == 0:
            return {}
        # what pulls: between separate anchors there is a rest that no weights can be rid of
        value = self.penalty.value(self.protected) - self.penalty.constant
        return {
            "penalty": self.factor * self.strength * value,
            "importance_mean": self._mean,  # of the last visit, before it is normalised
        }

    def importances(self) -> dict[str, Tensor]:
        return self._last

    def state_dict(self) -> dict[str, Any]:
        return {"penalty": self.penalty.state_dict(), "mean": self._mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = next(self.net.parameters()).device
        self.penalty.load_state_dict(state["penalty"], device)
        self._mean = float(state["mean"])

    def _checked(self, omega: dict[str, Tensor], task: Task) -> dict[str, Tensor]:
        """Refuse importance that would spoil what is stored, and all training after it."""
        for name, o in omega.items():
            finite = torch.isfinite(o).all() & torch.isfinite(self.net.get_parameter(name)).all()
            if not bool(finite):
                raise ClrlError(
                    f"the importance of {name} after {task.name!r} is not finite: the net has "
                    "diverged; lower agent.learning_rate and resume from the last checkpoint"
                )
            if bool((o < 0).any()):
                raise ClrlError(
                    f"the importance of {name} after {task.name!r} is negative: expected numbers "
                    f"from 0; mend {type(self).__name__}.importance"
                )
        return omega
