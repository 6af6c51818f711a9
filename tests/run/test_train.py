"""The run: bitwise resume from any kill, and evaluation and logging that change nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from clrl.agents.a2c import A2C as A2CLearner
from clrl.agents.learner import Learner
from clrl.agents.ppo import PPO as PPOLearner
from clrl.agents.supervised import Supervised
from clrl.envs.toy import toy_sequence
from clrl.method import Method
from clrl.run import checkpoint
from clrl.run.config import load_config
from clrl.run.records import read_records
from clrl.run.stop import Stopped, StopSignals
from clrl.run.tracking.tracker import CombinedTracker
from clrl.run.train import resume, train
from clrl.types import ClrlError, Task

PPO = "{name: ppo, n_envs: 4, n_steps: 16, batch_size: 32, n_epochs: 2, learning_rate: 1.0e-3}"
A2C = "{name: a2c, n_envs: 4, n_steps: 5}"
EWC = "{name: ewc, strength: 1, n_samples: 32, n_batches: 2}"
PICTURES = "{name: supervised, batch_size: 8}"
SI = "{name: si, strength: 1}"


def write_config(folder: Path, agent: str = PPO, method: str = "{name: finetune}", **extra: str):
    path = folder / "toy.yaml"
    lines = {
        "name": "toy",
        "sequence": "{tasks: [Freeway, Breakout], steps: 600}",  # replaced by toy tasks
        "agent": agent,
        "method": method,
        "net": "{body: mlp, hidden: [16]}",
        "evaluation": "{every: 200, episodes: 2}",
        "checkpoint": "{every: 100}",
        "threads": "1",
        "device": "cpu",
    }
    path.write_text("".join(f"{k}: {v}\n" for k, v in (lines | extra).items()))
    return load_config(path)


def result(run: Path) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """Return all that a run leaves and that time does not change."""
    found = checkpoint.load_latest(run / "checkpoints")
    assert found is not None
    state = found.state
    cursor = state["cursor"]
    del cursor["seconds"], cursor["evaluating"], cursor["began"], cursor["peak_memory"]
    for cost in cursor["costs"]:
        del cost["seconds"], cost["peak_memory_mb"]
    metrics, skipped = read_records(run / "metrics.jsonl")
    evaluations, skipped_too = read_records(run / "evaluations.jsonl")
    assert skipped == skipped_too == 0
    assert len(metrics) >= 10
    rows = [{k: v for k, v in r.items() if not k.startswith("time/")} for r in metrics]
    return state, rows, evaluations


def assert_equal(ours: Any, theirs: Any, place: str = "") -> None:
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), place
        for key in ours:
            assert_equal(ours[key], theirs[key], f"{place}/{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), place
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(a, b, f"{place}/{i}")
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), place
    elif isinstance(ours, np.ndarray):
        np.testing.assert_array_equal(ours, theirs, err_msg=place)
    else:
        assert ours == theirs, place


@pytest.fixture(autouse=True, scope="module")
def _many_records() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "record_every", 50)
        patch.setattr(Supervised, "record_every", 50)
        yield


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it and save."""


def die_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    original, calls = getattr(owner, name), iter(range(1, 1_000_000))

    def dying(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, dying)


def learner_class(agent: str) -> type[Learner]:
    if "supervised" in agent:
        return Supervised
    return PPOLearner if "ppo" in agent else A2CLearner


def first_of(cls: type[Learner], *names: str) -> str:
    return next(name for name in names if hasattr(cls, name))


