"""The house rules, read from the source: what imports what, what is packaged, what is not used."""

from __future__ import annotations

import ast
import fnmatch
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS: dict[str, Any] = PROJECT["tool"]["setuptools"]
FOLDERS = {"clrl": "clrl", "clrl.agents": "agents", "clrl.envs": "envs"}  # package: its folder

# ------------------------------------------------------------------- imports point one way
#
# A module may import what its line allows: each name stands for that module and all below it. The
# line with the longest matching prefix counts. Everything may import itself and its own folder.
# Imports inside functions and under TYPE_CHECKING count too.

CORE = ("clrl.errors", "clrl.types", "clrl.nets", "clrl.method", "clrl.step")
ALLOWED: dict[str, tuple[str, ...]] = {
    "clrl": (),
    "clrl.errors": (),
    "clrl.types": ("clrl.errors",),
    "clrl.nets": ("clrl.errors", "clrl.types"),
    "clrl.method": ("clrl.types", "clrl.nets"),
    "clrl.step": ("clrl.types", "clrl.nets", "clrl.method"),
    "clrl.methods": CORE,
    "clrl.agents": CORE,  # a learner knows no method by name,
    "clrl.envs": CORE,  # a game knows neither learner nor method
    "clrl.run": ("clrl", *CORE),  # config, checkpoint, tracking, ...: one run's parts
    "clrl.run.config": ("clrl",),  # names every method, agent, body, game: to validate them
    "clrl.run.assemble": ("clrl",),  # the room where tasks, learners and methods meet,
    "clrl.run.walk": ("clrl",),  # with the one that walks a run through them
    "clrl.run.saving": ("clrl",),
    "clrl.run.summary": ("clrl",),
    "clrl.run.pretrained": ("clrl",),
    "clrl.run.evaluate": ("clrl",),  # and the one that scores them
    "clrl.study": ("clrl.errors", "clrl.types", "clrl.run"),  # starts runs, reads their folders
    "clrl.bench": ("clrl",),  # measures all of them
    "clrl.cli": ("clrl",),  # on top,
    "clrl.__main__": ("clrl.cli",),
    "clrl.listing": ("clrl",),  # with its `list`
    "clrl.doctor": ("clrl.errors", "clrl.types", "clrl.envs"),  # and its `doctor`
}
ROOMS = ("clrl.methods", "clrl.agents", "clrl.envs")  # no two of them meet, but in these:
COMPOSERS = (
    "clrl.run.config",
    "clrl.run.assemble",
    "clrl.run.walk",
    "clrl.run.evaluate",
    "clrl.run.record",
    "clrl.bench",
    "clrl.cli",
    "clrl.listing",
)


