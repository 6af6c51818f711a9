"""Which features transfer, in a finished run: plays its games, and see `clrl.study.sensitivity`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from clrl.run import checkpoint
from clrl.run.assemble import assemble, sequence_of
from clrl.run.config import load_config
from clrl.run.folder import RunFolder
from clrl.run.yaml_safe import nearest
from clrl.study.sensitivity import (
    BRACKET,
    TOLERANCE,
    Noise,
    Sensitivities,
    Traced,
    activations,
    halving_noise,
    noisy,
)
from clrl.types import MASKED, ClrlError, Net, Output, Task, TaskSequence, as_route

__all__ = ["sensitivities"]

log = logging.getLogger(__name__)


def sensitivities(
    run: Path,
    task: str | None = None,
    *,
    states: int = 2_048,
    episodes: int = 10,
    perturb: bool = True,
    bracket: tuple[float, float] = BRACKET,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    sequence: TaskSequence | None = None,
) -> Sensitivities:
    """Analyse a run's newest checkpoint on one of its games; changes nothing in the run.

    The drop that noise must cause is half of what the net scores above random play: half of the
    score, as in the paper, only where random play scores 0 (in Pong it scores -20.7). Games are
    always played by the sampled policy, in the run's precision, and every score is of the same
    games.

    Args:
        run: the run folder, of a method with columns.
        task: the target; None: the one that was begun last.
        states: observations for the Fisher information, drawn evenly from all that are met in full
            games: `episodes` of them, or more if they are short.
        episodes: full games of a score.
        perturb: also find the noise, which takes some 8 scores for each layer and column.
        bracket: the least and the largest sigma that are tried.
        tolerance: see `halving_noise`.
        seed: of games, actions and noise.
        sequence: what the run was started with in place of its configuration's tasks.

    Raises:
        ClrlError: no such run, no checkpoint yet, no such task, no column for it, no columns, no
            games, or a net that plays no better than chance (with `perturb`).
    """
    if states < 1 or episodes < 1:
        raise ClrlError(f"states is {states}, episodes {episodes}: expected at least 1", 2)
    if not (0 < bracket[0] < bracket[1] < math.inf and tolerance > 1):
        raise ClrlError(
            f"bracket is {bracket}, tolerance {tolerance}: expected 0 < a < b, and above 1", 2
        )
    folder = RunFolder.open(run)
    config = load_config(folder.config, ["evaluation.policy=sample"])
    found = checkpoint.load_latest(folder.checkpoints)
    if found is None:
        raise ClrlError(f"{run} has no checkpoint yet: nothing to analyse", 2)
    sequence = sequence or sequence_of(config)
    learner = assemble(config, sequence)
    learner.load_net(found.state["learner"], sequence.tasks)
    net = learner.net.eval()
    last = learner.begun[-1] if learner.begun else sequence.tasks[0]
    target = _target(run, task or last.name, sequence)
    if learner.kind != "rl" or not hasattr(net, "traced") or not net.can_play(target):
        raise ClrlError(
            f"{run} ({learner.kind}, {type(learner.method).__name__}) has no column that plays "
            f"{target.name!r}: expected a run of games, of method progressive, that has begun it",
            2,
        )
    games = _Games(learner, target, episodes, seed)
    try:
        return _analysed(games, states, sequence, (bracket, tolerance) if perturb else None)
    finally:
        learner.close()


def _target(run: Path, name: str, sequence: TaskSequence) -> Task:
    names = [task.name for task in sequence.tasks]
    if name not in names:
        raise ClrlError(f"{run} has no task {name!r}{nearest(name, names)}", 2)
    return sequence.tasks[names.index(name)]


def _analysed(
    games: _Games,
    states: int,
    sequence: TaskSequence,
    search: tuple[tuple[float, float], float] | None,
) -> Sensitivities:
    net = cast(Traced, games.net)
    score, x = games.states(states)
    random_score = games.score(games.at_random)
    generator = torch.Generator().manual_seed(games.seed)
    found = activations(net, x, as_route(games.task, len(x), x.device), generator)
    n_layers, n_columns = (1 + max(place[axis] for place in found) for axis in (0, 1))
    layers = [f"{'conv' if found[i, 0].is_map else 'fc'} {i + 1}" for i in range(n_layers)]
    owner = {k: sequence.tasks[task_id].name for task_id, k in net.column_of.items()}
    columns = [owner.get(k, "random") for k in range(n_columns)]
    noise = None
    if search is not None:
        if not score > random_score:
            raise ClrlError(
                f"the net scores {score:.1f} on {games.task.name!r} and random play "
                f"{random_score:.1f}: there is nothing that noise could halve; perturb=False "
                "leaves this analysis out",
                2,
            )
        half, noise = (score + random_score) / 2, list[list[Noise]]()
        for i, layer in enumerate(layers):
            noise.append([])
            for k, column in enumerate(columns):
                scored = partial(games.score_with_noise, (i, k), found[i, k].std)
                noise[i].append(halving_noise(scored, half, *search))
                log.info("%s, column %s: %s", layer, column, noise[i][k])
    fisher = [[found[i, k].fisher.tolist() for k in range(n_columns)] for i in range(n_layers)]
    return Sensitivities(
        games.task.name, tuple(layers), tuple(columns), len(x), score, random_score, fisher, noise
    )


# ----------------------------------------------------------------------------------- games, played


Answer = Callable[[Tensor, Tensor], Output]  # to observations and routes


class _Player(Protocol):
    """What is used of a learner."""

    net: Net

    def evaluate(self, task: Task, episodes: int, seed: int) -> list[dict[str, Any]]: ...


class _Answering(Net):
    """In a net's place, what answers for it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, route: Tensor, context: Tensor | None = None) -> Output:
        return self.answer(x, route)


class _Games:
    """Full games of the target, in which others may answer for the net."""

    def __init__(self, player: _Player, task: Task, episodes: int, seed: int) -> None:
        self.player, self.net, self.task = player, player.net, task
        self.episodes, self.seed = episodes, seed

    def score(self, answer: Answer, series: int = 0) -> float:
        """Return the mean score of a series of games: the same ones whoever answers."""
        self.player.net = _Answering(answer)
        try:
            rows = self.player.evaluate(self.task, self.episodes, self.seed + series)
        finally:
            self.player.net = self.net
        return float(np.mean([row["return"] for row in rows]))

    def score_with_noise(self, place: tuple[int, int], std: Tensor, sigma: float) -> float:
        change = noisy(place, std, sigma, torch.Generator().manual_seed(self.seed))
        net = cast(Traced, self.net)
        return self.score(lambda x, route: net.traced(x, route, change))

    def at_random(self, x: Tensor, route: Tensor) -> Output:
        """Hold all actions that the task has equally likely."""
        logits = self.net(x, route).logits
        return Output(logits.masked_fill(logits != MASKED, 0.0), None)

    def states(self, n: int) -> tuple[float, Tensor]:
        """Return the score, and n observations of those met: any as likely as any other."""
        rng, kept, met = np.random.default_rng(self.seed), list[Tensor](), 0

        def watched(x: Tensor, route: Tensor) -> Output:
            nonlocal met
            for row in x:
                met += 1
                if len(kept) < n:
                    kept.append(row.clone())
                elif (place := int(rng.integers(met))) < n:
                    kept[place] = row.clone()
            return self.net(x, route)

        score, series = self.score(watched), 0
        while met < n:  # short games
            series += 1
            self.score(watched, series)
        return score, torch.stack(kept)
