"""The vocabulary: what tasks, environments, batches, outputs and nets are.

Shapes are written with T for time steps of a rollout, N for parallel environments, B for samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clrl.errors import ClrlError

__all__ = [
    "MASKED",
    "Batch",
    "ClrlError",
    "Conv",
    "Episode",
    "LayerSpec",
    "Linear",
    "LossFn",
    "MaxPool",
    "Net",
    "NetSpec",
    "Output",
    "StepResult",
    "Task",
    "TaskSequence",
    "VectorEnv",
    "as_route",
]


# --------------------------------------------------------------------------------------- tasks


@dataclass(frozen=True)
class Task:
    """One thing to learn. Its id is its place among the *distinct* tasks of a sequence.

    Subclasses know how to open themselves (`envs.atari.AtariTask.open` gives a `VectorEnv`).

    Attributes:
        id: 0..K-1; the index of its head and, for most methods, its route.
        name: unique in a sequence, as in records and reports ("Freeway", "Pong-noisy").
        n_outputs: actions or classes of the head that serves it.
        legal: with a shared head, the outputs that exist in this task; None: all of them. The
            others are masked if the net is told which task it is in (`NetSpec.masks`).
    """

    id: int
    name: str
    n_outputs: int
    legal: tuple[int, ...] | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one observation or image, channels first."""
        raise NotImplementedError


@dataclass(frozen=True)
class TaskSequence:
    """Distinct tasks and the order in which they are visited (repeats and cycles included)."""

    tasks: tuple[Task, ...]
    visits: tuple[int, ...]


class Episode(NamedTuple):
    """A finished game: raw score over the whole game, life losses notwithstanding."""

    env: int  # which environment played it, 0..N-1
    return_: float  # sum of raw, unclipped rewards
    length: int  # agent steps
    truncated: bool  # cut by the frame cap


class StepResult(NamedTuple):
    """What a `VectorEnv` gives after every step; arrays have one row per environment.

    `obs` is already the first observation of the next episode where one ended (SAME_STEP
    autoreset); `final_obs` then holds the last observation of the one that ended. All arrays may
    be reused by the environment at the next step: copy what must outlive it.
    """

    obs: NDArray[np.uint8]  # (N, *obs_shape)
    reward: NDArray[np.float32]  # (N,) raw
    terminated: NDArray[np.bool_]  # (N,) no bootstrap: game over, or a life lost where that counts
    truncated: NDArray[np.bool_]  # (N,) bootstrap from final_obs: the frame cap was reached
    final_obs: NDArray[np.uint8] | None  # (N, *obs_shape), rows valid where truncated; else None
    episodes: Sequence[Episode]  # the full games that ended at this step


class VectorEnv(Protocol):
    """N copies of one game. `send` starts a step of all, `recv` waits for it."""

    n_envs: int
    n_actions: int
    obs_shape: tuple[int, ...]
    frame_skip: int

    def reset(self, seed: int) -> NDArray[np.uint8]:
        """Begin anew: every later observation is a function of `seed` and the actions sent."""
        ...

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start a step; raises `ClrlError` for an action out of range, before any emulator."""
        ...

    def recv(self) -> StepResult:
        """Wait for the step; raises `ClrlError` naming the environment if it does not come."""
        ...

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return what `load_state_dict` needs to stand exactly here again."""
        ...

    def load_state_dict(self, state: dict[str, NDArray[Any]]) -> NDArray[np.uint8]:
        """Restore a state and return its current observations (N, *obs_shape)."""
        ...

    def close(self) -> None: ...


# ------------------------------------------------------------------------------------- batches


@dataclass
class Batch:
    """Tensors that belong together; indexing selects samples from every field at once.

    Attributes:
        x: (B, *obs) inputs as the net takes them (uint8 pixels, float features).
        route: (B,) long: which sub-network serves the sample (see `Method.route`).
        score: (B,) float, how well the task went, higher is better: for games the raw return of
            the game that finished at this step and NaN elsewhere, for classes 1.0 where right.
        context: (B, D) what `Net.context` made of x when it was met; None if nothing was kept.
    """

    x: Tensor
    route: Tensor
    score: Tensor
    context: Tensor | None = field(default=None, kw_only=True)

    def __getitem__(self, index: Any) -> Self:
        return self._each(lambda x: _rows(x, index))

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def target(self) -> Tensor:
        """(B,) long: the output that was taken (actions) or is right (classes)."""
        raise NotImplementedError

    def flat(self) -> Self:
        """Merge the first two axes of every field: (T, N, ...) to (T * N, ...)."""
        return self._each(lambda x: x.flatten(0, 1))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        present = {f.name: x for f in fields(self) if (x := getattr(self, f.name)) is not None}
        return replace(self, **{name: change(x) for name, x in present.items()})


