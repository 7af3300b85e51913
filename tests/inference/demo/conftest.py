"""A demo that is really served, from a thread of the tests; and a browser to look at it, where there is one."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import uvicorn

from torchreptile.inference.demo import server
from torchreptile.inference.demo.adaptation import Adapter
from torchreptile.training.weights import load_weights

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass(frozen=True)
class Served:
    """Where it listens, and the token it wants."""

    port: int
    token: str

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@pytest.fixture(scope="session")
def adapter() -> Adapter:
    return Adapter(load_weights("omniglot-5way"), "cpu")


def serving(adapter: Adapter, token: str = "") -> Iterator[Served]:
    worker = server.Worker()
    with server.listen("127.0.0.1", 0) as listening:
        running = uvicorn.Server(server.settings(server.application(adapter, worker, token)))
        thread = threading.Thread(target=running.run, args=([listening],))
        thread.start()
        while not running.started:
            time.sleep(0.01)
        yield Served(listening.getsockname()[1], token)
        running.should_exit = True
        thread.join()
    worker.close()


@pytest.fixture(scope="session")
def demo(adapter: Adapter) -> Iterator[Served]:
    """As on this machine alone."""
    yield from serving(adapter)


@pytest.fixture(scope="session")
def guarded(adapter: Adapter) -> Iterator[Served]:
    """As where others can connect."""
    yield from serving(adapter, "right-token")


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    """Headless; skips where none is installed."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
