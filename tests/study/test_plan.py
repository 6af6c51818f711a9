"""A study's file: what it may say, and the runs that follow."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from clrl.run.config import load_config, to_dict
from clrl.run.yaml_safe import dump
from clrl.study import plan
from clrl.study.plan import load_study, short_name
from clrl.types import ClrlError

Write = Callable[..., Path]
RUN = {
    "sequence": {"steps": 40},
    "agent": {"name": "supervised"},
    "net": {"body": "mlp", "hidden": [8]},
    "evaluation": {"every": 10},
}


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(plan)
    assert (result.failed, result.attempted > 0) == (0, True)


def test_the_example_at_the_top_is_a_study(write_study: Write, tmp_path: Path) -> None:
    text = (plan.__doc__ or "").split("\n\n")[1]
    example = yaml.safe_load("\n".join(line[4:] for line in text.splitlines()[:-1]))
    example |= {"run": RUN | {"agent": {"name": "ppo"}}}
    assert len(load_study(write_study(tmp_path, **example)).runs) == 3 * 3 * 3


def test_there_is_a_run_for_every_pair_method_and_seed_but_no_task_is_its_own_source(
    write_study: Write,
    tmp_path: Path,
) -> None:
    study = load_study(write_study(tmp_path))
    walks = [(run.method, run.sources, run.target, run.seed) for run in study.runs]
    a, b, c = "digits:0+1", "digits:2+3", "digits:4+5"
    assert walks == [
        (method, (source,), target, seed)
        for seed in (3, 5)
        for source, target in ((a, b), (a, c), (b, c))
        for method in ("finetune", "weak")
    ]
    alone = [(run.method, run.sources, run.target, run.seed) for run in study.experts]
    # a is no target: it is learned alone as what the runs go on from
    assert alone == [("expert", (), task, seed) for seed in (3, 5) for task in (b, c, a)]
    assert study.sources == [a, b]
    assert study.targets == [b, c]


def test_only_what_would_be_learned_alike_is_shared(write_study: Write, tmp_path: Path) -> None:
    methods = {"finetune": {}, "si": {}, "lwf": {}, "all": {"name": "joint", "from_start": True}}

    def shared(*overrides: str) -> set[str]:
        study = load_study(write_study(tmp_path, methods=methods), overrides)
        alone = {run.target for run in study.experts}
        assert alone == {"digits:2+3", "digits:4+5"} | (
            {"digits:0+1"} if any(run.shares for run in study.runs) else set()
        )
        return {run.method for run in study.runs if run.shares}

    assert shared() == {"finetune", "lwf"}
    assert shared("share_sources=false") == set()
    assert shared("run.evaluation.unseen=always") == set()
    shared_heads = "run.net={body: mlp, hidden: [8], heads: shared}"
    assert shared(shared_heads, "run.sequence.scenario=domain") == {"finetune", "lwf"}
    # one softmax over all classes of the sequence: a task alone has another
    assert shared(shared_heads, "run.sequence.scenario=class") == set()


def test_two_spellings_of_a_task_have_one_expert(write_study: Write, tmp_path: Path) -> None:
    two = {"sources": ["digits:0-1", "digits:4+5"], "targets": ["digits:0+1", "digits:2+3"]}
    study = load_study(write_study(tmp_path, **two, seeds=[0]))
    alone = [run.target for run in study.experts]
    assert alone == ["digits:0+1", "digits:2+3", "digits:4+5"]


def test_the_runs_differ_in_tasks_method_and_seed_alone(write_study: Write, tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path))
    for run in (*study.experts, *study.runs):
        assert run.config.sequence.tasks == (*run.sources, run.target)
        assert run.config.threads == 1
        data = to_dict(run.config)
        for key in ("name", "method", "seed"):
            del data[key]
        del data["sequence"]["tasks"]
        expected = to_dict(study.config.run)
        for key in ("name", "method", "seed"):
            del expected[key]
        del expected["sequence"]["tasks"]
        assert data == expected
    methods = {run.method: to_dict(run.config)["method"] for run in study.runs}
    assert methods["finetune"] == {"name": "finetune"}
    assert (methods["weak"]["name"], methods["weak"]["strength"]) == ("ewc", 0.5)
    assert all(to_dict(e.config)["method"] == {"name": "finetune"} for e in study.experts)


def test_folders_of_runs_have_names_of_their_own_that_a_run_can_have(
    write_study: Write, tmp_path: Path
) -> None:
    study = load_study(write_study(tmp_path))
    names = [(run.config.name, run.seed) for run in study.runs]
    assert len(set(names)) == len(names)
    assert short_name("a:b") != short_name("a+b")
    assert len(short_name("x" * 300)) <= 80
    path = tmp_path / "run.yaml"
    path.write_text(dump(to_dict(study.runs[0].config)))
    assert load_config(path) == study.runs[0].config


def test_a_list_among_the_sources_is_a_chain(write_study: Write, tmp_path: Path) -> None:
    chain = ["digits:0+1", "digits:2+3"]
    study = load_study(write_study(tmp_path, sources=[chain], targets=["digits:4+5"], seeds=[0]))
    assert [run.sources for run in study.runs] == [tuple(chain)] * 2
    assert study.sources == ["digits:0+1 > digits:2+3"]
    with pytest.raises(ClrlError, match="expected a pair"):  # each target is in its chain
        load_study(write_study(tmp_path, sources=[chain], targets=["digits:2+3"]))


def test_a_run_for_a_study_and_a_study_for_a_run_are_refused_in_a_line(
    write_study: Write, tmp_path: Path
) -> None:
    run = Path(__file__).parents[2] / "configs" / "demo.yaml"
    for read, path, told in (
        (load_study, run, "is the configuration of a run, not of a study: use clrl train"),
        (load_config, write_study(tmp_path), "is of a study, not of a run: use clrl transfer"),
    ):
        with pytest.raises(ClrlError) as caught:
            read(path)
        assert str(caught.value) == f"{path} {told}"
        assert caught.value.exit_code == 2


def test_the_resolved_study_reads_back_as_the_same(write_study: Write, tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, criterion=0.8))
    path = tmp_path / "resolved.yaml"
    path.write_text(dump(study.to_dict()))
    assert load_study(path) == study


def test_overrides_reach_the_runs(write_study: Write, tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path), ["run.sequence.steps=99", "seeds=[1]"])
    assert {run.config.sequence.steps for run in study.runs} == {99}
    assert {run.seed for run in study.runs} == {1}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sources": []}, "sources is empty"),
        ({"targets": []}, "targets is empty"),
        ({"methods": {}}, "methods is empty"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": [1, 1]}, "seeds has 1 twice"),
        ({"seeds": [-1]}, r"seeds\[0\] is -1: expected 0 or more"),
        ({"sources": [[]]}, "sources has an empty chain"),
        ({"targets": ["digits:0+1", "digits:0+1"]}, "targets has 'digits:0\\+1' twice"),
        ({"targets": ["digits:4+5", "digits:4-5"]}, "twice"),  # one task, written twice
        ({"name": "a/b"}, "name is 'a/b': expected letters"),
        ({"methods": {"expert": {}}}, "methods.expert"),
        ({"methods": {"expert": {"name": "ewc"}}}, "not 'expert'"),
        ({"methods": {"ewk": {}}}, "methods.ewk.name is 'ewk': unknown; did you mean 'ewc'"),
        ({"methods": {"ewc": {"strenght": 1}}}, "methods.ewc.strenght is not a key"),
        ({"methods": {"ewc": 3}}, "methods.ewc is not a section"),
        ({"methods": ["ewc"]}, "methods is not a section"),
        ({"criterion": 0}, "criterion is 0: expected a number above 0"),
        ({"criterion": 1.5}, "criterion is 1.5"),
        ({"budget": 3}, "budget is not a key that exists here"),
        ({"run": 3}, "run is not what runs share"),
        ({"run": RUN | {"seed": 3}}, "run.seed is not shared by the runs: the study sets it"),
        ({"run": RUN | {"method": {"name": "ewc"}}}, "run.method is not shared"),
        ({"run": RUN | {"name": "x"}}, "run.name is not shared"),
        ({"run": RUN | {"sequence": {"steps": 9, "name": "quick3"}}}, "run.sequence.name is not"),
        ({"run": RUN | {"sequence": {"steps": 9, "tasks": ["Pong"]}}}, "run.sequence.tasks is not"),
        ({"run": RUN | {"sequence": {"steps": 0}}}, "run.sequence.steps is 0"),
        ({"run": RUN | {"agent": {"name": "dqn"}}}, "run.agent.name is 'dqn'"),
        ({"run": RUN | {"evaluation": {"every": 0}}}, "run has evaluation.every 0"),
        ({"run": RUN | {"evaluation": {"every": 40}}}, "run has evaluation.every 40"),
        ({"run": RUN | {"agent": {"name": "supervised", "schedule_over": "sequence"}}},
         "run has agent.schedule_over 'sequence': expected 'task'"),
        ({"sources": ["Pong"]}, "sequence.tasks: 'Pong' is a game"),
    ],
)  # fmt: skip
def test_what_is_no_study_is_refused_by_key_and_value(
    write_study: Write, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ClrlError, match=told) as caught:
        load_study(write_study(tmp_path, **changes))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("key", ["name", "sources", "targets", "methods", "seeds", "run"])
def test_a_missing_key_is_named(write_study: Write, tmp_path: Path, key: str) -> None:
    with pytest.raises(ClrlError, match=f"{key} is missing"):
        load_study(write_study(tmp_path, **{key: None}))
