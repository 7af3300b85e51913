"""``reptile presets``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Presets:
    """List the presets with what was published for them, and the shipped weights."""

    def run(self) -> int:
        """Print the list."""
        from torchreptile.cli.commands.presets import presets

        return presets()
