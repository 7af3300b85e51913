"""Omniglot: downloaded or read in place, verified and divided into splits."""

from __future__ import annotations

from torchreptile.data.omniglot.dataset import load as load
from torchreptile.data.omniglot.dataset import split as split