def _rows(x: Tensor, index: Any) -> Tensor:
    """Return `x[index]`; by a tensor of places (from 0, on x's device) in the layout of `x`.

    Minibatches of pictures are then gathered a row at a time: 0.2 ms instead of 2.5 for 256.
    """
    if not isinstance(index, Tensor) or index.dtype != torch.long or index.dim() != 1:
        selected: Tensor = x[index]
        return selected
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)
    return x.index_select(0, index)


class Output(NamedTuple):
    """What every net returns: (B, width) logits of actions or classes, (B,) value or None."""

    logits: Tensor
    value: Tensor | None


LossFn = Callable[[Any], Tensor]  # a learner's own loss of one of its batches, a scalar


# ---------------------------------------------------------------------------------------- nets


@dataclass(frozen=True)
class Conv:
    """A convolution followed by ReLU; `kernel` is (height, width) or a side, `padding` zeros."""

    out: int
    kernel: int | tuple[int, int]
    stride: int = 1
    padding: int = 0


@dataclass(frozen=True)
class MaxPool:
    """The largest of each `size` x `size` square of a map; has no weights and no ReLU."""

    size: int


@dataclass(frozen=True)
class Linear:
    """A fully connected layer, followed by ReLU; flattens what comes before it."""

    out: int


LayerSpec = Conv | MaxPool | Linear


@dataclass(frozen=True)
class NetSpec:
    """All a method needs to build a net: the body as a chain of layers, and the tasks' heads.

    Attributes:
        input_shape: of one observation, channels first, e.g. (4, 84, 84).
        body: the chain that becomes a trunk once, per task or per module, as the method decides.
        tasks: the distinct tasks, in id order.
        shared_head: one head for all tasks; else one a task.
        masks: whether logits outside `Task.legal` are masked: true where a sample's task is known,
            false for class-incremental learning.
        has_value: whether heads also estimate a state's value.
        hidden_gain: gain of the orthogonal initialisation of the body.
        logits_gain: gain of the orthogonal initialisation of the policy (or class) heads.
    """

    input_shape: tuple[int, ...]
    body: tuple[LayerSpec, ...]
    tasks: tuple[Task, ...]
    shared_head: bool = False
    masks: bool = True
    has_value: bool = True
    hidden_gain: float = 2**0.5
    logits_gain: float = 0.01


class Net(nn.Module):
    """`net(x, route) -> Output`. Knows how to grow, not when: the method decides that."""

    spec: NetSpec

    def forward(self, x: Tensor, route: Tensor, context: Tensor | None = None) -> Output:
        """Map inputs (B, *input_shape) and routes (B,) long to logits and values.

        Logits are as wide as the widest head; outputs a task lacks are `MASKED` (-1e9). A `context`
        of these inputs and routes spares its computation.
        """
        raise NotImplementedError

    def context(self, x: Tensor, route: Tensor) -> Tensor:
        """Return (B, D) all that frozen parts make of inputs, without gradient; D is 0 by default.

        It stays the same while a task is learned: a learner that meets an observation several times
        keeps it, and passes it to `forward`. Under autocast it is of that type.
        """
        return torch.empty((len(x), 0), device=x.device)

    def features(self, x: Tensor, route: Tensor) -> dict[str, Tensor]:
        """Return by name what each layer of the body makes of inputs, after its ReLU, in order.

        Shapes are (B, maps, height, width) or (B, units); layers are named as in
        `named_parameters`. With several sub-networks in a batch, those of the first sample's.
        """
        raise NotImplementedError

    def add_task(self, task: Task) -> None:
        """Make what this task needs and does not have yet; nothing by default."""

    def can_play(self, task: Task) -> bool:
        """Tell whether a sub-network for this task exists (progressive: not before it begins)."""
        return True

    def body_parameters(self) -> dict[str, nn.Parameter]:
        """Return by name the parameters of the body: everything below the heads."""
        raise NotImplementedError

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """Return by name the parameters that several tasks use: what penalties protect."""
        raise NotImplementedError

    def first_parameters(self, task: Task) -> list[nn.Parameter]:
        """Return what answers a task that is the first and has no other's help, as a plain net's.

        In the order of the layers: the body's, the policy (or class) head's, the value head's; of
        each the weight before the bias.
        """
        raise NotImplementedError

    def __call__(self, x: Tensor, route: Tensor, context: Tensor | None = None) -> Output:
        given = (x, route) if context is None else (x, route, context)
        out: Output = super().__call__(*given)  # typed as forward is
        return out


MASKED = -1e9  # a logit no softmax gives weight to, finite so that 0 * log p is 0 and not NaN


def as_route(task: Task, n: int, device: torch.device | str = "cpu") -> Tensor:
    """Return (n,) long filled with the task's id: the route of every method without paths."""
    return torch.full((n,), task.id, dtype=torch.long, device=device)
