"""What a report says, before it is rendered as HTML, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from clrl.study.report.elements import Markup

__all__ = [
    "Caution",
    "Cell",
    "Chart",
    "Code",
    "Estimate",
    "Figure",
    "Fold",
    "Links",
    "Part",
    "Report",
    "Section",
    "Table",
    "Text",
    "shown",
]


class Estimate(NamedTuple):
    """A number with the ends of its interval, None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None


Cell = str | int | float | Estimate | None
Rows = Sequence[Sequence[Cell]]


class Chart(Protocol):
    """One panel of a figure."""

    @property
    def title(self) -> str:
        """What stands above it."""
        ...

    def svg(self) -> Markup:
        """Draw it."""
        ...


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Caution:
    """What must not be overlooked, a paragraph each."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Lines to be copied, or a file; `folded` behind its title."""

    title: str
    text: str
    folded: bool = False


@dataclass(frozen=True)
class Links:
    """Files beside the report: (label, address relative to it)."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Rows under columns.

    Attributes:
        title: what the numbers are.
        columns: their names.
        rows: cells.
        shades: how strong a cell is coloured: -1 to 1, orange below 0 and blue above; none: not.
        folded: behind its title.
        mixed: whether the numbers of a column are of different things.
        turned: shown with a row for each column; then without shades.
    """

    title: str
    columns: Sequence[str]
    rows: Rows
    shades: Sequence[Sequence[float | None]] = ()
    folded: bool = False
    mixed: bool = False
    turned: bool = False

    def shown(self) -> list[list[str]]:
        """Return the cells as text: numbers of a column with the precision of the largest."""
        by_column = [_shown_column(column, self.mixed) for column in zip(*self.rows, strict=True)]
        return [list(row) for row in zip(*by_column, strict=True)]

    def laid_out(self) -> tuple[list[str], list[list[str]], list[bool]]:
        """Return what is seen: names of columns, rows of text, and which columns are numbers."""
        if self.turned:
            names, *rows = zip(self.columns, *self.shown(), strict=True)
            return list(names), [list(row) for row in rows], [j > 0 for j in range(len(names))]
        numbers = [
            any(not isinstance(row[j], str | None) for row in self.rows)
            for j in range(len(self.columns))
        ]
        return list(self.columns), self.shown(), numbers


@dataclass(frozen=True)
class Figure:
    """Panels side by side, and the table behind them.

    Attributes:
        title: what is drawn.
        text: how to read it.
        panels: the charts.
        legend: a name for each style from the first on.
        table: the numbers.
    """

    title: str
    text: str
    panels: Sequence[Chart]
    table: Table
    legend: Sequence[str] = ()


@dataclass(frozen=True)
class Fold:
    """Parts behind a title."""

    title: str
    parts: Sequence[Part]


Part = Text | Caution | Code | Links | Table | Figure | Fold


@dataclass(frozen=True)
class Section:
    """A heading and what stands below."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Report:
    """The whole."""

    title: str
    sections: Sequence[Section]


# ----------------------------------------------------------------------------- numbers, for people


def shown(cell: Cell, digits: int | None = None) -> str:
    """Return a cell as text, numbers with the precision that their size deserves.

    >>> shown(30123.4), shown(Estimate(0.5, 0.25, 0.75)), shown(None), shown(1200)
    ('30,123', '0.50 [0.25, 0.75]', '-', '1,200')
    """
    if isinstance(cell, Estimate):
        digits = _digits(cell) if digits is None else digits
        value, low, high = (shown(x, digits) for x in cell)
        return value if cell.low is None else f"{value} [{low}, {high}]"
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int):
        return f"{cell:,}"
    digits = _digits(cell) if digits is None else digits
    return f"{round(cell, digits) + 0.0:,.{digits}f}"  # + 0.0: no "-0"


def _shown_column(column: Sequence[Cell], mixed: bool) -> list[str]:
    if mixed:
        return [shown(cell) for cell in column]
    numbers = [cell for cell in column if isinstance(cell, float | Estimate)]
    digits = min(map(_digits, numbers), default=0)
    return [shown(cell, digits) for cell in column]


def _digits(cell: float | Estimate) -> int:
    values = cell if isinstance(cell, Estimate) else (cell,)
    size = max((abs(x) for x in values if x is not None), default=0.0)
    if size == 0:
        return 2
    limits = {1000: 0, 10: 1, 0.1: 2, 0.01: 3}
    return next((digits for limit, digits in limits.items() if size >= limit), 4)
