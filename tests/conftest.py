"""What holds for every test: one thread, fixed seeds, no network, no account of the developer's."""

from __future__ import annotations

import gzip
import os
import random
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
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
from numpy.typing import NDArray  # noqa: E402

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


# ---- small data sets in the published formats, written byte by byte

CIFAR10_FILES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


def idx(array: NDArray[np.uint8]) -> bytes:
    """Return an array as an IDX file: two zeros, 8 for bytes, dimensions, sizes, content."""
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


@dataclass
class Published:
    """Data sets in a folder, and what was written of them: (images, labels) by file."""

    root: Path
    truth: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = field(default_factory=dict)

    def mnist(self) -> None:
        """Write 60 and 30 images with labels 0, 1, ..., 9, 0, ..."""
        (self.root / "mnist").mkdir(parents=True)
        for part, n in (("train", 60), ("t10k", 30)):
            rng = np.random.default_rng(n)
            images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
            labels = (np.arange(n) % 10).astype(np.uint8)
            self.truth[f"mnist/{part}"] = images, labels
            for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
                path = self.root / "mnist" / f"{part}-{kind}-ubyte.gz"
                path.write_bytes(gzip.compress(idx(array), 1))

    def cifar(self, name: str) -> None:
        """Write 30 records a file: [coarse and fine] label, then red, green and blue planes.

        Those of CIFAR-100 to learn from are five times as many, as in the published files.
        """
        hundred = name == "cifar100"
        folder = self.root / ("cifar-100-binary" if hundred else "cifar-10-batches-bin")
        folder.mkdir(parents=True)
        for seed, file in enumerate(["train.bin", "test.bin"] if hundred else CIFAR10_FILES):
            n = 150 if file == "train.bin" else 30
            images = np.random.default_rng(seed).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
            labels = ((np.arange(n) + seed) % (100 if hundred else 10)).astype(np.uint8)
            columns = [labels // 5, labels] if hundred else [labels]
            records = np.concatenate(
                [np.stack(columns, axis=1), images.reshape(n, 3 * 32 * 32)], axis=1
            )
            (folder / file).write_bytes(records.tobytes())
            self.truth[f"{name}/{file}"] = images, labels


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """An empty folder that CLRL_DATA names, and what writes data sets into it."""
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("CLRL_DATA", str(root))
    return Published(root)


@pytest.fixture
def to_idx() -> Any:
    """The function that makes an IDX file of an array."""
    return idx
