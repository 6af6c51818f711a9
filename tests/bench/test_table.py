"""`clrl bench`: which figures it measures, what it prints where, and how it ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable

import pytest

from clrl import cli
from clrl.bench import FIGURES, table
from clrl.bench.figure import Figure, Measurement, Setting
from clrl.bench.table import chosen
from clrl.types import ClrlError

KEYS = {"name", "ratio", "min", "max", "goal", "pairs", "parts"}  # what the issue asks for
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `clrl bench` in this process: (exit code, stdout, stderr)."""

    def _run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(["bench", *arguments])
        captured = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, captured.out, captured.err

    return _run


def noisy(setting: Setting, *values: float) -> Measurement:
    """Measure given values, printing and warning as libraries do."""
    print("a banner")
    warnings.warn("a library's", DeprecationWarning, stacklevel=1)
    return Measurement(values, {"left_seconds": list(values), "device_asked": setting.device})


def stopped(setting: Setting) -> Measurement:
    raise KeyboardInterrupt


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put figures in the registry that take no time."""
    here = __name__
    figures = (
        Figure("fast", "fast enough", "at least", 3.0, "x", f"{here}:noisy", (4.0, 3.5, 9.0)),
        Figure("slow", "too slow", "at most", 0.5, "s", f"{here}:noisy", (1.0,)),
        Figure("known", "no goal", "at least", None, "", f"{here}:noisy", (1.0,)),
        Figure("stopped", "never ends", "at least", None, "", f"{here}:stopped"),
    )
    monkeypatch.setattr(table, "FIGURES", figures)


def names(*given: str) -> list[str]:
    return [f.name for f in chosen(given)]


def test_names_choose_figures_in_their_order() -> None:
    assert names() == [f.name for f in FIGURES]
    assert names("memory") == ["memory"]  # not `memory_growth`
    ewc = ["ewc_1", "ewc_10", "ewc_100", "ewc_pictures", "ewc_decoupled"]
    assert names("ewc", "ppo", "ewc_10") == [*ewc, "ppo"]
    assert names("startup") == ["startup_help", "startup_list"]


@pytest.mark.parametrize(
    ("name", "hint"), [("startpu", "'startup'"), ("fischer", "'fisher'"), ("zzz", "valid: a2c, ")]
)
def test_an_unknown_name_is_one_line_with_the_nearest_and_measures_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    monkeypatch.setattr(Figure, "measure", lambda self, setting: pytest.fail("measured"))
    code, out, err = run("memory", name)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert repr(name) in err and hint in err


@pytest.mark.parametrize(
    "arguments", [("--device", "tpu"), ("--pairs", "0")], ids=lambda a: " ".join(a)
)
def test_bad_options_end_with_code_2(run: Run, arguments: tuple[str, str]) -> None:
    code, out, err = run("startup", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert arguments[0] in err


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ClrlError, match="no GPU") as caught:
        table.bench([], 1, "cuda", as_json=True)
    assert caught.value.exit_code == 2


@pytest.mark.usefixtures("faked")
def test_json_is_one_object_a_line_and_nothing_else_reaches_stdout(run: Run) -> None:
    code, out, err = run("fast", "slow", "--json", "--device", "cpu")
    assert code == 0  # although `slow` misses its goal
    assert "banner" in err and "Deprecation" not in err
    fast, slow = (json.loads(line) for line in out.splitlines())
    assert set(fast) >= KEYS
    assert (fast["name"], fast["ratio"], fast["min"], fast["max"]) == ("fast", 4.0, 3.5, 9.0)
    assert (fast["goal"], fast["pairs"], fast["met"], slow["met"]) == (3.0, 3, True, False)
    assert fast["parts"] == {"left_seconds": [4.0, 3.5, 9.0], "device_asked": "cpu"}
    assert {"processor", "cores", "instruction_sets", "gpu", "torch", "torch_threads"} <= set(
        fast["machine"]
    )


@pytest.mark.usefixtures("faked")
def test_the_table_shows_figure_range_goal_and_whether_it_is_met(run: Run) -> None:
    code, out, _ = run("fast", "slow", "known")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 5 and "\x1b" not in out
    assert "cores" in lines[0] and "torch" in lines[0]
    cells = [re.split(r"\s{2,}", line)[:5] for line in lines[2:]]
    assert cells == [
        ["fast", "4 x", "3.5 - 9", "at least 3 x", "yes"],
        ["slow", "1 s", "1 - 1", "at most 0.5 s", "no"],
        ["known", "1", "1 - 1", "none", "-"],
    ]
    assert "left_seconds 4" in lines[2]


@pytest.mark.usefixtures("faked")
def test_interrupted_it_shows_what_it_has_and_ends_with_130(run: Run) -> None:
    code, out, err = run("fast", "stopped", "slow")
    assert code == 130 and err.splitlines()[-1] == "clrl: error: interrupted"
    assert "fast" in out and "slow" not in out
    assert run("stopped")[:2] == (130, "")


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.6, "1235"), (12.345, "12.3"), (0.12345, "0.123"), (-3.14159, "-3.14"), (99.96, "100")],
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert table._number(value) == text


def test_the_list_names_every_figure_with_its_goal(run: Run) -> None:
    code, out, _ = run("--list")
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines] == [f.name for f in FIGURES]
    assert all(line.endswith(f.goal_text) for line, f in zip(lines, FIGURES, strict=True))


def test_startup_is_measured_for_real(run: Run) -> None:
    code, out, _ = run("startup_help", "--pairs", "1", "--json")
    (row,) = (json.loads(line) for line in out.splitlines())
    assert (code, row["name"], row["pairs"]) == (0, "startup_help", 1)
    assert row["ratio"] == row["min"] == row["max"] == row["parts"]["clrl_seconds"][0]
    assert 0 < row["parts"]["python_alone_seconds"][0] < row["ratio"]


def test_a_process_that_fails_is_told_with_its_last_line() -> None:
    from clrl.bench.costs import startup

    with pytest.raises(ClrlError, match=r"exit code 2: .*nonsense"):
        startup(Setting(pairs=1), "nonsense")


def test_listing_figures_waits_for_no_torch() -> None:
    code = "import sys, clrl.bench; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "False\n"


def test_a_figure_without_its_data_is_left_out_unless_it_was_asked_for(monkeypatch, caplog):
    def no_data(setting: Setting) -> Measurement:
        raise ClrlError("mnist is missing: clrl fetch mnist", 3)

    monkeypatch.setattr("clrl.bench.costs.startup", lambda *_: Measurement([0.2], {}))
    monkeypatch.setattr("clrl.bench.pictures.split_mnist", no_data)
    figures = tuple(f for f in FIGURES if f.name in ("startup_help", "split_mnist"))
    monkeypatch.setattr("clrl.bench.table.FIGURES", figures)
    table.bench([], 1, "cpu", as_json=True)
    assert "split_mnist is left out: mnist is missing: clrl fetch mnist" in caplog.text
    with pytest.raises(ClrlError, match="mnist is missing"):
        table.bench(["split_mnist"], 1, "cpu", as_json=True)
