"""What a person sees during a run: a live view in a terminal, plain lines elsewhere.

Everything goes to stderr; stdout is for results.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clrl.run.score_table import Scores, ScoreTable, format_columns, number

__all__ = ["Console"]

PLAIN_INTERVAL = 30.0  # s between two lines of progress where there is no terminal
WIDEST = 100  # columns of the live view
GONE = (OSError, ValueError)  # a closed terminal or pipe is no reason to stop training
SHOWN_RECORDS = 4  # figures of the learner's last update under the bars


class _Terminal(RichConsole):
    def on_broken_pipe(self) -> None:
        """Say no more; rich's own answer is to exit."""
        self.quiet = True


@dataclass
class _Visit:
    """One bar: a visit to a task."""

    name: str
    done: int = 0  # agent steps
    evaluated: float | None = None  # last mean score of this task, whoever was trained
    best: float | None = None
    return_: float | None = None  # recent training returns, while it was trained


class Console:
    """Shows a run: use as a context manager.

    Args:
        tasks: names of the visits, in order (a task visited twice is there twice).
        steps_per_visit: agent steps of each.
        digits: decimals of scores; None: as their size deserves.
        interactive: draw a live view; None: if `file` is a terminal.
        file: where to write; None: stderr.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        steps_per_visit: int,
        digits: int | None = None,
        *,
        interactive: bool | None = None,
        file: TextIO | None = None,
    ) -> None:
        self._file = sys.stderr if file is None else file
        if interactive is None:
            interactive = self._file.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._visits = [_Visit(name) for name in tasks]
        self._total = steps_per_visit
        self._digits = digits
        self._current: int | None = None
        self._rate: float | None = None  # steps per second now
        self._left: float | None = None  # seconds
        self._records: Mapping[str, float] = {}
        self._began = time.monotonic()
        self._base: tuple[float, int] | None = None  # time and steps at this process's first news
        self._last_line = self._began
        self._lock = threading.RLock()  # trackers give notices from their own threads
        self._live: Live | None = None
        self._rich: RichConsole | None = None
        if interactive:
            self._rich = _Terminal(file=self._file, force_terminal=True, highlight=False)

    def __enter__(self) -> Self:
        if self._rich is not None:
            self._live = Live(
                console=self._rich,
                get_renderable=self._view,
                refresh_per_second=2,
                redirect_stdout=sys.stdout.isatty(),  # elsewhere it is for results alone
                redirect_stderr=self._file is sys.stderr,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    # ------------------------------------------------------------------------- what happens

    def start_visit(self, visit: int) -> None:
        """Tell that the visit begins, or is resumed; those before it are done."""
        with self._lock:
            for earlier in self._visits[:visit]:
                earlier.done = self._total
            self._current, self._records = visit, {}
            if self._rich is None:
                self._line(f"{self._place(visit)} begins: {self._total:,} steps")

    def progress(
        self,
        visit: int,
        task_step: int,
        steps_per_second: float,
        recent_returns: float | None,
        records: Mapping[str, float],
    ) -> None:
        """Tell how far the training is.

        Args:
            visit: index of the visit.
            task_step: agent steps done in it.
            steps_per_second: agent steps per second, lately.
            recent_returns: mean raw score of the last training episodes, if any has ended.
            records: figures of the last update; `train/...` are shown in a terminal.
        """
        now = time.monotonic()
        with self._lock:
            shown = self._visits[visit]
            shown.done, self._current = task_step, visit
            shown.return_ = recent_returns if recent_returns is not None else shown.return_
            # Smoothed: single updates differ, and a number that dances cannot be read.
            before = steps_per_second if self._rate is None else self._rate
            self._rate = 0.9 * before + 0.1 * steps_per_second
            self._records = records
            self._left = self._time_left(now, visit * self._total + task_step)
            if self._rich is None and now - self._last_line >= PLAIN_INTERVAL:
                self._last_line = now
                returns = "" if shown.return_ is None else f"  return {self._number(shown.return_)}"
                self._line(
                    f"{self._place(visit)}  {task_step:,}/{self._total:,}"
                    f"  {self._rate:,.0f} steps/s  {duration(self._left)} left{returns}"
                )

    def evaluation(self, visit: int, task_name: str, mean: float, n: int) -> None:
        """Tell the mean raw score of `n` episodes of a task, evaluated during a visit."""
        with self._lock:
            for shown in self._visits:
                if shown.name == task_name:
                    shown.evaluated = mean
                    shown.best = mean if shown.best is None else max(shown.best, mean)
            if self._rich is None:
                self._line(f"{self._place(visit)}  eval {task_name}: {self._number(mean)} (n={n})")

    def notice(self, text: str) -> None:
        """Show one line that stays; may be called from any thread."""
        with self._lock:
            if self._rich is None:
                self._line(text)
            else:
                # Wrapped by the terminal, so that a path can still be copied in one piece.
                self._print(Text.assemble(("! ", "yellow"), text), soft_wrap=True)

    def resumed(self, level: str, step: int, path: Path | str, skipped: Sequence[str]) -> None:
        """Tell where a resumed run goes on, and which checkpoints were not used and why."""
        for reason in skipped:
            self.notice(f"skipped a checkpoint: {reason}")
        self.notice(f"resumed at step {step:,} from {path} (level: {level})")

    def matrix(
        self,
        task_names: Sequence[str],
        rows: Scores,
        row_names: Sequence[str],
        normalised: Scores | None = None,
    ) -> None:
        """Show the score matrix, after the live view if there is one.

        Args:
            task_names: of the columns.
            rows: mean raw scores, None where a task was not evaluated; row 0 before any training,
                row i after visit i.
            row_names: one per row.
            normalised: the same on a scale that is common to all tasks.
        """
        self._stop()
        own = [None, *(visit.name for visit in self._visits)]
        with self._lock:
            for title, scores, digits in (
                ("mean score", rows, self._digits),
                ("normalised score", normalised, 2),
            ):
                if scores is None:
                    continue
                table = ScoreTable(
                    title, task_names, row_names, own, format_columns(scores, digits)
                )
                if self._rich is None:
                    for line in table.plain():
                        self._write(line)
                else:
                    for part in table.rich(self._rich.width):
                        self._print(part)

    # ----------------------------------------------------------------------------- drawing

    def _time_left(self, now: float, done: int) -> float | None:
        """Estimate from this process's own pace, evaluations included: a resumed run has one."""
        if self._base is None:
            self._base = (now, done)
        elapsed, steps = now - self._base[0], done - self._base[1]
        pace = steps / elapsed if steps > 0 and elapsed > 0 else self._rate
        left = max(0, len(self._visits) * self._total - done)  # the last rollout may go beyond
        return left / pace if pace else None

    def _view(self) -> RenderableType:
        assert self._rich is not None
        with self._lock:
            table = Table(box=None, width=min(WIDEST, self._rich.width), padding=(0, 1))
            table.add_column("", no_wrap=True, max_width=24)
            table.add_column("", ratio=1, min_width=8)
            for head in ("steps", "eval", "best", "return"):
                table.add_column(head, justify="right", no_wrap=True, min_width=6)
            for index in self._window():
                self._add_row(table, index)
            lines: list[RenderableType] = [table, self._status()]
            if figures := self._figures():
                lines.append(figures)
            return Group(*lines)

    def _window(self) -> range:
        """Return the visits that fit on the screen, the current one among them."""
        assert self._rich is not None
        room = max(1, min(len(self._visits), self._rich.height - 5))
        first = max(0, min((self._current or 0) - room // 2, len(self._visits) - room))
        return range(first, first + room)

    def _add_row(self, table: Table, index: int) -> None:
        shown = self._visits[index]
        current, finished = index == self._current, shown.done >= self._total
        name = Text(
            f"{index + 1} {shown.name}", overflow="ellipsis", style="bold" if current else ""
        )
        bar = ProgressBar(total=self._total, completed=min(shown.done, self._total))
        steps = f"{compact(shown.done)}/{compact(self._total)}"
        scores = [self._number(x) for x in (shown.evaluated, shown.best, shown.return_)]
        table.add_row(name, bar, Text(steps, style="green" if finished else ""), *scores)

    def _status(self) -> Text:
        elapsed = duration(time.monotonic() - self._began)
        if self._current is None:
            parts = ["evaluating every task before training"]
        elif self._rate is None:
            parts = ["starting"]
        else:
            done = sum(v.done for v in self._visits)
            total = len(self._visits) * self._total
            parts = [
                f"{self._rate:,.0f} steps/s",
                f"{duration(self._left)} left",
                f"{done / total if total else 1:.0%} of {compact(total)} steps",
            ]
        return Text(
            " " + "  ·  ".join([*parts, f"{elapsed} so far"]), no_wrap=True, overflow="ellipsis"
        )

    def _figures(self) -> Text | None:
        chosen = [k for k in self._records if k.startswith("train/")][:SHOWN_RECORDS]
        text = "  ".join(f"{k.removeprefix('train/')} {self._records[k]:.3g}" for k in chosen)
        return Text(f" {text}", style="dim", no_wrap=True, overflow="ellipsis") if text else None

    def _number(self, score: float | None) -> str:
        return number(score, self._digits)

    def _place(self, visit: int) -> str:
        if self._current is None:
            return "before training"
        return f"{visit + 1}/{len(self._visits)} {self._visits[visit].name}"

    def _line(self, text: str) -> None:
        self._write(f"[{duration(time.monotonic() - self._began)}] {text}")

    def _write(self, text: str) -> None:
        with contextlib.suppress(*GONE):
            print(text, file=self._file, flush=True)

    def _print(self, item: RenderableType, *, soft_wrap: bool = False) -> None:
        assert self._rich is not None
        with contextlib.suppress(*GONE):
            self._rich.print(item, soft_wrap=soft_wrap)

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(*GONE):
                live.stop()


def compact(steps: int) -> str:
    """Return a step count in at most five characters or so: 950, 75k, 1.25M."""
    if steps < 10_000:
        return str(steps)
    if steps < 1_000_000:
        return f"{steps // 1_000}k"
    return f"{steps / 1e6:.4g}M"


def duration(seconds: float | None) -> str:
    """Return h:mm:ss, or m:ss below an hour; unknown is `?`."""
    if seconds is None:
        return "?"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
