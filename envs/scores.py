"""What random play and a human score, to put games of different scales beside each other."""

from __future__ import annotations

from clrl.envs.games import display_name, rom_name
from clrl.errors import ClrlError

__all__ = ["REFERENCE", "normalise", "normalise_task"]

# ROM name: (random, human). Source: the Atari data table of dqn_zoo.
REFERENCE: dict[str, tuple[float, float]] = {
    "alien": (227.8, 7127.7),
    "amidar": (5.8, 1719.5),
    "assault": (222.4, 742.0),
    "asterix": (210.0, 8503.3),
    "asteroids": (719.1, 47388.7),
    "bank_heist": (14.2, 753.1),
    "beam_rider": (363.9, 16926.5),
    "boxing": (0.1, 12.1),
    "breakout": (1.7, 30.5),
    "centipede": (2090.9, 12017.0),
    "crazy_climber": (10780.5, 35829.4),
    "demon_attack": (152.1, 1971.0),
    "enduro": (0.0, 860.5),
    "freeway": (0.0, 29.6),
    "frostbite": (65.2, 4334.7),
    "gopher": (257.6, 2412.5),
    "hero": (1027.0, 30826.4),
    "jamesbond": (29.0, 302.8),
    "kangaroo": (52.0, 3035.0),
    "krull": (1598.0, 2665.5),
    "kung_fu_master": (258.5, 22736.3),
    "montezuma_revenge": (0.0, 4753.3),
    "ms_pacman": (307.3, 6951.6),
    "name_this_game": (2292.3, 8049.0),
    "phoenix": (761.4, 7242.6),
    "pong": (-20.7, 14.6),
    "qbert": (163.9, 13455.0),
    "riverraid": (1338.5, 17118.0),
    "road_runner": (11.5, 7845.0),
    "robotank": (2.2, 11.9),
    "seaquest": (68.4, 42054.7),
    "space_invaders": (148.0, 1668.7),
    "star_gunner": (664.0, 10250.0),
    "tennis": (-23.8, -8.3),
    "up_n_down": (533.4, 11693.2),
    "venture": (0.0, 1187.5),
    "wizard_of_wor": (563.5, 4756.5),
    "zaxxon": (32.5, 9173.3),
}


def normalise(game: str, score: float) -> float | None:
    """Return (score - random) / (human - random), or None for a game without reference scores.

    Args:
        game: ROM name, "space_invaders".
        score: raw score of a full game.
    """
    if game not in REFERENCE:
        return None
    random, human = REFERENCE[game]
    return (score - random) / (human - random)


def normalise_task(name: str, score: float) -> float | None:
    """Return the normalised score of a task by its name, or None.

    Another look ("Pong-noisy") leaves a game's scores what they are; other modes and difficulties
    are other games and have no reference, nor has a task that is no game.
    """
    game, _, options = name.partition(":")
    if options:
        return None
    try:
        rom = rom_name(display_name(game.partition("-")[0]))
    except ClrlError:
        return None
    return normalise(rom, score)
