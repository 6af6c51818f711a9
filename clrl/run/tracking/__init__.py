"""Trackers: mirrors of a run's records for W&B and TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clrl.run.tracking.tensorboard import TensorBoardBackend
from clrl.run.tracking.tracker import (
    BackgroundTracker,
    CombinedTracker,
    Notice,
    Tracker,
    TrackingSettings,
)
from clrl.run.tracking.weights_and_biases import WandbBackend, new_run_id, prepare_environment

__all__ = ["Notice", "Tracker", "TrackingSettings", "open_trackers"]


def open_trackers(
    settings: TrackingSettings,
    run_folder: Path,
    name: str,
    seed: int,
    config: Mapping[str, Any],
    resume_id: str | None,
    notice: Notice,
    *,
    patience: float = 60.0,
) -> Tracker:
    """Start the trackers a configuration asks for; returns at once, and never raises.

    Args:
        settings: which trackers, and how W&B files the run.
        run_folder: W&B writes to `wandb/` in it, TensorBoard to `tb/`.
        name: of the experiment.
        seed: of this run.
        config: the resolved configuration, as W&B shows it.
        resume_id: the W&B run to continue, from a checkpoint; None: a new one.
        notice: shows one line to the user; called from the trackers' threads.
        patience: most seconds that each tracker may take in `finish`.

    Returns:
        One tracker for all of them. Call its `finish` last, after everything has been saved.
    """
    trackers: list[Tracker] = []
    mode = prepare_environment(settings.wandb)
    if mode != "disabled":
        run_id = resume_id or new_run_id()

        def open_wandb() -> WandbBackend:
            return WandbBackend(settings, mode, run_folder, name, seed, config, run_id, notice)

        trackers.append(
            BackgroundTracker("W&B", open_wandb, notice, run_id=run_id, patience=patience)
        )
    if settings.tensorboard:

        def open_tensorboard() -> TensorBoardBackend:
            return TensorBoardBackend(run_folder / "tb")

        trackers.append(
            BackgroundTracker("TensorBoard", open_tensorboard, notice, patience=patience)
        )
    return CombinedTracker(trackers)
