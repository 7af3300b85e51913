"""Measure the structure of the package from its imports and definitions.

    python tools/structure.py            # of this checkout
    python tools/structure.py DIRECTORY  # of another one

A room is a folder of the package or a module next to the folders; an arrow is an import between two rooms,
wherever in a module it stands unless only types need it; floors are the longest chain of arrows.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Container, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(package: Path) -> dict[str, ast.Module]:
    """Return the syntax tree of every module by its dotted name, which begins with the package's."""
    return {
        ".".join((package.name, *path.relative_to(package).with_suffix("").parts)).removesuffix(".__init__"): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for path in sorted(package.rglob("*.py"))
    }


def imports(tree: ast.Module, known: Container[str]) -> Iterator[str]:
    """Yield the ``known`` modules that a module imports, wherever in it, but for those that only types need.

    Raises:
        ValueError: it has a relative import.
    """
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.ImportFrom):
            if node.level or not node.module:
                raise ValueError(f"line {node.lineno}: a relative import")
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found = name if name in known else node.module
                if found in known:
                    yield found
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)


def room(module: str) -> str:
    """Return the part of a module's name below the package: its folder, or its own name if it is not in one."""
    return module.partition(".")[2].partition(".")[0]


def floors(arrows: dict[str, set[str]]) -> int:
    """Return the number of rooms on the longest chain of arrows without a repeated room."""

    def longest(room: str, above: frozenset[str]) -> int:
        return 1 + max((longest(other, above | {room}) for other in arrows[room] - above - {room}), default=0)

    return max(longest(room, frozenset()) for room in arrows)


def parameters(function: Function) -> int:
    """Return how many parameters a function has."""
    arguments = function.args
    return len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)


def main(root: Path) -> None:
    """Print the figures."""
    package = root / "torchreptile"
    trees = modules(package)
    graph = {name: set(imports(tree, trees)) - {name} for name, tree in trees.items()}
    rooms = {name: room(name) for name in trees}
    arrows: dict[str, set[str]] = {room: set() for room in rooms.values()}
    for name, others in graph.items():
        arrows[rooms[name]] |= {rooms[other] for other in others} - {rooms[name]}
    try:
        TopologicalSorter(graph).prepare()
        circle = "no circle of modules"
    except CycleError as error:
        circle = "a circle: " + " -> ".join(error.args[1])
    functions = [
        (f"{name.partition('.')[2]}.{node.name}", node)
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, Function)
    ]
    longest, its = max(functions, key=lambda pair: (pair[1].end_lineno or 0) - pair[1].lineno)
    widest, most = max(functions, key=lambda pair: parameters(pair[1]))
    print(f"{len(arrows)} rooms, {sum(map(len, arrows.values()))} arrows, {floors(arrows)} floors, {circle}")
    print(f"longest function: {longest}, {(its.end_lineno or 0) - its.lineno + 1} lines with its docstring")
    print(f"longest parameter list: {widest}, {parameters(most)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
