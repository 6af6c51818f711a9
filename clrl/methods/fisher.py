"""Sums over samples of squared or absolute gradients, and the Fisher informations made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clrl.types import Net, Output

__all__ = [
    "Directions",
    "at_targets",
    "batched_fisher",
    "exact_fisher",
    "fisher_at",
    "mean_over_samples",
]

Directions = Callable[[Output, Tensor], tuple[Tensor, Tensor | None]]
"""Maps the output of some samples and their indices to gradients at logits and value.

(A, B, width) and (A, B), or None where the value plays no part: A directions for each sample.
"""


GRADIENTS_HELD = 144  # of samples x outputs at a time: few stay in the cache


class Record(NamedTuple):
    """One layer's part in a forward pass: `output` is a leaf, so that the graph ends there."""

    layer: nn.Conv2d | nn.Linear
    x: Tensor
    output: Tensor


def mean_over_samples(
    net: Net, x: Tensor, route: Tensor, directions: Directions, power: int, chunk: int
) -> dict[str, Tensor]:
    """Return `1/N sum_n sum_a |d(g_na . output_n) / d theta|^power`.

    Every sample's gradient is taken by itself: no squares of summed gradients, in which samples
    cancel. All A directions g go back through a layer as one batch of A * B. No per-sample gradient
    of a linear layer is ever stored: it is an outer product, so the sum of its squares (or absolute
    values) over samples is a product of two matrices of squares (or absolute values). Convolutions
    need the gradients of one chunk: one matrix product a sample.

    Args:
        net: of linear and convolutional layers, each used once in a forward pass, and of layers
            without weights.
        x: (N, *input_shape) states or images.
        route: (N,) long.
        directions: what to differentiate, made from the (detached) outputs.
        power: 1 or 2.
        chunk: samples held at a time; few stay in the cache.

    Returns:
        By parameter name, tensors shaped as the parameters; zeros where no direction depends on a
        parameter (other tasks' heads).

    Raises:
        ValueError: for a layer that is used twice, or of a kind that no formula here is for.
    """
    total = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for rows in _chunks(route, chunk):
        with torch.enable_grad(), _cut_at_layers(net) as tape:
            logits, value = net(x[rows], route[rows])
        fixed = Output(logits.detach(), None if value is None else value.detach())
        at_logits, at_value = directions(fixed, rows)
        ends, g = [logits], [at_logits]
        if value is not None and at_value is not None:
            ends, g = [logits, value], [at_logits, at_value]
        for name, at_layer in _backward(tape, ends, g):
            _add_powers(total, name, tape[name], at_layer, power)
    return {name: t / len(x) for name, t in total.items()}


