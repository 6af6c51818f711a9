"""Who is evaluated when, and who overwrites whom: serial tournaments, and those of many workers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clrl.methods.evolution import Edges, drawn_rivals, mutated, random_genotypes

__all__ = ["Asynchronous", "Outcome", "Population", "Serial"]


DOUBT = 2  # evaluations that were neither good nor bad, beside those a genotype has had


class Population:
    """Genotypes (P, L, N), and what each was worth in its evaluations since it was made.

    Attributes:
        genotypes: (P, L, N) long.
        fitness: (P,) what each was worth when last evaluated; NaN: pending, not known yet.
        margins: (P, K) of the last K evaluations, the newest first, by how much they were above the
            mean of all that was known then; NaN: there was none.
        when: (P,) long, the number of the last one, counted over the population; those that ended
            together have the same.
    """

    _STATE = ("genotypes", "fitness", "margins", "when")

    def __init__(
        self,
        shape: tuple[int, int, int],
        n_modules: int,
        rate: float,
        edges: Edges,
        generator: torch.Generator,
        n_kept: int = 1,
    ) -> None:
        self.n_modules, self.rate, self.edges = n_modules, rate, edges
        self.generator = generator
        _, *table = shape
        self.genotypes = torch.empty(0, *table, dtype=torch.long)
        self.fitness = torch.empty(0, dtype=torch.float64)
        self.margins = torch.empty(0, n_kept, dtype=torch.float64)
        self.when = torch.empty(0, dtype=torch.long)
        self.grow(shape[0])

    def grow(self, n: int) -> None:
        """Draw more genotypes at random until there are n; if there are, nothing is done."""
        more = n - len(self.genotypes)
        if more <= 0:
            return
        _, n_layers, n_active = self.genotypes.shape
        drawn = random_genotypes(more, n_layers, n_active, self.n_modules, self.generator)
        self.genotypes = torch.cat([self.genotypes, drawn])
        unknown = self.fitness.new_full((more, 1), math.nan)
        self.fitness = torch.cat([self.fitness, unknown[:, 0]])
        self.margins = torch.cat([self.margins, unknown.expand(-1, self.margins.shape[1])])
        self.when = torch.cat([self.when, self.when.new_zeros(more)])

    def evaluated(self, found: Sequence[tuple[int, float]]) -> None:
        """Take in what evaluations that ended together have found."""
        now = self.when.max() + 1
        for own, worth in found:
            self.fitness[own] = worth
            self.when[own] = now
        mean = self.fitness.nanmean()
        for own, worth in found:
            self.margins[own] = self.margins[own].roll(1)
            self.margins[own, 0] = worth - mean

    def overwrite(self, lost: Sequence[tuple[int, int]]) -> None:
        """Put a mutated copy of each winner, as it is now, in its loser's place: (loser, winner).

        A copy's fitness is not known.
        """
        before = self.genotypes.clone()
        for loser, winner in lost:
            self.genotypes[loser] = mutated(
                before[winner], self.n_modules, self.rate, self.edges, self.generator
            )
            self.fitness[loser] = self.margins[loser] = math.nan

    def fittest(self, some: Iterable[int] | None = None) -> list[int]:
        """Return those (of some) whose fitness is known, the best first, of equals the newest."""
        return self._ranked(self.fitness, range(len(self.when)) if some is None else some)

    def ranked(self) -> list[int]:
        """Return those that were evaluated, the best first, of equals the newest.

        By the sum of their margins over their number and `DOUBT` more: one lucky evaluation does
        not stand against several good ones; nor do early ones, when all were worse, count against
        who has been there longest.
        """
        known = (~self.margins.isnan()).sum(1)
        worth = self.margins.nansum(1) / (known + DOUBT)
        return self._ranked(worth.where(known > 0, math.nan), range(len(self.when)))

    def _ranked(self, worth: Tensor, some: Iterable[int]) -> list[int]:
        keys = list(zip(worth.tolist(), self.when.tolist(), strict=True))
        known = [g for g in some if not math.isnan(keys[g][0])]
        return sorted(known, key=keys.__getitem__, reverse=True)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).clone() for name in self._STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` told; where other K were kept, the newest of them."""
        if state["genotypes"].shape != self.genotypes.shape:
            raise RuntimeError(
                f"a population of shape {tuple(state['genotypes'].shape)}, "
                f"not {tuple(self.genotypes.shape)}"
            )
        for name in ("genotypes", "fitness", "when"):
            getattr(self, name).copy_(state[name])
        kept = min(self.margins.shape[1], state["margins"].shape[1])
        self.margins.fill_(math.nan)
        self.margins[:, :kept] = state["margins"][:, :kept]


class Outcome(NamedTuple):
    """What came of a tournament, one generation."""

    winner: float  # the fitness of the best that took part
    mean: float  # of what was measured for it
    loser: int | None  # who was overwritten


