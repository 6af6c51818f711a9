"""Drawings of what `clrl.study` finds inside nets; needs matplotlib, and opens no window.

Colours are Okabe and Ito's, told apart by the colour-blind, and markers differ for black and white
print; maps are in cividis, whose lightness alone carries the value. Lines and panels bear their
names, so that there is no legend to match.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clrl.study.importances import WHOLE, ChangeMaps, Histogram, PerLayer
from clrl.types import ClrlError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from clrl.study.sensitivity import Shares

__all__ = [
    "by_layer",
    "change_figure",
    "change_maps_figure",
    "histogram_figure",
    "name_lines",
    "overlap_figure",
    "overlap_matrix_figure",
    "save",
    "shares_figure",
    "side_by_side",
]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MAP_COLORS = "cividis"

_NO_DATE: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".png": {"Software": None}}


def histogram_figure(histograms: Mapping[str, Histogram]) -> Figure:
    """Draw importance histograms by method, side by side on the same axes (SPP, figure 6).

    Raises:
        ValueError: there is none.
    """
    if not histograms:
        raise ValueError("no histograms: expected one or more, by method")
    figure, panels = side_by_side(len(histograms), width=2.9, height=2.8, share=True)
    for axes, (i, (name, shown)) in zip(panels, enumerate(histograms.items()), strict=True):
        axes.stairs(shown.share, shown.edges, fill=True, color=COLORS[i % len(COLORS)])
        axes.set_yscale("log")
        axes.set(title=name, xlim=(0, 1), xlabel="importance / largest")
    least = min(h.share[h.share > 0].min() for h in histograms.values())
    panels[0].set(ylabel="share of weights per bin", ylim=(least / 2, 1))
    return figure


def overlap_figure(overlaps: Mapping[str, PerLayer]) -> Figure:
    """Draw by layer how alike two visits' importances are, a line a method (SPP, figure 7b)."""
    figure, axes = by_layer(overlaps)
    axes.set(ylabel="overlap of importance", ylim=(-0.02, 1.02))
    name_lines(axes)
    return figure


def change_figure(changes: Mapping[str, PerLayer]) -> Figure:
    """Draw by layer the weighted squared change, a line a method (SPP, figure 7c).

    The scale is logarithmic; where some layer did not move at all, below the least change linear.
    """
    figure, axes = by_layer(changes)
    values = [v for change in changes.values() for v in change.values() if v is not None]
    least = min((v for v in values if v > 0), default=None)
    if least is not None and 0 in values:
        axes.set_yscale("symlog", linthresh=least)  # with a place for the weights that never moved
        axes.set_ylim(bottom=-least / 20)
    elif least is not None:
        axes.set_yscale("log")
    axes.set_ylabel("change$^2$ of a weight,\nweighted by importance")
    name_lines(axes)
    return figure


def overlap_matrix_figure(
    matrices: Mapping[str, Sequence[Sequence[float | None]]], visits: Sequence[str]
) -> Figure:
    """Draw overlaps of all visits with all, a panel for each method or layer.

    Args:
        matrices: by the panel's title.
        visits: names of the rows and columns.
    """
    side = 1.3 + 0.45 * len(visits)
    figure, panels = side_by_side(len(matrices), width=side, height=side + 0.3, share=True)
    for axes, (title, matrix) in zip(panels, matrices.items(), strict=True):
        values = np.array(matrix, dtype=float)  # None becomes NaN
        image = axes.imshow(values, vmin=0, vmax=1, cmap=MAP_COLORS)
        for (i, j), value in np.ndenumerate(values):
            text = f"{value:.2f}" if math.isfinite(value) else "-"
            color = "black" if value > 0.5 or math.isnan(value) else "white"
            axes.text(j, i, text, ha="center", va="center", color=color, fontsize=8)
        axes.set_title(title)
        axes.set_xticks(range(len(visits)), visits, rotation=45, ha="right")
        axes.set_yticks(range(len(visits)), visits)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=panels, label="overlap of importance", shrink=0.7)
    return figure


def change_maps_figure(maps: ChangeMaps) -> Figure:
    """Draw how far each weight moved beside its importance (SPP, figure 8).

    Rows and columns are in the same order in both, the most important first: what is protected is
    the top left. Colours end at the 99th percentile, as a few weights far outdo the others.
    """
    figure, panels = side_by_side(2, width=3.6, height=3.2, share=True)
    rows, columns = (np.argsort(-maps.importance.sum(axis), kind="stable") for axis in (1, 0))
    shown = {"|change|": maps.change, "importance": maps.importance}
    for axes, (title, values) in zip(panels, shown.items(), strict=True):
        top = float(np.percentile(values, 99) or values.max())
        image = axes.imshow(
            values[rows][:, columns], vmin=0, vmax=top, cmap=MAP_COLORS, aspect="auto"
        )
        axes.set(title=title, xlabel="inputs, by importance")
        figure.colorbar(image, ax=axes, extend="max")
    panels[0].set_ylabel("outputs, by importance")
    rank = "undefined" if maps.correlation is None else f"{maps.correlation:.2f}"
    figure.suptitle(f"{maps.name}: rank correlation {rank}", fontsize="medium")
    return figure


