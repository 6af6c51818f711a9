"""What PathNet's evolution did in a run: paths, what they share, fitness and diversity over time.

Read from the run's newest checkpoint, in which the method keeps each visit's winner, what was
frozen after it, and a row for every tournament. `clrl.study.path_figures` draws it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clrl.errors import ClrlError
from clrl.run import checkpoint
from clrl.run.folder import RunFolder
from clrl.run.records import read_records

__all__ = ["Evolution", "Paths", "load_paths", "modules_text"]

WHOLE = "all layers"
SCALES = 5.0  # times the lowest of visits' highest fitness: what is higher flattens it on one axis

Matrices = dict[str, list[list[float | None]]]  # by layer, and for all of them: visit by visit


@dataclass(frozen=True, eq=False)
class Evolution:
    """One visit's tournaments, in order: arrays of one length.

    Of pictures a tournament is a generation; of games it is one genotype's evaluation, which then
    meets others.

    Attributes:
        seen: games finished, or batches learned from, when the tournament ended.
        winner: fitness of the tournament's winner (mean raw return, or accuracy from 0 to 1).
        measured: mean of what was measured for the tournament.
        best: fitness of the best genotype, as last known.
        mean: mean fitness of those whose is known: a loser's, overwritten, no longer is.
        diversity: 0 where all paths are the same, 1 where no two share a module.
        overwritten: 1 where the tournament had a loser, which a copy of the winner overwrote.
    """

    seen: NDArray[np.float64]
    winner: NDArray[np.float64]
    measured: NDArray[np.float64]
    best: NDArray[np.float64]
    mean: NDArray[np.float64]
    diversity: NDArray[np.float64]
    overwritten: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Paths:
    """The visits that evolved a path, in order.

    Attributes:
        visits: their tasks' names.
        active: (V, L, M) bool, the modules that each visit's best genotype names.
        used: (V, L, M) bool, the modules of its path: these, and where frozen ones are always on,
            all that were frozen before.
        frozen: (V, L, M) bool, all that was frozen before each visit.
        always_on: whether frozen modules are in every later path, named or not.
        evolution: of each visit.
        n_active: N, as many modules of a layer as a genotype names, at most.
        numbers: the visits' numbers in the run, from 1: others than these evolved nothing.
    """

    visits: tuple[str, ...]
    active: NDArray[np.bool_]
    used: NDArray[np.bool_]
    frozen: NDArray[np.bool_]
    always_on: bool
    evolution: tuple[Evolution, ...]
    n_active: int
    numbers: tuple[int, ...]

    @property
    def short(self) -> list[tuple[str, str, int]]:
        """Visits that began with fewer free modules in a layer than N: visit, layer, how many."""
        free = (~self.frozen).sum(2)
        return [
            (visit, layer, int(free[k, i]))
            for k, visit in enumerate(self.visits)
            for i, layer in enumerate(self.layers)
            if free[k, i] < self.n_active
        ]

    @property
    def layers(self) -> list[str]:
        """Names of the layers, from input to output."""
        return [f"layer {i}" for i in range(1, self.active.shape[1] + 1)]

    @property
    def names(self) -> list[str]:
        """The visits, each with its number in the run."""
        return [f"{k}. {name}" for k, name in zip(self.numbers, self.visits, strict=True)]

    @property
    def by_scale(self) -> list[list[int]]:
        """Visits (from 0) whose mean fitness can be read on one axis: all of them, or each alone.

        Games score on scales of their own, from 20 to 40,000; accuracies are all of one. A visit
        that scored nothing has no scale.
        """
        highest = [float(np.abs(one.mean).max()) for one in self.evolution if len(one.mean)]
        scales = [high for high in highest if high > 0]
        visits = range(len(self.visits))
        alike = max(scales, default=0.0) <= max(1.0, SCALES * min(scales, default=0.0))
        return [list(visits)] if alike else [[i] for i in visits]

    def overlap(self) -> Matrices:
        """Return by layer, and for `all layers`, how much of their modules two genotypes share.

        Modules in both over modules in either: 1 where they are the same, 0 without one in common.
        To be read beside `overlap_by_chance`. Mutations that stop at the edge (`edges: clamp`) name
        the outer modules more often, so that paths without regard to each other share a little more
        than that: single ones of 3 modules 0.36, not 0.33; of 10, 0.103. Where frozen modules are
        always on, naming one adds nothing to a path and takes the place of one that could learn: it
        does not tell of reuse.
        """
        flat = self.active.reshape(len(self.visits), -1)
        named = {WHOLE: flat} | {n: self.active[:, i] for i, n in enumerate(self.layers)}
        return {name: _intersection_over_union(active) for name, active in named.items()}

    def overlap_by_chance(self) -> Matrices:
        """Return what `overlap` would be on average if each chose as many modules at random.

        Of sets of a and b of M modules, k are in both with the hypergeometric chance
        C(a, k) C(M - a, b - k) / C(M, b); layers are independent. None for a visit and itself.
        """
        sizes, n_modules = self.active.sum(2), self.active.shape[2]
        visits = range(len(sizes))
        each = {WHOLE: slice(None)} | {n: slice(i, i + 1) for i, n in enumerate(self.layers)}
        return {
            name: [
                [
                    None if i == j else _expected(sizes[i, part], sizes[j, part], n_modules)
                    for j in visits
                ]
                for i in visits
            ]
            for name, part in each.items()
        }

    def kinds(self) -> NDArray[np.int64]:
        """Return (V, L, M): 0 free, 1 new in the path, 2 frozen and in it, 3 frozen and not."""
        own, old = self.used, self.frozen
        return np.select([own & old, old, own], [2, 3, 1], 0)

    def reused(self) -> dict[str, dict[str, float | None]]:
        """Return by visit and layer which share of its path's modules was frozen before it."""
        return self._by_layer(self.used & self.frozen, self.used)

    def frozen_share(self) -> dict[str, dict[str, float | None]]:
        """Return by visit and layer which share of all modules is frozen after it."""
        return self._by_layer(self.active | self.frozen, np.ones_like(self.active))

    def _by_layer(
        self, some: NDArray[np.bool_], of: NDArray[np.bool_]
    ) -> dict[str, dict[str, float | None]]:
        shares = some.sum(2) / of.sum(2)
        whole = some.sum((1, 2)) / of.sum((1, 2))
        return {
            name: {**dict(zip(self.layers, map(float, row), strict=True)), WHOLE: float(total)}
            for name, row, total in zip(self.names, shares, whole, strict=True)
        }


