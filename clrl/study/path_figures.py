"""Drawings of `clrl.study.paths`, in the manner of `clrl.study.figures`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clrl.study.figures import (
    COLORS,
    MARKERS,
    by_layer,
    name_lines,
    overlap_matrix_figure,
    side_by_side,
)
from clrl.study.paths import WHOLE, Paths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["evolution_figure", "frozen_figure", "module_overlap_figure", "paths_figure"]

KINDS = (  # as `Paths.kinds` numbers them: name, colour, marker, its size, its sign
    ("free", "#999999", ".", 10, "\u00b7"),
    ("new", COLORS[0], "s", 60, "\u25a0"),
    ("reused", COLORS[1], "D", 55, "\u25c6"),
    ("frozen, unused", "#999999", "s", 60, "\u25a0"),
)
ALWAYS_ON = "frozen, always on"  # the name of `reused` where there is no choice


def paths_figure(paths: Paths) -> Figure:
    """Draw each visit's path through the modules, a row a layer, the input at the bottom."""
    n_layers, n_modules = paths.active.shape[1:]
    size = {"width": max(2.6, 0.9 + 0.24 * n_modules), "height": 1.2 + 0.34 * n_layers}
    figure, panels = side_by_side(len(paths.visits), **size, share=True)
    names = [ALWAYS_ON if k == 2 and paths.always_on else kind[0] for k, kind in enumerate(KINDS)]
    for axes, name, kinds in zip(panels, paths.visits, paths.kinds(), strict=True):
        for k, (label, (_, color, marker, area, _)) in enumerate(zip(names, KINDS, strict=True)):
            layer, module = np.nonzero(kinds == k)
            axes.scatter(
                module + 1, layer + 1, s=area, c=color, marker=marker, label=label, linewidths=0
            )
        axes.set(title=name, xlabel="module", xlim=(0.3, n_modules + 0.7))
        axes.set_xticks(range(1, n_modules + 1, 1 if n_modules < 6 else 3))
        axes.set_yticks(range(1, n_layers + 1))
        axes.set_ylim(0.4, n_layers + 0.6)
    panels[0].set_ylabel("layer")
    shown = list(zip(names, KINDS, strict=True))[: 3 if paths.always_on else 4]
    for k, (label, (_, color, _, _, sign)) in enumerate(shown):
        panels[-1].annotate(
            f"{sign} {label}",
            (1.03, 0.95 - 0.14 * k),
            xycoords="axes fraction",
            color=color,
            va="top",
            annotation_clip=False,
        )
    return figure


def module_overlap_figure(paths: Paths) -> Figure:
    """Draw which share of modules visits' genotypes have in common, a panel a layer; and by chance.

    The last panel has what all layers would share if modules were chosen at random.
    """
    by_chance = {"by chance": paths.overlap_by_chance()[WHOLE]}
    figure = overlap_matrix_figure(paths.overlap() | by_chance, paths.names)
    figure.axes[-1].set_ylabel("share in common")  # the colour bar's
    return figure


def frozen_figure(paths: Paths) -> Figure:
    """Draw by layer which share of modules is frozen, a line for each visit's end."""
    figure, axes = by_layer(paths.frozen_share())
    axes.set(ylabel="share of modules frozen", ylim=(-0.02, 1.02))
    name_lines(axes)
    return figure


def evolution_figure(paths: Paths) -> Figure:
    """Draw the population's mean fitness and its diversity over a visit's games or batches.

    Fitness of scales of its own has a panel a visit, the last panel is diversity.
    """
    fitness = paths.by_scale
    figure, panels = side_by_side(len(fitness) + 1, width=4.2, height=3.0, share=False)
    for axes, visits in zip(panels, [*fitness, range(len(paths.visits))], strict=True):
        label, column = "mean fitness of the population", "mean"
        if axes is panels[-1]:
            label, column = "diversity of paths", "diversity"
        for i in visits:
            y = getattr(paths.evolution[i], column)
            axes.plot(
                paths.evolution[i].seen,
                y,
                color=COLORS[i % len(COLORS)],
                marker=MARKERS[i % len(MARKERS)],
                markevery=max(1, len(y) // 8),
                label=paths.visits[i],
            )
        if len(visits) == 1:
            axes.set_title(paths.visits[visits[0]])
        else:
            name_lines(axes)
        axes.set(xlabel="games or batches", ylabel="" if axes in panels[1:-1] else label)
    panels[-1].set_ylim(-0.02, 1.02)
    return figure