KILLS: dict[str, Callable[[pytest.MonkeyPatch, type[Learner]], None]] = {
    "before any training": lambda m, c: die_at(m, c, "evaluate", 2),
    "in an update": lambda m, c: die_at(m, c, first_of(c, "learn", "loss"), 8),
    "in a rollout": lambda m, c: die_at(m, c, first_of(c, "collect", "_batch"), 15),
    "in an evaluation on schedule": lambda m, c: die_at(m, c, "evaluate", 6),
    "while the task ends": lambda m, c: die_at(m, c, "end_task", 1),
    "in the evaluation after a task": lambda m, c: die_at(m, c, "evaluate", 8),
    "as the next task begins": lambda m, c: die_at(m, c, "begin_task", 2),
    "inside a save": lambda m, c: die_at(m, checkpoint, "_rename", 4),
    "after a save, before old ones are pruned": lambda m, c: die_at(m, checkpoint, "_prune", 5),
}
PAIRS = [(PPO, EWC), (A2C, "{name: frozen}"), (PPO, "{name: finetune}"), (A2C, EWC), (PICTURES, SI)]


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Any]:
    known: dict[tuple[str, str], Any] = {}

    def of(agent: str, method: str) -> Any:
        if (agent, method) not in known:
            folder = tmp_path_factory.mktemp("whole")
            run = train(write_config(folder, agent, method), folder / "runs", toy_sequence(2))
            known[agent, method] = result(run)
        return known[agent, method]

    return of


@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize(("agent", "method"), PAIRS, ids=["pe", "af", "pf", "ae", "ps"])
def test_killed_and_resumed_equals_never_stopped(
    agent, method, kill, never_stopped, tmp_path, monkeypatch
):
    config = write_config(tmp_path, agent, method)
    with monkeypatch.context() as patch:
        KILLS[kill](patch, learner_class(agent))
        with pytest.raises(Killed):
            train(config, tmp_path / "runs", toy_sequence(2))
    run = resume(tmp_path / "runs/toy/seed0", sequence=toy_sequence(2))
    assert_equal(result(run), never_stopped(agent, method))
    assert (run / "STATUS").read_text().strip() == "done"
    assert json.loads((run / "summary.json").read_text())["metrics"]["forgetting"] is not None


