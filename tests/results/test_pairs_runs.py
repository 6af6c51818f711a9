"""What runs a comparison of two games is made of; the runs themselves are other tests'."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from clrl.run.config import Config, to_dict, to_yaml
from clrl.types import ClrlError


@pytest.fixture(scope="module")
def script(load_script) -> ModuleType:
    return load_script("pairs/make_runs.py")


@pytest.fixture
def made(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the script, given arguments, would make: by folder, in order, stage by stage."""

    def made(*arguments: str) -> list[dict[str, Config]]:
        stages: list[dict[str, Config]] = []

        def pretend(jobs, at_a_time, signals, ended):
            stages.append({str(job.path.relative_to(tmp_path)): job.config for job in jobs})
            for job in jobs:
                job.path.mkdir(parents=True)
                (job.path / "config.yaml").write_text(to_yaml(job.config))
                (job.path / "summary.json").write_text("{}")
                ended(job, "")

        monkeypatch.setattr(script, "in_processes", pretend)
        monkeypatch.setattr(sys, "argv", ["make_runs.py", str(tmp_path), *arguments])
        script.main()
        return stages

    return made


def test_sources_come_first_and_pairs_that_begin_alike_share_them(made, tmp_path):
    sources, arms = made("precision=bf16", "--pairs", "p2,p3", "--seeds", "0,3")
    assert list(sources) == ["p2_source/seed0", "p2_source/seed3"]
    assert {config.sequence.tasks for config in sources.values()} == {("CrazyClimber",)}
    assert len(arms) == 2 * 2 * 10
    for path, config in arms.items():
        arm, seed = path.partition("_")[2].split("/seed")
        assert config.seed == int(seed)
        shared = str(tmp_path / "p2_source") if arm in ("b2", "b3", "pnn") else None
        assert config.sequence.pretrained == shared
        target = "KungFuMaster" if path.startswith("p3") else "CrazyClimber-vflip"
        alone = arm in ("b1", "b4", "pathnet_alone", "small_alone")
        assert config.sequence.tasks == ((target,) if alone else ("CrazyClimber", target))
    for config in (*sources.values(), *arms.values()):
        assert (config.precision, config.sequence.steps) == ("bf16", 90_000)
        assert config.evaluation.every == 18_000  # five times
    paths = {arm: to_dict(arms[f"p2_{arm}/seed0"]) for arm in ("pathnet", "stays", "small")}
    assert [one["method"]["population"] for one in paths.values()] == [8, 1, 8]
    assert [one["net"]["body"] for one in paths.values()] == ["a3c", "a3c", "pathnet_atari"]
    small = paths["small"]["method"]
    assert (small["modules"], small["active"], small["keep_frozen_active"]) == (10, 4, True)


def test_what_is_made_is_what_the_table_takes(made, load_script):
    table, taken = load_script("pairs/table.py"), load_script("pairs/pair_runs.py")
    _, arms = made("--pairs", "p1", "--seeds", "0")
    assert [path.split("/")[0] for path in arms] == [f"p1_{arm}" for arm in table.ARMS]
    agreed: dict[Any, Any] = {}
    for path, config in arms.items():
        arm = path.split("/")[0].removeprefix("p1_")
        method = to_dict(config)["method"]
        wanted = table.ARMS[arm].method
        assert {key: method[key] for key in wanted} == wanted
        for place, value in taken.settings_of(to_dict(config), arm).items():
            assert agreed.setdefault(place, value) == value, (arm, place)
    assert agreed["sequence.steps", "all"] == 150_000


def test_no_change_makes_an_arm_another(made):
    changes = ("net.body=nature", "method.population=1", "method.modules=5")
    _, arms = made(*changes, "--pairs", "p1", "--seeds", "0", "--arms", "pathnet,stays,small")
    found = [to_dict(config) for config in arms.values()]
    assert [one["net"]["body"] for one in found] == ["nature", "nature", "pathnet_atari"]
    assert [one["method"]["modules"] for one in found] == [3, 3, 10]
    assert [one["method"]["population"] for one in found] == [8, 1, 8]


def test_nothing_goes_on_from_a_source_that_failed(script, tmp_path, monkeypatch):
    queued = []

    def fail(jobs, at_a_time, signals, ended):
        queued.append([job.title for job in jobs])
        for job in jobs:
            ended(job, "it broke")

    monkeypatch.setattr(script, "in_processes", fail)
    words = ["make_runs.py", str(tmp_path / "runs"), "--pairs", "p1", "--arms", "b1,b3"]
    monkeypatch.setattr(sys, "argv", [*words, "--seeds", "0,0"])
    with pytest.raises(ClrlError, match=r"failed: p1_source, seed 0; see .*\.log"):
        script.main()
    assert queued == [["p1_source, seed 0"]]
    monkeypatch.setattr(sys, "argv", [*words, "--arms", "b1,b1", "--seeds", "0,0"])
    with pytest.raises(ClrlError, match="failed: p1_b1, seed 0"):
        script.main()
    assert queued[1:] == [[], ["p1_b1, seed 0"]]
    monkeypatch.setattr(sys, "argv", ["make_runs.py", str(tmp_path / "other"), "nothing=1"])
    with pytest.raises(ClrlError, match="nothing"):
        script.main()
    assert not (tmp_path / "other").exists()


def test_what_is_done_is_not_made_again_and_other_settings_are_refused(made):
    made("--pairs", "p1", "--arms", "b1,pnn", "--seeds", "0")
    sources, arms = made("--pairs", "p1", "--arms", "b1,b3,pnn", "--seeds", "0,1")
    assert list(sources) == ["p1_source/seed1"]
    assert list(arms) == ["p1_b3/seed0", "p1_b1/seed1", "p1_b3/seed1", "p1_pnn/seed1"]
    with pytest.raises(ClrlError, match=r"p1_b1/seed0 was made otherwise .*precision.*: delete it"):
        made("precision=bf16", "--pairs", "p1", "--arms", "b1", "--seeds", "0")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--arms", "b9"), "'b9': expected one of b1, b2"),
        (("--pairs", "p9"), "'p9': expected one of p1, p2, p3"),
        (("--jobs", "0"), "--jobs is 0: expected 1 or more"),
        (("--seeds", "0,a"), "--seeds is '0,a': expected numbers"),
    ],
)
def test_what_cannot_be_made_is_named(made, capsys, arguments, told):
    with pytest.raises(SystemExit) as caught:
        made(*arguments)
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


def test_what_is_refused_is_refused_before_a_source_is_learned(made, tmp_path):
    made("--pairs", "p1", "--arms", "b1", "--seeds", "0")
    with pytest.raises(ClrlError, match="p1_b1/seed0 was made otherwise"):
        made("precision=bf16", "--pairs", "p1", "--arms", "b1,pnn", "--seeds", "0")
    assert not (tmp_path / "p1_source").exists()
