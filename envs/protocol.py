"""The rules a game is played by: one dataclass, two presets, printed in every resolved config."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

__all__ = ["PRESETS", "AtariProtocol"]

_FROM_PRESET: Any = None  # the default of a field that its preset decides

_COMMON: dict[str, Any] = {
    "frame_skip": 4,
    "max_frames": 108_000,
    "clip_rewards": True,
    "stack": 4,
    "size": 84,
    "backend": "native",
}
PRESETS: dict[str, dict[str, Any]] = {
    "classic": {  # Nature DQN, CleanRL, the SB3 zoo
        "sticky": 0.0,
        "life_loss_ends": True,
        "actions": "minimal",
        "noop_max": 30,
        "fire_reset": True,
        **_COMMON,
    },
    "machado": {  # Machado et al. 2018, the recommended practice
        "sticky": 0.25,
        "life_loss_ends": False,
        "actions": "full",
        "noop_max": 0,
        "fire_reset": False,
        **_COMMON,
    },
}


@dataclass(frozen=True)
class AtariProtocol:
    """How Atari games are played. A field not given takes the preset's value.

    Every field has its value after construction: `AtariProtocol("machado", sticky=0.1)`.

    Raises:
        ValueError: for an unknown preset or a field out of its range.
    """

    preset: Literal["classic", "machado"] = "classic"
    sticky: float = _FROM_PRESET
    """Chance that the emulator repeats the previous action, drawn anew at every frame."""
    life_loss_ends: bool = _FROM_PRESET
    """Whether a lost life ends an episode; in training only, and never a game."""
    actions: Literal["minimal", "full"] = _FROM_PRESET
    """The actions that do something in the game, or all 18 of the joystick."""
    noop_max: int = _FROM_PRESET
    """A game begins with 0..noop_max-1 idle frames, drawn at random; 0: none."""
    fire_reset: bool = _FROM_PRESET
    """Press FIRE where the game has it: at its start, and as the first action after a lost life."""
    frame_skip: int = _FROM_PRESET
    """Frames an action is held; the observation is the maximum of the last two."""
    max_frames: int = _FROM_PRESET
    """A game is truncated after so many frames."""
    clip_rewards: bool = _FROM_PRESET
    """Whether learners train on the sign of rewards; environments always give raw ones."""
    stack: int = _FROM_PRESET
    """Frames in an observation; those before the start of a game are zero."""
    size: int = _FROM_PRESET
    """Height and width of an observation, in pixels."""
    backend: Literal["native", "gym"] = _FROM_PRESET
    """`native`: ale-py's C++ threads; `gym`: slower, with game modes and difficulties."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r}: expected one of {', '.join(PRESETS)}")
        for field in fields(self):
            if field.name != "preset" and getattr(self, field.name) is None:
                object.__setattr__(self, field.name, PRESETS[self.preset][field.name])
        _expect("sticky", self.sticky, 0.0 <= self.sticky < 1.0, "0 <= sticky < 1")
        for name, choices in (("actions", ("minimal", "full")), ("backend", ("native", "gym"))):
            value = getattr(self, name)
            _expect(name, value, value in choices, f"one of {', '.join(choices)}")
        for name, low, high in (
            ("noop_max", 0, 1_000),
            ("frame_skip", 1, 60),
            ("max_frames", 1, 2**31 - 1),
            ("stack", 1, 16),
            ("size", 16, 210),
        ):
            value = getattr(self, name)
            _expect(name, value, low <= value <= high, f"{low}..{high}")


def _expect(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} {value!r}: expected {expected}")