@pytest.mark.parametrize("call", [1, 5])  # of the evaluator: as the first, and as the second begin
@pytest.mark.parametrize("how", [Killed, Stopped])
def test_a_sub_network_is_evaluated_as_it_begins_also_where_that_was_stopped(
    call, how, tmp_path, monkeypatch
):
    config = write_config(tmp_path, method="{name: progressive}")
    whole = result(train(config, tmp_path / "whole", toy_sequence(2)))
    rows = [(row["visit"], row["phase"], row["task_evaluated"], row["step"]) for row in whole[2]]
    step = 640  # of a visit: whole rollouts
    assert [row for row in dict.fromkeys(rows) if row[3] in (0, step)] == [
        (1, "during", "toy-a", 0),
        (1, "end", "toy-a", step),
        (2, "during", "toy-b", step),
    ]

    original, calls = PPOLearner.evaluate, iter(range(1, 100))

    def stopping(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            raise how(75)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(PPOLearner, "evaluate", stopping)
        with pytest.raises(how):
            train(config, tmp_path / "runs", toy_sequence(2))
    run = resume(tmp_path / "runs/toy/seed0", sequence=toy_sequence(2))
    assert_equal(result(run), whole)


def test_a_report_that_cannot_be_made_fails_no_run(tmp_path, monkeypatch, capsys):
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("in a chart")

    monkeypatch.setattr("clrl.run.walk.write_report", broken)
    run = train(write_config(tmp_path), tmp_path / "runs", toy_sequence(2))
    assert (run / "STATUS").read_text().strip() == "done"
    assert not (run / "report.html").exists()
    said = " ".join(capsys.readouterr().err.split())
    assert f"no report (ZeroDivisionError: in a chart); make it with: clrl report {run}" in said


def test_what_is_drawn_when_a_later_task_begins_is_drawn_alike_after_a_resume(
    tmp_path, monkeypatch
):
    def grow(self: Method, task: Task) -> None:  # as a method that adds a column would
        for p in self.net.parameters():
            noise = float(np.random.random()) + random.random()  # noqa: NPY002
            p.data.add_(noise * 1e-3 * torch.randn_like(p))

    def explore(self: Method, batch: object, progress: float) -> None:  # draws between tasks' ends
        torch.rand(3), random.random(), np.random.random()  # noqa: NPY002

    monkeypatch.setattr(Method, "begin_task", grow)
    monkeypatch.setattr(Method, "observe", explore)
    config = write_config(tmp_path)
    whole = train(config, tmp_path / "whole", toy_sequence(2))
    with monkeypatch.context() as patch:
        die_at(patch, learner_class(PPO), "learn", 5)
        with pytest.raises(Killed):
            train(config, tmp_path / "killed", toy_sequence(2))
    torch.rand(3), random.random(), np.random.random()  # noqa: NPY002
    killed = resume(tmp_path / "killed/toy/seed0", sequence=toy_sequence(2))
    assert_equal(result(killed), result(whole))


SCRIPT = """
    import sys
    from pathlib import Path
    from clrl.envs.toy import toy_sequence
    from clrl.run.config import load_config
    from clrl.agents.learner import Learner
    from clrl.run.train import resume, train
    Learner.record_every = 50
    folder = Path(sys.argv[1])
    if (folder / "runs/toy/seed0/config.yaml").exists():
        resume(folder / "runs/toy/seed0", sequence=toy_sequence(2))
    else:
        train(load_config(folder / "toy.yaml"), folder / "runs", toy_sequence(2))
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    code = textwrap.dedent(SCRIPT)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "did not happen in time"
        time.sleep(0.01)


@pytest.mark.slow
def test_a_process_killed_again_and_again_ends_as_if_it_never_was(never_stopped, tmp_path):
    write_config(tmp_path, PPO, EWC)
    run = tmp_path / "runs/toy/seed0"
    rng = np.random.default_rng()
    for _ in range(3):
        process = start(tmp_path)
        wait_for((run / "metrics.jsonl").exists)
        time.sleep(float(rng.uniform(0.0, 2.0)))
        process.kill()
        process.wait()
    assert start(tmp_path).wait(timeout=120) == 0
    assert_equal(result(run), never_stopped(PPO, EWC))


@pytest.mark.slow
@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_and_the_run_goes_on_bit_for_bit(which, never_stopped, tmp_path):
    write_config(tmp_path, PPO, EWC)
    run = tmp_path / "runs/toy/seed0"
    process = start(tmp_path)
    wait_for(lambda: bool(list((run / "checkpoints").glob("step_[1-9]*"))))
    process.send_signal(which)
    process.wait(timeout=30)  # the script has no handler for Stopped: any code but 0
    assert process.returncode != 0
    assert (run / "STATUS").read_text().strip() == "preempted"
    resume(run, sequence=toy_sequence(2))
    assert_equal(result(run), never_stopped(PPO, EWC))


def test_stopped_tells_the_exit_code(tmp_path, monkeypatch):
    config = write_config(tmp_path)
    monkeypatch.setattr(
        learner_class(PPO), "end_task", lambda self: os.kill(os.getpid(), signal.SIGTERM)
    )
    with pytest.raises(Stopped) as caught:
        train(config, tmp_path / "runs", toy_sequence(2))
    assert caught.value.exit_code == 75
    assert (tmp_path / "runs/toy/seed0/STATUS").read_text().strip() == "preempted"


VARIATIONS = {
    "evaluations": {"evaluation": "{every: 0, episodes: 1}"},
    "checkpoints": {"checkpoint": "{every: 100000}"},
    "trackers": {"tracking": "{tensorboard: true}"},
}


@pytest.mark.parametrize("what", VARIATIONS)
def test_the_trajectory_does_not_depend_on_what_watches_it(what, never_stopped, tmp_path):
    config = write_config(tmp_path, PPO, EWC, **VARIATIONS[what])
    run = train(config, tmp_path / "runs", toy_sequence(2))
    state, rows, _ = result(run)
    whole, whole_rows, _ = never_stopped(PPO, EWC)
    assert_equal(state["learner"], whole["learner"])
    assert_equal(rows, whole_rows)


def test_metrics_and_costs_at_the_end_reach_the_trackers(tmp_path, monkeypatch):
    told = {}
    monkeypatch.setattr(CombinedTracker, "log", lambda _, record: told.update(record))
    run = train(write_config(tmp_path, PPO, EWC), tmp_path / "runs", toy_sequence(2))
    summary = json.loads((run / "summary.json").read_text())
    assert told["summary/average_performance"] == summary["metrics"]["average_performance"]
    assert told["summary/cost/steps"] == told["global_step"] == summary["cost"]["steps"]
    assert all(isinstance(value, int | float) for value in told.values())


def test_the_same_seed_gives_the_same_records_and_another_does_not(never_stopped, tmp_path):
    again = result(train(write_config(tmp_path, PPO, EWC), tmp_path / "a", toy_sequence(2)))
    assert_equal(again, never_stopped(PPO, EWC))
    other = write_config(tmp_path, PPO, EWC, seed="1")
    assert result(train(other, tmp_path / "b", toy_sequence(2)))[1] != again[1]


@pytest.mark.parametrize(("method", "forgets"), [("frozen", False), ("finetune", True)])
def test_a_frozen_trunk_forgets_exactly_nothing(method, forgets, tmp_path):
    quick = PPO.replace("1.0e-3", "1.0e-2")
    config = write_config(
        tmp_path, quick, f"{{name: {method}}}", evaluation="{every: 0, episodes: 16}"
    )
    run = train(config, tmp_path / "runs", toy_sequence(3))
    summary = json.loads((run / "summary.json").read_text())
    first, second, _ = zip(*summary["matrix"], strict=True)
    assert first[0] != first[1]  # it was learned
    assert (first[1:] != first[1:2] * 3) is forgets
    assert (second[2] != second[3]) is forgets
    # not Chaudhry's forgetting: before it was learned, a task may score higher by chance
    assert (summary["metrics"]["backward_transfer"] == 0.0) is not forgets


def stop_at(patch: pytest.MonkeyPatch, call: int | None) -> list[int]:
    """Make one of the run's checks for a stop find one; return the list that counts them."""
    check, calls = StopSignals.check, [0]

    def counted(self: StopSignals) -> None:
        calls[0] += 1
        if calls[0] == call:
            raise Stopped(75)
        check(self)

    patch.setattr(StopSignals, "check", counted)
    return calls


def test_stopped_anywhere_and_resumed_equals_never_stopped(never_stopped, tmp_path, monkeypatch):
    config = write_config(tmp_path, PPO, EWC)
    with monkeypatch.context() as patch:
        calls = stop_at(patch, None)
        train(config, tmp_path / "counted", toy_sequence(2))
    rng = np.random.default_rng()
    points = rng.choice(calls[0] - 1, 7, replace=False) + 1  # in updates, at evaluations' steps
    for call in [*points.tolist(), calls[0]]:  # the last: no update is left to come
        runs = tmp_path / f"stopped_at_{call}"
        with monkeypatch.context() as patch:
            stop_at(patch, call)
            with pytest.raises(Stopped) as caught:
                train(config, runs, toy_sequence(2))
        assert caught.value.run == runs / "toy/seed0"
        run = resume(caught.value.run, sequence=toy_sequence(2))
        assert_equal(result(run), never_stopped(PPO, EWC))


def fill_the_disk(patch: pytest.MonkeyPatch, from_step: int) -> None:
    original = checkpoint.save

    def save(folder: Path, step: int, *rest: Any) -> Path:
        if step >= from_step:
            raise checkpoint.CheckpointError("no space left on the device")
        return original(folder, step, *rest)

    patch.setattr(checkpoint, "save", save)


def test_a_full_disk_never_ends_as_done_without_the_last_weights(
    never_stopped, tmp_path, monkeypatch, capfd
):
    with monkeypatch.context() as patch:
        fill_the_disk(patch, from_step=200)
        with pytest.raises(checkpoint.CheckpointError, match="no space left"):
            train(write_config(tmp_path, PPO, EWC), tmp_path / "runs", toy_sequence(2))
    run = tmp_path / "runs/toy/seed0"
    assert "training goes on" in capfd.readouterr().err
    assert (run / "STATUS").read_text().strip() == "failed"
    resume(run, sequence=toy_sequence(2))
    assert_equal(result(run), never_stopped(PPO, EWC))


def test_a_stop_that_cannot_be_saved_is_a_failure(tmp_path, monkeypatch):
    fill_the_disk(monkeypatch, from_step=200)
    stop = lambda self: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    monkeypatch.setattr(learner_class(PPO), "end_task", stop)
    with pytest.raises(checkpoint.CheckpointError, match="no space left"):
        train(write_config(tmp_path), tmp_path / "runs", toy_sequence(2))
    assert (tmp_path / "runs/toy/seed0/STATUS").read_text().strip() == "failed"


def test_the_peak_of_memory_is_kept_over_a_resume(tmp_path, monkeypatch):
    used = {"mb": 5000}
    of = "clrl.run.costs.resource.getrusage"
    monkeypatch.setattr(of, lambda who: SimpleNamespace(ru_maxrss=1024 * used["mb"]))
    with monkeypatch.context() as patch:
        die_at(patch, learner_class(PPO), "end_task", 2)
        with pytest.raises(Killed):
            train(write_config(tmp_path), tmp_path / "runs", toy_sequence(2))
    used["mb"] = 100  # another process
    run = resume(tmp_path / "runs/toy/seed0", sequence=toy_sequence(2))
    cost = json.loads((run / "summary.json").read_text())["cost"]
    assert cost["peak_memory_mb"] == cost["visits"][1]["peak_memory_mb"] == 5000


def test_a_run_that_is_done_is_not_run_again(tmp_path, capfd):
    config = write_config(tmp_path)
    run = train(config, tmp_path / "runs", toy_sequence(2))
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    capfd.readouterr()
    assert resume(run, sequence=toy_sequence(2)) == run
    assert "after 2 toy-b" in capfd.readouterr().err  # the matrix is shown again
    del before[run / ".lock"]
    assert all(p.stat().st_mtime_ns == was for p, was in before.items())


@pytest.fixture
def interrupted(tmp_path, monkeypatch) -> Iterator[Path]:
    with monkeypatch.context() as patch:
        die_at(patch, learner_class(PPO), "learn", 8)
        with pytest.raises(Killed):
            train(write_config(tmp_path), tmp_path / "runs", toy_sequence(2))
    return tmp_path / "runs/toy/seed0"


def test_protected_keys_are_refused_on_resume_and_others_are_not(interrupted):
    config = interrupted / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("seed: 0", "seed: 5"))
    with pytest.raises(ClrlError, match=r"says seed 5, but the folder is seed0") as caught:
        resume(interrupted, sequence=toy_sequence(2))
    assert caught.value.exit_code == 2
    config.write_text(text.replace("sticky: 0.0", "sticky: 0.5"))
    with pytest.raises(ClrlError, match=r"protocol.sticky: 0.0 -> 0.5.*--allow-change") as caught:
        resume(interrupted, sequence=toy_sequence(2))
    assert caught.value.exit_code == 2
    config.write_text(text.replace("every: 200", "every: 0"))
    assert resume(interrupted, sequence=toy_sequence(2)) == interrupted


