"""The comparison of methods on pictures, on bundled digits; what these scripts say to bad input."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

CONFIGS = Path(__file__).parents[2] / "configs"
DIGITS = str(CONFIGS / "split_digits.yaml")
SHORT = ("sequence.steps=5", "evaluation.every=0", "device=cpu", "threads=1")


@pytest.fixture(scope="module")
def sweep(load_script) -> ModuleType:
    return load_script("images/sweep.py")


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [script.__file__, *map(str, arguments)])
    script.main()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_digits_from_trials_to_the_table(sweep, tmp_path, monkeypatch):
    options = ("--methods", "finetune,ewc,joint", "--seeds", "0,1,2")
    options += ("--rates", "0.001", "ewc=0.001,0.01", "--strengths", "ewc=1,10")
    out = tmp_path / "out"
    run(sweep, monkeypatch, DIGITS, tmp_path / "runs", out, *SHORT, *options)
    trials, results = rows_of(out / "trials.csv"), rows_of(out / "results.csv")
    tried = [(t["method"], float(t["strength"]), float(t["learning_rate"])) for t in trials]
    assert tried == [("ewc", s, rate) for s in (1, 10) for rate in (0.001, 0.01)]
    best = max(trials, key=lambda t: float(t["held_out_accuracy"]))
    chosen = {(r["strength"], r["learning_rate"]) for r in results if r["method"] == "ewc"}
    assert chosen == {(best["strength"], best["learning_rate"])}
    last = {(r["method"], int(r["seed"])): np.array(json.loads(r["matrix"])[-1]) for r in results}
    assert set(last) == {(m, k) for m in ("finetune", "ewc", "joint") for k in range(3)}
    table = (out / "table.md").read_text().splitlines()[2:]
    for line, method in zip(table, ("finetune", "ewc", "joint"), strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        accuracies = [last[method, k].mean() for k in range(3)]
        reach = stats.t.ppf(0.975, 2) * stats.sem(accuracies)
        assert cells[0] == method and cells[3] == f"{np.mean(accuracies):.2f} ± {reach:.2f}"
    environment = json.loads((out / "environment.json").read_text())
    assert {r["commit"] for r in results} == {environment["commit"] or ""}

    def never(*_: object) -> None:
        raise AssertionError("a finished run was made again")

    monkeypatch.setattr(sweep, "train", never)
    run(sweep, monkeypatch, DIGITS, tmp_path / "runs", tmp_path / "again", *SHORT, *options)
    assert (tmp_path / "again" / "table.md").read_text() == (out / "table.md").read_text()


def row(seed: int, diagonal: list[float]) -> dict[str, object]:
    matrix = [[0.0, 0.0], [diagonal[0], 0.0], [diagonal[0] - 10.0, diagonal[1]]]
    return {
        "method": "ewc",
        "strength": 1.0,
        "learning_rate": 0.001,
        "seed": seed,
        "accuracy": 50.0,
        "backward_transfer": -10.0,
        "smt": 1.0,
        "matrix": json.dumps(matrix),
        "visits": json.dumps([0, 1]),
    }


def test_forward_transfer_is_beside_joint_training_of_the_same_seed(sweep):
    def transfer(joint: list[dict[str, object]]) -> str:
        ours = [row(seed, [60.0 + 2 * seed, 70.0]) for seed in (0, 1, 2)]
        return sweep.table({"ewc": ours, "joint": joint}).splitlines()[2].split("|")[6].strip()

    upper = {seed: row(seed, [70.0 + seed, 70.0]) for seed in (0, 1, 2)}
    # of all tasks but the last, ours when it was learned less joint's at the end: 0, 1 and 2
    reach = stats.t.ppf(0.975, 2) * stats.sem([0.0, 1.0, 2.0])
    assert transfer(list(upper.values())) == f"1.00 ± {reach:.2f}"
    assert transfer([upper[2], upper[0], upper[1]]) == f"1.00 ± {reach:.2f}"
    assert transfer([upper[2]]) == "2.00"


def test_an_interval_is_students_for_any_number_of_runs(sweep):
    for n in range(3, 12):
        numbers = np.random.default_rng(n).normal(size=n).tolist()
        low, high = stats.t.interval(0.95, n - 1, np.mean(numbers), stats.sem(numbers))
        assert sweep.interval(numbers) == f"{np.mean(numbers):.2f} ± {(high - low) / 2:.2f}"
    assert (sweep.interval([1.0, 2.0]), sweep.interval([None])) == ("1.50", "")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--methods", "ewd"], "'ewd': expected METHOD=..., of finetune, frozen, l2"),
        (["--strengths", "ewc=a"], "'a': expected numbers with commas"),
        (["--rates", "fast"], "'fast': expected numbers"),
        (["--seeds", "0.5"], "--seeds is '0.5': expected numbers"),
        (["--strengths", "ewc=1", "seed=1"], "KEY=VALUE goes before the options"),
    ],
)
def test_a_comparison_says_what_it_does_not_understand(
    sweep, options, told, tmp_path, monkeypatch, capsys
):
    with pytest.raises(SystemExit) as stopped:
        run(sweep, monkeypatch, DIGITS, tmp_path / "runs", tmp_path / "out", *options)
    assert stopped.value.code == 2 and told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_figures_of_importances(load_script, tmp_path, monkeypatch):
    config = [DIGITS, *SHORT, "sequence.tasks=[digits:0+1, digits:2+3]", "sequence.name=null"]
    command = [sys.executable, "-m", "clrl", "train", *config, "tracking.importances=true"]
    done = subprocess.run(
        [*command, "--runs", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    script, given = load_script("importances/figures.py"), tmp_path / "split_digits"
    run(script, monkeypatch, tmp_path / "out", f"ewc={given}")  # a folder with one seed
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"histogram.svg", "overlap.svg", "change.svg", "map_ewc.png", "numbers.csv"}


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["importances/figures.py", "out", "ewc=nothing"], 2, "nothing"),
        (["importances/figures.py", "out", "nothing"], 2, "expected NAME=RUN"),
        (["images/robustness.py"], 2, "required: config, runs, out"),
        (["images/robustness.py", "nothing.yaml", "runs", "out"], 2, "nothing.yaml"),
    ],
)
def test_scripts_say_what_is_missing_in_one_line(words, code, told, tmp_path):
    script = CONFIGS / "results" / words[0]
    command = [sys.executable, str(script), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == code
    assert told in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
