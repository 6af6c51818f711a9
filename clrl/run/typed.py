"""From plain values (what YAML gives) to dataclasses, with one line for every problem found.

pydantic decides whether a value is of its field's type; names, nesting and wording are done here,
so that every message names the source, the key's path, the value, and what was expected.
"""

from __future__ import annotations

import importlib
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from clrl.run.yaml_safe import nearest
from clrl.types import ClrlError

__all__ = ["Reader", "hyperparameters"]

T = TypeVar("T")
Registry = Mapping[str, tuple[str, str]]


class Reader:
    """Reads dataclasses from mappings and collects what is wrong with them.

    Attributes:
        problems: one line each, in the order found.
    """

    def __init__(self, source: str, overridden: tuple[str, ...] = ()) -> None:
        """Begin; `overridden` lists the key paths whose values came from the command line."""
        self.source = source
        self.overridden = overridden
        self.problems: list[str] = []

    def complain(self, path: str, text: str) -> None:
        """Add a problem with the key at `path`; `text` reads on from it."""
        source = self.source
        for key in self.overridden:
            if path == key or path.startswith((f"{key}.", f"{key}[")):
                source = "command line"
            elif key.startswith(f"{path}.") and source == self.source:
                source = f"{self.source} + command line"
        self.problems.append(f"{source}: {path} {text}")

    def finish(self) -> None:
        """Raise a `ClrlError` (exit 2) with every problem, if there are any."""
        if self.problems:
            raise ClrlError("\n".join(self.problems), 2)

    def make(
        self, cls: type[T], data: object, path: str, **read: Callable[[object, str], Any]
    ) -> T | None:
        """Return an instance of a dataclass, or None where something was wrong.

        Args:
            cls: a dataclass; nested dataclasses are read likewise.
            data: a mapping of its fields; None stands for an empty one.
            path: of the section, for messages; "" at the top.
            read: readers `(data, path) -> value` for fields that need their own.
        """
        if not isinstance(data, Mapping | None):
            self.complain(path, f"is {_show(data)}: expected a section with {_names(cls)}")
            return None
        known = hyperparameters(cls)
        hints = typing.get_type_hints(cls, include_extras=True)
        before = len(self.problems)
        for key in data or {}:
            if key not in known:
                hint = nearest(key, list(known))
                self.complain(_join(path, key), f"is not a key that exists here{hint}")
        values: dict[str, Any] = {}
        for name, field in known.items():
            key = _join(path, name)
            if data and name in data:
                reader = read.get(name) or self._reader(hints[name])
                values[name] = reader(data[name], key)
            elif field.default is MISSING and field.default_factory is MISSING:
                self.complain(key, "is missing: it has no default")
        if len(self.problems) > before:
            return None
        return self._construct(cls, values, path)

    def choose(self, registry: Registry, data: object, path: str) -> Any:
        """Return an instance of the registry's class that `data["name"]` names, or None."""
        if not isinstance(data, Mapping):
            self.complain(path, f"is {_show(data)}: expected e.g. {{name: {next(iter(registry))}}}")
            return None
        name = data.get("name")
        if not isinstance(name, str) or name not in registry:
            hint = nearest(name, list(registry)) if name else f"; valid: {', '.join(registry)}"
            what = f"is {_show(name)}: unknown" if "name" in data else "is missing"
            self.complain(_join(path, "name"), what + hint)
            return None
        module, _, cls = registry[name][0].partition(":")
        rest = {key: value for key, value in data.items() if key != "name"}
        return self.make(getattr(importlib.import_module(module), cls), rest, path)

    def value(self, hint: Any, value: object, path: str) -> Any:
        """Return a value as the type `hint` has it, or None where it is of another type."""
        if isinstance(value, float) and math.isnan(value):
            self.complain(path, "is nan: expected a number")
            return None
        try:
            return TypeAdapter(hint).validate_python(_soften(hint, value), strict=True)
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                place = "".join(f"[{part}]" for part in problem["loc"] if isinstance(part, int))
                expected = problem["msg"].replace("Input should be ", "")
                expected = _PLAIN.get(expected, expected)
                valid = [v for v in typing.get_args(hint) if isinstance(v, str)]
                near = nearest(problem["input"], valid) if valid else ""
                near = near if "did you mean" in near else ""
                shown = _show(problem["input"])
                self.complain(path + place, f"is {shown}: expected {expected}{near}")
            return None

    def _reader(self, hint: Any) -> Callable[[object, str], Any]:
        if isinstance(hint, type) and is_dataclass(hint):
            return lambda data, path: self.make(hint, data, path)
        return lambda data, path: self.value(hint, data, path)

    def _construct(self, cls: type[T], values: dict[str, Any], path: str) -> T | None:
        try:
            return cls(**values)
        except (ValueError, ClrlError) as error:  # a class's own check of its ranges
            first, _, rest = str(error).partition(" ")
            if first in values:
                self.complain(_join(path, first), rest)
            else:
                self.complain(path or "the whole", f"cannot be used: {error}")
            return None


_PLAIN = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "text",
    "a valid boolean": "true or false",
    "a valid tuple": "a list in [ ]",
    "greater than 0": "a number above 0",
    "greater than or equal to 0": "0 or more",
}


def hyperparameters(cls: type) -> dict[str, Field[Any]]:
    """Return the fields of a dataclass that its constructor takes, by name."""
    return {f.name: f for f in fields(cls) if f.init}


def _soften(hint: Any, value: object) -> object:
    """Turn what YAML says otherwise into the type asked for: 1e6 into an int, a list, inf."""
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for arg in args:
            value = _soften(arg, value)
    elif hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    elif hint is float and value == "inf":  # YAML's own word is .inf
        return math.inf
    elif origin is tuple and isinstance(value, list):
        parts = [args[0]] * len(value) if args[1:] == (...,) else [*args, *value][: len(value)]
        return tuple(_soften(part, item) for part, item in zip(parts, value, strict=True))
    return value


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _names(cls: type) -> str:
    return ", ".join(hyperparameters(cls))


def _show(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "empty", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
