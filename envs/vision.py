"""Image classification as tasks, and the sequences of them that ship."""

from __future__ import annotations

import difflib
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from clrl.envs.datasets import DATASETS, Examples, canonical, held_out, load
from clrl.envs.image_entries import Asked, understood
from clrl.envs.sequences import NamedSequence
from clrl.types import ClrlError, Task, TaskSequence

__all__ = [
    "IMAGE_SEQUENCES",
    "Examples",
    "Scenario",
    "Split",
    "VisionTask",
    "build_image_sequence",
    "is_image_entry",
    "require_data",
]

Scenario = Literal["task", "domain", "class"]
Split = Literal["train", "valid", "test"]

SCENARIOS = ("task", "domain", "class")
PERMUTATION_SEED, NOISE_SEED = 1, 2  # with the permutation's number, and with data set and split


@dataclass(frozen=True)
class VisionTask(Task):
    """Telling some classes of a data set from each other.

    Attributes:
        dataset: its name, as in `datasets.DATASETS`.
        classes: original labels; None: all.
        permutation: a fixed shuffling of the pixels' places, alike in all channels, done before
            any padding; 0 is the identity, None none.
        noise: the share of pixels that are black or white instead, by a fixed draw for each image
            of the data set (salt and pepper: PathNet's binary MNIST has 0.5).
        outputs: the output for each of the classes, in their order; (): 0, 1, ...
        shape: (C, H, W) that images are brought to: grey ones repeated over the channels, smaller
            ones in the middle of zeros; (): the data set's own.
        validation: the share of every class's training images that "valid" has and "train" lacks.
    """

    dataset: str = ""
    classes: tuple[int, ...] | None = None
    permutation: int | None = None
    noise: float = 0.0
    outputs: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    validation: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataset", canonical(self.dataset))
        source = DATASETS[self.dataset]
        chosen = range(source.n_classes) if self.classes is None else self.classes
        object.__setattr__(self, "outputs", self.outputs or tuple(range(len(chosen))))
        object.__setattr__(self, "shape", self.shape or source.shape)
        if len(self.outputs) != len(chosen) or max(self.outputs) >= self.n_outputs:
            raise ValueError(f"task {self.name!r}: outputs {self.outputs} of {self.n_outputs}")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W): the shape of one image."""
        return self.shape

    @property
    def evaluated_split(self) -> Split:
        """The split that evaluations look at: not the test set while there is a validation set."""
        return "valid" if self.validation else "test"

    def examples(self, split: Split) -> Examples:
        """Return images (n, *input_shape) uint8 and their outputs (n,) long; the same every time.

        Raises:
            ClrlError: with exit code 3, where the data are missing or damaged; 2 for "valid" of a
                task without a validation set.
        """
        if split == "valid" and not self.validation:
            raise ClrlError(
                f"task {self.name!r} has no validation set: set sequence.held_out=0.1", 2
            )
        self.count(split)
        data = load(self.dataset)
        images, labels = data.test if split == "test" else data.train
        rows = self._rows(split, labels.numpy())
        x, label = (images, labels) if rows is None else (images[rows], labels[rows])
        if self.noise:
            x = _noisy(x, self._draw(split, images), rows, self.noise)
        if self.permutation:
            x = _permuted(x, self.permutation)
        numbers = torch.zeros(DATASETS[self.dataset].n_classes, dtype=torch.long)
        numbers[slice(None) if self.classes is None else list(self.classes)] = torch.tensor(
            self.outputs
        )
        return Examples(_placed(x, self.shape), numbers[label])

    def count(self, split: Split) -> int:
        """Return how many images `examples(split)` has.

        Raises:
            ClrlError: as `examples`; (exit 2) if there are none.
        """
        data = load(self.dataset)
        labels = (data.test if split == "test" else data.train).label
        rows = self._rows(split, labels.numpy())
        n = len(labels) if rows is None else len(rows)
        if n == 0 and split != "test" and self.validation:
            raise ClrlError(
                f"sequence.held_out is {self.validation:g}, which leaves no images for "
                f"{'evaluating' if split == 'valid' else 'learning'} task {self.name!r}: "
                "expected a share between, 0.1 say",
                2,
            )
        if n == 0:
            raise ClrlError(f"task {self.name!r}: its {split} set has no images", 3)
        return n

    def _rows(self, split: Split, labels: NDArray[np.int64]) -> Tensor | None:
        """Return which images of the published split belong to the task; None: all."""
        mask = np.ones(len(labels), dtype=np.bool_)
        if self.classes is not None:
            mask &= np.isin(labels, self.classes)
        if split != "test" and self.validation:
            mask &= held_out(labels, self.validation) == (split == "valid")
        return None if mask.all() else torch.from_numpy(np.flatnonzero(mask))

    def _draw(self, split: Split, images: Tensor) -> NDArray[np.float32]:
        """Return (n, H, W) in [0, 1) for all of a published split, whatever the task has of it."""
        seed = (NOISE_SEED, zlib.crc32(self.dataset.encode()), int(split == "test"))
        shape = (len(images), *images.shape[2:])
        return np.random.default_rng(seed).random(shape, dtype=np.float32)


def _noisy(x: Tensor, draw: NDArray[np.float32], rows: Tensor | None, share: float) -> Tensor:
    chance = torch.from_numpy(draw)
    chance = (chance if rows is None else chance[rows])[:, None]  # one for all channels
    return x.masked_fill(chance < share, 255).masked_fill(chance < share / 2, 0)


def _permuted(x: Tensor, number: int) -> Tensor:
    places = x.shape[-2] * x.shape[-1]
    order = np.random.default_rng((PERMUTATION_SEED, number)).permutation(places)
    index = torch.from_numpy(order).expand(*x.shape[:2], -1)  # 9 times faster than index_select
    return x.flatten(2).gather(2, index).view(x.shape)


def _placed(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Bring images to a common shape; repeated channels are a view and take no memory."""
    high, wide = shape[1] - x.shape[2], shape[2] - x.shape[3]
    if high or wide:
        x = pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
    return x if x.shape[1] == shape[0] else x.expand(-1, shape[0], -1, -1)


