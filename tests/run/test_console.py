"""The console shows a run, in a terminal and elsewhere, and never stops it."""

from __future__ import annotations

import io
import re
import threading
from types import SimpleNamespace

import pytest

from clrl.run import console as module
from clrl.run.console import Console, compact, duration
from clrl.run.score_table import ScoreTable, format_columns, number

TASKS = ["CrazyClimber", "Pong", "Freeway"]
ROWS: list[list[float | None]] = [
    [8123.4, -20.7, None],
    [30100.0, -20.71, 0.0],
    [9000.0, 18.25, 1.5],
    [8000.0, 3.0, 20.4],
]
NAMES = ["before", "after 1 CrazyClimber", "after 2 Pong", "after 3 Freeway"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until `now` is set."""
    hand = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: hand.now))
    return hand


def lines(file: io.StringIO) -> list[str]:
    return file.getvalue().splitlines()


def screen(console: Console) -> list[str]:
    """Draw the live view once, without colours."""
    assert console._rich is not None
    with console._rich.capture() as capture:
        console._rich.print(console._view())
    return re.sub(r"\x1b\[[0-9;]*m", "", capture.get()).splitlines()


def test_without_a_terminal_lines_are_plain_and_go_to_stderr_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Console(TASKS, 100) as console:
        console.evaluation(0, "Pong", -20.7, 10)
        console.start_visit(0)
        console.progress(0, 50, 10.0, 1.0, {})
        console.notice("a notice")
        console.resumed("bitwise", 50, "checkpoints/step_50", ["step_60: truncated"])
        console.matrix(TASKS, ROWS, NAMES)
    out, err = capsys.readouterr()
    assert out == "" and "\x1b" not in err and "\r" not in err
    for text in ("Pong", "-20.7", "a notice", "bitwise", "step_50", "step_60: truncated", "30100"):
        assert text in err


def test_plain_progress_is_one_line_every_thirty_seconds(clock: SimpleNamespace) -> None:
    file = io.StringIO()
    console = Console(TASKS, 1000, file=file)
    console.start_visit(0)
    for second in range(1, 96):
        clock.now = 1000.0 + second
        console.progress(0, second * 10, 10.0, 1.0, {})
    shown = [line for line in lines(file) if "steps/s" in line]
    assert [line.split("]")[0] for line in shown] == ["[0:30", "[1:00", "[1:30"]
    assert "1/3 CrazyClimber  300/1,000  10 steps/s  4:30 left  return 1.00" in shown[0]


def test_plain_lines_tell_every_evaluation_and_every_border(clock: SimpleNamespace) -> None:
    file = io.StringIO()
    console = Console(TASKS, 1000, file=file)
    console.evaluation(0, "Freeway", 0.0, 10)
    console.start_visit(0)
    console.evaluation(0, "Freeway", 12.5, 10)
    console.start_visit(1)
    console.evaluation(1, "Freeway", 3.0, 10)
    assert lines(file) == [
        "[0:00] before training  eval Freeway: 0.0 (n=10)",
        "[0:00] 1/3 CrazyClimber begins: 1,000 steps",
        "[0:00] 1/3 CrazyClimber  eval Freeway: 12.5 (n=10)",
        "[0:00] 2/3 Pong begins: 1,000 steps",
        "[0:00] 2/3 Pong  eval Freeway: 3.00 (n=10)",
    ]


@pytest.mark.parametrize("done_before", [0, 500])
def test_time_left_comes_from_this_processs_own_pace(
    clock: SimpleNamespace, done_before: int
) -> None:
    """A resumed run has steps that this process never made: they must not count as speed."""
    file = io.StringIO()
    console = Console(["A", "B"], 1000, file=file)
    console.start_visit(1)
    console.progress(1, done_before, 999.0, None, {})
    clock.now += 40
    console.progress(1, done_before + 100, 999.0, None, {})
    seconds_left = (1000 - done_before - 100) / (100 / 40)
    assert f" {duration(seconds_left)} left" in lines(file)[-1]


def test_a_last_rollout_beyond_the_end_leaves_no_negative_time(clock: SimpleNamespace) -> None:
    file = io.StringIO()
    console = Console(["A"], 1000, file=file)
    console.start_visit(0)
    console.progress(0, 10, 10.0, None, {})
    clock.now += 40
    console.progress(0, 1020, 10.0, None, {})
    assert " 0:00 left" in lines(file)[-1]


def test_a_terminal_shows_a_bar_per_visit_with_its_scores(clock: SimpleNamespace) -> None:
    console = Console(["Pong", "Breakout", "Pong"], 2000, interactive=True, file=io.StringIO())
    console.start_visit(1)
    console.progress(1, 500, 1203.4, 7.25, {"train/entropy": 1.05, "time/x": 1.0})
    console.evaluation(1, "Pong", 18.0, 10)
    console.evaluation(1, "Pong", 12.0, 10)
    head, pong, breakout, again, status, figures = screen(console)
    assert head.split() == ["steps", "eval", "best", "return"]
    assert pong.split()[-4:] == ["2000/2000", "12.0", "18.0", "-"]
    assert breakout.split()[-4:] == ["500/2000", "-", "-", "7.25"]
    assert again.split()[-4:] == ["0/2000", "12.0", "18.0", "-"]
    assert "1,203 steps/s" in status and "left" in status and "42% of 6000 steps" in status
    assert figures.strip() == "entropy 1.05"


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("visits", [1, 3, 40])
def test_the_live_view_never_wraps_or_outgrows_the_screen(
    width: int, visits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "24")
    names = [f"MontezumaRevenge-noisy-{i}" for i in range(visits)]
    console = Console(names, 10_000_000, interactive=True, file=io.StringIO())
    for visit in range(visits):
        console.start_visit(visit)
        figures = {f"train/explained_variance_{i}": 0.123456 for i in range(9)}
        console.progress(visit, 9_999_999, 123456.0, -12345.6, figures)
        console.evaluation(visit, names[visit], 1234567.0, 10)
        shown = screen(console)
        assert max(map(len, shown)) <= width and len(shown) == min(visits, 19) + 3
        for one in range(max(1, visit), visit + 2):  # the current visit and the one before
            assert any(line.startswith(f" {one} ") for line in shown)


def test_what_is_said_in_a_terminal_stays_and_is_not_cut() -> None:
    file = io.StringIO()
    path = "runs/" + "x" * 200
    with Console(TASKS, 100, interactive=True, file=file) as console:
        console.start_visit(0)
        threads = [threading.Thread(target=console.notice, args=(f"[red] {i}",)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        console.notice(path)
    assert path in file.getvalue()
    for i in range(8):
        assert f"[red] {i}" in file.getvalue()  # and not read as markup


@pytest.mark.parametrize("interactive", [False, True])
@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(5, "EIO"), ValueError("closed")])
def test_a_terminal_or_pipe_that_has_gone_does_not_stop_training(
    interactive: bool, error: Exception
) -> None:
    class Gone(io.StringIO):
        gone = False

        def write(self, text: str) -> int:
            if self.gone:
                raise error
            return super().write(text)

    file = Gone()
    with Console(TASKS, 100, interactive=interactive, file=file) as console:
        file.gone = True
        console.start_visit(0)
        console.evaluation(0, "Pong", 1.0, 1)
        console.notice("a")
        console.matrix(TASKS, ROWS, NAMES)


# ------------------------------------------------------------------------------ the score matrix


def test_the_plain_matrix_is_aligned_and_stars_the_task_just_trained() -> None:
    file = io.StringIO()
    Console(TASKS, 100, file=file).matrix(TASKS, ROWS, NAMES)
    assert lines(file) == [
        "mean score            CrazyClimber    Pong   Freeway",
        "before                        8123   -20.7         -",
        "after 1 CrazyClimber         30100*  -20.7       0.0",
        "after 2 Pong                  9000    18.2*      1.5",
        "after 3 Freeway               8000     3.0      20.4*",
        "(* the task just trained)",
    ]


def test_the_matrix_shows_normalised_scores_too_when_there_are_any() -> None:
    file = io.StringIO()
    scores = [[None if x is None else x / 1000 for x in row] for row in ROWS]
    Console(TASKS, 100, file=file).matrix(TASKS, ROWS, NAMES, scores)
    assert "normalised score" in file.getvalue() and "30.10*" in file.getvalue()


def test_a_repeated_task_stars_its_one_column_at_each_visit() -> None:
    file = io.StringIO()
    console = Console(["A", "B", "A"], 10, file=file)
    console.matrix(["A", "B"], [[1.0, 1.0]] * 4, ["before", "1 A", "2 B", "3 A"])
    stars = [[word.endswith("*") for word in line.split()[-2:]] for line in lines(file)[1:5]]
    assert stars == [[False, False], [True, False], [False, True], [True, False]]


@pytest.mark.parametrize("width", [40, 80])
def test_in_a_terminal_a_wide_matrix_is_cut_between_columns_never_inside(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    names = [f"Game-{i}" for i in range(12)]
    file = io.StringIO()
    console = Console(names, 10, interactive=True, file=file)
    rows = [[float(1000 * r + c) for c in range(12)] for r in range(2, 5)]
    console.matrix(names, rows, ["before", "after 1", "after 2"])
    text = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    for name in (*names, *(str(int(x)) for row in rows for x in row)):
        assert len(re.findall(rf"{name}\b", text)) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (30100.4, "30100"), (416.25, "416.2"), (-20.71, "-20.7"), (1.734, "1.73"),
     (0.0, "0.0"), (float("nan"), "nan")],
)  # fmt: skip
def test_a_number_has_the_precision_its_size_deserves(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_column_has_one_precision() -> None:
    assert format_columns([[1234.5, 0.5], [-0.25, None]]) == [["1234", "0.50"], ["0", "-"]]


def test_no_rows_make_no_trouble() -> None:
    assert ScoreTable("t", [], [], [], []).plain() and ScoreTable("t", [], [], [], []).rich(80)


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "?"), (0, "0:00"), (59.6, "1:00"), (3725, "1:02:05")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("steps", "text"), [(950, "950"), (75_400, "75k"), (1_250_000, "1.25M"), (10**7, "10M")]
)
def test_step_counts(steps: int, text: str) -> None:
    assert compact(steps) == text
