"""PathNet in learners: paths that play whole games, what is kept, renewed, refused and resumed."""

from __future__ import annotations

import copy
import logging
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from clrl.agents.a2c import A2C
from clrl.agents.learner import Learner, RunSettings
from clrl.agents.ppo import PPO
from clrl.agents.statistics import Statistics, policy_terms
from clrl.agents.supervised import Supervised
from clrl.envs.toy import TIME_LIMIT, ToyTask, ToyVectorEnv, toy_sequence
from clrl.methods.evolution import active_modules
from clrl.methods.pathnet import PathNetMethod
from clrl.nets.bodies import body
from clrl.run import checkpoint
from clrl.run.config import load_config
from clrl.run.records import read_records
from clrl.run.train import resume, train
from clrl.types import ClrlError, Conv, Linear, NetSpec, TaskSequence

SEQUENCE = toy_sequence(3)
SMALL_PPO = {"n_envs": 4, "n_steps": 16, "batch_size": 32, "learning_rate": 3e-3}
LEARNERS: dict[str, Any] = {
    "ppo, adam": lambda: PPO(**SMALL_PPO),
    "a2c, rmsprop": lambda: A2C(n_envs=4, n_steps=16),
    "supervised, adam": lambda: Supervised(batch_size=16),
    "supervised, momentum": lambda: Supervised(
        batch_size=16, optimizer_name="sgd", momentum=0.9, learning_rate=2e-3
    ),
}
GAMES = ["ppo, adam", "a2c, rmsprop"]
BODY = (Conv(4, 4, 2), Linear(12))
SMALL = {"modules": 6, "active": 2, "population": 8, "window": 3, "mutation": 0.5}


def learner_with(
    agent: str = "ppo, adam", seed: int = 0, n_envs: int | None = None, **method: Any
) -> Learner:
    torch.manual_seed(seed)
    learner: Learner = LEARNERS[agent]()
    if n_envs is not None:
        learner.n_envs = n_envs
    has_value = learner.kind == "rl"
    spec = NetSpec((2, 12, 12), BODY, SEQUENCE.tasks, has_value=has_value)
    settings = RunSettings(seed, 640, 3, torch.device("cpu"))
    learner.setup(PathNetMethod(**(SMALL | method)), spec, settings)
    return learner


def learn(learner: Learner, task: int, updates: int = 4) -> None:
    learner.begin_task(SEQUENCE.tasks[task])
    for _ in range(updates):
        learner.update()
    learner.end_task()


def outputs(learner: Learner, task: int) -> list[Tensor]:
    found = []
    for n in (8, 64):
        draw = torch.Generator().manual_seed(1)
        x = torch.randint(0, 256, (n, 2, 12, 12), dtype=torch.uint8, generator=draw)
        with torch.no_grad():
            output = learner.net(x, torch.full((n,), task))
        found += [output.logits] if output.value is None else list(output)
    return found


def all_equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def module_weights(learner: Learner) -> dict[tuple[int, int], Tensor]:
    return {
        (i, m): torch.cat([module.weight.detach().flatten(), module.bias.detach()])
        for i, layer in enumerate(learner.net.layers)
        for m, module in enumerate(layer)
    }


# -------------------------------------------------------------------------- what tasks leave behind


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("agent", LEARNERS)
def test_earlier_tasks_outputs_stay_the_same_bit_for_bit(agent, keep):
    learner = learner_with(agent, keep_frozen_active=keep)
    kept = []
    for task in range(3):
        learn(learner, task)
        kept.append(outputs(learner, task))
        for earlier in range(task + 1):
            assert all_equal(outputs(learner, earlier), kept[earlier]), earlier
    learn(learner, 0)  # its head learns; the others see nothing of it
    assert not all_equal(outputs(learner, 0), kept[0])
    assert all_equal(outputs(learner, 1) + outputs(learner, 2), kept[1] + kept[2])


@pytest.mark.parametrize("agent", LEARNERS)
def test_frozen_modules_stay_bit_for_bit_and_are_in_no_optimizer(agent):
    learner = learner_with(agent, keep_frozen_active=True)
    learn(learner, 0)
    for task in (1, 2):
        frozen = learner.net.frozen.clone()
        before = module_weights(learner)
        learner.begin_task(SEQUENCE.tasks[task])
        held = {id(p) for group in learner.optimizer.param_groups for p in group["params"]}
        trained = set()
        for _ in range(4):
            learner.update()
            trained |= {n for n, p in learner.net.named_parameters() if p.grad is not None}
        learner.end_task()
        for (i, m), w in module_weights(learner).items():
            module = learner.net.layers[i][m]
            if frozen[i, m]:
                assert torch.equal(w, before[i, m])
                assert not {id(module.weight), id(module.bias)} & held
                assert f"layers.{i}.{m}.weight" not in trained
            else:
                assert not torch.equal(w, before[i, m])  # learned, or at least drawn anew
        assert any(name.startswith("layers.") for name in trained)


