"""Every configuration that ships loads, is named as its file, and says what it is for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clrl.envs.sequences import SEQUENCES
from clrl.method import Method
from clrl.methods.frozen import Frozen
from clrl.methods.pathnet import PathNetMethod
from clrl.methods.progressive import Progressive
from clrl.run.config import load_config, to_dict, to_yaml
from clrl.run.train import sequence_of
from clrl.run.yaml_safe import dump
from clrl.study.plan import load_study

METHODS = ("finetune", "frozen", "l2", "ewc", "spp", "progressive")
ALL = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
STUDIES = [path for path in ALL if path.stem.startswith("transfer_")]
FILES = [path for path in ALL if path not in STUDIES]
ALONE = ("parity_", "precision_", "pair_baseline1", "pair_baseline4")  # of one task


def test_configurations_ship() -> None:
    assert {"smoke", "demo", "quick3_finetune", "quick3_frozen", "quick3_ewc"} <= {
        path.stem for path in FILES
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_configuration_loads_and_makes_its_tasks(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    assert path.read_text().startswith(f"# configs/{path.name}: ")
    sequence = sequence_of(config)
    assert len(sequence.visits) >= (1 if path.stem.startswith(ALONE) else 2)
    resolved = tmp_path / path.name
    resolved.write_text(to_yaml(config))
    assert load_config(resolved) == config


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_loads_and_has_runs(path: Path, tmp_path: Path) -> None:
    study = load_study(path)
    assert study.config.name == path.stem
    assert path.read_text().startswith(f"# configs/{path.name}: ")
    assert len(study.config.methods) >= 2
    resolved = tmp_path / path.name
    resolved.write_text(dump(study.to_dict()))
    assert load_study(resolved) == study


def test_the_study_of_quick3_is_of_its_games_and_runs() -> None:
    study = load_study(ALL[0].parent / "transfer_quick3.yaml")
    one = to_dict(load_config(ALL[0].parent / "quick3_finetune.yaml"))
    assert set(study.sources) == set(study.targets) == set(SEQUENCES["quick3"].entries(None))
    run = to_dict(study.config.run)
    for key in ("net", "protocol", "precision"):
        assert run[key] == one[key]
    # half the environments, for as many samples an update; steps too few for a schedule
    assert run["agent"]["n_envs"] * run["agent"]["n_steps"] == 16 * 64
    other = ("n_envs", "n_steps", "learning_rate_schedule")
    assert run["agent"] | {key: one["agent"][key] for key in other} == one["agent"]
    assert len(study.runs) == 6 * len(study.config.methods) * len(study.config.seeds)


def test_the_quick3_configurations_differ_in_the_method_alone() -> None:
    texts = []
    for method in METHODS:
        config = load_config(Path(FILES[0]).parent / f"quick3_{method}.yaml")
        lines = to_yaml(config).splitlines()
        start = lines.index("method:")
        end = lines.index("net:")
        texts.append([line for line in lines[:start] + lines[end:] if not line.startswith("name:")])
    assert all(text == texts[0] for text in texts)


def test_the_arms_of_a_pair_differ_in_the_method_and_the_source_alone() -> None:
    small = {"modules": 3, "active": 1, "population": 8, "tournament": 1}
    paths = PathNetMethod(**small, keep_frozen_active=False, edges="wrap")
    arms: dict[str, tuple[int, Method]] = {  # tasks, and what learns them
        "baseline1": (1, Method()),
        "baseline2": (2, Frozen()),
        "baseline3": (2, Method()),
        "baseline4": (1, Progressive(random_first=True)),
        "progressive": (2, Progressive()),
        "pathnet": (2, paths),
    }
    found = []
    for arm, (n_tasks, method) in arms.items():
        config = load_config(Path(FILES[0]).parent / f"pair_{arm}.yaml")
        assert config.sequence.tasks is not None
        assert config.sequence.tasks[-1] == "Freeway-vflip"
        assert len(config.sequence.tasks) == n_tasks
        assert (type(config.method), config.method) == (type(method), method)
        target = replace(config.sequence, tasks=config.sequence.tasks[-1:])
        found.append(replace(config, name="pair", sequence=target, method=Method()))
    assert all(config == found[0] for config in found)


def test_the_action_set_configurations_have_3_6_and_18_actions() -> None:
    for heads, outputs in (("per_task", [3, 6, 18]), ("shared", [18, 18, 18])):
        config = load_config(FILES[0].parent / f"three_action_sets_{heads}.yaml")
        tasks = sequence_of(config).tasks
        assert [task.n_outputs for task in tasks] == outputs
        if heads == "shared":
            legal = [18 if task.legal is None else len(task.legal) for task in tasks]
            assert legal == [3, 6, 18]
