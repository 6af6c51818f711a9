"""The frozen trunk: learn features once, then only heads."""

from __future__ import annotations

from dataclasses import dataclass

from clrl.method import Method
from clrl.types import Net, NetSpec, Task

__all__ = ["Frozen"]


@dataclass
class Frozen(Method):
    """Train everything on the first task, then freeze the body for good and train heads alone.

    The "SGD-F" of Peng et al. (2018) and baseline 2 of Rusu et al. (2016). With a head per task
    nothing can be forgotten, so backward transfer is exactly 0; with a shared head, the head can
    still forget. Differs from the papers in nothing but the learner.
    """

    @property
    def starts_plainly(self) -> bool:
        return type(self) is Frozen

    def build(self, spec: NetSpec) -> Net:
        self._first: int | None = None
        return super().build(spec)

    def begin_task(self, task: Task) -> None:
        if self._first is None:
            self._first = task.id
        elif task.id != self._first:
            for parameter in self.net.body_parameters().values():
                parameter.requires_grad_(False)
