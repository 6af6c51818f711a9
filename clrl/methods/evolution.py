"""The genetic algorithm of paths: genotypes, their mutation, and what a path is made of.

A genotype is an (L, N) table of integers, the modules that a path uses in each of L layers. What
counts is the set: a module named twice in a layer is one module of the path.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["Edges", "active_modules", "diversity", "drawn_rivals", "mutated", "random_genotypes"]

Edges = Literal["clamp", "wrap"]

FARTHEST = 2  # a mutated element moves by an integer from -2 to 2


def random_genotypes(
    n: int, n_layers: int, n_active: int, n_modules: int, generator: torch.Generator
) -> Tensor:
    """Draw (n, L, N) long: every element one of 0..M-1, all alike."""
    return torch.randint(n_modules, (n, n_layers, n_active), generator=generator)


def mutated(
    genotype: Tensor, n_modules: int, rate: float, edges: Edges, generator: torch.Generator
) -> Tensor:
    """Return a copy in which each element has moved with chance `rate`.

    It moves by an integer from -2 to 2, 0 among them, all alike; what leaves 0..M-1 is stopped at
    the edge (`clamp`, the first author's) or comes in at the other (`wrap`).
    """
    # one draw each, whatever the chances: the stream then depends on nothing but the shape
    chosen = torch.rand(genotype.shape, generator=generator) < rate
    move = torch.randint(-FARTHEST, FARTHEST + 1, genotype.shape, generator=generator)
    moved = genotype + chosen * move
    return moved.clamp(0, n_modules - 1) if edges == "clamp" else moved.remainder(n_modules)


def active_modules(genotype: Tensor, n_modules: int) -> Tensor:
    """Return (..., L, M) bool for genotypes (..., L, N): each layer's set of modules."""
    shape = (*genotype.shape[:-1], n_modules)
    return torch.zeros(shape, dtype=torch.bool).scatter_(-1, genotype, True)


def drawn_rivals(fitness: Tensor, own: int, n: int, generator: torch.Generator) -> list[int]:
    """Draw n of all others, or all if they are fewer; return those whose fitness is known.

    One that is pending (NaN) takes its place in the draw and never wins: the fewer are known, the
    rarer is a rival.
    """
    drawn = torch.randperm(len(fitness) - 1, generator=generator)[:n]
    others = drawn + (drawn >= own)
    return others[~fitness[others].isnan()].tolist()


def diversity(genotypes: Tensor, n_modules: int) -> float:
    """Return how unlike the paths of a population (P, L, N) are: 0 all the same, 1 disjoint.

    1 less the share that two paths' sets have in common (intersection over union), the mean over
    all pairs and layers.
    """
    n = len(genotypes)
    if n < 2:
        return 0.0
    sets = active_modules(genotypes, n_modules).transpose(0, 1).float()  # (L, P, M)
    common = sets @ sets.mT
    size = sets.sum(-1)
    share = common / (size[:, :, None] + size[:, None, :] - common)
    alike = (share.sum((1, 2)) - n) / (n * (n - 1))  # the diagonal, n times 1, taken out
    return 1.0 - float(alike.mean())