@pytest.mark.parametrize("agent", ["ppo, adam", "supervised, adam"])
def test_what_is_frozen_is_the_union_of_the_winners_over_three_tasks(agent):
    learner = learner_with(agent, modules=20)
    union = torch.zeros(2, 20, dtype=torch.bool)
    for task in range(3):
        learn(learner, task, updates=6)
        winner = learner.method.state_dict()["winners"][task + 1]
        own = active_modules(winner, 20)
        path = own | union if agent == "ppo, adam" else own
        assert torch.equal(learner.net.paths[task], path)
        union |= own
        assert torch.equal(learner.net.frozen, union)
        state = learner.method.state_dict()
        assert torch.equal(state["frozen_after"][task + 1], union)
        assert torch.equal(state["paths"][task + 1], learner.net.paths[task])
        assert state["keeps"] is (agent == "ppo, adam")
    assert int(union.sum()) > 8  # two tasks' paths have at most 8 modules: the third's are in it
    assert learner.net.free == (20 - union.sum(1)).tolist()


def test_all_that_is_not_frozen_is_drawn_afresh_for_the_next_task():
    learner = learner_with()
    initial = module_weights(learner)
    learn(learner, 0)
    learned, population = module_weights(learner), learner.method.state_dict()["population"]
    learner.begin_task(SEQUENCE.tasks[1])
    for place, w in module_weights(learner).items():
        frozen = bool(learner.net.frozen[place])
        assert torch.equal(w, learned[place]) is frozen
        assert not torch.equal(w, initial[place])
    assert not learner.optimizer.state
    again = learner.method.state_dict()["population"]
    assert not torch.equal(population["genotypes"], again["genotypes"])
    assert bool(again["fitness"].isnan().all())
    assert bool(again["margins"].isnan().all())


@pytest.mark.parametrize(("agent", "kept"), [("ppo, adam", True), ("supervised, adam", False)])
def test_frozen_modules_are_in_all_later_paths_of_games_and_not_of_pictures(agent, kept):
    for choice, expected in ((None, kept), (True, True), (False, False)):
        learner = learner_with(agent, keep_frozen_active=choice)
        learn(learner, 0)
        learner.begin_task(SEQUENCE.tasks[1])
        rows = learner.net.rows[3:]
        assert len(rows) == 8
        assert bool((rows | ~learner.net.frozen).all()) is expected
        if not expected:  # at most N distinct modules a layer
            assert int(rows.sum(-1).max()) <= 2


def test_layers_with_fewer_free_modules_than_a_path_has_are_warned_of_before_the_task(caplog):
    learner = learner_with(modules=4, active=2, keep_frozen_active=False)
    taken = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]).bool()
    with caplog.at_level(logging.WARNING):
        learner.begin_task(SEQUENCE.tasks[0])
        learner.end_task()
        learner.net.frozen.copy_(taken & False)
        learner.net.freeze(torch.tensor([[1, 1, 0, 0], [0, 1, 0, 0]]).bool())
        learner.begin_task(SEQUENCE.tasks[1])  # as many are free as a path has
        learner.end_task()
        assert not caplog.records
        learner.net.frozen.copy_(taken)
        learner.begin_task(SEQUENCE.tasks[2])
    (record,) = caplog.records
    message = "fewer modules are free than method.active, 2, for toy-c: 0 in layer 1, 1 in layer 2"
    assert record.getMessage().startswith(message)
    assert "only its heads" not in record.getMessage()
    learner.update()  # it goes on with what there is
    assert learner.method.records()["free_modules_1"] == 0.0


def test_where_no_module_is_free_it_is_told_that_heads_alone_learn_and_they_do(caplog):
    learner = learner_with(modules=4, active=2)
    learn(learner, 0)
    learner.net.freeze(torch.ones(2, 4, dtype=torch.bool))
    with caplog.at_level(logging.WARNING):
        learner.begin_task(SEQUENCE.tasks[1])
    assert "0 in layer 1, 0 in layer 2, of 2 layers" in caplog.records[-1].getMessage()
    assert "with none at all only its heads learn" in caplog.records[-1].getMessage()
    before = {n: p.clone() for n, p in learner.net.named_parameters()}
    learner.update()
    moved = {n for n, p in learner.net.named_parameters() if not torch.equal(p, before[n])}
    assert {n.split(".")[0] for n in moved} == {"heads"}


