"""The command line in a process that is forked from one which has imported torch: fresh, and there at once.

A fork of the tests' own process would know what other tests registered; a new one imports torch for a second or two.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from tests.in_process import Done

IMPORTED = ["torchreptile.cli.parser", "torchreptile.cli.commands.train", "torchreptile.cli.commands.evaluate"]


def run_forked(*words: str, **environment: str) -> Done:
    """Run ``reptile WORDS`` in the current folder, with these environment variables besides those that are set."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("out", "err")]
        process = context.Process(
            target=_run, args=(words, {**os.environ, **environment}, os.getcwd(), list(map(str, outputs)))
        )
        # The child would import the script that was started, which is pytest's.
        script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            process.start()
        finally:
            sys.modules["__main__"] = script
        process.join()
        assert process.exitcode is not None
        return Done(process.exitcode, *(path.read_text(encoding="utf-8") for path in outputs))


def _run(words: Sequence[str], environment: Mapping[str, str], folder: str, outputs: Sequence[str]) -> None:
    """Run a command as if this process had been started for it."""
    from torchreptile.cli.main import main

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = environment.get("PYTHONPATH", "").split(os.pathsep)
    for stream, path in enumerate(outputs, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, stream)
        os.close(file)
    sys.argv = ["reptile", *words]
    main()
