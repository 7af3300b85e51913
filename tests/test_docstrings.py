"""Docstrings of the package: the examples in them run, and each makes sense without its neighbour."""

from __future__ import annotations

import ast
import doctest
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import torchreptile
from tests.easy import REPOSITORY

OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def with_examples() -> list[str]:
    """Modules in whose source an example stands; ``__main__`` would run the command."""
    names = [module.name for module in pkgutil.walk_packages(torchreptile.__path__, "torchreptile.")]
    return [name for name in ["torchreptile", *names] if not name.endswith("__main__") and ">>> " in source_of(name)]


def source_of(name: str) -> str:
    path = REPOSITORY.joinpath(*name.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", with_examples())
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    report: list[str] = []
    found = 0
    for documented in doctest.DocTestFinder().find(import_module(name), name):
        found += len(documented.examples)
        runner.run(documented, out=report.append)
    assert not report, "".join(report)
    assert found == source_of(name).count(">>> "), "an example stands where doctest does not look"


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every string that stands by itself, with its line: docstrings, and those of fields and constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def test_docstrings_stand_on_their_own() -> None:
    leaning = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in sorted((REPOSITORY / "torchreptile").rglob("*.py"))
        for line, text in docstrings(ast.parse(path.read_text(encoding="utf-8")))
        if text.strip().startswith("The same")
    ]
    assert not leaning