@pytest.mark.parametrize(
    ("agent", "settings", "expected"),
    [
        ("ppo, adam", {}, "mean"),
        ("ppo, adam", {"keep_frozen_active": False}, "sum"),
        ("ppo, adam", {"aggregate": "sum", "aggregate_last": "sum"}, "sum"),
        ("supervised, adam", {}, "sum"),
        ("supervised, adam", {"keep_frozen_active": True}, "mean"),
    ],
)
def test_modules_are_averaged_where_frozen_ones_stay_active(agent, settings, expected):
    made = learner_with(agent, **settings).net.settings
    assert (made.aggregate, made.aggregate_last) == (expected, expected)


def test_of_games_answers_stay_as_large_when_frozen_modules_add_up():
    def last_layers(**settings: Any) -> list[float]:
        torch.manual_seed(0)
        tasks = toy_sequence(4).tasks
        method = PathNetMethod(population=4, **settings)
        net = method.build(NetSpec((4, 84, 84), body("pathnet_atari"), tasks))
        x = torch.randint(0, 256, (8, 4, 84, 84), dtype=torch.uint8)
        sizes = []
        for task in tasks:
            method.begin_task(task)
            method.end_task(task, iter(()))
            with torch.no_grad():
                h = net.features(x, torch.full((8,), task.id))["layers.3"]
            sizes.append(float(h.square().mean().sqrt()))
        return sizes

    sizes = last_layers()
    assert max(sizes[:3]) < 3 * min(sizes[:3]) and max(sizes) < 3 * min(sizes)
    sums = last_layers(aggregate="sum", aggregate_last="sum")  # the paper's
    assert sums[3] > 10 * sums[0]


def test_another_visit_trains_the_head_alone():
    learner = learner_with()
    learn(learner, 0)
    learn(learner, 1)
    before, path = module_weights(learner), learner.net.paths[0].clone()
    learner.begin_task(SEQUENCE.tasks[0])
    head = learner.net.heads.policy[0].weight.detach().clone()
    batch = learner.collect(learner._route(training=True))
    assert set(batch.route.flatten().tolist()) == {0}
    learner.update()
    learner.end_task()
    assert not torch.equal(head, learner.net.heads.policy[0].weight)
    assert all(torch.equal(w, before[place]) for place, w in module_weights(learner).items())
    assert torch.equal(path, learner.net.paths[0])
    learn(learner, 2)  # and evolution goes on after it
    assert set(learner.method.state_dict()["winners"]) == {1, 2, 4}


# ---------------------------------------------------------------------------------------- games


