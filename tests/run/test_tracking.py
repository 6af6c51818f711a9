"""Trackers mirror the records and never make training fail or wait."""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from clrl.run.tracking import Tracker, open_trackers
from clrl.run.tracking.tracker import Backend, BackgroundTracker, CombinedTracker

VARIABLES = ("WANDB_MODE", "WANDB_SILENT", "WANDB_ERROR_REPORTING", "WANDB_API_KEY")


@dataclass
class Settings:
    wandb: str = "disabled"
    project: str = "clrl"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    tensorboard: bool = False


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without W&B variables, and put back what a tracker sets."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


class FakeRun:
    def __init__(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.metrics: list[tuple[str, str | None]] = []
        self.exit_code: int | None = None

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.metrics.append((name, step_metric))

    def log(self, record: dict[str, Any]) -> None:  # no `step=`: passing one would raise
        self.logged.append(record)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


class FakeWandb(ModuleType):
    """Stands in for the package; `fail` may raise or hang when a mode is initialised."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.calls: list[Any] = []
        self.run = FakeRun()
        self.fail: Callable[[str], None] = lambda mode: None

    def Settings(self, **values: Any) -> dict[str, Any]:
        return values

    def Table(self, columns: list[str], data: list[list[Any]]) -> tuple[Any, ...]:
        return ("table", columns, data)

    def Html(self, data: str, inject: bool) -> tuple[Any, ...]:
        return ("html", data, inject)

    def init(self, **arguments: Any) -> FakeRun:
        self.calls.append(arguments)
        self.fail(arguments["mode"])
        return self.run

    def teardown(self, exit_code: int | None = None) -> None:
        self.calls.append("teardown")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture
def notices() -> list[str]:
    return []


def start(
    settings: Settings, folder: Path, notices: list[str], resume_id: str | None = None, **more: Any
) -> Tracker:
    config = {"agent": {"n_envs": 8}}
    return open_trackers(settings, folder, "quick3", 4, config, resume_id, notices.append, **more)


# ------------------------------------------------------------------------------ W&B, as it is told


def test_wandb_is_told_who_the_run_is_and_which_axis_counts(
    fake: FakeWandb, tmp_path: Path, notices: list[str]
) -> None:
    tracker = start(Settings(wandb="online", project="p", tags=["t"]), tmp_path, notices)
    tracker.log({"global_step": 64, "frames": 256, "rollout/return": 1.5})
    tracker.table("score_matrix", ["after", "A"], [["before", None], ["after 1 A", 2.0]])
    page = "<!doctype html><style>p{}</style><p>x</p>"
    drawn = "<figure><figcaption>a/b &amp; c<p>note</p></figcaption><svg>1</svg></figure>"
    tracker.report(f"{page}{drawn}<p>y</p>{drawn}", "# report")
    tracker.finish(75)

    (call,) = fake.calls
    expected = {
        "project": "p",
        "group": "quick3",
        "job_type": "train",
        "name": "quick3-seed4",
        "id": tracker.run_id,
        "resume": "allow",
        "config": {"agent": {"n_envs": 8}},
        "dir": str(tmp_path),
        "mode": "online",
        "tags": ["t"],
    }
    assert {key: call[key] for key in expected} == expected
    assert call["settings"]["console"] == "off" and 0 < call["settings"]["init_timeout"] <= 30
    assert fake.run.metrics == [("global_step", None), ("frames", None), ("*", "global_step")]
    table = ("table", ["after", "A"], [["before", None], ["after 1 A", 2.0]])
    assert fake.run.logged == [
        {"global_step": 64, "frames": 256, "rollout/return": 1.5},
        {"score_matrix": table, "global_step": 64, "frames": 256},
        {
            "report": ("html", f"{page}{drawn}<p>y</p>{drawn}", False),
            **{
                f"figures/a b & c{number}": (
                    "html",
                    f'<!doctype html><meta charset="utf-8"><style>p{{}}</style>{drawn}',
                    False,
                )
                for number in ("", " #2")
            },
            "global_step": 64,
            "frames": 256,
        },
    ]
    assert fake.run.exit_code == 75 and notices == []


def test_a_resumed_run_keeps_its_wandb_id_and_new_ones_differ(
    fake: FakeWandb, tmp_path: Path, notices: list[str]
) -> None:
    old = start(Settings(wandb="offline"), tmp_path, notices, resume_id="abc12345")
    new = [start(Settings(wandb="offline"), tmp_path, notices) for _ in range(2)]
    for tracker in (old, *new):
        tracker.finish(0)
    assert old.run_id == "abc12345" == fake.calls[0]["id"]
    assert len({tracker.run_id for tracker in (old, *new)}) == 3


@pytest.mark.parametrize("reason", ["No API key configured.", "context deadline exceeded"])
def test_without_key_or_network_wandb_goes_offline_with_one_notice_and_loses_nothing(
    fake: FakeWandb, tmp_path: Path, notices: list[str], reason: str
) -> None:
    def fail(mode: str) -> None:
        if mode == "online":
            raise RuntimeError(f"{reason}\nA long explanation")

    fake.fail = fail
    tracker = start(Settings(wandb="online"), tmp_path, notices)
    tracker.log({"global_step": 1})
    tracker.finish(0)
    # Without a teardown the real service says that the run's id is in use.
    assert [c if c == "teardown" else c["mode"] for c in fake.calls] == [
        "online",
        "teardown",
        "offline",
    ]
    assert fake.calls[0]["id"] == fake.calls[2]["id"] == tracker.run_id
    assert fake.run.logged == [{"global_step": 1}]
    (notice,) = notices
    assert reason.rstrip(".") in notice and "offline" in notice and "wandb sync" in notice
    assert "\n" not in notice


@pytest.mark.parametrize(("variable", "mode"), [("offline", "offline"), ("dryrun", "offline")])
def test_the_users_wandb_mode_wins_over_online(
    fake: FakeWandb,
    tmp_path: Path,
    notices: list[str],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    mode: str,
) -> None:
    monkeypatch.setenv("WANDB_MODE", variable)
    start(Settings(wandb="online"), tmp_path, notices).finish(0)
    assert [call["mode"] for call in fake.calls] == [mode]


def test_wandb_can_neither_ask_nor_report_home(
    fake: FakeWandb, tmp_path: Path, notices: list[str]
) -> None:
    start(Settings(wandb="offline"), tmp_path, notices).finish(0)
    assert os.environ["WANDB_SILENT"] == "true"  # silent: a missing key raises, nothing is asked
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"


def test_disabled_touches_nothing(
    tmp_path: Path, notices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import would raise
    before = dict(os.environ), threading.active_count()
    tracker = start(Settings(), tmp_path, notices)
    tracker.log({"global_step": 1})
    tracker.finish(0)
    assert tracker.run_id is None and notices == [] and list(tmp_path.iterdir()) == []
    assert before == (dict(os.environ), threading.active_count())


@pytest.mark.parametrize(
    ("settings", "module", "remedy"),
    [
        (Settings(wandb="online"), "wandb", "pip install wandb"),
        (Settings(tensorboard=True), "torch.utils.tensorboard", "pip install tensorboard"),
    ],
)
def test_an_absent_package_is_named_with_its_remedy_and_training_goes_on(
    settings: Settings,
    module: str,
    remedy: str,
    tmp_path: Path,
    notices: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    tracker = start(settings, tmp_path, notices)
    for step in range(100):
        tracker.log({"global_step": step})
    tracker.finish(0)
    (notice,) = notices
    assert remedy in notice and "\n" not in notice


# ------------------------------------------------------------------- slow, hanging, broken backends


@dataclass
class Recorder:
    """A backend that keeps what it gets; `fails` raises at that call, `gate` holds it up."""

    records: list[Mapping[str, float]] = field(default_factory=list)
    fails: int = -1
    gate: threading.Event | None = None
    exit_code: int | None = None
    calls: int = 0

    def log(self, record: Mapping[str, float]) -> None:
        self.calls += 1
        if self.gate is not None:
            self.gate.wait()
        if self.calls - 1 == self.fails:
            raise OSError("No space left on device")
        self.records.append(record)

    def table(self, name: str, columns: Any, rows: Any) -> None:
        self.records.append({name: len(rows)})

    def report(self, html: str, markdown: str) -> None:
        self.records.append({"report": len(html)})

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()  # lets the thread end


def test_training_never_waits_for_an_initialisation_that_hangs(
    fake: FakeWandb, gate: threading.Event, tmp_path: Path, notices: list[str]
) -> None:
    def hang(mode: str) -> None:
        gate.wait()

    fake.fail = hang
    started = time.monotonic()
    tracker = start(Settings(wandb="online"), tmp_path, notices, patience=0.3)
    assert tracker.run_id is not None  # the checkpoint needs it at once
    for step in range(1000):
        tracker.log({"global_step": step})
    assert time.monotonic() - started < 0.3
    tracker.finish(0)
    assert time.monotonic() - started < 1.5
    (notice,) = notices
    assert "not finished" in notice and "metrics.jsonl" in notice


def test_a_slow_backend_drops_the_newest_records_with_one_notice(
    gate: threading.Event, notices: list[str]
) -> None:
    backend = Recorder(gate=gate)
    tracker = BackgroundTracker("T", lambda: backend, notices.append, capacity=10)
    tracker.log({"global_step": -1})
    while backend.calls == 0:  # the thread now holds the first; ten more fit
        time.sleep(0.01)
    for step in range(30):
        tracker.log({"global_step": step})
    gate.set()
    tracker.finish(0)
    assert [r["global_step"] for r in backend.records] == list(range(-1, 10))
    assert len(notices) == 1 and "dropped" in notices[0]


def test_a_failing_log_disables_that_tracker_alone_with_one_notice(notices: list[str]) -> None:
    broken, sound = Recorder(fails=2), Recorder()
    tracker = CombinedTracker(
        [
            BackgroundTracker("broken", lambda: broken, notices.append, capacity=5),
            BackgroundTracker("sound", lambda: sound, notices.append),
        ]
    )
    for step in range(20):
        tracker.log({"global_step": step})
        while not notices and broken.calls <= step:
            time.sleep(0.01)
    assert broken.exit_code is None  # closed at the end, with the run's own code
    tracker.finish(3)
    assert len(broken.records) == 2 and broken.calls == 3
    assert len(sound.records) == 20
    assert broken.exit_code == sound.exit_code == 3
    (notice,) = notices
    assert "broken" in notice and "No space left on device" in notice


def test_a_backend_that_cannot_even_close_is_not_named_twice(notices: list[str]) -> None:
    class Stuck(Recorder):
        def finish(self, exit_code: int) -> None:
            raise ConnectionResetError("Connection lost")

    for fails, reason in ((0, "No space left"), (-1, "Connection lost")):
        notices.clear()
        backend = Stuck(fails=fails)
        tracker = BackgroundTracker("T", lambda b=backend: b, notices.append)  # type: ignore[misc]
        tracker.log({"global_step": 0})
        tracker.finish(0)
        assert len(notices) == 1 and reason in notices[0]


@pytest.mark.parametrize("error", [RuntimeError("boom"), SystemExit(1), KeyboardInterrupt()])
def test_no_exception_of_a_backend_or_of_the_notice_reaches_training(error: BaseException) -> None:
    def open_backend() -> Backend:
        raise error

    def notice(text: str) -> None:
        raise BrokenPipeError

    tracker = BackgroundTracker("T", open_backend, notice)
    tracker.log({"global_step": 0})
    tracker.table("t", ["a"], [[1.0]])
    tracker.finish(0)
    tracker.finish(0)
    tracker.log({"global_step": 1})


def test_a_record_is_what_it_was_when_it_was_logged(gate: threading.Event) -> None:
    backend = Recorder(gate=gate)
    tracker = BackgroundTracker("T", lambda: backend, print)
    record = {"global_step": 1.0}
    tracker.log(record)
    tracker.log(record)
    record["global_step"] = 99.0
    gate.set()
    tracker.finish(0)
    assert backend.records == [{"global_step": 1.0}] * 2


# ---------------------------------------------------------------------------------- TensorBoard


def read_events(folder: Path) -> Any:
    name = "tensorboard.backend.event_processing.event_accumulator"
    events = importlib.import_module(name).EventAccumulator(str(folder))
    events.Reload()
    return events


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TensorBoard's reader
def test_tensorboard_reads_back_every_value_at_its_global_step(
    tmp_path: Path, notices: list[str]
) -> None:
    tracker = start(Settings(tensorboard=True), tmp_path, notices)
    for step in (100, 200, 300):
        tracker.log({"global_step": step, "frames": 4 * step, "rollout/return": step / 8})
    tracker.table("score_matrix", ["after", "A"], [["before", None], ["after 1 A", 2.5]])
    tracker.report("<!doctype html>", "# What came of it")
    tracker.finish(0)
    events = read_events(tmp_path / "tb")
    assert notices == [] and tracker.run_id is None
    for name, scale in (("frames", 4), ("rollout/return", 1 / 8)):
        points = [(e.step, e.value) for e in events.Scalars(name)]
        assert points == [(s, s * scale) for s in (100, 200, 300)]
    (text,) = events.Tensors("score_matrix/text_summary")
    assert text.step == 300 and b"| after 1 A | 2.5 |" in text.tensor_proto.string_val[0]
    (text,) = events.Tensors("report/text_summary")
    assert text.step == 300 and b"# What came of it" in text.tensor_proto.string_val[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_forgets_what_a_killed_run_wrote_after_its_checkpoint(
    tmp_path: Path, notices: list[str]
) -> None:
    for steps, scale in (((100, 200, 300), 1), ((200, 250), 2)):
        tracker = start(Settings(tensorboard=True), tmp_path, notices)
        for step in steps:
            tracker.log({"global_step": step, "x": scale * step})
        tracker.finish(0)
        time.sleep(1.1)  # event files are named and ordered by the second
    points = [(e.step, e.value) for e in read_events(tmp_path / "tb").Scalars("x")]
    assert points == [(100, 100), (200, 400), (250, 500)]


def test_trackers_do_not_move_the_generators_training_draws_from(
    fake: FakeWandb, tmp_path: Path, notices: list[str]
) -> None:
    def state() -> tuple[str, str, bytes]:
        numpy = str(np.random.get_state())  # noqa: NPY002
        return str(random.getstate()), numpy, bytes(torch.get_rng_state())

    before = state()
    tracker = start(Settings(wandb="online", tensorboard=True), tmp_path, notices)
    tracker.log({"global_step": 1, "x": 2})
    tracker.table("t", ["a"], [[1.0]])
    tracker.finish(0)
    assert state() == before and notices == []


# --------------------------------------------------------------------------------- the real W&B

REAL = """
import random, sys
from pathlib import Path
from types import SimpleNamespace
from clrl.run.tracking import open_trackers
settings = SimpleNamespace(
    wandb=sys.argv[1], project="p", entity=None, group=None, tags=["t"], tensorboard=False
)
state = random.getstate()
def notice(text): print("NOTICE", text)
tracker = open_trackers(settings, Path(sys.argv[2]), "q", 0, {"a": {"b": 1}}, "abc12345", notice)
for step in range(50):
    tracker.log({"global_step": step, "frames": 4 * step, "train/loss": 0.5})
tracker.table("score_matrix", ["after", "A"], [["before", None], ["after 1 A", 2.0]])
tracker.report("<!doctype html><title>r</title>", "# r")
tracker.finish(0)
assert state == random.getstate()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "notices"), [("offline", 0), ("online", 1)])
def test_the_real_wandb_writes_its_files_without_key_or_question_or_other_output(
    tmp_path: Path, mode: str, notices: int
) -> None:
    """Online without a key, it goes offline."""
    pytest.importorskip("wandb")
    hidden = ("WANDB", "NETRC", "XDG")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(REAL), mode, str(tmp_path)],
        env=environment | {"HOME": str(tmp_path / "home")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == done.stdout.count("NOTICE") == notices
    (file,) = tmp_path.glob("wandb/offline-run-*-abc12345/run-abc12345.wandb")
    written = file.read_bytes()
    assert b"train/loss" in written and b"score_matrix" in written
    assert list(file.parent.glob("files/media/table/score_matrix*.json"))
    (page,) = file.parent.glob("files/media/html/report*.html")
    assert page.read_text().startswith("<!doctype html>")
