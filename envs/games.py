"""Which games there are, what they are called, and which actions do something in them."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import ale_py
import numpy as np
from ale_py import roms
from numpy.typing import NDArray

from clrl.errors import ClrlError

__all__ = [
    "FIRE",
    "GYMNASIUM_VERSION",
    "GameFacts",
    "display_name",
    "facts",
    "first_frame",
    "games",
    "minimal_actions",
    "rom_name",
    "rom_path",
]

GYMNASIUM = re.compile(r"^ALE/|(NoFrameskip|Deterministic|-ram)?(-v\d+)?$")
GYMNASIUM_VERSION = re.compile(r"-v\d+$")
FIRE = 1  # ALE's number of the action, the same in every game
TWO_PLAYERS = {
    "Combat": "combat",
    "Joust": "joust",
    "MazeCraze": "maze_craze",
    "Warlords": "warlords",
}


@cache
def _roms() -> dict[str, str]:
    """Map display names to ROM names, for the games one player can play."""
    every = {rom.title().replace("_", ""): rom for rom in roms.get_all_rom_ids()}
    return {name: rom for name, rom in sorted(every.items()) if name not in TWO_PLAYERS}


def games() -> list[str]:
    """Return the display names ("SpaceInvaders") of all games for one player."""
    return list(_roms())


def display_name(name: str) -> str:
    """Return the display name of a game given either as "SpaceInvaders" or "space_invaders".

    Raises:
        ClrlError: with exit code 3, for a game that is unknown or needs two players.
    """
    known = _roms()
    if name in known:
        return name
    for display, rom in known.items():
        if name == rom:
            return display
    if name in TWO_PLAYERS or name in TWO_PLAYERS.values():
        raise ClrlError(f"game {name!r} needs two players: choose a game for one player", 3)
    bare = GYMNASIUM.sub("", name)
    if bare in known:
        remedy = f"write {bare}; what Gymnasium's versions differ in is set by protocol"
        raise ClrlError(f"unknown game {name!r}: {remedy}", 3)
    near = difflib.get_close_matches(bare.lower().replace("_", ""), [n.lower() for n in known], n=3)
    shown = " or ".join(n for n in known if n.lower() in near)
    remedy = f"did you mean {shown}?" if shown else "see clrl list games"
    raise ClrlError(f"unknown game {name!r}: {remedy}", 3)


def rom_name(game: str) -> str:
    """Return the snake_case ROM name of a game; errors as `display_name`."""
    return _roms()[display_name(game)]


def rom_path(game: str) -> Path:
    """Return the ROM's file; `ClrlError` (exit code 3) if it is missing or not the expected one."""
    try:
        path = roms.get_rom_path(rom_name(game))
    except OSError as error:
        raise ClrlError(f"no usable ROM of {game}: {error}; reinstall ale-py", 3) from error
    assert path is not None, game  # `rom_name` knows only ROMs that ale-py lists
    return path


@dataclass(frozen=True)
class GameFacts:
    """What a ROM says of its game, by ALE's numbers."""

    actions: tuple[int, ...]  # the minimal set: those that do something
    modes: tuple[int, ...]
    difficulties: tuple[int, ...]


@cache
def facts(game: str) -> GameFacts:
    """Return the facts of a game; loads its ROM once."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.loadROM(rom_path(game))
    return GameFacts(
        tuple(action.value for action in ale.getMinimalActionSet()),
        tuple(ale.getAvailableModes()),
        tuple(ale.getAvailableDifficulties()),
    )


def minimal_actions(game: str) -> tuple[int, ...]:
    """Return ALE's numbers of the actions that do something in a game."""
    return facts(game).actions


@cache
def first_frame(game: str, frames: int = 60) -> NDArray[np.uint8]:
    """Return the grey screen (210, 160) after some idle frames of a game seeded with 0."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setInt("random_seed", 0)
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(rom_path(game))
    ale.reset_game()
    for _ in range(frames):
        ale.act(ale_py.Action.NOOP)
    screen: NDArray[np.uint8] = ale.getScreenGrayscale()
    return screen
