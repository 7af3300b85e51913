"""pandas DataFrames, where pandas is installed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torchreptile.core.errors import ConfigError


def data_frame(content: Any) -> Any:
    """Return a pandas DataFrame of columns by name, or of a list of rows.

    Raises:
        ConfigError: pandas is not installed.
    """
    if find_spec("pandas") is None:
        raise ConfigError("pandas is not installed; pip install pandas")
    return import_module("pandas").DataFrame(content)
