"""PathNet's net (Fernando et al. 2017): M modules in every layer, of which a path uses a few.

With A_l the set of modules that a sample's path uses in layer l, and f = ReLU,

    h_l = sum over m in A_l of f( W_lm h_(l-1) + b_lm )        (or their mean)

All modules that some sample of a batch uses are computed as one wide layer, and each sample's own
are summed: paths are mixed at will, and a batch of one path computes no more than its modules. On a
CPU nothing is computed to be masked where that pays: convolutions go path by path if each has some
samples, linear modules of many weights one by one, each on the samples that use it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clrl.nets.columns import places_of
from clrl.nets.layers import Heads, as_input, at_least_float32, orthogonal
from clrl.types import ClrlError, Conv, Net, NetSpec, Output, Task

__all__ = ["Aggregate", "PathNet", "PathSettings"]

Aggregate = Literal["sum", "mean"]
Module = nn.Conv2d | nn.Linear

WIDE = 100_000  # weights of a linear module from which a CPU does better module by module
GROUPED = 8  # samples a path from which a CPU convolves faster path by path than all at once


@dataclass(frozen=True)
class PathSettings:
    """What the layers are made of.

    Attributes:
        n_modules: M.
        n_active: N, which only scales the initial weights.
        aggregate: what becomes of the active modules' outputs, in all layers but the last.
        aggregate_last: in the last.
        scaled: divide initial weights so that N modules of a layer, aggregated, have the second
            moment that a single one had: else a sum of four grows 2.8-fold in every layer.
    """

    n_modules: int = 10
    n_active: int = 4
    aggregate: Aggregate = "sum"
    aggregate_last: Aggregate = "sum"
    scaled: bool = True


class PathNet(Net):
    """Modules, the paths through them, and a head for every task.

    Routes are rows of a table of paths: 0..K-1 are the tasks' own, made by `set_path`; what
    `set_population` and `add_row` append is for the task that is being learned (`train_only`).

    Every task has a head of its own, as wide as its outputs: with a shared head
    (`NetSpec.shared_head`) all are as wide as the union, masked to what is legal.

    Modules are separate parameters. A frozen one requires no gradient and is in no optimizer; one
    that no sample of a batch uses gets none (not even zero), so that no optimizer moves it, by
    momentum or otherwise.
    """

    frozen: Tensor  # (L, M) bool
    paths: Tensor  # (K, L, M) bool: the tasks' own; none active: not begun
    rows: Tensor  # (R, L, M) bool: paths, then the population's

    def __init__(self, spec: NetSpec, settings: PathSettings | None = None) -> None:
        super().__init__()
        self.spec, self.settings = spec, settings or PathSettings()
        self.places = places_of(spec)
        self.n_layers = len(self.places) - 1
        widths = [place.spec.out for place in self.places if place.spec is not None]
        inputs = [spec.input_shape[0], *widths]
        n = self.settings.n_modules
        self._by_layer = [
            [self._module(i, inputs[i]) for _ in range(n)] for i in range(self.n_layers)
        ]
        self.layers = nn.ModuleList(map(nn.ModuleList, self._by_layer))
        self.heads = Heads(replace(spec, shared_head=False), widths[-1] * self.places[-1].positions)
        size = (self.n_layers, n)
        self.register_buffer("frozen", torch.zeros(size, dtype=torch.bool))
        self.register_buffer("paths", torch.zeros((len(spec.tasks), *size), dtype=torch.bool))
        self.register_buffer("rows", self.paths.clone(), persistent=False)
        self._learned = 0  # the task whose head rows from K on use

    def _module(self, i: int, n_in: int) -> Module:
        place = self.places[i]
        layer: Module
        if isinstance(place.spec, Conv):
            conv = place.spec
            layer = nn.Conv2d(n_in, conv.out, conv.kernel, conv.stride, conv.padding)
        else:
            assert place.spec is not None
            layer = nn.Linear(n_in * place.positions, place.spec.out)
        orthogonal(layer, self._gain(i))
        return layer

    def _gain(self, i: int) -> float:
        settings, n = self.settings, self.settings.n_active
        if not settings.scaled:
            return self.spec.hidden_gain
        # E[(r_1 + ... + r_n)^2] / E[r^2] of independent r = f(normal), whose mean is s / sqrt(2 pi)
        growth = math.sqrt(n * (1 + (n - 1) / math.pi))
        return self.spec.hidden_gain * (n if self._aggregate(i) == "mean" else 1) / growth

    def _aggregate(self, i: int) -> Aggregate:
        last = i == self.n_layers - 1
        return self.settings.aggregate_last if last else self.settings.aggregate

    # ---------------------------------------------------------------------------------- paths

    def set_path(self, task: Task, active: Tensor) -> None:
        """Make an (L, M) table of modules the task's own path."""
        self.paths[task.id] = self.rows[task.id] = active.to(self.paths.device)

    def set_population(self, active: Tensor) -> None:
        """Put (P, L, M) paths in rows K..K+P-1, in place of all that was there."""
        self.rows = torch.cat([self.paths, active.to(self.paths.device)])

    def add_row(self, active: Tensor) -> int:
        """Append an (L, M) path and return its row; those there are stay as they are."""
        self.rows = torch.cat([self.rows, active.to(self.rows.device)[None]])
        return len(self.rows) - 1

    def freeze(self, active: Tensor) -> None:
        """Freeze an (L, M) table of modules, for good; others stay frozen."""
        self.frozen |= active.to(self.frozen.device)

    @property
    def free(self) -> list[int]:
        """How many modules of each layer are not frozen."""
        return [int(n) for n in (~self.frozen).sum(1)]

    def renew(self) -> None:
        """Draw all modules anew that are not frozen."""
        for i, row in enumerate(self.frozen.tolist()):
            for module, frozen in zip(self._by_layer[i], row, strict=True):
                if not frozen:
                    orthogonal(module, self._gain(i))

    def train_only(self, task: Task, *, modules: bool, frozen: Tensor | None = None) -> None:
        """Leave the task's head to be trained, and the modules that are not frozen, or none.

        Args:
            task: whose head.
            modules: whether modules are trained.
            frozen: (L, M) those that were frozen when the visit began; None: those that are.
        """
        self.requires_grad_(False)
        self.zero_grad()  # what is frozen keeps no gradient from when it was learned
        self._learned = task.id
        self.heads.policy[task.id].requires_grad_(True)
        if len(self.heads.value):
            self.heads.value[task.id].requires_grad_(True)
        fixed = (self.frozen if frozen is None else frozen).tolist()
        for i, row in enumerate(fixed):
            for module, never in zip(self._by_layer[i], row, strict=True):
                module.requires_grad_(modules and not never)

    def can_play(self, task: Task) -> bool:
        return bool(self.paths[task.id].any())

    def body_parameters(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.named_parameters() if n.startswith("layers.")}

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """Return none: what several tasks use is frozen before the second one begins."""
        return {}

    # ----------------------------------------------------------------------------------- passes

    def forward(self, x: Tensor, route: Tensor, context: Tensor | None = None) -> Output:
        order = self._by_path(x, route)
        if order is None:
            h = self._hidden(x, route)[-1]
        else:
            laid = x.permute(0, 2, 3, 1).index_select(0, order).permute(0, 3, 1, 2)
            h = self._hidden(laid, route[order], grouped=True)[-1]
        h = self.places[-1].pooled(h).flatten(1)
        if order is not None:
            h = h.index_select(0, order.argsort())
        output: Output = self.heads(h, route.where(route < len(self.paths), self._learned))
        return output

    def _by_path(self, x: Tensor, route: Tensor) -> Tensor | None:
        """Return an order that brings samples of a path together, where that is faster; or None."""
        if x.device.type != "cpu" or not isinstance(self.places[0].spec, Conv):
            return None
        n = len(torch.unique(route))
        return route.argsort() if n > 1 and len(route) >= GROUPED * n else None

    def features(self, x: Tensor, route: Tensor) -> dict[str, Tensor]:
        hidden = self._hidden(x, route[:1].expand(len(x)))
        return {f"layers.{i}": h for i, h in enumerate(hidden)}

    def _hidden(self, x: Tensor, route: Tensor, *, grouped: bool = False) -> list[Tensor]:
        """Return what each layer gives to the next: the aggregate of each sample's modules.

        Args:
            x: (B, *input_shape).
            route: (B,).
            grouped: samples of a path follow one another, and are to be convolved by themselves.
        """
        alike = bool((route == route[0]).all())
        active = self.rows[route[:1] if alike else route]  # (B, L, M); (1, L, M) of one path
        begun = active[:, 0].any(-1)
        if not bool(begun.all()):
            first = route[int((~begun).nonzero()[0])]
            raise ClrlError(f"route {int(first)} has no path yet: begin its task first")
        used = active.any(0).tolist()
        if grouped:
            rows, counts = torch.unique_consecutive(route, return_counts=True)
        h, hidden = as_input(x), list[Tensor]()
        for i, place in enumerate(self.places[:-1]):
            h = place.pooled(h)
            if grouped and isinstance(place.spec, Conv):
                parts = zip(torch.split(h, counts.tolist()), self.rows[rows, i], strict=True)
                h = torch.cat(
                    [self._layer(i, part, own.tolist(), own[None]) for part, own in parts]
                )
            else:
                h = self._layer(i, h, used[i], active[:, i])
            hidden.append(h)
        return hidden

    def _layer(self, i: int, h: Tensor, used: list[bool], active: Tensor) -> Tensor:
        on = [m for m, yes in enumerate(used) if yes]
        modules = [self._by_layer[i][m] for m in on]
        counts = active[:, on] if len(active) > 1 else None  # of one path, all do
        conv = self.places[i].spec
        if isinstance(conv, Conv):
            total = _sum_of_maps(modules, conv, h, counts)
        else:
            total = _sum_of_units(modules, h.flatten(1), counts)
        if self._aggregate(i) == "sum":
            return total
        if counts is None:
            return total / len(on)
        return total / counts.sum(1).view(-1, *[1] * (total.dim() - 1))


