"""What a method holds important, visit by visit, and how the weights moved against it.

A run with `tracking.importances: true` leaves RUN/importances/visit_<k>.safetensors, with tensors
`importance/<parameter>` and `weight/<parameter>`. The functions here turn them into numbers, which
`clrl.study.figures` draws: the figures 6, 7b, 7c and 8 of the SPP paper (Peng et al. 2018).

A layer is a module with its weight and bias together. What is said of each layer is also said of
all of them at once, under `WHOLE`.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from torch import Tensor

from clrl.run.folder import fsync_folder, write_durable
from clrl.types import ClrlError

__all__ = [
    "WHOLE",
    "ChangeMaps",
    "Histogram",
    "PerLayer",
    "VisitImportance",
    "change_maps",
    "frechet_overlap",
    "histogram",
    "load_importances",
    "overlap_matrix",
    "rank_correlation",
    "save_visit",
    "weighted_change",
]

Tensors = Mapping[str, Tensor]
PerLayer = dict[str, float | None]  # None where it is not defined

WHOLE = "all layers"

_ORDER = "order"  # in the metadata: safetensors forgets it, and layers have one
_FILE = re.compile(r"visit_([0-9]+)\.safetensors")


@dataclass(frozen=True, eq=False)
class VisitImportance:
    """What was found at the end of one visit.

    Attributes:
        visit: 1, 2, ...
        importance: by parameter, what this visit alone found important (the Fisher information,
            Omega, ...), not the sum over visits; empty for a method that estimates none.
        weight: by parameter, the weights at the end of the visit.

    Raises:
        ValueError: an importance without its weight, of another shape, negative or not finite.
    """

    visit: int
    importance: dict[str, Tensor]
    weight: dict[str, Tensor]

    def __post_init__(self) -> None:
        for name, x in self.importance.items():
            if name not in self.weight:
                raise ValueError(f"the importance of {name} has no weight beside it")
            if x.shape != self.weight[name].shape:
                shapes = f"{tuple(x.shape)} and {tuple(self.weight[name].shape)}"
                raise ValueError(f"importance and weight of {name} are of shapes {shapes}")
            if not bool((torch.isfinite(x) & (x >= 0)).all()):
                raise ValueError(f"the importance of {name} is negative or not finite")


# ------------------------------------------------------------------------------------- the files


def save_visit(run: Path, visit: VisitImportance) -> Path:
    """Write `run/importances/visit_<k>.safetensors`, whole or not at all; an older one goes.

    Raises:
        ClrlError: the disk is full or refuses.
    """
    folder = run / "importances"
    path = folder / f"visit_{visit.visit}.safetensors"
    tmp = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    kinds = {"importance": visit.importance, "weight": visit.weight}
    tensors = {
        # copied: safetensors refuses tensors that share memory
        f"{kind}/{name}": x.detach().cpu().clone(memory_format=torch.contiguous_format)
        for kind, named in kinds.items()
        for name, x in named.items()
    }
    try:
        folder.mkdir(exist_ok=True)
        write_durable(tmp, safetensors.torch.save(tensors, {_ORDER: json.dumps(list(tensors))}))
        tmp.replace(path)
        fsync_folder(folder)
    except OSError as error:
        raise ClrlError(f"cannot write {path}: {error.strerror}") from error
    finally:
        tmp.unlink(missing_ok=True)
    return path


def load_importances(run: Path) -> list[VisitImportance]:
    """Return what a run folder holds, in the order of visits.

    Raises:
        ClrlError: there is nothing (exit 2), or a file is damaged.
    """
    folder = run / "importances"
    found = [(int(m[1]), p) for p in folder.glob("*") if (m := _FILE.fullmatch(p.name))]
    if not found:
        raise ClrlError(
            f"{run} holds no importances: expected {folder}/visit_1.safetensors; run it again with "
            "tracking.importances=true",
            2,
        )
    return [_load(path, visit) for visit, path in sorted(found)]


def _load(path: Path, visit: int) -> VisitImportance:
    kinds: dict[str, dict[str, Tensor]] = {"importance": {}, "weight": {}}
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            keys = json.loads(file.metadata()[_ORDER])
            if sorted(keys) != sorted(file.keys()):
                raise ValueError(f"its {_ORDER!r} does not name its tensors")
            for key in keys:
                kind, _, name = key.partition("/")
                kinds[kind][name] = file.get_tensor(key)
        return VisitImportance(visit, kinds["importance"], kinds["weight"])
    except OSError as error:
        raise ClrlError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ClrlError(f"{path} is damaged ({error}): run it again, or delete the file") from error


# ---------------------------------------------------------------- one importance: SPP's figure 6


@dataclass(frozen=True, eq=False)
class Histogram:
    """Shares of weights by importance: `share[i]` of them lie between `edges[i]` and the next."""

    edges: NDArray[np.float64]  # (bins + 1,) from 0 to 1
    share: NDArray[np.float64]  # (bins,) sums to 1


def histogram(importance: Tensors, bins: int = 50) -> Histogram:
    """Return how importance is spread over the weights, the largest of all being 1.

    Raises:
        ClrlError: there is none, or all of it is zero.
    """
    values = np.concatenate([_array(x).ravel() for x in importance.values()] or [np.zeros(1)])
    largest = values.max()
    if not largest > 0:
        raise ClrlError("no importance is above zero: there is nothing to make a histogram of")
    counts, edges = np.histogram(values / largest, bins, range=(0.0, 1.0))
    return Histogram(edges, counts / len(values))


# -------------------------------------------------------------- two importances: SPP's figure 7b


def frechet_overlap(a: Tensors, b: Tensors) -> PerLayer:
    """Return by layer how far two visits hold the same weights important, 0 (none) to 1 (alike).

    `1 - d^2` with `d^2 = 1/2 ||A^(1/2) - B^(1/2)||_F^2`, A and B the diagonal importances scaled to
    unit trace: the Frechet distance of two Gaussians (Kirkpatrick et al. 2017, appendix). The scale
    of an importance does not matter. None for a layer that has none in a or in b.

    Raises:
        ClrlError: a and b are of different parameters, or empty.
    """
    for importance in (a, b):
        _check_any(importance)
    _check_same(a, b)
    return {layer: _overlap(_join(a, names), _join(b, names)) for layer, names in _layers(a)}


def overlap_matrix(
    visits: Sequence[VisitImportance], layer: str = WHOLE
) -> list[list[float | None]]:
    """Return the overlap of every visit with every other, of one layer or of the whole.

    Raises:
        ClrlError: no such layer (exit 2), no visits, or visits without importances or of different
            parameters.
    """
    if not visits:
        raise ClrlError("no visits: an overlap is of the importances of one or more")
    for visit in visits:
        _check_any(visit.importance)
        _check_same(visits[0].importance, visit.importance)
    layers = dict(_layers(visits[0].importance))
    if layer not in layers:
        raise ClrlError(f"layer is {layer!r}: expected one of {', '.join(layers)}", 2)
    joined = [_join(visit.importance, layers[layer]) for visit in visits]
    return [[_overlap(a, b) for b in joined] for a in joined]


def _overlap(a: Tensor, b: Tensor) -> float | None:
    traces = a.sum(), b.sum()
    if not all(trace > 0 for trace in traces):
        return None
    difference = (a / traces[0]).sqrt() - (b / traces[1]).sqrt()
    return max(0.0, 1.0 - 0.5 * float(difference.square().sum()))  # rounding may pass 0


# ---------------------------------------------------------- the weights: SPP's figures 7c and 8


def weighted_change(before: Tensors, after: Tensors, importance: Tensors) -> PerLayer:
    """Return by layer `sum_i w_i (after_i - before_i)^2 / sum_i w_i`, w the importance.

    The mean squared change of a weight, each counting as much as it is important: in the weights'
    own unit, squared, and comparable between layers and methods, as neither the size of the layer
    nor the scale of the importance is in it. None for a layer without importance.

    Raises:
        ClrlError: there is no importance, or it is of parameters that before or after lacks.
    """
    _check_any(importance)
    for weights in (before, after):
        _check_same(importance, {n: weights[n] for n in importance if n in weights})
    return {
        layer: _weighted(_join(before, names), _join(after, names), _join(importance, names))
        for layer, names in _layers(importance)
    }


def _weighted(before: Tensor, after: Tensor, weight: Tensor) -> float | None:
    total = weight.sum()
    return float((weight * (after - before).square()).sum() / total) if total > 0 else None


@dataclass(frozen=True, eq=False)
class ChangeMaps:
    """One parameter's change beside its importance.

    Attributes:
        name: of the parameter.
        change: (out, in) |after - before|; a filter's inputs in a row.
        importance: (out, in).
        correlation: Spearman's of the two over all weights, those of inputs that are never lit
            included; None where one of the two is the same everywhere.
    """

    name: str
    change: NDArray[np.float64]
    importance: NDArray[np.float64]
    correlation: float | None


def change_maps(before: Tensors, after: Tensors, importance: Tensors, name: str) -> ChangeMaps:
    """Return the maps of one parameter.

    Raises:
        ClrlError: (exit 2) no such parameter.
    """
    for tensors in (importance, before, after):
        if name not in tensors:
            raise ClrlError(f"parameter is {name!r}: expected one of {', '.join(tensors)}", 2)
    moved = _as_matrix(np.abs(_array(after[name]) - _array(before[name])))
    important = _as_matrix(_array(importance[name]))
    return ChangeMaps(name, moved, important, rank_correlation(moved, important))


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float | None:
    """Return Spearman's rank correlation, equal values sharing their mean rank.

    None where all of x, or all of y, are equal.

    >>> rank_correlation([1, 2, 3, 4], [10, 100, 20, 1000])
    0.8
    """
    a, b = (_ranks(v) for v in (x, y))
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt((a @ a) * (b @ b))
    return float(a @ b) / scale if scale > 0 else None


def _ranks(x: ArrayLike) -> NDArray[np.float64]:
    _, group, counts = np.unique(np.ravel(x), return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[group]
    return ranks


def _as_matrix(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x.reshape(len(x), -1)


# ---------------------------------------------------------------------------------------- layers


def _layers(names: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Return layers with the names of their parameters, in order, and `WHOLE` with all."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return [*layers.items(), (WHOLE, [name for group in layers.values() for name in group])]


def _check_any(importance: Tensors) -> None:
    if not importance:
        raise ClrlError("a visit holds no importances: the run's method estimates none")


def _check_same(a: Tensors, b: Tensors) -> None:
    for name in sorted(a.keys() | b.keys()):
        shapes = [tuple(x[name].shape) if name in x else "absent" for x in (a, b)]
        if shapes[0] != shapes[1]:
            raise ClrlError(
                f"{name} is {shapes[0]} on one side and {shapes[1]} on the other: expected the "
                "same parameters, as of two visits of one run"
            )


def _join(tensors: Tensors, names: Iterable[str]) -> Tensor:
    """Return one flat tensor in double: sums over millions of small squares."""
    return torch.cat([tensors[name].double().flatten() for name in names])


def _array(x: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = x.detach().double().cpu().numpy()
    return array
