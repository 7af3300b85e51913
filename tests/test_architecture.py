"""The layout: imports go down the rooms of docs/architecture.md, never up, and never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import torchreptile

PACKAGE = Path(torchreptile.__file__).parent
# From the ground up. A room may import from itself and from those before it.
ROOMS = ("core", "data", "models", "algorithms", "training", "inference", "experiments", "cli")
MODULES = {
    ".".join(("torchreptile", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports(module: str) -> Iterator[str]:
    """The package's modules that ``module`` imports, wherever in it, but for those that only types need."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{module} has a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found = name if name in MODULES else node.module
                if found in MODULES:
                    yield found
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)


def room(module: str) -> str:
    """The folder below the package, empty for what lies in the package itself."""
    parts = module.split(".")[1:]
    return parts[0] if parts and (PACKAGE / parts[0]).is_dir() else ""


def test_every_folder_is_a_room() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("module", [name for name in MODULES if room(name)])
def test_imports_go_down(module: str) -> None:
    allowed = ROOMS[: ROOMS.index(room(module)) + 1]
    if room(module) == "experiments":
        allowed = tuple(name for name in allowed if name != "inference")
    up = sorted(other for other in imports(module) if room(other) not in allowed)
    assert not up, f"{module} imports {', '.join(up)}, which stand above it"


def test_no_circle() -> None:
    try:
        TopologicalSorter({module: set(imports(module)) - {module} for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_tests_mirror_the_package() -> None:
    tests = Path(__file__).parent
    for path in sorted(tests.rglob("*.py")):
        folder = path.parent.relative_to(tests)
        assert folder.parts[:1] in ((), ("conformance",)) or (PACKAGE / folder).is_dir(), f"{path} mirrors nothing"
