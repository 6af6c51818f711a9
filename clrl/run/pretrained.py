"""A first visit that another run has learned already, to be taken over instead of learned again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from clrl.run import checkpoint
from clrl.run.assemble import sequence_of
from clrl.run.config import Config, differences, load_config
from clrl.run.folder import RunFolder
from clrl.run.records import read_records
from clrl.types import ClrlError, Task, TaskSequence

__all__ = ["Pretrained", "alike", "ended_first_visit", "find_pretrained"]

SAME = (  # what both runs must have alike
    *("agent", "net", "protocol", "precision", "seed"),
    *("sequence.steps", "sequence.scenario", "sequence.held_out"),
    *("evaluation.every", "evaluation.episodes", "evaluation.policy"),  # its scores are taken too
)
UNPLAYED = ("protocol", "evaluation.episodes", "evaluation.policy")  # mean nothing for pictures


@dataclass(frozen=True)
class Pretrained:
    """A run as it stood when its first visit had just ended.

    Attributes:
        run: its folder.
        learner: its learner's `state_dict`.
        weights: of its net, in the order of `Net.first_parameters`.
        seconds: wall time of the visit.
        evaluating: how much of all its time went into evaluations.
        metrics: the visit's records.
        evaluations: of the visit's task while it was learned, its end not among them; before them,
            as of step 0, those of its start.
    """

    run: Path
    learner: dict[str, Any]
    weights: list[Tensor]
    seconds: float
    evaluating: float
    metrics: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]


def find_pretrained(config: Config, sequence: TaskSequence) -> Pretrained:
    """Read the run that `sequence.pretrained` names, and see that it fits.

    Args:
        config: of the run that is to take its first visit over.
        sequence: its tasks.

    Raises:
        ClrlError: (exit 2) no such run, one of other tasks or terms, one that stands elsewhere, a
            method whose first visit is not fine-tuning's.
    """
    given = str(config.sequence.pretrained)
    run = Path(given)
    if not (run / "config.yaml").exists() and (run / f"seed{config.seed}").is_dir():
        run = run / f"seed{config.seed}"
    folder, task = RunFolder.open(run), sequence.tasks[sequence.visits[0]]
    made_with = load_config(folder.config)
    _refuse_what_starts_otherwise(given, config, "this run's")
    _refuse_what_starts_otherwise(given, made_with, f"{run}'s")
    _refuse_other_terms(given, made_with, config)
    theirs = sequence_of(made_with)
    first = theirs.tasks[theirs.visits[0]]
    if not alike(first, task):
        raise _refusal(given, f"its first task is {_told(first)}", f"expected {_told(task)}")
    if config.evaluation.unseen == "always" and len(sequence.tasks) > 1:
        why = "evaluation.unseen is 'always': the other tasks were not evaluated there"
        raise _refusal(given, why, "use evaluation.unseen=ends, or leave sequence.pretrained out")
    found = checkpoint.load_latest(folder.checkpoints)
    if found is None or not ended_first_visit(found):
        why = "its newest checkpoint does not stand at the end of its first visit"
        raise _refusal(given, why, "expected a finished run of that task alone")
    learner, cursor = found.state["learner"], found.state["cursor"]
    if learner["extra_steps"]:
        why = f"its method, {type(made_with.method).__name__}, went on after the visit's steps"
        raise _refusal(given, why, "expected a run of fine-tuning")
    weights = _first_weights(learner["net"], first.id)
    if weights is None:
        raise _refusal(given, "its net is not plain", "expected a run of fine-tuning")
    metrics = [row for row in read_records(folder.metrics)[0] if row["visit"] == 1]
    rows = read_records(folder.evaluations)[0]
    own = [row for row in rows if row["task_evaluated"] == task.name]
    start = [row | {"phase": "during", "visit": 1} for row in own if row["phase"] == "start"]
    during = [row for row in own if (row["phase"], row["visit"]) == ("during", 1)]
    seconds = float(cursor["costs"][0]["seconds"])
    evaluating = float(cursor["evaluating"])
    return Pretrained(run, learner, weights, seconds, evaluating, metrics, [*start, *during])


def ended_first_visit(found: checkpoint.Checkpoint) -> bool:
    """Tell whether a checkpoint was taken when the first visit had just ended."""
    cursor = found.state["cursor"]
    return (cursor["visit"], cursor["stage"]) == (1, "begin")


def _refuse_what_starts_otherwise(given: str, config: Config, whose: str) -> None:
    method = config.method
    if not method.starts_plainly:
        why = f"{whose} method, {type(method).__name__}, does not learn its first task as "
        raise _refusal(given, f"{why}fine-tuning does", "leave sequence.pretrained out")
    if config.agent.schedule_over == "sequence":
        why = "agent.schedule_over is 'sequence': the first visit's rates depend on the others"
        remedy = "use agent.schedule_over=task, or leave sequence.pretrained out"
        raise _refusal(given, why, remedy)


def _refuse_other_terms(given: str, made_with: Config, config: Config) -> None:
    same = [key for key in SAME if config.agent.kind == "rl" or key not in UNPLAYED]
    changes = [
        line
        for line in differences(made_with, config)
        if any(line.startswith((f"{key}:", f"{key}.")) for key in same)
    ]
    if changes:
        told = "; ".join(changes[:3])
        raise _refusal(given, f"it was made otherwise ({told})", "make the two agree")


def alike(one: Task, other: Task) -> bool:
    """Tell whether two tasks of different sequences are the same, their places in them aside."""
    same = replace(one, id=0) == replace(other, id=0)
    return same and one.input_shape == other.input_shape


def _told(task: Task) -> str:
    shape = "x".join(map(str, task.input_shape))
    return f"{task.name!r} ({shape}, {task.n_outputs} outputs)"


def _first_weights(net: dict[str, Tensor], task_id: int) -> list[Tensor] | None:
    """Return a plain net's tensors in the order of `Net.first_parameters`; None for other nets."""
    trunk = sorted({int(name.split(".")[1]) for name in net if name.startswith("trunk.")})
    k = task_id if f"heads.policy.{task_id}.weight" in net else 0  # a shared head
    modules = [*(f"trunk.{i}" for i in trunk), f"heads.policy.{k}", f"heads.value.{k}"]
    names = [f"{module}.{part}" for module in modules for part in ("weight", "bias")]
    return [net[name] for name in names if name in net] if trunk else None


def _refusal(given: str, why: str, remedy: str) -> ClrlError:
    return ClrlError(f"sequence.pretrained is {given!r}: {why}; {remedy}", 2)
