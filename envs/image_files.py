"""Readers of published image files, IDX and CIFAR's, that believe nothing a file declares."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CIFAR_SHAPE",
    "Arrays",
    "Bytes",
    "CorruptError",
    "check_labels",
    "read_cifar",
    "read_idx",
]

Bytes = NDArray[np.uint8]
Arrays = tuple[Bytes, Bytes]  # images (n, C, H, W) and labels (n,)

CIFAR_SHAPE = (3, 32, 32)


class CorruptError(Exception):
    """A file is not what its name says: which, what it holds, what was expected."""


def read_idx(path: Path, item: tuple[int, ...]) -> Bytes:
    """Read an IDX file of bytes, plain or gzip: (n, *item). Everything it declares is checked."""
    raw = _unpacked(path)
    magic = bytes((0, 0, 0x08, 1 + len(item)))  # 0x08: unsigned bytes; then how many dimensions
    if raw[:4] != magic:
        raise CorruptError(
            f"{path}: begins with {raw[:4].hex(' ') or 'nothing'}: expected {magic.hex(' ')}, "
            f"an IDX file of bytes in {magic[3]} dimensions"
        )
    start = 4 + 4 * magic[3]
    if len(raw) < start:
        raise CorruptError(f"{path}: {len(raw)} bytes: expected a header of {start}")
    sizes = struct.unpack(f">{magic[3]}I", raw[4:start])
    if sizes[0] == 0 or sizes[1:] != item:
        wanted = " x ".join(["n", *map(str, item)])
        raise CorruptError(f"{path}: of size {' x '.join(map(str, sizes))}: expected {wanted}")
    if len(raw) - start != math.prod(sizes):
        raise CorruptError(
            f"{path}: {len(raw) - start} bytes after the header: expected {math.prod(sizes)}"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(sizes)


def read_cifar(path: Path, label_counts: tuple[int, ...]) -> Arrays:
    """Read CIFAR's binary format: records of label bytes, then red, green and blue planes.

    Args:
        path: the file.
        label_counts: how many labels there are of each kind in front of an image; the last kind
            is returned ((10,) for CIFAR-10; (20, 100), coarse and fine, for CIFAR-100).
    """
    record = len(label_counts) + math.prod(CIFAR_SHAPE)
    raw = np.frombuffer(path.read_bytes(), np.uint8)
    if not raw.size or raw.size % record:
        raise CorruptError(f"{path}: {raw.size} bytes: expected a multiple of {record}")
    rows = raw.reshape(-1, record)
    for column, count in enumerate(label_counts):
        check_labels(path, rows[:, column], count)
    return rows[:, len(label_counts) :].reshape(-1, *CIFAR_SHAPE), rows[:, len(label_counts) - 1]


def _unpacked(path: Path) -> bytes:
    raw = path.read_bytes()
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptError(f"{path}: {error}: expected a whole gzip file") from error


def check_labels(path: Path, labels: Bytes, count: int) -> None:
    """Raise `CorruptError` for a label outside 0..count-1."""
    wrong = np.flatnonzero(labels >= count)
    if wrong.size:
        raise CorruptError(
            f"{path}: label {labels[wrong[0]]} of image {wrong[0]}: expected 0..{count - 1}"
        )
