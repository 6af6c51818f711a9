"""What charts share: styles that tell lines apart, scales, ticks, and a frame with its axes.

Colours are Okabe and Ito's, told apart by the colour-blind (their yellow is too pale on white);
dashes and markers differ too, for black and white print. 7 colours, 4 dashes and 5 markers are
coprime: 140 styles before one comes again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from clrl.study.report.elements import Markup, element, joined

__all__ = ["WIDTH", "Frame", "Style", "clipped", "marker", "range_of", "sample", "style", "ticks"]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = (None, "7 3", "2 2.5", "9 3 2 3")
MARKERS = ("circle", "square", "triangle", "diamond", "cross")

WIDTH = 360  # of every chart, in its own units: about the pixels of a phone
LETTER = 6.2  # mean width of a letter of the axes
MOST_LETTERS = int((WIDTH - 8) / LETTER)  # of a label, for it to fit


class Style(NamedTuple):
    """How one line differs from the others."""

    color: str
    dash: str | None
    marker: str


def style(i: int) -> Style:
    """Return the i-th style."""
    return Style(COLORS[i % 7], DASHES[i % 4], MARKERS[i % 5])


def marker(kind: str, x: float, y: float, size: float, **attributes: object) -> Markup:
    """Draw a marker around (x, y)."""
    s = size
    if kind == "circle":
        return element("circle", cx=x, cy=y, r=s, **attributes)
    corners = {
        "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "triangle": ((0, -1.2), (1.15, 0.9), (-1.15, 0.9)),
        "diamond": ((0, -1.35), (1.1, 0), (0, 1.35), (-1.1, 0)),
        "cross": (
            *((-1.1, -0.5), (-0.5, -1.1), (0, -0.5), (0.5, -1.1), (1.1, -0.5), (0.5, 0)),
            *((1.1, 0.5), (0.5, 1.1), (0, 0.5), (-0.5, 1.1), (-1.1, 0.5), (-0.5, 0)),
        ),
    }[kind]
    points = " ".join(f"{x + s * a:.1f},{y + s * b:.1f}" for a, b in corners)
    return element("polygon", points=points, **attributes)


def sample(i: int) -> Markup:
    """Draw a short piece of the i-th style, for a legend."""
    own = style(i)
    line = element(
        "path",
        d="M1 6H33",
        fill="none",
        stroke=own.color,
        stroke_width=2,
        stroke_dasharray=own.dash,
    )
    middle = marker(own.marker, 17, 6, 3.5, fill=own.color)
    return element("svg", line, middle, viewBox="0 0 34 12", class_="sample", aria_hidden="true")


def clipped(text: str, letters: int) -> str:
    """Shorten a text in its middle.

    >>> clipped("split_mnist-task-ewc-1000", 13)
    'split_…c-1000'
    """
    if len(text) <= letters:
        return text
    half = (letters - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


# ---------------------------------------------------------------------------------------- scales


def range_of(values: Iterable[float | None]) -> tuple[float, float]:
    """Return the least and the largest of what is known, apart from each other."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    if low == high:
        around = abs(low) / 20 or 0.5
        return low - around, high + around
    return low, high


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers from at or below `low` to at or above `high`, or close to it.

    >>> ticks(0.0, 600_000.0)
    [0.0, 200000.0, 400000.0, 600000.0]
    """
    raw = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(k * unit for k in (1, 2, 2.5, 5, 10) if k * unit >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Return ticks as short text, in one unit: 0, 200k, 400k.

    >>> tick_labels([0.0, 200000.0]), tick_labels([-0.5, 0.0, 0.5])
    (['0', '200k'], ['-0.5', '0', '0.5'])
    """
    top = max(map(abs, values))
    size, unit = next(
        ((s, u) for s, u in ((1e9, "G"), (1e6, "M"), (1e4, "k")) if top >= s), (1.0, "")
    )
    size = 1e3 if unit == "k" else size
    return [f"{v / size:.6g}{unit if v else ''}" for v in values]


@dataclass(frozen=True)
class Frame:
    """The rectangle of a chart with its axes.

    Attributes:
        x: from and to, in data.
        y: the same.
        height: of the whole chart.
        x_label: below.
        y_label: above, at the left; none where rows have their own names.
        has_y: whether the vertical axis has ticks.
        whole_y: they are the whole numbers between its ends, not a scale around them.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    height: float
    x_label: str
    y_label: str = ""
    has_y: bool = True
    whole_y: bool = False

    @cached_property
    def y_ticks(self) -> list[float]:
        """Where the vertical axis has ticks."""
        if self.whole_y:
            return [float(k) for k in range(math.ceil(self.y[0]), math.floor(self.y[1]) + 1)]
        return ticks(*self.y) if self.has_y else [*self.y]

    @cached_property
    def _y_ends(self) -> tuple[float, float]:
        return self.y if self.whole_y else (self.y_ticks[0], self.y_ticks[-1])

    @cached_property
    def left(self) -> float:
        """Where the rectangle begins."""
        if not self.has_y:
            return 10.0
        return 12 + LETTER * max(map(len, tick_labels(self.y_ticks)))

    @property
    def top(self) -> float:
        """Its upper end."""
        return 20.0 if self.y_label else 6.0

    @property
    def right(self) -> float:
        """Its end."""
        return WIDTH - 14.0

    @property
    def bottom(self) -> float:
        """Its lower end."""
        return self.height - 36

    def at_x(self, value: float) -> float:
        """Return where a value of the horizontal axis is."""
        low, high = self.x
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def at_y(self, value: float) -> float:
        """Return where a value of the vertical axis is."""
        low, high = self._y_ends
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def drawn(self) -> Markup:
        """Draw ticks, their names and the labels."""
        parts = []
        inside = [t for t in ticks(*self.x, most=5) if self.x[0] <= t <= self.x[1]]
        for value, text in zip(inside, tick_labels(inside or [0.0]), strict=False):
            x = self.at_x(value)
            parts.append(element("path", d=f"M{x:.1f} {self.bottom:.1f}v4", class_="tick"))
            parts.append(element("text", text, x=x, y=self.bottom + 15, text_anchor="middle"))
        for value, text in zip(self.y_ticks, tick_labels(self.y_ticks), strict=True):
            if self.has_y:
                y = self.at_y(value)
                grid = f"M{self.left:.1f} {y:.1f}H{self.right:.1f}"
                parts.append(element("path", d=grid, class_="grid"))
                parts.append(element("text", text, x=self.left - 5, y=y + 4, text_anchor="end"))
        axis = f"M{self.left:.1f} {self.bottom:.1f}H{self.right:.1f}"
        parts.append(element("path", d=axis, class_="axis"))
        # the figure's heading or its text says all of a label that is too long
        x_label, y_label = (clipped(text, MOST_LETTERS) for text in (self.x_label, self.y_label))
        middle = WIDTH / 2 if x_label != self.x_label else (self.left + self.right) / 2
        parts.append(element("text", x_label, x=middle, y=self.height - 5, text_anchor="middle"))
        if y_label:
            parts.append(element("text", y_label, x=2, y=11))
        return joined(*parts)

    def svg(self, title: str, *marks: object) -> Markup:
        """Return the chart with its axes and what is drawn over them."""
        return element(
            "svg",
            element("title", title),
            self.drawn(),
            *marks,
            viewBox=f"0 0 {WIDTH} {self.height:.0f}",
            role="img",
            class_="chart",
        )
