"""The commands: what they print, where, and with which exit code they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import clrl
from clrl import cli
from clrl.listing import names
from clrl.types import ClrlError

CONFIGS = Path(__file__).parents[1] / "configs"
SMOKE = str(CONFIGS / "smoke.yaml")

Result = tuple[int, str, str]
Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `clrl` in this process: (exit code, stdout, stderr)."""

    def _run(*arguments: str) -> Result:
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        captured = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, captured.out, captured.err

    return _run


@pytest.fixture
def fake_train(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace training: what it was called with, and under `raises` what it shall raise."""
    seen: dict[str, Any] = {}

    def train(config: Any, runs: Path) -> Path:
        seen.update(config=config, runs=runs)
        if "raises" in seen:
            raise seen["raises"]
        print("something about the run")
        return runs / config.name / "seed0"

    def resume(run: Path, *, allow_change: bool = False) -> Path:
        seen.update(run=run, allow_change=allow_change)
        return run

    monkeypatch.setattr("clrl.run.train.train", train)
    monkeypatch.setattr("clrl.run.train.resume", resume)
    return seen


# ---------------------------------------------------------------------------------- help, list


def test_help_and_lists_of_names_import_nothing_heavy() -> None:
    program = """
import sys
from clrl.cli import main
for arguments in (["--help"], ["train", "--help"], ["--version"], ["list", "methods"],
                  ["list", "agents"], ["list", "bodies"], ["list", "protocols"],
                  ["list", "games"], []):
    try:
        main(arguments)
    except SystemExit as done:
        assert done.code == 0, arguments
heavy = {"torch", "numpy", "ale_py", "gymnasium", "wandb", "stable_baselines3"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_help_names_every_command(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert run() == (0, out, "")
    for command in ("train", "resume", "transfer", "eval", "fetch", "list", "doctor"):
        assert f" {command} " in out


def test_the_version_is_the_packages(run: Run) -> None:
    assert run("--version") == (0, f"clrl {clrl.__version__}\n", "")


@pytest.mark.parametrize("kind", list(cli.Kind))
def test_every_kind_lists_names_with_one_line_descriptions(run: Run, kind: cli.Kind) -> None:
    code, out, err = run("list", kind.value)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == len(names(kind.value)) >= 2
    for line in lines:
        name, _, description = line.partition(" ")
        assert name and len(description.strip()) > 4


def test_the_list_of_games_is_that_of_the_emulator() -> None:
    from clrl.envs.games import games

    assert [name for name, _ in names("games")] == games()


@pytest.mark.atari
@pytest.mark.parametrize("game", ["Freeway", "SpaceInvaders", "Seaquest", "TicTacToe3D"])
def test_the_listed_number_of_actions_is_the_emulators(game: str) -> None:
    from clrl.envs.games import minimal_actions

    assert dict(names("games"))[game] == f"{len(minimal_actions(game))} actions"


# --------------------------------------------------------------------------------------- train


def test_the_last_line_of_training_is_the_run_folder(
    run: Run, fake_train: dict[str, Any], tmp_path: Path
) -> None:
    code, out, err = run("train", SMOKE, "agent.n_envs=4", "name=x", "--runs", str(tmp_path))
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == str(tmp_path / "x" / "seed0")
    assert fake_train["config"].agent.n_envs == 4
    assert fake_train["runs"] == tmp_path


def test_runs_go_into_runs_by_default(run: Run, fake_train: dict[str, Any]) -> None:
    run("train", SMOKE)
    assert fake_train["runs"] == Path("runs")


def test_a_dry_run_prints_the_resolved_configuration_and_makes_nothing(
    run: Run, fake_train: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("train", SMOKE, "seed=3", "--dry-run")
    assert (code, err) == (0, "")
    resolved = yaml.safe_load(out)
    assert (resolved["seed"], resolved["protocol"]["noop_max"]) == (3, 30)
    assert not fake_train and not list(tmp_path.iterdir())


def test_a_dry_run_shows_the_configuration_of_data_that_are_not_here_yet(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLRL_DATA", str(tmp_path / "nothing"))
    code, out, err = run("train", str(CONFIGS / "split_mnist.yaml"), "seed=3", "--dry-run")
    assert yaml.safe_load(out)["seed"] == 3
    assert code == 3 and "clrl fetch mnist" in err
    code, out, err = run("train", SMOKE, "seed=-1", "--dry-run")
    assert (code, out) == (2, "") and "seed is -1" in err


def test_resume_passes_the_folder_on(run: Run, fake_train: dict[str, Any], tmp_path: Path) -> None:
    code, out, _ = run("resume", str(tmp_path))
    assert (code, out) == (0, f"{tmp_path}\n")
    assert (fake_train["run"], fake_train["allow_change"]) == (tmp_path, False)
    run("resume", str(tmp_path), "--allow-change")
    assert fake_train["allow_change"] is True


# ---------------------------------------------------------------------------------------- eval


def test_eval_prints_a_table_or_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def evaluate_run(run: Path, **options: Any) -> list[dict[str, Any]]:
        seen.update(run=run, **options)
        return [{"task": "Freeway", "mean": 20.44}, {"task": "Pong", "mean": -21.0}]

    monkeypatch.setattr("clrl.run.evaluate.evaluate_run", evaluate_run)
    code, out, _ = run("eval", "runs/x/seed0", "--task", "Pong", "--episodes", "3")
    assert code == 0
    assert out == "task     mean\nFreeway  20.4\nPong     -21.0\n"
    assert seen == {"run": Path("runs/x/seed0"), "task": "Pong", "episodes": 3}
    _, out, _ = run("eval", "runs/x/seed0", "--json")
    assert [row["task"] for row in json.loads(out)] == ["Freeway", "Pong"]


# --------------------------------------------------------------------------------------- fetch


def test_fetch_tells_what_it_wrote_and_where(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLRL_DATA", str(tmp_path))
    monkeypatch.setattr("clrl.envs.fetch.fetch", lambda name: [Path("x")] * len(name))
    code, out, err = run("fetch", "MNIST", "cifar-10")
    assert (code, err) == (0, "")
    assert out == f"mnist: 5 files written ({tmp_path})\ncifar10: 7 files written ({tmp_path})\n"
    monkeypatch.setattr("clrl.envs.fetch.fetch", lambda name: [])
    assert run("fetch", "digits")[1].startswith("digits: nothing to do")


def test_fetch_brings_nothing_if_a_name_is_unknown(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought: list[str] = []
    monkeypatch.setattr("clrl.envs.fetch.fetch", lambda name: brought.append(name) or [])
    code, out, err = run("fetch", "mnist", "cifar11")
    assert (code, out, brought) == (3, "", [])
    assert len(err.splitlines()) == 1 and "did you mean 'cifar10'" in err


def test_fetch_without_a_network_is_exit_code_3_and_leaves_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLRL_DATA", str(tmp_path))  # tests refuse to leave this machine
    code, out, err = run("fetch", "mnist")
    assert (code, out) == (3, "")
    assert len(err.splitlines()) == 1 and "clrl fetch mnist" in err
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "configs/smok.yaml"], "no such file"),
        (["train", SMOKE, "agent.learning_rte=1"], "did you mean 'learning_rate'"),
        (["train", SMOKE, "agent.n_envs=many"], "agent.n_envs is 'many': expected a whole number"),
        (["train"], "CONFIG"),
        (["train", SMOKE, "--dry-rnu"], "--dry-rnu"),
        (["train", SMOKE, "--seed", "1"], "as KEY=VALUE: seed=... (see clrl train --help)"),
        (["train", SMOKE, "--lr", "1"], "as KEY=VALUE: lr=... (see clrl train --help)"),
        (["train", SMOKE, "--runs"], "(see clrl train --help)"),
        (["eval", "--episodes"], "(see clrl eval --help)"),
        (["train", SMOKE, "sequence.name=quick3"], "both are given: null for the other, tasks="),
        (["train", SMOKE, "sequence.tasks=null"], "neither is given"),
        (["list", "gmaes"], "'WHAT': 'gmaes' is not one of"),
        (["list", "gmaes"], "(see clrl list --help)"),
        (["methods"], "clrl list methods? (see clrl --help)"),
        (["fetch"], "NAME"),
        (["eval", "x", "--episodes", "0"], "--episodes"),
        (["trian"], "trian"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run: Run, arguments: list[str], told: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1 and err.startswith("clrl: error: ")
    assert told in err


def test_an_unknown_game_is_exit_code_3_and_makes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for options in ([], ["--dry-run"]):
        code, _, err = run("train", SMOKE, "sequence.tasks=[Brekout]", *options)
        assert code == 3
        assert len(err.splitlines()) == 1 and "Breakout" in err
    assert not list(tmp_path.iterdir())


def test_every_problem_of_a_configuration_is_its_own_line(run: Run) -> None:
    code, _, err = run("train", SMOKE, "sede=1", "seed=x")
    assert code == 2
    assert [line.startswith("clrl: error: command line: se") for line in err.splitlines()] == [
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (ClrlError("no ROM", 3), 3, "clrl: error: no ROM\n"),
        (ClrlError("no luck"), 1, "clrl: error: no luck\n"),
        (KeyboardInterrupt(), 130, "clrl: error: interrupted\n"),
        (
            ZeroDivisionError("by nought\nmore"),
            1,
            "clrl: error: ZeroDivisionError: by nought; run again with --debug to see where\n",
        ),
    ],
)
def test_what_goes_wrong_in_a_run_decides_the_exit_code(
    run: Run, fake_train: dict[str, Any], raised: BaseException, code: int, line: str
) -> None:
    fake_train["raises"] = raised
    given, _, err = run("train", SMOKE)
    assert (given, err.strip()) == (code, line.strip())


@pytest.mark.parametrize("asked_by", [75, 130])
def test_a_run_that_was_asked_to_stop_says_how_to_go_on(
    run: Run, fake_train: dict[str, Any], asked_by: int
) -> None:
    from clrl.run.stop import Stopped

    fake_train["raises"] = Stopped(asked_by)
    code, _, err = run("train", SMOKE)
    assert code == asked_by
    assert len(err.splitlines()) == 1 and "clrl resume" in err


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_traceback_comes_only_with_debug(
    run: Run, fake_train: dict[str, Any], place: str
) -> None:
    fake_train["raises"] = ZeroDivisionError("by nought")
    words = ["--debug", "train", SMOKE] if place == "first" else ["train", SMOKE, "--debug"]
    code, _, err = run(*words)
    assert code == 1
    assert "Traceback (most recent call last)" in err and "in train" in err
    _, _, err = run("train", SMOKE)
    assert "Traceback" not in err


@pytest.mark.parametrize("unbuffered", ["", "1"])  # the pipe breaks at the end, or while printing
def test_a_closed_pipe_is_no_error(unbuffered: str) -> None:
    program = "from clrl.cli import main; main(['list', 'games'])"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process.stderr as stderr:
        assert stderr.read() == b""
    process.wait()


# -------------------------------------------------------------------------------------- doctor


def test_doctor_shows_checks_and_remedies_and_exits_3_when_unusable(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clrl.doctor import Check

    checks = [Check("python", "ok", "3.11"), Check("W&B key", "note", "none", "wandb login")]
    monkeypatch.setattr("clrl.doctor.examine", lambda runs: checks)
    code, out, _ = run("doctor")
    assert code == 0
    assert "wandb login" in out and "W&B key" in out
    checks.append(Check("ROMs", "missing", "[none]", "pip install ale-py"))
    code, out, _ = run("doctor")
    assert code == 3
    assert "MISSING" in out and "[none]" in out and "pip install ale-py" in out


@pytest.mark.parametrize(
    ("given", "kept"), [(None, ("PASSIVE", "500")), ("ACTIVE", ("ACTIVE", None))]
)
def test_waiting_threads_soon_sleep_unless_told_otherwise(
    given: str | None, kept: tuple[str, str | None], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that what main sets is undone
        monkeypatch.delenv(name)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    run("--version")
    assert (os.environ["OMP_WAIT_POLICY"], os.environ.get("GOMP_SPINCOUNT")) == kept


# ------------------------------------------------------------------------------------- transfer


@pytest.fixture
def fake_transfer(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace the study: what it was called with, and under `raises` what it shall raise."""
    seen: dict[str, Any] = {}

    def transfer(path: Path, overrides: list[str], **options: Any) -> Path:
        seen.update(options, path=path, overrides=overrides)
        if "raises" in seen:
            raise seen["raises"]
        return options["runs"] / "study"

    monkeypatch.setattr("clrl.study.transfer.transfer", transfer)
    return seen


def test_transfer_is_told_all_and_prints_the_studys_folder(
    run: Run, fake_transfer: dict[str, Any]
) -> None:
    words = ("study.yaml", "seeds=[1]", "--runs", "there", "--jobs", "3")
    assert run("transfer", *words) == (0, "there/study\n", "")
    from clrl.envs.scores import normalise_task

    assert fake_transfer == {
        "path": Path("study.yaml"),
        "overrides": ["seeds=[1]"],
        "runs": Path("there"),
        "jobs": 3,
        "plan_only": False,
        "normalise": normalise_task,
    }
    assert run("transfer", "study.yaml", "--dry-run") == (0, "", "")
    assert fake_transfer["plan_only"] is True
    assert run("transfer", "study.yaml", "--jobs", "0")[0] == 2


@pytest.mark.parametrize("code", [75, 130])
def test_a_stopped_study_says_how_to_go_on(
    run: Run, fake_transfer: dict[str, Any], code: int
) -> None:
    from clrl.run.stop import Stopped

    fake_transfer["raises"] = Stopped(code)
    fake_transfer["raises"].again = "the same command"
    assert run("transfer", "study.yaml") == (
        code,
        "",
        "clrl: error: stopped when asked to, all is saved; go on with: the same command\n",
    )


def test_a_run_that_is_no_study_is_refused_with_code_2(run: Run) -> None:
    code, out, err = run("transfer", SMOKE)
    assert (code, out) == (2, "")
    assert "is the configuration of a run, not of a study: use clrl train" in err
