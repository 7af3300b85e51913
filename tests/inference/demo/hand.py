"""Made-up symbols, and a hand that draws them with the mouse: for tests, screenshots and the measurement of latency."""

from __future__ import annotations

import math
import random
from typing import Any

Points = list[tuple[float, float]]


def symbol(kind: int, rng: random.Random) -> list[Points]:
    """Strokes of a triangle with a bar, a spiral, or a fork, from 0 to 1 across the paper, never twice the same."""

    def near(x: float, y: float) -> tuple[float, float]:
        return x + rng.uniform(-0.03, 0.03), y + rng.uniform(-0.03, 0.03)

    if kind == 0:
        top = near(0.5, 0.15)
        return [[top, near(0.85, 0.8), near(0.15, 0.8), top], [near(0.3, 0.55), near(0.72, 0.52)]]
    if kind == 1:
        (x, y), wide = near(0.5, 0.5), rng.uniform(0.8, 1.1)
        turns = [(0.016 * wide * (1 + t), 0.32 * t) for t in range(24)]
        return [[(x + r * math.cos(angle), y + r * math.sin(angle)) for r, angle in turns]]
    middle = near(0.3, 0.5)
    return [
        [near(0.3, 0.15), near(0.28, 0.85)],
        [middle, near(0.75, 0.2)],
        [middle, near(0.75, 0.85)],
    ]


def draw(page: Any, paper: Any, strokes: list[Points], smoothness: int = 1) -> None:
    """Draw on a canvas of a Playwright page, with so many movements of the mouse from point to point."""
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()

    def at(x: float, y: float) -> tuple[float, float]:
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    for stroke in strokes:
        page.mouse.move(*at(*stroke[0]))
        page.mouse.down()
        for point in stroke[1:]:
            page.mouse.move(*at(*point), steps=smoothness)
        page.mouse.up()


def teach(page: Any, rng: random.Random, examples: int = 2) -> None:
    """Draw examples of all three symbols on the first three cards."""
    cards = page.locator(".card:not(.add)")
    for kind in range(3):
        for number in range(examples):
            if number:
                cards.nth(kind).locator(".keep").click()
            draw(page, cards.nth(kind).locator(".pad canvas"), symbol(kind, rng))