def _sum_of_units(modules: Sequence[Module], h: Tensor, counts: Tensor | None) -> Tensor:
    """Return (B, out), the sum of f(W h + b) over linear modules.

    Args:
        modules: n of them, computed as one.
        h: (B, in).
        counts: (B, n) bool, which of them a sample's path uses; None: all.
    """
    if h.device.type == "cpu" and modules[0].weight.numel() >= WIDE:
        return _sum_by_users(modules, h, counts)
    y = F.linear(h, torch.cat([m.weight for m in modules]), torch.cat([_bias(m) for m in modules]))
    y = y.relu_().view(len(h), len(modules), -1)
    if counts is None:
        return y.sum(1)
    return torch.bmm(counts[:, None].to(y.dtype), y).squeeze(1)


def _sum_by_users(modules: Sequence[Module], h: Tensor, counts: Tensor | None) -> Tensor:
    """Return the same, module by module, each on the samples whose paths use it.

    Nothing is computed to be masked, and weights, which are most of what is read here, are neither
    copied nor, under autocast, cast more than once.
    """
    total: Tensor | None = None  # in float32, and rounded once
    dtype = h.dtype
    for k, module in enumerate(modules):
        rows = None if counts is None else counts[:, k].nonzero().squeeze(-1)
        own = h if rows is None else h.index_select(0, rows)
        y = F.linear(own, module.weight, module.bias).relu_()
        y, dtype = at_least_float32(y), y.dtype
        if total is None:
            total = y.new_zeros(len(h), y.shape[1])
        total = total + y if rows is None else total.index_add(0, rows, y)
    assert total is not None, "a path has a module in every layer"
    return total.to(dtype)


def _sum_of_maps(modules: Sequence[Module], conv: Conv, h: Tensor, counts: Tensor | None) -> Tensor:
    """Return (B, out, H, W), the same of convolutions; h is (B, in, H, W).

    Their maps lie unit by unit, and are summed by a product with zeros and ones: in bfloat16 half
    the time of a masked copy and its sum.
    """
    n = len(modules)
    weight = torch.stack([m.weight for m in modules], 1).flatten(0, 1)
    bias = torch.stack([_bias(m) for m in modules], 1).flatten()
    y = F.conv2d(h, weight, bias, conv.stride, conv.padding).relu_()
    y = y.permute(0, 2, 3, 1)  # as it lies in memory: channels last
    ones = y.new_ones(len(y), n, 1) if counts is None else counts[:, :, None].to(y.dtype)
    total = torch.bmm(y.reshape(len(y), -1, n), ones)
    return total.view(*y.shape[:3], -1).permute(0, 3, 1, 2)


def _bias(module: Module) -> Tensor:
    assert module.bias is not None
    return module.bias