class Watched(PathNetMethod):
    """Writes down what each environment played, by step, and what was told of finished games."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.told: list[tuple[int, float]] = []
        self.played: list[Tensor] = []
        self.scores: list[Tensor] = []

    def route(self, task, n, *, training, finished=()):
        self.told += [(e.env, e.return_) for e in finished]
        return super().route(task, n, training=training, finished=finished)

    def observe(self, batch, progress):
        super().observe(batch, progress)
        if batch.score.dim() == 2:
            self.played.append(self._paths.rows[batch.route])
            self.scores.append(batch.score)


@pytest.mark.parametrize("population", [4, 9])
@pytest.mark.parametrize("agent", GAMES)
def test_a_path_changes_only_where_a_game_ends_also_within_a_rollout(agent, population):
    torch.manual_seed(0)
    learner = LEARNERS[agent]()
    spec = NetSpec((2, 12, 12), BODY, SEQUENCE.tasks)
    method = Watched(**(SMALL | {"population": population, "episodes": 2}))
    learner.setup(method, spec, RunSettings(0, 640, 3, torch.device("cpu")))
    learner.begin_task(SEQUENCE.tasks[0])
    for _ in range(20):
        learner.update()
    played = torch.cat(method.played).flatten(2)  # (T, N, L * M)
    ended = ~torch.cat(method.scores).isnan()
    changed = (played[1:] != played[:-1]).any(-1)
    assert not bool((changed & ~ended[:-1]).any())
    within = torch.ones(len(changed), dtype=torch.bool)
    within[learner.n_steps - 1 :: learner.n_steps] = False  # between two rollouts
    assert int(changed[within].sum()) > 5
    # fitness: of each environment's games in turn, two belong to an evaluation
    scores = torch.cat(method.scores)
    for env in range(4):
        own = scores[:, env][~scores[:, env].isnan()].tolist()
        assert [r for e, r in method.told if e == env] == own
    pairs = [
        (scores[:, e][~scores[:, e].isnan()][: 2 * k], k)
        for e in range(4)
        for k in [int(ended[:, e].sum()) // 2]
    ]
    means = sorted(float(x) for own, k in pairs for x in own.reshape(k, 2).mean(1))
    column = list(method.state_dict()["history_columns"]).index("measured")
    found = sorted(method.state_dict()["history"][:, column].tolist())
    assert found == pytest.approx(means)


@pytest.mark.parametrize("agent", GAMES)
def test_before_the_first_update_the_ratio_is_1_for_every_path(agent):
    learner = learner_with(agent, population=4)
    for task in (0, 1):
        learner.begin_task(SEQUENCE.tasks[task])
        for _ in range(3):
            learner.update()
        batch = learner.collect(learner._route(training=True))
        assert len(set(batch.route.flatten().tolist())) > 4  # some have changed on the way
        with torch.no_grad():
            for t in range(learner.n_steps):  # as the environments met it: bit for bit
                logits = learner.net(batch.x[t], batch.route[t]).logits
                assert torch.equal(policy_terms(logits, batch.action[t])[0], batch.logp[t])
            flat = batch.flat()
            for row in sorted(set(flat.route.tolist())):  # as minibatches do: to rounding
                one = flat[(flat.route == row).nonzero().squeeze(-1)]
                logp, _ = policy_terms(learner.net(one.x, one.route).logits, one.action)
                assert float(((logp - one.logp).exp() - 1).abs().max()) < 1e-6
            if agent.startswith("ppo"):  # and as its loss meets them, all paths in a minibatch
                learner._statistics = Statistics()
                learner.loss(flat)
                found = learner._statistics.means()
                assert abs(found["train/approx_kl"]) < 1e-9
                assert found["train/clip_fraction"] == 0.0
            wrong = learner.net(flat.x, flat.route.roll(1)).logits
            assert float((policy_terms(wrong, flat.action)[0] - flat.logp).abs().max()) > 1e-4
        learner.end_task()


def test_evaluations_and_the_final_policy_play_the_best_path():
    learner = learner_with(population=4)
    learner.begin_task(SEQUENCE.tasks[0])
    for _ in range(6):
        learner.update()
        pool = learner.method.state_dict()["population"]
        margins = [[x for x in row if x == x] for row in pool["margins"].tolist()]  # known ones
        keys = [(sum(xs) / (len(xs) + 2), pool["when"][g]) for g, xs in enumerate(margins) if xs]
        known = [g for g, xs in enumerate(margins) if xs]
        best = active_modules(pool["genotypes"][known[keys.index(max(keys))]], 6)
        assert torch.equal(learner.net.paths[0], best)
    assert learner.method.route(SEQUENCE.tasks[0], 3, training=False).tolist() == [0, 0, 0]
    data = learner._fresh_data()
    for _ in range(3):
        assert set(next(data).route.tolist()) == {0}


class Generous(ToyVectorEnv):
    """Pays 5 where the toy game pays 1, and writes down what its games brought."""

    brought: ClassVar[list[float]] = []

    def recv(self):
        result = super().recv()
        episodes = [e._replace(return_=5 * e.return_) for e in result.episodes]
        self.brought.extend(e.return_ for e in episodes)
        return result._replace(reward=5 * result.reward, episodes=episodes)


class GenerousTask(ToyTask):
    def open(self, n_envs, seed, *, training, threads=0):
        return Generous(n_envs, self.n_outputs, self.answers, seed)


def test_fitness_is_the_raw_return_where_rewards_are_clipped():
    Generous.brought.clear()
    tasks = (GenerousTask(0, "generous", 3),)
    learner = LEARNERS["ppo, adam"]()
    settings = RunSettings(0, 640, 1, torch.device("cpu"), clip_rewards=True)
    learner.setup(PathNetMethod(**SMALL), NetSpec((2, 12, 12), BODY, tasks), settings)
    learner.begin_task(tasks[0])
    for _ in range(6):
        learner.update()
    state = learner.method.state_dict()
    found = state["history"][:, state["history_columns"].index("measured")].tolist()
    assert max(Generous.brought) > 24  # steps of a game: more than a clipped one can bring
    assert len(found) > 10
    assert found == Generous.brought
    fitness = state["population"]["fitness"]
    assert set(fitness[~fitness.isnan()].tolist()) <= set(Generous.brought)


def test_a_population_is_as_many_as_environments_or_of_one_path_that_stays():
    learner = learner_with(population=None)
    learn(learner, 0, updates=1)
    assert len(learner.method.state_dict()["population"]["genotypes"]) == 4
    learner.begin_task(SEQUENCE.tasks[1])
    assert len(learner.net.rows) == 3 + 4
    pictures = learner_with("supervised, adam", population=None)
    assert len(pictures.method.state_dict()["population"]["genotypes"]) == 64

    learner = learner_with(population=1, mutation=1.0)
    learner.begin_task(SEQUENCE.tasks[0])
    path, before = learner.net.rows[3].clone(), module_weights(learner)
    for _ in range(3):
        learner.update()
        assert torch.equal(learner.net.rows, torch.stack([path, *learner.net.rows[1:3], path]))
    assert learner.method.records()["generations"] > 3
    learner.end_task()
    assert torch.equal(learner.net.frozen, path)
    moved = [
        place for place, w in module_weights(learner).items() if not torch.equal(w, before[place])
    ]
    assert set(moved) == {(int(i), int(m)) for i, m in path.nonzero()}


def test_settings_reach_the_algorithm():
    """Of a net with L = 2: the paper's 1 / (N L), games that tell the best path, rivals."""
    plain = learner_with(mutation=None, active=4).method
    assert (plain._pool.rate, plain._pool.edges) == (1 / 8, "clamp")
    assert plain._tournaments.n_rivals == 3
    assert learner_with(mutation=None, active=2).method._pool.rate == 1 / 4
    other = learner_with(mutation=0.25, edges="wrap", tournament=5, episodes=2).method
    assert (other._pool.rate, other._pool.edges) == (0.25, "wrap")
    assert (other._tournaments.n_rivals, other._tournaments.episodes) == (5, 2)
    for episodes, evaluations in ((1, 5), (2, 3), (10, 1)):  # of five games, at least
        pool = learner_with(episodes=episodes).method._pool
        assert pool.margins.shape == (8, evaluations)
    pictures = learner_with("supervised, adam", mutation=None, window=9).method
    assert (pictures._tournaments.window, pictures._pool.margins.shape[1]) == (9, 1)
    assert pictures._pool.rate == 1 / 4


