"""The plain net: one trunk for all tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clrl.nets.layers import Heads, as_input, chain
from clrl.types import Net, NetSpec, Output, Task

__all__ = ["PlainNet"]


class PlainNet(Net):
    """A trunk made of the body's layers once, under all heads; routes are task ids."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.trunk, n_features = chain(spec.input_shape, spec.body, spec.hidden_gain)
        self.heads = Heads(spec, n_features)

    def forward(self, x: Tensor, route: Tensor, context: Tensor | None = None) -> Output:
        output: Output = self.heads(self.trunk(as_input(x)), route)
        return output

    def features(self, x: Tensor, route: Tensor) -> dict[str, Tensor]:
        h, found = as_input(x), dict[str, Tensor]()
        for name, module in self.trunk.named_children():
            h = module(h)
            if isinstance(module, nn.Conv2d | nn.Linear):
                found[f"trunk.{name}"] = h.relu()
        return found

    def all_logits(self, x: Tensor, task_ids: Sequence[int]) -> Tensor:
        """Map (B, *input_shape) to the logits (K, B, width) of K tasks; the trunk runs once."""
        return self.logits_of(self.trunk(as_input(x)), task_ids)

    def logits_of(self, h: Tensor, task_ids: Sequence[int]) -> Tensor:
        """Map the trunk's features (B, F) to the logits (K, B, width) of K tasks."""
        routes = [torch.full((len(h),), k, device=h.device) for k in task_ids]
        return torch.stack([self.heads(h, route).logits for route in routes])

    def body_parameters(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.named_parameters() if n.startswith("trunk.")}

    def first_parameters(self, task: Task) -> list[nn.Parameter]:
        return [*self.trunk.parameters(), *self.heads.of(task)]

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        shared = self.body_parameters()
        if self.spec.shared_head:
            shared |= {n: p for n, p in self.named_parameters() if n.startswith("heads.")}
        return shared
