"""PathNet: paths through modules, found by evolution."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from clrl.method import Method
from clrl.methods.evolution import Edges, active_modules, diversity
from clrl.methods.tournaments import Asynchronous, Outcome, Population, Serial
from clrl.nets.pathnet import Aggregate, PathNet, PathSettings
from clrl.types import Batch, ClrlError, Episode, Net, NetSpec, Task, as_route

__all__ = ["PathNetMethod"]

log = logging.getLogger(__name__)

PICTURES_POPULATION = 64  # the paper's
GAMES = 5  # games of a genotype's last evaluations, at least, that tell which path was best
SCORED = 5  # genotypes that are scored once more, on the same pictures, before one is the best


@dataclass
class PathNetMethod(Method):
    """Evolve the path that learns a task; freeze its modules, renew all others (Fernando 2017).

    `h_l = sum over m in A_l of f(W_lm h_{l-1} + b_lm)`: see `nets.pathnet.PathNet`. A genotype is
    an (L, N) table of modules; each element mutates with chance 1 / (N L), by one of -2, ..., 2.

    Pictures: two genotypes at random are trained in turn, for `window` batches each; a mutated copy
    of the one with the better accuracy overwrites the other. That is a generation.

    Games: every environment plays a genotype. After `episodes` whole games it is worth their mean
    raw return, and meets `tournament` of all others: if the best of those whose worth is known is
    worth more, a mutated copy of that one overwrites it. A path changes only where a game ends. One
    not yet evaluated has no worth and never wins.

    At a task's end the best path's modules are frozen, beside those of all tasks before; when the
    next begins all others are drawn anew, with a new population, head and optimizer. Nothing is
    ever forgotten; modules run out, which is warned of, and the task must be known. A visit to a
    task that has a path trains its head alone.

    Differs from the paper:
    - environments step together and share one update, where workers had their own: rollouts are
      learned from by the path that played, whatever has become of its genotype since; games that
      end at one step are all taken in before any genotype meets others; the first to end of a round
      otherwise meet rivals as they were worth in the round before;
    - an optimizer moves the modules that samples of its minibatch used and no other: Adam's and
      RMSProp's moments of the rest stand still, as if there had been no step;
    - a genotype that has won keeps its worth until it is evaluated again;
    - of games, a rival worth the same overwrites nothing: as long as all of them end at 0, most
      genotypes would else give way to copies of a few, before there is anything to choose by;
    - where frozen modules stay active, modules are averaged, not summed: a sum grows with all that
      earlier tasks have frozen, beyond what weights are scaled for (10- to 30-fold by the fourth
      game), a mean hardly changes;
    - initial weights are scaled so that N modules together start like a layer (`init`);
    - the best path, of which the paper says only that it is the fittest: of games, the one whose
      last evaluations, of 5 games or more where it has had as many, were farthest above what all
      genotypes were worth at the time, as if two evaluations more had been neither above nor below
      (`tournaments.Population.ranked`): one lucky game decides nothing; of pictures, whose last
      evaluation may be long ago, the best of the fittest 5 on `window` batches of training data at
      the task's end. Of equals the last evaluated; if none was, the one whose games so far were
      best.
    """

    modules: int = 10
    """M, modules of each layer: more leave room for more tasks and cost as much time."""
    active: int = 4
    """N, the most modules that a path uses in a layer (the paper's 4 for games, 3 for MNIST)."""
    population: int | None = None
    """Genotypes, at least one for each environment (the paper's 64); null: one for each, pictures
    64; 1: a random path that stays, the control of evolution."""
    tournament: int = 3
    """Games: how many others a genotype meets (B; pictures: one): more press harder."""
    episodes: int = 1
    """Games of an evaluation (T; the paper tried 1, 10, 50): more are surer, and slower."""
    window: int = 50
    """Pictures: batches of an evaluation."""
    mutation: float | None = None
    """Chance that an element mutates; null: the paper's 1 / (N L)."""
    edges: Edges = "clamp"
    """A mutation beyond the first or last module stops there, or comes in at the other (`wrap`)."""
    aggregate: Aggregate | None = None
    """What the next layer gets of the active modules: their `sum`, as in the paper, or `mean`;
    null: the mean where frozen modules stay active, as their number grows; else the sum."""
    aggregate_last: Aggregate | None = None
    """The same for the heads (the paper's MNIST is said to have the mean)."""
    keep_frozen_active: bool | None = None
    """Frozen modules are in every later path; null: as in the paper for games, not for pictures."""
    init: Literal["scaled", "plain"] = "scaled"
    """Start N modules together as large as a plain layer; `plain`: each (sums then grow)."""

    _COLUMNS: ClassVar[tuple[str, ...]] = (  # of the history, a row a tournament
        "visit",
        "seen",  # games finished, or batches, in the visit
        "winner",  # fitness of the tournament's winner
        "measured",  # mean of what was measured for it
        "best",  # of the population
        "mean",  # of those whose fitness is known
        "diversity",
        "overwritten",  # whether the tournament had a loser
    )

    def __post_init__(self) -> None:
        for name in ("modules", "active", "tournament", "episodes", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        if self.active > self.modules:
            raise ValueError(
                f"active is {self.active}: expected at most as many as modules, {self.modules}"
            )
        if self.population is not None and self.population < 1:
            raise ValueError(f"population is {self.population}: expected 1 or more, or null")
        if self.mutation is not None and not 0 <= self.mutation <= 1:
            raise ValueError(f"mutation is {self.mutation}: expected a chance from 0 to 1, or null")

    # ------------------------------------------------------------------------------------ hooks

    def build(self, spec: NetSpec) -> Net:
        """Make a net without a path for any task yet.

        Raises:
            ClrlError: (exit 2) the task is not known when the net is used, the body is no chain of
                layers, or of games the population is smaller than the tournament.
        """
        if not spec.masks:
            raise ClrlError(
                "PathNet chooses a path by the task, which this scenario hides: use "
                "sequence.scenario=task, or another method",
                2,
            )
        self._games = spec.has_value
        self._size = self.population or (1 if self._games else PICTURES_POPULATION)
        if self._games and self._size > 1:
            self._require_rivals("method.population", self._size)
        keep = self.keep_frozen_active
        self._keeps = self._games if keep is None else keep
        usual: Aggregate = "mean" if self._keeps else "sum"
        settings = PathSettings(
            self.modules,
            self.active,
            self.aggregate or usual,
            self.aggregate_last or usual,
            self.init == "scaled",
        )
        self._net = self._paths = PathNet(spec, settings)
        self._generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        self._begun: list[int] = []  # task ids, one a visit
        self._evolves = False
        self._seen = 0
        self._history: list[tuple[float, ...]] = []
        self._winners: dict[int, Tensor] = {}  # by visit, from 1: (L, N) genotypes
        self._taken: dict[int, Tensor] = {}  # by visit: (L, M), its path, frozen modules and all
        self._frozen_after: dict[int, Tensor] = {}  # by visit: (L, M)
        self._make_population()
        return self._paths

    def require_rollout(self, n_envs: int, n_steps: int, bytes_per_value: int) -> None:
        if self.population is None:
            self._require_rivals("method.population is null, and agent.n_envs", n_envs)
        elif 1 < self.population < n_envs:
            raise ClrlError(
                f"agent.n_envs is {n_envs}: expected at most {self.population}, a genotype for "
                f"each environment, as method.population is {self.population}",
                2,
            )

    def begin_task(self, task: Task) -> None:
        self._evolves = task.id not in self._begun
        if self._evolves:
            if self._begun:
                self._warn_if_short(task)
                self._paths.renew()
            self._make_population()
            self._seen = 0
        self._begun.append(task.id)
        self._paths.train_only(task, modules=self._evolves)
        self._show_paths()

    def end_task(self, task: Task, data: Iterator[Batch]) -> None:
        if self._evolves:
            self._show_population()
            best = self._pool.genotypes[self._best(data)]
            self._show_path(best)
            visit = len(self._begun)
            self._winners[visit], self._taken[visit] = best.clone(), self._active(best)
            self._paths.freeze(active_modules(best, self.modules))
            self._evolves = False
        self._frozen_after[len(self._begun)] = self._paths.frozen.cpu().clone()

    def route(
        self, task: Task, n: int, *, training: bool, finished: Sequence[Episode] = ()
    ) -> Tensor:
        if not training or not self._evolves:
            return as_route(task, n)
        if isinstance(self._tournaments, Serial):
            if self._changed:
                self._show_population()
            return torch.full((n,), self._row_of[self._tournaments.current])
        if not finished:
            if len(self._tournaments.holds) != n:
                self._assign(n)
            self._show_population()  # rows that the last rollout's steps needed go
        self._seen += len(finished)
        for outcome in self._tournaments.finished([(e.env, e.return_) for e in finished]):
            self._note(outcome)
            if outcome.loser is not None:  # steps of this rollout keep the row it had
                active = self._active(self._pool.genotypes[outcome.loser])
                self._row_of[outcome.loser] = self._paths.add_row(active)
        self._show_best()
        return torch.tensor([self._row_of[g] for g in self._tournaments.holds])

    def observe(self, batch: Batch, progress: float) -> None:
        if not self._evolves or not isinstance(self._tournaments, Serial):
            return
        self._seen += 1
        outcome = self._tournaments.saw(batch.score.mean(dtype=torch.float64))
        if outcome is not None:
            self._note(outcome)
            self._show_best()
            self._changed = True  # the batch keeps the row it was learned by until the next one

    # ------------------------------------------------------------------------------------ paths

    def _make_population(self) -> None:
        shape = (self._size, self._paths.n_layers, self.active)
        rate = self.mutation
        if rate is None:
            rate = 1 / (self.active * self._paths.n_layers)
        kept = -(-GAMES // self.episodes) if self._games else 1
        self._pool = Population(shape, self.modules, rate, self.edges, self._generator, kept)
        self._tournaments: Serial | Asynchronous
        if self._games:
            self._tournaments = Asynchronous(self._pool, self.episodes, self.tournament)
        else:
            self._tournaments = Serial(self._pool, self.window)

    def _assign(self, n: int) -> None:
        """Give n environments a genotype each; of other than before, in the visit, keep all."""
        assert isinstance(self._tournaments, Asynchronous)
        if self.population is None and self._tournaments.holds:  # resumed with another number
            self._pool.grow(n)
            self._size = len(self._pool.genotypes)
        elif self.population is None and self._size != n:
            self._size = n
            self._make_population()
        self._tournaments.assign(n)

    def _require_rivals(self, name: str, size: int) -> None:
        if size <= self.tournament:
            raise ClrlError(
                f"{name} is {size}: expected more than method.tournament, "
                f"{self.tournament}, as a genotype meets so many others; or a method.population "
                "of 1, a path that stays",
                2,
            )

    def _best(self, data: Iterator[Batch]) -> int:
        """Return the genotype whose path is the task's; pictures: of a few, scored side by side."""
        few = self._pool.fittest()[:SCORED]
        if self._games or len(few) < 2:
            return self._tournaments.best()
        right = [0] * len(few)
        with torch.no_grad():
            for batch in islice(data, self.window):
                for k, genotype in enumerate(few):
                    route = torch.full_like(batch.route, self._row_of[genotype])
                    answer = self._paths(batch.x, route).logits.argmax(-1)
                    right[k] += int((answer == batch.target).sum())
        return few[right.index(max(right))]

    def _active(self, genotypes: Tensor) -> Tensor:
        """Return (..., L, M) bool: what paths of the task being learned use."""
        active = active_modules(genotypes, self.modules)
        return active | self._paths.frozen.cpu() if self._keeps else active

    def _show_paths(self) -> None:
        """Bring the net's rows up to date: the population's, and this task's own."""
        self._show_population()
        self._show_best()

    def _show_population(self) -> None:
        self._paths.set_population(self._active(self._pool.genotypes))
        n_tasks = len(self._paths.paths)
        self._row_of = list(range(n_tasks, n_tasks + self._size))
        self._changed = False

    def _show_best(self) -> None:
        if self._evolves:
            self._show_path(self._pool.genotypes[self._tournaments.best()])

    def _show_path(self, genotype: Tensor) -> None:
        self._paths.set_path(self._paths.spec.tasks[self._begun[-1]], self._active(genotype))

    def _warn_if_short(self, task: Task) -> None:
        free = enumerate(self._paths.free, 1)
        short = [f"{n} in layer {i}" for i, n in free if n < self.active]
        if short:
            none = "; with none at all only its heads learn" if not any(self._paths.free) else ""
            log.warning(
                "fewer modules are free than method.active, %d, for %s: %s, of %d layers; there "
                "its paths share frozen ones%s: set a higher method.modules, %d for %d tasks that "
                "share none",
                self.active,
                task.name,
                ", ".join(short),
                self._paths.n_layers,
                none,
                self.active * len(self._paths.spec.tasks),
                len(self._paths.spec.tasks),
            )

    # ---------------------------------------------------------------------------------- records

    def _note(self, outcome: Outcome) -> None:
        known = self._pool.fitness[~self._pool.fitness.isnan()]
        best, mean = float(known.max()), float(known.mean())
        spread = diversity(self._pool.genotypes, self.modules)
        where = (len(self._begun), self._seen)
        lost = float(outcome.loser is not None)
        self._history.append((*where, outcome.winner, outcome.mean, best, mean, spread, lost))

    def records(self) -> dict[str, float]:
        """Return the last tournament's figures, how many there were, and what is left to learn.

        `generations` are tournaments, of games one an evaluation; `overwritten` tells how many had
        a loser. `trainable_share`: of the modules that the population names, how many are not
        frozen, counted path by path; none in another visit to a task, which evolves nothing.
        """
        own = [row for row in self._history if row[0] == len(self._begun)]
        figures = dict(zip(self._COLUMNS, own[-1], strict=True)) if own else {}
        free = {f"free_modules_{i}": float(n) for i, n in enumerate(self._paths.free, 1)}
        return {
            "generations": float(len(own)),
            "overwritten": sum((row[-1] for row in own), 0.0),
            **self._population_records(),
            **{f"fitness_{k}": figures[k] for k in ("winner", "best", "mean") if k in figures},
            **{k: figures[k] for k in ("diversity",) if k in figures},
            **free,
        }

    def _population_records(self) -> dict[str, float]:
        if self._begun and self._begun[-1] in self._begun[:-1]:  # the population is a visit's past
            return {"trainable_share": 0.0}
        named = active_modules(self._pool.genotypes, self.modules)
        free = named & ~self._paths.frozen.cpu()
        return {
            "evaluated": float((~self._pool.fitness.isnan()).sum()),
            "trainable_share": float(free.sum() / named.sum()),
        }

    # ------------------------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return the evolution's state; for each visit its winner, its path and what was frozen.

        `keeps` tells whether frozen modules are in every later path: in `paths` with a winner's own
        modules. `history` has a row a tournament, with the columns that `history_columns` names.
        """
        rows = torch.tensor(self._history, dtype=torch.float64)
        return {
            "evolves": self._evolves,
            "seen": self._seen,
            "generator": self._generator.get_state(),
            "population": self._pool.state_dict(),
            "tournaments": self._tournaments.state_dict(),
            "keeps": self._keeps,
            "winners": dict(self._winners),
            "paths": dict(self._taken),
            "frozen_after": dict(self._frozen_after),
            "history": rows.reshape(-1, len(self._COLUMNS)),
            "history_columns": list(self._COLUMNS),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["history_columns"] != list(self._COLUMNS):
            raise RuntimeError(f"a history of {state['history_columns']}, of an older version")
        self._evolves, self._seen = state["evolves"], state["seen"]
        if self.population is None and self._games:
            self._size = len(state["population"]["genotypes"])
            self._make_population()
        self._generator.set_state(state["generator"])
        self._pool.load_state_dict(state["population"])
        self._tournaments.load_state_dict(state["tournaments"])
        self._winners, self._taken = dict(state["winners"]), dict(state["paths"])
        self._frozen_after = dict(state["frozen_after"])
        self._history = [tuple(row) for row in state["history"].tolist()]
        if self._begun:
            task = self._paths.spec.tasks[self._begun[-1]]
            # as it was when the visit began: its end has frozen modules that the optimizer holds
            none = torch.zeros_like(self._paths.frozen)
            before = self._frozen_after.get(len(self._begun) - 1, none)
            new = task.id not in self._begun[:-1]
            self._paths.train_only(task, modules=new, frozen=before)
        self._show_population()  # the task's own path comes with the net
