"""Who is evaluated when, and who overwrites whom: serial tournaments, and those of many workers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clrl.methods.evolution import Edges, drawn_rivals, mutated, random_genotypes

__all__ = ["Asynchronous", "Outcome", "Population", "Serial"]


class Population:
    """Genotypes (P, L, N) with what they were worth when last evaluated: NaN, not known yet."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        n_modules: int,
        rate: float,
        edges: Edges,
        generator: torch.Generator,
    ) -> None:
        self.n_modules, self.rate, self.edges = n_modules, rate, edges
        self.generator = generator
        self.genotypes = random_genotypes(*shape, n_modules, generator)
        self.fitness = torch.full(shape[:1], math.nan, dtype=torch.float64)

    def overwrite(self, loser: int, winner: int) -> None:
        """Put a mutated copy of the winner in the loser's place; its fitness is not known."""
        self.genotypes[loser] = mutated(
            self.genotypes[winner], self.n_modules, self.rate, self.edges, self.generator
        )
        self.fitness[loser] = math.nan

    def best(self, among: Sequence[int] | None = None) -> int | None:
        """Return the fittest, of all or of some, the first of equals; None: none is known."""
        worth = self.fitness if among is None else self.fitness[list(among)]
        if bool(worth.isnan().all()):
            return None
        place = int(worth.nan_to_num(nan=-math.inf).argmax())
        return place if among is None else among[place]

    def state_dict(self) -> dict[str, Any]:
        return {"genotypes": self.genotypes.clone(), "fitness": self.fitness.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["genotypes"].shape != self.genotypes.shape:
            raise RuntimeError(
                f"a population of shape {tuple(state['genotypes'].shape)}, "
                f"not {tuple(self.genotypes.shape)}"
            )
        self.genotypes.copy_(state["genotypes"])
        self.fitness.copy_(state["fitness"])


class Outcome(NamedTuple):
    """What came of a tournament, one generation."""

    winner: float  # the fitness of the best that took part
    mean: float  # of what was measured for it
    loser: int | None  # who was overwritten


class Serial:
    """Binary tournaments, one after another: two genotypes at random are trained in turn.

    Each has a window of batches; its fitness is the mean accuracy in it. Of equals the one that
    came first wins: the other was given modules that had learned a little more.
    """

    def __init__(self, population: Population, window: int) -> None:
        self.population, self.window = population, window
        self._begin()

    def _begin(self) -> None:
        order = torch.randperm(len(self.population.fitness), generator=self.population.generator)
        self._pair = [int(g) for g in order[:2]]
        self._turn = 0
        self._clear()

    def _clear(self) -> None:
        self._batches = 0
        self._total: Tensor | float = 0.0  # a tensor where scores are: read once a window

    @property
    def current(self) -> int:
        """The genotype being trained."""
        return self._pair[self._turn]

    def saw(self, accuracy: Tensor) -> Outcome | None:
        """Take in a batch's accuracy, a scalar of float64; tell if it ended a tournament."""
        self._total = self._total + accuracy
        self._batches += 1
        if self._batches < self.window:
            return None
        population = self.population
        population.fitness[self.current] = float(self._total) / self.window
        self._clear()
        self._turn += 1
        if self._turn < 2:
            return None
        worth = [float(population.fitness[g]) for g in self._pair]
        first_wins = worth[0] >= worth[1]
        winner, loser = self._pair if first_wins else self._pair[::-1]
        population.overwrite(loser, winner)
        self._begin()
        return Outcome(max(worth), sum(worth) / 2, loser)

    def best(self) -> int:
        """Return the fittest genotype; before any was evaluated the one being trained."""
        best = self.population.best()
        return self.current if best is None else best

    def state_dict(self) -> dict[str, Any]:
        return {
            "pair": list(self._pair),
            "turn": self._turn,
            "batches": self._batches,
            "total": float(self._total),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._pair, self._turn = list(state["pair"]), state["turn"]
        self._batches, self._total = state["batches"], state["total"]


class Asynchronous:
    """Workers that evaluate a genotype each, for some games; then it meets others.

    Its fitness is the mean return of those games. If the best of some others, drawn from those
    whose fitness is known, is worth at least as much, it is overwritten by a mutated copy of that
    one. Its worker goes on with the genotype that has waited longest (with as many workers as
    genotypes: the same, or what has overwritten it).
    """

    def __init__(self, population: Population, episodes: int, n_rivals: int) -> None:
        self.population, self.episodes, self.n_rivals = population, episodes, n_rivals
        self.assign(0)

    def assign(self, n: int) -> None:
        """Give n workers a genotype each, in order; what they had begun is forgotten."""
        everyone = range(len(self.population.fitness))
        self.holds = list(everyone[:n])
        self._waiting = deque(everyone[n:])
        self._total, self._games = [0.0] * n, [0] * n

    def finished(self, worker: int, return_: float) -> Outcome | None:
        """Take in a game played wholly under the worker's genotype; tell if it was its last."""
        self._total[worker] += return_
        self._games[worker] += 1
        if self._games[worker] < self.episodes:
            return None
        own, population = self.holds[worker], self.population
        fitness = self._total[worker] / self.episodes
        self._total[worker], self._games[worker] = 0.0, 0
        population.fitness[own] = fitness
        self._waiting.append(own)
        self.holds[worker] = self._waiting.popleft()
        rivals = drawn_rivals(population.fitness, own, self.n_rivals, population.generator)
        best = population.best(rivals) if rivals else None
        if best is None or population.fitness[best] < fitness:
            return Outcome(fitness, fitness, None)
        outcome = Outcome(float(population.fitness[best]), fitness, own)
        population.overwrite(own, best)
        return outcome

    def best(self) -> int:
        """Return the fittest genotype; before any was evaluated the one that began best."""
        best = self.population.best()
        if best is not None:
            return best
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
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.holds, self._waiting = list(state["holds"]), deque(state["waiting"])
        self._total, self._games = list(state["total"]), list(state["games"])
