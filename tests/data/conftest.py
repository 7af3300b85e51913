"""For every test of the data: its own cache, no data of the user's, and a network that is down."""

from __future__ import annotations

from pathlib import Path

import pooch
import pytest


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every test has its own cache, no data of the user's, and a network that is down."""
    monkeypatch.setenv("TORCHREPTILE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHREPTILE_DATA", raising=False)

    def down(url: str, **_: object) -> str:
        raise OSError(f"no route\nto {url}")

    monkeypatch.setattr(pooch, "retrieve", down)
