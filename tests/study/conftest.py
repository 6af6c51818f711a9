"""A small transfer study, for the tests of its parts; and scipy's bootstrap."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

STUDY: dict[str, Any] = {
    "name": "toy",
    "sources": ["digits:0+1", "digits:2+3"],
    "targets": ["digits:2+3", "digits:4+5"],
    "methods": {"finetune": {}, "weak": {"name": "ewc", "strength": 0.5}},
    "seeds": [3, 5],
    "run": {
        "sequence": {"steps": 40},
        "agent": {"name": "supervised", "batch_size": 8},
        "net": {"body": "mlp", "hidden": [8]},
        "evaluation": {"every": 10},
    },
}

WriteStudy = Callable[..., Path]


@pytest.fixture(scope="session")
def write_study() -> WriteStudy:
    """Return a function (folder, **changes) that writes the study; what is None is left out."""

    def write(folder: Path, **changes: Any) -> Path:
        path = folder / "study.yaml"
        data = {key: value for key, value in (STUDY | changes).items() if value is not None}
        path.write_text(yaml.safe_dump(data))
        return path

    return write


@pytest.fixture
def shared_settings() -> dict[str, Any]:
    """What the runs of the study share."""
    return dict(STUDY["run"])


@pytest.fixture(scope="session")
def scipys_interval() -> Callable[..., Any]:
    """Return the interval of scipy's percentile bootstrap: 999 resamples at once, seed 7."""

    def interval(samples: tuple[Any, ...], statistic: Callable[..., Any], *, paired: bool) -> Any:
        return stats.bootstrap(
            samples,
            statistic,
            paired=paired,
            n_resamples=999,
            batch=999,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(7),
        ).confidence_interval

    return interval


@pytest.fixture
def report_without_torch() -> Callable[[Path], None]:
    """Return a function that reports a folder in a new process, and fails if that loads torch."""
    program = """
import sys
from clrl.cli import main
try:
    main(["report", sys.argv[1]])
except SystemExit as done:
    assert done.code == 0
assert "torch" not in sys.modules
"""

    def report(path: Path) -> None:
        command = [sys.executable, "-c", program, path]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    return report
