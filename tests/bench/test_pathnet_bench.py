"""What paths cost, measured in its smallest form."""

from __future__ import annotations

import pytest
import torch

from clrl.bench import pathnet
from clrl.bench.figure import Setting
from clrl.nets.bodies import body
from clrl.nets.layers import map_shape
from clrl.nets.pathnet import PathNet
from clrl.types import Conv


def test_paths_are_measured_over_a_plain_net(monkeypatch):
    monkeypatch.setattr(pathnet, "BATCH", 16)
    ran: set[tuple[int, ...]] = set()
    forward = PathNet.forward

    def watched(net, x, route, context=None):
        ran.update(tuple(net.rows[row].flatten().tolist()) for row in route.tolist())
        assert len(route) == 16
        return forward(net, x, route, context)

    monkeypatch.setattr(PathNet, "forward", watched)
    for n, used in ((1, 4), (8, 10)):
        ran.clear()
        measured = pathnet.step(Setting(pairs=2, device="cpu", seconds=0.0), n)
        ours, plain = (measured.parts[f"{k}_seconds_per_step"] for k in ("paths", "plain"))
        assert measured.values == pytest.approx([a / b for a, b in zip(ours, plain, strict=True)])
        assert measured.parts["modules_a_layer"] == used
        assert ran == {tuple(p.flatten().tolist()) for p in pathnet.rotated_paths(n)}
        assert len(ran) == n


def macs(layers, n: int, *, modules: bool) -> list[int]:
    """Return multiply-adds by layer, of n modules in each or of a plain chain."""
    shape, found = (4, 84, 84), []
    for i, layer in enumerate(layers):
        n_in, out = shape[0], layer.out * (n if modules else 1)
        if isinstance(layer, Conv):
            shape = map_shape(shape, layer, i)
            found.append(n_in * layer.kernel**2 * out * shape[1] * shape[2])
        else:
            found.append(n_in * shape[1] * shape[2] * out)
    return found


@pytest.mark.parametrize("n", [4, 10])
def test_the_plain_net_multiplies_as_often_layer_by_layer(n):
    modules = macs(body("pathnet_atari"), n, modules=True)
    assert macs(pathnet.plain_body(n), n, modules=False) == modules
    assert modules[0] == 4 * 64 * 8 * n * 400


def test_paths_are_of_four_modules_and_use_all_from_seven_on():
    active = pathnet.rotated_paths(64)
    assert set(active.sum(-1).flatten().tolist()) == {4}
    assert torch.equal(pathnet.rotated_paths(7).any(0), torch.ones(4, 10, dtype=torch.bool))
    assert len({tuple(path.flatten().tolist()) for path in active}) == 64
