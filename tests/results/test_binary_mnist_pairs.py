"""The evidence on binary MNIST: what the fixed net is, and what is divided by what."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from clrl.envs.toy import toy_sequence
from clrl.methods.pathnet import PathNetMethod
from clrl.nets.pathnet import PathNet
from clrl.types import ClrlError, Linear, Net, NetSpec


@pytest.fixture(scope="module")
def script(load_script) -> ModuleType:
    return load_script("pathnet/binary_mnist.py")


@pytest.fixture(scope="module")
def tables(load_script) -> ModuleType:
    return load_script("pathnet/binary_table.py")


def rows_of(script: ModuleType, arm: str, pair: int, seed: int, *reached: Any) -> list[Any]:
    """A pair's two tasks, each with its generation to every threshold."""
    tasks = script.PAIRS[pair]
    shares = {"overlap": 0.5, "by_chance": 0.2} if arm == "pathnet" else {}
    return [
        {"arm": arm, "pair": " then ".join(tasks), "seed": seed, "place": place, "task": task}
        | {"population": 20, "init": "scaled"}
        | {"overlap": "", "by_chance": ""}
        | shares
        | {"0.98": low, "0.99": middle, "0.998": high}
        for place, (task, (low, middle, high)) in enumerate(zip(tasks, reached, strict=True), 1)
    ]


