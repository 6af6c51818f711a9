"""Which features transfer: what a progressive net's policy rests on, layer by layer and column.

The two analyses of Rusu et al. (2016), section 3, of a net that has learned a target task; rho is
what it meets and does there. h_i^(k) are the activations, after f and before any pool, of layer i
in column k; "normalised" is divided by the standard deviation over rho of the unit, for a
convolution of the map, all its positions together.

Both ask what happens if h_i^(k) alone is something else, with all that follows from it: what the
layers above it in its own column, and all later columns, make of it (a total derivative).
`clrl.study.features` does both for a finished run, `clrl.study.figures.shares_figure` draws them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clrl.run.folder import write_json_atomic
from clrl.types import ClrlError, Output

__all__ = [
    "BRACKET",
    "TOLERANCE",
    "Activations",
    "Noise",
    "Sensitivities",
    "Shares",
    "Traced",
    "activations",
    "halving_noise",
    "load_sensitivities",
    "noisy",
]

Change = Callable[[int, int, Tensor], Tensor]  # of layer i, column k, h_i^(k): what stands for it
BRACKET = (0.01, 100.0)  # of sigma: from noise that nothing feels to noise that drowns everything
TOLERANCE = 1.1
ROWS = 256  # observations in one pass


class Traced(Protocol):
    """A net whose activations can be seen and changed (see `ProgressiveNet.traced`)."""

    column_of: dict[int, int]  # by task id

    def traced(self, x: Tensor, route: Tensor, change: Change) -> Output: ...


# ------------------------------------------------------------------------------- what is found


@dataclass(frozen=True)
class Noise:
    """The noise that halves a score.

    Attributes:
        sigma: its standard deviation, in those of the activations.
        bound: no sigma up to this one, the bracket's upper end, does (or, at its lower end, every
            one does): the true value lies beyond.
    """

    sigma: float
    bound: bool


@dataclass(frozen=True, eq=False)
class Shares:
    """How much of a layer's sensitivity falls to each column, by layer.

    Attributes:
        layers: L names, from input to output.
        columns: K names of the tasks that they were made for, oldest first; the last is the
            target's own.
        share: (L, K), rows sum to 1; NaN where nothing is sensitive.
        bound: (L, K), whether the value behind it is only known to lie beyond the bracket.
    """

    layers: tuple[str, ...]
    columns: tuple[str, ...]
    share: NDArray[np.float64]
    bound: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Sensitivities:
    """What was found in one run on one task.

    Attributes:
        task: the target.
        layers: names of layers, from input to output.
        columns: names of columns, as in `Shares`.
        n_states: observations that the Fisher information is a mean over.
        score: mean return without noise.
        random_score: mean return of uniformly random legal actions, in as many games.
        fisher: F_i^(k)(m, m) as [layer][column][unit or map].
        noise: [layer][column]; None if it was not asked for.
    """

    task: str
    layers: tuple[str, ...]
    columns: tuple[str, ...]
    n_states: int
    score: float
    random_score: float
    fisher: list[list[list[float]]]
    noise: list[list[Noise]] | None

    @property
    def afs_units(self) -> list[NDArray[np.float64] | None]:
        """`AFS(i, k, m) = F_i^(k)(m, m) / sum_k F_i^(k)(m, m)`: (K, units) for each layer.

        Units of the same number are compared, as in the paper: None for a layer whose columns are
        not equally wide. NaN where a unit is sensitive in no column.
        """
        return [_unit_shares(row) for row in self.fisher]

    @property
    def afs(self) -> Shares:
        """`sum_m F_i^(k)(m, m) / sum_k sum_m F_i^(k)(m, m)`.

        The paper's sum of AFS(i, k, m) over m goes up to the number of units, and counts those
        that hardly matter as much as any; the sums' ratio is a share, for columns of any width.
        """
        sums = np.array([[math.fsum(units) for units in row] for row in self.fisher])
        return Shares(self.layers, self.columns, _shares(sums), np.zeros(sums.shape, dtype=bool))

    @property
    def aps(self) -> Shares | None:
        """`APS(i, k) = Lambda_i^(k) / sum_k Lambda_i^(k)`, `Lambda = 1 / sigma^2`; None: not asked.

        In a layer where only bounds are known of all columns, they share equally, and mean nothing.
        """
        if self.noise is None:
            return None
        precision = np.array([[noise.sigma**-2.0 for noise in row] for row in self.noise])
        bound = np.array([[noise.bound for noise in row] for row in self.noise])
        return Shares(self.layers, self.columns, _shares(precision), bound)

    def save(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            ClrlError: the file cannot be written.
        """
        try:
            write_json_atomic(path, asdict(self))
        except OSError as error:
            raise ClrlError(f"cannot write {path}: {error.strerror}") from error


