"""Other looks of any game: the observation variants of the Pong Soup (Rusu et al. 2016).

A look maps observations (N, stack, size, size) uint8 to the same shape, pixel by pixel or by
moving pixels, without state: the frames of zeros before a game's start are changed like all others.
"""

from __future__ import annotations

import difflib

import cv2
import numpy as np
from numpy.typing import NDArray

from clrl.envs.games import first_frame
from clrl.envs.vector import Look
from clrl.types import ClrlError

__all__ = ["VARIANTS", "check", "make"]

Pixels = NDArray[np.uint8]

NOISE_SIGMA = 25.0  # grey levels of 255; the paper gives no figure
NOISE_SEED = 2016  # the pattern is the same in every run
VARIANTS = {
    "noisy": f"a frozen pattern of Gaussian noise is added (sigma {NOISE_SIGMA:.0f} of 255)",
    "black": "the background (the most frequent grey level) becomes 0",
    "white": "the background becomes 255",
    "zoom": "scaled to 75 % and moved to the lower right corner",
    "vflip": "upside down",
    "hflip": "left and right exchanged",
    "vhflip": "turned by 180 degrees",
}


def check(name: str, size: int) -> None:
    """Raise `ClrlError` (exit code 2) for an unknown variant or a size it cannot be made for."""
    if name not in VARIANTS:
        near = difflib.get_close_matches(name, VARIANTS, n=1, cutoff=0.0)[0]
        raise ClrlError(
            f"unknown variant {name!r}: did you mean {near!r}? There are {', '.join(VARIANTS)}", 2
        )
    if name == "zoom" and size % 4:
        raise ClrlError(f"variant 'zoom' of {size} pixels: expected a multiple of 4", 2)


def make(name: str, game: str, size: int) -> Look:
    """Return the look of a variant; errors as `check`.

    Args:
        name: one of `VARIANTS`.
        game: the background of `black` and `white` is that of this game's first picture.
        size: height and width of observations.
    """
    check(name, size)
    if name == "noisy":
        return _noisy(size)
    if name in ("black", "white"):
        return _background(game, size, 255 if name == "white" else 0)
    return {"zoom": _zoom, "vflip": _vflip, "hflip": _hflip, "vhflip": _vhflip}[name]


def background_level(game: str, size: int) -> int:
    """Return the most frequent grey level of a game's first picture, as agents see it."""
    picture = cv2.resize(first_frame(game), (size, size), interpolation=cv2.INTER_AREA)
    return int(np.bincount(picture.ravel()).argmax())


def _noisy(size: int) -> Look:
    noise = np.random.default_rng(NOISE_SEED).normal(0.0, NOISE_SIGMA, size=(size, size))
    brighter = np.clip(np.rint(noise), 0, 255).astype(np.uint8)
    darker = np.clip(np.rint(-noise), 0, 255).astype(np.uint8)
    room = 255 - brighter

    def look(obs: Pixels) -> Pixels:
        out = np.minimum(obs, room)  # in bytes, without overflow: eight times faster than in int16
        out += brighter
        np.maximum(out, darker, out=out)
        out -= darker
        return out

    return look


def _background(game: str, size: int, level: int) -> Look:
    table = np.arange(256, dtype=np.uint8)
    table[background_level(game, size)] = level

    def look(obs: Pixels) -> Pixels:
        flat = cv2.LUT(obs.reshape(-1, size), table)
        return np.asarray(flat, dtype=np.uint8).reshape(obs.shape)

    return look


def _zoom(obs: Pixels) -> Pixels:
    size = obs.shape[-1]
    small = size * 3 // 4
    n = obs.size // size**2
    # One tall picture: 4 rows become 3, so frames of 4k rows do not mix.
    tall = cv2.resize(obs.reshape(n * size, size), (small, n * small), interpolation=cv2.INTER_AREA)
    out = np.zeros_like(obs)
    out[..., size - small :, size - small :] = tall.reshape(*obs.shape[:2], small, small)
    return out


def _vflip(obs: Pixels) -> Pixels:
    return np.ascontiguousarray(obs[..., ::-1, :])


def _hflip(obs: Pixels) -> Pixels:
    return np.ascontiguousarray(obs[..., ::-1])


def _vhflip(obs: Pixels) -> Pixels:
    return np.ascontiguousarray(obs[..., ::-1, ::-1])
