"""The score matrix as text: one row before training and one after each visit, one column a task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

__all__ = ["ScoreTable", "Scores", "format_columns", "number"]

Scores = Sequence[Sequence[float | None]]


def number(value: float | None, digits: int | None = None) -> str:
    """Return a score with the precision its size deserves (30100, 20.4, 1.73); None: a dash."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    digits = _digits(value) if digits is None else digits
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0"


def format_columns(rows: Scores, digits: int | None = None) -> list[list[str]]:
    """Return the cells, each column with the precision of its largest score, or with `digits`."""
    columns: list[list[str]] = []
    for column in zip(*rows, strict=True):
        sizes = [abs(x) for x in column if x is not None and math.isfinite(x)]
        shared = _digits(max(sizes, default=0.0)) if digits is None else digits
        columns.append([number(x, shared) for x in column])
    return [list(row) for row in zip(*columns, strict=True)]


def _digits(value: float) -> int:
    return 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 or value == 0 else 2


@dataclass
class ScoreTable:
    """A table to print; the task that was just trained stands out in each row.

    Attributes:
        title: what the numbers are.
        columns: names of the tasks.
        rows: names of the rows.
        trained: name of the task trained just before each row, or None.
        cells: (rows, columns) formatted scores.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[str]
    trained: Sequence[str | None]
    cells: list[list[str]]

    def plain(self) -> list[str]:
        """Return aligned lines without any styling, as wide as it takes."""
        body = [
            [
                f"{cell}{'*' if name == own else ' '}"
                for name, cell in zip(self.columns, row, strict=True)
            ]
            for own, row in zip(self.trained, self.cells, strict=False)
        ]
        lines = [[f"{name} " for name in self.columns], *body]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        first = max(map(len, [self.title, *self.rows]))
        text = [
            name.ljust(first) + "".join(f"  {x:>{w}}" for x, w in zip(line, widths, strict=True))
            for name, line in zip([self.title, *self.rows], lines, strict=False)
        ]
        return [*(line.rstrip() for line in text), "(* the task just trained)"]

    def rich(self, width: int) -> list[Table]:
        """Return tables for a terminal, several where the columns do not fit side by side."""
        tables = []
        for part in self._parts(width):
            table = Table(
                box=box.SIMPLE_HEAD, title=self.title, title_justify="left", title_style="bold"
            )
            table.add_column("", no_wrap=True)
            for column in part:
                table.add_column(Text(self.columns[column]), justify="right", no_wrap=True)
            for name, own, row in zip(self.rows, self.trained, self.cells, strict=False):
                styles = ["bold green" if self.columns[c] == own else "" for c in part]
                cells = [Text(row[c], style=style) for c, style in zip(part, styles, strict=True)]
                table.add_row(Text(name), *cells)
            tables.append(table)
        return tables

    def _parts(self, width: int) -> list[range]:
        room = width - max(map(len, self.rows), default=0) - 4
        parts, start, used = [], 0, 0
        for column, name in enumerate(self.columns):
            wide = max([len(name), *(len(row[column]) for row in self.cells)]) + 3
            if column > start and used + wide > room:
                parts.append(range(start, column))
                start, used = column, 0
            used += wide
        return [*parts, range(start, len(self.columns))]
