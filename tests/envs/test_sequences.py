"""What a configuration says becomes tasks: numbered, named and checked."""

from __future__ import annotations

from itertools import pairwise

import pytest

from clrl.envs.atari import AtariTask
from clrl.envs.protocol import AtariProtocol
from clrl.envs.sequences import EWC_GAMES, SEQUENCES, build_sequence, shuffled
from clrl.types import ClrlError, TaskSequence

CLASSIC = AtariProtocol()
GYM = AtariProtocol(backend="gym")


def build(*entries: str, protocol: AtariProtocol = CLASSIC, shared: bool = False) -> TaskSequence:
    return build_sequence(entries, 1, protocol, shared)


def test_repeats_are_visits_to_the_same_task() -> None:
    entries = ["Freeway", "Breakout", "freeway", "Freeway-noisy"]
    sequence = build_sequence(entries, 2, CLASSIC, False)
    assert [task.name for task in sequence.tasks] == ["Freeway", "Breakout", "Freeway-noisy"]
    assert [task.id for task in sequence.tasks] == [0, 1, 2]
    assert sequence.visits == (0, 1, 0, 2) * 2


def test_an_entry_says_game_look_mode_and_difficulty() -> None:
    entry = "space_invaders-vflip:difficulty=1, mode=3"
    (task,) = build(entry, protocol=GYM).tasks
    assert isinstance(task, AtariTask)
    assert task.name == "SpaceInvaders-vflip:mode=3,difficulty=1"
    what = (task.game, task.variant, task.mode, task.difficulty)
    assert what == ("SpaceInvaders", "vflip", 3, 1)
    assert task.input_shape == (4, 84, 84)


def test_heads_are_as_wide_as_the_protocol_says() -> None:
    full = AtariProtocol("machado")
    for protocol, shared, n_outputs, legal in (
        (CLASSIC, False, 3, None),
        (CLASSIC, True, 18, (0, 2, 5)),
        (full, False, 18, None),
        (full, True, 18, None),
    ):
        (task,) = build("Freeway", protocol=protocol, shared=shared).tasks
        assert (task.n_outputs, task.legal) == (n_outputs, legal)
    (task,) = build("Seaquest", shared=True).tasks  # all 18 do something in it
    assert (task.n_outputs, task.legal) == (18, None)


@pytest.mark.parametrize(
    ("entry", "code", "words"),
    [
        ("Freway", 3, "Freeway"),
        ("Combat", 3, "two players"),
        ("Pong-nois", 2, "noisy"),
        ("Pong-", 2, "noisy"),
        ("Pong:mod=1", 2, "mode"),
        ("Pong:mode=x", 2, "whole number"),
        ("Pong:mode=-1", 2, "whole number"),
        ("Pong:mode=0,mode=1", 2, "whole number"),
        ("Pong:", 2, "option"),
        ("Freeway:mode=99", 2, "it has"),
        ("Freeway:difficulty=9", 2, "it has"),
        ("", 3, "unknown game"),
        ("Pong-v5", 3, "write Pong;"),
        ("ALE/Pong-v5", 3, "write Pong;"),
        ("PongNoFrameskip-v4", 3, "write Pong;"),
        ("Pong-ram-v0", 3, "write Pong;"),
    ],
)
def test_what_is_not_understood_is_refused(entry: str, code: int, words: str) -> None:
    with pytest.raises(ClrlError, match=words) as caught:
        build(entry, protocol=GYM)
    assert caught.value.exit_code == code


def test_modes_need_the_gym_back_end() -> None:
    with pytest.raises(ClrlError, match=r"protocol\.backend=gym") as caught:
        build("Freeway:mode=1")
    assert caught.value.exit_code == 2


def test_an_empty_sequence_is_refused() -> None:
    for entries, cycles in (([], 1), (["Pong"], 0)):
        with pytest.raises(ClrlError) as caught:
            build_sequence(entries, cycles, CLASSIC, False)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", sorted(SEQUENCES))
def test_every_sequence_that_ships_can_be_built(name: str) -> None:
    entries = SEQUENCES[name].entries()
    sequence = build_sequence(entries, 1, GYM, False)
    assert len(sequence.visits) == len(entries)
    assert "\n" not in SEQUENCES[name].description
    assert SEQUENCES[name].entries(3) == SEQUENCES[name].entries(3)
    assert len(set(SEQUENCES[name].entries(3))) == len(set(entries))


def test_sequences_are_those_of_the_papers() -> None:
    assert SEQUENCES["quick3"].entries() == ("CrazyClimber", "KungFuMaster", "Freeway")
    assert len(SEQUENCES["pong_soup"].entries()) == 8
    assert len(SEQUENCES["pnn_atari"].entries()) == 15
    cora = SEQUENCES["cora_atari6"].entries()
    assert len(cora) == 12 and cora[:6] == cora[6:]
    assert len(SEQUENCES["space_invaders_modes"].entries()) == 10
    assert len(SEQUENCES["freeway_modes"].entries()) == 8


def test_ewc_draws_ten_of_nineteen_games_and_comes_back() -> None:
    assert len(set(EWC_GAMES)) == 19
    drawn = set()
    for seed in range(20):
        visits = SEQUENCES["ewc_atari10"].entries(seed)
        drawn.add(visits)
        assert len(set(visits)) == 10
        assert all(visits.count(game) == 3 for game in visits)
        assert all(a != b for a, b in pairwise(visits))
    assert len(drawn) == 20


def test_a_seed_changes_the_order_and_nothing_else() -> None:
    entries = ("a", "b", "c", "d", "e")
    assert shuffled(entries, None) == entries
    orders = {shuffled(entries, seed) for seed in range(10)}
    assert len(orders) > 5
    assert all(sorted(order) == sorted(entries) for order in orders)