@pytest.mark.parametrize(
    ("old", "new"), [("hidden: [16]", "hidden: [17]"), ("name: finetune", "name: ewc")]
)
def test_a_checkpoint_of_another_net_or_method_is_refused_even_if_allowed(old, new, interrupted):
    config = interrupted / "config.yaml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(ClrlError, match="another shape") as caught:
        resume(interrupted, allow_change=True, sequence=toy_sequence(2))
    assert caught.value.exit_code == 2
    assert len(str(caught.value).splitlines()) == 1
    assert (interrupted / "STATUS").read_text().strip() == "failed"


def test_another_learning_rate_is_not_called_bitwise(interrupted, capfd):
    config = interrupted / "config.yaml"
    config.write_text(config.read_text().replace("learning_rate: 0.001", "learning_rate: 0.01"))
    resume(interrupted, sequence=toy_sequence(2))
    assert "level: same learner (configuration" in capfd.readouterr().err
    described = json.loads((interrupted / "environment.json").read_text())
    assert len(described["resumed"]) == 1
    (edited,) = described["edited"]
    assert edited["changed"] == ["agent.learning_rate: 0.001 -> 0.01"]
    assert edited["step"] == described["resumed"][0]["step"]


def test_an_edit_stays_told_when_the_run_stops_where_it_was_made(interrupted, monkeypatch):
    """Stopped before its first step, it saves over the checkpoint that knew the old settings."""
    config = interrupted / "config.yaml"
    config.write_text(config.read_text().replace("learning_rate: 0.001", "learning_rate: 0.01"))
    with monkeypatch.context() as patch:

        def stop(self: Any) -> None:
            raise Stopped(75)

        patch.setattr(StopSignals, "check", stop)
        with pytest.raises(Stopped):
            resume(interrupted, sequence=toy_sequence(2))
    config.write_text(config.read_text().replace("ent_coef: 0.01", "ent_coef: 0.02"))
    resume(interrupted, sequence=toy_sequence(2))
    described = json.loads((interrupted / "environment.json").read_text())
    told = [(edit["step"], edit["changed"]) for edit in described["edited"]]
    step = described["resumed"][0]["step"]
    assert told == [
        (step, ["agent.learning_rate: 0.001 -> 0.01"]),
        (step, ["agent.ent_coef: 0.01 -> 0.02"]),
    ]


