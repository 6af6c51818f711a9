"""PathNet's net: beside a naive one, with paths mixed at will, frozen and renewed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clrl.nets import pathnet
from clrl.nets.bodies import body
from clrl.nets.pathnet import PathNet, PathSettings
from clrl.types import MASKED, ClrlError, Conv, Linear, MaxPool, NetSpec, Task

TASKS = (Task(0, "a", 3), Task(1, "b", 5), Task(2, "c", 2))
CHAIN = (Conv(4, 3, 1, 1), MaxPool(2), Conv(5, (2, 3), 2), Linear(7), Linear(6))
M, L, P = 5, 4, 12


def random_paths(n: int = P, layers: int = L, modules: int = M, seed: int = 0) -> Tensor:
    """Return (n, layers, modules) bool, one to three modules active in each layer."""
    draw = torch.Generator().manual_seed(seed)
    active = torch.zeros((n, layers, modules), dtype=torch.bool)
    picks = torch.randint(modules, (n, layers, 3), generator=draw)
    return active.scatter_(-1, picks, True)


def net_with(
    chain=CHAIN, shape=(2, 12, 12), learned: int = 1, has_value: bool = True, **settings
) -> PathNet:
    torch.manual_seed(0)
    spec = NetSpec(shape, chain, TASKS, has_value=has_value)
    net = PathNet(spec, PathSettings(M, 3, **settings))
    for p in net.parameters():  # biases too, and heads as large as the rest
        torch.nn.init.normal_(p, std=0.3)
    for task in TASKS:
        net.set_path(task, random_paths(1, net.n_layers, seed=task.id + 7)[0])
    net.set_population(random_paths(layers=net.n_layers))
    net.train_only(TASKS[learned], modules=True)
    return net


def pixels(n: int, shape=(2, 12, 12)) -> Tensor:
    draw = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=draw)


def naive(net: PathNet, x: Tensor, route: int) -> tuple[Tensor, Tensor]:
    """Compute one sample by the definition: a module at a time, those of the path alone."""
    h = x[None].float() / 255
    weights = dict(net.named_parameters())
    layer = 0
    for spec in net.spec.body:
        if isinstance(spec, MaxPool):
            h = F.max_pool2d(h, spec.size)
            continue
        outs = []
        for m in range(M):
            if not net.rows[route, layer, m]:
                continue
            w, b = (weights[f"layers.{layer}.{m}.{kind}"] for kind in ("weight", "bias"))
            if isinstance(spec, Conv):
                y = F.conv2d(h, w, b, spec.stride, spec.padding)
            else:
                y = h.flatten(1) @ w.T + b
            outs.append(y.clamp(min=0))
        kind = net.settings.aggregate if layer < L - 1 else net.settings.aggregate_last
        h = sum(outs) / (len(outs) if kind == "mean" else 1)
        layer += 1
    task = route if route < len(TASKS) else 1
    kinds = {k: weights[f"heads.{k}.{task}.weight"] for k in ("policy", "value")}
    logits, value = ((h @ w.T + weights[f"heads.{k}.{task}.bias"])[0] for k, w in kinds.items())
    missing = 5 - len(logits)
    return torch.cat([logits, torch.full((missing,), MASKED)]), value[0]


@pytest.mark.parametrize("aggregate", ["sum", "mean"])
@pytest.mark.parametrize("aggregate_last", ["sum", "mean"])
def test_it_equals_a_naive_implementation(aggregate, aggregate_last):
    net = net_with(aggregate=aggregate, aggregate_last=aggregate_last)
    x, route = pixels(3 * (3 + P)), torch.arange(3 + P).repeat(3)
    logits, value = net(x, route)
    for i, row in enumerate(route.tolist()):
        expected = naive(net, x[i], row)
        torch.testing.assert_close(logits[i], expected[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(value[i], expected[1], atol=1e-5, rtol=1e-4)


def test_its_gradients_equal_a_naive_implementations():
    net = net_with()
    x, route = pixels(8), 3 + torch.arange(8)
    found = []
    for naively in (False, True):
        net.zero_grad()
        if naively:
            outputs = [naive(net, x[i], 3 + i) for i in range(8)]
            logits, value = (torch.stack(parts) for parts in zip(*outputs, strict=True))
        else:
            logits, value = net(x, route)
        (logits[:, :5].square().mean() + value.square().mean()).backward()
        found.append({n: p.grad for n, p in net.named_parameters()})
    for name, ours in found[0].items():
        theirs = found[1][name]
        assert (ours is None) is (theirs is None), name
        if ours is not None:
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("aggregate", ["sum", "mean"])
def test_a_batch_of_mixed_paths_equals_one_forward_a_path(aggregate):
    net = net_with(aggregate=aggregate)
    x = pixels(120)
    route = torch.randint(3 + P, (120,), generator=torch.Generator().manual_seed(2))
    mixed = net(x, route)
    assert len(set(route.tolist())) == 3 + P
    for row in range(3 + P):
        rows = (route == row).nonzero().squeeze(-1)
        alone = net(x[rows], route[rows])
        torch.testing.assert_close(mixed.logits[rows], alone.logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(mixed.value[rows], alone.value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("aggregate", ["sum", "mean"])
def test_convolutions_path_by_path_are_convolutions_all_at_once(aggregate, monkeypatch):
    net = net_with(aggregate=aggregate)
    x = pixels(64)
    route = torch.tensor([3, 9, 5, 5, 0, 4, 4, 14]).repeat(8)[torch.randperm(64)]
    convs, found = [], []
    conv = F.conv2d
    monkeypatch.setattr(
        F, "conv2d", lambda h, w, *rest: (convs.append(len(h)), conv(h, w, *rest))[1]
    )
    for grouped in (1, 1_000):
        monkeypatch.setattr(pathnet, "GROUPED", grouped)
        convs.clear()
        net.zero_grad()
        logits, value = net(x, route)
        (logits.clamp(min=-9).square().mean() + value.square().mean()).backward()
        found.append([logits, value, *(p.grad for p in net.parameters())])
        expected = [8, 8, 16, 16, 8, 8] if grouped == 1 else [64]
        assert convs == 2 * expected  # the first convolution, then the second
    for ours, theirs in zip(*found, strict=True):
        assert (ours is None) is (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("aggregate", ["sum", "mean"])
@pytest.mark.parametrize("alike", [False, True])
def test_wide_linear_modules_one_by_one_are_those_all_at_once(aggregate, alike, monkeypatch):
    net = net_with(aggregate=aggregate)
    x, route = pixels(24), torch.tensor([5] * 24 if alike else [3, 9, 5, 5, 0, 4] * 4)
    products, found = [], []
    linear = F.linear
    monkeypatch.setattr(
        F, "linear", lambda h, w, *rest: (products.append(len(w)), linear(h, w, *rest))[1]
    )
    for wide in (1, 1_000_000):
        monkeypatch.setattr(pathnet, "WIDE", wide)
        products.clear()
        net.zero_grad()
        logits, value = net(x, route)
        (logits.clamp(min=-9).square().mean() + value.square().mean()).backward()
        found.append([logits, value, *(p.grad for p in net.parameters())])
        assert (max(products) > 7) is (wide > 1)  # several modules of 7 units in one product
    for ours, theirs in zip(*found, strict=True):
        assert (ours is None) is (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("chain", [CHAIN, (Conv(4, 3), MaxPool(2))], ids=["deep", "ends in a pool"])
def test_what_a_cpu_does_path_by_path_and_module_by_module_changes_nothing(low, chain, monkeypatch):
    net = net_with(chain, aggregate="mean")
    x, route = pixels(64), torch.tensor([3, 9, 5, 5, 0, 4, 4, 14]).repeat(8)[torch.randperm(64)]
    found = []
    for grouped, wide in ((1, 1), (1_000, 1_000_000)):
        monkeypatch.setattr(pathnet, "GROUPED", grouped)
        monkeypatch.setattr(pathnet, "WIDE", wide)
        net.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
            logits, value = net(x, route)
        (logits.clamp(min=-9).square().mean() + value.square().mean()).backward()
        found.append([logits, value, *(p.grad for p in net.parameters())])
    for ours, theirs in zip(*found, strict=True):
        assert (ours is None) is (theirs is None)
        if ours is not None:
            apart = (ours - theirs).norm() / theirs.norm().clamp(min=1e-6)
            assert apart < (0.02 if low else 1e-5)


def test_its_features_are_what_each_layer_gives_to_the_next():
    net = net_with()
    x, route = pixels(6), torch.tensor([4, 5, 4, 3, 6, 7])
    found = net.features(x, route)  # of the first sample's path
    assert list(found) == [f"layers.{i}" for i in range(L)]
    shapes = [(4, 12, 12), (5, 3, 2), (7,), (6,)]
    assert [tuple(h.shape) for h in found.values()] == [(6, *shape) for shape in shapes]
    head = net.heads.policy[1]
    expected = net(x, torch.full((6,), 4)).logits[:, :5]
    torch.testing.assert_close(found["layers.3"] @ head.weight.T + head.bias, expected)


def test_one_path_computes_only_its_modules_and_two_compute_each_of_theirs_once(monkeypatch):
    net = net_with((Conv(4, 3), Linear(6)))
    widths: list[int] = []
    conv = F.conv2d
    monkeypatch.setattr(
        F, "conv2d", lambda h, w, *rest: (widths.append(len(w)), conv(h, w, *rest))[1]
    )
    net.set_population(torch.tensor([[[1, 0, 1, 0, 0]] * 2, [[0, 1, 1, 0, 0]] * 2]).bool())
    net(pixels(4), torch.full((4,), 3))
    net(pixels(4), torch.tensor([3, 4, 3, 4]))
    assert widths == [2 * 4, 3 * 4]


def test_routes_beyond_the_tasks_have_the_head_of_the_task_being_learned():
    net = net_with(learned=2)
    same = random_paths(1, seed=7)[0]
    net.set_path(TASKS[0], same)
    net.set_path(TASKS[2], same)
    net.set_population(same[None])
    assert net.add_row(same) == 4
    x = pixels(3).repeat(5, 1, 1, 1)
    logits, value = net(x, torch.arange(5).repeat_interleave(3))
    first, _, third, row, added = logits.split(3)
    torch.testing.assert_close(row, third)
    torch.testing.assert_close(added, third)
    assert not torch.equal(row[:, :2], first[:, :2])
    assert torch.all(row[:, 2:] == MASKED)
    assert value is not None


def test_rows_that_are_there_stay_when_one_is_added():
    net = net_with()
    before = net.rows.clone()
    assert net.add_row(~before[5]) == 3 + P
    assert torch.equal(net.rows[:-1], before)
    assert torch.equal(net.rows[-1], ~before[5])


def test_modules_that_no_sample_uses_have_no_gradient_and_are_moved_by_no_optimizer():
    net = net_with()
    used = torch.zeros(2, L, M, dtype=torch.bool)
    used[0, :, 0] = used[1, :, 1] = True
    net.set_population(used)
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], fused=True)
    for row in (3, 4):  # module 0 is moved first, and has momentum when 1 is learned
        before = {n: p.detach().clone() for n, p in net.named_parameters()}
        optimizer.zero_grad()
        net(pixels(16), torch.full((16,), row)).logits[:, :5].square().sum().backward()
        optimizer.step()
        for name, p in net.named_parameters():
            if name.startswith("layers."):
                own = name.split(".")[2] == str(row - 3)
                assert (p.grad is not None) is own, name
                assert torch.equal(before[name], p) is not own, name


@pytest.mark.parametrize("bf16", [False, True])
def test_frozen_modules_have_no_gradient_and_the_rest_the_same(bf16):
    net = net_with()
    frozen = random_paths(1, seed=1)[0]
    x, route = pixels(24), 3 + torch.arange(24) % P
    grads = []
    for _ in range(2):
        net.train_only(TASKS[1], modules=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = net(x, route).logits
        logits[:, :5].square().mean().backward()
        grads.append({n: p.grad for n, p in net.named_parameters()})
        net.freeze(frozen)
    for i in range(L):
        for m in range(M):
            for kind in ("weight", "bias"):
                name = f"layers.{i}.{m}.{kind}"
                if frozen[i, m]:
                    assert grads[1][name] is None
                else:
                    assert torch.equal(grads[0][name], grads[1][name])
    assert net.free == (M - frozen.sum(1)).tolist()


def test_freezing_is_a_union_and_renewing_draws_anew_what_is_not_frozen():
    net = net_with()
    masks = random_paths(3, seed=1)
    for mask in masks:
        net.freeze(mask)
    assert torch.equal(net.frozen, masks.any(0))
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    net.renew()
    first = {n: p.detach().clone() for n, p in net.named_parameters()}
    net.renew()
    for i in range(L):
        for m in range(M):
            name = f"layers.{i}.{m}.weight"
            now = net.get_parameter(name)
            drawn = [before[name], first[name], now]
            alike = [torch.equal(a, b) for a, b in ((drawn[0], drawn[1]), (drawn[1], drawn[2]))]
            assert alike == [bool(net.frozen[i, m])] * 2
    assert all(torch.equal(p, before[n]) for n, p in net.named_parameters() if "heads" in n)


def test_only_the_tasks_head_is_left_to_be_trained_with_what_is_not_frozen():
    net = net_with()
    net.freeze(random_paths(1, seed=1)[0])
    for modules in (True, False):
        net.train_only(TASKS[2], modules=modules)
        for name, p in net.named_parameters():
            kind, one, two, *_ = name.split(".")
            if kind == "heads":
                assert p.requires_grad is (two == "2"), name
            else:
                assert p.requires_grad is (modules and not net.frozen[int(one), int(two)]), name


@pytest.mark.parametrize("aggregate", ["sum", "mean"])
def test_sums_of_modules_start_as_large_as_a_plain_layer(aggregate):
    def second_moments(n: int, scaled: bool) -> float:
        torch.manual_seed(0)
        spec = NetSpec((200,), (Linear(200),), TASKS[:1])
        net = PathNet(spec, PathSettings(n, n, aggregate, aggregate, scaled))
        net.set_path(TASKS[0], torch.ones(1, n, dtype=torch.bool))
        heads = []
        net.heads.register_forward_pre_hook(lambda _, given: heads.append(given[0]))
        net(torch.randn(1_000, 200), torch.zeros(1_000, dtype=torch.long))
        return float(heads[0].detach().square().mean())

    plain = second_moments(1, scaled=True)
    assert plain == pytest.approx(1.0, rel=0.05)  # gain sqrt(2) makes up for ReLU
    assert second_moments(4, scaled=True) == pytest.approx(plain, rel=0.1)
    grown = 4 * (1 + 3 / math.pi) / (16 if aggregate == "mean" else 1)
    assert second_moments(4, scaled=False) == pytest.approx(grown * plain, rel=0.1)


def test_the_bodies_are_the_papers():
    net = PathNet(NetSpec((4, 84, 84), body("pathnet_atari"), TASKS))
    assert [tuple(layer[0].weight.shape) for layer in net.layers] == [
        *((8, 4, 8, 8), (8, 8, 4, 4), (8, 8, 3, 3)),
        (50, 8 * 7 * 7),
    ]
    assert [layer[0].stride for layer in net.layers[:3]] == [(4, 4), (2, 2), (1, 1)]
    assert {len(layer) for layer in net.layers} == {10}
    net = PathNet(NetSpec((1, 28, 28), body("pathnet_mlp"), TASKS))
    shapes = [tuple(layer[0].weight.shape) for layer in net.layers]
    assert shapes == [(20, 784), (20, 20), (20, 20)]


def test_a_task_without_a_path_cannot_be_played():
    net = PathNet(NetSpec((2, 12, 12), CHAIN, TASKS))
    net.set_path(TASKS[0], random_paths(1, modules=10)[0])
    assert [net.can_play(task) for task in TASKS] == [True, False, False]
    with pytest.raises(ClrlError, match="route 2 has no path yet: begin its task first"):
        net(pixels(3), torch.tensor([0, 2, 0]))


@pytest.mark.parametrize(
    ("chain", "message"),
    [((), "no layer with weights"), (("gru",), "layer 1 of the body is 'gru'")],
)
def test_a_body_without_a_chain_of_layers_is_refused(chain, message):
    with pytest.raises(ClrlError, match=message) as caught:
        PathNet(NetSpec((2, 12, 12), chain, TASKS))
    assert caught.value.exit_code == 2


def test_float64_and_pictures_without_a_value_head():
    net = net_with(has_value=False).double()
    x = torch.rand(6, 2, 12, 12, dtype=torch.float64)
    logits, value = net(x, 3 + torch.arange(6))
    assert logits.dtype == torch.float64
    assert value is None
