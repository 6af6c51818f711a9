"""Normalised scores put random play at 0 and a human at 1."""

from __future__ import annotations

import pytest

from clrl.envs.games import games, rom_name
from clrl.envs.scores import REFERENCE, normalise, normalise_task


def test_random_is_0_and_human_is_1() -> None:
    assert len(REFERENCE) == 38
    for game, (random, human) in REFERENCE.items():
        assert normalise(game, random) == 0
        assert normalise(game, human) == pytest.approx(1)
    assert normalise("pong", 21) == pytest.approx(41.7 / 35.3)


def test_every_game_with_a_score_exists() -> None:
    assert set(REFERENCE) <= {rom_name(game) for game in games()}


def test_games_without_reference_have_no_normalised_score() -> None:
    assert normalise("adventure", 1) is None
    assert normalise_task("Adventure", 1) is None
    assert normalise_task("Freeway:mode=3", 1) is None
    assert normalise_task("toy-a", 1) is None


def test_tasks_are_normalised_by_their_game() -> None:
    assert normalise_task("SpaceInvaders", 148) == 0
    assert normalise_task("Pong-noisy", 14.6) == 1
