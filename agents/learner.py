"""What every learner is: a net its method built, an optimizer for each task, counters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clrl.method import Method
from clrl.types import ClrlError, NetSpec, Task

__all__ = ["Learner", "RunSettings", "Schedule"]

Schedule = Literal["constant", "linear"]
EvaluationRow = dict[str, Any]


@dataclass(frozen=True)
class RunSettings:
    """What a learner is told of the run it serves.

    Attributes:
        seed: of every random stream of training.
        steps_per_visit: agent steps (or samples) of each visit to a task.
        n_visits: visits in the whole sequence.
        device: where the net lives.
        bf16: run forward and backward passes under bfloat16 autocast; weights stay float32.
        clip_rewards: learn from sign(reward); reports stay raw.
        greedy_evaluation: evaluate the most likely action instead of a sampled one.
        threads: emulator threads; 0 leaves the choice to the back-end.
        frames_per_step: emulator frames that one agent step takes.
    """

    seed: int
    steps_per_visit: int
    n_visits: int
    device: torch.device
    bf16: bool = False
    clip_rewards: bool = False
    greedy_evaluation: bool = False
    threads: int = 0
    frames_per_step: int = 1


@dataclass(kw_only=True)
class Learner:
    """Makes batches of experience, scores them with its own loss, steps through `gradient_step`.

    A subclass is a dataclass whose fields are its hyper-parameters; the rest is made in `setup`.
    """

    kind: ClassVar[str]  # `rl` or `supervised`
    score: ClassVar[str] = "return"  # what an evaluation row is judged by
    record_every: ClassVar[int] = 1_000  # steps between records

    learning_rate: float = 2.5e-4
    """Step size at the start of a schedule."""
    learning_rate_schedule: Schedule = "linear"
    """`linear` decays the step size to 0; `constant` keeps it."""
    schedule_over: Literal["task", "sequence"] = "task"
    """Schedules restart with every task, or run once over the whole sequence."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this global 2-norm."""

    def __post_init__(self) -> None:
        self._require_positive("learning_rate")
        if not self.max_grad_norm > 0:  # infinite: gradients are left as they are
            raise ValueError(f"max_grad_norm is {self.max_grad_norm}: expected a number above 0")

    def setup(self, method: Method, spec: NetSpec, settings: RunSettings) -> None:
        """Have the method build the net, and begin counting.

        Raises:
            ClrlError: when the method cannot serve this kind of learner.
        """
        if self.kind not in method.kinds:
            raise ClrlError(
                f"method {type(method).__name__} serves {sorted(method.kinds)} learners, "
                f"not {self.kind!r}: choose another method or agent",
                exit_code=2,
            )
        self.method, self.settings = method, settings
        self.net = method.build(spec).to(settings.device)
        self.generator = torch.Generator().manual_seed(self.seed_for(0))
        self.begun: list[Task] = []  # one entry a visit
        self.step = 0  # agent steps trained on, all visits together
        self.extra_steps = 0  # agent steps played for `end_task` only
        self.task_step = 0  # agent steps of the current visit
        self.latest: tuple[Tensor, Tensor] | None = None  # see `update`

    # ------------------------------------------------------------------------- life of a task

    def begin_task(self, task: Task) -> None:
        """Begin a visit: the method prepares, the optimizer and the schedules start anew."""
        self.method.begin_task(task)
        self.begun.append(task)
        self.task_step = 0
        self.optimizer = self.make_optimizer(self.method.trainable())
        self.open_tasks()

    def open_tasks(self) -> None:
        """Open what this visit learns from: `learned`."""
        raise NotImplementedError

    def take_over(self, task: Task, state: dict[str, Any], weights: Sequence[Tensor]) -> str | None:
        """Begin the first visit where another learner stood when it had learned the same task.

        Args:
            task: the first one.
            state: the other's `state_dict`.
            weights: of its net, in the order of `Net.first_parameters`.

        Returns:
            None if all of it was taken over; else why environments begin new episodes.

        Raises:
            ClrlError: (exit 2) weights of other shapes.
        """
        self.begin_task(task)
        parameters = self.net.first_parameters(task)
        shapes, others = ([tuple(x.shape) for x in each] for each in (parameters, weights))
        if shapes != others:
            told = f"weights of shapes {others} cannot be taken over: expected {shapes}"
            raise ClrlError(told, 2)
        with torch.no_grad():
            for own, theirs in zip(parameters, weights, strict=True):
                own.copy_(theirs)
        self.generator.set_state(state["generator"])
        self.step, self.task_step = state["step"], state["task_step"]
        return None

    def update(self) -> dict[str, float]:
        """Gather experience once, learn from it, and return records.

        Leaves in `latest` the inputs (B, ...) and routes (B,) learned from last.
        """
        raise NotImplementedError

    def end_task(self) -> None:
        """Let the method take what it needs from the final policy or the training set."""
        raise NotImplementedError

    def evaluate(
        self, task: Task, episodes: int, seed: int, tick: Callable[[], None] = lambda: None
    ) -> list[EvaluationRow]:
        """Measure the net on a task, changing nothing that training depends on.

        Args:
            task: any task the net can play (`Net.can_play`).
            episodes: full games (ignored by learners of data sets).
            seed: of everything random in the measurement.
            tick: called at every step; may raise to give up.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release environments and data."""

    # ----------------------------------------------------------------------------- schedules

    @property
    def frames(self) -> int:
        """Emulator frames used so far, those for `end_task` included, evaluations not."""
        return (self.step + self.extra_steps) * self.settings.frames_per_step

    @property
    def task(self) -> Task:
        """The task being learned."""
        return self.begun[-1]

    @property
    def learned(self) -> tuple[Task, ...]:
        """The distinct tasks this visit learns from: its own, unless the method mixes in others."""
        return tuple(self.method.mixture(self.begun))

    @property
    def task_progress(self) -> float:
        """The share of this visit's steps that is done, in [0, 1]."""
        return min(1.0, self.task_step / self.settings.steps_per_visit)

    def scheduled(self, initial: float, schedule: Schedule) -> float:
        """Return a hyper-parameter's value now: `initial * (1 - progress)` if linear."""
        if schedule == "constant":
            return initial
        progress = self.task_progress
        if self.schedule_over == "sequence":
            progress = (len(self.begun) - 1 + progress) / self.settings.n_visits
        return initial * (1.0 - progress)

    def set_learning_rate(self) -> float:
        """Give the optimizer its step size for the coming update, and return it."""
        rate = self.scheduled(self.learning_rate, self.learning_rate_schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    # --------------------------------------------------------------------------------- pieces

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Make the optimizer of one visit."""
        raise NotImplementedError

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of forward passes: bfloat16 where asked for."""
        if not self.settings.bf16:
            return nullcontext()
        return torch.autocast(self.settings.device.type, dtype=torch.bfloat16)

    def seed_for(self, *stream: int) -> int:
        """Derive a 31-bit seed from the run's seed and the numbers that name a stream.

        The first number is the stream's label, and a label always comes with as many numbers:
        0 actions and minibatches, 1 training games, 2 evaluations on schedule, 3 games after a
        resume that could not restore them, 4 evaluations of a finished run, 5 the order of
        pictures in an epoch, 6 their order for `end_task`, 7 games that are filmed.
        """
        entropy = (self.settings.seed, *stream)
        return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)

    def _require_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}: expected a number above 0")

    def _require_not_negative(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}: expected 0 or a number above it")

    def _require_share(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}: expected a number from 0 to 1")

    # ---------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Return all that training depends on, between two updates."""
        return self.played_state() | {
            "optimizer": self.optimizer.state_dict() if self.begun else {},
            "optimizer_kind": type(self.optimizer).__name__ if self.begun else None,
            "generator": self.generator.get_state(),
        }

    def played_state(self) -> dict[str, Any]:
        """Return what `load_net` needs: enough to play and be evaluated."""
        return {
            "net": self.net.state_dict(),
            "method": self.method.state_dict(),
            "begun": [task.id for task in self.begun],
            "step": self.step,
            "extra_steps": self.extra_steps,
            "task_step": self.task_step,
        }

    def load_state_dict(self, state: dict[str, Any], tasks: tuple[Task, ...]) -> str | None:
        """Restore `state_dict`'s state into a learner that has only been set up.

        Returns:
            None if all of it was restored; else why environments begin new episodes.
        """
        self.load_net(state, tasks)
        if self.begun:
            self.optimizer = self.make_optimizer(self.method.trainable())
            self._load_optimizer(state["optimizer"], state.get("optimizer_kind"))
        self.generator.set_state(state["generator"])
        return None

    def _load_optimizer(self, state: dict[str, Any], kind: str | None) -> None:
        """Restore what the optimizer knows; its settings are those of now, if they were edited.

        But for its step size, which every update sets (`set_learning_rate`): after the last one it
        is what that one had.
        """
        here = type(self.optimizer).__name__
        if kind is not None and kind != here:  # None: a checkpoint from before it was told
            raise ClrlError(
                f"the checkpoint's optimizer is {kind}, config.yaml asks for {here}: undo the "
                "change or start another run",
                2,
            )
        groups = [
            {key: value for key, value in group.items() if key not in ("params", "lr")}
            for group in self.optimizer.param_groups
        ]
        begun = {p: dict(own) for p, own in self.optimizer.state.items()}
        self.optimizer.load_state_dict(state)
        for group, settings in zip(self.optimizer.param_groups, groups, strict=True):
            group.update(settings)
        for p, own in begun.items():  # momentum that there was none of
            self.optimizer.state[p] = own | self.optimizer.state[p]

    def load_net(self, state: dict[str, Any], tasks: tuple[Task, ...]) -> None:
        """Restore the net, the method and the counters: enough to evaluate, not to go on."""
        for k in state["begun"]:
            self.method.begin_task(tasks[k])
            self.begun.append(tasks[k])
        try:
            self.net.load_state_dict(state["net"])
            self.method.load_state_dict(state["method"])
        except (RuntimeError, KeyError) as error:
            raise ClrlError(
                "the checkpoint's net or method is of another shape than config.yaml asks for "
                f"({str(error).splitlines()[-1].strip()}): undo the change or start another run",
                2,
            ) from error
        self.step, self.extra_steps = state["step"], state["extra_steps"]
        self.task_step = state["task_step"]
