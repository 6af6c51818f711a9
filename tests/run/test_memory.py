"""Freed memory is kept, where the allocator can be told to."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from clrl.run import memory


@pytest.mark.parametrize(
    ("largest", "asked"),
    [
        (1 << 30, [(-3, 1 << 28), (-1, 1 << 30)]),
        (1 << 25, [(-3, 1 << 28), (-3, 1 << 25), (-1, 1 << 30)]),  # glibc before 2.35
        (0, [(-3, 1 << 28), (-3, 1 << 25)]),  # one threshold without the other would be worse
    ],
)
def test_glibc_is_asked_for_what_it_grants(
    largest: int, asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []

    def mallopt(parameter: int, value: int) -> int:
        calls.append((parameter, value))
        return int(parameter == memory.M_TRIM_THRESHOLD or value <= largest)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    memory.keep_freed_memory()
    assert calls == asked


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_other_allocators_are_left_alone(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    def musl(name: object) -> SimpleNamespace:
        opened.append(name)
        return SimpleNamespace()  # it has no mallopt

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(memory.ctypes, "CDLL", musl)
    memory.keep_freed_memory()
    assert opened == ([None] if platform == "linux" else [])