def test_an_older_versions_evolution_is_refused_in_a_line():
    learner = learner_with()
    learn(learner, 0)
    state = learner.state_dict()
    state["method"]["history_columns"] = state["method"]["history_columns"][:-1]
    with pytest.raises(ClrlError, match=r"of an older version\): undo the change or start another"):
        learner_with().load_state_dict(state, SEQUENCE.tasks)


@pytest.mark.parametrize("keep", [True, False])
def test_records_tell_what_evolution_did_and_what_can_still_learn(keep):
    learner = learner_with(keep_frozen_active=keep, tournament=1)
    learner.begin_task(SEQUENCE.tasks[0])
    assert learner.method.records()["trainable_share"] == 1
    learner.update()
    before = learner.method.state_dict()["population"]["genotypes"].clone()
    rows = len(learner.method.state_dict()["history"])
    while torch.equal(learner.method.state_dict()["population"]["genotypes"], before):
        learner.update()
    state = learner.method.state_dict()
    history = dict(zip(state["history_columns"], state["history"].T.tolist(), strict=True))
    assert sum(history["overwritten"][rows:]) >= 1
    records = learner.method.records()
    assert records["generations"] == len(history["overwritten"])
    assert records["overwritten"] == sum(history["overwritten"]) < records["generations"]
    learner.end_task()
    learner.begin_task(SEQUENCE.tasks[1])
    frozen, n_named, n_free = learner.net.frozen, 0, 0
    for genotype in learner.method.state_dict()["population"]["genotypes"].tolist():
        for layer, elements in enumerate(genotype):
            n_named += len(set(elements))
            n_free += sum(not frozen[layer, m] for m in set(elements))
    assert learner.method.records()["trainable_share"] == pytest.approx(n_free / n_named)
    assert learner.method.records()["overwritten"] == 0
    learner.update()
    learner.end_task()
    learner.begin_task(SEQUENCE.tasks[0])  # again: its head learns, and nothing evolves
    for _ in range(2):
        learner.update()
        records = learner.method.records()
        assert records["trainable_share"] == records["generations"] == 0
        assert "evaluated" not in records and "fitness_best" not in records
    learner.end_task()
    assert learner.method.records()["trainable_share"] == 0


# ------------------------------------------------------------------------------------- pictures


def test_of_the_fittest_few_the_one_that_answers_best_at_the_end_is_frozen():
    learner = learner_with("supervised, adam", window=6)
    task = SEQUENCE.tasks[0]
    learner.begin_task(task)
    for _ in range(2):
        learner.update()
    pool = learner.method._pool
    batches = list(islice(learner._training_set(), 6))
    right = []
    for genotype in pool.genotypes:
        net = copy.deepcopy(learner.net)
        net.set_path(task, active_modules(genotype, 6))
        with torch.no_grad():
            answers = [net(b.x, torch.zeros_like(b.route)).logits.argmax(-1) for b in batches]
        found = [float((a == b.label).sum()) for a, b in zip(answers, batches, strict=True)]
        right.append(sum(found))
    assert len(set(right)) > 4
    order = sorted(range(8), key=right.__getitem__)  # now the worst are thought the fittest
    for worth, genotype in enumerate(reversed(order)):
        pool.evaluated([(genotype, float(worth))])
    expected = max(order[:5], key=right.__getitem__)
    assert expected != pool.fittest()[0]
    assert right[expected] > max(right[g] for g in order[:4])
    learner.end_task()
    assert torch.equal(learner.method.state_dict()["winners"][1], pool.genotypes[expected])
    assert torch.equal(learner.net.paths[0], active_modules(pool.genotypes[expected], 6))
    assert torch.equal(learner.net.frozen, learner.net.paths[0])


