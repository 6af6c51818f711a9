"""The continual-learning methods by name. Importing this imports none of them."""

from __future__ import annotations

__all__ = ["REGISTRY"]

REGISTRY: dict[str, tuple[str, str]] = {  # name: ("module:Class", what it is in one line)
    "finetune": ("clrl.method:Method", "keep training the same net and protect nothing"),
    "frozen": ("clrl.methods.frozen:Frozen", "after the first task train only the new heads"),
    "ewc": ("clrl.methods.ewc:EWC", "elastic weight consolidation: hold what old tasks rely on"),
}