def test_an_edit_that_is_refused_is_not_told(interrupted):
    config = interrupted / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("hidden: [16]", "hidden: [17]"))
    with pytest.raises(ClrlError, match="another shape"):
        resume(interrupted, allow_change=True, sequence=toy_sequence(2))
    config.write_text(text)
    environment = interrupted / "environment.json"  # as of a checkpoint that is gone since
    stale = {"edited": [{"step": 9, "changed": ["seed: 0 -> 1"]}]}
    environment.write_text(json.dumps(json.loads(environment.read_text()) | stale))
    resume(interrupted, sequence=toy_sequence(2))
    assert "edited" not in json.loads((interrupted / "environment.json").read_text())


def test_another_optimizer_is_refused_in_a_line(tmp_path, monkeypatch):
    config = write_config(tmp_path, agent="{name: supervised, batch_size: 8}")
    with monkeypatch.context() as patch:
        die_at(patch, Supervised, "update", 15)
        with pytest.raises(Killed):
            train(config, tmp_path / "runs", toy_sequence(2))
    run = tmp_path / "runs/toy/seed0"
    text = (run / "config.yaml").read_text()
    assert "optimizer_name: adam" in text
    (run / "config.yaml").write_text(text.replace("optimizer_name: adam", "optimizer_name: sgd"))
    with pytest.raises(ClrlError, match=r"optimizer is Adam, config.yaml asks for SGD") as caught:
        resume(run, sequence=toy_sequence(2))
    assert caught.value.exit_code == 2


