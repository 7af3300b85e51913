"""Glyphs: generated handwritten characters, to meta-train on without a download.

An invented alphabet has a style: round or angular, with long or short strokes, hanging from a headline or not. A
character is a few strokes that visit points of a loose grid along lines and arcs, so that strokes meet, cross, run
parallel and share corners as in real writing. Every drawing imitates an unsteady hand: corners slip and round off,
proportions change, lines shake. A pen one pixel wide leaves black ink on white paper, as in Omniglot at 28 x 28.

Points of the plane are complex numbers, x + iy with y downwards, because an arc is then one exponential. Constants
without a comment were chosen so that ink, size, thickness, holes, loose parts and the spread within a class match
Omniglot.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from torchreptile.core.errors import ConfigError
from torchreptile.data.cache import prepared
from torchreptile.data.image_store import ImageStore

SIDE = 28  # pixels
ALPHABET = 32  # characters that share one style; an Omniglot alphabet has 14 to 55
STEP = 0.04  # between the points of a stroke: under half a pixel, so that no line has a hole

Floats = NDArray[np.float64]
Points = NDArray[np.complex128]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Style:
    """The style that the characters of one alphabet share.

    Attributes:
        columns: columns of the grid of points that strokes visit.
        rows: rows of that grid.
        turns: mean number of lines and arcs in a stroke.
        curved: probability that the path from one point to the next is an arc.
        rounding: how far the pen cuts corners, from 0 (not at all) to 1.
        headline: probability that a character hangs from a level bar.
        size: mean length of a character's longer side, in pixels.
    """

    columns: int
    rows: int
    turns: float
    curved: float
    rounding: float
    headline: float
    size: float


@dataclass(frozen=True)
class Stroke:
    """One movement of the pen.

    Attributes:
        knots: (K,) points that it passes.
        bends: (K - 1,) radians, the angle of the arc to the next knot; 0 is a straight line.
    """

    knots: Points
    bends: Floats

    @cached_property
    def path(self) -> Points:
        """(P,) points along the ideal stroke, without the unsteadiness of a drawing."""
        points: Points = self.trace(self.knots[None], self.bends[None])[0]
        return points

    def trace(self, knots: Points, bends: Floats) -> Points:
        """Return the points along D versions of this stroke.

        Args:
            knots: (D, K) knots of each version.
            bends: (D, K - 1) bends of each version, radians.

        Returns:
            (D, P) points; P depends on the ideal stroke only.
        """
        turn = np.maximum(np.abs(self.bends), 1e-3)
        length = np.abs(np.diff(self.knots)) * turn / (2 * np.sin(turn / 2))
        counts = (length / STEP).astype(np.int64) + 2
        segment = np.repeat(np.arange(len(counts)), counts)
        share = (np.arange(len(segment)) - (counts.cumsum() - counts)[segment]) / (counts - 1)[segment]
        angle = 1j * np.where(np.abs(bends) < 1e-3, 1e-3, bends)
        along = (np.exp(angle[:, segment] * share) - 1) / (np.exp(angle) - 1)[:, segment]  # from 0 to 1 on a circle
        points: Points = knots[:, segment] + np.diff(knots)[:, segment] * along
        return points


def generate(characters: int = 2000, drawings: int = 20, seed: int = 0) -> ImageStore:
    """Invent characters and draw each several times; equal arguments give equal pixels.

    Args:
        characters: number of classes.
        drawings: images per class.
        seed: seed of all random numbers.

    Returns:
        A store with images (characters * drawings, 1, 28, 28) uint8; paper is 255, ink 0, with no values in between.

    Raises:
        ConfigError: ``characters`` or ``drawings`` is below 1, or ``seed`` below 0.

    Example:
        >>> store = generate(characters=3, drawings=4)
        >>> len(store), store.images.shape
        (3, torch.Size([12, 1, 28, 28]))
    """
    for name, value, least in (("characters", characters, 1), ("drawings", drawings, 1), ("seed", seed, 0)):
        if value < least:
            raise ConfigError(f"{name} = {value}: must be at least {least}")
    rng = np.random.default_rng(seed)
    images = np.empty((characters, drawings, SIDE, SIDE), dtype=np.uint8)
    for index in range(characters):
        if index % ALPHABET == 0:
            style = new_style(rng)
        images[index] = draw(new_character(style, rng), style, drawings, rng)
    return ImageStore(
        images=torch.from_numpy(images).view(-1, 1, SIDE, SIDE),
        class_sizes=torch.full((characters,), drawings, dtype=torch.int64),
        class_names=tuple(f"glyphs/{index:04d}" for index in range(characters)),
        name="glyphs",
    )


def load() -> ImageStore:
    """Load the data set ``glyphs``: 2000 characters of 20 drawings each, generated on first use and then cached."""
    return prepared("glyphs-v1.safetensors", generate)


def new_style(rng: np.random.Generator) -> Style:
    """Invent the style of an alphabet."""
    return Style(
        columns=int(rng.choice([2, 3, 3, 4])),
        rows=int(rng.choice([3, 3, 4])),
        turns=rng.uniform(1.2, 4.5),
        curved=rng.uniform(0, 0.9),
        rounding=rng.uniform(0, 1),
        headline=rng.choice([0, 0, 0, 0.1, 0.7]),
        size=rng.uniform(14, 18.5),
    )


def new_character(style: Style, rng: np.random.Generator) -> list[Stroke]:
    """Invent a character: add strokes that leave it legible until it has enough ink."""
    while True:
        x = np.linspace(-0.8, 0.8, style.columns) + rng.normal(0, 0.12, style.columns)
        y = np.linspace(-1, 1, style.rows) + rng.normal(0, 0.12, style.rows)
        grid = (x + 1j * y[:, None]).ravel()
        least = max(rng.normal(2.75, 0.7), 1)  # ink, in diagonals of the character
        most_holes = rng.choice([0, 1, 2, 3], p=[0.45, 0.35, 0.13, 0.07])
        strokes: list[Stroke] = []
        if rng.random() < style.headline:
            strokes.append(Stroke(np.array([x.min() - 0.1 - 1.1j, x.max() + 0.1 - 1.1j]), np.zeros(1)))
        for _ in range(10):
            stroke = new_stroke(style, grid, strokes, rng)
            amount, blots, holes = measure([*strokes, stroke])
            if amount < least + 1 and blots < 0.15 and holes <= most_holes:
                strokes.append(stroke)
                if amount > least:
                    return fit(strokes)


def new_stroke(style: Style, grid: Points, earlier: list[Stroke], rng: np.random.Generator) -> Stroke:
    """Invent a stroke: the last one repeated, a dot, a ring, or a path over the grid."""
    kind = rng.random()
    if earlier and kind < 0.15:
        return echo(earlier[-1], rng)
    start = starting_point(grid, earlier, rng)
    if earlier and kind < 0.3:
        radius = 0.06 if kind < 0.22 else rng.uniform(0.15, 0.5)
        return Stroke(start + radius * np.exp(2j * np.pi * rng.random()) * np.array([-1, 1, -1]), np.full(2, np.pi))
    knots = [start]
    for _ in range(min(1 + rng.poisson(style.turns - 1), 7)):
        step = grid - knots[-1]
        straight = np.minimum(np.abs(step.real), np.abs(step.imag)) < 0.15  # writing is mostly upright and level
        weight = np.exp(-1.5 * np.abs(step)) * np.where(straight, 4, 1) * (np.abs(step) > 0.3)
        for knot in knots[:-1]:  # a path back would hide the path there
            weight[np.abs(grid - knot) < 0.3] *= 0.1
        total = weight.cumsum()
        knots.append(grid[total.searchsorted(rng.random() * total[-1], side="right")])
    if len(knots) > 3 and rng.random() < 0.15:
        knots[-1] = knots[0]
    path = np.array(knots)
    path[1:] += wobble(rng, 0.12 if rng.random() < 0.5 else 0.02, len(path) - 1)
    return Stroke(path, new_bends(np.abs(np.diff(path)), style, rng))


def new_bends(reach: Floats, style: Style, rng: np.random.Generator) -> Floats:
    """Draw the bends of a path: (K - 1,) distances between knots to (K - 1,) radians; long segments bend less."""
    chance = rng.random((3, len(reach)))
    bends = np.array([1, 2, 3.3, 4])[np.searchsorted([0.25, 0.65, 0.95], chance[0])] * np.minimum(1, 1.1 / reach)
    side = 1 if rng.random() < 0.5 else -1
    return np.where(chance[1] < style.curved, side * bends * np.where(chance[2] < 0.75, 1, -1), 0)


def starting_point(grid: Points, earlier: list[Stroke], rng: np.random.Generator) -> complex:
    """Draw the start of a stroke: on the grid, at a knot of an earlier stroke, or partway along one."""
    choice, points = rng.random(), grid
    if earlier and choice > 0.35:
        stroke = earlier[rng.integers(len(earlier))]
        points = stroke.knots if choice < 0.65 else stroke.path
    return complex(points[rng.integers(len(points))])


def echo(stroke: Stroke, rng: np.random.Generator) -> Stroke:
    """Repeat a stroke: shifted, or mirrored about a vertical line through one of its knots."""
    if rng.random() < 0.5:
        return Stroke(stroke.knots + rng.choice([0.5, 0.7, 0.5j, 0.7j]), stroke.bends)
    return Stroke(2 * rng.choice(stroke.knots).real - stroke.knots.conj(), -stroke.bends)


def box(strokes: list[Stroke]) -> tuple[Points, complex, complex]:
    """Return all points of a character, the upper left corner of their bounding box, and its width + i height."""
    path = np.concatenate([stroke.path for stroke in strokes])
    low = complex(path.real.min(), path.imag.min())
    return path, low, complex(path.real.max(), path.imag.max()) - low


def fit(strokes: list[Stroke]) -> list[Stroke]:
    """Shift and scale the strokes together to reach from -1 to 1 along the longer side of their bounding box."""
    _, low, extent = box(strokes)
    scale = 2 / max(extent.real, extent.imag)
    return [Stroke((stroke.knots - low - extent / 2) * scale, stroke.bends) for stroke in strokes]


def measure(strokes: list[Stroke]) -> tuple[float, float, int]:
    """Measure a character drawn 18 pixels large.

    Returns:
        Its ink in diagonals of its bounding box; the share of the ink in blots, which are black squares of 2 x 2
        pixels; and its number of holes by Euler's formula, from which every additional loose part subtracts one.
    """
    path, low, extent = box(strokes)
    scale = 17 / max(extent.real, extent.imag)
    path = (path - low) * scale + 1.5 + 1.5j
    black = np.zeros((20, 20), dtype=bool)
    black[path.imag.astype(np.int64), path.real.astype(np.int64)] = True
    area = np.count_nonzero(black)
    blots = np.count_nonzero(black[1:, 1:] & black[1:, :-1] & black[:-1, 1:] & black[:-1, :-1])
    upright, level = black[:, 1:] | black[:, :-1], black[1:] | black[:-1]  # the sides of all black pixels
    corners = np.count_nonzero(upright[1:] | upright[:-1])
    holes = 1 - (corners - np.count_nonzero(upright) - np.count_nonzero(level) + area)
    return area / (abs(extent) * scale), float(blots / area), int(holes)


def draw(strokes: list[Stroke], style: Style, drawings: int, rng: np.random.Generator) -> Pixels:
    """Draw a character ``drawings`` times: (drawings, 28, 28) uint8, paper 255 and ink 0."""
    rounding = np.clip(style.rounding + rng.normal(0, 0.3, (drawings, 1)), 0, 1)
    lines = []
    for stroke in strokes:
        count = len(stroke.knots)
        knots = stroke.knots + wobble(rng, 0.07, drawings, count) + wobble(rng, 0.03, drawings, 1)
        if stroke.knots[0] == stroke.knots[-1]:  # drawings of closed strokes almost close
            knots[:, -1] = knots[:, 0] + wobble(rng, 0.03, drawings)
        bends = stroke.bends * rng.normal(1, 0.18, (drawings, 1)) + rng.normal(0, 0.12, (drawings, count - 1))
        line = stroke.trace(knots, bends)
        lines.append(line + rounding * (smooth(line, line.shape[1] // (2 * count)) - line))
    points = unsteady(np.concatenate(lines, axis=1), rng)
    points *= style.size / 2 * np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.06, (drawings, 1)))
    points += smooth(wobble(rng, 0.4, *points.shape), 4)  # a tremor
    return ink(place(points, rng), rng.normal(1.12, 0.1, (drawings, 1)))


def wobble(rng: np.random.Generator, spread: float, *shape: int) -> Points:
    """Draw normal noise in the plane, with standard deviation ``spread`` along either axis."""
    return np.asarray(spread * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)))


def smooth(line: Points, reach: int) -> Points:
    """Replace each of (D, P) points by the mean of itself and its ``reach`` neighbours on either side."""
    total = np.pad(line, ((0, 0), (reach + 1, reach)), mode="edge").cumsum(axis=1)
    mean: Points = (total[:, 2 * reach + 1 :] - total[:, : -2 * reach - 1]) / (2 * reach + 1)
    return mean


def unsteady(points: Points, rng: np.random.Generator) -> Points:
    """Distort the proportions of every drawing of (D, P) points smoothly, so that strokes that meet still meet.

    The distortion is mostly along the axes, which leaves vertical and horizontal lines so, with a little slant and bow.
    """
    x, y = points.real, points.imag
    c = rng.standard_normal((10, len(points), 1))
    right = x * (1 + 0.14 * c[0] + 0.09 * c[1] * x + 0.05 * c[2] * y) + y * (0.07 * c[3] + 0.03 * c[4] * y)
    down = y * (1 + 0.14 * c[5] + 0.09 * c[6] * y + 0.05 * c[7] * x) + x * (0.05 * c[8] + 0.03 * c[9] * x)
    changed: Points = right + 1j * down
    return changed


def place(points: Points, rng: np.random.Generator) -> Points:
    """Move every drawing of (D, P) points, in pixels, near the middle of the paper and completely onto it."""
    placed: list[Floats] = []
    for part in (points.real, points.imag):
        low, high = part.min(axis=1), part.max(axis=1)
        half = np.minimum((high - low) / 2, (SIDE - 1) / 2)
        middle = np.clip(rng.normal(13.05, 1.45, len(part)), half, SIDE - 1 - half)
        placed.append(part + (middle - (low + high) / 2)[:, None])
    return np.asarray(placed[0] + 1j * placed[1])


def ink(points: Points, width: Floats) -> Pixels:
    """Blacken every pixel whose centre a square pen passes over.

    Args:
        points: (D, P) positions of the pen, in pixels.
        width: (D, 1) width of the pen in each drawing, in pixels; at least 1 is used.

    Returns:
        (D, 28, 28) uint8, paper 255 and ink 0.
    """
    half = np.maximum(width, 1) / 2  # the centre of some pixel is then always under the pen
    paper = np.full((len(points), SIDE, SIDE), 255, dtype=np.uint8)
    drawing = np.arange(len(points))[:, None]
    columns, rows = (
        [np.clip(edge, 0, SIDE - 1).astype(np.int64) for edge in (np.ceil(part - half), np.floor(part + half))]
        for part in (points.real, points.imag)
    )
    for column in columns:
        for row in rows:
            paper[drawing, row, column] = 0
    return paper
