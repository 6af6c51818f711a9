"""Weights & Biases as a mirror of a run.

W&B is never the source of a result. Its offline files lose what was not flushed when a run is
killed, a resumed run logs the steps since its checkpoint a second time, and a second offline part
of a run counts W&B's own steps from 0 again. Hence `global_step` is the x axis of everything, and
`metrics.jsonl` and `evaluations.jsonl` are the truth.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import secrets
import string
from collections.abc import Mapping, Sequence
from html import unescape
from pathlib import Path
from typing import Any

from clrl.run.tracking.tracker import Notice, Row, TrackingSettings
from clrl.types import ClrlError

__all__ = ["WandbBackend", "new_run_id", "prepare_environment"]

INIT_TIMEOUT = 20.0  # s; W&B's own default is 90
FINISH_TIMEOUT = 30.0  # s; W&B's own default is for ever


def figures_of(page: str) -> dict[str, str]:
    """Return the figures of a report's page, each a page of its own, as `figures/<its caption>`.

    Captions that repeat are numbered: `#2`.
    """
    style = re.search(r"<style>.*?</style>", page, re.DOTALL)
    found: dict[str, str] = {}
    for figure in re.findall(r"<figure>.*?</figure>", page, re.DOTALL):
        caption = re.search(r"<figcaption>(.*?)<", figure, re.DOTALL)
        name = unescape(caption[1]).replace("/", " ").strip() if caption else "figure"
        same = sum(known.partition(" #")[0] == f"figures/{name}" for known in found)
        found[f"figures/{name}" + (f" #{same + 1}" if same else "")] = (
            f'<!doctype html><meta charset="utf-8">{style[0] if style else ""}{figure}'
        )
    return found


def new_run_id() -> str:
    """Return an id as W&B makes them, known before W&B has been imported or reached."""
    # Not from `random`: tracking must not move the generators that training draws from.
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


def prepare_environment(mode: str) -> str:
    """Set what W&B reads from environment variables, and return the mode to use.

    A user's `WANDB_MODE` of `offline` or `disabled` wins over a configuration that says `online`.
    Must be called before W&B is imported, from the main thread (setting variables is not safe
    elsewhere).
    """
    asked = {"dryrun": "offline"}.get(variable := os.environ.get("WANDB_MODE", ""), variable)
    if mode == "online" and asked in ("offline", "disabled"):
        mode = asked
    if mode != "disabled":
        # Silent also means that W&B cannot ask for a key: it raises where there is none.
        os.environ["WANDB_SILENT"] = "true"
        # Its error reporter looks up a host name, even when offline. It may go offline any time.
        os.environ["WANDB_ERROR_REPORTING"] = "false"
    return mode


class WandbBackend:
    """One W&B run; goes offline, with one notice, where it cannot be online.

    Args:
        settings: project, entity, group and tags.
        mode: "online" or "offline".
        folder: the run folder; W&B makes `wandb/` in it.
        name: of the experiment, and the group where the settings name none.
        seed: of this run.
        config: the resolved configuration.
        run_id: of this run, kept over its resumptions.
        notice: shows a line to the user.

    Raises:
        ClrlError: when the package is not installed.
    """

    def __init__(
        self,
        settings: TrackingSettings,
        mode: str,
        folder: Path,
        name: str,
        seed: int,
        config: Mapping[str, Any],
        run_id: str,
        notice: Notice,
    ) -> None:
        try:
            self._wandb = importlib.import_module("wandb")
        except ImportError as error:
            raise ClrlError(f"not installed or broken ({error}): pip install wandb") from error
        arguments = {
            "project": settings.project,
            "entity": settings.entity,
            "group": settings.group or name,
            "job_type": "train",
            "name": f"{name}-seed{seed}",
            "tags": list(settings.tags),
            "id": run_id,
            "resume": "allow",
            "config": dict(config),
            "allow_val_change": True,  # a resumed run may have another device or another end
            "dir": str(folder),
        }
        try:
            self._run = self._init(mode, arguments)
        except Exception as error:
            if mode == "offline":
                raise
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            files = folder / "wandb" / "offline-run-*"
            notice(f"W&B: {reason}. Going offline; upload with: wandb sync {files}")
            # Its service still holds the id of the run that could not begin, and would refuse it.
            self._wandb.teardown()
            self._run = self._init("offline", arguments)
        for axis in ("global_step", "frames"):
            self._run.define_metric(axis)
        self._run.define_metric("*", step_metric="global_step")
        self._position: dict[str, float] = {}

    def _init(self, mode: str, arguments: dict[str, Any]) -> Any:
        wanted = {
            "console": "off",  # do not wrap stdout: rich draws there, and it is the user's
            "silent": True,
            "init_timeout": INIT_TIMEOUT,
            "login_timeout": 1.0,
            "finish_timeout": FINISH_TIMEOUT,
        }
        known = getattr(self._wandb.Settings, "model_fields", wanted)  # they differ by version
        settings = self._wandb.Settings(**{k: v for k, v in wanted.items() if k in known})
        return self._wandb.init(mode=mode, settings=settings, **arguments)

    def log(self, record: Mapping[str, float]) -> None:
        """Log a record; never with `step=`, which must not go back and cannot be resumed."""
        for axis in ("global_step", "frames"):
            if axis in record:
                self._position[axis] = record[axis]
        self._run.log(dict(record))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Log a `Table`, at the place of the last record."""
        table = self._wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        self._run.log({name: table, **self._position})

    def report(self, html: str, markdown: str) -> None:
        """Log the page as media, as it is, and each of its figures."""
        pages = {"report": html} | figures_of(html)
        media = {name: self._wandb.Html(one, inject=False) for name, one in pages.items()}
        self._run.log(media | self._position)

    def finish(self, exit_code: int) -> None:
        """Close the W&B run; a code other than 0 marks it as failed there."""
        try:
            self._run.finish(exit_code=exit_code)
        except BaseException:
            # Its service is gone. Torn down here, it does not also print a traceback at exit.
            with contextlib.suppress(Exception):
                self._wandb.teardown(exit_code)
            raise