def sources() -> dict[str, Path]:
    """Return every module of the package by its dotted name, as installed."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


SOURCES = sources()


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(name: str) -> Iterator[tuple[str, int]]:
    """Yield the modules that a module imports, with the line."""
    for node in ast.walk(tree(SOURCES[name])):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}:{node.lineno}: relative import"
            for alias in node.names:  # `from clrl import types` imports clrl.types
                full = f"{node.module}.{alias.name}"
                yield full if full in SOURCES else str(node.module), node.lineno


def inside(module: str, *prefixes: str) -> bool:
    return any(module == p or module.startswith(f"{p}.") for p in prefixes)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_imports_point_one_way(name: str) -> None:
    rule = max((r for r in ALLOWED if inside(name, r)), key=len)
    may = (*ALLOWED[rule], *(() if rule == "clrl" else (rule,)))
    for module, line in imports(name):
        if not inside(module, "clrl") or module == "clrl":  # clrl itself holds only the version
            continue
        assert inside(module, *may), f"{name}:{line} imports {module}; may import {may}"


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_methods_agents_and_envs_meet_only_where_runs_are_composed(name: str) -> None:
    met = {room for room in ROOMS for module, _ in imports(name) if inside(module, room)}
    met |= {room for room in ROOMS if inside(name, room)}
    assert len(met) < 2 or inside(name, *COMPOSERS), f"{name} knows {sorted(met)}"


# ------------------------------------------------------------------------------- packaging


def test_listed_packages_are_those_on_disk() -> None:
    on_disk = {
        ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
        for package, folder in FOLDERS.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert sorted(SETUPTOOLS["packages"]) == sorted(on_disk)
    assert SETUPTOOLS["package-dir"] == FOLDERS
    for package in on_disk:
        assert SOURCES[package].name == "__init__.py", f"{package} lacks an __init__.py"


def test_every_data_file_is_shipped() -> None:
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_dir() or path.suffix in {".py", ".pyc"}:
                continue
            inner = ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
            patterns = SETUPTOOLS["package-data"].get(inner, [])
            shipped = any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)
            assert shipped, f"{path.relative_to(ROOT)}: not in package-data of {inner}"


IMPORT_NAMES = {  # distribution: what it is imported as, where that is not its own name
    "opencv-python-headless": "cv2",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_only_declared_dependencies_are_imported(name: str) -> None:
    project = PROJECT["project"]
    options = {k: v for k, v in project["optional-dependencies"].items() if k != "dev"}
    declared = [*project["dependencies"], *(line for lines in options.values() for line in lines)]
    names = [re.split(r"[<>=!~; \[]", line)[0].lower() for line in declared]
    known = {IMPORT_NAMES.get(n, n.replace("-", "_")) for n in names}
    for module, line in imports(name):
        top = module.split(".")[0]
        assert top in known | sys.stdlib_module_names | {"clrl"}, f"{name}:{line} imports {top}"


def test_version_is_written_the_same_twice() -> None:
    import clrl

    assert clrl.__version__ == PROJECT["project"]["version"]


# -------------------------------------------------------------------------------- importing


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that stands in the repository's root."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("folder", ["agents", "envs"])
def test_importing_a_folder_by_its_bare_name_says_what_to_import(folder: str) -> None:
    bare = python(f"import {folder}")
    assert bare.returncode == 1
    assert bare.stderr.splitlines()[-1].startswith("ImportError: ")
    assert f"import clrl.{folder}" in bare.stderr.splitlines()[-1]
    assert python(f"import clrl.{folder}").returncode == 0


def test_importing_clrl_imports_nothing_heavy() -> None:
    heavy = "torch numpy gymnasium ale_py cv2 pydantic wandb stable_baselines3 typer rich"
    code = f"import sys, clrl; print(*(set({heavy!r}.split()) & set(sys.modules)))"
    result = python(code)
    assert (result.returncode, result.stdout.split()) == (0, []), result.stderr


# ------------------------------------------------------------------------------- never used

PICKLES = ("pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
NEVER_CALLED = ("eval", "exec", "torch.save", "yaml.full_load", "yaml.unsafe_load")


def dotted(node: ast.expr) -> str:
    """Return `a.b.c` of an attribute chain, or "" where it does not start at a name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def has_flag(call: ast.Call, name: str, value: bool) -> bool:
    """Tell whether a call is given `name=value` in so many words."""
    constants = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
    return constants.get(name) is value


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_nothing_is_ever_unpickled(name: str) -> None:
    for module, line in imports(name):
        assert not inside(module, *PICKLES), f"{name}:{line} imports {module}"
    for node in ast.walk(tree(SOURCES[name])):
        if isinstance(node, ast.ImportFrom) and node.module in {"torch", "numpy", "yaml"}:
            bare = {"load", "save", "unsafe_load", "full_load"} & {a.name for a in node.names}
            assert not bare, f"{name}:{node.lineno}: write {node.module}.{bare} where it is called"
        if not isinstance(node, ast.Call):
            continue
        where, called = f"{name}:{node.lineno}", dotted(node.func)
        if called in {"torch.load", "th.load"} or called.endswith("load_state_dict_from_url"):
            assert has_flag(node, "weights_only", True), f"{where}: {called} may run code"
        if called in {"np.load", "numpy.load"}:
            assert has_flag(node, "allow_pickle", False), f"{where}: say allow_pickle=False"
        assert not has_flag(node, "allow_pickle", True), f"{where}: allow_pickle=True"
        assert not has_flag(node, "weights_only", False), f"{where}: weights_only=False"
        assert called not in NEVER_CALLED, f"{where}: {called}"


@functools.cache
def method_classes() -> set[str]:
    """Return the names of all method classes, `Method` among them."""
    names = {"Method"}
    modules = [tree(p) for name, p in SOURCES.items() if inside(name, "clrl.methods")]
    classes = [node for m in modules for node in ast.walk(m) if isinstance(node, ast.ClassDef)]
    for _ in classes:  # as many rounds as could be needed for grandchildren
        names |= {c.name for c in classes if names & {dotted(b).split(".")[-1] for b in c.bases}}
    return names


@functools.cache
def method_names() -> set[str]:
    from clrl.methods import REGISTRY

    return set(REGISTRY)


LEARNERS = sorted(name for name in SOURCES if inside(name, "clrl.agents"))


def last_names(nodes: list[ast.expr]) -> set[str]:
    """Return the last part of every name in these expressions: `b` of `a.b`."""
    parts = (dotted(n) for node in nodes for n in ast.walk(node) if isinstance(n, ast.expr))
    return {part.split(".")[-1] for part in parts}


@pytest.mark.parametrize("name", LEARNERS)
def test_learners_never_ask_which_method_they_have(name: str) -> None:
    for node in ast.walk(tree(SOURCES[name])):
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        asked: list[ast.expr] = []  # what a decision rests on
        if isinstance(node, ast.Call) and dotted(node.func) in {"isinstance", "issubclass"}:
            asked = node.args
        elif isinstance(node, ast.Compare) and "type" in last_names([node]):
            asked = [node]
        elif isinstance(node, ast.MatchClass):
            asked = [node.cls]
        met = last_names(asked) & {"method", "_method", *method_classes()}
        assert not met, f"{where}: asks for the class of {met}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert node.value.lower() not in method_names(), f"{where}: names {node.value!r}"


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_module_is_a_drawer_for_everything(name: str) -> None:
    drawers = {"utils", "util", "common", "misc", "helpers", "manager", "managers"}
    assert not drawers & set(name.split(".")), f"{name}: name it by what it holds"


def test_no_class_is_a_manager() -> None:
    for name, path in SOURCES.items():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                assert not node.name.endswith(("Manager", "Helper")), f"{name}: {node.name}"
