"""What PathNet's evolution did in a run: paths, what they share, fitness and diversity over time.

Read from the run's newest checkpoint, in which the method keeps each visit's winner, what was
frozen after it, and a row for every generation. `clrl.study.path_figures` draws it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clrl.run import checkpoint
from clrl.run.folder import RunFolder
from clrl.run.records import read_records
from clrl.types import ClrlError

__all__ = ["Evolution", "Paths", "load_paths"]

WHOLE = "all layers"


@dataclass(frozen=True, eq=False)
class Evolution:
    """One visit's generations, in order: arrays of one length.

    Attributes:
        seen: games finished, or batches learned from, when the generation ended.
        winner: fitness of the tournament's winner (mean raw return, or accuracy from 0 to 1).
        measured: mean of what was measured for the tournament.
        best: fitness of the best genotype, as last known.
        mean: mean fitness of those whose is known.
        diversity: 0 where all paths are the same, 1 where no two share a module.
    """

    seen: NDArray[np.float64]
    winner: NDArray[np.float64]
    measured: NDArray[np.float64]
    best: NDArray[np.float64]
    mean: NDArray[np.float64]
    diversity: NDArray[np.float64]

    def generations_to(self, threshold: float) -> int | None:
        """Return the number of the first generation whose winner is that fit; None: there is none.

        With 0.998: what Fernando et al. (2017) count for binary MNIST.
        """
        reached = np.flatnonzero(self.winner >= threshold)
        return int(reached[0]) + 1 if len(reached) else None


@dataclass(frozen=True, eq=False)
class Paths:
    """The visits that evolved a path, in order.

    Attributes:
        visits: their tasks' names.
        active: (V, L, M) bool, the modules of each visit's best path.
        frozen: (V, L, M) bool, all that was frozen before each visit.
        evolution: of each visit.
    """

    visits: tuple[str, ...]
    active: NDArray[np.bool_]
    frozen: NDArray[np.bool_]
    evolution: tuple[Evolution, ...]

    @property
    def layers(self) -> list[str]:
        """Names of the layers, from input to output."""
        return [f"layer {i}" for i in range(1, self.active.shape[1] + 1)]

    def overlap(self) -> dict[str, list[list[float | None]]]:
        """Return by layer, and for `all layers`, how much of their modules two paths share.

        Modules in both over modules in either: 1 where they are the same, 0 without one in common.
        """
        flat = self.active.reshape(len(self.visits), -1)
        named = {WHOLE: flat} | {n: self.active[:, i] for i, n in enumerate(self.layers)}
        return {name: _intersection_over_union(active) for name, active in named.items()}

    def reused(self) -> dict[str, dict[str, float | None]]:
        """Return by visit and layer which share of its path's modules was frozen before it."""
        return self._by_layer(self.active & self.frozen, self.active)

    def frozen_share(self) -> dict[str, dict[str, float | None]]:
        """Return by visit and layer which share of all modules is frozen after it."""
        return self._by_layer(self.active | self.frozen, np.ones_like(self.active))

    def _by_layer(
        self, some: NDArray[np.bool_], of: NDArray[np.bool_]
    ) -> dict[str, dict[str, float | None]]:
        shares = some.sum(2) / of.sum(2)
        whole = some.sum((1, 2)) / of.sum((1, 2))
        return {
            f"{k} {name}": {
                **dict(zip(self.layers, map(float, row), strict=True)),
                WHOLE: float(total),
            }
            for k, (name, row, total) in enumerate(zip(self.visits, shares, whole, strict=True), 1)
        }


def load_paths(run: Path) -> Paths:
    """Return what a run's newest checkpoint tells of the visits that are through.

    Raises:
        ClrlError: no such run; (exit 2) no checkpoint, another method, or no visit through yet.
    """
    folder = RunFolder.open(run)
    found = checkpoint.load_latest(folder.checkpoints)
    method: dict[str, Any] = found.state["learner"]["method"] if found else {}
    if "winners" not in method or not method["winners"]:
        what = "has no path yet" if "winners" in method else "has learned no paths"
        raise ClrlError(f"{run} {what}: expected a run of the method pathnet, a visit finished", 2)
    rows, _ = read_records(folder.evaluations)
    names = {row["visit"]: row["task_trained"] for row in rows if row["phase"] == "end"}
    frozen_after = {k: np.asarray(x, dtype=bool) for k, x in method["frozen_after"].items()}
    history, columns = np.asarray(method["history"]), method["history_columns"]
    visits, active, frozen, evolution = [], [], [], []
    for k, winner in sorted(method["winners"].items()):
        size = frozen_after[k].shape
        visits.append(names.get(k, f"visit {k}"))
        path = np.zeros(size, dtype=bool)
        np.put_along_axis(path, np.asarray(winner), True, axis=1)
        active.append(path)
        frozen.append(frozen_after.get(k - 1, np.zeros(size, dtype=bool)))
        own = history[history[:, columns.index("visit")] == k]
        parts = {name: own[:, i] for i, name in enumerate(columns) if name != "visit"}
        evolution.append(Evolution(**parts))
    return Paths(tuple(visits), np.stack(active), np.stack(frozen), tuple(evolution))


def _intersection_over_union(active: NDArray[np.bool_]) -> list[list[float | None]]:
    sets = active.astype(np.int64)
    common = sets @ sets.T
    size = sets.sum(1)
    share = common / (size[:, None] + size[None, :] - common)
    return [[float(x) for x in row] for row in share]