def load_sensitivities(path: Path) -> Sensitivities:
    """Read what `Sensitivities.save` wrote.

    Raises:
        ClrlError: it cannot be read, or is something else.
    """
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        for key in ("layers", "columns"):
            data[key] = tuple(data[key])
        if data["noise"] is not None:
            data["noise"] = [[Noise(**noise) for noise in row] for row in data["noise"]]
        return Sensitivities(**data)
    except OSError as error:
        raise ClrlError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ClrlError(f"{path} holds no sensitivities ({error}): make it anew") from error


def _unit_shares(row: list[list[float]]) -> NDArray[np.float64] | None:
    if len({len(units) for units in row}) > 1:
        return None
    return _shares(np.array(row).T).T


def _shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each row divided by its sum; NaN for a row of zeros."""
    total = values.sum(-1, keepdims=True)
    share = np.full(values.shape, math.nan)
    np.divide(values, total, out=share, where=total > 0)
    return share


# ---------------------------------------------------------------------------------- how it is found


@dataclass(frozen=True, eq=False)
class Activations:
    """What is known of the activations of one layer and column; of each unit or map.

    Attributes:
        is_map: whether it is a convolution's.
        std: (n,) over rho, positions together.
        fisher: (n,) F(m, m).
    """

    is_map: bool
    std: Tensor
    fisher: Tensor


def activations(
    net: Traced, x: Tensor, route: Tensor, generator: torch.Generator
) -> dict[tuple[int, int], Activations]:
    """Estimate the diagonal Fisher information of normalised activations, by layer and column.

        F_i^(k)(m, m) = E_{s, a ~ rho} [ sum_p (std_m d log pi(a|s) / d h_{i,m,p}^(k))^2 ]

    p goes over the positions of map m. The paper does not say how they are joined: here squares
    are summed, so that positions cannot cancel each other, as they would in the square of a sum.

    Args:
        net: in `eval` mode.
        x: (B, *input_shape) observations from rho.
        route: (B,) long, the target's.
        generator: draws the actions, from the net's own policy.
    """
    places: dict[tuple[int, int], Tensor] = {}
    sums: dict[tuple[int, int], Tensor] = {}  # (3, n): of h, of h^2, of the gradient's squares

    def keep(i: int, k: int, h: Tensor) -> Tensor:
        places[i, k] = h.requires_grad_()  # frozen weights alone would leave it without gradient
        return places[i, k]

    for rows in (slice(start, start + ROWS) for start in range(0, len(x), ROWS)):
        with torch.enable_grad():
            log_pi = net.traced(x[rows], route[rows], keep).logits.log_softmax(-1)
            action = torch.multinomial(log_pi.detach().exp().cpu(), 1, generator=generator)
            logp = log_pi.gather(-1, action.to(x.device)).sum()  # samples do not mix
            gradients = torch.autograd.grad(logp, list(places.values()), allow_unused=True)
        for (place, h), gradient in zip(places.items(), gradients, strict=True):
            h = h.detach().double()
            g = torch.zeros_like(h) if gradient is None else gradient.double()
            parts = [_by_unit(part) for part in (h, h.square(), g.square())]
            sums[place] = sums.get(place, 0) + torch.stack(parts)
    found = {}
    for place, (total, squares, gradients_squared) in sums.items():
        n = len(x) * places[place][0, 0].numel()
        variance = (squares / n - (total / n).square()).clamp(min=0)
        fisher = variance * gradients_squared / len(x)
        found[place] = Activations(places[place].dim() > 2, variance.sqrt(), fisher)
    return found


def _by_unit(values: Tensor) -> Tensor:
    """Sum (B, n, ...) over all but units or maps."""
    return values.flatten(2).sum((0, 2)) if values.dim() > 2 else values.sum(0)


def noisy(place: tuple[int, int], std: Tensor, sigma: float, generator: torch.Generator) -> Change:
    """Return what adds N(0, sigma^2 Var(h)) to one layer and column, drawn anew at each call.

    Var is that of the unit, or of the map; positions get noise of their own.
    """

    def change(i: int, k: int, h: Tensor) -> Tensor:
        if (i, k) != place:
            return h
        scale = (sigma * std).to(h).reshape(-1, *[1] * (h.dim() - 2))
        return h + scale * torch.randn(h.shape, generator=generator).to(h)

    return change


def halving_noise(
    score: Callable[[float], float],
    half: float,
    bracket: tuple[float, float] = BRACKET,
    tolerance: float = TOLERANCE,
) -> Noise:
    """Find the sigma at which a score falls to `half`, by bisection of log sigma.

    Scores of games are themselves random, and need not fall evenly: what is found is a place where
    a score above `half` and one not above it are neighbours.

    Args:
        score: of sigma.
        half: what counts as fallen.
        bracket: the least and the largest sigma that are tried.
        tolerance: stop when the two are so near to each other: a ratio. Their geometric mean is
            returned; its Lambda is then right within this ratio, for a score without chance.
    """
    low, high = bracket
    if score(high) > half:
        return Noise(high, bound=True)
    while high / low > tolerance:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if score(middle) > half else (low, middle)
    if low == bracket[0] and score(low) <= half:
        return Noise(low, bound=True)
    return Noise(math.sqrt(low * high), bound=False)