def test_pictures_are_learned_by_one_path_for_a_window_each():
    learner = learner_with("supervised, adam", window=7)
    learner.begin_task(SEQUENCE.tasks[0])
    seen = []
    observe = learner.method.observe

    def watching(batch, progress):
        assert len(set(batch.route.tolist())) == 1
        path = learner.net.rows[int(batch.route[0])].clone()
        seen.append((path, float(batch.score.mean())))
        observe(batch, progress)

    learner.method.observe = watching
    for _ in range(7):  # 70 batches: ten windows, five generations
        learner.update()
    state = learner.method.state_dict()
    history = dict(zip(state["history_columns"], state["history"].T.tolist(), strict=True))
    assert history["seen"] == [14, 28, 42, 56, 70]
    assert history["visit"] == [1.0] * 5
    for generation in range(5):
        windows = [seen[7 * k : 7 * (k + 1)] for k in (2 * generation, 2 * generation + 1)]
        assert all(torch.equal(path, w[0][0]) for w in windows for path, _ in w)
        worth = [sum(score for _, score in w) / 7 for w in windows]
        assert history["winner"][generation] == pytest.approx(max(worth))
        assert history["measured"][generation] == pytest.approx(sum(worth) / 2)
    records = learner.method.records()
    assert records["generations"] == 5
    assert records["fitness_winner"] == history["winner"][-1]
    last: dict[bytes, float] = {}  # of each path its last window; one that lost was overwritten
    for k in range(0, 70, 7):
        last[bytes(seen[k][0].flatten().tolist())] = sum(score for _, score in seen[k : k + 7]) / 7
    assert records["fitness_best"] == pytest.approx(max(last.values()))


# ------------------------------------------------------------------------- the same, and resumed


@pytest.mark.parametrize("agent", ["ppo, adam", "supervised, adam"])
def test_the_same_seed_gives_the_same_evolution_and_another_one_another(agent):
    def state(seed: int) -> dict[str, Any]:
        learner = learner_with(agent, seed)
        learn(learner, 0)
        return learner.method.state_dict()

    first, again, other = state(0), state(0), state(1)
    assert torch.equal(first["history"], again["history"])
    assert len(first["history"])
    assert torch.equal(first["winners"][1], again["winners"][1])
    assert torch.equal(first["population"]["genotypes"], again["population"]["genotypes"])
    assert not torch.equal(first["population"]["genotypes"], other["population"]["genotypes"])


