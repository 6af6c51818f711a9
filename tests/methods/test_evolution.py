"""The genetic algorithm of paths: draws and tournaments against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from clrl.methods.evolution import (
    active_modules,
    diversity,
    drawn_rivals,
    mutated,
    random_genotypes,
)
from clrl.methods.tournaments import Asynchronous, Outcome, Population, Serial

DRAWS = 100_000
MODULES = 10


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def p_value(found: torch.Tensor, expected: list[float]) -> float:
    """Return the chance of counts at least as far from those expected, which may hold zeros."""
    shares = torch.tensor(expected, dtype=torch.float64)
    assert int(found[shares == 0].sum()) == 0, "something happened that never should"
    some = shares > 0
    return float(stats.chisquare(found[some].numpy(), shares[some].numpy() * DRAWS).pvalue)


# ------------------------------------------------------------------------------------ genotypes


def test_every_module_is_drawn_alike():
    drawn = random_genotypes(DRAWS // 20, 4, 5, MODULES, stream())
    assert drawn.shape == (5_000, 4, 5)
    assert p_value(drawn.flatten().bincount(minlength=MODULES), [1 / MODULES] * MODULES) > 1e-3


def test_a_mutation_moves_by_minus_2_to_2_alike_with_its_chance():
    rate = 1 / 12
    before = torch.full((DRAWS,), 5)
    moved = mutated(before, MODULES, rate, "clamp", stream()) - 5
    expected = [rate / 5, rate / 5, 1 - rate + rate / 5, rate / 5, rate / 5]
    assert p_value((moved + 2).bincount(minlength=5), expected) > 1e-3
    assert int((moved == 2).sum()) > 0.9 * DRAWS * rate / 5
    assert int((before == 5).sum()) == DRAWS  # the parent is left as it was


@pytest.mark.parametrize(
    ("edges", "start", "expected"),
    [
        ("clamp", 9, {7: 0.2, 8: 0.2, 9: 0.6}),
        ("clamp", 1, {0: 0.4, 1: 0.2, 2: 0.2, 3: 0.2}),
        ("wrap", 9, {7: 0.2, 8: 0.2, 9: 0.2, 0: 0.2, 1: 0.2}),
        ("wrap", 1, {9: 0.2, 0: 0.2, 1: 0.2, 2: 0.2, 3: 0.2}),
    ],
)
def test_mutations_at_the_edges(edges, start, expected):
    moved = mutated(torch.full((DRAWS,), start), MODULES, 1.0, edges, stream())
    shares = [expected.get(m, 0.0) for m in range(MODULES)]
    assert p_value(moved.bincount(minlength=MODULES), shares) > 1e-3


@pytest.mark.parametrize("edges", ["clamp", "wrap"])
@pytest.mark.parametrize("modules", [1, 2, 10])
def test_genotypes_never_leave_the_modules(edges, modules):
    genotypes = random_genotypes(100, 3, 3, modules, stream())
    for _ in range(50):
        genotypes = mutated(genotypes, modules, 0.5, edges, stream(1))
        assert 0 <= int(genotypes.min()) <= int(genotypes.max()) < modules


def test_elements_mutate_independently():
    moved = mutated(torch.full((DRAWS, 2), 5), MODULES, 0.5, "clamp", stream()) != 5
    both = (moved[:, 0] & moved[:, 1]).long()  # each moves with chance 0.5 * 4 / 5
    assert p_value(both.bincount(minlength=2), [1 - 0.16, 0.16]) > 1e-3


def test_the_same_seed_draws_the_same():
    for seed in (0, 1):
        first, second = (random_genotypes(8, 3, 3, 10, stream(seed)) for _ in range(2))
        assert torch.equal(first, second)
        ours, theirs = (mutated(first, 10, 0.3, "wrap", stream(seed)) for _ in range(2))
        assert torch.equal(ours, theirs)
    assert not torch.equal(first, random_genotypes(8, 3, 3, 10, stream(0)))


def test_a_module_named_twice_is_one():
    active = active_modules(torch.tensor([[1, 1, 3], [0, 0, 0]]), 4)
    assert active.tolist() == [[False, True, False, True], [True, False, False, False]]


def test_diversity_is_the_mean_share_that_two_paths_do_not_have_in_common():
    same = torch.tensor([[[0, 1]], [[1, 0]], [[0, 1]]])
    assert diversity(same, 4) == pytest.approx(0.0, abs=1e-7)
    assert diversity(torch.tensor([[[0, 1]], [[2, 3]]]), 4) == 1.0
    # one layer: {0, 1} and {1, 2} share 1 of 3; {1}, in {0, 1} and in {1, 2}, 1 of 2 each
    mixed = torch.tensor([[[0, 1]], [[1, 2]], [[1, 1]]])
    assert diversity(mixed, 4) == pytest.approx(1 - (1 / 3 + 1 / 2 + 1 / 2) / 3, abs=1e-6)
    assert diversity(mixed[:1], 4) == 0.0


def test_rivals_are_drawn_of_all_others_and_the_pending_ones_dropped():
    nan = math.nan
    fitness = torch.tensor([1.0, nan, 3.0, nan, 5.0, 6.0])
    seen, sizes = torch.zeros(6, dtype=torch.long), torch.zeros(3, dtype=torch.long)
    for seed in range(2_000):
        drawn = drawn_rivals(fitness, 4, 2, stream(seed))
        assert len(set(drawn)) == len(drawn)
        seen[drawn] += 1
        sizes[len(drawn)] += 1
    assert [int(n > 0) for n in seen] == [1, 0, 1, 0, 0, 1]
    assert float(stats.chisquare(seen[seen > 0].numpy()).pvalue) > 1e-3
    # of 5 others, 3 of them known, two are drawn: as many known as of any urn
    expected = stats.hypergeom(5, 3, 2).pmf([0, 1, 2]) * 2_000
    assert float(stats.chisquare(sizes.numpy(), expected).pvalue) > 1e-3
    assert sorted(drawn_rivals(fitness, 4, 9, stream())) == [0, 2, 5]
    assert drawn_rivals(torch.tensor([1.0, nan]), 0, 2, stream()) == []
    assert drawn_rivals(torch.tensor([1.0]), 0, 2, stream()) == []


# ---------------------------------------------------------------------------------- tournaments


def population(n: int = 6, rate: float = 0.0, seed: int = 0, kept: int = 1) -> Population:
    return Population((n, 3, 2), MODULES, rate, "clamp", stream(seed), kept)


def finish(workers: Asynchronous, worker: int, return_: float) -> Outcome | None:
    """Have one game end by itself."""
    return next(iter(workers.finished([(worker, return_)])), None)


def test_the_serial_loser_becomes_a_mutated_copy_of_the_winner():
    pool = population(rate=1.0)
    serial = Serial(pool, window=3)
    for _ in range(20):
        before = pool.genotypes.clone()
        trained = []
        for score in (0.25, 0.5, 0.75, 0.5, 0.75, 1.0):  # a mean of 0.5, then one of 0.75
            trained.append(serial.current)
            outcome = serial.saw(torch.tensor(score, dtype=torch.float64))
        first, second = trained[0], trained[-1]
        assert trained == [first] * 3 + [second] * 3
        assert first != second
        assert outcome == (0.75, 0.625, first)
        assert pool.fitness[first].isnan()
        assert float(pool.fitness[second]) == 0.75
        child, parent = pool.genotypes[first], before[second]
        assert torch.equal(pool.genotypes[second], parent)
        assert int((child - parent).abs().max()) in (1, 2)
        others = [g for g in range(6) if g not in (first, second)]
        assert torch.equal(pool.genotypes[others], before[others])


def test_of_equals_the_first_wins_and_pairs_are_drawn_alike():
    pool = population()
    serial = Serial(pool, window=1)
    met = torch.zeros(6, dtype=torch.long)
    for _ in range(3_000):
        pair = [serial.current]
        assert serial.saw(torch.tensor(0.5)) is None
        pair.append(serial.current)
        assert serial.saw(torch.tensor(0.5)).loser == pair[1]
        met[pair] += 1
    # two of six are drawn each time: the variance of a count is 2/3 of the independent one
    deviation = (met - 1_000).abs() / (3_000 * (1 / 3) * (2 / 3)) ** 0.5
    assert float(deviation.max()) < 4


def test_a_genotype_is_worth_the_mean_of_its_games():
    pool = population()
    workers = Asynchronous(pool, episodes=3, n_rivals=2)
    workers.assign(2)
    assert finish(workers, 0, 1.0) is None
    assert finish(workers, 1, 100.0) is None
    assert finish(workers, 0, 2.0) is None
    assert finish(workers, 0, 6.0) == (3.0, 3.0, None)  # nobody else is known
    assert float(pool.fitness[0]) == 3.0
    assert int(pool.fitness.isnan().sum()) == 5


def test_workers_take_the_genotype_that_has_waited_longest():
    workers = Asynchronous(population(4), episodes=1, n_rivals=1)
    workers.assign(2)
    held = [list(workers.holds)]
    for worker in (0, 1, 1, 0):
        finish(workers, worker, 0.0)
        held.append(list(workers.holds))
    assert held == [[0, 1], [2, 1], [2, 3], [2, 0], [1, 0]]
    alone = Asynchronous(population(2), episodes=1, n_rivals=1)
    alone.assign(2)
    finish(alone, 1, 0.0)
    assert alone.holds == [0, 1]  # as many workers as genotypes: each keeps its place


def test_one_worth_more_overwrites_and_none_else():
    for returns, loser in (((5.0, 4.0), 1), ((5.0, 5.0), None), ((5.0, 6.0), None)):
        pool = population(2, rate=0.0)
        workers = Asynchronous(pool, episodes=1, n_rivals=1)
        workers.assign(2)
        finish(workers, 0, returns[0])
        before = pool.genotypes.clone()
        assert finish(workers, 1, returns[1]).loser == loser
        if loser is None:
            assert torch.equal(pool.genotypes, before)
            assert float(pool.fitness[1]) == returns[1]
        else:
            assert torch.equal(pool.genotypes[1], before[0])  # mutated with chance 0
            assert pool.fitness[1].isnan()  # not known, in place of the loser's own
            assert float(pool.fitness[0]) == 5.0  # a winner keeps its worth


def test_a_pending_genotype_never_wins():
    # returns far below 0, where an unknown fitness taken for 0 or left from before would win
    pool = population(8, rate=0.5)
    workers = Asynchronous(pool, episodes=1, n_rivals=7)
    workers.assign(4)
    draw = torch.Generator().manual_seed(3)
    overwritten = 0
    for turn in range(300):
        worker = turn % 4
        own = workers.holds[worker]
        known = {g: float(f) for g, f in enumerate(pool.fitness) if not f.isnan() and g != own}
        before = pool.genotypes.clone()
        return_ = -1_000 + float(torch.rand((), generator=draw))
        outcome = finish(workers, worker, return_)
        best = max(known, key=known.get) if known else None  # all others are met
        if best is None or known[best] <= return_:
            assert outcome.loser is None
            continue
        overwritten += 1
        assert outcome.loser == own
        assert outcome.winner == known[best]
        assert int((pool.genotypes[own] - before[best]).abs().max()) <= 2
    assert overwritten > 50


def test_the_best_of_a_task_is_the_fittest_known_else_the_best_begun():
    pool = population(4)
    workers = Asynchronous(pool, episodes=2, n_rivals=1)
    assert workers.best() == 0
    workers.assign(3)
    assert workers.best() == 0
    finish(workers, 1, -5.0)
    assert workers.best() == 1  # rather one that lost than one that nobody saw
    finish(workers, 2, -3.0)
    assert workers.best() == 2
    finish(workers, 1, -5.0)
    assert workers.best() == 1  # the only one evaluated
    serial = Serial(pool := population(4), window=1)
    assert serial.best() == serial.current
    pool.evaluated([(2, 0.1)])
    assert serial.best() == 2


def test_the_best_is_told_by_margins_over_the_mean_and_doubt_of_equals_by_the_latest():
    pool = population(5, kept=2)
    pool.evaluated([(0, 4.0), (1, 8.0), (2, 0.0)])  # together: 0, 4 and -4 above their mean
    pool.evaluated([(0, 10.0), (1, 8.0)])  # with what was known of 2, a mean of 6: 4 and 2
    assert pool.fitness[:3].tolist() == [10.0, 8.0, 0.0]  # the last one
    assert pool.fittest() == [0, 1, 2]
    # (0 + 4) / 4 = 1; (4 + 2) / 4 = 1.5; -4 / 3
    assert pool.ranked() == [1, 0, 2]
    pool.evaluated([(3, 11.0)])  # of 10, 8, 0 and 11, 7.25: 3.75 / 3, the highest return of all
    assert pool.fittest()[0] == 3
    assert pool.ranked() == [1, 3, 0, 2]
    pool.overwrite([(3, 1)])
    assert pool.ranked() == [1, 0, 2]  # nothing is known of it any more
    assert pool.fittest() == [0, 1, 2]
    pool.evaluated([(3, 12.0)])  # of 10, 8, 0 and 12, 7.5: 4.5 / 3, as the second, and later
    assert pool.ranked() == [3, 1, 0, 2]
    pool.evaluated([(1, 10.0)])  # of 10, 10, 0 and 12, 8: the first of its three goes; (2 + 2) / 4
    assert pool.ranked() == [3, 1, 0, 2]  # as the first, 1, and later


def test_of_rivals_worth_the_same_the_last_evaluated_is_copied():
    pool = population(4)
    for own in (2, 1, 3):
        pool.evaluated([(own, 7.0)])
    workers = Asynchronous(pool, episodes=1, n_rivals=3)
    workers.assign(1)
    assert finish(workers, 0, 6.0) == (7.0, 6.0, 0)
    assert torch.equal(pool.genotypes[0], pool.genotypes[3])


def test_one_known_rival_of_fifteen_overwrites_as_often_as_it_is_drawn():
    overwritten = 0
    for seed in range(3_000):
        pool = population(16, seed=seed)
        workers = Asynchronous(pool, episodes=1, n_rivals=3)
        workers.assign(16)
        pool.evaluated([(5, 10.0)])
        overwritten += finish(workers, 0, 1.0).loser is not None
    assert float(stats.binomtest(overwritten, 3_000, 3 / 15).pvalue) > 1e-3


def test_games_that_end_together_are_all_known_before_any_genotype_meets_others():
    for order in ([0, 1], [1, 0]):
        pool = population(2)
        pool.evaluated([(0, 50.0)])  # of the round before
        pool.evaluated([(1, 0.0)])
        workers = Asynchronous(pool, episodes=1, n_rivals=1)
        workers.assign(2)
        returns = {0: 3.0, 1: 4.0}
        found = workers.finished([(w, returns[w]) for w in order])
        assert [x.loser for x in found if x.loser is not None] == [0]
        assert torch.equal(pool.genotypes[0], pool.genotypes[1])
        assert float(pool.fitness[1]) == 4.0


@pytest.mark.parametrize("n_values", [3, 10**6])  # returns are often the same, or never
@pytest.mark.parametrize("n_rivals", [1, 3])
def test_of_games_that_end_together_no_worker_has_an_advantage(n_rivals, n_values):
    pool = population(8, rate=0.0)
    own = torch.arange(8)[:, None, None].expand_as(pool.genotypes)
    workers = Asynchronous(pool, episodes=1, n_rivals=n_rivals)
    workers.assign(8)
    draw = torch.Generator().manual_seed(5)
    lost, copied = torch.zeros(8, dtype=torch.long), torch.zeros(8, dtype=torch.long)
    for _ in range(500):
        pool.genotypes.copy_(own)  # who is copied shows
        returns = torch.randint(n_values, (8,), generator=draw).tolist()
        for outcome in workers.finished(list(enumerate(returns))):
            if outcome.loser is not None:
                lost[outcome.loser] += 1
                copied[pool.genotypes[outcome.loser, 0, 0]] += 1
    assert int(lost.sum()) > 1_000
    for counts in (lost, copied):
        assert float(stats.chisquare(counts.numpy()).pvalue) > 1e-3


def test_of_games_that_end_together_a_winner_is_copied_as_it_was():
    pool = population(3, rate=0.0)
    before = pool.genotypes.clone()
    pool.overwrite([(1, 0), (2, 1)])
    assert torch.equal(pool.genotypes, before[[0, 0, 1]])


@pytest.mark.parametrize("kind", ["serial", "asynchronous"])
def test_a_population_of_one_stays_as_it_is(kind):
    pool = population(1, rate=1.0)
    before = pool.genotypes.clone()
    if kind == "serial":
        serial = Serial(pool, window=2)
        scores = [0.25, 0.75, 1.0, 0.5]  # windows of 0.5 and 0.75
        found = [serial.saw(torch.tensor(x, dtype=torch.float64)) for x in scores]
        assert found == [None, None, None, (0.75, 0.625, None)]
    else:
        workers = Asynchronous(pool, episodes=2, n_rivals=3)
        workers.assign(3)
        assert workers.holds == [0, 0, 0]
        assert workers.finished([(0, 1.0), (1, 5.0), (2, 7.0)]) == []
        assert workers.finished([(0, 2.0), (2, 1.0)]) == [(1.5, 1.5, None), (4.0, 4.0, None)]
        assert workers.holds == [0, 0, 0]
        assert workers.best() == 0
    assert torch.equal(pool.genotypes, before)


@pytest.mark.parametrize("kind", ["serial", "asynchronous"])
def test_in_the_middle_of_a_tournament_the_state_restores(kind):
    def made(seed: int) -> tuple[Population, Serial | Asynchronous]:
        pool = population(6, rate=0.5, seed=seed)
        if kind == "serial":
            return pool, Serial(pool, window=3)
        workers = Asynchronous(pool, episodes=3, n_rivals=2)
        workers.assign(4)
        return pool, workers

    def go_on(workers, turns: range) -> list[object]:
        draw = [round(4 * float(torch.rand((), generator=stream(t)))) / 4 for t in turns]
        if kind == "serial":
            return [workers.saw(torch.tensor(x, dtype=torch.float64)) for x in draw]
        return [finish(workers, t % 4, x) for t, x in zip(turns, draw, strict=True)]

    (pool, ours), (other, theirs) = made(0), made(1)
    go_on(ours, range(34))  # in the second window of a pair
    other.load_state_dict(pool.state_dict())
    theirs.load_state_dict(ours.state_dict())
    other.generator.set_state(pool.generator.get_state())
    state = ours.state_dict()
    assert state["batches" if kind == "serial" else "games"] not in (0, [0] * 4)
    assert torch.equal(pool.when, other.when)
    assert go_on(ours, range(34, 90)) == go_on(theirs, range(34, 90))
    assert torch.equal(pool.genotypes, other.genotypes)
    assert torch.equal(pool.fitness.nan_to_num(), other.fitness.nan_to_num())


def test_a_population_of_another_shape_is_refused():
    with pytest.raises(RuntimeError, match=r"of shape \(6, 3, 2\), not \(4, 3, 2\)"):
        population(4).load_state_dict(population(6).state_dict())
