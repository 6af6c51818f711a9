"""One run, from a configuration to a run folder; `clrl.run.walk` says what happens in between.

A checkpoint holds all that the rest of the run depends on, and is taken only where nothing is half
done; on the CPU a resumed run goes on bit for bit as if it had never stopped.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from clrl.agents.learner import Learner
from clrl.run import checkpoint
from clrl.run.assemble import assemble, sequence_of
from clrl.run.config import Config, differences, load_config, protected, to_dict, to_yaml
from clrl.run.folder import RunFolder, write_text_atomic
from clrl.run.pretrained import find_pretrained
from clrl.run.stop import StopSignals
from clrl.run.summary import show
from clrl.run.walk import Walk
from clrl.types import ClrlError, TaskSequence

__all__ = ["prepare", "resume", "train"]

log = logging.getLogger(__name__)


def train(config: Config, runs: Path, sequence: TaskSequence | None = None) -> Path:
    """Run a configuration to its end and return the run folder.

    Args:
        config: validated; its agent and method are copied, not used up.
        runs: where the folder `<name>/seed<k>` is made.
        sequence: tasks to learn in place of the configuration's (for tasks made in code).

    Raises:
        ClrlError: bad configuration, missing ROM, a folder in use.
        Stopped: after a signal, when everything has been saved.
    """
    with StopSignals() as signals:
        sequence = sequence or sequence_of(config)
        learner = prepare(config, sequence)
        folder = RunFolder.create(runs, config.name, config.seed)
        with folder.lock():
            write_text_atomic(folder.config, to_yaml(config))
            Walk(config, folder, sequence, learner, signals).go(None)
    return folder.path


def prepare(config: Config, sequence: TaskSequence) -> Learner:
    """Make the learner of a new run; opens no environment and writes nothing.

    Raises:
        ClrlError: all that a run would be refused for before it begins.
    """
    if config.sequence.pretrained:
        find_pretrained(config, sequence)
    return assemble(config, sequence)


def resume(run: Path, *, allow_change: bool = False, sequence: TaskSequence | None = None) -> Path:
    """Go on with a run from its newest whole checkpoint and return its folder.

    Args:
        run: the run folder; its `config.yaml` may have been edited in what is not protected.
        allow_change: accept changed protected keys too.
        sequence: as given to `train`.

    Raises:
        ClrlError: no such run, one in use, changed protected keys, no usable checkpoint.
        Stopped: after a signal, when everything has been saved.
    """
    folder = RunFolder.open(run)
    config = load_config(folder.config)
    with StopSignals() as signals, folder.lock():
        if folder.status == "done" and folder.summary.exists():
            log.warning("%s is done already: nothing to resume", run)
            show(json.loads(folder.summary.read_text()))
            return folder.path
        checkpoint.clean(folder.checkpoints)
        checkpoint.clean(folder.ends)
        found = checkpoint.load_latest(folder.checkpoints)
        if folder.status == "done" and found is None:
            raise ClrlError(
                f"{run} is done, but has no summary.json, nor a checkpoint to make it from: bring "
                "one of them back, or delete the folder and start again"
            )
        _check_changes(config, folder, found, allow_change)
        sequence = sequence or sequence_of(config)
        learner = assemble(config, sequence)
        Walk(config, folder, sequence, learner, signals).go(found)
    return folder.path


def _check_changes(
    config: Config, folder: RunFolder, found: checkpoint.Checkpoint | None, allow_change: bool
) -> None:
    if folder.path.name != f"seed{config.seed}":
        raise ClrlError(
            f"{folder.config} says seed {config.seed}, but the folder is {folder.path.name}: "
            "undo the change or start another run",
            2,
        )
    changes = differences(found.meta["config"], to_dict(config)) if found else []
    if forbidden := [] if allow_change else protected(changes):
        raise ClrlError(
            f"config.yaml has changed since the checkpoint: {'; '.join(forbidden)}; "
            "undo it, start another run, or pass --allow-change",
            2,
        )
    for change in changes:
        log.warning("config.yaml has changed since the checkpoint: %s", change)