def test_another_number_of_environments_resumes_the_same_learner(interrupted, capfd):
    config = interrupted / "config.yaml"
    config.write_text(config.read_text().replace("n_envs: 4", "n_envs: 2"))
    resume(interrupted, sequence=toy_sequence(2))
    shown = capfd.readouterr().err
    assert "same learner" in shown
    assert "n_envs" in shown


def test_a_broken_checkpoint_falls_back_to_the_one_before_and_says_so(
    interrupted, never_stopped, capfd
):
    newest = max((interrupted / "checkpoints").glob("step_*"), key=lambda p: int(p.name[5:]))
    weights = newest / "tensors.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    resume(interrupted, sequence=toy_sequence(2))
    assert newest.name in capfd.readouterr().err
    assert_equal(result(interrupted), never_stopped(PPO, "{name: finetune}"))


def test_weights_that_diverge_stop_the_run_with_one_line(tmp_path, monkeypatch):
    config = write_config(tmp_path)
    original = learner_class(PPO).loss
    monkeypatch.setattr(
        learner_class(PPO), "loss", lambda self, batch: original(self, batch) * torch.nan
    )
    with pytest.raises(ClrlError, match=r"learning 'toy-a' broke down at step 64.*checkpoint"):
        train(config, tmp_path / "runs", toy_sequence(2))
    assert (tmp_path / "runs/toy/seed0/STATUS").read_text().strip() == "failed"


def test_nothing_leaks_over_many_tasks(tmp_path):
    import psutil

    def held() -> tuple[int, int, int]:
        process = psutil.Process()
        return process.num_fds(), process.num_threads(), len(process.children())

    short = {"sequence": "{tasks: [Freeway], steps: 64}", "evaluation": "{every: 0, episodes: 1}"}
    config = write_config(tmp_path, **short)
    train(config, tmp_path / "few", toy_sequence(2))
    before = held()
    train(config, tmp_path / "many", toy_sequence(2, cycles=10))
    assert held() == before
