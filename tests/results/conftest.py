"""Scripts under configs/results are no package: they are loaded by their place."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

RESULTS = Path(__file__).parents[2] / "configs" / "results"


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    def load(place: str) -> ModuleType:
        name = "results_" + place.removesuffix(".py").replace("/", "_")
        spec = importlib.util.spec_from_file_location(name, RESULTS / place)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # for dataclasses, and for processes beside this one
        sys.path.insert(0, str((RESULTS / place).parent))  # as when it is run: for those beside it
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.pop(0)
        return module

    return load
