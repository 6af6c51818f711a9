"""What a progressive net's columns are made of: layers and heads, each with its lateral."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clrl.nets.layers import at_least_float32, map_shape, orthogonal
from clrl.types import ClrlError, Conv, Linear, MaxPool, NetSpec, Output

__all__ = ["Column", "ColumnSettings", "Heads", "Lateral", "Layer", "Place", "places_of"]


@dataclass(frozen=True)
class ColumnSettings:
    """How columns are made and joined; the defaults are the paper's.

    Attributes:
        adapter: down-project earlier columns' activations (V, alpha, f) before U; else the paper's
            plain form, a `U^(k:j)` for each earlier column and no alpha.
        scale_init: what alpha starts from.
        lateral_heads: whether laterals also reach the heads.
        width: hidden sizes of columns after the first, as a share of the body's.
        init: `copy` starts a column from its predecessor's W (heads excepted) where shapes agree.
    """

    adapter: bool = True
    scale_init: float = 0.1
    lateral_heads: bool = True
    width: float = 1.0
    init: Literal["fresh", "copy"] = "fresh"


class Place(NamedTuple):
    """What reaches one layer: after which pools, and of what height and width if it is a map."""

    spec: Conv | Linear | None  # the layer; None: the heads
    pools: tuple[int, ...]
    sides: tuple[int, ...]  # (height, width), or () for a vector

    @property
    def positions(self) -> int:
        return torch.Size(self.sides).numel()

    @property
    def kernel(self) -> int:
        """Weights of a connection from one channel that reaches the layer to one of its units."""
        if not isinstance(self.spec, Conv):
            return self.positions
        k = self.spec.kernel
        return k * k if isinstance(k, int) else k[0] * k[1]

    def pooled(self, h: Tensor) -> Tensor:
        for size in self.pools:
            h = F.max_pool2d(h, size)
        return h


def places_of(spec: NetSpec) -> tuple[Place, ...]:
    """Return what reaches each layer with weights, and the heads; widths of layers do not matter.

    Raises:
        ClrlError: (exit 2) a body that is no chain of layers, or does not fit its input.
    """
    places: list[Place] = []
    shape, pools = spec.input_shape, list[int]()
    for i, layer in enumerate(spec.body):
        if isinstance(layer, MaxPool):
            pools.append(layer.size)
            shape = map_shape(shape, layer, i)
        elif isinstance(layer, Conv | Linear):
            places.append(Place(layer, tuple(pools), shape[1:]))
            shape = map_shape(shape, layer, i) if isinstance(layer, Conv) else (layer.out,)
            pools = []
        else:
            raise ClrlError(
                f"layer {i + 1} of the body is {layer!r}: expected a chain of Conv, "
                "MaxPool and Linear; choose another body or method",
                2,
            )
    if not places:
        raise ClrlError(
            "the body has no layer with weights: expected a chain of layers; choose "
            "another body or method",
            2,
        )
    return (*places, Place(None, tuple(pools), shape[1:]))


class Lateral(nn.Module):
    """What earlier columns' activations become before U: `f(V [alpha_j h^(j)])`, or themselves."""

    owner: Tensor  # (sum of sources,) long: the column that each channel comes from

    def __init__(
        self,
        place: Place,
        sources: Sequence[int],
        width: int,
        settings: ColumnSettings,
        gain: float,
    ) -> None:
        super().__init__()
        self.place, self.n_sources = place, sum(sources)
        self.adapter = settings.adapter
        self.width = width if settings.adapter else self.n_sources
        if settings.adapter:
            self.alpha = nn.Parameter(torch.full((len(sources),), settings.scale_init))
            self.down = nn.Linear(self.n_sources, width)
            orthogonal(self.down, gain)
            owner = torch.arange(len(sources)).repeat_interleave(torch.tensor(sources))
            self.register_buffer("owner", owner, persistent=False)

    def scaled(self) -> Tensor:
        """Return V with alpha in it: it scales V's columns in place of the activations."""
        return self.down.weight * self.alpha[self.owner]

    def forward(self, source: Tensor) -> Tensor:
        """Map (B, positions, channels of these and perhaps more columns) to the layer's input.

        V is a 1x1 convolution: at each position the same linear map of the channels.
        """
        z = source[..., : self.n_sources]
        if self.adapter:
            z = F.linear(z.reshape(-1, self.n_sources), self.scaled(), self.down.bias).relu()
        z = z.reshape(-1, *self.place.sides, self.width)
        if not self.place.sides:
            return z
        z = z.permute(0, 3, 1, 2)
        return z if isinstance(self.place.spec, Conv) else z.flatten(1)


class Sum(nn.Module):
    """`W h + b + U z`: what a column has before f, or as an output of its heads."""

    def __init__(
        self, place: Place, n_in: int, n_out: int, lateral: Lateral | None, gain: float
    ) -> None:
        super().__init__()
        self.own = _weights(place, n_in, n_out, gain, bias=True)
        self.up = None if lateral is None else _weights(place, lateral.width, n_out, gain)

    def forward(self, h: Tensor, z: Tensor | None) -> Tensor:
        if isinstance(self.own, nn.Linear):
            h = h.flatten(1)
        own: Tensor = self.own(h)
        return own if z is None or self.up is None else own + self.up(z)


def _weights(
    place: Place, n_in: int, n_out: int, gain: float, *, bias: bool = False
) -> nn.Conv2d | nn.Linear:
    spec = place.spec
    layer: nn.Conv2d | nn.Linear
    if isinstance(spec, Conv):
        layer = nn.Conv2d(n_in, n_out, spec.kernel, spec.stride, spec.padding, bias=bias)
    else:
        layer = nn.Linear(n_in * place.positions, n_out, bias=bias)
    orthogonal(layer, gain)
    return layer


class Layer(Sum):
    """One layer of a column: `f(W h + b + U z)`."""

    def __init__(
        self, place: Place, n_in: int, n_out: int, lateral: Lateral | None, gain: float
    ) -> None:
        super().__init__(place, n_in, n_out, lateral, gain)
        self.lateral = lateral

    def forward(self, h: Tensor, source: Tensor | None) -> Tensor:
        z = None if self.lateral is None or source is None else self.lateral(source)
        return super().forward(h, z).relu()


class Heads(nn.Module):
    """Policy (or class) and value heads of a column; both take the same lateral, with a U each.

    Their sums are in float32 also under autocast, as those of `nets.layers.Heads`.
    """

    def __init__(
        self, place: Place, n_in: int, n_out: int, lateral: Lateral | None, spec: NetSpec
    ) -> None:
        super().__init__()
        self.lateral = lateral
        self.policy = Sum(place, n_in, n_out, lateral, spec.logits_gain)
        self.value = Sum(place, n_in, 1, lateral, 1.0) if spec.has_value else None

    def forward(self, h: Tensor, source: Tensor | None) -> Output:
        z = None if self.lateral is None or source is None else self.lateral(source)
        with torch.autocast(h.device.type, enabled=False):
            h, z = at_least_float32(h), None if z is None else at_least_float32(z)
            value = None if self.value is None else self.value(h, z).squeeze(-1)
            return Output(self.policy(h, z), value)


class Column(nn.Module):
    """One task's layers and heads, with the laterals that feed them."""

    def __init__(self, body: list[Layer], heads: Heads) -> None:
        super().__init__()
        self.body = nn.ModuleList(body)
        self.heads = heads

    @property
    def layers(self) -> list[Layer]:
        """The body's layers, from the one that sees the input."""
        return [cast(Layer, layer) for layer in self.body]
