"""Processes that compute together must have the same settings."""

from __future__ import annotations

from torchreptile.core.config import Config
from torchreptile.core.distributed.process_group import Processes
from torchreptile.core.errors import ConfigError


def require_same_settings(config: Config, processes: Processes) -> None:
    """Refuse settings that differ between processes, each of which would draw other tasks or train other weights.

    Raises:
        ConfigError: they differ, in this or another process.
    """
    if processes.size == 1:
        return
    first = Config.from_json(processes.from_first(config.to_json().encode()).decode())
    with processes.together():
        if departure := config.departure(first):
            raise ConfigError(f"the settings are not those of the first process: {departure}")
