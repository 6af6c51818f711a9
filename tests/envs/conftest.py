"""Small data sets in the published formats, written byte by byte."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

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