# -------------------------------------------------------------------------------------- sequences


def is_image_entry(entry: str) -> bool:
    """Tell whether an entry of a sequence names a data set (and not a game)."""
    try:
        return bool(canonical(entry.partition(":")[0]))
    except ClrlError:
        return False


def build_image_sequence(
    entries: Sequence[str],
    cycles: int,
    scenario: Scenario,
    shared_head: bool,
    validation: float = 0.0,
) -> TaskSequence:
    """Make tasks and visits; reads no data.

    Args:
        entries: "mnist", "mnist:0+1", "cifar10:0-4", "mnist:permutation=3",
            "mnist:1+3,noise=0.5". An entry that was there before is another visit to its task.
        cycles: how often the entries are gone through.
        scenario: "task": a head a task, or one head for the classes of all in which those of the
            task are legal. "domain": one head, in which output i is every task's i-th class.
            "class": one head for the classes of all, in the order of their first appearance.
        shared_head: one head for all tasks.
        validation: the share of the training images held out, and evaluated on.

    Raises:
        ClrlError: exit code 3 for an unknown data set, 2 for anything else that is not understood
            or does not go together.
    """
    if not entries or cycles < 1:
        raise ClrlError(
            f"{len(entries)} tasks in {cycles} cycles: expected at least one of each", 2
        )
    if not 0.0 <= validation < 1.0:
        raise ClrlError(f"{validation} held out: expected a share of 0 or more, below 1", 2)
    visits = [understood(entry) for entry in entries]
    asked = {one.name: one for one in visits}
    _check_scenario(scenario, shared_head, list(asked.values()))
    shapes = [DATASETS[one.dataset].shape for one in asked.values()]
    shape = tuple(max(sides) for sides in zip(*shapes, strict=True))
    every = list(dict.fromkeys(what for one in asked.values() for what in one.meanings))
    tasks = []
    for number, (name, one) in enumerate(asked.items()):
        outputs = tuple(range(len(one.meanings)))
        legal = None
        if scenario == "class" or (scenario == "task" and shared_head):
            outputs = tuple(every.index(what) for what in one.meanings)
            legal = tuple(sorted(outputs)) if len(outputs) < len(every) else None
        n_outputs = len(outputs if legal is None else every)
        tasks.append(
            VisionTask(number, name, n_outputs, legal, *one, outputs, shape, float(validation))
        )
    places = {name: number for number, name in enumerate(asked)}
    return TaskSequence(tuple(tasks), tuple(places[one.name] for one in visits) * cycles)


