"""The exact diagonal Fisher information of a categorical output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clrl.types import Net

__all__ = ["exact_fisher"]


class Record(NamedTuple):
    """One layer's part in a forward pass: `output` is a leaf, so that the graph ends there."""

    layer: nn.Conv2d | nn.Linear
    x: Tensor
    output: Tensor


def exact_fisher(net: Net, x: Tensor, route: Tensor, chunk: int = 8) -> dict[str, Tensor]:
    """Return `F = E_x sum_y p(y|x) (d log p(y|x) / d theta)^2` (Kirkpatrick et al. 2017).

    Every sample's gradient is squared by itself, for every output weighted by its probability: no
    sampling, and no squares of summed gradients, in which samples cancel. The gradients of all A
    outputs go back through a layer as one batch of A * B, scaled by the root of the probability,
    so that squares add up weighted. No per-sample gradient of a linear layer is ever stored: it is
    an outer product, so the sum of its squares over samples is a product of two matrices of
    squares. Convolutions need the gradients of one chunk: one matrix product a sample.

    Args:
        net: of linear and convolutional layers (no padding), each used once in a forward pass.
        x: (B, *input_shape) states or images.
        route: (B,) long.
        chunk: samples held at a time; few stay in the cache.

    Returns:
        By parameter name, tensors shaped as the parameters; zeros where the logits do not depend
        on a parameter (the value head, other tasks' heads).

    Raises:
        ValueError: for a layer that is used twice, or of a kind that no formula here is for.
    """
    fisher = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for rows in _chunks(route, chunk):
        with torch.enable_grad(), _cut_at_layers(net) as tape:
            log_p = net(x[rows], route[rows]).logits.log_softmax(-1)
        p = log_p.detach().exp()
        possible = p.any(0)  # not the actions that no task of this chunk has
        roots = torch.diag_embed(p.sqrt()).transpose(0, 1)[possible]  # (A, B, width)
        for name, g in _backward(tape, log_p, roots):
            _add_squares(fisher, name, tape[name], g)
    return {name: f / len(x) for name, f in fisher.items()}


def _chunks(route: Tensor, size: int) -> Iterator[Tensor]:
    """Yield the indices of at most `size` samples of one route: each layer then sees them all."""
    for k in torch.unique(route):
        yield from (route == k).nonzero().squeeze(-1).split(size)


def _backward(tape: Mapping[str, Record], y: Tensor, g: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the gradient at each layer's output, (A, B, *shape), from the last layer to the first.

    y: (B, width), made of the tape. g: (A, B, width), A gradients at y.
    """
    outputs = [record.output for record in tape.values()]
    at_output: dict[str, Tensor] = {}

    def through_the_rest(y: Tensor, g: Tensor) -> None:
        """Go back through what lies between layers: activations and reshapes."""
        gradients = torch.autograd.grad(
            y, outputs, g, retain_graph=True, allow_unused=True, is_grads_batched=True
        )
        for name, gradient in zip(tape, gradients, strict=True):
            if gradient is not None:
                before = at_output.get(name)
                at_output[name] = gradient if before is None else before + gradient

    through_the_rest(y, g)
    for name, (layer, x, _) in reversed(list(tape.items())):
        if name in at_output:
            g = at_output.pop(name)
            yield name, g
            if x.requires_grad:
                through_the_rest(x, _through_layer(layer, x, g))


def _through_layer(layer: nn.Conv2d | nn.Linear, x: Tensor, g: Tensor) -> Tensor:
    """Map gradients at a layer's output, (A, B, *shape), to those at its input x."""
    weight = layer.weight.detach()
    if isinstance(layer, nn.Linear):
        return g @ weight
    # channels-last: CPU convolutions are then twice as fast
    merged = g.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    size = zip(x.shape[2:], g.shape[3:], layer.kernel_size, layer.stride, strict=True)
    beyond = [whole - (n - 1) * stride - k for whole, n, k, stride in size]  # what no kernel met
    back = F.conv_transpose2d(merged, weight, stride=layer.stride, output_padding=beyond)
    return back.view(*g.shape[:2], *back.shape[1:])


def _add_squares(fisher: Mapping[str, Tensor], name: str, record: Record, g: Tensor) -> None:
    """Add the squared gradients of one layer's weight and bias, summed over all rows of g.

    g: (A, B, *shape), gradients at the layer's output.
    """
    weight, bias = fisher[f"{name}.weight"], fisher.get(f"{name}.bias")
    layer, x = record.layer, record.x.detach()
    if isinstance(layer, nn.Conv2d):
        patches = F.unfold(x, layer.kernel_size, stride=layer.stride)  # (B, C*kh*kw, positions)
        rows = g.flatten(3).transpose(0, 1).flatten(1, 2)  # (B, A*out, positions)
        per_sample = torch.bmm(rows, patches.mT)  # (B, A*out, C*kh*kw)
        weight += per_sample.square_().view(-1, *weight.shape).sum(0)
        g = rows.sum(2).view(-1, len(weight))
        if bias is not None:
            bias += g.square().sum(0)
        return
    squares = g.square().sum(0)  # (B, out)
    weight += squares.T @ x.square()
    if bias is not None:
        bias += squares.sum(0)


def _supported(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        plain = (layer.padding, layer.dilation, layer.groups) == ((0, 0), (1, 1), 1)
        return plain
    return isinstance(layer, nn.Linear)


@contextmanager
def _cut_at_layers(net: nn.Module) -> Iterator[dict[str, Record]]:
    """Record each linear and convolutional layer of a forward pass, by name, in its order."""
    tape: dict[str, Record] = {}

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if name in tape:
                raise ValueError(f"layer {name} is used twice in one pass: no exact Fisher for it")
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            tape[name] = Record(layer, inputs[0], output.detach().requires_grad_())
            return tape[name].output

        return hook

    layers = dict(net.named_modules())
    for name, layer in layers.items():
        if any(True for _ in layer.parameters(recurse=False)) and not _supported(layer):
            raise ValueError(f"layer {name}, {layer}: no exact Fisher for its kind")
    hooks = [
        layer.register_forward_hook(record(name))
        for name, layer in layers.items()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    try:
        yield tape
    finally:
        for hook in hooks:
            hook.remove()
