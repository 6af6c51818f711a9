"""The three charts of a report: lines over steps, dots by name, and dots over two numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clrl.study.report.axes import (
    WIDTH,
    Frame,
    clipped,
    marker,
    range_of,
    style,
)
from clrl.study.report.document import Estimate
from clrl.study.report.elements import Markup, element

__all__ = ["DotChart", "Line", "LineChart", "Row", "ScatterChart"]

XY = Sequence[tuple[float, float | None]]
MARKERS_A_LINE = 8


@dataclass(frozen=True)
class Line:
    """A mean over runs, its band, and the runs.

    Attributes:
        style: number of its style.
        mean: points; a gap where the score is None.
        band: (x, low, high).
        runs: the points of each run.
    """

    style: int
    mean: XY
    band: Sequence[tuple[float, float, float]] = ()
    runs: Sequence[XY] = ()


@dataclass(frozen=True)
class LineChart:
    """Lines over steps.

    Attributes:
        title: above it.
        x_label: of the horizontal axis.
        y_label: of the vertical one.
        lines: what is drawn.
        levels: (height, name) of thin lines across.
        shaded: (from, to) on the horizontal axis.
        cuts: places on the horizontal axis.
        include: heights that must be on the axis.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    levels: Sequence[tuple[float, str]] = ()
    shaded: Sequence[tuple[float, float]] = ()
    cuts: Sequence[float] = ()
    include: Sequence[float] = ()

    def svg(self) -> Markup:
        """Draw it: shades, levels, runs, bands and, on top, means."""
        curves = [points for line in self.lines for points in (line.mean, *line.runs)]
        x = range_of([0.0, *(x for points in curves for x, _ in points)])
        heights = [y for points in curves for _, y in points]
        ends = [end for line in self.lines for _, *pair in line.band for end in pair]
        levels = [height for height, _ in self.levels]
        y = range_of([*heights, *ends, *levels, *self.include])
        frame = Frame(x, y, 240, self.x_label, self.y_label)
        return frame.svg(
            self.title,
            *(self._shade(frame, *span) for span in self.shaded),
            *(self._cut(frame, place) for place in self.cuts),
            *(self._level(frame, height) for height in levels),
            *(_path(frame, run, line.style, 0.8, 0.4) for line in self.lines for run in line.runs),
            *(self._band(frame, line) for line in self.lines if line.band),
            *(_path(frame, line.mean, line.style, 1.8, 1.0) for line in self.lines),
            *(mark for line in self.lines for mark in self._markers(frame, line)),
            *(self._name(frame, *level) for level in self.levels),
        )

    @staticmethod
    def _shade(frame: Frame, start: float, end: float) -> Markup:
        x, width = frame.at_x(start), frame.at_x(end) - frame.at_x(start)
        size = {"width": width, "height": frame.bottom - frame.top}
        return element("rect", x=x, y=frame.top, class_="shade", **size)

    @staticmethod
    def _cut(frame: Frame, place: float) -> Markup:
        d = f"M{frame.at_x(place):.1f} {frame.top:.1f}V{frame.bottom:.1f}"
        return element("path", d=d, class_="cut")

    @staticmethod
    def _level(frame: Frame, height: float) -> Markup:
        y = frame.at_y(height)
        d = f"M{frame.left:.1f} {y:.1f}H{frame.right:.1f}"
        return element("path", d=d, class_="level")

    @staticmethod
    def _name(frame: Frame, height: float, name: str) -> Markup:
        y = max(frame.at_y(height) - 4, frame.top + 8)
        return element("text", name, x=frame.right, y=y, text_anchor="end", class_="small")

    @staticmethod
    def _band(frame: Frame, line: Line) -> Markup:
        there = [f"{frame.at_x(x):.1f} {frame.at_y(high):.1f}" for x, _, high in line.band]
        back = [f"{frame.at_x(x):.1f} {frame.at_y(low):.1f}" for x, low, _ in reversed(line.band)]
        d = f"M{'L'.join([*there, *back])}Z"
        return element("path", d=d, fill=style(line.style).color, fill_opacity=0.18)

    @staticmethod
    def _markers(frame: Frame, line: Line) -> list[Markup]:
        own = style(line.style)
        known = [(x, y) for x, y in line.mean if y is not None]
        every = -(-len(known) // MARKERS_A_LINE) or 1
        shown = known[line.style % every :: every]  # lines that lie on each other take turns
        return [
            marker(own.marker, frame.at_x(x), frame.at_y(y), 3.2, fill=own.color) for x, y in shown
        ]


def _path(frame: Frame, points: XY, i: int, width: float, opacity: float) -> Markup:
    pieces, pen = [], "M"
    for x, y in points:
        if y is None:
            pen = "M"
        else:
            pieces.append(f"{pen}{frame.at_x(x):.1f} {frame.at_y(y):.1f}")
            pen = "L"
    return element(
        "path",
        d="".join(pieces),
        fill="none",
        stroke=style(i).color,
        stroke_width=width,
        stroke_dasharray=style(i).dash if width > 1 else None,
        stroke_opacity=opacity if opacity < 1 else None,
        stroke_linejoin="round",
    )


@dataclass(frozen=True)
class Row:
    """A name with a dot for each run and, bigger, their mean with its interval."""

    name: str
    style: int
    values: Sequence[float | None]
    mean: Estimate


@dataclass(frozen=True)
class DotChart:
    """Dots by name, each row's name above its dots.

    Attributes:
        title: above it.
        x_label: of the axis.
        rows: from top to bottom.
        zero: whether 0 is on the axis, with a line.
    """

    title: str
    x_label: str
    rows: Sequence[Row]
    zero: bool = False

    def svg(self) -> Markup:
        """Draw it."""
        values = [v for row in self.rows for v in (*row.values, *row.mean)]
        low, high = range_of([*values, *([0.0] if self.zero else [])])
        pad = (high - low) * 0.04
        height = 46 + 34.0 * len(self.rows)
        frame = Frame((low - pad, high + pad), (0, 1), height, self.x_label, has_y=False)
        marks = []
        if self.zero:
            d = f"M{frame.at_x(0):.1f} {frame.top:.1f}V{frame.bottom:.1f}"
            marks.append(element("path", d=d, class_="cut"))
        for i, row in enumerate(self.rows):
            marks.append(self._row(frame, row, frame.top + 34.0 * i))
        return frame.svg(self.title, *marks)

    @staticmethod
    def _row(frame: Frame, row: Row, top: float) -> Markup:
        own, y = style(row.style), top + 23
        name = element("text", clipped(row.name, 52), x=frame.left, y=top + 12)
        size = {"stroke": own.color, "fill": "none", "stroke_width": 1.0, "stroke_opacity": 0.7}
        dots = [
            marker("circle", frame.at_x(v), y, 3.0, **size) for v in row.values if v is not None
        ]
        if row.mean.low is not None and row.mean.high is not None:
            d = f"M{frame.at_x(row.mean.low):.1f} {y:.1f}H{frame.at_x(row.mean.high):.1f}"
            dots.append(element("path", d=d, stroke=own.color, stroke_width=2.5))
        if row.mean.value is not None:
            middle = marker(own.marker, frame.at_x(row.mean.value), y, 4.5, fill=own.color)
            dots.append(middle)
        return element("g", name, *dots)


@dataclass(frozen=True)
class ScatterChart:
    """A dot for each run over two numbers; (style, x, y).

    Attributes:
        title: above it.
        x_label: of the horizontal axis, which begins at 0.
        y_label: of the vertical one.
        dots: the runs.
    """

    title: str
    x_label: str
    y_label: str
    dots: Sequence[tuple[int, float, float]]

    def svg(self) -> Markup:
        """Draw it."""
        x = range_of([0.0, *(x for _, x, _ in self.dots)])
        y = range_of([y for _, _, y in self.dots])
        frame = Frame((x[0], x[1] * 1.04), y, WIDTH * 2 / 3, self.x_label, self.y_label)
        marks = [
            marker(
                style(i).marker,
                frame.at_x(x),
                frame.at_y(y),
                4.0,
                fill=style(i).color,
                fill_opacity=0.75,
            )
            for i, x, y in self.dots
        ]
        return frame.svg(self.title, *marks)
