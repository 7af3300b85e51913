"""Whether what ``reptile demo`` makes of drawings looks to the network like what it was trained on.

    TORCHREPTILE_DATA=DIR python benchmarks/drawings.py

Real Omniglot drawings are thinned to the way of the pen at their full size, 105 pixels, and drawn again as the demo
does: at their own place and size, and at those of people who fill a page as they like. Accuracy of 5-way 1-shot tasks
by the shipped weights, 50 inner steps, each query alone, with its 95% confidence interval over tasks; every row has the
same tasks. The classes are training characters, which is right for choosing among rows and too good for anything else.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from PIL import Image

from torchreptile.algorithms import build_algorithm
from torchreptile.data.glyphs import SIDE, ink
from torchreptile.data.loading import load_splits
from torchreptile.data.omniglot import dataset as omniglot
from torchreptile.data.omniglot.download import RemoteFile, fetch
from torchreptile.inference.demo.rasterize import PEN, pixels_of_picture, pixels_of_strokes
from torchreptile.training.weights import load_weights

WAY, OF_EACH = 5, 10  # classes in a task; drawings of a class that are used
FULL = omniglot.PUBLISHED_SIDE
Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]
Render = Callable[[Pixels, Points, np.random.Generator], Pixels]


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    tasks: int = 200
    classes: int = 150
    """Characters that the tasks are drawn from."""


def thinned(black: NDArray[np.bool_]) -> Points:
    """(P, 2) points x, y from 0 to 1 of the middle of the lines (Zhang and Suen 1984)."""
    image = np.pad(black, 1).astype(np.uint8)
    around = ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))  # from above, clockwise
    changed = True
    while changed:
        changed = False
        for lower in (True, False):
            n = [np.roll(image, shift, (0, 1)) for shift in around]
            turns = sum((n[i] == 0) & (n[(i + 1) % 8] == 1) for i in range(8))
            count = sum(n)
            a, b = (n[0] * n[2] * n[4], n[2] * n[4] * n[6]) if lower else (n[0] * n[2] * n[6], n[0] * n[4] * n[6])
            gone = (image == 1) & (count >= 2) & (count <= 6) & (turns == 1) & (a == 0) & (b == 0)
            image[gone] = 0
            changed |= bool(gone.any())
    y, x = np.nonzero(image[1:-1, 1:-1])
    return np.stack([x + 0.5, y + 0.5], 1) / FULL


def reduced(
    pixels: Pixels, points: Points, rng: np.random.Generator, resample: int = Image.Resampling.NEAREST
) -> Pixels:
    """As published: the picture at 28 pixels."""
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling(resample)))[None]


def smooth(pixels: Pixels, points: Points, rng: np.random.Generator) -> Pixels:
    """The picture at 28 pixels with greys, as other data sets are scaled."""
    return reduced(pixels, points, rng, Image.Resampling.LANCZOS)


def scanned(pixels: Pixels, points: Points, rng: np.random.Generator) -> Pixels:
    """A file three times as large with soft edges, as the demo reads it."""
    file = io.BytesIO()
    Image.fromarray(pixels).resize((3 * FULL, 3 * FULL), Image.Resampling.BICUBIC).save(file, "PNG")
    return pixels_of_picture(file.getvalue(), (1, SIDE, SIDE), by_hand=True)


def in_place(pixels: Pixels, points: Points, rng: np.random.Generator) -> Pixels:
    """Drawn again, neither moved nor scaled."""
    return ink((points * SIDE - 0.5).copy().view(np.complex128).T, np.array([[PEN]]))[0][None]


def as_in_the_demo(pixels: Pixels, points: Points, rng: np.random.Generator) -> Pixels:
    """Drawn again."""
    return pixels_of_strokes(list(points[:, None]), (1, SIDE, SIDE))


def on_a_page(render: Render) -> Render:
    """The same of drawings mostly larger, and anywhere on the paper."""

    def drawn(pixels: Pixels, points: Points, rng: np.random.Generator) -> Pixels:
        chance = rng.normal(size=3)
        moved = (points - 0.5) * np.exp(0.25 + 0.3 * chance[0]) + 0.5 + 0.06 * chance[1:]
        return render(pixels, moved.clip(0.01, 0.99), rng)

    return drawn


ROWS: dict[str, Render] = {
    "the pictures as published": reduced,
    "the pictures, scaled with greys": smooth,
    "large files with soft edges, as the demo reads them": scanned,
    "drawn again, in place": in_place,
    "drawn again by the demo": as_in_the_demo,
    "by people on a page, in place": on_a_page(in_place),
    "by people on a page, drawn by the demo": on_a_page(as_in_the_demo),
}


def main(given: Settings) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    learned, official = load_weights("omniglot-5way"), omniglot.official()
    names = sorted({name.rpartition("/rot")[0] for name in load_splits(learned.config.task).train.class_names})
    names = [names[i] for i in np.random.default_rng(0).permutation(len(names))[: given.classes]]
    files = [RemoteFile(f"{a.folder}.zip", f"{omniglot.URL}{a.folder}.zip", omniglot.MD5[a.folder])
             for a in official.archives]  # fmt: skip
    found: dict[str, Pixels] = {}
    for path, archive in zip(fetch("omniglot", files), official.archives, strict=True):
        found.update(omniglot.read_archive(path, archive, FULL))
    drawings = [[(pixels, thinned(pixels == 0)) for pixels in found[name][:OF_EACH]] for name in names]

    config = learned.config.replace(way=WAY, eval_batch=WAY, inner_batch=1, execution="auto")
    algorithm = build_algorithm(config, (1, SIDE, SIDE), torch.device("cpu"))
    labels = torch.arange(WAY)[None]
    for row, render in ROWS.items():
        rng, generator, scores = np.random.default_rng(1), torch.Generator().manual_seed(0), []
        for _ in range(given.tasks):
            chosen = [(drawings[c], rng.permutation(OF_EACH)) for c in rng.permutation(len(drawings))[:WAY]]
            shake = np.random.default_rng(len(scores))  # of its own, so that every row has the same tasks
            support, query = (
                torch.from_numpy(np.stack([render(*of[order[k]], shake) for of, order in chosen]))[None].float() / 255
                for k in (0, 1)
            )
            with torch.no_grad():
                adapted = algorithm.adapt(learned.state, support, labels, algorithm.draw(1, WAY, generator))
                scores.append((adapted.inductive(query).argmax(-1) == labels).float().mean().item())
        spread = 1.96 * np.std(scores, ddof=1) / len(scores) ** 0.5
        print(f"{row:55} {100 * np.mean(scores):.2f}% ± {100 * spread:.2f}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Settings))