def require_data(sequence: TaskSequence) -> None:
    """Read the data of all image tasks, once, before anything else is begun.

    Raises:
        ClrlError: (exit 3) a file is missing or damaged; (exit 2) so little, or so much, is held
            out that a task is left without pictures to evaluate, or to learn.
    """
    for task in sequence.tasks:
        if isinstance(task, VisionTask):
            for split in ("train", task.evaluated_split):
                task.count(split)


def _check_scenario(scenario: str, shared_head: bool, asked: Sequence[Asked]) -> None:
    if scenario not in SCENARIOS:
        near = difflib.get_close_matches(scenario, SCENARIOS, n=1, cutoff=0.0)[0]
        raise ClrlError(f"unknown scenario {scenario!r}: did you mean {near!r}?", 2)
    if scenario != "task" and not shared_head:
        why = {
            "class": "a head a task would tell which task an image is from, which is to be found",
            "domain": "all tasks have the same outputs",
        }[scenario]
        raise ClrlError(f"scenario {scenario!r} with a head a task: {why}: set net.heads=shared", 2)
    counts = {one.name: len(one.meanings) for one in asked}
    if scenario == "domain" and len(set(counts.values())) > 1:
        told = ", ".join(f"{name!r} has {n}" for name, n in counts.items())
        raise ClrlError(f"scenario 'domain': expected equally many classes in all tasks; {told}", 2)
    for name, n in counts.items():
        if n < 2 and scenario != "class":
            raise ClrlError(f"task {name!r}: one class: expected two or more to tell apart", 2)


def _pairs(dataset: str) -> tuple[str, ...]:
    return tuple(f"{dataset}:{first}+{first + 1}" for first in range(0, 10, 2))


def _binary(seed: int) -> tuple[str, ...]:
    a, b, c, d = random.Random(seed).sample(range(10), 4)
    return tuple(f"mnist:{min(pair)}+{max(pair)},noise=0.5" for pair in ((a, b), (c, d)))


IMAGE_SEQUENCES = {
    "split_digits": NamedSequence(
        "images: five pairs of scikit-learn's digits; needs no download", _pairs("digits")
    ),
    "split_mnist": NamedSequence("images: MNIST in five pairs of digits", _pairs("mnist")),
    "permuted_mnist": NamedSequence(
        "images: MNIST, then nine times with its pixels shuffled",
        tuple(f"mnist:permutation={number}" for number in range(10)),
    ),
    "split_cifar10": NamedSequence("images: CIFAR-10 in five pairs of classes", _pairs("cifar10")),
    "split_cifar100": NamedSequence(
        "images: CIFAR-100 in ten tasks of ten classes",
        tuple(f"cifar100:{first}-{first + 9}" for first in range(0, 100, 10)),
    ),
    "datasets3": NamedSequence(
        "images: MNIST, notMNIST, CIFAR-10, all as 3 x 32 x 32", ("mnist", "notmnist", "cifar10")
    ),
    "binary_mnist": NamedSequence(
        "images: two pairs of noisy MNIST digits, drawn by seed (PathNet, Fernando et al. 2017)",
        _binary(0),
        draw=_binary,
    ),
}
