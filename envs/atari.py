"""An Atari game as a task: which game, how it looks, and the rules it is played by."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import cast

from clrl.envs import variants
from clrl.envs.backend import Backend, EmulatorSpec
from clrl.envs.games import FIRE, display_name, facts, minimal_actions
from clrl.envs.protocol import AtariProtocol
from clrl.envs.vector import AtariVectorEnv
from clrl.types import ClrlError, Task

__all__ = ["N_JOYSTICK", "AtariTask", "AtariVectorEnv"]

N_JOYSTICK = 18  # actions of the joystick: the widest head


@dataclass(frozen=True)
class AtariTask(Task):
    """An Atari game, a variant of its picture, a mode, and a protocol.

    With 18 outputs, actions are ALE's own numbers; with fewer, places in the game's minimal set.

    Attributes:
        game: display name, "SpaceInvaders".
        variant: how observations are changed (see `envs.variants`); None: not at all.
        mode: the game's mode by ALE's number (needs the gym back-end); None: its default.
        difficulty: the game's difficulty by ALE's number (likewise).
        protocol: the rules.

    Raises:
        ClrlError: for an unknown game (exit code 3), an unknown variant, a mode or difficulty the
            game does not have, or any mode or difficulty with the native back-end (exit code 2).
    """

    game: str = ""
    variant: str | None = None
    mode: int | None = None
    difficulty: int | None = None
    protocol: AtariProtocol = field(default_factory=AtariProtocol)

    def __post_init__(self) -> None:
        object.__setattr__(self, "game", display_name(self.game))
        if self.variant is not None:
            variants.check(self.variant, self.protocol.size)
        for what in ("mode", "difficulty"):
            value = getattr(self, what)
            if value is None:
                continue
            if self.protocol.backend == "native":
                raise ClrlError(
                    f"{self.name}: the native back-end has no {what}: set protocol.backend=gym", 2
                )
            known = facts(self.game).modes if what == "mode" else facts(self.game).difficulties
            if value not in known:
                raise ClrlError(f"{self.game} has no {what} {value}: it has {list(known)}", 2)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(stack, size, size): the shape of one observation."""
        return (self.protocol.stack, self.protocol.size, self.protocol.size)

    def open(self, n_envs: int, seed: int, *, training: bool, threads: int = 0) -> AtariVectorEnv:
        """Open `n_envs` copies of the game; call `reset` before the first step.

        Args:
            n_envs: how many.
            seed: of everything random in them, 0 or more.
            training: for evaluation (False), lost lives never end an episode.
            threads: of the native back-end; 0: as many as the machine has.
        """
        minimal = minimal_actions(self.game)
        full = self.n_outputs == N_JOYSTICK
        fire = self.protocol.fire_reset and FIRE in minimal
        spec = EmulatorSpec(
            self.game, self.protocol, full, fire, mode=self.mode, difficulty=self.difficulty
        )
        rules = ", ".join(f"{key}={value}" for key, value in asdict(self.protocol).items())
        identity = f"{n_envs} x {self.name} ({self.n_outputs} actions, {rules})"
        return AtariVectorEnv(
            self._emulators(spec, n_envs, threads),
            identity,
            n_envs,
            seed,
            self.input_shape,
            N_JOYSTICK if full else len(minimal),
            frame_skip=self.protocol.frame_skip,
            legal=self.legal,
            life_loss_ends=training and self.protocol.life_loss_ends,
            fire=(FIRE if full else minimal.index(FIRE)) if fire else None,
            look=variants.make(self.variant, self.game, self.protocol.size)
            if self.variant
            else None,
        )

    def _emulators(self, spec: EmulatorSpec, n_envs: int, threads: int) -> Backend:
        if self.protocol.backend == "gym":
            from clrl.envs.gym import GymBackend  # only those who use it wait for its import

            return cast(Backend, GymBackend(spec, n_envs))
        from clrl.envs.native import NativeBackend

        return cast(Backend, NativeBackend(spec, n_envs, threads))
