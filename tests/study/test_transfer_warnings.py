"""Sources that were not learned: who is named, from games written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from clrl.study.plan import Study, load_study
from clrl.study.transfer_metrics import Finished
from clrl.study.transfer_warnings import unlearned_sources

Write = Callable[..., Path]
RUN = {
    "sequence": {"steps": 100},
    "agent": {"name": "ppo", "n_envs": 2, "n_steps": 5, "batch_size": 5},
    "evaluation": {"every": 50},
}
NOTHING = ([0.0] * 5, [0.0] * 5)
MUCH = ([0.0] * 5, [9.0] * 5)


def games(task: str, visit: int, phase: str, step: int, scores: Sequence[float]) -> list[Any]:
    where = {"visit": visit, "phase": phase, "step": step, "task_evaluated": task}
    return [where | {"return": score} for score in scores]


def around(task: str, first: Sequence[float], last: Sequence[float]) -> list[Any]:
    """Write down what was played before and after the first visit."""
    between = games(task, 1, "during", 50, [99.0])
    return games(task, 0, "start", 0, first) + between + games(task, 1, "end", 100, last)


@pytest.fixture
def study(write_study: Write, tmp_path: Path) -> Study:
    methods = {"finetune": {}, "weak": {"name": "ewc", "strength": 1}, "pathnet": {}}
    two = {"sources": ["Pong", "Freeway"], "targets": ["Krull"], "methods": methods}
    return load_study(write_study(tmp_path, **two, seeds=[3, 5], run=RUN))


def warned(study: Study, rows: Callable[[str, str, int], list[Any]]) -> list[str]:
    """Return the warnings, with rows by method, source and seed."""
    return unlearned_sources(
        [Finished(run, "", rows(run.method, run.sources[0], run.seed)) for run in study.runs]
    )


def test_source_methods_and_seeds_are_named(study: Study) -> None:
    def rows(method: str, source: str, seed: int) -> list[Any]:
        lost = source == "Freeway" and (seed == 5 or method == "pathnet")
        return around(source, *(NOTHING if lost else MUCH))

    (told,) = warned(study, rows)
    assert told.startswith(
        "source Freeway was not seen to be learned (pathnet: seeds 3, 5; finetune, weak: seed 5): "
    )
    assert told.endswith("so a pair from it says nothing about transfer")
    assert not warned(study, lambda method, source, seed: around(source, *MUCH))


@pytest.mark.parametrize(
    ("first", "last", "learned"),
    [
        # each with variance 4 of 3 games: standard error of the difference sqrt(8 / 3) = 1.63
        ([0.0, 2.0, 4.0], [3.3, 5.3, 7.3], True),  # 3.3 > 3.27
        ([0.0, 2.0, 4.0], [3.2, 5.2, 7.2], False),
        ([5.0, 7.0, 9.0], [0.0, 2.0, 4.0], False),
        ([50.0], [50.5], True),  # a test set is one record
        ([50.0], [50.0], False),
    ],
)
def test_last_games_have_to_be_2_standard_errors_above_the_first(
    study: Study, first: list[float], last: list[float], learned: bool
) -> None:
    told = warned(study, lambda method, source, seed: around(source, first, last))
    assert len(told) == (0 if learned else 2)


def test_a_chain_is_judged_by_what_was_known_of_each_task_before_it_was_learned(
    write_study: Write, tmp_path: Path
) -> None:
    chain = {"sources": [["Pong", "Krull", "Pong"]], "targets": ["Freeway"], "seeds": [0]}
    study = load_study(write_study(tmp_path, **chain, methods={"finetune": {}}, run=RUN))

    def rows(krull: list[Any]) -> list[Any]:
        found = around("Pong", [-20.0] * 5, [-20.0] * 5)  # learned in its second visit
        found += games("Pong", 2, "end", 200, [0.0] * 5)  # of which Krull gave all
        return found + krull + games("Pong", 3, "end", 300, [0.0] * 5)

    after = games("Krull", 2, "end", 200, [7.0] * 5)
    before = games("Krull", 0, "start", 0, [5.0] * 5) + games("Krull", 1, "end", 100, [7.0] * 5)
    assert not warned(study, lambda *_: rows(before + after))
    column = games("Krull", 2, "during", 100, [7.0] * 5)  # made as its visit began
    (told,) = warned(study, lambda *_: rows(column + after))
    assert told.startswith("source Krull ")


def test_nothing_is_said_where_an_evaluation_is_missing(study: Study) -> None:
    late, end = (games("Pong", 1, *at, [0.0] * 5) for at in (("during", 50), ("end", 100)))
    start = games("Pong", 0, "start", 0, [0.0] * 5)
    for rows in (late + end, start + late, []):
        assert not warned(study, lambda *_, rows=rows: rows)
