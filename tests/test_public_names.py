"""What ``import torchreptile as tr`` offers."""

from __future__ import annotations

import subprocess
import sys

import torchreptile as tr


def test_names_are_what_they_are_whatever_was_imported_before() -> None:
    """A submodule of the same name would take a function's place as soon as anything imports it."""
    code = (
        "import importlib, pkgutil, torchreptile as tr\n"
        "for module in pkgutil.walk_packages(tr.__path__, 'torchreptile.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        "print([name for name in tr.__all__ if not (callable(getattr(tr, name)) or name == '__version__')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_names_are_there() -> None:
    assert {"FewShotClassifier", "FewShotRegressor", "train", "evaluate", "report", "preset"} <= set(tr.__all__)
    for name in tr.__all__:
        assert getattr(tr, name) is not None
