"""Redraw docs/images/demo.png: a screenshot of the demo after drawing examples with the tests' simulated hand.

python tools/demo_picture.py [CHROMIUM]
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.inference.demo.hand import draw, symbol, teach  # noqa: E402

NAMES = "hut", "snail", "fork"


def main() -> None:
    """Start the demo, draw, and take a screenshot."""
    chromium = sys.argv[1] if len(sys.argv) > 1 else shutil.which("chromium")
    command = [sys.executable, "-m", "torchreptile", "demo", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served, sync_playwright() as driver:
        assert served.stdout is not None
        try:
            page = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"]).new_page(
                viewport={"width": 1200, "height": 850}, device_scale_factor=1.5
            )
            page.goto(served.stdout.readline().strip())
            page.locator(".card").first.wait_for()
            rng = random.Random(3)
            teach(page, rng, examples=3)
            for card, name in zip(page.locator(".name").all(), NAMES, strict=True):
                card.fill(name)
            draw(page, page.locator("#query-pad canvas"), symbol(1, rng))
            page.locator("#verdict.answer").wait_for()
            page.mouse.move(0, 0)
            page.wait_for_timeout(400)  # until the bars stop moving
            page.screenshot(path=ROOT / "docs" / "images" / "demo.png")
        finally:
            served.terminate()


if __name__ == "__main__":
    main()
