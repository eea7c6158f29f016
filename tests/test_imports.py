"""The layout of the code: imports run one way, without circles, and the folders hold what their names say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.helpers import PROJECT

# A module may import what stands in a lower row, and its own row's package.
FLOORS = [
    {"ops.common", "archs"},
    {"ops.data", "ops.checkpoint"},
    {"ops.network"},
    {"ops"},  # the modules at the top of ops
    {"ops.training", "ops.evaluation", "ops.streaming", "pretrained"},
    {"main", "test_models", "opts", "tools", "online_demo", "benchmarks", "hubconf"},
]
FLOOR = {place: number for number, places in enumerate(FLOORS) for place in places}
TOP_OF_OPS = {"temporal_shift", "models", "non_local", "basic_ops", "dataset", "dataset_config"}
TOP_OF_OPS |= {"transforms", "streaming", "opts", "utils"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = [
    path
    for place in ("ops", "archs", "pretrained", "tools", "online_demo", "benchmarks")
    for path in (PROJECT / place).rglob("*.py")
]
FILES += [PROJECT / name for name in ("main.py", "test_models.py", "opts.py", "hubconf.py")]
MODULES = {module_name(path): path for path in FILES}


def place_of(module: str) -> str:
    """The entry of FLOORS that a module belongs to: the longest that it begins with."""
    return max((p for p in FLOOR if module == p or module.startswith(f"{p}.")), key=len)


def imports_of(module: str) -> set[str]:
    """Modules of the project that a module imports, anywhere in its file."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            deeper = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= deeper & MODULES.keys() or {node.module}
    return found & MODULES.keys()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_run_one_way(module):
    ours = place_of(module)
    for other in imports_of(module):
        theirs = place_of(other)
        below = FLOOR[theirs] < FLOOR[ours]
        assert below or theirs == ours or (ours, theirs) in {("tools", "online_demo"), ("benchmarks", "online_demo")}, (
            f"{module} imports {other}"
        )


def test_there_are_no_circles():
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in imports_of(module):
                visit(other, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_ops_has_its_modules_and_six_folders():
    entries = {path for path in (PROJECT / "ops").iterdir() if path.name != "__pycache__"}
    assert {path.stem for path in entries if path.is_file()} == TOP_OF_OPS | {"__init__"}
    folders = {path.name for path in entries if path.is_dir()}
    assert folders == {"common", "data", "checkpoint", "network", "training", "evaluation"}
