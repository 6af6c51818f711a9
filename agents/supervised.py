"""Classification: batches of labelled pictures, cross-entropy, and accuracy on held-out ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer

from clrl.agents.learner import EvaluationRow, Learner, RunSettings, Schedule
from clrl.agents.statistics import Statistics
from clrl.method import Method
from clrl.step import gradient_step
from clrl.types import Batch, NetSpec, Task

__all__ = ["LabelledBatch", "PictureTask", "Supervised"]

STEPS_PER_UPDATE = 10  # records are means over as many; a stop waits for no more
EVALUATED_AT_ONCE = 1_000


class Examples(Protocol):
    """Pictures and what they show."""

    @property
    def x(self) -> Tensor:
        """(n, *input_shape), uint8 pixels."""
        ...

    @property
    def label(self) -> Tensor:
        """(n,) long: the output that is right."""
        ...


class PictureTask(Protocol):
    """A task that is a set of labelled pictures."""

    @property
    def evaluated_split(self) -> str:
        """The part that evaluations use: test, or what is held out of training."""
        ...

    def examples(self, split: str) -> Examples:
        """Return a part of the data: `train` or `evaluated_split`."""
        ...


@dataclass
class LabelledBatch(Batch):
    """Pictures with the outputs that are right."""

    label: Tensor  # (B,) long

    @property
    def target(self) -> Tensor:
        return self.label


class _Data(NamedTuple):
    """What a visit learns from: the training pictures of one task, or of several together."""

    x: Tensor  # (n, *input_shape) uint8
    label: Tensor  # (n,) long
    source: Tensor  # (n,) long: which of the visit's tasks a picture belongs to


@dataclass(kw_only=True)
class Supervised(Learner):
    """Learns to classify; a step is a gradient step, a batch is drawn by indexing.

    Each epoch goes through the pictures in a new random order and leaves out the last few that
    fill no batch. That order is a function of the seed, the visit and the epoch alone.
    """

    kind: ClassVar[str] = "supervised"
    score: ClassVar[str] = "accuracy"
    record_every: ClassVar[int] = 100

    batch_size: int = 128
    """Pictures of one gradient step."""
    learning_rate: float = 1e-3
    """Step size at the start of a schedule."""
    learning_rate_schedule: Schedule = "constant"
    """`linear` decays the step size to 0; `constant` keeps it."""
    max_grad_norm: float = math.inf
    """Gradients are scaled down to this global 2-norm; .inf leaves them alone."""
    optimizer_name: Literal["adam", "sgd"] = "adam"
    """`adam` as van de Ven & Tolias (2019), `sgd` as Kirkpatrick et al. (2017)."""
    momentum: float = 0.0
    """Of `sgd`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive("batch_size")
        self._require_share("momentum")
        if self.momentum and self.optimizer_name != "sgd":
            raise ValueError(
                f"momentum is {self.momentum}: only optimizer_name 'sgd' has it, "
                f"not {self.optimizer_name!r}"
            )

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        if self.optimizer_name == "sgd":
            sgd = SGD(parameters, lr=self.learning_rate, momentum=self.momentum, fused=True)
            for p in sgd.param_groups[0]["params"] if self.momentum else ():
                # the start it has anyway; but a fused step fails where some parameters, which had
                # no gradient so far, have none and others do
                sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
            return sgd
        return Adam(parameters, lr=self.learning_rate, fused=True)

    # ------------------------------------------------------------------------- life of a task

    def setup(self, method: Method, spec: NetSpec, settings: RunSettings) -> None:
        super().setup(method, spec, settings)
        self._pictures = 0  # used so far, for `end_task` too

    def open_tasks(self) -> None:
        self._data: _Data | None = None  # gone before its successor comes
        parts = [cast(PictureTask, task).examples("train") for task in self.learned]
        device = self.settings.device
        source = [torch.full((len(part.label),), k) for k, part in enumerate(parts)]
        self._data = _Data(
            _joined([part.x for part in parts]).to(device),
            _joined([part.label for part in parts]).to(device),
            torch.cat(source).to(device),
        )
        self._epoch = -1

    def take_over(self, task: Task, state: dict[str, Any], weights: Sequence[Tensor]) -> str | None:
        super().take_over(task, state, weights)
        self._pictures = state["pictures"]
        return None

    def update(self) -> dict[str, float]:
        self.net.train()
        self._statistics = Statistics()
        rate = self.learning_rate
        left = self.settings.steps_per_visit - self.task_step
        for _ in range(min(STEPS_PER_UPDATE, left)):
            rate = self.set_learning_rate()
            batch = self._batch(self._rows(), training=True)
            _, norm = gradient_step(
                self.method,
                self.optimizer,
                batch,
                self.loss,
                self.max_grad_norm,
                self.autocast,
            )
            self._statistics.add(gradient_norm=norm)
            self.latest = batch.x, batch.route
            self.step += 1
            self.task_step += 1
            self.method.observe(batch, self.task_progress)
        return {"train/learning_rate": rate} | self._statistics.means()

    def loss(self, batch: LabelledBatch) -> Tensor:
        """Return the mean cross-entropy; writes into `batch.score` which ones are right."""
        with self.autocast():
            logits = self.net(batch.x, batch.route).logits
        right = logits.detach().argmax(-1) == batch.label
        batch.score.copy_(right)
        loss = F.cross_entropy(logits, batch.label)
        self._statistics.add(loss=loss, accuracy=100.0 * right.float().mean())
        return loss

    def end_task(self) -> None:
        self.net.eval()
        self.method.end_task(self.task, self._training_set())

    def _training_set(self) -> Iterator[Batch]:
        """Yield batches of the training set, in an order of their own, without end."""
        generator = torch.Generator().manual_seed(self.seed_for(6, len(self.begun)))
        while True:
            assert self._data is not None
            order = torch.randperm(len(self._data.label), generator=generator)
            for rows in torch.split(order.to(self.settings.device), self.batch_size):
                self.extra_steps += 1
                yield self._batch(rows, training=False)

    @torch.no_grad()
    def evaluate(
        self, task: Task, episodes: int, seed: int, tick: Callable[[], None] = lambda: None
    ) -> list[EvaluationRow]:
        """Return one row: `accuracy` in percent, mean cross-entropy `loss`, and `n` pictures."""
        pictures = cast(PictureTask, task)
        examples = pictures.examples(pictures.evaluated_split)
        was_training = self.net.training
        self.net.eval()
        try:
            right, loss = 0, 0.0
            for x, label in zip(
                torch.split(examples.x, EVALUATED_AT_ONCE),
                torch.split(examples.label.to(self.settings.device), EVALUATED_AT_ONCE),
                strict=True,
            ):
                tick()
                route = self.method.route(task, len(label), training=False)
                with self.autocast():
                    logits = self.net(
                        x.to(self.settings.device), route.to(self.settings.device)
                    ).logits
                right += int((logits.argmax(-1) == label).sum())
                loss += float(F.cross_entropy(logits, label, reduction="sum"))
        finally:
            self.net.train(was_training)
        n = len(examples.label)
        return [{"accuracy": 100.0 * right / n, "loss": loss / n, "n": n}]

    @property
    def frames(self) -> int:
        """Pictures used so far, those for `end_task` included, evaluations not."""
        return self._pictures

    # -------------------------------------------------------------------------------- batches

    def _rows(self) -> Tensor:
        """Return the places of the next batch's pictures."""
        assert self._data is not None
        n = len(self._data.label)
        epoch, place = divmod(self.task_step, max(1, n // self.batch_size))
        if epoch != self._epoch:
            seed = self.seed_for(5, len(self.begun), epoch)
            order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
            self._epoch, self._order = epoch, order.to(self.settings.device)
        return self._order[place * self.batch_size : (place + 1) * self.batch_size]

    def _batch(self, rows: Tensor, *, training: bool) -> LabelledBatch:
        assert self._data is not None, "a batch outside a task: call begin_task first"
        x, label, source = self._data
        n = len(rows)
        self._pictures += n
        routes = [self.method.route(task, n, training=training) for task in self.learned]
        if len(routes) == 1:
            route = routes[0].to(x.device)
        else:
            route = torch.stack(routes).to(x.device)[source[rows], torch.arange(n, device=x.device)]
        return LabelledBatch(
            x=x.index_select(0, rows),
            route=route,
            score=torch.full((n,), torch.nan, device=x.device),
            label=label.index_select(0, rows),
        )

    # ---------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"pictures": self._pictures}

    def load_state_dict(self, state: dict[str, Any], tasks: tuple[Task, ...]) -> str | None:
        super().load_state_dict(state, tasks)
        self._pictures = state["pictures"]
        if self.begun:
            self.open_tasks()
        return None


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
