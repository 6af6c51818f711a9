"""Pictures through the whole house: run folder, summary, evaluation, what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from clrl.cli import main
from clrl.envs.vision import build_image_sequence
from clrl.nets.plain import PlainNet
from clrl.run.assemble import assemble, sequence_of
from clrl.run.config import load_config
from clrl.run.environment import describe_environment
from clrl.run.evaluate import evaluate_run
from clrl.run.records import read_records
from clrl.run.train import train
from clrl.study.importances import load_importances
from clrl.types import MASKED

pytest.importorskip("sklearn", reason="the bundled digits come with scikit-learn")

CONFIG = """
name: digits
sequence: {tasks: ["digits:0+1", "digits:2+3"], steps: 60}
agent: {name: supervised, batch_size: 32}
method: {name: ewc, strength: 10, n_samples: 64}
net: {body: mlp, hidden: [32]}
tracking: {importances: true}
threads: 1
device: cpu
"""


def written(folder: Path, text: str = CONFIG, **changes: str) -> Path:
    path = folder / "digits.yaml"
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    return train(load_config(written(folder)), folder / "runs")


def test_a_run_leaves_accuracies_in_percent_and_all_metrics(run):
    rows, skipped = read_records(run / "evaluations.jsonl")
    assert skipped == 0
    assert len(rows) == 3 * 2  # before, and after each of two tasks
    for row in rows:
        assert 0 <= row["accuracy"] <= 100
        assert row["n"] > 50
        assert "return" not in row
        assert row["frames"] >= 32 * row["step"]
    assert (
        "unfinished" not in (report := (run / "report.md").read_text()) and "digits:2+3" in report
    )
    assert (run / "report.html").exists() and (run / "report.csv").exists()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["score"] == "accuracy"
    assert summary["matrix"][2][1] > 90
    assert summary["matrix"][1][0] > 90
    for name in ("average_performance", "backward_transfer", "forgetting", "smt"):
        assert summary["metrics"][name] is not None, name
    assert summary["cost"]["steps"] == 120
    assert summary["cost"]["steps_for_end_task"] == 2 * 8
    metrics, _ = read_records(run / "metrics.jsonl")
    assert {"train/loss", "train/accuracy", "train/gradient_norm"} <= set(metrics[-1])
    assert metrics[-1]["method/penalty"] > 0  # it acts
    assert metrics[-1]["method/importance_mean"] > 0


def test_importances_of_every_visit_are_kept_where_asked_for(run):
    first, second = load_importances(run)
    assert (first.visit, second.visit) == (1, 2)
    assert set(first.importance) == {"trunk.1.weight", "trunk.1.bias"}
    for name, importance in first.importance.items():
        assert importance.shape == first.weight[name].shape
        assert importance.min() >= 0
    total = sum(float(o.sum()) for o in first.importance.values())
    n = sum(o.numel() for o in first.importance.values())
    assert total / n == pytest.approx(1.0, rel=1e-4)  # normalised


def test_a_run_of_pictures_is_evaluated_again_the_same(run):
    rows = evaluate_run(run)
    matrix = json.loads((run / "summary.json").read_text())["matrix"]
    assert [row["accuracy"] for row in rows] == matrix[-1]
    assert set(rows[0]) == {"task", "accuracy", "loss", "n"}


def test_held_out_pictures_are_evaluated_in_place_of_the_test_set(tmp_path):
    path = written(tmp_path, **{"steps: 60}": "steps: 60, held_out: 0.5}"})
    run = train(load_config(path), tmp_path / "runs")
    rows, _ = read_records(run / "evaluations.jsonl")
    task = sequence_of(load_config(path)).tasks[0]
    published = build_image_sequence(["digits:0+1"], 1, "task", False).tasks[0]
    parts = [task.examples("train").x, task.examples("valid").x, published.examples("test").x]
    assert rows[0]["n"] == len(parts[1])
    assert len(parts[0]) + len(parts[1]) == len(published.examples("train").x)
    assert len(parts[1]) == pytest.approx(len(parts[0]), abs=2)
    seen = [{x.numpy().tobytes() for x in part} for part in parts]
    learner = assemble(load_config(path), sequence_of(load_config(path)))
    learner.begin_task(task)
    learned = {x.numpy().tobytes() for x in learner._data.x}
    assert learned == seen[0]
    assert not learned & seen[1]


def test_several_scenarios_and_joint_training_run(tmp_path):
    for scenario in ("domain", "class"):
        for method in ("{name: lwf}", "{name: joint}", "{name: spp, n_samples: 100}"):
            changes = [f"sequence.scenario={scenario}", "net.heads=shared", f"method={method}"]
            name = f"{scenario}-{method[7:10]}"
            config = load_config(written(tmp_path), [*changes, f"name={name}", "sequence.steps=20"])
            summary = json.loads((train(config, tmp_path / "runs") / "summary.json").read_text())
            assert len(summary["matrix"]) == 3


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_only_a_scenario_that_tells_the_task_masks_other_tasks_classes(scenario, tmp_path):
    heads = "per_task" if scenario == "task" else "shared"
    changes = [f"sequence.scenario={scenario}", f"net.heads={heads}"]
    config = load_config(written(tmp_path), changes)
    learner = assemble(config, sequence_of(config))
    assert learner.net.spec.masks is (scenario == "task")
    x = torch.zeros((2, *learner.net.spec.input_shape), dtype=torch.uint8)
    logits = learner.net(x, torch.tensor([0, 1])).logits
    n_classes = 4 if scenario == "class" else 2  # two tasks of two: one softmax over all of them
    assert logits.shape == (2, n_classes)
    assert (logits > MASKED).all()
    if scenario == "class":  # a task that is told would answer with its own classes alone
        told = dataclasses.replace(learner.net.spec, masks=True)
        masked = PlainNet(told)(x, torch.tensor([0, 1])).logits
        assert (masked == MASKED).sum() == 4


def test_the_environment_names_the_data_by_checksum(tmp_path, monkeypatch):
    monkeypatch.setenv("CLRL_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/t10k-labels-idx1-ubyte.gz").write_bytes(b"abc")
    tasks = build_image_sequence(["mnist:0+1", "digits:0+1"], 1, "task", False).tasks
    data = describe_environment(tasks)["data"]
    assert data == {"mnist/t10k-labels-idx1-ubyte.gz": "900150983cd24fb0d6963f7d28e17f72"}


REFUSED = {
    "class-incremental with a head per task": (
        ["sequence.scenario=class"],
        2,
        r"class.*heads",
    ),
    "games for a classifier": (
        ["sequence={name: quick3, steps: 10}"],
        2,
        r"'quick3'.*is of games.*a2c or ppo",
    ),
    "pictures for an agent that plays": (
        ["sequence={name: split_digits, steps: 10}", "agent={name: ppo}"],
        2,
        r"'split_digits'.*is of pictures.*supervised",
    ),
    "a scenario for games": (
        ["sequence={name: quick3, steps: 10, scenario: domain}", "agent={name: ppo}"],
        2,
        r"'domain'.*for pictures",
    ),
    "an unknown data set": (
        ["sequence={tasks: ['mnits:0+1'], steps: 10}"],
        3,
        r"mnits.*mnist",
    ),
    "a missing data set": (
        ["sequence={name: split_mnist, steps: 10}"],
        3,
        r"clrl fetch mnist",
    ),
    "a class that is not there": (
        ["sequence={tasks: ['digits:0+11'], steps: 10}"],
        2,
        r"11",
    ),
    "a body for larger pictures": (["net={body: nature}"], 2, r"does not fit an input of shape"),
    "so little held out that nothing is evaluated": (
        ["sequence.held_out=0.0001"],
        2,
        r"sequence.held_out is 0.0001.*no images for evaluating task 'digits:0\+1'",
    ),
    "pictures in a list of games": (
        ["sequence={tasks: [Pong, mnist], steps: 10}", "agent={name: ppo}"],
        2,
        r"'mnist' is a set of pictures: expected agent.name supervised",
    ),
    "a game in a list of pictures": (
        ["sequence={tasks: [mnist, Pong-noisy], steps: 10}"],
        2,
        r"'Pong-noisy' is a game: expected agent.name a2c or ppo",
    ),
    "too much held out": (["sequence.held_out=1.0"], 2, r"held_out"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_input_is_one_line_with_its_exit_code_and_creates_nothing(
    what, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("CLRL_DATA", str(tmp_path / "no data"))
    changes, code, said = REFUSED[what]
    with pytest.raises(SystemExit) as caught:
        main(["train", str(written(tmp_path)), "--runs", str(tmp_path / "runs"), *changes])
    assert caught.value.code == code
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert re.search(said, lines[0]), lines[0]
    assert not (tmp_path / "runs").exists()
