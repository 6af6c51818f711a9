"""Who is measured when, as `EvaluationConfig` words it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from clrl.agents.learner import Learner
from clrl.run.evaluate import Evaluator, Phase
from clrl.run.sections import EvaluationConfig
from clrl.types import Task

A, B, C = TASKS = tuple(Task(k, name, 2) for k, name in enumerate("ABC"))


def measured(phase: Phase, begun: tuple[Task, ...], playable: str = "ABC", **when: Any) -> str:
    net = SimpleNamespace(can_play=lambda task: task.name in playable)
    learner = SimpleNamespace(begun=list(begun), task=begun[-1] if begun else None, net=net)
    evaluator = Evaluator(cast(Learner, learner), TASKS, EvaluationConfig(**when))
    return "".join(task.name for task in evaluator.measured(phase))


@pytest.mark.parametrize(
    ("unseen", "start", "during", "end"),
    [("always", "ABC", "ABC", "ABC"), ("ends", "ABC", "AB", "ABC"), ("never", "", "AB", "AB")],
)
def test_tasks_not_begun(unseen: str, start: str, during: str, end: str) -> None:
    assert measured("start", (), unseen=unseen) == start
    assert measured("during", (A, B), unseen=unseen) == during
    assert measured("end", (A, B), unseen=unseen) == end


def test_tasks_visited_before() -> None:
    assert measured("during", (A, B)) == "AB"  # as always, unless asked for less
    assert measured("during", (A, B), earlier="ends") == "B"
    assert measured("end", (A, B), earlier="ends") == "ABC"
    assert measured("during", (A, B, A), earlier="ends") == "A"  # a task visited again
    assert measured("during", (A, B), earlier="ends", unseen="always") == "BC"


def test_tasks_the_net_cannot_play() -> None:
    assert measured("start", (), playable="") == ""
    assert measured("end", (A,), playable="A", unseen="always") == "A"
