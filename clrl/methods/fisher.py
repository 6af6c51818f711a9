"""The exact diagonal Fisher information of a categorical output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clrl.types import Net

__all__ = ["exact_fisher"]

Tape = dict[str, tuple[nn.Module, Tensor, Tensor]]  # layer name: (layer, its input, its output)


def exact_fisher(net: Net, x: Tensor, route: Tensor, chunk: int = 64) -> dict[str, Tensor]:
    """Return `F = E_x sum_y p(y|x) (d log p(y|x) / d theta)^2` (Kirkpatrick et al. 2017).

    Every sample's gradient is squared by itself, for every output weighted by its probability: no
    sampling, and no squares of summed gradients, in which samples cancel. No per-sample gradient
    of a linear layer is ever stored: it is an outer product, so the sum of its squares over
    samples is a product of two matrices of squares. Convolutions need the gradients of one chunk.

    Args:
        net: of linear and convolutional layers, each used once in a forward pass.
        x: (B, *input_shape) states or images.
        route: (B,) long.
        chunk: samples held at a time.

    Returns:
        By parameter name, tensors shaped as the parameters; zeros where the logits do not depend
        on a parameter (the value head, other tasks' heads).
    """
    fisher = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for rows in _chunks(route, chunk):
        with _grad_mode(net), _recording(net) as tape:
            log_p = net(x[rows], route[rows]).logits.log_softmax(-1)
        outputs = [output for _, _, output in tape.values()]
        for y in range(log_p.shape[1]):
            p = log_p[:, y].detach().exp()
            if not bool(p.any()):
                continue  # an action that no task of this chunk has
            gradients = torch.autograd.grad(
                log_p[:, y].sum(), outputs, retain_graph=True, allow_unused=True
            )
            for (name, (layer, inputs, _)), g in zip(tape.items(), gradients, strict=True):
                if g is not None:
                    _add_squares(fisher, name, layer, inputs, g, p)
    return {name: f / len(x) for name, f in fisher.items()}


def _chunks(route: Tensor, size: int) -> Iterator[Tensor]:
    """Yield the indices of at most `size` samples of one route: each layer then sees them all."""
    for k in torch.unique(route):
        yield from (route == k).nonzero().squeeze(-1).split(size)


def _add_squares(
    fisher: Mapping[str, Tensor], name: str, layer: nn.Module, x: Tensor, g: Tensor, p: Tensor
) -> None:
    """Add `sum_b p_b * grad_b^2` of one layer's weight and bias.

    x: the layer's inputs, (B, in) or (B, C, H, W). g: d log p(y|x) / d output. p: (B,).
    """
    weight, bias = fisher[f"{name}.weight"], fisher.get(f"{name}.bias")
    if isinstance(layer, nn.Conv2d):
        patches = F.unfold(x, layer.kernel_size, stride=layer.stride)  # (B, C*kh*kw, positions)
        flat = g.flatten(2)  # (B, out, positions)
        per_sample = torch.bmm(flat, patches.transpose(1, 2))  # (B, out, C*kh*kw)
        weight += torch.einsum("b,bok->ok", p, per_sample.square()).view_as(weight)
        g = flat.sum(2)
    else:
        weight += (g.square() * p[:, None]).T @ x.square()
    if bias is not None:
        bias += p @ g.square()


@contextmanager
def _recording(net: nn.Module) -> Iterator[Tape]:
    """Record each linear and convolutional layer's input and output during a forward pass."""
    tape: Tape = {}

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if name in tape:
                raise ValueError(f"layer {name} is used twice in one pass: no exact Fisher for it")
            tape[name] = (layer, inputs[0].detach(), output)

        return hook

    hooks = [
        layer.register_forward_hook(record(name))
        for name, layer in net.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    try:
        yield tape
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _grad_mode(net: nn.Module) -> Iterator[None]:
    """Let every layer's output carry a gradient, also where its parameters are frozen."""
    required = {p: p.requires_grad for p in net.parameters()}
    with torch.enable_grad():
        for p in required:
            p.requires_grad_(True)
        try:
            yield
        finally:
            for p, was in required.items():
                p.requires_grad_(was)
