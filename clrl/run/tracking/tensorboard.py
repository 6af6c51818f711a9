"""TensorBoard as a mirror of a run: event files in the run folder's `tb/`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clrl.run.tracking.tracker import Row
from clrl.types import ClrlError

__all__ = ["TensorBoardBackend"]


class TensorBoardBackend:
    """Writes scalars over `global_step`.

    Args:
        folder: where the event files go.

    Raises:
        ClrlError: when the package is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._library = importlib.import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise ClrlError(
                f"not installed or broken ({error}): pip install tensorboard"
            ) from error
        self._folder = folder
        self._writer: Any = None
        self._step = 0

    def log(self, record: Mapping[str, float]) -> None:
        """Write every other value of the record at its `global_step`."""
        self._step = int(record["global_step"])
        writer = self._open()
        for key, value in record.items():
            if key != "global_step":
                writer.add_scalar(key, value, self._step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Write a table as text, in Markdown, at the step of the last record."""
        lines = [columns, ["---"] * len(columns), *rows]
        cells = [["" if cell is None else str(cell) for cell in line] for line in lines]
        text = "\n".join("| " + " | ".join(line) + " |" for line in cells)
        self._open().add_text(name, text, self._step)

    def report(self, html: str, markdown: str) -> None:
        """Write the report as text."""
        self._open().add_text("report", markdown, self._step)

    def finish(self, exit_code: int) -> None:
        """Write what is buffered and close the file."""
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> Any:
        if self._writer is None:
            # A resumed run begins before the place where it was stopped: TensorBoard is told to
            # forget what earlier files say about the steps from here on.
            resumed = any(self._folder.glob("events.out.tfevents.*"))
            self._writer = self._library.SummaryWriter(
                str(self._folder), purge_step=self._step if resumed else None, flush_secs=30
            )
        return self._writer
