"""The progressive net (Rusu et al. 2016): a column a task, with laterals from those before it.

Column k computes its layer i from its own layer below and from all earlier columns' (k > j):

    h_i^(k) = f( W h_(i-1)^(k) + U f( V [alpha_j h_(i-1)^(j) for j < k] ) )     from i = 2

with f = ReLU, none on the heads' sums. Earlier columns are frozen, and what they make of an input
does not depend on what is learned: it is the net's `context`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clrl.nets.columns import Column, ColumnSettings, Heads, Lateral, Layer, Place, places_of
from clrl.nets.layers import as_input, legal_outputs
from clrl.nets.stacked import Stacked
from clrl.types import MASKED, ClrlError, Net, NetSpec, Output, Task

__all__ = ["ColumnSettings", "ProgressiveNet"]

STACKED_ROWS = 32  # batches up to here go through all frozen columns at once, which then is faster


class ProgressiveNet(Net):
    """A column for every task; routes are task ids, and a task's column is made by `add_task`.

    The paper leaves open, and here is chosen:
    - alpha is one scalar for each earlier column and layer (heads: one layer);
    - biases: W and V have one, U none (it would be W's again);
    - V is a 1x1 convolution also below the first fully connected layer, whose U and W take maps
      flattened; pools come before V;
    - all weights start orthogonal, V with the gain of hidden layers, U with that of its layer or
      head, biases at 0: how much a lateral says at first is for alpha.

    A column after k - 1 others has, for a layer of m units above n channels with a kernel of s
    weights (the positions of a map, for a fully connected layer), and N channels of earlier columns

        n s m + m    for W and b, and from the second layer on
        (k - 1) + N n + n + n s m    for alpha, V, its bias and U; without adapters N s m for U

    Every column has heads of its own, as wide as its task's outputs: with a shared head
    (`NetSpec.shared_head`) all are as wide as the union, masked to what is legal.
    """

    legal: Tensor  # (K, width) bool

    def __init__(self, spec: NetSpec, settings: ColumnSettings | None = None) -> None:
        super().__init__()
        self.spec, self.settings = spec, settings or ColumnSettings()
        self.places = places_of(spec)
        self.columns = nn.ModuleList()
        self.column_of: dict[int, int] = {}  # by task id
        self.widths: list[tuple[int, ...]] = []  # of each column: channels that reach each place
        self.register_buffer("legal", legal_outputs(spec), persistent=False)
        self._stack: Stacked | None = None  # of the columns that were asked for last
        self._masks = not bool(self.legal.all())

    # ---------------------------------------------------------------------------------- growth

    def add_task(self, task: Task) -> None:
        """Make the task's column, if it has none, on top of all that there are."""
        if task.id not in self.column_of:
            self.add_column(task.n_outputs)
            self.column_of[task.id] = len(self.columns) - 1

    def add_column(self, n_outputs: int) -> None:
        """Make a column that serves no task yet (`add_task` makes one that does)."""
        self.widths.append(self._widths_of(len(self.columns)))
        k, own, settings = len(self.columns), self.widths[-1], self.settings

        def lateral(i: int) -> Lateral | None:
            if k == 0 or i == 0 or (i == len(own) - 1 and not settings.lateral_heads):
                return None
            sources = [width[i] for width in self.widths[:k]]
            return Lateral(self.places[i], sources, own[i], settings, self.spec.hidden_gain)

        gain = self.spec.hidden_gain
        body = [
            Layer(place, own[i], own[i + 1], lateral(i), gain)
            for i, place in enumerate(self.places[:-1])
        ]
        last = len(body)
        heads = Heads(self.places[last], own[last], n_outputs, lateral(last), self.spec)
        column = Column(body, heads).to(self.legal.device)
        if k and settings.init == "copy":
            _copy_shapes(self._first(k)[-1], column)
        self.columns.append(column)

    def _first(self, k: int) -> list[Column]:
        return [cast(Column, column) for column in self.columns[:k]]

    def _widths_of(self, k: int) -> tuple[int, ...]:
        factor = self.settings.width if k else 1.0
        outs = [place.spec.out for place in self.places if place.spec is not None]
        return (self.spec.input_shape[0], *(max(1, round(factor * n)) for n in outs))

    def column_size(self, k: int, n_outputs: int | None = None) -> int:
        """Return how many parameters column k (from 0) has, made or not: the formula above.

        Without `n_outputs` its heads are as wide as the widest.
        """
        settings = self.settings
        below, own = [self._widths_of(j) for j in range(k)], self._widths_of(k)
        heads = (self.legal.shape[1] if n_outputs is None else n_outputs) + self.spec.has_value
        size = 0
        for i, (place, n, m) in enumerate(zip(self.places, own, (*own[1:], heads), strict=True)):
            size += n * place.kernel * m + m
            if not k or i not in self._read():
                continue
            from_all = sum(width[i] for width in below)
            if settings.adapter:
                size += k + from_all * n + n + n * place.kernel * m
            else:
                size += from_all * place.kernel * m
        return size

    def context_size(self, k: int) -> int:
        """Return D: how many activations of earlier columns column k (from 0) reads."""
        below = [self._widths_of(j) for j in range(k)]
        return sum(self.places[i].positions * sum(w[i] for w in below) for i in self._read())

    def train_only(self, task: Task) -> None:
        """Leave to be trained what no other column reads of this task's column.

        That is all of it while it is the last; then its heads, with what leads into them.
        """
        self.requires_grad_(False)
        self.zero_grad()  # what is frozen keeps no gradient from when it was learned
        self._stack = None  # copies are made of what is frozen from now on
        k = self.column_of[task.id]
        column = self.columns[k]
        (column if k == len(self.columns) - 1 else column.heads).requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what is trained; frozen columns stay in that of evaluation."""
        super().train(mode)
        for column in self.columns:
            if not any(p.requires_grad for p in column.parameters()):
                column.eval()
        return self

    def can_play(self, task: Task) -> bool:
        return task.id in self.column_of

    def body_parameters(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.named_parameters() if ".heads." not in n}

    def first_parameters(self, task: Task) -> list[nn.Parameter]:
        column = self._first(self.column_of[task.id] + 1)[-1]
        return [*column.body.parameters(), *column.heads.parameters()]

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """Return none: what several tasks use is frozen before the second one begins."""
        return {}

    # ----------------------------------------------------------------------------------- passes

    def forward(self, x: Tensor, route: Tensor, context: Tensor | None = None) -> Output:
        ids = _distinct(route)
        if len(ids) == 1:
            return self._masked(self._of_task(x, ids[0], context), route)
        return self._masked(self._mixed(x, route, ids, context), route)

    def traced(
        self, x: Tensor, route: Tensor, change: Callable[[int, int, Tensor], Tensor]
    ) -> Output:
        """Do what `forward` does, with every activation of every column passing through `change`.

        Nothing is spared: no context is used, and gradients reach frozen columns' activations.

        Args:
            x: (B, *input_shape).
            route: (B,) long, all of one task.
            change: is given i, k and h_i^(k) after f, (B, units) or (B, maps, height, width), with
                layers and columns counted from 0; layer i + 1 of column k, and of all columns after
                it, read what is returned.
        """
        (task_id,) = _distinct(route)
        k = self._column(task_id)
        columns, source = self._first(k + 1), None
        hs = [self.places[0].pooled(as_input(x))] * (k + 1)
        for i, place in enumerate(self.places[1:]):
            hs = [
                place.pooled(change(i, j, column.layers[i](h, source)))
                for j, (column, h) in enumerate(zip(columns, hs, strict=True))
            ]
            source = _joined(hs[:k], place) if k else None
        return self._masked(self._answer(columns[k], hs[k], source), route)

    def features(self, x: Tensor, route: Tensor) -> dict[str, Tensor]:
        own, found = self._column(int(route[0])), dict[str, Tensor]()

        def keep(i: int, k: int, h: Tensor) -> Tensor:
            if k == own:
                found[f"columns.{k}.body.{i}"] = h
            return h

        self.traced(x, route[:1].expand(len(x)), keep)
        return found

    def _mixed(self, x: Tensor, route: Tensor, ids: list[int], context: Tensor | None) -> Output:
        all_rows, logits, values = [], [], []
        for k in ids:
            rows = (route == k).nonzero().squeeze(-1)
            one = self._of_task(x[rows], k, None if context is None else context[rows])
            all_rows.append(rows)
            logits.append(one.logits)
            values.append(one.value)
        order = torch.cat(all_rows).argsort()
        some = [v for v in values if v is not None]
        return Output(torch.cat(logits)[order], torch.cat(some)[order] if some else None)

    def _of_task(self, x: Tensor, task_id: int, context: Tensor | None) -> Output:
        """Return logits as wide as the widest head, and values, of one task's samples."""
        k = self._column(task_id)
        sources = self._split(self._frozen(x, k) if context is None else context, k)
        h, column = as_input(x), self._first(k + 1)[k]
        for i, (place, layer) in enumerate(zip(self.places[:-1], column.layers, strict=True)):
            h = layer(place.pooled(h), sources[i])
        return self._answer(column, self.places[-1].pooled(h), sources[-1])

    def _answer(self, column: Column, h: Tensor, source: Tensor | None) -> Output:
        logits, value = column.heads(h, source)
        return Output(F.pad(logits, (0, self.legal.shape[1] - logits.shape[1])), value)

    def _masked(self, output: Output, route: Tensor) -> Output:
        if not self._masks:
            return output
        return output._replace(logits=output.logits.masked_fill(~self.legal[route], MASKED))

    def _column(self, task_id: int) -> int:
        if task_id not in self.column_of:
            name = self.spec.tasks[task_id].name
            raise ClrlError(f"task {name!r} has no column yet: call add_task (begin it) first")
        return self.column_of[task_id]

    def context(self, x: Tensor, route: Tensor) -> Tensor:
        """Return (B, D) what the columns before each sample's own make of it, without gradient.

        Layer after layer, position after position, column after column. D is what the last of the
        columns in the batch needs; rows of earlier ones end with zeros.
        """
        ids = _distinct(route)
        if len(ids) == 1:
            return self._frozen(x, self._column(ids[0]))
        all_rows = [(route == k).nonzero().squeeze(-1) for k in ids]
        parts = [
            self._frozen(x[rows], self._column(k)) for k, rows in zip(ids, all_rows, strict=True)
        ]
        widest = max(parts, key=lambda part: part.shape[1])
        context = widest.new_zeros((len(x), widest.shape[1]))
        for rows, part in zip(all_rows, parts, strict=True):
            context[rows, : part.shape[1]] = part.to(context.dtype)
        return context

    def _read(self) -> range:
        """Return the places with laterals."""
        return range(1, len(self.places) - (not self.settings.lateral_heads))

    def _split(self, context: Tensor, k: int) -> list[Tensor | None]:
        """Return for each place (B, positions, channels of k columns) out of a context."""
        sources: list[Tensor | None] = [None] * len(self.places)
        start = 0
        for i in self._read() if k else ():
            place, n = self.places[i], sum(width[i] for width in self.widths[:k])
            end = start + place.positions * n
            sources[i] = context[:, start:end].reshape(-1, place.positions, n)
            start = end
        return sources

    def _stacked(self, k: int, x: Tensor) -> Stacked:
        device = x.device.type
        low = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if low else next(self.parameters()).dtype
        if self._stack is None or not self._stack.is_copy(k, dtype, x.device):
            self._stack = Stacked(self.places, self._first(k), len(self._read()), dtype)
        return self._stack

    @torch.no_grad()
    def _frozen(self, x: Tensor, k: int) -> Tensor:
        """Return (B, D) what k columns make of inputs: each layer once, for all columns above."""
        if k == 0 or not self._read():
            return torch.empty((len(x), 0), device=x.device)
        if len(x) <= STACKED_ROWS and len(set(self.widths[:k])) == 1:
            stack = self._stacked(k, x)
            if stack.frozen:
                return torch.cat([s.flatten(1) for s in stack(as_input(x))], 1)
        columns, sources = [column.layers for column in self._first(k)], list[Tensor]()
        hs = [self.places[0].pooled(as_input(x))] * k
        for i in self._read():
            place, below = self.places[i], sources[-1] if sources else None
            hs = [place.pooled(body[i - 1](h, below)) for body, h in zip(columns, hs, strict=True)]
            sources.append(_joined(hs, place))
        return torch.cat([source.flatten(1) for source in sources], 1)


def _joined(hs: Sequence[Tensor], place: Place) -> Tensor:
    """Return (B, positions, channels of all columns) of what reaches a place in each."""
    joined = torch.cat(list(hs), 1)
    return joined.permute(0, 2, 3, 1).flatten(1, 2) if place.sides else joined[:, None]


def _distinct(route: Tensor) -> list[int]:
    """Return the task ids of a batch; that there is one is found at once."""
    first = int(route[0])
    if bool((route == first).all()):
        return [first]
    return [int(k) for k in torch.unique(route)]


def _copy_shapes(old: Column, new: Column) -> None:
    """Start new layers from old ones' W and b where these have the same shape."""
    with torch.no_grad():
        for before, after in zip(old.layers, new.layers, strict=True):
            if before.own.weight.shape == after.own.weight.shape:
                after.own.load_state_dict(before.own.state_dict())
