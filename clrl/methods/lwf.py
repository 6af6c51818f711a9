"""Learning without forgetting."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clrl.method import Method
from clrl.nets.layers import as_input
from clrl.nets.plain import PlainNet
from clrl.types import Batch, LossFn, Net, NetSpec, Output, Task

__all__ = ["LwF"]


class _Student(PlainNet):
    """A plain net that, while asked to, can tell once more what its trunk made of the last input.

    Attributes:
        remembers: whether it is asked to.
    """

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        self.remembers = False
        self._seen: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, route: Tensor, context: Tensor | None = None) -> Output:
        h = self.trunk(as_input(x))
        if self.remembers and torch.is_grad_enabled():
            self._seen = x, h
        output: Output = self.heads(h, route)
        return output

    def features_of(self, x: Tensor) -> Tensor:
        """Return (B, F), with its graph: of the last forward pass, once, if that was of this x."""
        seen, self._seen = self._seen, None
        if seen is not None and seen[0] is x:
            return seen[1]
        features: Tensor = self.trunk(as_input(x))
        return features

    def forget(self) -> None:
        """Drop what was kept: to be called when weights have changed."""
        self._seen = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_seen": None}  # a graph can be neither copied nor stored


@dataclass
class LwF(Method):
    """Keep old heads' answers to new inputs as they were (Li and Hoiem 2016).

    `L(theta) + strength * sum_k 1/B sum_b KL(q_k(x_b) || p_k(x_b))`, over the distinct tasks k
    before this one. q_k is the softmax of `logits / temperature` of head k as the net was when the
    visit began, p_k that of the net now. No old data are needed, but the inputs of the new task
    must look like those of the old ones: permuted digits and other games do not.

    Tasks under one shared head are distilled at the outputs that they have; those with the same
    outputs count once, and where outputs are not masked (class-incremental) all old classes are one
    softmax.

    The trunk's features of the batch are those that the learner's own loss has just computed, so
    that a step costs the teacher's forward pass more than fine-tuning's, and little else.

    Differs from the paper:
    - the Kullback-Leibler divergence stands for the cross-entropy: the same gradient, and 0 where
      nothing has drifted. As there, it is not multiplied by the temperature's square,
      which much later code does: a strength of 4 here is one of 1 there (at T = 2), and the
      higher the temperature, the weaker the pull;
    - no warm-up of the new head with a frozen trunk, and no weight decay.
    """

    strength: float = 1.0
    """The paper's lambda_o (1 there): higher keeps old answers and learns less."""
    temperature: float = 2.0
    """The paper's T (2 there): higher lets unlikely outputs count for more."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength < float("inf"):
            raise ValueError(f"strength is {self.strength}: expected a number from 0")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}: expected a number above 0")

    @property
    def starts_plainly(self) -> bool:
        return type(self) is LwF

    def build(self, spec: NetSpec) -> Net:
        self._net = self._student = _Student(spec)
        self._begun: list[Task] = []
        self._teacher: PlainNet | None = None
        self._outputs: list[tuple[int, tuple[int, ...]]] = []  # (task id, some of its logits)
        self._last: Tensor | None = None  # for the records
        return self._student

    def begin_task(self, task: Task) -> None:
        self._begun.append(task)
        earlier = {t.id: t for t in self._begun if t.id != task.id}
        self._outputs = self._distilled(list(earlier.values()))
        self._teacher = self._last = None
        self._student.forget()
        self._student.remembers = False
        if self._outputs and self.strength > 0:
            self._teacher = copy.deepcopy(self._student).requires_grad_(False)
            self._student.remembers = True

    def _distilled(self, earlier: list[Task]) -> list[tuple[int, tuple[int, ...]]]:
        """Return whose answers are kept: task ids, each with the logits that are its answer."""
        spec = self._student.spec
        if not spec.shared_head:
            return [(t.id, tuple(range(t.n_outputs))) for t in earlier]
        legal = {t.id: t.legal or tuple(range(t.n_outputs)) for t in earlier}
        if not spec.masks and earlier:  # one softmax over all of them
            return [(earlier[0].id, tuple(sorted(set().union(*legal.values()))))]
        first: dict[tuple[int, ...], int] = {}
        for k, outputs in legal.items():  # the same outputs of one head are one answer
            first.setdefault(outputs, k)
        return [(k, outputs) for outputs, k in first.items()]

    def loss(self, batch: Batch, loss_fn: LossFn) -> Tensor | float:
        if self._teacher is None:
            return 0.0
        ids = [k for k, _ in self._outputs]
        with torch.no_grad():
            old = self._teacher.all_logits(batch.x, ids).float() / self.temperature
        new = self._student.logits_of(self._student.features_of(batch.x), ids).float()
        new = new / self.temperature
        total = torch.zeros((), device=new.device)
        for k, (_, columns) in enumerate(self._outputs):
            log_q = old[k][:, columns].log_softmax(-1)
            log_p = new[k][:, columns].log_softmax(-1)
            total = total + (log_q.exp() * (log_q - log_p)).sum(1).mean()
        self._last = total.detach()
        return self.strength * total

    def after_step(self, step_size: float) -> None:
        self._student.forget()  # its features are of other weights now

    def records(self) -> dict[str, float]:
        return {} if self._last is None else {"distillation": float(self._last)}

    def state_dict(self) -> dict[str, Any]:
        return {"teacher": None if self._teacher is None else self._teacher.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._teacher is not None and state["teacher"] is not None:  # None: strength was 0
            self._teacher.load_state_dict(state["teacher"])
