"""Progressive neural networks."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clrl.method import Method
from clrl.nets.progressive import ColumnSettings, ProgressiveNet
from clrl.types import ClrlError, Net, NetSpec, Task

__all__ = ["Progressive"]

CONTAINER = Path("/sys/fs/cgroup")


@dataclass
class Progressive(Method):
    """A new column for every task, with laterals from the frozen ones (Rusu et al. 2016).

    `h_i^(k) = f(W h_{i-1}^(k) + U f(V [alpha_j h_{i-1}^(j) for j < k]))`: see `ProgressiveNet` for
    what the paper leaves open. Nothing is ever forgotten; the net grows with every task, and must
    be told which task it is in.

    Only the new column is trained, with its adapters and heads. A visit to a task that has a column
    trains what no other column reads of it: all of it if it is still the last, else its heads and
    the adapter below them. No other task is changed by that.

    Differs from the paper in the learner; what the paper leaves open, such as initial weights,
    biases and one V for both heads, is listed at `ProgressiveNet`. Its baselines 1 to 3 are
    `finetune` on the target alone, `frozen` and `finetune` on source and target; the fourth is
    `random_first` on the target alone.
    """

    adapter: bool = True
    """Project earlier columns down through V and f; false: the paper's plain U for each of them."""
    scale_init: float = 0.1
    """What adapters' alpha starts from (the paper's 1, 0.1, 0.01): lower is nearer to scratch."""
    lateral_heads: bool = True
    """Lead laterals into the heads too, as the paper does."""
    width: float = 1.0
    """Hidden sizes of columns after the first, as a share of the first's: 1 in the paper."""
    init: Literal["fresh", "copy"] = "fresh"
    """Start a column from new weights, or from its predecessor's W where shapes agree."""
    random_first: bool = False
    """Put an untrained, frozen column before the first: the paper's control for capacity."""

    def __post_init__(self) -> None:
        for name in ("scale_init", "width"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}: expected a number above 0")
        if self.random_first and self.init == "copy":
            raise ValueError(
                "init is 'copy', which would start the first task's column from the random one "
                "that random_first puts before it: expected 'fresh'"
            )

    @property
    def starts_plainly(self) -> bool:
        return type(self) is Progressive and not self.random_first

    def build(self, spec: NetSpec) -> Net:
        """Make a net without a column for any task yet.

        Raises:
            ClrlError: (exit 2) the task is not known when the net is used, more columns than fit
                into memory, a body that is no chain of layers.
        """
        if not spec.masks:
            raise ClrlError(
                "progressive nets choose a column by the task, which this scenario hides: use "
                "sequence.scenario=task, or another method",
                2,
            )
        settings = ColumnSettings(
            adapter=self.adapter,
            scale_init=self.scale_init,
            lateral_heads=self.lateral_heads,
            width=self.width,
            init=self.init,
        )
        self._net = self._columns = ProgressiveNet(spec, settings)
        self._require_memory()
        if self.random_first:
            self._columns.add_column(1)
        return self._columns

    def require_rollout(self, n_envs: int, n_steps: int, bytes_per_value: int) -> None:
        self._require_memory(n_envs, n_steps, bytes_per_value)

    def begin_task(self, task: Task) -> None:
        self._columns.add_task(task)
        self._columns.train_only(task)

    def _require_memory(self, n_envs: int = 0, n_steps: int = 0, bytes_per_value: int = 4) -> None:
        """Refuse what cannot fit into the machine's memory, by what the last task needs at least.

        Counted are all weights; gradient and Adam's two moments of the last column; and, of games,
        frozen columns' activations for a whole rollout, which are computed once and kept. A GPU's
        memory is not looked at.
        """
        net, n = self._columns, len(self._columns.spec.tasks) + self.random_first
        weights, last = sum(net.column_size(k) for k in range(n)), net.column_size(n - 1)
        kept = n_envs * n_steps * net.context_size(n - 1)
        needed = 4 * (weights + 3 * last) + bytes_per_value * kept
        available = _available_memory()
        if available is None or needed <= available:
            return
        what, remedy = f"{weights / 1e6:.0f} million weights", "fewer tasks, a smaller net.body"
        if kept:
            what += (
                f", and {kept / 1e6:.0f} million activations of {n_envs} x {n_steps} observations"
            )
            remedy += ", fewer agent.n_envs or agent.n_steps"
        raise ClrlError(
            f"{n} columns need some {needed / 1e9:.2f} GB ({what}), but {available / 1e9:.2f} GB "
            f"are available: choose {remedy} or a lower method.width",
            2,
        )


def _available_memory() -> int | None:
    """Return the bytes that can be had without swapping; None where the system does not say."""
    found = [bytes_ for bytes_ in (_of_machine(), _of_container()) if bytes_ is not None]
    return min(found, default=None)


def _of_container() -> int | None:
    """Return what is left of the limit that a container (cgroup 2) sets; None without one.

    Files read that nobody uses any more are counted as used there, but give way.
    """
    try:
        limit = (CONTAINER / "memory.max").read_text().strip()
        used = int((CONTAINER / "memory.current").read_text())
        lines = (CONTAINER / "memory.stat").read_text().splitlines()
        gives_way = next((int(x.split()[1]) for x in lines if x.startswith("inactive_file ")), 0)
    except (OSError, ValueError):
        return None
    return int(limit) - used + gives_way if limit.isdecimal() else None


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):  # not Linux
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
