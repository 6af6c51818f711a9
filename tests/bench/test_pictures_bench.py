"""What learning pictures costs, measured in its smallest form."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from clrl.bench import memory, pictures
from clrl.bench.figure import Setting
from clrl.methods.ewc import EWC
from clrl.run.assemble import sequence_of
from clrl.run.config import Config, load_config
from clrl.types import ClrlError

TINY = Setting(pairs=2, device="cpu", seconds=0.0)


def test_a_step_of_ours_is_measured_with_a_penalty_beside_the_usual_loops(monkeypatch):
    monkeypatch.setattr(pictures, "HIDDEN", (8, 8))
    behind = []
    record = pictures.EWC.edit_gradients

    def noted(self, loss_fn):
        behind.append(bool(self.penalty.weight))
        record(self, loss_fn)

    monkeypatch.setattr(pictures.EWC, "edit_gradients", noted)
    measured = pictures.over_loader(TINY, "float32")
    assert measured.parts["precision"] == "float32"
    usual, ours = measured.parts["usual_seconds"], measured.parts["clrl_seconds"]
    assert measured.values == pytest.approx([u / o for u, o in zip(usual, ours, strict=True)])
    assert behind[-1]  # a task lies behind


def test_without_mnist_the_command_is_not_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("CLRL_DATA", str(tmp_path))
    with pytest.raises(ClrlError, match="clrl fetch mnist") as caught:
        pictures.split_mnist(TINY)
    assert caught.value.exit_code == 3


def test_the_whole_command_is_that_of_a_shell(monkeypatch):
    """Split MNIST itself takes most of a minute: the words and the file are looked at instead."""
    monkeypatch.setattr(pictures, "require", lambda name: None)
    seen: list[tuple[list[str], Config]] = []

    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        seen.append((words, load_config(words[4])))
        time.sleep(0.01)
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(pictures.subprocess, "run", run)
    measured = pictures.split_mnist(TINY)
    assert len(seen) == TINY.pairs
    for words, config in seen:
        assert words[:4] == [sys.executable, "-m", "clrl", "train"]
        assert (config.sequence.name, config.sequence.steps) == ("split_mnist", 2_000)
        assert len(sequence_of(config).visits) == 5
        assert isinstance(config.method, EWC)
        assert config.method.strength > 0
        assert (config.net.hidden, config.agent.batch_size) == ((400, 400), 128)
    assert all(0.01 < seconds < 5 for seconds in measured.values)


def test_a_command_that_fails_is_no_measurement(monkeypatch):
    monkeypatch.setattr(pictures, "require", lambda name: None)
    failed = subprocess.CompletedProcess([], 2, "", "clrl: this is wrong\n")
    monkeypatch.setattr(pictures.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ClrlError, match="this is wrong"):
        pictures.split_mnist(TINY)


def test_growth_of_memory_is_counted_from_the_second_task_to_the_last(monkeypatch):
    monkeypatch.setattr(memory, "PICTURE_TASKS", 4)
    monkeypatch.setattr(pictures, "HIDDEN", (8,))
    resident = iter([1_000_000, 2_000_000, 3_000_000, 5_500_000])
    monkeypatch.setattr(memory, "_status", lambda key: next(resident))
    measured = memory.pictures(TINY)
    assert measured["value"] == 3.5
    assert measured["parts"] == {"after_2_megabytes": 2.0, "last_megabytes": 5.5}
