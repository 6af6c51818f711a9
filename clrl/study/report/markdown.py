"""A report as Markdown: of a figure, its table."""

from __future__ import annotations

import re

from clrl.study.report.document import (
    Caution,
    Code,
    Figure,
    Fold,
    Links,
    Part,
    Report,
    Table,
    Text,
)

__all__ = ["markdown"]

_SPECIAL = re.compile(r"([\\`*_\[\]<>|&~#$!])")  # what could begin an element of Markdown or HTML


def markdown(report: Report) -> str:
    """Return the report as Markdown."""
    blocks = [f"# {_escaped(report.title)}"]
    for section in report.sections:
        blocks += [f"## {_escaped(section.title)}", *map(_part, section.parts)]
    # a file name may hold bytes that are no text, which no encoding writes
    return "\n\n".join(blocks).encode("utf-8", "replace").decode() + "\n"


def _part(part: Part) -> str:
    match part:
        case Text():
            return _escaped(part.text)
        case Caution():
            return "\n".join(f"> - **Caution:** {_escaped(text)}" for text in part.texts)
        case Code():
            longest = max((len(run) for run in re.findall("`+", part.text)), default=0)
            fence = "`" * max(3, longest + 1)
            return f"{_escaped(part.title)}\n\n{fence}\n{part.text.rstrip()}\n{fence}"
        case Links():
            return "\n".join(f"- [{_escaped(label)}](<{href}>)" for label, href in part.rows)
        case Figure():
            return f"**{_escaped(part.title)}** {_escaped(part.text)}\n\n{_table(part.table)}"
        case Fold():
            return "\n\n".join([f"### {_escaped(part.title)}", *map(_part, part.parts)])
        case Table():
            return _table(part)


def _table(table: Table) -> str:
    names, rows, numbers = table.laid_out()
    lines = [
        [*map(_escaped, names)],
        ["---:" if number else "---" for number in numbers],
        *([*map(_escaped, row)] for row in rows),
    ]
    return f"{_escaped(table.title)}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
