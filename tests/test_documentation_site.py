"""The documentation site (`make docs`): every public name is on it, and nothing on it comes from elsewhere."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import zlib
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import torchreptile
from tests.easy import REPOSITORY
from torchreptile.core.config.algorithm_table import algorithm_names, algorithm_row

# Packages and modules that users import from.
DOCUMENTED = (
    "core.config", "core.errors", "data", "models", "algorithms", "algorithms.optim", "training", "training.evaluation",
    "training.loggers.mlflow", "training.loggers.tensorboard", "training.loggers.wandb", "inference", "experiments",
    "testing",
)  # fmt: skip
LOADED = re.compile(r'<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)="((?:https?:)?//[^"]*)"')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site: that of `make docs` if it is newer than all that it is made of, else one built here."""
    for module in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(module, reason="the extra docs is not installed (make docs)")
    made = REPOSITORY / "site"
    inventory = made / "objects.inv"
    if inventory.is_file() and inventory.stat().st_mtime > max(path.stat().st_mtime for path in sources()):
        return made
    made = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-d", f"{made}/doctrees"]
    done = subprocess.run([*command, "docs", f"{made}/html"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return made / "html"


def sources() -> list[Path]:
    """What the site is made of."""
    return [
        *REPOSITORY.glob("*.md"),
        *(path for path in (REPOSITORY / "docs").rglob("*") if path.is_file() and path.suffix != ".pyc"),
        *(REPOSITORY / "torchreptile").rglob("*.py"),
    ]


def objects(site: Path, role: str) -> set[str]:
    """Names of documented Python objects, in Sphinx's inventory, whose role begins with ``role``."""
    content = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    entries = (line.split(" ") for line in zlib.decompress(content).decode().splitlines())
    return {name for name, kind, *_ in entries if kind.startswith(f"py:{role}")}


@cache
def public_names(module: ModuleType) -> dict[str, object]:
    """Classes and functions that a module defines, and those that a package passes on as ``from ... import X as X``."""
    source = inspect.getsource(module)
    passed_on = set(re.findall(r"^from \S+ import (\w+) as \1$", source, re.MULTILINE))
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value))
        if name in passed_on or value.__module__ == module.__name__
    }


def home(value: object) -> str:
    """Return the name under which an object is defined."""
    return f"{value.__module__}.{value.__qualname__}"  # type: ignore[attr-defined]


def test_every_name_of_the_package_is_on_it(site: Path) -> None:
    missing = {f"torchreptile.{name}" for name in torchreptile.__all__} - objects(site, "")
    assert not missing, f"add these to docs/api/torchreptile.md: {missing}"


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_modules_are_on_it(name: str, site: Path) -> None:
    name = f"torchreptile.{name}"
    modules = [module for module in objects(site, "module") if module == name or module.startswith(f"{name}.")]
    assert modules, f"no page of docs/api documents {name}"


def test_every_public_name_of_a_documented_module_is_on_it(site: Path) -> None:
    modules = [import_module(name) for name in sorted(objects(site, "module"))]
    documented = objects(site, "")
    top = {id(getattr(torchreptile, name)) for name in torchreptile.__all__}
    elsewhere = {home(value) for module in modules for name, value in public_names(module).items()
                 if f"{module.__name__}.{name}" in documented}  # fmt: skip
    missing = [
        f"{module.__name__}.{name}"
        for module in modules
        for name, value in public_names(module).items()
        if id(value) not in top and f"{module.__name__}.{name}" not in documented and home(value) not in elsewhere
    ]
    assert not missing, f"without a docstring, or left out of docs/api: {missing}"


@pytest.mark.parametrize("name", algorithm_names())
def test_every_algorithm_is_on_it(name: str, site: Path) -> None:
    assert algorithm_row(name).implementation.replace(":", ".") in objects(site, "class")


def test_pages_and_pictures_of_docs_are_on_it(site: Path) -> None:
    docs = REPOSITORY / "docs"
    for page in docs.rglob("*.md"):
        assert (site / page.relative_to(docs).with_suffix(".html")).is_file(), page
    for picture in (docs / "images").glob("*.png"):
        assert (site / "_images" / picture.name).is_file(), picture


def test_search_finds_public_names(site: Path) -> None:
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert all(f'"{name}"' in index for name in torchreptile.__all__ if name != "__version__")


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loaded = {(page.name, url) for page in site.rglob("*.html") for url in LOADED.findall(page.read_text("utf-8"))}
    assert not loaded
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import\s*)[\"']?(?:https?:)?//", sheet.read_text("utf-8")), sheet