@pytest.mark.parametrize("agent", LEARNERS)
@pytest.mark.parametrize("population", [8, None, 1])
def test_a_state_taken_in_a_tournament_goes_on_the_same(agent, population):
    settings = {"episodes": 3, "window": 7, "population": population}
    first = learner_with(agent, **settings)
    learn(first, 0)
    first.begin_task(SEQUENCE.tasks[1])
    for _ in range(3):
        first.update()
    state = first.method.state_dict()["tournaments"]
    assert any(state["games"]) if "games" in state else state["batches"] % 7
    second = learner_with(agent, **settings)
    second.load_state_dict(copy.deepcopy(first.state_dict()), SEQUENCE.tasks)
    for _ in range(6):
        assert first.update() == second.update()
    first.end_task()
    second.end_task()
    ours, theirs = first.method.state_dict(), second.method.state_dict()
    assert torch.equal(ours["history"], theirs["history"])
    assert torch.equal(ours["winners"][2], theirs["winners"][2])
    for (name, a), b in zip(
        first.net.state_dict().items(), second.net.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("n_envs", [3, 6])
def test_resumed_with_another_number_of_environments_it_keeps_its_population(n_envs):
    """An edited `agent.n_envs` costs the games that were being played, no more."""
    settings = {"population": None, "tournament": 2}
    first = learner_with(**settings)
    first.begin_task(SEQUENCE.tasks[0])
    for _ in range(6):
        first.update()
    known = first.method.state_dict()["population"]
    assert not known["fitness"].isnan().all()
    second = learner_with(**settings, n_envs=n_envs)
    second.load_state_dict(copy.deepcopy(first.state_dict()), SEQUENCE.tasks)
    routes = second.method.route(SEQUENCE.tasks[0], n_envs, training=True)
    assert len(set(routes.tolist())) == n_envs
    kept = second.method.state_dict()["population"]
    assert len(kept["genotypes"]) == max(4, n_envs)
    for name, value in known.items():
        assert torch.equal(kept[name][:4].nan_to_num(-1), value.nan_to_num(-1)), name
    assert kept["fitness"][4:].isnan().all()
    assert kept["margins"][4:].isnan().all()
    assert torch.equal(second.net.paths, first.net.paths)
    for _ in range(3):
        second.update()
    third = learner_with(**settings, n_envs=n_envs)
    third.load_state_dict(copy.deepcopy(second.state_dict()), SEQUENCE.tasks)
    assert third.update() == second.update()
    second.end_task()
    second.begin_task(SEQUENCE.tasks[1])
    second.update()  # a new population is as many as there are environments
    assert len(second.method.state_dict()["population"]["genotypes"]) == n_envs


@pytest.mark.parametrize(
    ("agent", "name"), [("supervised, adam", "window"), (GAMES[0], "episodes")]
)
@pytest.mark.parametrize("other", [2, 30])
def test_resumed_with_evaluations_of_another_length_the_one_begun_begins_anew(agent, name, other):
    """A total of twelve batches, or games, is not divided by two."""
    first = learner_with(agent, **{name: 12})
    first.begin_task(SEQUENCE.tasks[0])
    half = {"window": "batches", "episodes": "games"}[name]
    for _ in range(40):
        first.update()
        state = first.method.state_dict()
        if np.any(state["tournaments"][half]) and len(state["history"]):
            break
    assert np.any(state["tournaments"]["total"])
    second = learner_with(agent, **{name: other})
    second.load_state_dict(copy.deepcopy(first.state_dict()), SEQUENCE.tasks)
    state = second.method.state_dict()
    assert not np.any(state["tournaments"][half])
    assert not np.any(state["tournaments"]["total"])
    ours, theirs = (x.method.state_dict()["population"] for x in (second, first))
    assert torch.equal(ours["genotypes"], theirs["genotypes"])
    # of a genotype's newest evaluations as many as are kept now, and none counted twice
    kept = min(ours["margins"].shape[1], theirs["margins"].shape[1])
    assert torch.equal(
        ours["margins"][:, :kept].nan_to_num(-1), theirs["margins"][:, :kept].nan_to_num(-1)
    )
    assert ours["margins"][:, kept:].isnan().all()
    for _ in range(8):
        second.update()
    fitness = second.method.state_dict()["population"]["fitness"]
    assert fitness[~fitness.isnan()].max() <= {"window": 1.0, "episodes": TIME_LIMIT}[name]


CONFIG = """
name: toy
sequence: {tasks: [Freeway, Breakout], steps: 128}
agent: AGENT
method: {name: pathnet, modules: 6, active: 2, population: 8, window: 7, tournament: 2}
net: {body: mlp, hidden: [12, 8]}
evaluation: {every: 64, episodes: 2}
checkpoint: {every: 64}
threads: 1
device: cpu
"""
AGENTS = {
    "ppo": "{name: ppo, n_envs: 4, n_steps: 16, batch_size: 32, n_epochs: 2}",
    "supervised": "{name: supervised, batch_size: 8}",
}


class Killed(BaseException):
    """Stands for SIGKILL."""


def left_by(run: Path) -> tuple[dict[str, Any], list[Any]]:
    found = checkpoint.load_latest(run / "checkpoints")
    assert found is not None
    return found.state["learner"], read_records(run / "evaluations.jsonl")[0]


@pytest.mark.parametrize("agent", LEARNERS)
def test_a_state_taken_anywhere_restores_into_the_same(agent):
    """After every update of four visits, and after each one's end: what is saved between them."""
    # a tournament takes three updates; how many genotypes there are is told by the first rollout
    settings: dict[str, Any] = {"window": 15, "episodes": 2, "population": None}
    one = learner_with(agent, **settings)
    moments = []
    for k in (0, 1, 0, 2):  # the third evolves nothing
        one.begin_task(SEQUENCE.tasks[k])
        moments.append(copy.deepcopy(one.state_dict()))
        for _ in range(6):
            one.update()
            moments.append(copy.deepcopy(one.state_dict()))
        one.end_task()
        moments.append(copy.deepcopy(one.state_dict()))
    for state in moments:
        other = learner_with(agent, **settings)
        other.load_state_dict(copy.deepcopy(state), SEQUENCE.tasks)
        for name, tensor in other.net.state_dict().items():
            assert torch.equal(tensor, state["net"][name]), name
        held = other.optimizer.state_dict()["param_groups"][0]["params"]
        assert held == state["optimizer"]["param_groups"][0]["params"]
        other.close()


def test_a_batch_keeps_its_path_until_the_next_is_drawn():
    learner = learner_with("supervised, adam", window=10)  # an update of ten batches is a window
    learner.begin_task(SEQUENCE.tasks[0])
    for _ in range(8):
        learner.update()
        _, route = learner.latest
        trained = {
            tuple(int(part) for part in name.split(".")[1:3])
            for name, p in learner.net.named_parameters()
            if name.startswith("layers.") and p.grad is not None and bool(p.grad.any())
        }
        active = learner.net.rows[int(route[0])]
        assert trained <= {(int(i), int(m)) for i, m in active.nonzero()}


@pytest.mark.parametrize("in_visit", [3, 4])  # to a task again, and to the last one
@pytest.mark.parametrize("agent", AGENTS)
def test_three_tasks_killed_and_resumed_are_as_if_never_stopped(
    agent, in_visit, tmp_path, monkeypatch
):
    path = tmp_path / "toy.yaml"
    path.write_text(CONFIG.replace("AGENT", AGENTS[agent]))
    config = load_config(path)
    sequence = TaskSequence(SEQUENCE.tasks, (0, 1, 0, 2))
    whole = train(config, tmp_path / "whole", sequence)
    cls = {"ppo": PPO, "supervised": Supervised}[agent]
    with monkeypatch.context() as patch:
        update = cls.update

        def dying(self: Learner) -> dict[str, float]:
            if len(self.begun) == in_visit and self.task_step >= 64:
                raise Killed
            return update(self)

        patch.setattr(cls, "update", dying)
        with pytest.raises(Killed):
            train(config, tmp_path / "killed", sequence)
    killed = resume(tmp_path / "killed/toy/seed0", sequence=sequence)
    (ours, rows), (theirs, whole_rows) = left_by(killed), left_by(whole)
    assert rows == whole_rows
    for name, w in ours["net"].items():
        assert torch.equal(w, theirs["net"][name]), name
    assert torch.equal(ours["method"]["history"], theirs["method"]["history"])
    assert len(ours["method"]["history"]) > 3
    for visit, winner in ours["method"]["winners"].items():
        assert torch.equal(winner, theirs["method"]["winners"][visit])
    assert set(ours["method"]["winners"]) == {1, 2, 4}
    records = read_records(killed / "metrics.jsonl")[0]
    assert "method/free_modules_1" in records[-1]
    unseen = [r for r in rows if r["phase"] == "start" or r["task_evaluated"] == "toy-c"]
    assert {r["visit"] for r in unseen} == {4}  # no path, no score


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"active": 7, "modules": 6}, "active is 7: expected at most as many as modules, 6"),
        ({"population": 0}, "population is 0: expected 1 or more"),
        ({"episodes": 0}, "episodes is 0: expected 1 or more"),
        ({"mutation": 1.5}, r"mutation is 1.5: expected a chance from 0 to 1"),
    ],
)
def test_settings_out_of_range_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        PathNetMethod(**wrong)


