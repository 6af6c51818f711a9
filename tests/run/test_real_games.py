"""Whole runs on real games, short: action sets, back-ends, resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clrl.agents.ppo import PPO
from clrl.run import checkpoint
from clrl.run.assemble import assemble, sequence_of
from clrl.run.config import Config, load_config
from clrl.run.evaluate import evaluate_run
from clrl.run.records import read_records
from clrl.run.train import resume, train
from clrl.types import ClrlError

pytestmark = [pytest.mark.atari]


def short(folder: Path, *overrides: str) -> Config:
    """A PPO run of 128 steps a game, in which games are cut after 100 steps."""
    path = folder / "games.yaml"
    path.write_text(
        """
        name: games
        sequence: {tasks: [Freeway, Pong, Alien], steps: 128}
        agent: {name: ppo, n_envs: 4, n_steps: 16, batch_size: 32, n_epochs: 1}
        method: {name: ewc, n_samples: 16, n_batches: 2}
        net: {body: pnn, heads: per_task}
        protocol: {preset: classic, max_frames: 400}
        evaluation: {every: 0, episodes: 1, unseen: always}
        checkpoint: {every: 64}
        threads: 1
        device: cpu
        """
    )
    return load_config(path, list(overrides))


@pytest.mark.parametrize(
    ("heads", "protocol", "every"),
    [("per_task", "classic", 64), ("shared", "classic", 0), ("shared", "machado", 0)],
)
def test_games_of_3_6_and_18_actions_are_learned_in_sequence(heads, protocol, every, tmp_path):
    config = short(
        tmp_path,
        f"net.heads={heads}",
        f"protocol.preset={protocol}",
        f"evaluation.every={every}",
    )
    sequence = sequence_of(config)
    minimal = (3, 6, 18)
    if heads == "per_task":
        assert tuple(t.n_outputs for t in sequence.tasks) == minimal
    else:
        assert {t.n_outputs for t in sequence.tasks} == {18}
        legal = minimal if protocol == "classic" else (18, 18, 18)
        assert tuple(len(t.legal or range(18)) for t in sequence.tasks) == legal
    run = train(config, tmp_path / "runs")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["tasks"] == ["Freeway", "Pong", "Alien"]
    assert [len(row) for row in summary["matrix"]] == [3, 3, 3, 3]
    assert all(score is not None for row in summary["matrix"] for score in row)
    assert summary["cost"]["steps"] == 3 * 128
    assert summary["cost"]["frames"] == 4 * (3 * 128 + 3 * 2 * 64)  # with EWC's two rollouts a task
    rows, _ = read_records(run / "evaluations.jsonl")
    assert {row["phase"] for row in rows} == {"start", "end"} | ({"during"} if every else set())
    assert all(row["length"] <= 100 for row in rows)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("backend", ["native", "gym"])
@pytest.mark.parametrize("preset", ["classic", "machado"])
def test_a_killed_run_of_games_goes_on_bit_for_bit(backend, preset, tmp_path, monkeypatch):
    config = short(
        tmp_path,
        f"protocol.backend={backend}",
        f"protocol.preset={preset}",
        "sequence.tasks=[Breakout]",
        "sequence.steps=512",
        "evaluation={every: 0, episodes: 1}",
        "checkpoint.every=192",
    )
    whole = train(config, tmp_path / "whole")
    calls = iter(range(100))
    original = PPO.learn

    def dying(self: PPO, batch: object) -> dict[str, float]:
        if next(calls) == 5:
            raise Killed
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(PPO, "learn", dying)
        with pytest.raises(Killed):
            train(config, tmp_path / "killed")
    killed = resume(tmp_path / "killed/games/seed0")
    states = [checkpoint.load_latest(run / "checkpoints") for run in (whole, killed)]
    ours, theirs = (state.state["learner"]["net"] for state in states)
    assert all(bool((ours[name] == theirs[name]).all()) for name in ours)
    for name in ("evaluations.jsonl", "metrics.jsonl"):
        rows = [read_records(run / name)[0] for run in (whole, killed)]
        for row in [*rows[0], *rows[1]]:
            for key in [key for key in row if key.startswith("time/")]:
                del row[key]
        assert rows[0] == rows[1]
        assert rows[0]


def test_a_run_can_be_evaluated_again_without_being_changed(tmp_path):
    run = train(short(tmp_path, "sequence.tasks=[Freeway, Freeway-hflip]"), tmp_path / "runs")
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    rows = evaluate_run(run, episodes=2)
    assert [row["task"] for row in rows] == ["Freeway", "Freeway-hflip"]
    assert all(row["episodes"] == 2 and row["min"] <= row["mean"] <= row["max"] for row in rows)
    assert evaluate_run(run, task="Freeway", episodes=2) == rows[:1]
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    with pytest.raises(ClrlError, match=r"no task 'Freewy'.*Freeway"):
        evaluate_run(run, task="Freewy")


def test_assembling_opens_no_emulator(tmp_path, monkeypatch):
    monkeypatch.setattr("clrl.envs.atari.AtariTask.open", None)
    config = short(tmp_path)
    assert assemble(config, sequence_of(config)).net is not None


def test_sigterm_saves_and_exits_with_75(tmp_path):
    short(tmp_path)
    command = [sys.executable, "-m", "clrl", "train", str(tmp_path / "games.yaml")]
    command += ["sequence.steps=100_000", "--runs", str(tmp_path / "runs")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    run = tmp_path / "runs/games/seed0"
    limit = time.monotonic() + 120
    while not list(run.glob("checkpoints/step_[1-9]*")):
        assert time.monotonic() < limit
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 75
    assert out == ""
    assert err.splitlines()[-1].endswith(f"clrl resume {run}")
    assert (run / "STATUS").read_text().strip() == "preempted"


BAD = {
    "a misspelt key": (["agent.learning_rat=1"], 2, "learning_rate"),
    "a wrong type": (["sequence.steps=many"], 2, "whole number"),
    "an unknown game": (["sequence.tasks=[Brekout]"], 3, "Breakout"),
    "a game for two players": (["sequence.tasks=[Combat]"], 3, "two"),
    "modes on the native back-end": (["sequence.tasks=['Freeway:mode=1']"], 2, "backend=gym"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_gets_one_line_its_exit_code_and_creates_nothing(what, tmp_path):
    overrides, code, told = BAD[what]
    short(tmp_path)
    command = [sys.executable, "-m", "clrl", "train", str(tmp_path / "games.yaml"), *overrides]
    done = subprocess.run(
        [*command, "--runs", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        check=False,
    )
    assert done.returncode == code
    assert len(done.stderr.strip().splitlines()) == 1
    assert told in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "runs").exists()
