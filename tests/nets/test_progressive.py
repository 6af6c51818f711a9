"""The progressive net: against its equations written out, and what never touches what."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clrl.nets import progressive
from clrl.nets.bodies import body
from clrl.nets.plain import PlainNet
from clrl.nets.progressive import ColumnSettings, ProgressiveNet
from clrl.types import MASKED, ClrlError, Conv, LayerSpec, Linear, MaxPool, NetSpec, Task

TASKS = tuple(Task(k, f"task-{k}", n) for k, n in enumerate((3, 5, 2, 4, 3)))
BODIES: dict[str, tuple[tuple[int, ...], tuple[LayerSpec, ...]]] = {
    "maps": ((2, 15, 14), (Conv(4, 5, 2), Conv(5, (2, 3), 1), Linear(9), Linear(8))),
    "pools": ((2, 16, 16), (Conv(4, 3, padding=1), MaxPool(2), Conv(3, 3), MaxPool(2), Linear(6))),
    "maps only": ((1, 10, 10), (MaxPool(2), Conv(4, 2), Conv(3, 2), MaxPool(2))),
    "vectors": ((6,), (Linear(8), Linear(7), Linear(5))),
    "flattened": ((2, 5, 5), (Linear(8), Linear(7))),
}
SETTINGS = {
    "the paper's": ColumnSettings(scale_init=0.7),
    "no adapter": ColumnSettings(adapter=False),
    "no laterals into heads": ColumnSettings(lateral_heads=False),
    "wide": ColumnSettings(width=1.5),
}


def grown(
    name: str = "maps", n: int = 3, settings: ColumnSettings | None = None, **spec: bool
) -> ProgressiveNet:
    shape, chain = BODIES[name]
    net = ProgressiveNet(NetSpec(shape, chain, TASKS[:n], **spec), settings)
    for task in TASKS[:n]:
        net.add_task(task)
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() == 1:  # biases that are not 0, and alphas that differ
                p.add_(0.3 * torch.randn_like(p))
    for column in net.columns[:-1]:
        column.requires_grad_(False)
    return net


def inputs(net: ProgressiveNet, n: int = 6) -> Tensor:
    return torch.rand((n, *net.spec.input_shape))


def routes(k: int, n: int = 6) -> Tensor:
    return torch.full((n,), k)


# ------------------------------------------------------------- the equations, one by one (1.1)


class Equations:
    """A net's output from its weights by name: one sample, one column, one layer at a time."""

    def __init__(self, net: ProgressiveNet) -> None:
        self.w = {name: p.detach().double() for name, p in net.named_parameters()}
        self.chain = net.spec.body

    def below(self, x: Tensor, k: int, i: int) -> Tensor:
        """h_(i-1)^(k), pools applied: what reaches layer i (from 0) of column k."""
        weighted = [j for j, layer in enumerate(self.chain) if not isinstance(layer, MaxPool)]
        start = 0 if i == 0 else weighted[i - 1] + 1
        end = weighted[i] if i < len(weighted) else len(self.chain)
        h = x if i == 0 else self.hidden(x, k, i - 1)
        for pool in self.chain[start:end]:
            assert isinstance(pool, MaxPool)
            h = h.unfold(1, pool.size, pool.size).unfold(2, pool.size, pool.size).amax((3, 4))
        return h

    def hidden(self, x: Tensor, k: int, i: int) -> Tensor:
        layer = [layer for layer in self.chain if not isinstance(layer, MaxPool)][i]
        return self.sum(x, k, i, f"columns.{k}.body.{i}", f"columns.{k}.body.{i}", layer).clamp(0)

    def sum(self, x: Tensor, k: int, i: int, own: str, lateral: str, layer: object) -> Tensor:
        """W h + b + U f(V [alpha h^(<k)])."""
        total = self.apply(self.w[f"{own}.own.weight"], self.below(x, k, i), layer)
        bias = self.w[f"{own}.own.bias"]
        total = total + bias.reshape(-1, *[1] * (total.dim() - 1))
        if f"{own}.up.weight" not in self.w:
            return total
        earlier = [self.below(x, j, i) for j in range(k)]
        if f"{lateral}.lateral.alpha" in self.w:
            alpha = self.w[f"{lateral}.lateral.alpha"]
            scaled = torch.cat([a * h for a, h in zip(alpha, earlier, strict=True)])
            v, b = (self.w[f"{lateral}.lateral.down.{n}"] for n in ("weight", "bias"))
            z = torch.einsum("oc,c...->o...", v, scaled)
            z = (z + b.reshape(-1, *[1] * (z.dim() - 1))).clamp(0)
            return total + self.apply(self.w[f"{own}.up.weight"], z, layer)
        return total + self.apply(self.w[f"{own}.up.weight"], torch.cat(earlier), layer)

    @staticmethod
    def apply(weight: Tensor, h: Tensor, layer: object) -> Tensor:
        if isinstance(layer, Conv):
            return F.conv2d(h[None], weight, None, layer.stride, layer.padding)[0]
        return weight @ h.flatten()

    def __call__(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        last, heads = sum(not isinstance(c, MaxPool) for c in self.chain), f"columns.{k}.heads"
        outputs = [
            torch.stack([self.sum(s, k, last, f"{heads}.{o}", heads, None) for s in x.double()])
            for o in ("policy", "value")
        ]
        return outputs[0].float(), outputs[1].squeeze(1).float()


@pytest.mark.parametrize("stacked_rows", [0, 32])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", BODIES)
def test_it_is_the_equations(name, settings, stacked_rows, monkeypatch):
    monkeypatch.setattr(progressive, "STACKED_ROWS", stacked_rows)
    net = grown(name, 4, SETTINGS[settings])
    x, equations = inputs(net), Equations(net)
    for k, task in enumerate(TASKS[:4]):
        output = net(x, routes(k))
        logits, value = equations(x, k)
        torch.testing.assert_close(output.logits[:, : task.n_outputs], logits, atol=1e-5, rtol=1e-5)
        assert (output.logits[:, task.n_outputs :] == MASKED).all()
        torch.testing.assert_close(output.value, value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [6, 40])
@pytest.mark.parametrize("adapter", [True, False])
@pytest.mark.parametrize("name", BODIES)
def test_column_1_reaches_column_3_through_column_2(name, adapter, rows):
    net = grown(name, 3, ColumnSettings(adapter=adapter, scale_init=1.0))
    x = inputs(net, rows)
    _, second, third = net.columns
    with torch.no_grad():  # column 3 is made deaf to column 1 itself
        for stage in [*list(third.body)[1:], third.heads]:
            if adapter:
                stage.lateral.alpha[0] = 0
        for name_, up in third.named_parameters():
            if "up." in name_ and not adapter:
                up[:, : up.shape[1] // 2] = 0

        def value() -> Tensor:
            return net(x, routes(2, rows)).value

        before = value()
        net.columns[0].body[0].own.weight.mul_(-1.5)
        assert (value() - before).abs().max() > 1e-3
        for layer in list(second.body)[1:]:
            layer.up.weight.zero_()
        deaf = value()
        net.columns[0].body[0].own.weight.mul_(-1.5)
        assert torch.equal(value(), deaf)


@pytest.mark.parametrize("rows", [6, 40])
def test_with_one_layer_and_none_into_heads_there_is_nothing_to_read(rows):
    spec = NetSpec((6,), (Linear(8),), TASKS[:3])
    net = ProgressiveNet(spec, ColumnSettings(lateral_heads=False))
    for task in TASKS[:3]:
        net.add_task(task)
        net.train_only(task)
    x = inputs(net, rows)
    assert net.context(x, routes(2, rows)).shape == (rows, 0) == (rows, net.context_size(2))
    layer, heads = net.columns[2].body[0].own, net.columns[2].heads
    logits = heads.policy.own(layer(x).relu())
    torch.testing.assert_close(net(x, routes(2, rows)).logits[:, :2], logits)


@pytest.mark.parametrize("name", ["maps", "pools", "vectors"])
def test_with_zero_laterals_a_column_is_a_plain_net(name):
    net = grown(name, 3)
    plain = PlainNet(NetSpec(net.spec.input_shape, net.spec.body, TASKS[:3]))
    column = net.columns[2]
    with torch.no_grad():
        for up in (p for n, p in column.named_parameters() if "up." in n):
            up.zero_()
        plain_layers = [m for m in plain.trunk if hasattr(m, "weight")]
        for ours, theirs in zip(column.body, plain_layers, strict=True):
            theirs.load_state_dict(ours.own.state_dict())
        plain.heads.policy[2].load_state_dict(column.heads.policy.own.state_dict())
        plain.heads.value[2].load_state_dict(column.heads.value.own.state_dict())
    x = inputs(net)
    for ours, theirs in zip(net(x, routes(2)), plain(x, routes(2)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


# ------------------------------------------------------------------------------- how large it is


def pnn_column(k: int, actions: int) -> int:
    """Parameters of column k (from 1) by the paper's table, 84 x 84 x 4 -> 20 -> 9 -> 7 x 6."""
    own = 12 * (4 * 64 + 1) + 12 * (12 * 16 + 1) + 12 * (12 * 12 + 1) + 256 * (42 * 12 + 1)
    own += 257 * (actions + 1)
    if k == 1:
        return own
    alphas = 4 * (k - 1)
    v = 3 * (12 * 12 * (k - 1) + 12) + 256 * 256 * (k - 1) + 256
    u = 12 * 12 * 16 + 12 * 12 * 12 + 256 * 42 * 12 + 256 * (actions + 1)
    return own + alphas + v + u


@pytest.mark.parametrize("n", [1, 2, 5])
def test_as_many_parameters_as_the_papers_table_says(n):
    net = ProgressiveNet(NetSpec((4, 84, 84), body("pnn"), TASKS))
    for task in TASKS[:n]:
        net.add_task(task)
    expected = [pnn_column(k + 1, task.n_outputs) for k, task in enumerate(TASKS[:n])]
    assert [sum(p.numel() for p in column.parameters()) for column in net.columns] == expected
    assert sum(p.numel() for p in net.parameters()) == sum(expected)
    assert net.context_size(n - 1) == (n - 1) * (12 * 400 + 12 * 81 + 12 * 42 + 256)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", BODIES)
def test_the_size_told_beforehand_is_the_size_made(name, settings):
    net = grown(name, 4, SETTINGS[settings])
    empty = ProgressiveNet(net.spec, net.settings)
    for k, (column, task) in enumerate(zip(net.columns, TASKS, strict=False)):
        made = sum(p.numel() for p in column.parameters())
        assert empty.column_size(k, task.n_outputs) == made
        assert empty.context_size(k) == net.context(inputs(net, 2), routes(k, 2)).shape[1]


# --------------------------------------------------------------------------- context and routes


@pytest.mark.parametrize("rows", [6, 40])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", BODIES)
def test_with_its_context_it_computes_the_same_bit_for_bit(name, bf16, rows):
    net = grown(name, 3)
    net.train_only(TASKS[2])
    x, gradients = inputs(net, rows), []
    for given in (False, True):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            context = net.context(x, routes(2, rows)) if given else None
            output = net(x, routes(2, rows), context)
        (output.logits[:, :2].square().sum() + output.value.sum()).backward()
        gradients.append([output.logits, output.value])
        gradients[-1] += [p.grad.clone() for p in net.columns[2].parameters()]
    assert not context.requires_grad
    assert context.dtype == (torch.bfloat16 if bf16 else torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert all(g.isfinite().all() for g in gradients[0])


@pytest.mark.parametrize("rows", [6, 40])
def test_no_gradient_goes_through_a_context_even_to_weights_that_want_one(rows):
    net = grown("maps", 3)
    net.requires_grad_(True)
    assert not net.context(inputs(net, rows), routes(2, rows)).requires_grad


def test_under_bf16_it_is_near_to_float32():
    net = grown("maps", 3)
    x = inputs(net, 40)
    exact = net(x, routes(2, 40))
    with torch.autocast("cpu", torch.bfloat16):
        low = net(x, routes(2, 40))
    assert low.logits.dtype == low.value.dtype == torch.float32
    torch.testing.assert_close(low.value, exact.value, atol=0.05, rtol=0.05)


def test_the_first_column_has_no_context_and_neither_has_any_other_net():
    net, x = grown(), inputs(grown())
    assert net.context(x, routes(0)).shape == (6, 0)
    plain = PlainNet(net.spec)
    context = plain.context(x, routes(1))
    assert context.shape == (6, 0)
    assert torch.equal(plain(x, routes(1)).logits, plain(x, routes(1), context).logits)
    assert torch.equal(
        net(x, routes(0)).logits, net(x, routes(0), net.context(x, routes(0))).logits
    )


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("name", BODIES)
def test_a_batch_that_mixes_tasks_equals_one_pass_a_task(name, given):
    net, route = grown(name, 3), torch.tensor([2, 0, 1, 2, 1, 0, 2])
    x = inputs(net, 7)
    context = net.context(x, route) if given else None
    mixed = net(x, route, context)
    for k in range(3):
        rows = route == k
        alone = net(x[rows], route[rows])
        torch.testing.assert_close(mixed.logits[rows], alone.logits, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(mixed.value[rows], alone.value, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("rows", [6, 40])
def test_changed_weights_of_frozen_columns_are_noticed(rows):
    net, other = grown("maps", 3), grown("maps", 3)
    x = inputs(net, rows)
    net.context(x, routes(2, rows))  # copies are made
    net.load_state_dict(other.state_dict())
    assert torch.equal(net.context(x, routes(2, rows)), other.context(x, routes(2, rows)))
    wide = net.double().context(x.double(), routes(2, rows))
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.float(), other.context(x, routes(2, rows)))


@pytest.mark.parametrize("rows", [6, 40])
def test_what_is_trained_is_read_as_it_is_though_a_fused_step_leaves_no_trace(rows, monkeypatch):
    net = grown("maps", 3)
    x, route = inputs(net, rows), routes(2, rows)
    net.context(x, route)  # copies are made of what is frozen
    net.columns[0].requires_grad_(True)
    optimizer = torch.optim.Adam(net.columns[0].parameters(), lr=0.1, fused=True)
    net(x, routes(0, rows)).logits.sum().backward()
    optimizer.step()
    after = net.context(x, route)
    monkeypatch.setattr(progressive, "STACKED_ROWS", 0)
    torch.testing.assert_close(after, net.context(x, route))
    net.train_only(TASKS[2])
    monkeypatch.setattr(progressive, "STACKED_ROWS", 40)
    torch.testing.assert_close(net.context(x, route), after)


def test_frozen_columns_stay_in_the_mode_of_evaluation():
    net = grown("maps", 3).train()
    assert [column.training for column in net.columns] == [False, False, True]
    net.train_only(TASKS[1])  # a visit to a task before: its heads only
    assert [column.training for column in net.columns] == [False, True, False]
    assert not any(column.training for column in net.eval().columns)


# -------------------------------------------------------------------- activations laid open


class Moved(Equations):
    """The equations where h_i^(k) of one layer and column is something else."""

    def __init__(self, net: ProgressiveNet, i: int, k: int, move: Callable[[Tensor], Tensor]):
        super().__init__(net)
        self.place, self.move = (k, i), move

    def hidden(self, x: Tensor, k: int, i: int) -> Tensor:
        h = super().hidden(x, k, i)
        return self.move(h) if (k, i) == self.place else h


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", BODIES)
def test_traced_is_forward_and_shows_each_columns_true_activations(name, settings):
    net = grown(name, 3, SETTINGS[settings])
    x, equations, shown = inputs(net, 3), Equations(net), {}

    def keep(i: int, k: int, h: Tensor) -> Tensor:
        shown[i, k] = h
        return h

    for task in range(3):
        shown.clear()
        for ours, theirs in zip(
            net.traced(x, routes(task, 3), keep), net(x, routes(task, 3)), strict=True
        ):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
        layers = range(len(net.places) - 1)
        assert set(shown) == {(i, k) for i in layers for k in range(task + 1)}
    for (i, k), h in shown.items():
        expected = torch.stack([equations.hidden(sample, k, i) for sample in x.double()])
        torch.testing.assert_close(h.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("adapter", [True, False])
@pytest.mark.parametrize("name", BODIES)
def test_a_changed_activation_is_read_by_its_own_column_and_by_all_after_it(name, adapter):
    net = grown(name, 3, ColumnSettings(adapter=adapter, scale_init=0.7))
    x = inputs(net, 2)
    for place in [(i, k) for i in range(len(net.places) - 1) for k in range(3)]:
        changed = Moved(net, *place, lambda h: 2 * h + 0.5)
        output = net.traced(
            x, routes(2, 2), lambda i, k, h, at=place: 2 * h + 0.5 if (i, k) == at else h
        )
        logits, value = changed(x, 2)
        n = TASKS[2].n_outputs
        torch.testing.assert_close(output.logits[:, :n], logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(output.value, value, atol=1e-4, rtol=1e-4)
        assert (value - net(x, routes(2, 2)).value).abs().max() > 1e-3


def test_features_are_the_activations_of_the_first_samples_column():
    net = grown("maps", 3)
    x, equations = inputs(net, 3), Equations(net)
    features = net.features(x, torch.tensor([1, 2, 0]))
    assert list(features) == [f"columns.1.body.{i}" for i in range(4)]
    for i, h in enumerate(features.values()):
        expected = torch.stack([equations.hidden(sample, 1, i) for sample in x.double()])
        torch.testing.assert_close(h.double(), expected, atol=1e-5, rtol=1e-5)


def test_a_traced_pass_is_of_one_task():
    net = grown("maps", 3)
    with pytest.raises(ValueError, match="too many values"):
        net.traced(inputs(net, 2), torch.tensor([0, 1]), lambda i, k, h: h)


# ------------------------------------------------------------------------------ growth and freezing


def test_a_gradient_reaches_all_of_the_last_column_and_nothing_else():
    net = grown("maps", 3)
    net.train_only(TASKS[2])
    output = net(inputs(net, 40), routes(2, 40))
    (output.logits[:, :2].square().sum() + output.value.square().sum()).backward()
    for name, p in net.named_parameters():
        assert p.requires_grad is name.startswith("columns.2."), name
        if p.requires_grad:
            assert p.grad.abs().sum() > 0, name
        else:
            assert p.grad is None, name


def test_a_task_that_has_a_column_is_trained_where_no_other_reads_it():
    net = grown("maps", 3)
    net.add_task(TASKS[1])
    assert len(net.columns) == 3
    net.train_only(TASKS[1])
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in net.named_parameters() if n.startswith("columns.1.heads.")}
    x = inputs(net)
    before = [net(x, routes(k)) for k in range(3)]
    with torch.no_grad():
        for p in net.parameters():
            if p.requires_grad:
                p.add_(0.1)
    after = [net(x, routes(k)) for k in range(3)]
    same = [torch.equal(a.logits, b.logits) for a, b in zip(before, after, strict=True)]
    assert same == [True, False, True]
    net.train_only(TASKS[2])
    assert net.columns[2].body[0].own.weight.requires_grad


def test_it_plays_only_tasks_with_a_column():
    net = ProgressiveNet(NetSpec((6,), (Linear(4),), TASKS))
    net.add_task(TASKS[1])
    assert [net.can_play(task) for task in TASKS] == [False, True, False, False, False]
    with pytest.raises(ClrlError, match=r"'task-0' has no column yet: call add_task"):
        net(torch.rand(2, 6), routes(0, 2))


def test_a_new_column_can_start_as_a_copy_of_the_last_but_for_its_heads():
    for init, same in (("copy", True), ("fresh", False)):
        net = ProgressiveNet(
            NetSpec(*BODIES["maps"], (TASKS[0], Task(1, "b", 3))), ColumnSettings(init=init)
        )
        net.add_task(net.spec.tasks[0])
        net.add_task(net.spec.tasks[1])
        first, second = net.columns
        for a, b in zip(first.body, second.body, strict=True):
            assert torch.equal(a.own.weight, b.own.weight) is same
        assert not torch.equal(first.heads.policy.own.weight, second.heads.policy.own.weight)
    wider = ProgressiveNet(NetSpec(*BODIES["maps"], TASKS), ColumnSettings(init="copy", width=2.0))
    wider.add_task(TASKS[0])
    wider.add_task(TASKS[1])  # nothing has the same shape
    assert [layer.own.weight.shape[0] for layer in wider.columns[1].body] == [8, 10, 18, 16]


def test_alpha_starts_small_and_weights_orthogonal():
    net = ProgressiveNet(NetSpec(*BODIES["maps"], TASKS), ColumnSettings(scale_init=0.01))
    for task in TASKS[:3]:
        net.add_task(task)
    for name, p in net.columns[2].named_parameters():
        if name.endswith("alpha"):
            assert p.tolist() == pytest.approx([0.01, 0.01])
        elif name.endswith("bias"):
            assert not p.any()
        else:
            gain = math.sqrt(2)
            if name.startswith("heads.policy"):
                gain = 0.01
            elif name.startswith("heads.value"):
                gain = 1.0
            w = p.detach().flatten(1)
            w = w @ w.T if len(w) <= w.shape[1] else w.T @ w
            torch.testing.assert_close(w, gain**2 * torch.eye(len(w)), atol=1e-4, rtol=1e-3)


def test_a_shared_head_is_a_head_a_column_masked_to_what_is_legal():
    tasks = (Task(0, "a", 4, (0, 2)), Task(1, "b", 4, (1, 2, 3)))
    net = ProgressiveNet(NetSpec((6,), (Linear(4), Linear(4)), tasks, shared_head=True))
    for task in tasks:
        net.add_task(task)
    logits = net(torch.rand(2, 6), torch.tensor([0, 1])).logits
    assert [(row != MASKED).nonzero().flatten().tolist() for row in logits] == [[0, 2], [1, 2, 3]]


def test_without_a_value_there_is_none():
    net = grown("maps", 3, has_value=False)
    assert net(inputs(net), routes(2)).value is None
    assert net(inputs(net), torch.tensor([0, 1, 2, 0, 1, 2])).value is None
    assert net.column_size(2, 2) == sum(p.numel() for p in net.columns[2].parameters())


def test_body_parameters_are_all_below_the_heads_and_none_are_shared():
    net = grown("maps", 2)
    names = {n for n, _ in net.named_parameters()}
    assert names - set(net.body_parameters()) == {n for n in names if ".heads." in n}
    assert net.shared_parameters() == {}


@pytest.mark.parametrize(
    ("chain", "text"),
    [
        ((), "the body has no layer with weights: expected a chain"),
        ((MaxPool(2),), "the body has no layer with weights: expected a chain"),
        ((Conv(2, 3), "attention"), r"layer 2 of the body is 'attention'.*chain of Conv"),
        ((Conv(2, 3), Conv(2, 30)), r"layer 2 of the body, Conv.*does not fit"),
    ],
)
def test_a_body_that_is_no_chain_is_refused(chain, text):
    with pytest.raises(ClrlError, match=text) as caught:
        ProgressiveNet(NetSpec((2, 12, 12), chain, TASKS))
    assert caught.value.exit_code == 2
