"""The base of every continual-learning method, and fine-tuning itself.

One run, seen from a method:

    net = method.build(spec)                              # 1  once
    for task in visits:
        method.begin_task(task)                           # 2  then a new optimizer, and data or
                                                          #    games of the tasks in `mixture`
        until the task's steps are spent:
            route = method.route(task, n, training=True)  # 4  before each rollout or batch
            ... the learner collects a rollout (4 again where games finish) or draws a batch ...
            method.observe(batch, progress)               # 5  after it
            for each minibatch: gradient_step(...)        # 6  loss, 7 edit_gradients, 8 after_step
        method.end_task(task, data)                       # 3  data from the final policy
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from clrl.nets.plain import PlainNet
from clrl.types import Batch, Episode, LossFn, Net, NetSpec, Task, as_route

__all__ = ["Method"]


@dataclass
class Method:
    """Fine-tuning: train on, protect nothing. Every hook does as little as it can.

    Subclasses are dataclasses whose fields are their hyper-parameters, and nothing else; state is
    made in `build` and listed in `state_dict`. A method sees a task, data or a loss function and
    holds only its net: never the learner, an environment or the trainer.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"rl", "supervised"})  # learners it can serve

    @property
    def net(self) -> Net:
        """The net made by `build`."""
        return self._net

    def require_rollout(self, n_envs: int, n_steps: int, bytes_per_value: int) -> None:
        """Refuse rollouts that cannot be played or kept; any will do here.

        Called by learners of games after `build`, before anything begins.

        Args:
            n_envs: environments that play at once.
            n_steps: steps of each; so many observations are kept until they are learned from.
            bytes_per_value: of activations that are kept with them: 2 in bfloat16.

        Raises:
            ClrlError: (exit 2) too many, or too few.
        """

    @property
    def starts_plainly(self) -> bool:
        """Whether the first visit is fine-tuning's: what such a run learned can then be used.

        A class that does nothing, and keeps no books, before `end_task` of that visit says so, of
        itself alone: what is derived from it may do more.
        """
        return type(self) is Method

    def build(self, spec: NetSpec) -> Net:
        """Make the net (hook 1). Called by the learner once, before anything is trained."""
        self._net: Net = PlainNet(spec)
        return self._net

    def begin_task(self, task: Task) -> None:
        """Prepare for a task (hook 2): grow, freeze, take a snapshot.

        Called by the learner before each visit to a task, and again for every visit so far when a
        run is resumed (states are loaded after), so it must depend on nothing but its calls so far.
        The optimizer is then made anew over the parameters that require a gradient.
        """

    def end_task(self, task: Task, data: Iterator[Batch]) -> None:
        """Take from a finished task what later ones need (hook 3).

        Called by the learner after each visit. `data` yields flat batches without end: rollouts
        played by the final policy (their frames are counted), or the training set. Draw as few as
        needed; nothing is computed for a method that draws none.
        """

    def route(
        self, task: Task, n: int, *, training: bool, finished: Sequence[Episode] = ()
    ) -> Tensor:
        """Choose the sub-network of each of `n` samples (hook 4): (n,) long on the CPU.

        Called by the learner before each rollout (one an environment) or batch, and by the
        evaluator with `training=False`. Within a rollout it is called again after each step at
        which games of the task `finished` (`env` counts from 0 to n - 1), for the steps to come: a
        sub-network that is to play whole games changes only there. What a route stands for must not
        change before the rollout has been learned from.
        """
        return as_route(task, n)

    def mixture(self, begun: Sequence[Task]) -> Sequence[Task]:
        """Choose the distinct tasks that the visit now beginning learns from, together.

        Called by the learner after `begin_task`; `begun` holds the tasks of all visits so far, the
        new one last, which is all that is learned from by default (joint training: all of them).
        """
        return begun[-1:]

    def observe(self, batch: Batch, progress: float) -> None:
        """See what was just experienced (hook 5): acted, or answered, with the weights before.

        Called by the learner after each rollout, with a time-major batch (T, N, ...), before it is
        learned from; or with each supervised batch (B, ...) once it has been, because `score` comes
        of the forward pass that did. `progress` in [0, 1] is the share of the task's steps done.
        """

    def loss(self, batch: Batch, loss_fn: LossFn) -> Tensor | float:
        """Return what is added to the learner's loss of `batch` (hook 6): a scalar, or 0.

        Called by `gradient_step`. `loss_fn` scores any batch the way the learner does.
        """
        return 0.0

    def edit_gradients(self, loss_fn: LossFn) -> None:
        """Change `.grad` in place (hook 7).

        Called by `gradient_step` after backward and before clipping.
        """

    def after_step(self, step_size: float) -> None:
        """Act on the weights just updated (hook 8).

        Called by `gradient_step` after the optimizer, with the learning rate it used.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the state to be kept beside the net's: tensors and JSON values, by name."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, after `build` and the `begin_task` calls so far."""

    def records(self) -> dict[str, float]:
        """Return figures worth recording (`method/...`) as things stand; none by default.

        Called when a row of `metrics.jsonl` is written, every thousand steps or so: what is only
        recorded is best computed here.
        """
        return {}

    def importances(self) -> dict[str, Tensor]:
        """Return by name how much the last finished visit needs each parameter; none by default."""
        return {}

    def trainable(self) -> Iterable[nn.Parameter]:
        """Return the parameters the optimizer holds: those that require a gradient."""
        return [p for p in self.net.parameters() if p.requires_grad]
