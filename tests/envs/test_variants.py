"""Other looks change the picture as they say, for any game, and never anything else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from clrl.envs.variants import NOISE_SIGMA, VARIANTS, background_level, check, make
from clrl.types import ClrlError

SIZE = 84


@pytest.fixture
def obs() -> NDArray[np.uint8]:
    shape = (3, 4, SIZE, SIZE)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_a_look_keeps_shape_and_type_and_its_input(name: str, obs: NDArray[np.uint8]) -> None:
    before = obs.copy()
    look = make(name, "Pong", SIZE)
    seen = look(obs)
    assert (seen.shape, seen.dtype, seen.flags.c_contiguous) == (obs.shape, obs.dtype, True)
    np.testing.assert_array_equal(obs, before)
    np.testing.assert_array_equal(seen, look(obs))
    for i in range(3):  # every environment, every frame on its own
        np.testing.assert_array_equal(look(obs[i : i + 1])[0], seen[i])


def test_flips_move_pixels(obs: NDArray[np.uint8]) -> None:
    for name, axes in (("vflip", (2,)), ("hflip", (3,)), ("vhflip", (2, 3))):
        np.testing.assert_array_equal(make(name, "Pong", SIZE)(obs), np.flip(obs, axes))


def test_zoom_scales_every_frame_by_area(obs: NDArray[np.uint8]) -> None:
    seen = make("zoom", "Pong", SIZE)(obs)
    for i in range(3):
        for k in range(4):
            small = cv2.resize(obs[i, k], (63, 63), interpolation=cv2.INTER_AREA)
            np.testing.assert_array_equal(seen[i, k, 21:, 21:], small)
    assert not seen[:, :, :21].any() and not seen[..., :21].any()


def test_noise_is_added_and_clipped_and_the_same_in_every_run(obs: NDArray[np.uint8]) -> None:
    grey = np.full_like(obs, 128)
    noise = make("noisy", "Pong", SIZE)(grey)[0, 0].astype(int) - 128
    assert noise.std() == pytest.approx(NOISE_SIGMA, rel=0.05)
    assert abs(noise.mean()) < 1
    seen = make("noisy", "Freeway", SIZE)(obs)
    np.testing.assert_array_equal(seen, np.clip(obs.astype(int) + noise, 0, 255))


@pytest.mark.atari
@pytest.mark.parametrize(("name", "level"), [("black", 0), ("white", 255)])
def test_only_the_background_changes(name: str, level: int, obs: NDArray[np.uint8]) -> None:
    seen = make(name, "Pong", SIZE)(obs)
    background = background_level("Pong", SIZE)
    np.testing.assert_array_equal(seen, np.where(obs == background, level, obs))


@pytest.mark.atari
def test_the_background_is_most_of_the_picture() -> None:
    assert background_level("Pong", SIZE) == 87
    assert background_level("Breakout", SIZE) == 0


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(ClrlError, match="'noisy'") as caught:
        check("noise", SIZE)
    assert caught.value.exit_code == 2
    with pytest.raises(ClrlError, match="multiple of 4"):
        make("zoom", "Pong", 85)
