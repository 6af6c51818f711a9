"""What paths cost: a training step through many of them over one of a plain net of its size."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from clrl.bench.figure import Measurement, Setting, Workload, interleave, seconds_per_unit
from clrl.bench.subject import best_precision, finish_work
from clrl.nets.bodies import body
from clrl.nets.pathnet import PathNet, PathSettings
from clrl.nets.plain import PlainNet
from clrl.types import Conv, LayerSpec, Linear, Net, NetSpec, Task

__all__ = ["plain_body", "rotated_paths", "step"]

BODY = "pathnet_atari"
BATCH = 256  # PPO's minibatch
MODULES, ACTIVE, LAYERS = 10, 4, 4
TASK, SHAPE = Task(0, "noise", 6), (4, 84, 84)


def step(setting: Setting, n_paths: int) -> Measurement:
    """Measure a step on a minibatch that mixes paths, over a plain net of as many multiply-adds.

    Forward, backward and Adam; pixels are noise. As many as if each module that some path uses were
    computed for all samples (`plain_body`): of 32 paths or fewer a CPU convolves less than that.
    """
    use_cuda = setting.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if use_cuda else "cpu")
    active = rotated_paths(n_paths)
    used = int(active.any(0).sum(1).max())
    spec = NetSpec(SHAPE, body(BODY), (TASK,))
    paths = PathNet(spec, PathSettings(MODULES, ACTIVE)).to(device)
    paths.set_population(active)
    paths.train_only(TASK, modules=True)
    plain = PlainNet(NetSpec(SHAPE, plain_body(used), (TASK,))).to(device)
    route = 1 + torch.arange(BATCH, device=device) % n_paths
    bf16 = best_precision(setting.device) == "bf16"
    sides = (
        _training(paths, route, setting.seconds, bf16),
        _training(plain, torch.zeros_like(route), setting.seconds, bf16),
    )
    rows = interleave(*sides, pairs=setting.pairs)
    return Measurement(
        [ours / theirs for ours, theirs in rows],
        {
            "paths_seconds_per_step": [ours for ours, _ in rows],
            "plain_seconds_per_step": [theirs for _, theirs in rows],
            "modules_a_layer": used,
            "batch": BATCH,
            "precision": "bf16" if bf16 else "float32",
            "torch_threads": torch.get_num_threads(),
        },
    )


def rotated_paths(n: int) -> Tensor:
    """Return (n, L, M) bool: n paths of N modules a layer; from 7 paths on all M are in use."""
    active = torch.zeros((n, LAYERS, MODULES), dtype=torch.bool)
    path, layer = torch.arange(n)[:, None, None], torch.arange(LAYERS)[:, None]
    first = path + layer * (3 + path // MODULES)
    return active.scatter_(-1, (first + torch.arange(ACTIVE)) % MODULES, True)


def plain_body(n: int) -> tuple[LayerSpec, ...]:
    """Return a chain with the multiply-adds, layer by layer, of n modules in every layer.

    A layer of n modules of c units, above sums of c, multiplies as often as one of n c units above
    c, or one of c above n c: wide and narrow layers in turn.
    """
    wide = list[LayerSpec]()
    for i, layer in enumerate(cast(tuple[Conv | Linear, ...], body(BODY))):
        out = layer.out * (1 if i % 2 else n)
        wide.append(replace(layer, out=out))
    return tuple(wide)


def _training(net: Net, route: Tensor, least: float, bf16: bool) -> Workload:
    """Return steps for `least` seconds: seconds a step."""
    device = route.device
    x = torch.randint(0, 256, (BATCH, *SHAPE), dtype=torch.uint8)
    x = x.to(device).contiguous(memory_format=torch.channels_last)
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, fused=True)

    def one() -> int:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            output = net(x, route)
        assert output.value is not None
        loss = output.logits.square().mean() + output.value.square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return 1

    return lambda: seconds_per_unit(one, least, finish_work(device))
