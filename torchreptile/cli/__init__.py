"""The command line ``reptile``.

Each command's flags are a dataclass in :mod:`torchreptile.cli.flags`, whose docstrings are the help texts; its
implementation is in :mod:`torchreptile.cli.commands`, imported only when the command runs, so that ``--help`` does not
wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchreptile.cli.parser import Command as Command, parse as parse

from torchreptile.cli.main import main as main


def __getattr__(name: str) -> Any:
    """Load the parser on first use: ``main`` handles Ctrl-C while it is loaded."""
    if name in ("Command", "parse"):
        return getattr(import_module("torchreptile.cli.parser"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
