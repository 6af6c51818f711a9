"""Experts: found again by what determines them, and never used unless they are whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clrl.run.config import Config
from clrl.run.train import train
from clrl.study import experts
from clrl.study.experts import (
    cannot_be_gone_on_from,
    determinants,
    expert_key,
    inspect,
    place,
    seal,
    set_aside,
)
from clrl.study.plan import PlannedRun, load_study
from clrl.types import ClrlError

Write = Callable[..., Path]


@pytest.fixture
def planned(write_study: Write, tmp_path: Path) -> PlannedRun:
    return load_study(write_study(tmp_path)).experts[0]


@pytest.fixture(scope="module")
def made(write_study: Write, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    """Return a sealed expert, made once."""
    folder = tmp_path_factory.mktemp("experts")
    path, config = place(folder, load_study(write_study(folder)).experts[0])
    assert train(config, path.parent.parent) == path
    seal(path, config)
    return path, config


@pytest.fixture
def expert(made: tuple[Path, Config], tmp_path: Path) -> tuple[Path, Config]:
    """Return a copy that a test may damage."""
    path = tmp_path / made[0].parent.name / made[0].name
    shutil.copytree(made[0], path)
    return path, made[1]


def test_the_key_is_the_same_for_what_changes_nothing(planned: PlannedRun) -> None:
    config = planned.config
    key = expert_key(config)
    assert key == expert_key(replace(config, name="other"))
    assert key == expert_key(replace(config, seed=99))
    assert key == expert_key(replace(config, tracking=replace(config.tracking, wandb="offline")))
    assert key == expert_key(replace(config, checkpoint=replace(config.checkpoint, every=1)))
    assert key == expert_key(replace(config, device="cpu")) or torch.cuda.is_available()


@pytest.mark.parametrize("part", ["sequence", "agent", "net", "evaluation", "precision", "threads"])
def test_the_key_is_another_for_what_changes_the_result(planned: PlannedRun, part: str) -> None:
    config = planned.config
    changed: dict[str, Any] = {
        "sequence": replace(config.sequence, steps=41),
        "agent": replace(config.agent, learning_rate=0.5),
        "net": replace(config.net, hidden=(9,)),
        "evaluation": replace(config.evaluation, every=11),
        "precision": "bf16",
        "threads": 2,
    }
    assert expert_key(replace(config, **{part: changed[part]})) != expert_key(config)


def test_the_key_is_another_for_another_version(
    planned: PlannedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = expert_key(planned.config)
    assert determinants(planned.config)["packages"]["torch"] == torch.__version__.split("+")[0] or (
        determinants(planned.config)["packages"]["torch"] == torch.__version__
    )
    monkeypatch.setattr(experts, "_version", lambda package: "0")
    assert expert_key(planned.config) != key


@pytest.mark.parametrize(("task", "is_in"), [("digits:0+1", True), ("Freeway", False)])
def test_the_package_of_a_data_set_counts_where_it_is_learned(
    planned: PlannedRun, task: str, is_in: bool
) -> None:
    of_task = replace(planned.config.sequence, tasks=(task,))
    packages = determinants(replace(planned.config, sequence=of_task))["packages"]
    assert ("scikit-learn" in packages) == is_in


def test_seeds_share_a_folder_and_tasks_do_not(write_study: Write, tmp_path: Path) -> None:
    planned = load_study(write_study(tmp_path)).experts
    places = [place(tmp_path, run) for run in planned]
    assert len({path for path, _ in places}) == len(places) == 6  # two targets, a source, two seeds
    assert len({path.parent for path, _ in places}) == 3
    for (path, config), run in zip(places, planned, strict=True):
        assert path == tmp_path / config.name / f"seed{run.seed}"


def test_a_sealed_expert_is_sound(expert: tuple[Path, Config]) -> None:
    assert inspect(*expert) == ("sound", "")


def test_one_that_is_not_there_is_missing(planned: PlannedRun, tmp_path: Path) -> None:
    assert inspect(tmp_path / "nowhere", planned.config) == ("missing", "")
    begun = tmp_path / "seed0"  # killed before it wrote a word
    begun.mkdir()
    (begun / ".lock").write_text("")
    (begun / "config.yaml.tmp-12").write_text("na")
    assert inspect(begun, planned.config) == ("missing", "")


@pytest.mark.parametrize("name", ["config.yaml", "evaluations.jsonl", "summary.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_any_damage_to_a_sealed_expert_is_found(
    expert: tuple[Path, Config], name: str, damage: str
) -> None:
    path, config = expert
    file = path / name
    data = bytearray(file.read_bytes())
    if damage == "flip":
        place = data.rindex(b"0")
        data[place : place + 1] = b"1"
        file.write_bytes(data)
    elif damage == "cut":
        file.write_bytes(data[:-3])
    else:
        file.unlink()
    state, why = inspect(path, config)
    assert state == "damaged"
    assert name in why or (name, damage) == ("config.yaml", "cut")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sha256": 3}'])
def test_a_seal_that_cannot_be_read_is_damage(expert: tuple[Path, Config], text: str) -> None:
    path, config = expert
    (path / "expert.json").write_text(text)
    assert inspect(path, config)[0] == "damaged"


def test_one_made_with_another_configuration_is_damaged(expert: tuple[Path, Config]) -> None:
    path, config = expert
    other = replace(config, sequence=replace(config.sequence, steps=41))
    assert inspect(path, other) == ("damaged", "config.yaml: sequence.steps: 40 -> 41")


@pytest.mark.parametrize("status", ["running", "preempted", "failed"])
def test_one_that_stopped_is_unfinished(expert: tuple[Path, Config], status: str) -> None:
    path, config = expert
    (path / "expert.json").unlink()
    (path / "STATUS").write_text(status)
    assert inspect(path, config) == ("unfinished", "")


def break_checkpoints(run: Path, manifest: str = "{") -> None:
    """Leave no whole checkpoint."""
    found = list((run / "checkpoints").glob("step_*/manifest.json"))
    assert found
    for path in found:
        path.write_text(manifest)


def test_one_that_stopped_and_cannot_be_resumed_is_damaged(expert: tuple[Path, Config]) -> None:
    path, config = expert
    (path / "expert.json").unlink()
    (path / "STATUS").write_text("preempted")
    break_checkpoints(path)
    state, why = inspect(path, config)
    assert state == "damaged"
    assert "no checkpoint can be used" in why
    shutil.rmtree(path / "checkpoints")  # killed before the first: it begins anew
    assert inspect(path, config) == ("unfinished", "")


def test_broken_checkpoints_cannot_be_gone_on_from_and_newer_ones_are_refused(
    expert: tuple[Path, Config],
) -> None:
    path, config = expert
    assert cannot_be_gone_on_from(path) == ""
    break_checkpoints(path)
    assert "no checkpoint can be used" in cannot_be_gone_on_from(path)
    assert inspect(path, config) == ("sound", "")  # its scores are whole all the same
    break_checkpoints(path, '{"schema_version": 99, "files": {}, "sha256": ""}')
    with pytest.raises(ClrlError, match="schema 99"):  # nothing to be set aside
        cannot_be_gone_on_from(path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="auto is the GPU here")
def test_the_device_that_auto_stands_for_is_no_difference(expert: tuple[Path, Config]) -> None:
    path, config = expert
    assert config.device == "auto"
    for device in ("auto", "cpu", "auto"):
        assert inspect(path, replace(config, device=device)) == ("sound", "")
    assert inspect(path, replace(config, device="cuda"))[1] == (
        'config.yaml: device: "cpu" -> "cuda"'
    )


def test_one_killed_before_its_seal_is_unsealed_if_it_is_whole(expert: tuple[Path, Config]) -> None:
    path, config = expert
    (path / "expert.json").unlink()
    assert inspect(path, config) == ("unsealed", "")
    seal(path, config)
    assert inspect(path, config) == ("sound", "")


@pytest.mark.parametrize("damage", ["half a line", "no record", "one lost", "no end", "no summary"])
def test_one_that_is_done_but_not_whole_is_damaged_and_never_sealed(
    expert: tuple[Path, Config], damage: str
) -> None:
    path, config = expert
    (path / "expert.json").unlink()
    rows = (path / "evaluations.jsonl").read_text().splitlines(keepends=True)
    assert [json.loads(row)["phase"] for row in rows] == ["start", *["during"] * 3, "end"]
    lost = {"half a line": [*rows[:-1], rows[-1][:40]], "no end": rows[:-1]}
    lost["one lost"] = [*rows[:2], *rows[3:]]
    lost["no record"] = [*rows[:2], "?\n", *rows[2:]]
    if damage in lost:
        (path / "evaluations.jsonl").write_text("".join(lost[damage]))
    else:
        (path / "summary.json").write_text("{")
    assert inspect(path, config)[0] == "damaged"
    with pytest.raises(ClrlError, match="done but not whole"):
        seal(path, config)
    assert not (path / "expert.json").exists()


def test_one_evaluated_more_often_than_it_updates_is_whole(
    write_study: Write, tmp_path: Path
) -> None:
    # 40 steps are 4 updates, so 4 evaluations, not 20
    run = load_study(write_study(tmp_path), ["run.evaluation.every=2"]).experts[0]
    path, config = place(tmp_path, run)
    train(config, tmp_path)
    seal(path, config)
    assert inspect(path, config) == ("sound", "")


def test_what_is_set_aside_is_kept_under_another_name(expert: tuple[Path, Config]) -> None:
    path, config = expert
    copies = [set_aside(path)]
    assert inspect(path, config) == ("missing", "")
    shutil.copytree(copies[0], path)
    copies.append(set_aside(path))
    assert [copy.name for copy in copies] == ["seed3.damaged-1", "seed3.damaged-2"]
    assert all((copy / "summary.json").exists() for copy in copies)
