"""What a transfer study is: its YAML file, and the runs that follow from it.

    name: transfer_quick3
    sources: [CrazyClimber, KungFuMaster, [CrazyClimber, KungFuMaster]]   # a list is a chain
    targets: [Freeway]
    methods: {finetune: {}, ewc: {strength: 10}, ewc_weak: {name: ewc, strength: 1}}
    seeds: [0, 1, 2]
    run: {sequence: {steps: 100_000}, agent: ..., evaluation: {every: 10_000}}

Every run learns a source (or a chain of them) and then a target, with one method and one seed; a
target is not put after a chain that it is part of. Beside these there is for every target and seed
an expert, which learns it alone, from scratch, by fine-tuning, whatever the method. With
`share_sources` every first source has one too, and all methods that learn a first task as
fine-tuning does go on from there: they are compared from the same start, and a source is learned
once a seed. Where a method's answer takes more work than the expert's, the result says so.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from clrl.run import yaml_safe
from clrl.run.assemble import sequence_of
from clrl.run.config import Config, make_config, make_method, override, to_dict
from clrl.run.pretrained import alike
from clrl.run.sections import NotNegative, Positive, Seed
from clrl.run.typed import Reader
from clrl.types import ClrlError

__all__ = ["PlannedRun", "Study", "StudyConfig", "json_ready", "load_study", "short_name"]

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}"  # of a study, of a method in it
EXPERT = "expert"  # what the runs from scratch are called where methods are named
CHAIN = " > "  # between the tasks of a chain, where it is shown

Entries = str | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """A study as its file says it."""

    name: str
    """Names the study's folder: letters, digits, `.`, `_`, `-`."""
    sources: tuple[Entries, ...]
    """What is learned first: a task, or a list of them to learn one after the other."""
    targets: tuple[str, ...]
    """What is learned then."""
    methods: dict[str, Any]
    """By the name shown: the settings of a method, which is called `name` if not as shown; once
    read, the methods, not set up."""
    seeds: tuple[Seed, ...]
    """Of the runs: run k is compared with the expert of the same seed."""
    run: Config
    """All that the runs have in common, as in the configuration of a run."""
    share_sources: bool = True
    """Learn a first source once a seed, as an expert, and go on from there with every method that
    would learn it by fine-tuning; false: every run learns all of its tasks."""
    criterion: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the experts' way, from their first score to their last, that relative speed and
    time to threshold are measured to."""
    resamples: Positive = 2000
    """Of the bootstrap."""
    bootstrap_seed: NotNegative = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME, self.name):
            raise ValueError(
                f"name is {self.name!r:.60}: expected letters, digits, '.', '_', '-', at most 40"
            )
        for name in ("sources", "targets", "methods", "seeds"):
            values = getattr(self, name)
            if not values:
                raise ValueError(f"{name} is empty: expected at least one")
            if twice := _repeated(values):
                raise ValueError(f"{name} has {twice!r} twice: expected each once")
        if any(not chain for chain in self.sources):
            raise ValueError("sources has an empty chain: expected at least one task in each")
        for name in self.methods:
            if not re.fullmatch(NAME, name) or name == EXPERT:
                raise ValueError(
                    f"methods has {name!r}: expected letters, digits, '.', '_', '-', at most 40, "
                    f"and not {EXPERT!r}"
                )
        every, steps = self.run.evaluation.every, self.run.sequence.steps
        if not 0 < every < steps:
            raise ValueError(
                f"run has evaluation.every {every}: expected more than 0 and less than the {steps} "
                "steps of a visit, as transfer is read from learning curves"
            )
        if self.run.agent.schedule_over == "sequence":
            raise ValueError(
                "run has agent.schedule_over 'sequence': expected 'task', as an expert, which has "
                "no sources, would learn with other rates than the runs compared with it"
            )


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        method: as the study calls it; "expert" for a run from scratch.
        sources: names of the tasks before the target; none for an expert.
        target: name of the task whose learning is looked at.
        config: all of it; its name is unique in the study.
        shares: whether its first task is taken over from the expert of that task and seed.
    """

    method: str
    sources: tuple[str, ...]
    target: str
    config: Config
    shares: bool = False

    @property
    def seed(self) -> int:
        """The seed, which pairs it with other runs."""
        return self.config.seed

    @property
    def first(self) -> tuple[str, int]:
        """The first source and the seed: whose expert a run that `shares` goes on from."""
        return self.sources[0], self.seed

    @property
    def source(self) -> str:
        """The sources as one text: "A > B"."""
        return CHAIN.join(self.sources)

    def __str__(self) -> str:
        return f"{self.method} {CHAIN.join([*self.sources, self.target])} seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """A study and its runs, in the order in which they are made: experts first."""

    config: StudyConfig
    experts: tuple[PlannedRun, ...]
    runs: tuple[PlannedRun, ...]

    @property
    def sources(self) -> list[str]:
        """Names of the sources and chains: the rows of a transfer matrix."""
        return list(dict.fromkeys(run.source for run in self.runs))

    @property
    def targets(self) -> list[str]:
        """Names of the targets: its columns."""
        wanted = {run.target for run in self.runs}
        return [k for k in dict.fromkeys(run.target for run in self.experts) if k in wanted]

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved study as plain values."""
        one = self.config
        result: dict[str, Any] = {}
        for f in fields(one):
            result[f.name] = getattr(one, f.name)
        result["methods"] = {
            name: to_dict(replace(one.run, method=method))["method"]
            for name, method in one.methods.items()
        }
        result["sources"] = [x if isinstance(x, str) else list(x) for x in one.sources]
        result["targets"], result["seeds"] = list(one.targets), list(one.seeds)
        run = to_dict(one.run)
        for key in SET_BY_STUDY:
            run.pop(key, None)
        for key in SET_IN_SEQUENCE:
            run["sequence"].pop(key, None)
        return result | {"run": run}


