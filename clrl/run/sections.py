"""The sections of a configuration: what a run does beside its agent, method and protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from clrl.envs.sequences import SEQUENCES
from clrl.envs.vision import IMAGE_SEQUENCES
from clrl.nets.bodies import body
from clrl.run.yaml_safe import nearest

__all__ = [
    "CheckpointConfig",
    "EvaluationConfig",
    "NetConfig",
    "NotNegative",
    "Positive",
    "Seed",
    "SequenceConfig",
    "TrackingConfig",
]

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True, kw_only=True)
class SequenceConfig:
    """What is learned, in which order, for how long."""

    steps: Positive
    """Agent steps of each visit to a task; for pictures gradient steps."""
    name: str | None = None
    """A sequence that ships (`clrl list sequences`), or"""
    tasks: tuple[str, ...] | None = None
    """your own list of tasks; repeats are visits to the same task."""
    cycles: Positive = 1
    """How often the whole sequence is gone through."""
    order_seed: Seed | None = None
    """Shuffles the order of the tasks; null: as written."""
    pretrained: str | None = None
    """A run that learned the first task alone, with this one's agent and net: what it learned and
    recorded is taken over in place of the first visit. `<runs>/<name>` stands for its run of this
    seed; null: learn it."""
    scenario: Literal["task", "domain", "class"] = "task"
    """For pictures: the `task` is known when it is tested; or not, and classes mean the same in
    all of them (`domain`), or every task brings new ones (`class`): all classes of the sequence
    then stand in one softmax from the start."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """For pictures: share of the training set left out of training and evaluated in place of the
    test set: to choose hyper-parameters by."""

    def __post_init__(self) -> None:
        if (self.name is None) == (self.tasks is None):
            which = "neither is given" if self.name is None else "both are given"
            remedy = "" if self.name is None else ": null for the other, tasks=null or name=null"
            raise ValueError(
                f"expected one of name (a sequence that ships) and tasks (a list), {which}{remedy}"
            )
        known = [*SEQUENCES, *IMAGE_SEQUENCES]
        if self.name is not None and self.name not in known:
            raise ValueError(f"name is {self.name!r}: unknown{nearest(self.name, known)}")
        if self.tasks is not None and not self.tasks:
            raise ValueError("tasks is []: expected at least one")


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """The net that a method builds."""

    body: str = "nature"
    """Its chain of layers (`clrl list bodies`)."""
    heads: Literal["per_task", "shared"] = "per_task"
    """A head for each task, or one over the full action set with illegal actions masked."""
    hidden: tuple[Positive, ...] | None = None
    """Units of each layer of the body `mlp`; null: its default."""

    def __post_init__(self) -> None:
        body(self.body, self.hidden)  # raises for a name or a combination that does not exist


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """When and how every task is measured. Never changes the training."""

    every: NotNegative = 200_000
    """Agent steps between evaluations; 0: only before the first and after each task. Every
    200,000 took 7 % of the time of a run of three games, a million steps each; more games, more."""
    episodes: Positive = 5
    """Full games per task and evaluation."""
    unseen: Literal["always", "ends", "never"] = "ends"
    """Tasks not begun yet: at every evaluation, only before and after tasks, or not at all."""
    earlier: Literal["always", "ends"] = "always"
    """Tasks visited before: at every evaluation, or only before and after tasks."""
    policy: Literal["sample", "greedy"] = "sample"
    """Act by chance as in training, or take the most likely action."""


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Mirrors of the records; the run folder is the truth."""

    wandb: Literal["disabled", "offline", "online"] = "disabled"
    """Weights & Biases; `online` goes offline by itself without a key or network."""
    project: str = "clrl"
    """The W&B project."""
    entity: str | None = None
    """The W&B user or team; null: the default one."""
    group: str | None = None
    """Groups runs in W&B; null: the run's name."""
    tags: tuple[str, ...] = ()
    """W&B tags."""
    tensorboard: bool = False
    """Write TensorBoard files into the run folder."""
    importances: bool = False
    """Keep the weights and importances of every visit's end in the run folder, to look inside."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the run is saved; besides, it always is at the end of a task."""

    every: Positive = 50_000
    """Agent steps between checkpoints; what is learned does not depend on it."""
    keep: Positive = 2
    """How many are kept."""
    ends: bool = True
    """Keep the net as it is at the end of every visit too: `clrl record` plays with them all."""
