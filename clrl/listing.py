"""`clrl list`: every name a configuration can use, with what it stands for."""

from __future__ import annotations

__all__ = ["names"]


def names(kind: str) -> list[tuple[str, str]]:
    """Return names and one-line descriptions.

    Args:
        kind: methods, agents, games, sequences, bodies or protocols.

    Raises:
        KeyError: for another kind.
    """
    return {
        "methods": _methods,
        "agents": _agents,
        "games": _games,
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
    from clrl.envs.games import games, minimal_actions

    return [(game, f"{len(minimal_actions(game))} actions") for game in games()]


def _sequences() -> list[tuple[str, str]]:
    from clrl.envs.sequences import SEQUENCES

    return [(name, sequence.description) for name, sequence in SEQUENCES.items()]


def _protocols() -> list[tuple[str, str]]:
    from clrl.envs.protocol import PRESETS

    return [
        (name, ", ".join(f"{key} {_plain(value)}" for key, value in preset.items()))
        for name, preset in PRESETS.items()
    ]


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
