"""The pairs of games that are compared, and the arms of each: all that is known of one, once."""

from __future__ import annotations

from typing import Any, NamedTuple

OTHERS = "all without PathNet"  # share a net
PATHNET, SMALL = "PathNet", "PathNet's small modules"


class Pair(NamedTuple):
    source: str
    target: str
    changes: tuple[str, ...] = ()  # to an arm's file


class Arm(NamedTuple):
    """One way to learn a pair's target.

    Attributes:
        label: its name in tables.
        file: `configs/<file>.yaml`.
        method: settings of its method that make it this arm: runs are made with them, and a run
            without them is refused, whatever its folder is called.
        changes: more changes to the file.
        alone: it learns the target alone; else the source before.
        shares: it goes on from the one run that learned the source for all.
        net: whose net it has: those of one net must agree in it.
        beside: arms it is compared with.
        line: color and style of its curve.
    """

    label: str
    file: str
    method: dict[str, Any]
    changes: tuple[str, ...] = ()
    alone: bool = False
    shares: bool = False
    net: str = OTHERS
    beside: tuple[str, ...] = ()
    line: tuple[str, str] = ("#000000", "-")

    @property
    def settings(self) -> list[str]:
        """What makes the file this arm, last on a command line."""
        own = {key: value for key, value in self.method.items() if key != "name"}
        spelled = [f"method.{key}={str(value).lower()}" for key, value in own.items()]
        return [*spelled, *self.changes]


SHORT = ("sequence.steps=90000", "evaluation.every=18000")
PAIRS = {
    "p1": Pair("Freeway", "Freeway-vflip"),
    "p2": Pair("CrazyClimber", "CrazyClimber-vflip", SHORT),
    "p3": Pair("CrazyClimber", "KungFuMaster", SHORT),
    "p4": Pair("CrazyClimber", "CrazyClimber-noisy", SHORT),
}

LAYERS = {"name": "pathnet", "modules": 3, "active": 1, "keep_frozen_active": False}
MODULES = {"name": "pathnet", "modules": 10, "active": 4, "keep_frozen_active": True}
ARMS = {
    "b1": Arm("1 from scratch", "pair_baseline1", {"name": "finetune"}, alone=True),
    "b2": Arm(
        "2 frozen, new head",
        "pair_baseline2",
        {"name": "frozen"},
        shares=True,
        beside=("b1",),
        line=("#CC79A7", ":"),
    ),
    "b3": Arm(
        "3 fine-tuned",
        "pair_baseline3",
        {"name": "finetune"},
        shares=True,
        beside=("b1",),
        line=("#E69F00", "--"),
    ),
    "b4": Arm(
        "4 random first column",
        "pair_baseline4",
        {"name": "progressive", "random_first": True},
        alone=True,
        beside=("b1",),
        line=("#56B4E9", "-."),
    ),
    "pnn": Arm(
        "two columns",
        "pair_progressive",
        {"name": "progressive", "random_first": False},
        shares=True,
        beside=("b1", "b3", "b4"),
        line=("#0072B2", "-"),
    ),
    "pathnet_alone": Arm(
        "PathNet from scratch",
        "pair_pathnet",
        {**LAYERS, "population": 8},
        alone=True,
        net=PATHNET,
        beside=("b1",),
        line=("#666666", "-"),
    ),
    "pathnet": Arm(
        "PathNet",
        "pair_pathnet",
        {**LAYERS, "population": 8},
        net=PATHNET,
        beside=("pathnet_alone", "stays", "b1", "b3"),
        line=("#009E73", "-"),
    ),
    "stays": Arm(
        "PathNet, a random path",
        "pair_pathnet",
        {**LAYERS, "population": 1},
        net=PATHNET,
        beside=("b1", "pathnet_alone"),
        line=("#009E73", ":"),
    ),
    "small_alone": Arm(
        "PathNet, small modules, from scratch",
        "pair_pathnet",
        {**MODULES, "population": 8},
        ("net.body=pathnet_atari",),
        alone=True,
        net=SMALL,
        beside=("b1",),
        line=("#666666", "--"),
    ),
    "small": Arm(
        "PathNet, small modules",
        "pair_pathnet",
        {**MODULES, "population": 8},
        ("net.body=pathnet_atari",),
        net=SMALL,
        beside=("small_alone", "b1", "b3"),
        line=("#D55E00", "-"),
    ),
}
SCRATCH = {OTHERS: "b1", PATHNET: "pathnet_alone", SMALL: "small_alone"}  # by net


def title(pair: str) -> str:
    return f"{PAIRS[pair].source} to {PAIRS[pair].target}"
