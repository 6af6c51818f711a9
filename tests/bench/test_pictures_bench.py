"""What learning pictures costs, measured in its smallest form."""

from __future__ import annotations

import pytest

from clrl.bench import memory, pictures
from clrl.bench.figure import Setting
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


def test_growth_of_memory_is_counted_from_the_second_task_to_the_last(monkeypatch):
    monkeypatch.setattr(memory, "PICTURE_TASKS", 4)
    monkeypatch.setattr(pictures, "HIDDEN", (8,))
    resident = iter([1_000_000, 2_000_000, 3_000_000, 5_500_000])
    monkeypatch.setattr(memory, "_status", lambda key: next(resident))
    measured = memory.pictures(TINY)
    assert measured["value"] == 3.5
    assert measured["parts"] == {"after_2_megabytes": 2.0, "last_megabytes": 5.5}