def cells(table: str) -> dict[tuple[str, ...], list[str]]:
    """The rest of each row by its net and threshold."""
    lines = [line[2:-2].split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {tuple(line[:2]): line[2:] for line in lines}


def test_a_second_task_is_beside_the_same_task_from_scratch(tables: ModuleType) -> None:
    rows = []
    # to 99.8 %: each task from scratch, by PathNet and by the fixed net; and as the second one
    scratch = {"1+3": (40, 100), "1+2": (80, 20), "4+5": (30, 50), "6+7": (60, 30)}
    second = {"1+3": (20, 50), "1+2": (40, 40), "4+5": (60, 25), "6+7": (30, 60)}
    for k, (first, then) in enumerate(tables.PAIRS):
        for arm, which in (("pathnet", 0), ("fixed", 1)):
            for seed in (0, 1):
                a, b = scratch[first][which], second[then][which]
                rows += rows_of(tables, arm, k, seed, (a / 2, a, a), (b / 4, b / 2, b))
    told = cells(tables.table(rows))
    # 1+2: 80 / 40, 1+3: 40 / 20, 6+7: 60 / 30, 4+5: 30 / 60: the fourth root of 2 * 2 * 2 / 2
    assert told["pathnet", "99.8 %"][0] == "8"
    assert told["pathnet", "99.8 %"][1].startswith("52, ")  # (40 + 80 + 30 + 60) / 4 = 52.5
    assert told["pathnet", "99.8 %"][2].endswith("(35)")  # of 20, 30, 40 and 60, twice each
    assert told["pathnet", "99.8 %"][3] == "0, 0"
    assert told["pathnet", "99.8 %"][4] == "1.41 (1.41 to 1.41)"
    # 20 / 40, 100 / 20, 30 / 30, 50 / 60: the fourth root of 25 / 12
    assert told["pathnet", "99.8 %"][5] == "1.20 (1.20 to 1.20)"
    # 50 / 20, 40 / 40, 25 / 60, 60 / 30: the fourth root of 25 / 12 again
    assert told["pathnet", "99.8 %"][6] == "1.20 (1.20 to 1.20)"
    # 20 / 40, 100 / 50, 30 / 60, 50 / 25
    assert told["fixed", "99.8 %"][4:] == ["1.00 (1.00 to 1.00)", "", ""]
    assert told["fixed", "99 %"][4] == "2.00 (2.00 to 2.00)"
    assert "speed-up 0.50 (0.50 to 0.50)" in tables.table(rows)  # 4+5 after 6+7, by PathNet
    assert "share 0.50 of their modules, by chance 0.20" in tables.table(rows)
    assert "Population: 20; initial weights: scaled." in tables.table(rows)


def test_what_is_not_reached_counts_as_the_limit_and_is_told(tables: ModuleType) -> None:
    rows = []
    for k in range(4):
        rows += rows_of(tables, "pathnet", k, 0, (10, 20, 250), (10, 20, ""))
        rows += rows_of(tables, "pathnet", k, 1, (10, 20, 250), (10, 20, 100))
    told = cells(tables.table(rows))
    assert told["pathnet", "99.8 %"][3] == "0, 4"
    assert told["pathnet", "99.8 %"][4].startswith("0.83 (")  # 250 / ((500 + 100) / 2)
    assert told["pathnet", "99.8 %"][5:] == ["", ""]  # the fixed net was not run
    assert told["pathnet", "99 %"][3] == "0, 0"


def test_a_task_is_learned_until_the_highest_threshold(script: ModuleType) -> None:
    class Learner:
        """Reaches 98 % in the fourth window, 99.8 % in the eighth."""

        task_step, ended = 0, 0

        def begin_task(self, task: object) -> None:
            self.method = self

        def update(self) -> None:
            self.task_step += 10

        def records(self) -> dict[str, float]:
            window = self.task_step // 50
            fitness = 0.5 if window < 4 else 0.985 if window < 8 else 1.0
            return {"generations": float(-(-window // 2)), "fitness_winner": fitness}

        def end_task(self) -> None:
            self.ended += 1

    learner = Learner()
    assert script.generations(learner, None) == {0.98: 2, 0.99: 4, 0.998: 4}
    assert (learner.task_step, learner.ended) == (400, 1)


def test_the_fixed_net_is_a_path_at_its_largest(script: ModuleType) -> None:
    tasks = toy_sequence(2).tasks
    spec = NetSpec((784,), (Linear(20),) * 3, tasks, has_value=False)
    net: Net = script.Watched().build(spec)
    assert isinstance(net, PathNet)
    paths = PathNetMethod(active=3, aggregate_last="mean").build(spec)
    assert isinstance(paths, PathNet)
    assert (net.settings.aggregate, net.settings.aggregate_last) == (
        paths.settings.aggregate,
        paths.settings.aggregate_last,
    )
    of_path = 0
    for i, n_inputs in enumerate((784, 20, 20)):
        module = next(iter(paths.layers[i]))
        assert sum(p.numel() for p in module.parameters()) == (n_inputs + 1) * 20
        of_path += 3 * (n_inputs + 1) * 20
    assert sum(p.numel() for p in net.body_parameters().values()) == of_path


def test_the_fixed_net_fine_tunes_all_of_it_and_counts_pairs_of_windows(script: ModuleType) -> None:
    from clrl.agents.learner import RunSettings
    from clrl.agents.supervised import Supervised

    tasks = toy_sequence(2).tasks
    learner = Supervised(batch_size=16, optimizer_name="sgd", learning_rate=0.05)
    spec = NetSpec((2, 12, 12), (Linear(20),) * 3, tasks, has_value=False)
    learner.setup(script.Watched(), spec, RunSettings(0, 150, 2, torch.device("cpu")))
    for task in tasks:
        before = {n: p.clone() for n, p in learner.net.body_parameters().items()}
        learner.begin_task(task)
        for _ in range(15):  # of ten batches: three windows
            learner.update()
        assert learner.method.records()["generations"] == 2
        learner.end_task()
        moved = [not torch.equal(p, before[n]) for n, p in learner.net.body_parameters().items()]
        assert all(moved)


def test_runs_are_of_the_settings_that_are_told(script: ModuleType, published: Any) -> None:
    published.mnist()
    method = script.method_of("pathnet", 20, "scaled")
    told = (method.modules, method.active, method.population, method.window, method.edges)
    assert told == (10, 3, 20, 50, "clamp")
    assert (method.aggregate, method.aggregate_last) == ("sum", "mean")
    assert (method.mutation, method.keep_frozen_active, method.init) == (None, False, "scaled")
    assert script.method_of("pathnet_on", 20, "scaled") == replace(method, keep_frozen_active=True)
    assert isinstance(script.method_of("fixed", 20, "scaled"), script.Watched)
    assert script.method_of("pathnet", 20, "plain") == replace(method, init="plain")
    plain = script.learner_of(script.method_of("fixed", 20, "plain"), script.PAIRS[0], 0)
    assert plain.net.settings.scaled is False
    plain.close()
    starts = set()
    for seed in (0, 1):
        for pair in script.PAIRS:
            number = len(script.PAIRS) * seed + script.PAIRS.index(pair)
            nets = []
            for arm in script.ARMS:
                learner = script.learner_of(script.method_of(arm, 20, "scaled"), pair, number)
                assert (learner.batch_size, learner.learning_rate) == (16, 0.05)
                assert isinstance(learner.optimizer_name, str) and learner.optimizer_name == "sgd"
                assert learner.momentum == 0
                assert [t.name for t in learner.net.spec.tasks] == [
                    f"mnist:{digits},noise=0.5" for digits in pair
                ]
                assert learner.net.n_layers == 3
                nets.append(learner.net)
                learner.close()
            paths, fixed, kept_on = nets
            weights = [list(net.parameters()) for net in (paths, kept_on)]
            assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
            assert (paths.settings.n_modules, fixed.settings.n_modules) == (10, 3)
            assert fixed.settings.n_active == paths.settings.n_active == 3
            assert fixed.settings.scaled is paths.settings.scaled is True
            starts.add(paths.layers[0][0].weight.detach().sum().item())
    assert len(starts) == 8  # every run begins with other weights


def test_intervals_draw_both_tasks_of_a_pair_together(tables: ModuleType) -> None:
    rows = []
    for k in range(4):
        for seed, n in enumerate((10, 40, 20, 80)):
            rows += rows_of(tables, "pathnet", k, seed, (n, n, n), (n, n, n))
    first, second = (tables.counts(rows, "pathnet", place, 0.998) for place in (1, 2))
    # a pair's second task is in the place of its own, its first in that of the pair before
    for k in range(4):
        assert (first[(k - 1) % 4].drawn == second[k].drawn).all()
    assert not (second[0].drawn == second[1].drawn).all()
    # each task's speed-up is that of two pairs' runs; all of them together cancel out
    assert tables.speed_up(first, second) == "1.00 (1.00 to 1.00)"
    low, high = tables.speed_up(first[:1], second[:1])[6:-1].split(" to ")
    assert float(low) < 0.7 and float(high) > 1.4


def test_pairs_are_four_and_every_task_is_first_once_and_second_once(tables: ModuleType) -> None:
    assert len({frozenset(pair) for pair in tables.PAIRS}) == 4
    assert sorted(first for first, _ in tables.PAIRS) == sorted(tables.TASKS)
    assert sorted(second for _, second in tables.PAIRS) == sorted(tables.TASKS)


def test_it_goes_on_where_it_was_stopped_and_refuses_other_settings(
    script: ModuleType, published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.mnist()
    monkeypatch.setattr(script, "LIMIT", 1)

    def run(population: int, *options: str) -> str:
        given = ["binary_mnist.py", str(tmp_path / "out"), "--seeds", "1"]
        monkeypatch.setattr("sys.argv", [*given, "--population", str(population), *options])
        script.main()
        return (tmp_path / "out/results.csv").read_text()

    whole = run(4)
    assert len(whole.splitlines()) == 1 + 4 * 3 * 2  # four pairs, three nets, two tasks
    for row in csv.DictReader(whole.splitlines()):
        assert row["task"] == row["pair"].split(" then ")[int(row["place"]) - 1]
    assert (tmp_path / "out/table.md").read_text().startswith("| net | training accuracy |")
    (tmp_path / "out/results.csv").write_text("".join(whole.splitlines(keepends=True)[:7]))
    assert run(4) == whole
    (tmp_path / "out/results.csv").write_text("".join(whole.splitlines(keepends=True)[:7]))
    assert run(4, "--jobs", "2") == whole
    with pytest.raises(ClrlError, match="has population 4, not 5: give another OUT"):
        run(5)
    with pytest.raises(ClrlError, match="has init scaled, not plain: give another OUT"):
        run(4, "--init", "plain")
    assert (tmp_path / "out/results.csv").read_text() == whole
