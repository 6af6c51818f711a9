"""From what a configuration says ("Freeway-vflip:mode=1") to tasks, and the sequences that ship."""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clrl.envs.atari import N_JOYSTICK, AtariTask
from clrl.envs.games import GYMNASIUM_VERSION, display_name, minimal_actions
from clrl.envs.protocol import AtariProtocol
from clrl.envs.variants import VARIANTS
from clrl.types import ClrlError, TaskSequence

__all__ = ["SEQUENCES", "NamedSequence", "build_sequence", "is_game", "shuffled"]

OPTIONS = ("mode", "difficulty")


@dataclass(frozen=True)
class NamedSequence:
    """A sequence that ships.

    Attributes:
        description: one line.
        tasks: in their order; each cycle goes through all of them.
        cycles: how often that is.
        draw: makes the whole list of visits from a seed, where the order is part of the design.
    """

    description: str
    tasks: tuple[str, ...]
    cycles: int = 1
    draw: Callable[[int], tuple[str, ...]] | None = None

    def entries(self, order_seed: int | None = None) -> tuple[str, ...]:
        """Return the visits; with a seed in an order drawn with it, the same in every cycle."""
        if self.draw is not None:
            return self.draw(order_seed or 0)
        return shuffled(self.tasks, order_seed) * self.cycles


def shuffled(entries: Sequence[str], order_seed: int | None) -> tuple[str, ...]:
    """Return entries in an order drawn with a seed; None: as they are."""
    order = list(entries)
    if order_seed is not None:
        random.Random(order_seed).shuffle(order)
    return tuple(order)


def build_sequence(
    entries: Sequence[str], cycles: int, protocol: AtariProtocol, shared_head: bool
) -> TaskSequence:
    """Make tasks and visits; opens nothing, but reads each game's action set from its ROM.

    Args:
        entries: "Freeway", "Freeway-noisy", "SpaceInvaders:mode=3,difficulty=1"; games also as
            "space_invaders". An entry that was there before is another visit to the same task.
        cycles: how often the entries are gone through.
        protocol: the rules of all tasks.
        shared_head: give all tasks the 18 outputs of the joystick. With `protocol.actions`
            "minimal" those that do nothing in a game are then not legal in it.

    Raises:
        ClrlError: exit code 3 for an unknown game, 2 for anything else that is not understood.
    """
    if not entries or cycles < 1:
        raise ClrlError(
            f"{len(entries)} tasks in {cycles} cycles: expected at least one of each", 2
        )
    tasks: dict[str, AtariTask] = {}
    visits = []
    for entry in entries:
        task = _task(entry, len(tasks), protocol, shared_head)
        visits.append(tasks.setdefault(task.name, task).id)
    return TaskSequence(tuple(tasks.values()), tuple(visits) * cycles)


def is_game(entry: str) -> bool:
    """Tell whether an entry of a sequence names a game (and not a data set)."""
    try:
        return bool(display_name(entry.partition(":")[0].partition("-")[0].strip()))
    except ClrlError:
        return False


def _task(entry: str, number: int, protocol: AtariProtocol, shared_head: bool) -> AtariTask:
    what, colon, options = entry.partition(":")
    name, dash, variant = what.partition("-")
    game = display_name(what if GYMNASIUM_VERSION.search(what) else name.strip())
    chosen = _options(entry, options) if colon else {}
    minimal = minimal_actions(game)
    wide = shared_head or protocol.actions == "full"
    masked = shared_head and protocol.actions == "minimal" and len(minimal) < N_JOYSTICK
    return AtariTask(
        id=number,
        name=game
        + (f"-{variant.strip()}" if dash else "")
        + (":" + ",".join(f"{k}={chosen[k]}" for k in OPTIONS if k in chosen) if chosen else ""),
        n_outputs=N_JOYSTICK if wide else len(minimal),
        legal=minimal if masked else None,
        game=game,
        variant=variant.strip() if dash else None,
        mode=chosen.get("mode"),
        difficulty=chosen.get("difficulty"),
        protocol=protocol,
    )


def _options(entry: str, text: str) -> dict[str, int]:
    chosen: dict[str, int] = {}
    for part in text.split(","):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in OPTIONS:
            near = difflib.get_close_matches(key, OPTIONS, n=1, cutoff=0.0)[0]
            raise ClrlError(f"task {entry!r}: unknown option {key!r}: did you mean {near!r}?", 2)
        if key in chosen or not value.isdecimal():
            raise ClrlError(f"task {entry!r}: expected one whole number, as in '{key}=1'", 2)
        chosen[key] = int(value)
    return chosen


def _modes(game: str, last: int) -> tuple[str, ...]:
    return tuple(f"{game}:mode={mode}" for mode in range(last + 1))


# The 19 games in which the DQN of Mnih et al. (2015) surpassed a human most clearly.
EWC_GAMES = (
    *("VideoPinball", "Boxing", "Breakout", "StarGunner", "Robotank", "Atlantis", "CrazyClimber"),
    *("Gopher", "DemonAttack", "NameThisGame", "Krull", "Assault", "RoadRunner", "Kangaroo"),
    *("Jamesbond", "Tennis", "Pong", "SpaceInvaders", "BeamRider"),
)
EWC_VISITS = 3  # of each of the ten games


def _ewc(seed: int) -> tuple[str, ...]:
    draw = random.Random(seed)
    games = draw.sample(EWC_GAMES, 10)
    visits: list[str] = []
    while len(visits) < EWC_VISITS * len(games):
        draw.shuffle(games)
        if not visits or games[0] != visits[-1]:  # a visit again at once would be no revisit
            visits += games
    return tuple(visits)


SEQUENCES = {
    "quick3": NamedSequence(
        "three games of 9, 14 and 3 actions that two cores can bear",
        ("CrazyClimber", "KungFuMaster", "Freeway"),
    ),
    "pong_soup": NamedSequence(
        "Pong and seven other looks of it (Rusu et al. 2016)",
        ("Pong", *(f"Pong-{variant}" for variant in VARIANTS)),
    ),
    "pnn_atari": NamedSequence(
        "the three source games, then the twelve targets of progressive nets (Rusu et al. 2016)",
        (
            *("Pong", "Riverraid", "Seaquest"),
            *("Alien", "Asterix", "Boxing", "Centipede", "Gopher", "Hero", "Jamesbond", "Krull"),
            *("Robotank", "RoadRunner", "StarGunner", "WizardOfWor"),
        ),
    ),
    "cora_atari6": NamedSequence(
        "six games, gone through twice (Powers et al. 2022)",
        ("SpaceInvaders", "Krull", "BeamRider", "Hero", "StarGunner", "MsPacman"),
        cycles=2,
    ),
    "ewc_atari10": NamedSequence(
        "10 of 19 games in random order, each visited three times (after Kirkpatrick et al. 2017)",
        EWC_GAMES,
        draw=_ewc,
    ),
    "space_invaders_modes": NamedSequence(
        "modes 0 to 9 of Space Invaders (needs protocol.backend=gym)", _modes("SpaceInvaders", 9)
    ),
    "freeway_modes": NamedSequence(
        "modes 0 to 7 of Freeway (needs protocol.backend=gym)", _modes("Freeway", 7)
    ),
}
