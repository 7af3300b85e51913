"""Flags of ``reptile presets``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Presets:
    """List the presets with published results, and the shipped weights."""

    def run(self) -> int:
        """Print the list; return the exit code."""
        from torchreptile.cli.commands.presets import presets

        return presets()