def load_paths(run: Path) -> Paths:
    """Return what a run's newest checkpoint tells of the visits that are through.

    Raises:
        ClrlError: no such run; (exit 2) no checkpoint, another method, or no visit through yet.
    """
    folder = RunFolder.open(run)
    found = checkpoint.load_latest(folder.checkpoints, as_numpy=True)
    if found is None:
        raise ClrlError(f"{run} has no checkpoint, where a run's paths are kept", 2)
    method: dict[str, Any] = found.state["learner"]["method"]
    if "winners" not in method or not method["winners"]:
        what = "has no path yet" if "winners" in method else "has learned no paths"
        raise ClrlError(f"{run} {what}: expected a run of the method pathnet, a visit finished", 2)
    if "paths" not in method or "overwritten" not in method["history_columns"]:
        raise ClrlError(f"{run} is of an older version, which kept less of paths: run it again", 2)
    rows, _ = read_records(folder.evaluations)
    names = {row["visit"]: row["task_trained"] for row in rows if row["phase"] == "end"}
    frozen_after = {k: np.asarray(x, dtype=bool) for k, x in method["frozen_after"].items()}
    history, columns = np.asarray(method["history"]), method["history_columns"]
    visits, active, used, frozen, evolution = [], [], [], [], []
    for k, winner in sorted(method["winners"].items()):
        size = frozen_after[k].shape
        visits.append(names.get(k, f"visit {k}"))
        path = np.zeros(size, dtype=bool)
        np.put_along_axis(path, np.asarray(winner), True, axis=1)
        active.append(path)
        used.append(np.asarray(method["paths"][k], dtype=bool))
        frozen.append(frozen_after.get(k - 1, np.zeros(size, dtype=bool)))
        own = history[history[:, columns.index("visit")] == k]
        figures = {name: own[:, i] for i, name in enumerate(columns) if name != "visit"}
        evolution.append(Evolution(**figures))
    return Paths(
        tuple(visits),
        np.stack(active),
        np.stack(used),
        np.stack(frozen),
        bool(method["keeps"]),
        tuple(evolution),
        np.asarray(method["winners"][min(method["winners"])]).shape[1],
        tuple(sorted(method["winners"])),
    )


def modules_text(active: NDArray[np.bool_]) -> str:
    """Return (L, M) modules by layer, from the input on and counted from 1.

    >>> modules_text(np.array([[False, True, True], [True, False, False]]))
    '2 3 / 1'
    """
    return " / ".join(" ".join(str(m + 1) for m in np.flatnonzero(layer)) for layer in active)


def _intersection_over_union(active: NDArray[np.bool_]) -> list[list[float | None]]:
    sets = active.astype(np.int64)
    common = sets @ sets.T
    size = sets.sum(1)
    share = common / (size[:, None] + size[None, :] - common)
    return [[float(x) for x in row] for row in share]


def _expected(own: NDArray[np.int64], other: NDArray[np.int64], n_modules: int) -> float:
    """Return the mean share in common of random sets, given their sizes in each layer."""
    chance = np.ones(1)  # of k modules in common, in all layers so far
    for a, b in zip(own.tolist(), other.tolist(), strict=True):
        ways = [math.comb(a, k) * math.comb(n_modules - a, b - k) for k in range(min(a, b) + 1)]
        chance = np.convolve(chance, np.array(ways) / math.comb(n_modules, b))
    common = np.arange(len(chance))
    return float((chance * common / (own.sum() + other.sum() - common)).sum())
