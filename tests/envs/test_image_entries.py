"""What an entry of an image sequence means, and how it is written back."""

from __future__ import annotations

import pytest

from clrl.envs.image_entries import understood
from clrl.types import ClrlError


@pytest.mark.parametrize(
    ("entry", "name", "meaning"),
    [
        ("mnist", "mnist", ("mnist", None, None, 0.0)),
        (" MNIST ", "mnist", ("mnist", None, None, 0.0)),
        ("mnist:0+1", "mnist:0+1", ("mnist", (0, 1), None, 0.0)),
        ("mnist: 1 + 0", "mnist:1+0", ("mnist", (1, 0), None, 0.0)),
        ("mnist:0-1", "mnist:0+1", ("mnist", (0, 1), None, 0.0)),
        ("CIFAR-10:0-4", "cifar10:0-4", ("cifar10", (0, 1, 2, 3, 4), None, 0.0)),
        ("cifar10:0+1+2", "cifar10:0-2", ("cifar10", (0, 1, 2), None, 0.0)),
        ("cifar10:7+0-2+5", "cifar10:7+0-2+5", ("cifar10", (7, 0, 1, 2, 5), None, 0.0)),
        ("cifar100:98-99+3", "cifar100:98+99+3", ("cifar100", (98, 99, 3), None, 0.0)),
        ("mnist:0-9", "mnist", ("mnist", None, None, 0.0)),
        ("mnist:permutation=3", "mnist:permutation=3", ("mnist", None, 3, 0.0)),
        ("mnist:permutation=0", "mnist:permutation=0", ("mnist", None, 0, 0.0)),
        ("mnist:noise=0.50,1+3", "mnist:1+3,noise=0.5", ("mnist", (1, 3), None, 0.5)),
        (
            "mnist:noise=0.25, permutation=2, 4+6",
            "mnist:4+6,permutation=2,noise=0.25",
            ("mnist", (4, 6), 2, 0.25),
        ),
        ("mnist:noise=0", "mnist", ("mnist", None, None, 0.0)),
    ],
)
def test_entries_are_understood_and_written_back_in_one_way(
    entry: str, name: str, meaning: tuple[object, ...]
) -> None:
    asked = understood(entry)
    assert tuple(asked) == meaning
    assert asked.name == name
    assert understood(name) == asked


@pytest.mark.parametrize(
    ("entry", "code", "words"),
    [
        ("mnits:0+1", 3, "did you mean 'mnist'"),
        ("", 3, "choose from"),
        ("mnist:", 2, r"'0\+1'"),
        ("mnist:0+", 2, r"'0\+1'"),
        ("mnist:0+x", 2, r"'0\+1'"),
        ("mnist:-1", 2, r"'0\+1'"),
        ("mnist:³", 2, r"'0\+1'"),
        ("mnist:10", 2, r"0\.\.9"),
        ("cifar100:5+100", 2, r"class 100: cifar100 has 0\.\.99"),
        ("mnist:4-2", 2, "class 4-2"),
        ("mnist:0+1+0", 2, "twice"),
        ("mnist:0-3+2", 2, "twice"),
        ("mnist:0+1,2+3", 2, "classes twice"),
        ("mnist:noise=0.1,noise=0.1", 2, "noise twice"),
        ("mnist:permutatoin=1", 2, "did you mean 'permutation'"),
        ("mnist:permutation=x", 2, "whole number"),
        ("mnist:permutation=-1", 2, "whole number"),
        ("mnist:noise=1.5", 2, "from 0 to 1"),
        ("mnist:noise=-0.5", 2, "from 0 to 1"),
        ("mnist:noise=nan", 2, "from 0 to 1"),
        ("mnist:noise=much", 2, "from 0 to 1"),
    ],
)
def test_what_is_not_understood_is_refused(entry: str, code: int, words: str) -> None:
    with pytest.raises(ClrlError, match=words) as caught:
        understood(entry)
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)
