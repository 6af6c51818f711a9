"""A report as CSV: a line for each cell of its tables, and one for each paragraph."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

from clrl.study.report.document import (
    Caution,
    Cell,
    Code,
    Estimate,
    Figure,
    Fold,
    Links,
    Part,
    Report,
    Table,
    Text,
)

__all__ = ["tidy_csv"]

HEADER = ("section", "table", "row", "column", "value")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet would begin to compute
_NUMBER = r"(-|-?[0-9.]+(e[+-][0-9]+)?)"  # "-": none
_NUMBERS = re.compile(rf"{_NUMBER}(, {_NUMBER})*")


def tidy_csv(report: Report) -> str:
    """Return the report as CSV with the columns `section, table, row, column, value`.

    Numbers are whole, not rounded; an interval is two more columns, `... low` and `... high`. A
    paragraph has no table, and the column `text`, `caution` or `link`.
    """
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(HEADER)
    for section in report.sections:
        paragraphs = 0
        for part in section.parts:
            for name, row, column, value in _lines(part):
                paragraphs += not name
                place = (_plain(section.title), name, row if name else paragraphs)
                table.writerow((*place, column, value))
    # a file name may hold bytes that are no text, which no encoding writes
    return out.getvalue().encode("utf-8", "replace").decode()


def _lines(part: Part) -> Iterator[tuple[str, int, str, str]]:
    match part:
        case Text():
            yield "", 1, "text", _plain(part.text)
        case Caution():
            for text in part.texts:
                yield "", 1, "caution", _plain(text)
        case Code():
            yield _plain(part.title), 1, "code", _plain(part.text)
        case Links():
            for _, href in part.rows:
                yield "", 1, "link", _plain(href)
        case Figure():
            yield from _cells(part.table)
        case Fold():
            for one in part.parts:
                for name, row, column, value in _lines(one):
                    yield _plain(f"{part.title}: {name}") if name else "", row, column, value
        case Table():
            yield from _cells(part)


def _cells(table: Table) -> Iterator[tuple[str, int, str, str]]:
    for i, row in enumerate(table.rows, 1):
        for name, cell in zip(table.columns, row, strict=True):
            where = (_plain(table.title), i)
            if not isinstance(cell, Estimate):
                yield *where, _plain(name), _value(cell)
                continue
            yield *where, _plain(name), _value(cell.value)
            if cell.low is not None:
                yield *where, _plain(f"{name} low"), _value(cell.low)
                yield *where, _plain(f"{name} high"), _value(cell.high)


def _value(cell: Cell) -> str:
    return "" if cell is None else _plain(cell) if isinstance(cell, str) else repr(cell)


def _plain(text: str) -> str:
    """Return a text that a spreadsheet does not take for a formula; numbers stay numbers."""
    return f"'{text}" if text.startswith(FORMULA) and not _NUMBERS.fullmatch(text) else text
