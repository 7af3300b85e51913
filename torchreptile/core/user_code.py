"""The user's own code, named on the command line as ``FILE.py:NAME``.

Such a file is run as Python code, so it is loaded only where the user typed the name, never because of settings that
were read from a run folder, a checkpoint or weights.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

from torchreptile.core.errors import ConfigError, first_line


def names_a_file(named: str) -> bool:
    """Return whether ``named`` has the form ``FILE.py:NAME``.

    Example:
        >>> names_a_file("mine.py:Mine"), names_a_file("reptile")
        (True, False)
    """
    path, colon, name = named.rpartition(":")
    return bool(colon) and name.isidentifier() and path.endswith(".py")


def load_from_file(setting: str, named: str) -> object:
    """Run a Python file and return the callable it defines under a name.

    Args:
        setting: the setting that names it, for messages: model, algorithm or dataset.
        named: ``FILE.py:NAME``.

    Raises:
        ConfigError: there is no such file or callable, or the file fails.
    """
    path, _, name = named.rpartition(":")
    if not names_a_file(named):
        raise ConfigError(f"{setting} is {named}; it must be a Python file and a name in it, such as net.py:Net")
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"{setting} is {named}, but there is no file {file}")
    key = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"torchreptile_user_{file.stem}_{key}", file)
    assert spec is not None
    assert spec.loader is not None  # neither is None for a .py file
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's code may raise anything
        del sys.modules[spec.name]
        raise ConfigError(f"{setting} {named}: {file} fails ({described(error)})") from error
    found = module.__dict__.get(name)
    if not callable(found):
        callables = sorted(n for n, value in module.__dict__.items() if callable(value) and not n.startswith("_"))
        raise ConfigError(
            f"{setting} {named}: {file} has no callable {name}; its callables are {', '.join(callables) or 'none'}"
        )
    return found


def described(error: Exception) -> str:
    """Return the type of an error and the first line of its message, if it has one.

    Example:
        >>> described(ValueError("no")), described(KeyError())
        ('ValueError: no', 'KeyError')
    """
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"
