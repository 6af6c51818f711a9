"""A first visit taken over from another run is the one that run learned."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from clrl.cli import main
from clrl.run import checkpoint
from clrl.run.assemble import assemble, sequence_of
from clrl.run.config import Config, load_config
from clrl.run.pretrained import find_pretrained
from clrl.run.records import read_records
from clrl.run.stop import Stopped
from clrl.run.train import resume, train
from clrl.types import ClrlError, TaskSequence

FIRST, SECOND = "digits:0+1", "digits:2+3"


def pictures(tmp_path: Path, *overrides: str) -> Config:
    path = tmp_path / "pictures.yaml"
    path.write_text(
        f"""
        name: both
        sequence: {{tasks: ["{FIRST}", "{SECOND}"], steps: 40}}
        agent: {{name: supervised, batch_size: 16}}
        method: {{name: finetune}}
        net: {{body: mlp, hidden: [16, 12]}}
        evaluation: {{every: 20}}
        threads: 1
        device: cpu
        """
    )
    return load_config(path, list(overrides))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that learned the first task alone."""
    folder = tmp_path_factory.mktemp("first")
    return train(pictures(folder, f"sequence.tasks=['{FIRST}']", "name=first"), folder / "runs")


def evaluations(run: Path, **where: Any) -> list[dict[str, Any]]:
    rows, skipped = read_records(run / "evaluations.jsonl")
    assert skipped == 0
    return [row for row in rows if all(row[k] == v for k, v in where.items())]


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Return the net as it was at the end of the first visit."""
    ends = checkpoint.load_each(run / "ends")
    net: dict[str, torch.Tensor] = next(iter(ends)).state["net"]
    return net


METHODS = [
    "{name: finetune}",
    "{name: ewc, strength: 10, n_samples: 16, n_batches: 2}",
    "{name: spp, strength: 10, n_samples: 16, n_batches: 2, batch_size: 8}",
    "{name: lwf}",
    "{name: frozen}",
    "{name: joint}",
    "{name: progressive}",
]


@pytest.mark.parametrize("method", METHODS)
def test_the_first_row_of_the_matrix_is_that_of_the_run_taken_over(method, first, tmp_path):
    config = pictures(tmp_path, f"method={method}", f"sequence.pretrained={first}")
    run = train(config, tmp_path / "runs")
    at = {"visit": 1, "task_evaluated": FIRST}
    (own,), (theirs,) = evaluations(run, phase="end", **at), evaluations(first, phase="end", **at)
    assert own["step"] == theirs["step"] == 40
    assert own["accuracy"] == theirs["accuracy"]
    assert own["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
    during = [
        [row for row in evaluations(path, phase="during", **at) if row["step"]]
        for path in (run, first)
    ]
    assert during[0] == during[1] != []
    ours, others = (
        [
            {k: v for k, v in row.items() if not k.startswith("plasticity/")}
            for row in read_records(path / "metrics.jsonl")[0]
        ]
        for path in (run, first)
    )
    assert [row for row in ours if row["visit"] == 1] == others != []
    assert evaluations(run, phase="end", visit=2, task_evaluated=SECOND)[0]["step"] == 80


@pytest.mark.parametrize("method", ["{name: finetune}", "{name: progressive}"])
def test_every_weight_of_the_first_task_is_taken_over(method, first, tmp_path):
    config = pictures(tmp_path, f"method={method}", f"sequence.pretrained={first}")
    learner = assemble(config, sequence_of(config))
    run = train(config, tmp_path / "runs")
    ours, theirs = weights(run), weights(first)
    if "finetune" in method:
        assert all(torch.equal(ours[name], t) for name, t in theirs.items())
        assert ours.keys() - theirs.keys() == {"heads.policy.1.weight", "heads.policy.1.bias"}
        fresh = learner.net.state_dict()  # a head that was not learned is that of the start
        assert torch.equal(ours["heads.policy.1.weight"], fresh["heads.policy.1.weight"])
        return
    column = [t for name, t in ours.items() if name.startswith("columns.0.")]
    assert len(column) == len(theirs) == 6
    assert all(torch.equal(a, b) for a, b in zip(column, theirs.values(), strict=True))


def test_fine_tuning_goes_on_as_if_it_had_learned_the_first_task(first, tmp_path):
    """With one task alike and one head for both, all is alike bit for bit."""
    same = ["sequence.scenario=domain", "net.heads=shared"]
    alone = pictures(tmp_path, *same, f"sequence.tasks=['{FIRST}']", "name=alone")
    source = train(alone, tmp_path / "runs")
    learned = train(pictures(tmp_path, *same, "name=learned"), tmp_path / "runs")
    taken = [*same, f"sequence.pretrained={source}", "name=taken"]
    taken_over = train(pictures(tmp_path, *taken), tmp_path / "runs")
    states = [
        found.state["learner"]
        for run in (learned, taken_over)
        if (found := checkpoint.load_latest(run / "checkpoints"))
    ]
    nets = [state["net"] for state in states]
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])
    assert evaluations(learned) == evaluations(taken_over)
    for key in ("step", "extra_steps", "pictures"):
        assert states[0][key] == states[1][key]


def test_the_folder_of_all_seeds_stands_for_the_run_of_this_one(first, tmp_path):
    config = pictures(tmp_path, f"sequence.pretrained={first.parent}")
    run = train(config, tmp_path / "runs")
    assert evaluations(run, phase="end", visit=1, task_evaluated=FIRST)[0]["step"] == 40


def test_a_run_killed_after_taking_over_goes_on_without_the_source(first, tmp_path, monkeypatch):
    config = pictures(tmp_path, f"sequence.pretrained={first}", "name=whole")
    whole = train(config, tmp_path / "runs")

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    config = pictures(tmp_path, f"sequence.pretrained={first}", "name=cut")
    with monkeypatch.context() as patch:
        patch.setattr("clrl.run.walk.Walk._update", die)  # the second visit's first update
        with pytest.raises(Killed):
            train(config, tmp_path / "runs")
    moved = first.rename(first.with_name("elsewhere"))
    try:
        cut = resume(tmp_path / "runs" / "cut" / "seed0")
    finally:
        moved.rename(first)
    assert evaluations(cut) == evaluations(whole)


def test_records_of_the_visit_say_what_it_took(first, tmp_path):
    run = train(pictures(tmp_path, f"sequence.pretrained={first}"), tmp_path / "runs")
    found, theirs = (checkpoint.load_latest(path / "checkpoints") for path in (run, first))
    assert found is not None
    assert theirs is not None
    own, other = found.state["cursor"]["costs"][0], theirs.state["cursor"]["costs"][0]
    assert own["seconds"] >= other["seconds"]
    assert found.state["cursor"]["seconds"] >= own["seconds"]


def test_a_dry_run_refuses_what_a_run_would(first, tmp_path, capsys):
    pictures(tmp_path)
    words = ["train", str(tmp_path / "pictures.yaml"), f"sequence.pretrained={first}", "--dry-run"]
    with pytest.raises(SystemExit) as done:
        main(words)
    assert done.value.code == 0
    assert f"pretrained: {first}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as done:
        main([*words, "agent.batch_size=17"])
    assert done.value.code == 2
    assert "agent.batch_size: 16 -> 17" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["method={name: si}"], "this run's method, SI, does not learn its first task"),
        (["method={name: joint, from_start: true}"], "this run's method, Joint"),
        (["evaluation.every=10"], "evaluation.every: 20 -> 10"),
        (["evaluation.unseen=always"], "evaluation.unseen is 'always'"),
        (["method={name: progressive, random_first: true}"], "this run's method, Progressive"),
        (["agent.learning_rate=0.5"], "made otherwise (agent.learning_rate: 0.001 -> 0.5)"),
        (["sequence.steps=41"], "made otherwise (sequence.steps: 40 -> 41)"),
        (["seed=1"], "made otherwise (seed: 0 -> 1)"),
        (["net.hidden=[16, 11]"], "net.hidden: [16, 12] -> [16, 11]"),
        (["sequence.held_out=0.1"], "sequence.held_out: 0.0 -> 0.1"),
        ([f"sequence.tasks=['{SECOND}', '{FIRST}']"], f"its first task is '{FIRST}' (1x8x8, 2"),
        (["agent.schedule_over=sequence"], "schedule_over is 'sequence'"),
        (["sequence.pretrained=/nowhere"], "/nowhere is no run"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(overrides, told, first, tmp_path):
    config = pictures(tmp_path, f"sequence.pretrained={first}", *overrides)
    with pytest.raises(ClrlError) as error:
        train(config, tmp_path / "runs")
    assert told in str(error.value)
    assert error.value.exit_code == 2
    assert not (tmp_path / "runs").exists()


def test_what_means_nothing_for_pictures_need_not_agree(first, tmp_path):
    changes = ["evaluation.policy=greedy", "evaluation.episodes=3", "protocol.sticky=0.25"]
    train(pictures(tmp_path, f"sequence.pretrained={first}", *changes), tmp_path / "runs")


def test_pictures_of_another_size_are_another_task(first, tmp_path):
    """In a sequence with larger pictures all are padded, and the net is another one."""
    config = pictures(tmp_path, f"sequence.pretrained={first}")
    tasks = tuple(dataclasses.replace(t, shape=(3, 32, 32)) for t in sequence_of(config).tasks)
    with pytest.raises(ClrlError) as error:
        find_pretrained(config, TaskSequence(tasks, (0, 1)))
    assert f"expected '{FIRST}' (3x32x32, 2 outputs)" in str(error.value)


def test_weights_of_another_shape_are_never_taken_over(first, tmp_path):
    config = pictures(tmp_path)
    learner = assemble(config, sequence_of(config))
    task = sequence_of(config).tasks[0]
    found = checkpoint.load_latest(first / "checkpoints")
    assert found is not None
    weights = [p.detach()[:1] for p in learner.net.first_parameters(task)]  # would be broadcast
    with pytest.raises(ClrlError, match="cannot be taken over"):
        learner.take_over(task, found.state["learner"], weights)


@pytest.mark.parametrize(
    "moment",
    ["clrl.agents.supervised.Supervised.end_task", "clrl.run.walk.Walk._keep_importances"],
)
def test_stopped_before_the_next_checkpoint_it_goes_on_with_the_same_costs(
    moment, first, tmp_path, monkeypatch
):
    config = pictures(tmp_path, f"sequence.pretrained={first}", "name=whole")
    whole = train(config, tmp_path / "runs")

    def stop(*_: object, **__: object) -> None:
        raise Stopped(3)

    config = pictures(tmp_path, f"sequence.pretrained={first}", "name=cut")
    with monkeypatch.context() as patch:
        patch.setattr(moment, stop)
        with pytest.raises(Stopped):
            train(config, tmp_path / "runs")
    cut = resume(tmp_path / "runs" / "cut" / "seed0")
    assert evaluations(cut) == evaluations(whole)
    summaries = [json.loads((run / "summary.json").read_text()) for run in (cut, whole, first)]
    costs = [summary["cost"] for summary in summaries]
    seconds = [cost["visits"][0]["seconds"] for cost in costs]
    assert min(seconds[:2]) >= seconds[2]
    assert min(cost["seconds"] for cost in costs[:2]) >= seconds[2]
    assert min(cost["seconds_evaluating"] for cost in costs[:2]) >= costs[2]["seconds_evaluating"]


def test_a_column_has_its_first_score_and_only_records_of_its_own_layers(first, tmp_path):
    columns = "method={name: progressive}"
    taken = train(pictures(tmp_path, columns, f"sequence.pretrained={first}"), tmp_path / "runs")
    learned = train(pictures(tmp_path, columns, "name=learned"), tmp_path / "runs")
    at = {"phase": "during", "visit": 1, "task_evaluated": FIRST}
    steps = [[row["step"] for row in evaluations(run, **at)] for run in (taken, learned)]
    assert steps[0] == steps[1] == [0, 20]
    layers = [
        {key for row in read_records(run / "metrics.jsonl")[0] for key in row if "trunk" in key}
        for run in (first, taken)
    ]
    assert layers[0]
    assert not layers[1]


def test_a_source_that_went_on_or_is_not_plain_is_refused(first, tmp_path):
    beyond = train(pictures(tmp_path, "name=beyond"), tmp_path / "runs")
    columns = train(
        pictures(tmp_path, f"sequence.tasks=['{FIRST}']", "name=pnn", "method={name: progressive}"),
        tmp_path / "runs",
    )
    ewc = ["method={name: ewc, n_samples: 16, n_batches: 2}", f"sequence.tasks=['{FIRST}']"]
    drew = train(pictures(tmp_path, "name=drew", *ewc), tmp_path / "runs")
    for source, told in (
        (beyond, "end of its first visit"),
        (columns, "its net is not plain"),
        (drew, "its method, EWC, went on after the visit's steps"),
    ):
        with pytest.raises(ClrlError, match=told):
            train(pictures(tmp_path, f"sequence.pretrained={source}", "name=x"), tmp_path / "runs")


@pytest.mark.atari
def test_games_go_on_where_the_source_stood(tmp_path):
    path = tmp_path / "games.yaml"
    path.write_text(
        """
        name: games
        sequence: {tasks: [Freeway, Pong], steps: 128}
        agent: {name: ppo, n_envs: 4, n_steps: 16, batch_size: 32, n_epochs: 1}
        method: {name: ewc, n_samples: 16, n_batches: 2}
        net: {body: pnn}
        protocol: {preset: classic, max_frames: 400}
        evaluation: {every: 64, episodes: 1}
        threads: 1
        device: cpu
        """
    )
    alone = ["method={name: finetune}", "sequence.tasks=[Freeway]", "name=alone"]
    source = train(load_config(path, alone), tmp_path / "runs")
    for method in ("ewc", "progressive"):
        over = [f"sequence.pretrained={source}", f"name={method}", f"method={{name: {method}}}"]
        run = train(load_config(path, over), tmp_path / "runs")
        at = {"phase": "end", "visit": 1, "task_evaluated": "Freeway"}
        (own,), (theirs,) = evaluations(run, **at), evaluations(source, **at)
        kept = ("return", "length", "step")
        assert [own[key] for key in kept] == [theirs[key] for key in kept]


def test_games_are_restored_to_where_the_source_left_them(tmp_path):
    from clrl.agents.a2c import A2C
    from clrl.agents.learner import RunSettings
    from clrl.envs.toy import toy_sequence
    from clrl.method import Method
    from clrl.types import Linear, NetSpec

    def learner() -> A2C:
        tasks = toy_sequence(2).tasks
        made = A2C(n_envs=2, n_steps=3)
        spec = NetSpec(tasks[0].input_shape, (Linear(8),), tasks)
        made.setup(Method(), spec, RunSettings(0, 60, 2, torch.device("cpu")))
        return made

    source, task = learner(), toy_sequence(2).tasks[0]
    source.begin_task(task)
    for _ in range(4):
        source.update()
    other = learner()
    parameters = [p.detach() for p in source.net.first_parameters(task)]
    other.take_over(task, source.state_dict(), parameters)
    assert (other.step, other.task_step) == (source.step, source.task_step) == (24, 24)
    ours, theirs = (x.collect(x._route(training=False)) for x in (other, source))
    for name in ("x", "action", "return_", "value"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    for one in (source, other):
        one.close()
