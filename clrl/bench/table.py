"""Choosing figures, measuring them one after another, and printing them."""

from __future__ import annotations

import json
import logging
import statistics
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, cast, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clrl.bench import FIGURES
from clrl.bench.figure import Device, Figure, Result, Setting
from clrl.types import ClrlError

__all__ = ["bench", "chosen"]

log = logging.getLogger(__name__)

WIDTH = 160  # of the table where there is no terminal


def chosen(names: Sequence[str]) -> tuple[Figure, ...]:
    """Return the figures of these names, or those whose names begin with `name_`; none: all.

    Raises:
        ClrlError: (exit 2) for a name that is neither.
    """
    from clrl.run.yaml_safe import nearest

    found: dict[str, Figure] = {}
    for name in names:
        exact = [f for f in FIGURES if f.name == name]
        some = exact or [f for f in FIGURES if f.name.startswith(f"{name}_")]
        if not some:
            groups = [f.name.partition("_")[0] for f in FIGURES]
            valid = list(dict.fromkeys([*(f.name for f in FIGURES), *groups]))
            raise ClrlError(f"no figure {name!r}{nearest(name, valid)}", 2)
        found |= {f.name: f for f in some}
    return tuple(found.values()) if names else FIGURES


def bench(names: Sequence[str], pairs: int, device: str, *, as_json: bool) -> None:
    """Measure and print: a JSON object a line as soon as it is known, or a table at the end.

    Whether goals are met changes no exit code: a slow machine is no error.

    Args:
        names: of figures; none: all.
        pairs: how often each side is measured.
        device: `auto`, `cpu` or `cuda`.
        as_json: print JSON.

    Raises:
        ClrlError: (exit 2) an unknown name, a device that is not there.
    """
    from clrl.bench.subject import machine

    figures = chosen(names)
    setting = Setting(pairs, _device(device))
    here = machine(device)
    results: list[Result] = []
    try:
        for result in _measured(figures, setting, named=bool(names)):
            results.append(result)
            if as_json:
                print(json.dumps(result.row() | {"machine": here}), flush=True)
    finally:  # what has been measured is shown, also when the rest is given up
        if results and not as_json:
            _print(results, here)


def _device(name: str) -> Device:
    import torch

    if name not in get_args(Device):
        raise ClrlError(f"--device {name}: expected one of {', '.join(get_args(Device))}", 2)
    if name == "cuda" and not torch.cuda.is_available():
        raise ClrlError("--device cuda: torch finds no GPU; use cpu or auto", 2)
    return cast(Device, name)


def _measured(figures: Sequence[Figure], setting: Setting, *, named: bool) -> Iterator[Result]:
    """Measure in turn; a terminal's stderr says which. No spinner: its thread would be measured.

    A figure that lacks its data is left out with a line, unless it was asked for by name.
    """
    shown = Console(stderr=True)
    for i, figure in enumerate(figures, 1):
        if shown.is_terminal:
            what = f"{i}/{len(figures)} {figure.name}: {figure.description}"
            print(what[: shown.width - 1], end="\r", file=sys.stderr, flush=True)
        try:
            with _quiet():
                result = figure.measure(setting)
        except ClrlError as error:
            if named or error.exit_code != 3:
                raise
            log.warning("%s is left out: %s", figure.name, error)
            continue
        finally:
            if shown.is_terminal:
                print(end="\x1b[2K", file=sys.stderr, flush=True)  # clears the line
        yield result


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what libraries print from stdout, and their warnings from everyone."""
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _print(results: Sequence[Result], here: Mapping[str, Any]) -> None:
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    console.print(Text(_machine_text(here)))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("figure", "measured", "min - max", "goal", "met"):
        table.add_column(name, no_wrap=True)
    table.add_column("made of (medians)", overflow="fold")
    for result in results:
        goal = next(f.goal_text for f in FIGURES if f.name == result.name)
        met = {True: "[green]yes[/]", False: "[yellow]no[/]", None: "-"}[result.met]
        table.add_row(
            f"[bold cyan]{result.name}[/]",
            f"{_number(result.ratio)} {result.unit}".rstrip(),
            f"{_number(result.min)} - {_number(result.max)}",
            goal,
            met,
            Text(_parts_text(result.parts), style="dim"),
        )
    console.print(table)


def _machine_text(here: Mapping[str, Any]) -> str:
    facts = [
        here["processor"] or "unknown processor",
        f"{here['cores']} cores",
        " ".join(here["instruction_sets"]) or "no avx2",
        here["gpu"] or "no GPU",
        f"torch {here['torch']}",
        f"{here['torch_threads']} torch threads",
        f"measured on {here['device']}",
    ]
    return ", ".join(facts)


def _parts_text(parts: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {_number(statistics.median(value)) if isinstance(value, list) else value}"
        for key, value in parts.items()
    )


def _number(value: float) -> str:
    """Return three digits that count: 1234, 12.3, 0.123."""
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.3g}"
