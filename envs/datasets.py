"""The image data sets: what there is, where their files lie, and what is in memory of them."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clrl.envs.image_files import (
    CIFAR_SHAPE,
    Arrays,
    Bytes,
    CorruptError,
    check_labels,
    read_cifar,
    read_idx,
)
from clrl.types import ClrlError

__all__ = [
    "DATASETS",
    "Dataset",
    "Examples",
    "Source",
    "canonical",
    "folder",
    "held_out",
    "load",
    "missing",
    "paths",
    "require",
]

log = logging.getLogger(__name__)

OWN_SPLIT = 0.2  # the share of test images, where a data set has no split of its own


class Examples(NamedTuple):
    """Images with their labels. They may be views of what others use too: never write into them."""

    x: Tensor  # (n, C, H, W) uint8
    label: Tensor  # (n,) long


class Dataset(NamedTuple):
    """A data set as it was published, in its original numbering."""

    train: Examples
    test: Examples


@dataclass(frozen=True)
class Source:
    """What is known of a data set before it is read.

    Attributes:
        description: one line.
        shape: of one image, (C, H, W).
        n_classes: its labels are 0..n_classes-1.
        files: official names, relative to `folder()`.
        read: makes training and test arrays of these files, in this order.
    """

    description: str
    shape: tuple[int, int, int]
    n_classes: int
    files: tuple[str, ...]
    read: Callable[[Source, list[Path]], tuple[Arrays, Arrays]]


# ------------------------------------------------------------------------------ where and which


def folder() -> Path:
    """Return where data sets lie: `$CLRL_DATA`; else clrl in the user's cache folder."""
    if given := os.environ.get("CLRL_DATA"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "clrl"


def canonical(name: str) -> str:
    """Return the name of a data set given as "cifar10", "CIFAR-10" or "notMNIST".

    Raises:
        ClrlError: with exit code 3, for one that is unknown.
    """
    plain = name.strip().lower().replace("-", "").replace("_", "")
    if plain in DATASETS:
        return plain
    near = difflib.get_close_matches(plain, DATASETS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(DATASETS)}"
    raise ClrlError(f"unknown data set {name!r}: {hint}", 3)


def missing(name: str) -> list[str]:
    """Return the files of a data set that are not there; "scikit-learn" if digits lack that."""
    source = DATASETS[canonical(name)]
    if not source.files:
        return [] if _installed("sklearn") else ["scikit-learn"]
    return [file for file in source.files if not _place(file).is_file()]


def require(name: str) -> None:
    """Raise `ClrlError` (exit code 3, with the command that mends it) unless the files are there.

    They are not opened: a damaged file shows when it is read.
    """
    name = canonical(name)
    absent = missing(name)
    if not absent:
        return
    if not DATASETS[name].files:
        raise ClrlError(f"data set {name!r} needs scikit-learn: pip install 'clrl[images]'", 3)
    raise ClrlError(
        f"data set {name!r}: no file {folder() / absent[0]}: get it with: clrl fetch {name} "
        "(or set CLRL_DATA to the folder that holds it)",
        3,
    )


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # as where imports of it are blocked
        return False


def load(name: str) -> Dataset:
    """Return a data set; read once a process, and never downloaded.

    Files that are whole, but not the published ones, are read too, and told of in the log.

    Raises:
        ClrlError: with exit code 3, for an unknown data set, and for a missing or damaged file.
    """
    name = canonical(name)
    require(name)
    return _load(name, folder())


@functools.cache
def _load(name: str, root: Path) -> Dataset:
    source = DATASETS[name]
    try:
        train, test = source.read(source, paths(name))
    except CorruptError as error:
        raise ClrlError(f"{error}; delete that file and run: clrl fetch {name}", 3) from error
    from clrl.envs.fetch import altered  # here: it knows this module

    for path in altered(name):
        log.warning("%s is not what was published as %s: its results are of other data", path, name)
    return Dataset(_examples(*train), _examples(*test))


def paths(name: str) -> list[Path]:
    """Return where the files of a data set lie, or would."""
    return [_place(file) for file in DATASETS[canonical(name)].files]


def _place(file: str) -> Path:
    """Return where a file is or should be; it may also lie there unpacked, without its ".gz"."""
    path = folder() / file
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    return path if path.exists() or not plain.exists() else plain


def _examples(images: Bytes, labels: Bytes) -> Examples:
    x = torch.from_numpy(images.copy() if not images.flags.writeable else images)
    return Examples(x, torch.from_numpy(labels.astype(np.int64)))


def held_out(labels: NDArray[np.integer], share: float) -> NDArray[np.bool_]:
    """Choose evenly spaced images of every class, without chance: 0.2 is each one's every fifth.

    Returns:
        (n,) bool: those held out, floor(share * count) of each class.
    """
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        so_far = np.floor(np.arange(len(rows) + 1) * share + 1e-9)  # 0.29 * 100 is 28.999...
        chosen[rows[np.diff(so_far) > 0]] = True
    return chosen


# ------------------------------------------------------------------------------ what they hold


def _idx_pair(source: Source, images: Path, labels: Path) -> Arrays:
    x, label = read_idx(images, source.shape[1:]), read_idx(labels, ())
    if len(x) != len(label):
        raise CorruptError(f"{labels}: {len(label)} labels: expected {len(x)}, as {images.name}")
    check_labels(labels, label, source.n_classes)
    return x[:, None], label


def _mnist(source: Source, files: list[Path]) -> tuple[Arrays, Arrays]:
    return _idx_pair(source, *files[:2]), _idx_pair(source, *files[2:])


def _notmnist(source: Source, files: list[Path]) -> tuple[Arrays, Arrays]:
    return _split(*_idx_pair(source, *files))


def _cifar10(source: Source, files: list[Path]) -> tuple[Arrays, Arrays]:
    batches = _cifar(files, (10,), (1,) * len(files))
    images, labels = (np.concatenate(part) for part in zip(*batches[:-1], strict=True))
    return (images, labels), batches[-1]


def _cifar100(source: Source, files: list[Path]) -> tuple[Arrays, Arrays]:
    train, test = _cifar(files, (20, 100), (5, 1))
    return train, test


def _cifar(
    files: list[Path], label_counts: tuple[int, ...], sizes: tuple[int, ...]
) -> list[Arrays]:
    """Read files whose sizes are in a known ratio: nothing in one tells that its end is missing."""
    parts = [read_cifar(file, label_counts) for file in files]
    unit = max(len(label) // size for (_, label), size in zip(parts, sizes, strict=True))
    for file, (_, label), size in zip(files, parts, sizes, strict=True):
        if len(label) != size * unit:
            raise CorruptError(f"{file}: {len(label)} images: expected {size * unit}")
    return parts


def _digits(source: Source, files: list[Path]) -> tuple[Arrays, Arrays]:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    pixels, labels = load_digits(return_X_y=True)  # (1797, 64) from 0.0 to 16.0
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, *source.shape)
    return _split(images, labels.astype(np.uint8))


def _split(images: Bytes, labels: Bytes) -> tuple[Arrays, Arrays]:
    test = held_out(labels, OWN_SPLIT)
    return (images[~test], labels[~test]), (images[test], labels[test])


def _idx_files(name: str, part: str) -> tuple[str, str]:
    return f"{name}/{part}-images-idx3-ubyte.gz", f"{name}/{part}-labels-idx1-ubyte.gz"


DATASETS = {
    "digits": Source(
        "1,797 digits of 8 x 8 pixels, bundled with scikit-learn; test: every fifth of a class",
        (1, 8, 8),
        10,
        (),
        _digits,
    ),
    "mnist": Source(
        "60,000 + 10,000 hand-written digits of 28 x 28 pixels",
        (1, 28, 28),
        10,
        (*_idx_files("mnist", "train"), *_idx_files("mnist", "t10k")),
        _mnist,
    ),
    "notmnist": Source(
        "10,000 letters A to J of 28 x 28 pixels; test: every fifth of a class (8,000 + 2,000)",
        (1, 28, 28),
        10,
        _idx_files("notmnist", "t10k"),
        _notmnist,
    ),
    "cifar10": Source(
        "50,000 + 10,000 colour photographs of 32 x 32 pixels in 10 classes",
        CIFAR_SHAPE,
        10,
        tuple(
            f"cifar-10-batches-bin/{batch}.bin"
            for batch in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
        ),
        _cifar10,
    ),
    "cifar100": Source(
        "50,000 + 10,000 colour photographs of 32 x 32 pixels in 100 classes (the fine labels)",
        CIFAR_SHAPE,
        100,
        ("cifar-100-binary/train.bin", "cifar-100-binary/test.bin"),
        _cifar100,
    ),
}
