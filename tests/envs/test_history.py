"""The record of actions replays to the present, whatever the emulators' different beginnings."""

from __future__ import annotations

import numpy as np

from clrl.envs.history import History


def test_a_replay_gives_every_emulator_its_own_actions_and_ends_at_one_step() -> None:
    rng = np.random.default_rng(0)
    history = History(3)
    history.begin(7)
    logs: list[list[int]] = [[], [], []]
    for step in range(1500):  # more than the buffer begins with
        if step == 1100:
            history.reseed(np.array([False, True, False]))
            logs[1] = []
        actions = rng.integers(0, 18, 3)
        history.record(actions)
        for log, action in zip(logs, actions, strict=True):
            log.append(int(action))
    history.reseed(np.array([False, False, True]))  # just seeded: nothing to play
    logs[2] = []

    copy = History(3)
    copy.load_state_dict(history.state_dict())
    played: list[list[int]] = [[], [], []]
    begun = copy.beginning_at(0)
    for step in range(copy.steps_to_replay()):
        for i, action in enumerate(copy.actions_at(step)):
            if begun[i]:
                played[i].append(int(action))
        begun = begun | copy.beginning_at(step + 1)
    assert begun.all()
    assert played == logs


def test_seeds_follow_from_base_seed_emulator_and_count_alone() -> None:
    one, two = History(4), History(4)
    first = one.begin(5).copy()
    assert len(set(first)) == 4
    second = one.reseed(np.array([False, False, True, False])).copy()
    two.begin(6)
    np.testing.assert_array_equal(two.begin(5), first)
    two.reseed(np.array([True, False, False, False]))  # of another: changes nothing here
    np.testing.assert_array_equal(two.reseed(np.array([False, False, True, False])), second)
    assert second[0] not in first
    assert set(one.begin(6)).isdisjoint(first)
