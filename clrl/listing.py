"""`clrl list`: every name a configuration can use, with what it stands for."""

from __future__ import annotations

__all__ = ["names"]

# ALE's minimal action sets by size: read from the ROMs once, since loading them all takes a minute.
ACTIONS = {
    3: "Backgammon Freeway Skiing",
    4: "Atlantis Atlantis2 Blackjack Breakout Casino Kaboom",
    5: "Frogger Pacman Surround Tetris VideoCheckers",
    6: "AirRaid BasicMath Bowling Carnival DemonAttack Galaxian KingKong NameThisGame Pong "
    "Pooyan Qbert SirLancelot SpaceInvaders UpNDown",
    7: "Assault",
    8: "Gopher Phoenix Tutankham",
    9: "Asterix BeamRider CrazyClimber Enduro Koolaid LostLuggage MsPacman VideoPinball",
    10: "Amidar MrDo Othello TicTacToe3D TimePilot VideoChess WizardOfWor",
    12: "Turmoil",
    14: "Asteroids KeystoneKapers KungFuMaster",
    16: "JourneyEscape",
    18: "Adventure Alien BankHeist BattleZone Berzerk Boxing Centipede ChopperCommand "
    "Crossbow Darkchambers Defender DonkeyKong DoubleDunk Earthworld ElevatorAction "
    "Entombed Et FishingDerby FlagCapture Frostbite Gravitar Hangman HauntedHouse Hero "
    "HumanCannonball IceHockey Jamesbond Kangaroo Klax Krull LaserGates MarioBros "
    "MiniatureGolf MontezumaRevenge Pitfall Pitfall2 PrivateEye Riverraid RoadRunner "
    "Robotank Seaquest Solaris SpaceWar StarGunner Superman Tennis Trondead Venture "
    "VideoCube WordZapper YarsRevenge Zaxxon",
}


def names(kind: str) -> list[tuple[str, str]]:
    """Return names and one-line descriptions.

    Args:
        kind: methods, agents, games, datasets, sequences, bodies or protocols.

    Raises:
        KeyError: for another kind.
    """
    return {
        "methods": _methods,
        "agents": _agents,
        "games": _games,
        "datasets": _datasets,
        "sequences": _sequences,
        "bodies": _bodies,
        "protocols": _protocols,
    }[kind]()


def _methods() -> list[tuple[str, str]]:
    from clrl.methods import REGISTRY

    return [(name, text) for name, (_, text) in REGISTRY.items()]


def _agents() -> list[tuple[str, str]]:
    from clrl.agents.registry import REGISTRY

    return [(name, text) for name, (_, text) in REGISTRY.items()]


def _bodies() -> list[tuple[str, str]]:
    from clrl.nets.bodies import BODIES

    return list(BODIES.items())


def _games() -> list[tuple[str, str]]:
    counts = {game: n for n, games in ACTIONS.items() for game in games.split()}
    return [(game, f"{counts[game]} actions") for game in sorted(counts)]


def _datasets() -> list[tuple[str, str]]:
    from clrl.envs.datasets import DATASETS

    return [(name, source.description) for name, source in DATASETS.items()]


def _sequences() -> list[tuple[str, str]]:
    from clrl.envs.sequences import SEQUENCES
    from clrl.envs.vision import IMAGE_SEQUENCES

    known = SEQUENCES | IMAGE_SEQUENCES
    return [(name, sequence.description) for name, sequence in known.items()]


def _protocols() -> list[tuple[str, str]]:
    from clrl.envs.protocol import PRESETS

    return [
        (name, ", ".join(f"{key} {_plain(value)}" for key, value in preset.items()))
        for name, preset in PRESETS.items()
    ]


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
