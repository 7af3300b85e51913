"""The layout: imports go down the rooms of docs/architecture.md, never up, and never in a circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import torchreptile
from tests.easy import load_script

PACKAGE = Path(torchreptile.__file__).parent
# From the ground up. A room may import from itself and from those before it.
ROOMS = ("core", "data", "models", "algorithms", "training", "inference", "experiments", "cli")
structure = load_script("tools", "structure")
MODULES = structure.modules(PACKAGE)


def imports(module: str) -> set[str]:
    """The package's modules that ``module`` imports, by the script that measures the structure."""
    return set(structure.imports(MODULES[module], MODULES))


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
        TopologicalSorter({module: imports(module) - {module} for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_tests_mirror_the_package() -> None:
    tests = Path(__file__).parent
    for path in sorted(tests.rglob("*.py")):
        folder = path.parent.relative_to(tests)
        assert folder.parts[:1] in ((), ("conformance",)) or (PACKAGE / folder).is_dir(), f"{path} mirrors nothing"


def test_imports_are_found_wherever_they_stand() -> None:
    source = (
        "import torchreptile.data.splits\ndef late():\n    from torchreptile.core import errors, config\n"
        "if TYPE_CHECKING:\n    from torchreptile.cli import main\n"
    )
    found = set(structure.imports(ast.parse(source), MODULES))
    assert found == {f"torchreptile.{name}" for name in ("data.splits", "core.errors", "core.config")}
    with pytest.raises(ValueError, match="relative import"):
        list(structure.imports(ast.parse("from . import errors"), MODULES))
