"""Flags of ``reptile completion``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Completion:
    """Install completion of commands and flags with the Tab key, for bash or zsh. Install it again after an update."""

    shell: Annotated[Positional[Literal["auto", "bash", "zsh"]], arg(metavar="SHELL")] = "auto"
    """bash or zsh; auto takes your login shell."""
    show: bool = False
    """Print the script instead of installing it."""

    def run(self) -> int:
        """Install or print the script; return the exit code."""
        from torchreptile.cli.commands.completion import completion

        return completion(self.shell, self.show)
