"""The bodies by name: chains of layers that a method turns into modules."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `clrl list bodies` need not wait for torch
    from clrl.types import LayerSpec

__all__ = ["BODIES", "MLP_HIDDEN", "body"]

BODIES: dict[str, str] = {
    "nature": "DQN's of Nature 2015: 32 8x8/4, 64 4x4/2, 64 3x3/1 filters, 512 units",
    "a3c": "A3C's, small and fast: 16 8x8/4, 32 4x4/2 filters, 256 units",
    "pnn": "progressive nets' of 2016: 12 8x8/4, 12 4x4/2, 12 3x4/1 filters, 256 units",
    "mlp": "fully connected: 400, 400 units unless `hidden` says otherwise",
    "pathnet_atari": "PathNet's of 2017, a module a layer: 8 8x8/4, 8 4x4/2, 8 3x3/1 filters, 50",
    "pathnet_mlp": "PathNet's for pictures, a module a layer: 20, 20, 20 units",
    "vgg9": "for 32x32 pictures: pairs of 64, 128, 256 3x3 filters, pooled, 512 and 512 units",
    "vgg9_quarter": "vgg9 with a quarter of its filters and units: some ten times as fast",
}
MLP_HIDDEN = (400, 400)


def body(name: str, hidden: Sequence[int] | None = None) -> tuple[LayerSpec, ...]:
    """Return the chain of layers of a body.

    Args:
        name: one of `BODIES`.
        hidden: units of each layer of `mlp`; None: 400, 400. Other bodies have none.

    Raises:
        ClrlError: (exit 2) an unknown name, or `hidden` where it means nothing.
    """
    from clrl.types import ClrlError, Conv, Linear, MaxPool

    if name not in BODIES:
        close = difflib.get_close_matches(name, BODIES, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"valid: {', '.join(BODIES)}"
        raise ClrlError(f"body is {name!r}: unknown; {hint}", 2)
    if hidden is not None and name != "mlp":
        raise ClrlError(f"hidden is {list(hidden)}: only the body 'mlp' has it, not {name!r}", 2)
    if name == "nature":
        return (Conv(32, 8, 4), Conv(64, 4, 2), Conv(64, 3, 1), Linear(512))
    if name == "a3c":
        return (Conv(16, 8, 4), Conv(32, 4, 2), Linear(256))
    if name == "pnn":  # the third kernel is 3 high and 4 wide
        return (Conv(12, 8, 4), Conv(12, 4, 2), Conv(12, (3, 4), 1), Linear(256))
    if name == "pathnet_atari":
        return (Conv(8, 8, 4), Conv(8, 4, 2), Conv(8, 3, 1), Linear(50))
    if name == "pathnet_mlp":
        return (Linear(20),) * 3
    if name in ("vgg9", "vgg9_quarter"):
        part = 1 if name == "vgg9" else 4
        pairs = ((Conv(n // part, 3, padding=1),) * 2 + (MaxPool(2),) for n in (64, 128, 256))
        return (*(layer for pair in pairs for layer in pair), *(Linear(512 // part),) * 2)
    return tuple(Linear(units) for units in (MLP_HIDDEN if hidden is None else hidden))
