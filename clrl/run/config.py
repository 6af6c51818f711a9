"""One run's configuration: typed sections, read from one YAML file and `a.b=c` overrides.

What the sections mean is in their fields; agents and methods bring their own (their hyper-
parameters). Nothing is inherited: the resolved configuration in a run folder says everything.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from clrl import methods
from clrl.agents import registry as agents
from clrl.agents.learner import Learner
from clrl.envs.protocol import AtariProtocol
from clrl.method import Method
from clrl.run import yaml_safe
from clrl.run.sections import (
    CheckpointConfig,
    EvaluationConfig,
    NetConfig,
    NotNegative,
    Seed,
    SequenceConfig,
    TrackingConfig,
)
from clrl.run.typed import Reader, hyperparameters
from clrl.types import ClrlError

__all__ = [
    "PROTECTED",
    "CheckpointConfig",
    "Config",
    "EvaluationConfig",
    "NetConfig",
    "SequenceConfig",
    "TrackingConfig",
    "config_hash",
    "differences",
    "load_config",
    "make_config",
    "make_method",
    "override",
    "protected",
    "to_dict",
    "to_yaml",
]

log = logging.getLogger(__name__)

PROTECTED = ("sequence", "agent.name", "method", "net", "protocol", "evaluation.policy", "seed")
"""Keys a resumed run keeps: with others it would be another run, or have scores of two kinds."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run. `agent` and `method` are fresh instances, not set up yet."""

    name: str
    """Names the run's folder: letters, digits, `.`, `_`, `-`."""
    sequence: SequenceConfig
    agent: Learner
    method: Method
    net: NetConfig = field(default_factory=NetConfig)
    protocol: AtariProtocol = field(default_factory=AtariProtocol)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU where there is one."""
    precision: Literal["float32", "bf16"] = "float32"
    """`bf16`: forward and backward passes in bfloat16; weights stay float32."""
    threads: NotNegative = 0
    """CPU threads; 0: all cores."""
    seed: Seed = 0
    """Of every random stream of the run."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.name):
            raise ValueError(
                f"name is {self.name!r:.60}: expected letters, digits, '.', '_', '-', at most 100"
            )


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration.

    Args:
        path: a YAML file.
        overrides: `a.b=c`, the value as in YAML, each replacing one key of the file. Another
            `method.name` drops the settings that the file gave to its method.

    Raises:
        ClrlError: (exit 2) with one line for every problem: file, key, value, what was expected.
    """
    data = yaml_safe.read(Path(path))
    if {"sources", "targets", "run"} <= data.keys():
        raise ClrlError(f"{path} is of a study, not of a run: use clrl transfer", 2)
    changed = tuple(override(data, text) for text in overrides)
    reader = Reader(str(path), changed)
    config = make_config(reader, data, "")
    reader.finish()
    assert config is not None  # None only with problems, and those were raised
    return config


def make_config(reader: Reader, data: object, path: str) -> Config | None:
    """Return the configuration that plain values are, or None where something was wrong."""
    return reader.make(
        Config,
        data,
        path,
        agent=lambda data, path: reader.choose(agents.REGISTRY, data, path),
        method=lambda data, path: make_method(reader, data, path),
    )


def make_method(reader: Reader, data: object, path: str) -> Method | None:
    """Return the method that `{name: ..., ...}` is, or None where something was wrong."""
    method: Method | None = reader.choose(methods.REGISTRY, data, path)
    return method


def override(data: dict[str, Any], text: str) -> str:
    """Set what `a.b=c` says in place and return the key path."""
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ClrlError(f"command line: {text!r}: expected key=value, e.g. sequence.steps=1e5", 2)
    section: Any = data
    for depth, key in enumerate(keys[:-1]):
        if section.get(key) is None:
            section[key] = {}
        section = section[key]
        if not isinstance(section, dict):
            place = ".".join(keys[: depth + 1])
            raise ClrlError(f"command line: {text!r}: {place} is not a section with keys", 2)
    new = yaml_safe.parse(value, f"command line: {path}")
    if keys == ["method", "name"] and section.get("name") != new:
        old = section.pop("name", None)
        if section:  # a strength of one method means nothing to another
            given = ", ".join(f"{key}: {json.dumps(value)}" for key, value in section.items())
            log.warning("%s: settings of %s are dropped (%s)", text, old, given)
        section.clear()
    section[keys[-1]] = new
    return ".".join(keys)


def to_dict(config: Config) -> dict[str, Any]:
    """Return the resolved configuration as plain values, sections in the order of `Config`."""
    result: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if f.name == "agent":
            result[f.name] = _chosen(agents.REGISTRY, value)
        elif f.name == "method":
            result[f.name] = _chosen(methods.REGISTRY, value)
        elif hasattr(value, "__dataclass_fields__"):
            result[f.name] = _plain(asdict(value))
        else:
            result[f.name] = value
    for key in ("name", "tasks", "pretrained"):  # one that is not used says nothing
        if result["sequence"][key] is None:
            del result["sequence"][key]
    return copy.deepcopy(result)


def _chosen(registry: Mapping[str, tuple[str, str]], thing: object) -> dict[str, Any]:
    cls = type(thing)
    target = f"{cls.__module__}:{cls.__qualname__}"
    name = next((key for key, (place, _) in registry.items() if place == target), target)
    return {"name": name} | {key: _plain(getattr(thing, key)) for key in hyperparameters(cls)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def to_yaml(config: Config) -> str:
    """Return the resolved configuration as YAML that `load_config` reads back as the same."""
    return yaml_safe.dump(to_dict(config))


def config_hash(config: Config) -> str:
    """Return the sha256 (hex) of everything that can change a result.

    Left out: `name`, `tracking` and `checkpoint`, which change nothing. Device, precision and
    threads are in: they change last bits.
    """
    data = to_dict(config)
    del data["name"], data["tracking"], data["checkpoint"]
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: Config | Mapping[str, Any], new: Config | Mapping[str, Any]) -> list[str]:
    """Return a line `a.b: old -> new` for every key that two configurations differ in."""
    before, after = _flat(old), _flat(new)
    return [
        f"{key}: {_text(before, key)} -> {_text(after, key)}"
        for key in dict.fromkeys([*before, *after])
        if _text(before, key) != _text(after, key)
    ]


def protected(lines: Sequence[str]) -> list[str]:
    """Return those lines of `differences` that a resumed run may not have (see `PROTECTED`)."""
    keys = [line.partition(":")[0] for line in lines]
    return [
        line
        for line, key in zip(lines, keys, strict=True)
        if any(key == p or key.startswith(p + ".") for p in PROTECTED)
    ]


def _flat(config: Config | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    data = to_dict(config) if isinstance(config, Config) else config
    result: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            result |= _flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


def _text(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key]) if key in flat else "(absent)"
