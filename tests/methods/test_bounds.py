"""What methods are measured against: joint training and the frozen trunk."""

from __future__ import annotations

import pytest

from clrl.methods.frozen import Frozen
from clrl.methods.joint import Joint
from clrl.methods.lwf import LwF
from clrl.types import Linear, NetSpec, Task

TASKS = A, B, C = Task(0, "a", 3), Task(1, "b", 3), Task(2, "c", 2)
SPEC = NetSpec((6,), (Linear(8),), TASKS)


def test_joint_training_mixes_the_distinct_tasks_begun_so_far() -> None:
    joint = Joint()
    assert list(joint.mixture([A])) == [A]
    assert list(joint.mixture([A, B, A, C])) == [A, B, C]
    assert list(LwF().mixture([A, B, A, C])) == [C]


def test_joint_training_from_the_start_mixes_all_tasks_of_the_sequence() -> None:
    joint = Joint(from_start=True)
    joint.build(SPEC)
    assert list(joint.mixture([A])) == [A, B, C]
    assert not joint.starts_plainly  # its first visit is no other method's
    assert Joint().starts_plainly


@pytest.mark.parametrize(
    ("visits", "body_learns"),
    [([A], True), ([A, A], True), ([A, A, B], False), ([A, B, A], False)],
)
def test_a_frozen_trunk_learns_until_the_second_task_begins_and_never_again(
    visits: list[Task], body_learns: bool
) -> None:
    method = Frozen()
    net = method.build(SPEC)
    for task in visits:
        method.begin_task(task)
    body = net.body_parameters()
    assert body
    assert {p.requires_grad for p in body.values()} == {body_learns}
    heads = [p for name, p in net.named_parameters() if name not in body]
    assert heads
    assert all(p.requires_grad for p in heads)
