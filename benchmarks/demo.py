"""Time from lifting the pen to the prediction on the page of ``reptile demo``, in a headless Chromium.

    python benchmarks/demo.py --classes 3 --examples 3 --drawings 30

Serves the demo from a separate process, draws examples, then draws and clears new drawings. The page's own performance
mark is measured, from the last pen event to the first frame that can show the prediction. It includes rasterising, the
inner steps, the predictions before, during and after adaptation, the round trip to the server and the page's own work.
"""

from __future__ import annotations

import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.inference.demo.hand import draw, symbol, teach

MARKS = "performance.getEntriesByName('pen-up to prediction').map(entry => entry.duration)"


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    classes: int = 3
    """Number of classes, at least 3; from the fourth on with one example each."""
    examples: int = 3
    """Examples of each of the first three classes."""
    drawings: int = 30
    """New drawings, of which the first two are a warm-up."""
    chromium: str = shutil.which("chromium") or shutil.which("google-chrome") or ""
    """The browser."""


def main(given: Settings) -> None:
    """Measure and print."""
    command = [sys.executable, "-m", "torchreptile", "demo", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        try:
            address = served.stdout.readline().strip()
            durations, right = measure(address, given.chromium, given.classes, given.examples, given.drawings)
        finally:
            served.terminate()
    durations = durations[2:]  # the first two are a warm-up
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    print(
        f"{given.classes} classes, {given.examples} examples, 50 inner steps: pen-up to prediction "
        f"{statistics.median(durations):.0f} ms (median of {len(durations)}; least {min(durations):.0f}, "
        f"most {max(durations):.0f}), {right} of {given.drawings} right"
    )
    print(f"{platform.machine()}, {cores} cores, {torch.get_num_threads()} threads, torch {torch.__version__}")


def measure(address: str, chromium: str, classes: int, examples: int, drawings: int) -> tuple[list[float], int]:
    """Return the milliseconds of each new drawing's last stroke, and how many were classified correctly."""
    rng, durations, right = random.Random(0), [], 0
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        page.locator(".card").first.wait_for()
        teach(page, rng, examples)
        for number in range(3, classes):
            page.click("#add-class")
            dashes = [[(0.2, y / 10), (0.8, y / 10)] for y in range(2, number)]
            draw(page, page.locator(".card").nth(number).locator(".pad canvas"), dashes)
        paper = page.locator("#query-pad canvas")
        for number in range(drawings):
            if number:
                page.click("#query-pad .clear")
            page.get_by_text("The network has adapted to your examples").wait_for()
            *first, last = symbol(number % 3, rng)
            draw(page, paper, first)
            if first:
                page.locator("#verdict.answer").wait_for()
                page.wait_for_timeout(50)
            known = len(page.evaluate(MARKS))
            draw(page, paper, [last])
            while len(marks := page.evaluate(MARKS)) == known:
                page.wait_for_timeout(20)
            durations.append(marks[-1])
            right += page.inner_text("#verdict b") == "ABC"[number % 3]
        browser.close()
    return durations, right


if __name__ == "__main__":
    main(tyro.cli(Settings))
