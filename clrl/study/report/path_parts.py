"""What a run of PathNet found: its paths, how evolution went, and what paths share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from clrl.errors import ClrlError
from clrl.study.paths import WHOLE, Evolution, Paths, load_paths, modules_text
from clrl.study.report.axes import Frame, marker, style
from clrl.study.report.charts import Line, LineChart
from clrl.study.report.document import Caution, Cell, Figure, Part, Table
from clrl.study.report.elements import Markup
from clrl.study.report.runs import Run

__all__ = ["PathChart", "path_parts"]

Shares = Mapping[str, Mapping[str, float | None]]  # by visit and layer

POINTS = 200  # of a line, at most
ROWS = 10  # of a visit, in the table of what lines show


@dataclass(frozen=True)
class PathChart:
    """One visit's path through the modules, a row a layer, the input at the bottom.

    Attributes:
        title: above it.
        kinds: (L, M) as `Paths.kinds`; free modules are dots, kind k has style k - 1.
    """

    title: str
    kinds: NDArray[np.int64]

    def svg(self) -> Markup:
        """Draw it."""
        n_layers, n_modules = self.kinds.shape
        x, y = (0.5, n_modules + 0.5), (0.5, n_layers + 0.5)
        frame = Frame(x, y, 60 + 26.0 * n_layers, "module", "layer", whole_y=True)
        marks = []
        for (layer, module), kind in np.ndenumerate(self.kinds):
            place = frame.at_x(module + 1), frame.at_y(layer + 1)
            own = style(int(kind) - 1)
            marks.append(
                marker(own.marker, *place, 5.0, fill=own.color)
                if kind
                else marker("circle", *place, 1.5, fill="#999")
            )
        return frame.svg(self.title, *marks)


def path_parts(label: str, run: Run) -> list[Part]:
    """Return what one run's evolution found; nothing before there is a path."""
    try:
        paths = load_paths(run.path)
    except ClrlError as error:  # no visit is through, no checkpoint any more, an older version
        return [Caution([f"no paths are shown: {error}"])] if run.finished else []
    name = f"{label}, seed {run.seed}"
    few: dict[str, list[str]] = {}
    for visit, layer, n in paths.short:
        few.setdefault(visit, []).append(f"{n} in {layer}")
    short = [
        f"{name}: when {visit} began, modules free were {', '.join(found)}, and a path takes "
        f"{paths.n_active} of each: there it had to share frozen ones"
        for visit, found in few.items()
    ]
    return [
        *([Caution(short)] if short else []),
        _visits(name, paths),
        _evolutions(name, paths),
        _drawn(name, paths),
        _frozen(name, paths),
        *([_shared(name, paths)] if len(paths.visits) > 1 else []),
    ]


def _visits(name: str, paths: Paths) -> Table:
    rows: list[list[Cell]] = []
    for visit, one, active in zip(paths.names, paths.evolution, paths.active, strict=True):
        ends: list[Cell] = [None] * 4
        held, lost = len(one.seen), int(one.overwritten.sum())
        if len(one.seen):
            ends = [float(x) for y in (one.mean, one.diversity) for x in (y[0], y[-1])]
        seen = int(one.seen[-1]) if len(one.seen) else 0
        rows.append([visit, held, lost, seen, *ends, modules_text(active)])
    columns = (
        *("visit", "tournaments", "overwritten", "games or batches", "mean fitness, first", "last"),
        *("diversity, first", "last", "its own modules, by layer"),
    )
    return Table(f"{name}: evolution, a row a visit", columns, rows)


def _evolutions(name: str, paths: Paths) -> Figure:
    rows: list[list[Cell]] = []
    for visit, one in zip(paths.names, paths.evolution, strict=True):
        for i in _some(one, ROWS):
            rows.append([visit, int(one.seen[i]), float(one.mean[i]), float(one.diversity[i])])
    columns = ("visit", "games or batches", "mean fitness", "diversity")
    return Figure(
        f"{name}: fitness and diversity of the population",
        "Mean fitness of the genotypes that were evaluated and not overwritten since, which is "
        "more than that of all that were tried: raw return, or accuracy from 0 to 1. "
        "Diversity is 0 where all paths are the same, 1 where no two share a module.",
        _over_games(paths),
        Table("mean fitness and diversity", columns, rows),
        paths.names,
    )


def _over_games(paths: Paths) -> list[LineChart]:
    """Return charts of fitness, several where its scales differ, and one of diversity."""
    x = "games or batches"
    fitness, diversity = [
        [
            Line(i, [(float(one.seen[k]), float(getattr(one, y)[k])) for k in _some(one, POINTS)])
            for i, one in enumerate(paths.evolution)
        ]
        for y in ("mean", "diversity")
    ]
    charts = []
    for visits in paths.by_scale:
        whole = len(visits) == len(paths.visits)
        title = "mean fitness" if whole else f"mean fitness, {paths.names[visits[0]]}"
        charts.append(LineChart(title, x, "", [fitness[i] for i in visits], include=(0.0,)))
    return [*charts, LineChart("diversity", x, "", diversity, include=(0.0, 1.0))]


def _some(one: Evolution, most: int) -> list[int]:
    """Return the places of at most so many tournaments, the first and the last among them."""
    n = len(one.seen)
    return sorted({int(i) for i in np.linspace(0, n - 1, min(n, most)).round()})


def _drawn(name: str, paths: Paths) -> Figure:
    frozen = ["frozen, always on"] if paths.always_on else ["reused", "frozen, unused"]
    return Figure(
        f"{name}: the path of each visit",
        "A row a layer, the input at the bottom; small dots are modules that are left free. The "
        "table has the share of each path's modules that were frozen before it.",
        [PathChart(*each) for each in zip(paths.names, paths.kinds(), strict=True)],
        _by_layer("share of each path's modules that were frozen before", paths, paths.reused()),
        ["new", *frozen],
    )


def _frozen(name: str, paths: Paths) -> Figure:
    shares = [list(share.values())[:-1] for share in paths.frozen_share().values()]
    lines = [Line(i, list(enumerate(share, 1))) for i, share in enumerate(shares)]
    return Figure(
        f"{name}: share of all modules that is frozen after each visit",
        "1: none is left to learn with.",
        [LineChart("share frozen", "layer", "", lines, include=(0.0, 1.0))],
        _by_layer("share of all modules that is frozen", paths, paths.frozen_share()),
        paths.names,
    )


def _by_layer(title: str, paths: Paths, shares: Shares) -> Table:
    rows: list[list[Cell]] = [[visit, *of.values()] for visit, of in shares.items()]
    shades = [[None, *of.values()] for of in shares.values()]
    return Table(title, ("visit", *paths.layers, WHOLE), rows, shades)


def _shared(name: str, paths: Paths) -> Table:
    overlap, chance = paths.overlap(), paths.overlap_by_chance()
    rows: list[list[Cell]] = []
    shades: list[list[float | None]] = []
    names = paths.names
    for i, j in combinations(range(len(names)), 2):
        for layer in (WHOLE, *paths.layers):
            shares = [overlap[layer][i][j], chance[layer][i][j]]
            rows.append([f"{names[i]} and {names[j]}", layer, *shares])
            shades.append([None, None, *shares])
    title = f"{name}: modules that both genotypes name over those that either does"
    if paths.always_on:
        title += "; frozen ones are always on, so that this does not tell of reuse"
    return Table(title, ("visits", "layer", "in common", "by chance"), rows, shades)
