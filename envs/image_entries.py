"""What a configuration says of images ("mnist:1+3,noise=0.5"), understood and written back."""

from __future__ import annotations

import difflib
from itertools import pairwise
from typing import NamedTuple

from clrl.envs.datasets import DATASETS, canonical
from clrl.types import ClrlError

__all__ = ["Asked", "understood"]

OPTIONS = ("permutation", "noise")


class Asked(NamedTuple):
    """An entry, understood."""

    dataset: str
    classes: tuple[int, ...] | None
    permutation: int | None
    noise: float

    @property
    def name(self) -> str:
        """The entry as it is written back: the same for all that mean the same."""
        told = [] if self.classes is None else [_written(self.classes)]
        told += [] if self.permutation is None else [f"permutation={self.permutation}"]
        told += [f"noise={self.noise:g}"] if self.noise else []
        return self.dataset + (":" + ",".join(told) if told else "")

    @property
    def meanings(self) -> list[tuple[str, int, int]]:
        """What each of its classes is; the same classes of two tasks are one in a shared head.

        Noise leaves a class what it is; a permutation makes it another.
        """
        every = range(DATASETS[self.dataset].n_classes)
        chosen = every if self.classes is None else self.classes
        return [(self.dataset, self.permutation or 0, label) for label in chosen]


def understood(entry: str) -> Asked:
    """Read "mnist", "mnist:0+1", "cifar10:0-4", "mnist:permutation=3", "mnist:1+3,noise=0.5".

    Raises:
        ClrlError: exit code 3 for an unknown data set, 2 for anything else not understood.
    """
    what, colon, rest = entry.partition(":")
    dataset = canonical(what)
    found: dict[str, str] = {}
    for part in rest.split(",") if colon else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        key, value = (key, value) if equals else ("classes", key)
        if key not in (*OPTIONS, "classes"):
            near = difflib.get_close_matches(key, OPTIONS, n=1, cutoff=0.0)[0]
            raise ClrlError(f"task {entry!r}: unknown option {key!r}: did you mean {near!r}?", 2)
        if key in found:
            raise ClrlError(f"task {entry!r}: {key} twice: expected once", 2)
        found[key] = value
    number = found.get("permutation")
    if number is not None and not (number.isascii() and number.isdecimal()):
        raise ClrlError(f"task {entry!r}: expected a whole number, as in 'permutation=1'", 2)
    return Asked(
        dataset,
        _classes(entry, found["classes"], dataset) if "classes" in found else None,
        None if number is None else int(number),
        _share(entry, found.get("noise", "0")),
    )


def _share(entry: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise ClrlError(f"task {entry!r}: noise={text}: expected a share from 0 to 1", 2)
    return share


def _classes(entry: str, text: str, dataset: str) -> tuple[int, ...] | None:
    """Return the classes that "0+1" or "0-4" names; None where these are all, in their order."""
    count = DATASETS[dataset].n_classes
    chosen: list[int] = []
    for piece in text.split("+"):
        first, dash, last = (side.strip() for side in piece.partition("-"))
        ends = (first, last) if dash else (first, first)
        if not all(end.isascii() and end.isdecimal() for end in ends):
            raise ClrlError(f"task {entry!r}: expected classes as in '0+1' or '0-4'", 2)
        low, high = int(ends[0]), int(ends[1])
        if not low <= high < count:
            raise ClrlError(
                f"task {entry!r}: class {piece.strip()}: {dataset} has 0..{count - 1}", 2
            )
        chosen += range(low, high + 1)
    if len(set(chosen)) < len(chosen):
        raise ClrlError(f"task {entry!r}: a class is named twice: expected once", 2)
    return None if chosen == list(range(count)) else tuple(chosen)


def _written(classes: tuple[int, ...]) -> str:
    """Return "0+1" for (0, 1) and "0-4" for (0, 1, 2, 3, 4): runs of three or more are ranges."""
    breaks = [i + 1 for i, (a, b) in enumerate(pairwise(classes)) if b != a + 1]
    told: list[str] = []
    for start, end in pairwise([0, *breaks, len(classes)]):
        run = [str(label) for label in classes[start:end]]
        told += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else run
    return "+".join(told)
