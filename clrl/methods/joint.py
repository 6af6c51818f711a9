"""Training on everything so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clrl.method import Method
from clrl.types import Task

__all__ = ["Joint"]


@dataclass
class Joint(Method):
    """Train on all tasks begun so far, together: the upper bound of what methods reach.

    Not continual learning: old data, or old games, stay at hand. A visit's budget is what it is for
    any method: games share out the environments evenly, pictures are drawn as often as one another.
    So early tasks get more of the whole budget than late ones, and the last one little: an upper
    bound on keeping, not on learning. With `from_start` all get the same.
    """

    from_start: bool = False
    """Learn all tasks of the sequence together from the first visit on."""

    @property
    def starts_plainly(self) -> bool:
        return type(self) is Joint and not self.from_start

    def mixture(self, begun: Sequence[Task]) -> Sequence[Task]:
        if self.from_start:
            return self.net.spec.tasks
        return list({task.id: task for task in begun}.values())