def test_of_games_a_population_no_larger_than_the_tournament_is_refused():
    message = r"method.population is 3: expected more than method.tournament, 3"
    with pytest.raises(ClrlError, match=message) as caught:
        learner_with(population=3, tournament=3)
    assert caught.value.exit_code == 2
    learner_with("supervised, adam", population=3, tournament=3)  # two meet
    message = r"agent.n_envs is 4: expected more than method.tournament, 4"
    with pytest.raises(ClrlError, match=message) as caught:
        learner_with(population=None, tournament=4)  # before anything begins
    assert caught.value.exit_code == 2


def test_a_configuration_with_them_is_refused(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(CONFIG.replace("AGENT", AGENTS["ppo"]).replace("active: 2", "active: 7"))
    with pytest.raises(ClrlError, match=r"method.active is 7: expected at most") as caught:
        load_config(path)
    assert caught.value.exit_code == 2


def test_more_environments_than_genotypes_are_refused_before_anything_begins():
    learner = PPO(n_envs=9, n_steps=8, batch_size=36)
    spec = NetSpec((2, 12, 12), BODY, SEQUENCE.tasks)
    with pytest.raises(
        ClrlError, match=r"agent.n_envs is 9: expected at most 8, .* method.population is 8"
    ) as caught:
        learner.setup(PathNetMethod(**SMALL), spec, RunSettings(0, 1, 3, torch.device("cpu")))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": False, "shared_head": True}, r"choose.* a path by the task.*hides"),
        ({"body": ()}, "no layer with weights"),
    ],
)
def test_where_the_task_is_hidden_or_there_is_no_chain_it_is_refused(change, message):
    spec = NetSpec(**({"input_shape": (2, 12, 12), "body": BODY, "tasks": SEQUENCE.tasks} | change))
    with pytest.raises(ClrlError, match=message) as caught:
        PathNetMethod().build(spec)
    assert caught.value.exit_code == 2
