"""Chains of layer specs as modules, and the heads that stand on them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clrl.types import MASKED, ClrlError, Conv, LayerSpec, MaxPool, NetSpec, Output, Task

__all__ = [
    "Heads",
    "as_input",
    "at_least_float32",
    "chain",
    "legal_outputs",
    "map_shape",
    "orthogonal",
]


def as_input(x: Tensor) -> Tensor:
    """Return floats: uint8 pixels (B, ...) scaled to [0, 1], anything else as it is.

    Pictures come out channels-last: CPU convolutions then train 1.4 to 2 times as fast. Under
    autocast they come out in its type, which spares a pass over them.
    """
    if x.dtype != torch.uint8:
        return x
    device = x.device.type
    low = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if low else torch.float32
    layout = torch.channels_last if x.dim() == 4 else torch.preserve_format
    return x.to(dtype, memory_format=layout).div_(255.0)


def orthogonal(layer: nn.Conv2d | nn.Linear, gain: float) -> nn.Module:
    """Initialise as the A2C and PPO references do: orthogonal weight, zero bias."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def chain(
    input_shape: tuple[int, ...], body: tuple[LayerSpec, ...], gain: float
) -> tuple[nn.Sequential, int]:
    """Make the modules of a body.

    Args:
        input_shape: of one sample, channels first.
        body: layer specs; every layer with weights is followed by ReLU.
        gain: of the orthogonal initialisation.

    Returns:
        The modules in order, and the number of features that come out (flat).

    Raises:
        ClrlError: when a convolution or a pool does not fit what reaches it.
    """
    modules: list[nn.Module] = []
    shape = input_shape
    for i, spec in enumerate(body):
        if isinstance(spec, Conv):
            shape_after = map_shape(shape, spec, i)
            conv = nn.Conv2d(shape[0], spec.out, spec.kernel, spec.stride, spec.padding)
            modules += [orthogonal(conv, gain), nn.ReLU()]
            shape = shape_after
        elif isinstance(spec, MaxPool):
            shape = map_shape(shape, spec, i)
            modules += [nn.MaxPool2d(spec.size)]
        else:
            modules += _flat(modules, shape)
            modules += [orthogonal(nn.Linear(_size(shape), spec.out), gain), nn.ReLU()]
            shape = (spec.out,)
    modules += _flat(modules, shape)
    return nn.Sequential(*modules), _size(shape)


def _flat(before: list[nn.Module], shape: tuple[int, ...]) -> list[nn.Module]:
    """Make what flattens features; a last ReLU is taken off `before`, to come after it.

    That ReLU's backward pass would otherwise meet values and gradients in different layouts.
    """
    if len(shape) == 1:
        return []
    last_is_relu = bool(before) and isinstance(before[-1], nn.ReLU)
    return [nn.Flatten(), before.pop()] if last_is_relu else [nn.Flatten()]


def at_least_float32(x: Tensor) -> Tensor:
    """Return x in its type, or float32 where that is lower."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def map_shape(shape: tuple[int, ...], spec: Conv | MaxPool, i: int) -> tuple[int, int, int]:
    """Return (channels, height, width) after a layer that slides over maps."""
    if isinstance(spec, MaxPool):
        spec = Conv(shape[0], spec.size, spec.size)  # slides as this one would
    sides = (spec.kernel, spec.kernel) if isinstance(spec.kernel, int) else spec.kernel
    stride, padding, out = spec.stride, spec.padding, spec.out
    room = [s + 2 * padding for s in shape[1:]]
    if len(shape) != 3 or room[0] < sides[0] or room[1] < sides[1]:
        raise ClrlError(
            f"layer {i + 1} of the body, {spec}, does not fit an input of shape {shape}: "
            "expected (channels, height, width) at least as large as the kernel; "
            "choose another net.body (mlp fits any) or a larger observation",
            exit_code=2,
        )
    height, width = ((s - k) // stride + 1 for s, k in zip(room, sides, strict=True))
    return out, height, width


def legal_outputs(spec: NetSpec) -> Tensor:
    """Return (K, width of the widest head) bool: which outputs exist in each task."""
    width = max(task.n_outputs for task in spec.tasks)
    legal = torch.zeros(len(spec.tasks), width, dtype=torch.bool)
    for task in spec.tasks:
        known = task.legal if spec.masks else None
        legal[task.id, list(known or range(task.n_outputs))] = True
    return legal


class Heads(nn.Module):
    """Policy (or class) and value heads on shared features: one pair a task, or one for all.

    Logits are always as wide as the widest head; outputs that a task does not have are `MASKED`,
    so that a batch may mix tasks and no sample ever chooses an illegal action; those of a shared
    head are not where `NetSpec.masks` is false.

    Heads compute in float32 also under autocast: bfloat16 would round a value of 1 to 1/128, as
    much as an advantage is often worth, and policies that differ by less to the same.
    """

    legal: Tensor  # (K, width) bool

    def __init__(self, spec: NetSpec, n_features: int) -> None:
        super().__init__()
        widths = [task.n_outputs for task in spec.tasks]
        width = max(widths)
        if spec.shared_head:
            widths = [width]
        self.policy = nn.ModuleList(
            orthogonal(nn.Linear(n_features, w), spec.logits_gain) for w in widths
        )
        self.value = nn.ModuleList(
            orthogonal(nn.Linear(n_features, 1), 1.0) for _ in widths if spec.has_value
        )
        self.shared = spec.shared_head
        self.register_buffer("legal", legal_outputs(spec), persistent=False)
        self._masks = not bool(self.legal.all())

    def forward(self, h: Tensor, route: Tensor) -> Output:
        """Map features (B, F) and task ids (B,) to logits (B, width) and values (B,)."""
        if self.shared or len(self.policy) == 1:
            output = self._one(h, 0)
        elif bool((route == route[0]).all()):
            output = self._one(h, int(route[0]))
        else:
            output = self._mixed(h, route)
        if not self._masks:
            return output
        return output._replace(logits=output.logits.masked_fill(~self.legal[route], MASKED))

    def of(self, task: Task) -> list[nn.Parameter]:
        """Return the weight and bias of the task's policy head, then of its value head."""
        k = 0 if self.shared else task.id
        heads = [self.policy[k], *([self.value[k]] if len(self.value) else [])]
        return [p for head in heads for p in head.parameters()]

    def _one(self, h: Tensor, k: int) -> Output:
        with torch.autocast(h.device.type, enabled=False):
            h = at_least_float32(h)
            logits = self.policy[k](h)
            value = self.value[k](h).squeeze(-1) if len(self.value) else None
        return Output(nn.functional.pad(logits, (0, self.legal.shape[1] - logits.shape[1])), value)

    def _mixed(self, h: Tensor, route: Tensor) -> Output:
        logits = at_least_float32(h.new_zeros(len(h), self.legal.shape[1]))
        value = logits.new_zeros(len(h)) if len(self.value) else None
        for k in torch.unique(
            route
        ).tolist():  # heads are small: the trunk saw the whole batch at once
            rows = (route == k).nonzero().squeeze(-1)
            one = self._one(h[rows], k)
            logits = logits.index_copy(0, rows, one.logits)
            if value is not None and one.value is not None:
                value = value.index_copy(0, rows, one.value)
        return Output(logits, value)
