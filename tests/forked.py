"""Processes that are forked from one which has imported torch: fresh, and there at once.

A fork of the tests' own process would know what other tests registered; a new one imports torch for a second or two.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from tests.in_process import Done
from torchreptile.cli.main import main

# Of these alone, no module asks at its import which other packages are installed: a test adds one.
IMPORTED = ["torchreptile.cli.parser", "torchreptile.cli.commands.train", "torchreptile.cli.commands.evaluate"]


class Forked:
    """A function that runs in its own process, in the current folder."""

    def __init__(self, function: Callable[[], object], words: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it.

        Args:
            function: of a module; reads ``sys.argv``.
            words: the arguments in ``sys.argv``.
            environment: variables besides those that are set here.
        """
        self._folder = TemporaryDirectory()
        self._outputs = [Path(self._folder.name, name) for name in ("out", "err")]
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        arguments = (function, words, {**os.environ, **environment}, os.getcwd(), list(map(str, self._outputs)))
        self._process = context.Process(target=_run, args=arguments)
        # The child would import the script that was started, which is pytest's.
        script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            self._process.start()
        finally:
            sys.modules["__main__"] = script

    def done(self, timeout: float | None = None) -> Done:
        """Wait, for so many seconds, until it has ended; a signal's exit code is negative."""
        self._process.join(timeout)
        code = self._process.exitcode
        self._process.kill()
        self._process.join()
        with self._folder:
            out, err = (path.read_text(encoding="utf-8") for path in self._outputs)
        assert code is not None, f"it still ran after {timeout} s: {err}"
        return Done(code, out, err)


def run_forked(*words: str, **environment: str) -> Done:
    """Run ``reptile WORDS``, with these environment variables besides those that are set."""
    return Forked(main, words, environment).done()


def _run(
    function: Callable[[], object],
    words: Sequence[str],
    environment: Mapping[str, str],
    folder: str,
    outputs: Sequence[str],
) -> None:
    """Call a function as if this process had been started for it."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = environment.get("PYTHONPATH", "").split(os.pathsep)
    for stream, path in enumerate(outputs, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, stream)
        os.close(file)
    sys.argv = ["reptile", *words]
    function()
