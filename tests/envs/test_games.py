"""Games are found by either name, and missing ones are named helpfully."""

from __future__ import annotations

from pathlib import Path

import pytest

from clrl.envs.games import (
    TWO_PLAYERS,
    display_name,
    facts,
    games,
    minimal_actions,
    rom_name,
    rom_path,
)
from clrl.types import ClrlError


def test_games_are_those_that_gymnasium_offers_one_player() -> None:
    import ale_py
    import gymnasium

    gymnasium.register_envs(ale_py)
    known = [name for name in gymnasium.registry if name.startswith("ALE/")]
    assert sorted(games()) == sorted(name[4:-3] for name in known)


def test_both_spellings_name_the_same_game() -> None:
    for game in games():
        assert display_name(rom_name(game)) == display_name(game) == game
    assert rom_name("TicTacToe3D") == "tic_tac_toe_3d"


@pytest.mark.parametrize("name", ["SpaceInvader", "spaceinvaders", "space_invader"])
def test_a_misspelt_game_is_told_its_neighbours(name: str) -> None:
    with pytest.raises(ClrlError, match="SpaceInvaders") as caught:
        display_name(name)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["ALE/Pong", "ALE/Pong-v5", "PongNoFrameskip", "Pong-v4"])
def test_gymnasiums_names_are_told_ours(name: str) -> None:
    with pytest.raises(ClrlError, match=r"unknown game .*: write Pong; .* set by protocol"):
        display_name(name)


def test_what_is_like_no_game_is_sent_to_the_list() -> None:
    with pytest.raises(ClrlError, match=r"unknown game 'Xyzzy': see clrl list games$"):
        display_name("Xyzzy")


@pytest.mark.parametrize("name", [*TWO_PLAYERS, *TWO_PLAYERS.values()])
def test_games_for_two_players_are_refused_without_loading_them(name: str) -> None:
    with pytest.raises(ClrlError, match="two players") as caught:  # loading one ends the process
        rom_path(name)
    assert caught.value.exit_code == 3


def test_a_broken_rom_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pong.bin").write_bytes(b"not a ROM")
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    for game in ("Pong", "Breakout"):  # broken, missing
        with pytest.raises(ClrlError, match=game) as caught:
            rom_path(game)
        assert caught.value.exit_code == 3


def test_facts_are_those_of_the_emulator() -> None:
    assert minimal_actions("Freeway") == (0, 2, 5)  # still, up, down
    assert minimal_actions("Breakout") == (0, 1, 3, 4)
    assert minimal_actions("Seaquest") == tuple(range(18))
    assert facts("Freeway").modes == tuple(range(8))
    assert set(range(10)) <= set(facts("SpaceInvaders").modes)