SET_BY_STUDY = ("name", "method", "seed")  # of a run's keys, those that the study sets
SET_IN_SEQUENCE = ("tasks", "name", "cycles", "order_seed", "pretrained")


def load_study(path: Path | str, overrides: Sequence[str] = ()) -> Study:
    """Read a study and work out its runs; opens no environment.

    Args:
        path: a YAML file.
        overrides: `a.b=c`, as for a run: `run.sequence.steps=1e5`.

    Raises:
        ClrlError: (exit 2) with one line for every problem: file, key, value, what was expected.
    """
    data = yaml_safe.read(Path(path))
    if "agent" in data and not {"sources", "targets", "run"} & data.keys():
        raise ClrlError(f"{path} is the configuration of a run, not of a study: use clrl train", 2)
    changed = tuple(override(data, text) for text in overrides)
    reader = Reader(str(path), changed)
    config = reader.make(
        StudyConfig,
        data,
        "",
        methods=lambda data, path: _methods(reader, data, path),
        run=lambda run, path: _common_settings(reader, run, path, data.get("targets")),
    )
    reader.finish()
    assert config is not None  # None only with problems, and those were raised
    return _planned(config, str(path))


def _methods(reader: Reader, data: object, path: str) -> dict[str, Any] | None:
    if not isinstance(data, Mapping):
        reader.complain(path, "is not a section: expected e.g. {finetune: {}, ewc: {strength: 10}}")
        return None
    made = {}
    for name, settings in data.items():
        if settings is not None and not isinstance(settings, Mapping):
            reader.complain(f"{path}.{name}", "is not a section: expected its settings, e.g. {}")
            continue
        method = make_method(reader, {"name": name} | dict(settings or {}), f"{path}.{name}")
        if method is not None:
            made[name] = method
    return made


def _common_settings(reader: Reader, data: object, path: str, targets: object) -> Config | None:
    """Read what all runs share; the keys that the study sets are filled in, and refused here."""
    sequence = data.get("sequence") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(sequence, Mapping):
        reader.complain(path, "is not what runs share: expected e.g. {sequence: {steps: 1e5}, ...}")
        return None
    for key in [key for key in SET_BY_STUDY if key in data]:
        reader.complain(f"{path}.{key}", "is not shared by the runs: the study sets it")
    for key in [key for key in SET_IN_SEQUENCE if key in sequence]:
        reader.complain(f"{path}.sequence.{key}", "is not shared by the runs: the study sets it")
    tasks = targets if isinstance(targets, list) and targets else ["?"]
    filled = {
        "threads": 1,  # so that results do not depend on how many runs go on at a time
        **data,
        "name": "study",
        "method": {"name": "finetune"},
        "sequence": {**sequence, "tasks": tasks},
    }
    filled["sequence"].pop("name", None)
    return make_config(reader, filled, path)


