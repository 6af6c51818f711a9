"""Frozen columns of one width as a single net, for small batches: an operation a layer, not k."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from clrl.nets.columns import Column, Lateral, Layer, Place
from clrl.types import Conv

__all__ = ["Stacked"]


class _Level:
    """One layer of all columns.

    W is applied to each column's own channels, in groups; so is U to what V makes of the columns
    before it, where V is one matrix with zeros for those after. Without adapters there is no V, and
    U is one convolution or matrix with such zeros.
    """

    def __init__(self, place: Place, layers: Sequence[Layer], dtype: torch.dtype) -> None:
        self.place, self.k = place, len(layers)
        self.weight = self._grouped([layer.own.weight for layer in layers], dtype)
        self.bias = torch.cat([layer.own.bias for layer in layers if layer.own.bias is not None])
        self.bias = self.bias.to(dtype)
        laterals = [layer.lateral for layer in layers if layer.lateral is not None]
        ups = [layer.up.weight for layer in layers if layer.up is not None]
        self.down = self.down_bias = self.up = None
        if not laterals:
            return
        if laterals[0].adapter:
            self.down, self.down_bias = _downs(laterals, dtype)
            self.up = self._grouped(ups, dtype)
        else:
            n = laterals[-1].n_sources * (place.positions if ups[0].dim() == 2 else 1)
            self.up = torch.cat([_widened(up, n) for up in ups]).to(dtype)

    def _grouped(self, weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """Return (k * out, in, h, w) for convolutions, (k, in, out) for matrices."""
        if isinstance(self.place.spec, Conv):
            weight = torch.cat(list(weights)).to(dtype)
            return weight.contiguous(memory_format=torch.channels_last)
        return torch.stack([weight.T for weight in weights]).to(dtype)

    def first(self, x: Tensor) -> Tensor:
        """Map inputs, which are the same for all columns, to (B, k * out, ...)."""
        spec = self.place.spec
        if isinstance(spec, Conv):
            return F.conv2d(x, self.weight, self.bias, spec.stride, spec.padding).relu()
        weight = self.weight.transpose(1, 2).flatten(0, 1)
        return F.linear(x.flatten(1), weight, self.bias).relu()

    def __call__(self, source: Tensor) -> Tensor:
        """Map all columns' (B, positions, k * n) to (B, k * out, ...)."""
        out = self._each(source, self.weight, self.k)
        out += self.bias[:, None, None] if out.dim() == 4 else self.bias
        if self.up is not None:
            n_first = out.shape[1] // self.k
            below = source[..., : source.shape[2] // self.k * (self.k - 1)]
            if self.down is not None:
                z = F.linear(below, self.down, self.down_bias).relu_()
                lateral = self._each(z, self.up, self.k - 1)
            else:
                lateral = self._all(below, self.up)
            out[:, n_first:] += lateral
        return out.relu_()

    def _each(self, h: Tensor, weight: Tensor, k: int) -> Tensor:
        """Apply a weight of its own to each of k columns."""
        spec = self.place.spec
        if isinstance(spec, Conv):
            h = self._map(h)
            return F.conv2d(h, weight, None, spec.stride, spec.padding, groups=k)
        h = h.view(*h.shape[:2], k, -1).permute(2, 0, 3, 1).flatten(2)  # (k, B, n * positions)
        return torch.bmm(h, weight).transpose(0, 1).flatten(1)

    def _all(self, h: Tensor, weight: Tensor) -> Tensor:
        """Apply one weight to the channels of all columns."""
        spec = self.place.spec
        if isinstance(spec, Conv):
            return F.conv2d(self._map(h), weight, None, spec.stride, spec.padding)
        return F.linear(h.transpose(1, 2).flatten(1), weight)

    def _map(self, h: Tensor) -> Tensor:
        return h.reshape(len(h), *self.place.sides, -1).permute(0, 3, 1, 2)


class Stacked:
    """The frozen columns' activations, without gradient, from copies of their weights.

    Copies are in the type of the computation, so that autocast need not cast them at every step.
    """

    def __init__(
        self,
        places: Sequence[Place],
        columns: Sequence[Column],
        n_layers: int,
        dtype: torch.dtype,
    ) -> None:
        self.dtype, self.places = dtype, places
        with torch.no_grad():
            self._levels = [
                _Level(places[i], [column.layers[i] for column in columns], dtype)
                for i in range(n_layers)
            ]
        self._copied = [p for column in columns for p in column.body.parameters()]
        self._versions = self._now()
        self.k = len(columns)

    def _now(self) -> list[int]:
        return [p._version for p in self._copied]

    def is_copy(self, k: int, dtype: torch.dtype, device: torch.device) -> bool:
        """Tell whether these are still the weights of k columns, in this type and place."""
        here = self._levels[0].weight.device
        return (self.k, self.dtype, here) == (k, dtype, device) and self._versions == self._now()

    @property
    def frozen(self) -> bool:
        """Whether nothing copied is trained: a fused optimizer's steps leave no trace."""
        return not any(p.requires_grad for p in self._copied)

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Return (B, positions, k * n) of what reaches each place from the second on."""
        sources: list[Tensor] = []
        h = self.places[0].pooled(x)
        for level, place in zip(self._levels, self.places[1:], strict=False):
            h = place.pooled(level(sources[-1]) if sources else level.first(h))
            sources.append(h.permute(0, 2, 3, 1).flatten(1, 2) if place.sides else h[:, None])
        return sources


def _downs(laterals: Sequence[Lateral], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return V of all columns with alpha in it, (k * n, k * n), and its bias."""
    width = laterals[-1].n_sources
    rows = [_widened(one.scaled(), width) for one in laterals]
    return torch.cat(rows).to(dtype), torch.cat([one.down.bias for one in laterals]).to(dtype)


def _widened(weight: Tensor, n_in: int) -> Tensor:
    """Add zeros for inputs that a weight (out, in, ...) does not have."""
    missing = weight.new_zeros((len(weight), n_in - weight.shape[1], *weight.shape[2:]))
    return torch.cat([weight, missing], 1)
