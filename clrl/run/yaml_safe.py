"""A small, safe part of YAML: mappings, lists, strings, numbers, true, false and null.

PyYAML reads YAML 1.1, where `on: no` means {True: False}, `1e-4` is a string, `010` is 8, a later
duplicate key silently wins, and nine lines of aliases fill the memory. None of that belongs in a
configuration, so this loader knows only the plain rules of YAML 1.2 and refuses the rest.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

import yaml

from clrl.errors import ClrlError

__all__ = ["MAX_BYTES", "dump", "nearest", "parse", "read"]

MAX_BYTES = 1_000_000
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9][0-9_]*$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


class _Loader(yaml.SafeLoader):
    """SafeLoader's scanner and parser, with resolvers and constructors of our own."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    yaml_constructors: ClassVar[dict[str | None, Any]] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.constructor.ConstructorError(
                None, None, "anchors and aliases (&, *) are not accepted", event.start_mark
            )
        return super().compose_node(parent, index)

    def mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        """Return a dict with text keys; a key that comes twice is an error."""
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be plain text", key_node.start_mark
                )
            key = str(key_node.value)  # as it is written: 'on' stays 'on', 1 becomes '1'
            if key in result:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} comes twice", key_node.start_mark
                )
            result[key] = self.construct_object(value_node, deep=True)
        return result

    def sequence(self, node: yaml.SequenceNode) -> list[Any]:
        return self.construct_sequence(node, deep=True)

    def text(self, node: yaml.ScalarNode) -> str:
        return str(self.construct_scalar(node))

    def number(self, node: yaml.ScalarNode) -> int | float:
        text = str(node.value).replace("_", "")
        if _INT.match(text):
            return int(text)
        return float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))

    def unknown(self, node: yaml.Node) -> Hashable:
        raise yaml.constructor.ConstructorError(
            None, None, f"the tag {node.tag.replace(_TAG, '!!')!r} is not accepted", node.start_mark
        )


_TAG = "tag:yaml.org,2002:"
_Loader.add_implicit_resolver(_TAG + "null", _NULL, ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_TAG + "bool", _BOOL, list("tTfF"))
_Loader.add_implicit_resolver(_TAG + "int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+.0123456789"))
_Loader.add_constructor(_TAG + "null", lambda loader, node: None)
_Loader.add_constructor(_TAG + "bool", lambda loader, node: node.value.lower() == "true")
_Loader.add_constructor(_TAG + "int", _Loader.number)
_Loader.add_constructor(_TAG + "float", _Loader.number)
_Loader.add_constructor(_TAG + "str", _Loader.text)
_Loader.add_constructor(_TAG + "seq", _Loader.sequence)
_Loader.add_constructor(_TAG + "map", _Loader.mapping)
_Loader.add_constructor(None, _Loader.unknown)


def parse(text: str, source: str) -> Any:
    """Return what a YAML text says.

    Args:
        text: one document.
        source: where it comes from, named in errors.

    Raises:
        ClrlError: (exit 2) not YAML, or YAML that is not accepted here; names the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - the loader above builds plain values
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        hint = "; indent with spaces" if "'\\t'" in problem else ""
        raise ClrlError(f"{source}{line}: not a valid configuration: {problem}{hint}", 2) from None
    except (yaml.YAMLError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise ClrlError(f"{source}: not a valid configuration: {problem}", 2) from None
    except RecursionError:
        raise ClrlError(f"{source}: not a valid configuration: nested too deep", 2) from None


def read(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        ClrlError: (exit 2) not there (names the nearest files), not a regular file, too large,
            unreadable, or not a mapping.
    """
    try:
        if not path.is_file():
            raise ClrlError(_why_no_file(path), 2)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ClrlError(f"{path}: cannot be read: {error.strerror}", 2) from None
    if len(data) > MAX_BYTES:
        raise ClrlError(f"{path}: larger than {MAX_BYTES:,} bytes: not a configuration", 2)
    try:
        content = parse(data.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError:
        raise ClrlError(f"{path}: not a text file in UTF-8", 2) from None
    if not isinstance(content, dict):
        found = {type(None): "nothing", list: "a list"}.get(type(content), f"{content!r:.60}")
        raise ClrlError(f"{path}: expected 'key: value' lines at the top level, found {found}", 2)
    return content


def _why_no_file(path: Path) -> str:
    if path.is_dir():
        return f"{path}: is a folder; give a YAML file, e.g. {path / 'smoke.yaml'}"
    if path.exists():
        return f"{path}: not a regular file"
    folder = path.parent
    names = sorted(p.name for p in folder.glob("*.y*ml")) if folder.is_dir() else []
    if not names:
        return f"{path}: no such file, and no YAML files in '{folder}'"
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.4) or names[:8]
    return f"{path}: no such file; in '{folder}' there are: {', '.join(close)}"


def nearest(value: object, valid: list[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest valid name, else the list of valid names."""
    lower = {name.lower(): name for name in valid}
    close = difflib.get_close_matches(str(value).lower(), lower, n=1)
    if close:
        return f"; did you mean '{lower[close[0]]}'?"
    return f"; valid: {', '.join(valid)}" if valid else ""


class _Dumper(yaml.SafeDumper):
    """Lists on one line; quotes what YAML 1.1 or `parse` would misread."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern in (("null", _NULL), ("bool", _BOOL), ("int", _INT), ("float", _FLOAT)):
    _Dumper.add_implicit_resolver(_TAG + _tag, _pattern, None)
_Dumper.add_representer(
    list, lambda dumper, data: dumper.represent_sequence(_TAG + "seq", data, flow_style=True)
)


def dump(data: dict[str, Any]) -> str:
    """Return YAML that `parse` reads back as the same value, keys in their order."""
    return yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True
    )