# ----------------------------------------------------------------------------------------- runs


def _planned(config: StudyConfig, file: str) -> Study:
    chains = [(x,) if isinstance(x, str) else x for x in config.sources]
    entries = [*dict.fromkeys([*(entry for chain in chains for entry in chain), *config.targets])]
    names = _task_names(config.run, entries)
    runs = [
        _run(config, label, method, (*chain, target), names, seed)
        for seed in config.seeds
        for chain in chains
        for target in config.targets
        for label, method in config.methods.items()
        if names[target] not in {names[entry] for entry in chain}
    ]
    shared = {run.sources[0] for run in runs if run.shares}
    also = {names[chain[0]]: chain[0] for chain in chains if names[chain[0]] in shared}
    for target in config.targets:
        also.pop(names[target], None)
    experts = [
        _run(config, EXPERT, config.run.method, (entry,), names, seed)
        for seed in config.seeds
        for entry in (*config.targets, *also.values())
    ]
    if not runs:
        raise ClrlError(
            f"{file}: targets {list(config.targets)}: each is its only source: expected a pair", 2
        )
    for made in (experts, runs):
        if twice := _repeated((run.config.name, run.seed) for run in made):
            raise ClrlError(f"{file}: sources and targets name {twice[0]!r} twice", 2)
    return Study(config, tuple(experts), tuple(runs))


def _run(
    config: StudyConfig,
    label: str,
    method: Any,
    entries: tuple[str, ...],
    names: Mapping[str, str],
    seed: int,
) -> PlannedRun:
    *sources, target = (names[entry] for entry in entries)
    sequence = replace(config.run.sequence, tasks=entries)
    name = short_name("-".join([label, *sources, target]))
    run = replace(config.run, name=name, method=method, sequence=sequence, seed=seed)
    shares = bool(sources) and config.share_sources and _can_share(run, entries[0])
    return PlannedRun(label, tuple(sources), target, run, shares)


def _can_share(run: Config, first: str) -> bool:
    """Tell whether the run's first task can be taken over from a run of that task alone."""
    alone = sequence_of(replace(run, sequence=replace(run.sequence, tasks=(first,)))).tasks[0]
    same = alike(sequence_of(run).tasks[0], alone)  # not: class-incremental, pictures of two sizes
    watched = run.evaluation.unseen != "always"
    return same and watched and bool(run.method.starts_plainly)


def _task_names(run: Config, entries: Sequence[str]) -> dict[str, str]:
    """Return what the records call each entry's task."""
    sequence = sequence_of(replace(run, sequence=replace(run.sequence, tasks=tuple(entries))))
    tasks = (sequence.tasks[k].name for k in sequence.visits)
    return dict(zip(entries, tasks, strict=True))


def short_name(text: str) -> str:
    """Return a folder's name that says `text`, made unique where letters were lost.

    >>> short_name("ewc-CrazyClimber-Freeway")
    'ewc-CrazyClimber-Freeway'
    >>> short_name("ewc-digits:0+1-digits:2+3")
    'ewc-digits_0_1-digits_2_3-293023'
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", text)
    if plain == text and len(plain) <= 80:
        return plain
    return f"{plain[:70]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def json_ready(value: Any) -> Any:
    """Return plain values with infinities as YAML writes them: JSON has none.

    >>> json_ready({"max_grad_norm": float("inf"), "seeds": [0, 1]})
    {'max_grad_norm': '.inf', 'seeds': [0, 1]}
    """
    if isinstance(value, Mapping):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: ".inf", -math.inf: "-.inf"}.get(value, ".nan")
    return value


def _repeated(values: Iterable[Any]) -> Any:
    seen: set[Any] = set()
    return next((x for x in values if x in seen or seen.add(x)), None)  # type: ignore[func-returns-value]
