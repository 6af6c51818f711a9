"""The learners by name. Importing this imports none of them."""

from __future__ import annotations

__all__ = ["REGISTRY"]

REGISTRY: dict[str, tuple[str, str]] = {  # name: ("module:Class", what it is in one line)
    "a2c": ("clrl.agents.a2c:A2C", "advantage actor-critic: one step per short rollout"),
    "ppo": (
        "clrl.agents.ppo:PPO",
        "proximal policy optimization: several clipped epochs a rollout",
    ),
    "supervised": (
        "clrl.agents.supervised:Supervised",
        "classification of pictures, for the same methods",
    ),
}