def shares_figure(shares: Mapping[str, Shares]) -> Figure:
    """Draw by layer which columns a policy rests on, a panel for each title (Rusu et al. 2016).

    Hatched where only a bound of the sensitivity is known; a layer in which nothing is sensitive
    stays empty.
    """
    widest = max(len(shown.layers) for shown in shares.values())
    figure, panels = side_by_side(len(shares), width=2.2 + 0.6 * widest, height=3.0, share=False)
    for axes, (title, shown) in zip(panels, shares.items(), strict=True):
        share = np.nan_to_num(shown.share)
        tops = share.cumsum(1)
        places = range(len(shown.layers))
        for k, _ in enumerate(shown.columns):
            bars = axes.bar(
                places, share[:, k], 0.7, tops[:, k] - share[:, k], color=COLORS[k % len(COLORS)]
            )
            for bar, bound in zip(bars, shown.bound[:, k], strict=True):
                if bound:
                    bar.set(hatch="///", edgecolor="white", linewidth=0)
        axes.set(title=title, ylim=(0, 1))
        axes.set_xticks(places, shown.layers, rotation=30, ha="right")
        middles = tops[-1] - share[-1] / 2
        colors = (COLORS[k % len(COLORS)] for k in range(len(shown.columns)))
        _write_beside(axes, list(zip(middles.tolist(), shown.columns, colors, strict=True)))
    panels[0].set_ylabel("share of each column")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write an SVG or PNG; the same figure gives the same bytes.

    Raises:
        ClrlError: another ending (exit 2), or the file cannot be written.
    """
    import matplotlib as mpl

    if path.suffix not in _NO_DATE:
        raise ClrlError(f"figure is {path}: expected a name in {' or '.join(_NO_DATE)}", 2)
    try:
        with mpl.rc_context({"svg.hashsalt": "clrl"}):
            figure.savefig(path, dpi=150, metadata=_NO_DATE[path.suffix])
    except OSError as error:
        raise ClrlError(f"cannot write {path}: {error.strerror}") from error


# ------------------------------------------------------------------------------ shared by figures


def side_by_side(n: int, width: float, height: float, share: bool) -> tuple[Figure, list[Axes]]:
    """Return a figure with n panels in a row, of pyplot's making none."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ClrlError(
            f"figures need matplotlib, not installed or broken ({error}): pip install matplotlib"
        ) from error
    figure = Figure(figsize=(n * width, height), layout="constrained")
    grid: NDArray[Any] = figure.subplots(1, n, sharex=share, sharey=share, squeeze=False)
    panels: list[Axes] = list(grid[0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def by_layer(series: Mapping[str, PerLayer]) -> tuple[Figure, Axes]:
    """Return a figure of a line a method over the layers, first to last, gaps where undefined."""
    layers = [
        name for name in dict.fromkeys(n for s in series.values() for n in s) if name != WHOLE
    ]
    figure, (axes,) = side_by_side(1, 2.4 + 0.7 * len(layers), 3.2, share=False)
    for i, (name, values) in enumerate(series.items()):
        y = np.array([values.get(layer) for layer in layers], dtype=float)
        axes.plot(
            range(len(layers)),
            y,
            ("-", "--")[i // len(COLORS) % 2],
            color=COLORS[i % len(COLORS)],
            marker=MARKERS[(i + i // len(COLORS)) % len(MARKERS)],
            label=name,
            clip_on=False,
        )
    axes.set_xticks(range(len(layers)), layers, rotation=30, ha="right")
    axes.set_xlabel("layer, from input to output")
    return figure, axes


def name_lines(axes: Axes) -> None:
    """Write each line's name beside its end."""
    ends = []
    for line in axes.lines:
        x, y = (np.asarray(data, dtype=float) for data in line.get_data())
        if np.isfinite(y).any():
            last = np.flatnonzero(np.isfinite(y))[-1]
            at = axes.transData.transform((x[last], y[last]))
            height = float(axes.transAxes.inverted().transform(at)[1])
            ends.append((height, str(line.get_label()), str(line.get_color())))
    _write_beside(axes, ends)


def _write_beside(axes: Axes, names: list[tuple[float, str, str]], apart: float = 0.075) -> None:
    """Write names in colours at heights (0 to 1), moved up or down where two would meet."""
    names = sorted(names, key=lambda name: name[0])
    height = np.array([name[0] for name in names])
    for _ in range(200):  # each pair that is too near gives way, half the lack on each side
        lack = np.maximum(apart - np.diff(height), 0)
        height[1:] += lack / 2
        height[:-1] -= lack / 2
        height = height.clip(0.02, 0.98)
    for y, (_, text, color) in zip(height, names, strict=True):
        axes.annotate(
            text,
            (1.02, float(y)),
            xycoords="axes fraction",
            color=color,
            va="center",
            annotation_clip=False,
        )
