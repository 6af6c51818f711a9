"""What holds for every test: one thread, fixed seeds, no network, no account of the developer's."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before torch is imported, and for the processes tests start: on few cores more threads only fight,
# and results must not depend on how many cores a machine has.
os.environ["OMP_NUM_THREADS"] = "1"
for name in [name for name in os.environ if name.startswith("WANDB_")]:
    del os.environ[name]
os.environ["WANDB_MODE"] = "disabled"  # a test that wants offline or online sets it itself,
os.environ["WANDB_BASE_URL"] = "http://127.0.0.1:9"  # and then meets a closed port,
os.environ["WANDB_ERROR_REPORTING"] = "false"  # no look-up of a host name even when offline,
os.environ["NETRC"] = os.devnull  # and no key

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `gpu` tests where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; torch finds none here"))


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - code under test may use it, through stable-baselines3 say
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _torch_as_found() -> Iterator[None]:
    """Undo what a test changes of torch for the whole process."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    if torch.are_deterministic_algorithms_enabled() != deterministic:  # slow to set
        torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections that leave this machine."""
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not (
            address[0] in ("localhost", "::1") or address[0].startswith("127.")
        ):
            raise ConnectionRefusedError(f"a test tried to reach {address}; tests use no network")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_locally)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder for run folders, new for each test."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder
