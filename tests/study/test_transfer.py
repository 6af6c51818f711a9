"""The transfer study from end to end: stopped anywhere and gone on with, it gives the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from clrl.agents.supervised import Supervised
from clrl.envs.scores import normalise_task
from clrl.run import checkpoint
from clrl.run.config import to_yaml
from clrl.run.folder import RunFolder
from clrl.run.records import read_records
from clrl.run.stop import StopSignals
from clrl.run.train import resume
from clrl.study import processes
from clrl.study.plan import load_study
from clrl.study.processes import Job, in_processes
from clrl.study.report import write_report
from clrl.study.transfer import transfer
from clrl.types import ClrlError

Write = Callable[..., Path]
FILES = ("study.json", "study.csv", "study.md")
SMALL = {"sources": ["digits:0+1"], "targets": ["digits:2+3"], "seeds": [0]}


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it and save."""


def one_by_one(
    jobs: Sequence[Job], at_a_time: int, signals: StopSignals, ended: Callable[[Job, str], None]
) -> None:
    """Make the runs in this process."""
    for job in jobs:
        signals.check()
        try:
            processes.make(job)
            ended(job, "")
        except ClrlError as error:
            ended(job, str(error))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make runs in this process, and spare the measurement of how long they take."""
    monkeypatch.setattr("clrl.study.transfer.in_processes", one_by_one)
    monkeypatch.setattr("clrl.study.pace.measure", lambda config: 0.001)
    monkeypatch.setattr("clrl.study.pace.start_up", lambda config: 0.5)


def fail(patch: pytest.MonkeyPatch, title: str) -> None:
    """Have runs whose title begins so break down."""
    make = processes.make

    def failing(job: Job) -> None:
        if job.title.startswith(title):
            raise ClrlError("learning broke down")
        make(job)

    patch.setattr(processes, "make", failing)


@pytest.fixture
def study(write_study: Write, tmp_path: Path) -> Path:
    return write_study(tmp_path, **SMALL)


def go(study: Path, runs: Path, *overrides: str, **options: Any) -> Path:
    return transfer(study, overrides, runs=runs, normalise=normalise_task, **options)


def texts(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def made(runs: Path) -> dict[str, int]:
    """Return when each run was finished, in nanoseconds."""
    return {path.parent.parent.name: path.stat().st_mtime_ns for path in runs.rglob("summary.json")}


@pytest.fixture(scope="module")
def whole(write_study: Write, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Return the files of the study that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clrl.study.transfer.in_processes", one_by_one)
        patch.setattr("clrl.study.pace.measure", lambda config: 0.001)
        patch.setattr("clrl.study.pace.start_up", lambda config: 0.5)
        return texts(go(write_study(folder, **SMALL), folder / "runs"))


@pytest.mark.usefixtures("here")
def test_a_study_is_made_once_and_told_the_same_again(
    study: Path, runs: Path, whole: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = go(study, runs)
    assert folder == runs / "toy"
    first, when = texts(folder), made(runs)
    assert len(when) == 4  # an expert for the target and one for the source, and two methods
    assert first == whole  # in another folder
    told = capsys.readouterr().err
    assert "2 runs and 2 experts remain" in told
    assert "PNN's transfer score" in told
    for name in FILES:
        (folder / name).unlink()
    assert texts(go(study, runs)) == first
    assert made(runs) == when
    assert "all of them are done" in capsys.readouterr().err
    result = json.loads(first[0])
    assert [run["method"] for run in result["runs"]] == ["finetune", "weak"]
    assert {"runs", "experts", "matrix", "summary", "warnings"} <= set(result)


@pytest.mark.usefixtures("here")
def test_killed_in_two_places_and_resumed_it_gives_the_same(
    study: Path, runs: Path, whole: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    # of 4 updates a visit: in the middle of the first expert; then, with the second expert made,
    # in the first run's second visit, as its first one is that expert's
    original = Supervised.update
    for updates in (2, 2 + 4 + 1):
        left = iter(range(updates))

        def dying(learner: Supervised, left: Any = left) -> dict[str, float]:
            if next(left, None) is None:
                raise Killed
            return original(learner)

        monkeypatch.setattr(Supervised, "update", dying)
        with pytest.raises(Killed):
            go(study, runs, "run.checkpoint.every=7")
    monkeypatch.setattr(Supervised, "update", original)
    resumed = checkpoint.load_latest(next(runs.glob("toy/runs/finetune*/seed0/checkpoints")))
    assert resumed is not None
    assert resumed.step == 50
    assert texts(go(study, runs)) == whole


@pytest.mark.usefixtures("here")
def test_a_study_that_grows_makes_only_what_is_new(study: Path, runs: Path) -> None:
    go(study, runs)
    when = made(runs)
    folder = go(study, runs, "seeds=[0,1]")
    assert len(list((folder / "runs").glob("*/seed1"))) == 2
    assert all(made(runs)[name] >= when[name] for name in when)
    assert [r["seed"] for r in json.loads((folder / "study.json").read_text())["runs"]] == [
        0,
        0,
        1,
        1,
    ]


@pytest.mark.usefixtures("here")
def test_a_grown_study_that_fails_leaves_no_result_of_the_smaller_one(
    study: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = go(study, runs)
    assert all((folder / name).exists() for name in FILES)
    fail(monkeypatch, "weak")
    with pytest.raises(ClrlError, match="1 of the study's runs failed"):
        go(study, runs, "seeds=[0,1]")
    assert "seeds: [0, 1]" in (folder / "study.yaml").read_text()
    assert not any((folder / name).exists() for name in FILES)
    with pytest.raises(ClrlError, match="the study is not finished"):
        write_report([folder], normalise=normalise_task)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("run.sequence.steps=50", "sequence.steps: 40 -> 50"),
        ("run.agent.learning_rate=0.5", "agent.learning_rate: 0.001 -> 0.5"),
        ("run.net.hidden=[9]", "net.hidden: [8] -> [9]"),
        ("run.protocol.sticky=0.25", "protocol.sticky: 0.0 -> 0.25"),
        ("methods.weak.strength=9", "method.strength: 0.5 -> 9.0"),
    ],
)
def test_runs_made_on_other_terms_are_refused_by_the_difference(
    study: Path, runs: Path, whole: list[bytes], change: str, told: str
) -> None:
    folder = runs / "toy" / "runs"
    for name in ("finetune-digits_0_1-digits_2_3", "weak-digits_0_1-digits_2_3"):
        _plant(study, folder, name)
    with pytest.raises(ClrlError, match="was made on other terms") as caught:
        go(study, runs, change)
    assert told in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (runs / "toy" / "study.json").exists()


@pytest.mark.usefixtures("here")
def test_runs_of_several_versions_are_said(study: Path, runs: Path) -> None:
    folder = go(study, runs)
    assert not any(
        "versions" in w for w in json.loads((folder / "study.json").read_text())["warnings"]
    )
    (path,) = folder.glob("runs/weak*/seed0/environment.json")
    path.write_text(path.read_text().replace('"torch": "', '"torch": "0.'))
    go(study, runs)
    result = json.loads((folder / "study.json").read_text())
    assert any("runs were made with several versions of torch: 0." in w for w in result["warnings"])


@pytest.mark.usefixtures("here")
def test_runs_of_several_commits_are_said(study: Path, runs: Path) -> None:
    folder = go(study, runs)

    def warned(*commits: str) -> list[str]:
        paths = sorted(runs.rglob("environment.json"))
        for path, commit in zip(paths, [*commits] * len(paths), strict=False):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": commit}))
        go(study, runs)
        warnings = json.loads((folder / "study.json").read_text())["warnings"]
        return [warning for warning in warnings if "commit" in warning]

    assert warned("abc") == []
    assert warned("abc", "def-dirty") == [
        "runs were made at several commits: abc, def-dirty",
        "runs were made with changes that were not committed: def-dirty",
    ]


@pytest.mark.usefixtures("here")
def test_a_finished_run_whose_evaluations_are_gone_is_named(study: Path, runs: Path) -> None:
    folder = go(study, runs)
    (path,) = folder.glob("runs/weak*/seed0/evaluations.jsonl")
    path.unlink()
    with pytest.raises(ClrlError, match=r"toy/runs/weak.*/seed0: no evaluation after visit 1"):
        go(study, runs)


def _plant(study: Path, folder: Path, name: str) -> None:
    """Leave the configuration of a run where the study looks for it."""
    (run,) = [r for r in load_study(study).runs if r.config.name.startswith(name)]
    path = folder / run.config.name / "seed0"
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(to_yaml(run.config))


@pytest.mark.usefixtures("here")
def test_a_damaged_expert_is_set_aside_and_made_anew(
    study: Path, runs: Path, whole: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    go(study, runs)
    (expert,) = (runs / "experts").glob("digits_2_3-*/seed0")
    text = (expert / "evaluations.jsonl").read_text()
    (expert / "evaluations.jsonl").write_text(text.replace('"accuracy": ', '"accuracy": 1', 1))
    assert texts(go(study, runs)) == whole
    assert "damaged (evaluations.jsonl is not what was sealed)" in capsys.readouterr().err
    assert (expert.parent / "seed0.damaged-1").is_dir()


@pytest.mark.usefixtures("here")
def test_an_expert_is_shared_by_studies(study: Path, runs: Path) -> None:
    go(study, runs)
    before = made(runs / "experts")
    go(study, runs, "name=other", "methods={weak: {name: ewc, strength: 3}}")
    assert made(runs / "experts") == before


@pytest.mark.usefixtures("here")
def test_a_half_written_line_is_skipped_and_counted(study: Path, runs: Path) -> None:
    folder = go(study, runs)
    (path,) = folder.glob("runs/finetune*/seed0/evaluations.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    go(study, runs)
    result = json.loads((folder / "study.json").read_text())
    assert [run["skipped_lines"] for run in result["runs"]] == [1, 0]
    assert sum("was skipped" in warning for warning in result["warnings"]) == 1
    (target,) = result["experts"].values()
    assert target["areas_within"] == [[0, 30]]  # up to the evaluation that was lost
    page, *_ = write_report([folder], normalise=lambda task, score: None)
    assert page.read_text().count("skipped") == 1


@pytest.mark.usefixtures("here")
def test_a_report_of_other_numbers_does_not_stay(study: Path, runs: Path) -> None:
    folder = go(study, runs)
    page, *_ = write_report([folder], normalise=lambda task, score: None)
    assert page.exists()
    go(study, runs, "criterion=0.25")
    assert not list(folder.glob("report.*"))


@pytest.mark.usefixtures("here")
def test_evaluations_that_are_lost_are_told(study: Path, runs: Path) -> None:
    folder = go(study, runs)
    (path,) = folder.glob("runs/finetune*/seed0/evaluations.jsonl")
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*rows[:2], *rows[3:]]))
    told = "seed0: evaluations.jsonl lacks 1 of the records that were written"
    page, *_ = write_report([folder], normalise=lambda task, score: None)  # study.json is of before
    assert page.read_text().count(told) == 1
    go(study, runs)
    result = json.loads((folder / "study.json").read_text())
    assert sum(told in warning for warning in result["warnings"]) == 1
    page, *_ = write_report([folder], normalise=lambda task, score: None)
    assert page.read_text().count(told) == 1


@pytest.mark.usefixtures("here")
def test_a_done_run_without_a_summary_gets_one(study: Path, runs: Path) -> None:
    folder = go(study, runs)
    (path,) = folder.glob("runs/finetune*/seed0/summary.json")
    before, result = json.loads(path.read_bytes()), (folder / "study.json").read_bytes()
    path.unlink()
    assert go(study, runs) == folder
    again = json.loads(path.read_bytes())
    for summary in (again, before):  # but for time and memory
        summary["cost"] = {k: v for k, v in summary["cost"].items() if k in ("steps", "parameters")}
    assert again == before
    assert (folder / "study.json").read_bytes() == result


@pytest.mark.usefixtures("here")
def test_a_done_run_without_summary_and_checkpoints_loses_nothing(study: Path, runs: Path) -> None:
    (path,) = go(study, runs).glob("runs/finetune*/seed0")
    (path / "summary.json").unlink()
    shutil.rmtree(path / "checkpoints")
    rows = (path / "evaluations.jsonl").read_bytes()
    with pytest.raises(ClrlError, match=r"is done, but has no summary\.json, nor a checkpoint"):
        resume(path)
    assert (path / "evaluations.jsonl").read_bytes() == rows


@pytest.mark.usefixtures("here")
def test_a_run_that_fails_stops_no_other_and_is_named(
    study: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(monkeypatch, "finetune")
    with pytest.raises(ClrlError, match="1 of the study's runs failed") as caught:
        go(study, runs)
    assert "finetune digits:0+1 > digits:2+3 seed 0: learning broke down" in str(caught.value)
    assert "FAILED" in capsys.readouterr().err
    assert len(made(runs)) == 3
    assert not (runs / "toy" / "study.json").exists()


@pytest.mark.usefixtures("here")
def test_runs_go_on_from_the_expert_of_their_source(study: Path, runs: Path) -> None:
    folder = go(study, runs)
    (expert,) = runs.glob("experts/digits_0_1-*/seed0")
    at = ("end", 1, "digits:0+1")

    def scores(run: Path) -> list[float]:
        rows, _ = read_records(run / "evaluations.jsonl")
        return [
            row["accuracy"]
            for row in rows
            if (row["phase"], row["visit"], row["task_evaluated"]) == at
        ]

    own = [scores(run) for run in runs.glob("toy/runs/*/seed0")]
    assert own == [scores(expert)] * 2
    assert len(own[0]) == 1
    result = json.loads((folder / "study.json").read_text())
    assert list(result["experts"]) == ["digits:2+3"]  # the source's is none of a target


@pytest.mark.usefixtures("here")
def test_an_expert_whose_checkpoints_are_gone_is_made_anew_where_runs_need_it(
    study: Path, runs: Path, whole: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    go(study, runs)
    (expert,) = runs.glob("experts/digits_0_1-*/seed0")
    shutil.rmtree(expert / "checkpoints")
    assert texts(go(study, runs)) == whole  # nothing is to be made: nobody needs them
    assert "damaged" not in capsys.readouterr().err
    shutil.rmtree(next(runs.glob("toy/runs/finetune*/seed0")))
    assert texts(go(study, runs)) == whole
    assert "damaged (its checkpoints are gone)" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("status", ["done", "preempted"])
def test_an_expert_whose_checkpoints_are_broken_is_made_anew(
    study: Path, runs: Path, whole: list[bytes], status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    go(study, runs)
    (expert,) = runs.glob("experts/digits_0_1-*/seed0")
    for path in expert.glob("checkpoints/*/manifest.json"):
        path.write_text("{")
    if status == "preempted":
        (expert / "expert.json").unlink()
        (expert / "STATUS").write_text(status)
    shutil.rmtree(next(runs.glob("toy/runs/finetune*/seed0")))  # which needs it
    assert texts(go(study, runs)) == whole
    assert "damaged (no checkpoint can be used: " in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="auto is the GPU here")
@pytest.mark.usefixtures("here")
def test_the_device_that_auto_stands_for_makes_nothing_anew(study: Path, runs: Path) -> None:
    go(study, runs)
    when = made(runs)
    for device in ("cpu", "auto"):
        go(study, runs, f"run.device={device}")
        assert made(runs) == when


@pytest.mark.usefixtures("here")
def test_runs_that_took_their_source_over_are_none_of_a_study_without_sharing(
    study: Path, runs: Path
) -> None:
    go(study, runs)
    with pytest.raises(ClrlError, match=r"made on other terms: sequence.pretrained"):
        go(study, runs, "share_sources=false")


@pytest.mark.usefixtures("here")
def test_without_sharing_every_run_learns_its_source(study: Path, runs: Path) -> None:
    go(study, runs, "share_sources=false")
    assert len(made(runs)) == 3
    configs = [path.read_text() for path in runs.glob("toy/runs/*/seed0/config.yaml")]
    assert len(configs) == 2
    assert not any("pretrained" in text for text in configs)


@pytest.mark.usefixtures("here")
def test_runs_whose_sources_expert_failed_are_left_out_and_no_others(
    write_study: Write, tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path, **SMALL | {"sources": ["digits:0+1", "digits:4+5"]})
    with monkeypatch.context() as patch:
        fail(patch, "expert digits:4+5")
        with pytest.raises(ClrlError, match="3 of the study's runs failed") as caught:
            go(study, runs)
    assert str(caught.value).count("left out, as the expert it goes on from failed") == 2
    assert len(made(runs)) == 2 + 2
    assert not any("4_5" in name for name in made(runs))
    go(study, runs)
    assert len(made(runs)) == 3 + 4


@pytest.mark.usefixtures("here")
def test_a_study_that_goes_on_elsewhere_is_refused(study: Path, runs: Path) -> None:
    go(study, runs)
    lock = "from clrl.run.folder import RunFolder; from pathlib import Path; import sys\n"
    lock += "with RunFolder(Path(sys.argv[1])).lock(): print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", lock, str(runs / "toy")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ClrlError, match="is in use by process"):
            go(study, runs)
        holder.communicate("\n")


@pytest.mark.usefixtures("here")
def test_a_dry_run_makes_nothing(
    study: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go(study, runs, plan_only=True, jobs=2)
    assert not list(runs.iterdir())
    # 40 steps of each at 1 ms, as runs go on from an expert; 0.5 s to start each, two at a time
    told = capsys.readouterr().err
    assert "2 runs and 2 experts remain: about 1 s with --jobs 2" in told
    expected = ["expert digits:2+3", "expert digits:0+1", "finetune digits:0+1 > digits:2+3"]
    expected += ["weak digits:0+1 > digits:2+3"]
    assert told.splitlines()[2:] == [f"  {run} seed 0" for run in expected]


@pytest.mark.usefixtures("here")
def test_a_dry_run_names_forty_and_counts_the_rest(
    study: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go(study, runs, f"seeds={list(range(15))}", plan_only=True)
    told = capsys.readouterr().err.splitlines()[2:]
    assert len(told) == 41
    assert told[-1] == "  and 20 more"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("threads", "hint"), [(None, "--jobs 8"), (0, ""), (2, "--jobs 4"), (8, "")]
)
def test_the_hint_about_jobs_fits_the_threads_of_a_run(
    study: Path,
    runs: Path,
    threads: int | None,
    hint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)  # what 0 stands for
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)
    go(study, runs, *([] if threads is None else [f"run.threads={threads}"]), plan_only=True)
    told = capsys.readouterr().err
    assert (f"; {hint} would use every core" in told) if hint else ("every core" not in told)


@pytest.mark.usefixtures("here")
def test_what_an_answer_takes_is_read_of_the_visit_to_the_target(study: Path, runs: Path) -> None:
    folder = go(study, runs, "methods={progressive: {}}")
    (told,) = [
        warning
        for warning in json.loads((folder / "study.json").read_text())["warnings"]
        if "multiply-adds" in warning
    ]
    (summary,) = (runs / "toy" / "runs").glob("*/seed0/summary.json")
    first, second = json.loads(summary.read_text())["cost"]["visits"]
    times = second["multiply_adds"] / first["multiply_adds"]
    assert told.startswith(f"progressive: an answer takes {times:.1f} times the expert's")
    assert times > 1.5


def test_what_a_run_would_refuse_is_refused_before_anything_is_made(
    write_study: Write, shared_settings: dict[str, Any], tmp_path: Path, runs: Path
) -> None:
    pictures = write_study(tmp_path, run=shared_settings | {"net": {"body": "nature"}})
    with pytest.raises(ClrlError, match="layer 2 of the body"):
        go(pictures, runs)
    assert not list(runs.iterdir())


def test_a_folder_that_is_a_run_is_no_study(study: Path, runs: Path) -> None:
    (runs / "toy" / "seed0").mkdir(parents=True)
    with pytest.raises(ClrlError, match="holds a run"):
        go(study, runs)


# ------------------------------------------------------------------------------ real processes


def command(study: Path, runs: Path) -> subprocess.Popen[str]:
    arguments = ["-m", "clrl", "transfer", str(study), "--runs", str(runs), "--jobs", "2"]
    return subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(found: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not found():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_study_takes_its_processes_with_it_and_goes_on_to_the_same(
    study: Path, runs: Path, whole: list[bytes]
) -> None:
    with command(study, runs) as killed:
        wait_for(lambda: any(runs.glob("toy/runs/*/seed0/evaluations.jsonl")))
        killed.kill()
    with command(study, runs) as last:
        out, told = last.communicate()
    assert (last.returncode, out) == (0, f"{runs / 'toy'}\n"), told
    assert texts(runs / "toy") == whole
    assert {path.read_text() for path in runs.rglob("STATUS")} == {"done\n"}


ONE_LONG_RUN = """
import sys
from pathlib import Path
from clrl.run.stop import Stopped, StopSignals
from clrl.study.plan import load_study
from clrl.study.processes import Job, in_processes
from clrl.study.report import write_report

run = load_study(sys.argv[1], ["run.sequence.steps=1000000"]).runs[0]
folder = Path(sys.argv[2])
job = Job(str(run), folder / run.config.name / "seed0", run.config, folder / "log")
try:
    with StopSignals() as signals:
        in_processes([job], 1, signals, lambda job, problem: sys.exit(problem))
except Stopped as stop:
    sys.exit(stop.exit_code)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["asked", "killed"])
def test_runs_end_with_their_study_and_all_is_saved(study: Path, runs: Path, ending: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ONE_LONG_RUN, str(study), str(runs)], start_new_session=True
    ) as process:
        wait_for(lambda: any(path.stat().st_size for path in runs.glob("*/*/evaluations.jsonl")))
        started = psutil.Process(process.pid).children(recursive=True)
        if ending == "asked":  # as by a scheduler: everyone is
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.kill()
    assert process.returncode == (75 if ending == "asked" else -signal.SIGKILL)
    (path,) = runs.glob("*/seed0")
    if ending == "killed":
        wait_for(lambda: (path / "STATUS").read_text() != "running\n")
        gone, alive = psutil.wait_procs(started, timeout=60)
        assert len(gone) >= 2
        assert not alive
    assert (path / "STATUS").read_text() == "preempted\n"
    assert checkpoint.load_latest(path / "checkpoints") is not None


def test_what_a_run_says_when_it_fails_is_passed_on(study: Path, runs: Path) -> None:
    (runs / "log").write_text("clrl: error: of an earlier attempt\n")
    run = load_study(study).runs[0]
    path = runs / run.config.name / "seed0"
    path.mkdir(parents=True)
    (path / "something").write_text("of somebody's")
    problems = []
    with StopSignals() as signals:
        in_processes(
            [Job(str(run), path, run.config, runs / "log")],
            2,
            signals,
            lambda job, problem: problems.append(problem),
        )
    assert len(problems) == 1
    assert "is not empty (it holds 'something')" in problems[0]


def test_an_error_of_an_earlier_attempt_is_not_that_of_this_one(
    study: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "work", _die)
    log = runs / "log"
    log.write_text("clrl: error: of an earlier attempt\n")
    run = load_study(study).runs[0]
    problems = []
    with StopSignals() as signals:
        in_processes(
            [Job(str(run), runs / run.config.name / "seed0", run.config, log)],
            1,
            signals,
            lambda job, problem: problems.append(problem),
        )
    assert problems == [f"exit code 7, see {log}"]


def _die(job: Job) -> None:
    os._exit(7)


HOLD = """
import sys
from pathlib import Path
from clrl.run.folder import RunFolder

with RunFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    input()
"""


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold a run as a process of another study does, until it is told to end."""
    path.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        at_the_latest = threading.Timer(20, holder.kill)
        at_the_latest.start()
        yield holder
        at_the_latest.cancel()
        if holder.poll() is None:
            holder.communicate("\n")


def test_a_run_that_another_study_is_at_comes_last_and_is_waited_for_with_one_notice(
    study: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processes, "POLL", 0.05)
    planned = load_study(study).runs
    jobs = [
        Job(str(run), runs / run.config.name / "seed0", run.config, runs / "logs" / run.method)
        for run in planned
    ]
    order = []
    with held(jobs[0].path) as holder, StopSignals() as signals:

        def ended(job: Job, problem: str) -> None:
            order.append((job.title, problem))
            threading.Timer(0.5, holder.kill).start()  # ten looks later

        in_processes(jobs, 1, signals, ended)
    assert order == [(str(planned[1]), ""), (str(planned[0]), "")]
    (notice,) = [r.getMessage() for r in caplog.records if "waits" in r.getMessage()]
    assert notice.startswith(f"{planned[0]} waits: {jobs[0].path} is in use by process")


def test_a_process_waits_for_a_run_as_long_as_another_lives(
    study: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 0.0)
    run = load_study(study).experts[0]
    job = Job(str(run), runs / run.config.name / "seed0", run.config, runs / "log")
    slept = []
    with held(job.path) as holder:

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 5:
                holder.kill()
                holder.wait()

        clock = SimpleNamespace(sleep=sleep, monotonic=time.monotonic)  # trackers sleep as well
        monkeypatch.setattr(processes, "time", clock)
        processes.make(job)
    assert len(slept) == 5
    assert (job.path / "STATUS").read_text() == "done\n"


def test_a_process_is_not_put_off_by_another_that_only_looks(
    study: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look takes the lock for a moment: just when the run begins, and no longer."""
    run = load_study(study).experts[0]
    job = Job(str(run), runs / run.config.name / "seed0", run.config, runs / "log")
    train, tried = processes.train, []

    def watched(*given: Any) -> Path:
        tried.append(given)
        if len(tried) > 1:
            return train(*given)
        job.path.mkdir(parents=True)
        with RunFolder(job.path).lock():  # as another process: locks are of open files
            return train(*given)

    monkeypatch.setattr(processes, "train", watched)
    processes.make(job)
    assert len(tried) == 2
    assert (job.path / "STATUS").read_text() == "done\n"