def exact_fisher(
    net: Net, x: Tensor, route: Tensor, value: bool = False, chunk: int | None = None
) -> dict[str, Tensor]:
    """Return `F = E_x sum_y p(y|x) (d log p(y|x) / d theta)^2` (Kirkpatrick et al. 2017).

    All outputs y are weighted by their probability: no sampling. Gradients are scaled by its root,
    so that squares add up weighted.

    Args:
        net: see `mean_over_samples`, as for errors.
        x: (N, *input_shape).
        route: (N,) long.
        value: add `E_x (d V(x) / d theta)^2`, the Fisher information of a Gaussian of unit
            variance around the value; without, the value head has none.
        chunk: samples held at a time; None: fewer the more outputs there are.

    Returns:
        By parameter name, tensors shaped as the parameters.
    """
    chunk = chunk or max(1, GRADIENTS_HELD // max(task.n_outputs for task in net.spec.tasks))

    def directions(output: Output, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        p = output.logits.softmax(-1)
        roots = p.sqrt()
        g = torch.diag_embed(roots) - roots[:, :, None] * p[:, None, :]  # d log p_y / d logits
        g = g.transpose(0, 1)[p.any(0)]  # not the outputs that no task of this chunk has
        return _with_value(g, output.value if value else None)

    return mean_over_samples(net, x, route, directions, power=2, chunk=chunk)


def fisher_at(
    net: Net, x: Tensor, route: Tensor, target: Tensor, value: bool = False, chunk: int = 32
) -> dict[str, Tensor]:
    """Return `E_x (d log p(target|x) / d theta)^2`, as `exact_fisher` does with one y a sample.

    With targets drawn from p(y|x) it estimates the Fisher information without bias; with labels it
    is the "empirical" one, which vanishes as the net fits them.
    """

    def directions(output: Output, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        return _with_value(at_targets(output, target[rows])[None], output.value if value else None)

    return mean_over_samples(net, x, route, directions, power=2, chunk=chunk)


def batched_fisher(
    net: Net, x: Tensor, route: Tensor, target: Tensor, size: int, value: bool = False
) -> dict[str, Tensor]:
    """Return the mean over batches of the square of the gradient of a batch's mean log p(target).

    Not a Fisher information: gradients of samples cancel before they are squared, and its scale
    falls with `size`. It is what several libraries compute, and is here to be compared with.
    """
    parameters = dict(net.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    starts = range(0, len(x), size)

    def add(mean: Tensor) -> None:
        wanted = {n: p for n, p in parameters.items() if p.requires_grad}
        gradients = torch.autograd.grad(
            mean, list(wanted.values()), retain_graph=True, allow_unused=True
        )
        for name, g in zip(wanted, gradients, strict=True):
            if g is not None:
                total[name].addcmul_(g, g, value=1 / len(starts))

    with torch.enable_grad():
        for start in starts:
            rows = slice(start, start + size)
            output = net(x[rows], route[rows])
            log_p = output.logits.log_softmax(-1).gather(1, target[rows, None])
            add(log_p.mean())
            if value and output.value is not None:
                add(output.value.mean())
    return total


def at_targets(output: Output, target: Tensor) -> Tensor:
    """Return d log p(target) / d logits: (B, width)."""
    p = output.logits.softmax(-1)
    return F.one_hot(target, p.shape[1]) - p


def _with_value(g: Tensor, value: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Add a direction: the value's own. g: (A, B, width)."""
    if value is None:
        return g, None
    at_value = value.new_zeros(len(g) + 1, len(value))
    at_value[-1] = 1.0
    return torch.cat([g, torch.zeros_like(g[:1])]), at_value


def _chunks(route: Tensor, size: int) -> Iterator[Tensor]:
    """Yield the indices of at most `size` samples of one route: each layer then sees them all."""
    for k in torch.unique(route):
        yield from (route == k).nonzero().squeeze(-1).split(size)


def _backward(
    tape: Mapping[str, Record], ends: list[Tensor], at_ends: list[Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the gradient at each layer's output, (A, B, *shape), from the last layer to the first.

    ends: (B, ...), made of the tape. at_ends: (A, B, ...), A gradients at each.
    """
    outputs = [record.output for record in tape.values()]
    at_output: dict[str, Tensor] = {}

    def through_the_rest(y: list[Tensor], g: list[Tensor]) -> None:
        """Go back through what lies between layers: activations, pools and reshapes."""
        gradients = torch.autograd.grad(
            y, outputs, g, retain_graph=True, allow_unused=True, is_grads_batched=True
        )
        for name, gradient in zip(tape, gradients, strict=True):
            if gradient is not None:
                before = at_output.get(name)
                at_output[name] = gradient if before is None else before + gradient

    through_the_rest(ends, at_ends)
    for name, (layer, x, _) in reversed(list(tape.items())):
        if name in at_output:
            g = at_output.pop(name)
            yield name, g
            if x.requires_grad:
                through_the_rest([x], [_through_layer(layer, x, g)])


def _through_layer(layer: nn.Conv2d | nn.Linear, x: Tensor, g: Tensor) -> Tensor:
    """Map gradients at a layer's output, (A, B, *shape), to those at its input x."""
    weight = layer.weight.detach()
    if isinstance(layer, nn.Linear):
        return g @ weight
    # channels-last: CPU convolutions are then twice as fast
    merged = g.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    stride, padding = layer.stride, _padding(layer)
    padded = [side + 2 * p for side, p in zip(x.shape[2:], padding, strict=True)]
    size = zip(padded, g.shape[3:], layer.kernel_size, stride, strict=True)
    beyond = [whole - (n - 1) * step - k for whole, n, k, step in size]  # what no kernel met
    back = F.conv_transpose2d(merged, weight, stride=stride, padding=padding, output_padding=beyond)
    return back.view(*g.shape[:2], *back.shape[1:])


def _add_powers(
    total: Mapping[str, Tensor], name: str, record: Record, g: Tensor, power: int
) -> None:
    """Add |gradient|^power of one layer's weight and bias, summed over all rows of g.

    g: (A, B, *shape), gradients at the layer's output.
    """
    weight, bias = total[f"{name}.weight"], total.get(f"{name}.bias")
    layer, x = record.layer, record.x.detach()
    if isinstance(layer, nn.Conv2d):
        patches = F.unfold(x, layer.kernel_size, padding=_padding(layer), stride=layer.stride)
        rows = g.flatten(3).transpose(0, 1).flatten(1, 2)  # (B, A*out, positions)
        per_sample = torch.bmm(rows, patches.mT)  # (B, A*out, C*kh*kw)
        weight += _to_power_(per_sample, power).view(-1, *weight.shape).sum(0)
        if bias is not None:
            bias += _to_power_(rows.sum(2), power).view(-1, len(weight)).sum(0)
        return
    powers = _to_power_(g.clone(), power).sum(0)  # (B, out)
    weight += powers.T @ _to_power_(x.clone(), power)
    if bias is not None:
        bias += powers.sum(0)


def _to_power_(x: Tensor, power: int) -> Tensor:
    return x.abs_() if power == 1 else x.square_()


def _padding(layer: nn.Conv2d) -> tuple[int, int]:
    assert not isinstance(layer.padding, str)  # refused by `_supported`
    high, wide = layer.padding
    return high, wide


def _supported(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        plain = (layer.padding_mode, layer.dilation, layer.groups) == ("zeros", (1, 1), 1)
        return plain and not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear)


@contextmanager
def _cut_at_layers(net: nn.Module) -> Iterator[dict[str, Record]]:
    """Record each linear and convolutional layer of a forward pass, by name, in its order."""
    tape: dict[str, Record] = {}

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if name in tape:
                raise ValueError(f"layer {name} is used twice in one pass: no formula for it")
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            tape[name] = Record(layer, inputs[0], output.detach().requires_grad_())
            return tape[name].output

        return hook

    layers = dict(net.named_modules())
    for name, layer in layers.items():
        if any(True for _ in layer.parameters(recurse=False)) and not _supported(layer):
            raise ValueError(f"layer {name}, {layer}: no formula for its kind")
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