class Serial:
    """Binary tournaments, one after another: two genotypes at random are trained in turn.

    Each has a window of batches; its fitness is the mean accuracy in it, so that none is pending
    when they are compared. Of equals the one that came first wins: the other was given modules that
    had learned a little more. A population of one has two windows and stays.
    """

    def __init__(self, population: Population, window: int) -> None:
        self.population, self.window = population, window
        self._begin()

    def _begin(self) -> None:
        size = len(self.population.genotypes)
        order = torch.randperm(size, generator=self.population.generator)
        self._pair = [int(order[0]), int(order[1 % size])]
        self._worths: list[float] = []
        self._clear()

    def _clear(self) -> None:
        self._batches = 0
        self._total: Tensor | float = 0.0  # a tensor where scores are: read once a window

    @property
    def current(self) -> int:
        """The genotype being trained."""
        return self._pair[len(self._worths)]

    def saw(self, accuracy: Tensor) -> Outcome | None:
        """Take in a batch's accuracy, a scalar of float64; tell if it ended a tournament."""
        self._total = self._total + accuracy
        self._batches += 1
        if self._batches < self.window:
            return None
        worth = float(self._total) / self.window
        self.population.evaluated([(self.current, worth)])
        self._worths.append(worth)
        self._clear()
        if len(self._worths) < 2:
            return None
        first, second = self._worths
        winner, loser = self._pair if first >= second else self._pair[::-1]
        outcome = Outcome(max(first, second), (first + second) / 2, None)
        if winner != loser:
            self.population.overwrite([(loser, winner)])
            outcome = outcome._replace(loser=loser)
        self._begin()
        return outcome

    def best(self) -> int:
        """Return the fittest genotype; before any was evaluated the one being trained."""
        return next(iter(self.population.fittest()), self.current)

    def state_dict(self) -> dict[str, Any]:
        return {
            "pair": list(self._pair),
            "worths": list(self._worths),
            "batches": self._batches,
            "total": float(self._total),
            "window": self.window,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where it was; a window of another length begins anew."""
        self._pair, self._worths = list(state["pair"]), list(state["worths"])
        self._clear()
        if state.get("window", self.window) == self.window:  # older states do not tell
            self._batches, self._total = state["batches"], state["total"]


class Asynchronous:
    """Workers that evaluate a genotype each, for some games; then it meets others.

    Its fitness is the mean return of those games. Some others are drawn of all: if the best of them
    whose fitness is known is worth more, it is overwritten by a mutated copy of that one. Its
    worker goes on with the genotype that has waited longest (with as many workers as genotypes: the
    same, or what has overwritten it; one genotype alone is played by all).

    Games that end at the same step are all taken in before any of their genotypes meets others, and
    all of these meet rivals as they then are: which worker has a genotype decides nothing. One
    whose games end earlier in a round meets rivals as they were worth in the round before.
    """

    def __init__(self, population: Population, episodes: int, n_rivals: int) -> None:
        self.population, self.episodes, self.n_rivals = population, episodes, n_rivals
        self.assign(0)

    def assign(self, n: int) -> None:
        """Give n workers a genotype each, in order; what they had begun is forgotten."""
        size = len(self.population.genotypes)
        self.holds = [worker % size for worker in range(n)]
        self._waiting = deque(range(n, size))
        self._begin()

    def _begin(self) -> None:
        self._total, self._games = [0.0] * len(self.holds), [0] * len(self.holds)

    def finished(self, games: Sequence[tuple[int, float]]) -> list[Outcome]:
        """Take in games that ended together; return what came of evaluations that are through.

        Args:
            games: (worker, return), each played wholly under the genotype that the worker holds.
        """
        through = [own for worker, return_ in games for own in self._evaluated(worker, return_)]
        self.population.evaluated(through)
        met = [self._met(*each) for each in through]
        self.population.overwrite([lost for _, lost in met if lost is not None])
        return [outcome for outcome, _ in met]

    def _evaluated(self, worker: int, return_: float) -> list[tuple[int, float]]:
        """Return the worker's genotype with its fitness, if that was its last game; else none."""
        self._total[worker] += return_
        self._games[worker] += 1
        if self._games[worker] < self.episodes:
            return []
        own, fitness = self.holds[worker], self._total[worker] / self.episodes
        self._total[worker], self._games[worker] = 0.0, 0
        self._waiting.append(own)
        self.holds[worker] = self._waiting.popleft()
        return [(own, fitness)]

    def _met(self, own: int, fitness: float) -> tuple[Outcome, tuple[int, int] | None]:
        """Return what comes of meeting some others, and if it lost, (loser, winner)."""
        population = self.population
        rivals = drawn_rivals(population.fitness, own, self.n_rivals, population.generator)
        best = next(iter(population.fittest(rivals)), None)
        if best is None or population.fitness[best] <= fitness:
            return Outcome(fitness, fitness, None), None
        return Outcome(float(population.fitness[best]), fitness, own), (own, best)

    def best(self) -> int:
        """Return the genotype that `ranked` has first; before any was evaluated who began best."""
        ranked = self.population.ranked()
        if ranked:
            return ranked[0]
        begun = [w for w, n in enumerate(self._games) if n]
        if not begun:
            return self.holds[0] if self.holds else 0
        return self.holds[max(begun, key=lambda w: self._total[w] / self._games[w])]

    def state_dict(self) -> dict[str, Any]:
        return {
            "holds": list(self.holds),
            "waiting": list(self._waiting),
            "total": list(self._total),
            "games": list(self._games),
            "episodes": self.episodes,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where it was; evaluations of another number of games begin anew."""
        self.holds, self._waiting = list(state["holds"]), deque(state["waiting"])
        self._begin()
        if state.get("episodes", self.episodes) == self.episodes:  # older states do not tell
            self._total, self._games = list(state["total"]), list(state["games"])
