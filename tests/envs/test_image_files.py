"""Readers of IDX and CIFAR files: what they give, and what they do not believe."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clrl.envs.image_files import CorruptError, check_labels, read_cifar, read_idx

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


@pytest.mark.parametrize("packed", [False, True])
def test_idx_is_read_plain_and_packed(tmp_path: Path, packed: bool, to_idx: Any) -> None:
    for array, item in ((IMAGES, (4, 5)), (IMAGES[:, 0, 0], ())):
        raw = to_idx(array)
        (tmp_path / "file").write_bytes(gzip.compress(raw) if packed else raw)
        np.testing.assert_array_equal(read_idx(tmp_path / "file", item), array)


HEADER = bytes((0, 0, 8, 3)) + struct.pack(">3I", 3, 4, 5)
BODY = IMAGES.tobytes()


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "begins with nothing"),
        (b"\x00", "begins with 00"),
        (b"\x01" + HEADER[1:] + BODY, "begins with 01 00 08 03: expected 00 00 08 03"),
        (b"\x00\x00\x0d\x03" + HEADER[4:] + BODY, "begins with 00 00 0d 03"),  # floats
        (b"\x00\x00\x08\x01" + HEADER[4:] + BODY, "begins with 00 00 08 01"),  # labels
        (HEADER[:15], "15 bytes: expected a header of 16"),
        (HEADER[:8] + struct.pack(">2I", 5, 4) + BODY, "3 x 5 x 4: expected n x 4 x 5"),
        (HEADER[:4] + struct.pack(">3I", 0, 4, 5), "0 x 4 x 5: expected n x 4 x 5"),
        (HEADER[:4] + struct.pack(">3I", 2**32 - 1, 4, 5) + BODY, "expected 85899345900"),
        (HEADER + BODY[:-1], "59 bytes after the header: expected 60"),
        (HEADER + BODY + b"\x00", "61 bytes after the header: expected 60"),
        (gzip.compress(HEADER + BODY)[:-9], "expected a whole gzip file"),
        (gzip.compress(HEADER + BODY)[:-8] + b"\x00" * 8, "expected a whole gzip file"),  # CRC
        (b"\x1f\x8b" + BODY, "expected a whole gzip file"),
    ],
)
def test_a_damaged_idx_file_is_named_with_what_was_expected(
    tmp_path: Path, raw: bytes, told: str
) -> None:
    path = tmp_path / "images"
    path.write_bytes(raw)
    with pytest.raises(CorruptError) as caught:
        read_idx(path, (4, 5))
    assert str(caught.value).startswith(f"{path}: ") and told in str(caught.value)


def record(*labels: int) -> bytes:
    """Return a record whose red, green and blue planes are 1, 2 and 3, but red's second pixel."""
    planes = bytes([1, 9, *[1] * 1022]) + bytes([2] * 1024) + bytes([3] * 1024)
    return bytes(labels) + planes


@pytest.mark.parametrize(("labels", "counts"), [((7,), (10,)), ((3, 99), (20, 100))])
def test_cifar_has_labels_then_planes_row_by_row(
    tmp_path: Path, labels: tuple[int, ...], counts: tuple[int, ...]
) -> None:
    (tmp_path / "x.bin").write_bytes(record(*labels) * 2)
    images, label = read_cifar(tmp_path / "x.bin", counts)
    assert images.shape == (2, 3, 32, 32)
    assert label.tolist() == [labels[-1]] * 2
    assert images[1, :, 5, 5].tolist() == [1, 2, 3]
    assert images[1, 0, 0, 1] == 9 and images[1, 0, 1, 0] == 1


@pytest.mark.parametrize(
    ("raw", "counts", "told"),
    [
        (b"", (10,), "0 bytes: expected a multiple of 3073"),
        (record(1)[:-1], (10,), "3072 bytes: expected a multiple of 3073"),
        (record(1), (20, 100), "3073 bytes: expected a multiple of 3074"),
        (record(1) + record(10), (10,), "label 10 of image 1: expected 0..9"),
        (record(20, 1), (20, 100), "label 20 of image 0: expected 0..19"),
        (record(1, 100), (20, 100), "label 100 of image 0: expected 0..99"),
    ],
)
def test_a_damaged_cifar_file_is_named_with_what_was_expected(
    tmp_path: Path, raw: bytes, counts: tuple[int, ...], told: str
) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(raw)
    with pytest.raises(CorruptError) as caught:
        read_cifar(path, counts)
    assert str(caught.value) == f"{path}: {told}"


def test_labels_up_to_the_last_are_good(tmp_path: Path) -> None:
    check_labels(tmp_path, np.array([0, 9], dtype=np.uint8), 10)
    with pytest.raises(CorruptError, match=r"label 9 of image 1: expected 0\.\.8"):
        check_labels(tmp_path, np.array([0, 9], dtype=np.uint8), 9)
