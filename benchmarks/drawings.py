"""Effect of the demo's rasterisation on accuracy, with real Omniglot drawings.

    TORCHREPTILE_DATA=DIR python benchmarks/drawings.py

Omniglot drawings at their full size of 105 pixels are thinned to pen strokes and drawn again as the demo does: in
their original place and size, and in random ones, as on a page that people draw on. Prints inductive accuracy on 5-way
1-shot tasks with the shipped weights, 50 inner steps, with its 95% confidence interval over tasks; every row has the
same tasks. The classes are training characters: rows can be compared with each other, but not with test accuracies.
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

from torchreptile.algorithms.build import build_algorithm
from torchreptile.data.glyphs import SIDE, ink
from torchreptile.data.loading import load_splits
from torchreptile.data.omniglot import dataset as omniglot
from torchreptile.data.omniglot.download import RemoteFile, fetch
from torchreptile.inference.demo.rasterize import PEN, pixels_of_picture, pixels_of_strokes
from torchreptile.training.weights import load_weights

WAY, OF_EACH = 5, 10  # classes in a task; drawings used per class
FULL = omniglot.PUBLISHED_SIDE
Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]
Render = Callable[[Pixels, Points, np.random.Generator], Pixels]


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    tasks: int = 200
    classes: int = 150
    """Number of characters to draw tasks from."""


def thinned(black: NDArray[np.bool_]) -> Points:
    """Return the (P, 2) points x, y from 0 to 1 on the centre lines of a drawing (Zhang and Suen 1984)."""
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
    """Scale the picture to 28 pixels, as in published work."""
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling(resample)))[None]


def smooth(pixels: Pixels, points: Points, rng: np.random.Generator) -> Pixels:
    """Scale the picture to 28 pixels with smoothing, as for other data sets."""
    return reduced(pixels, points, rng, Image.Resampling.LANCZOS)


def scanned(pixels: Pixels, points: Points, rng: np.random.Generator) -> Pixels:
    """Read a file three times as large with soft edges, as the demo does."""
    file = io.BytesIO()
    Image.fromarray(pixels).resize((3 * FULL, 3 * FULL), Image.Resampling.BICUBIC).save(file, "PNG")
    return pixels_of_picture(file.getvalue(), (1, SIDE, SIDE), by_hand=True)


def in_place(pixels: Pixels, points: Points, rng: np.random.Generator) -> Pixels:
    """Draw the strokes again without moving or scaling them."""
    return ink((points * SIDE - 0.5).copy().view(np.complex128).T, np.array([[PEN]]))[0][None]


def as_in_the_demo(pixels: Pixels, points: Points, rng: np.random.Generator) -> Pixels:
    """Draw the strokes again with the demo's own place and size."""
    return pixels_of_strokes(list(points[:, None]), (1, SIDE, SIDE))


def on_a_page(render: Render) -> Render:
    """Move and scale the strokes at random, mostly to a larger size, before rendering."""

    def drawn(pixels: Pixels, points: Points, rng: np.random.Generator) -> Pixels:
        chance = rng.normal(size=3)
        moved = (points - 0.5) * np.exp(0.25 + 0.3 * chance[0]) + 0.5 + 0.06 * chance[1:]
        return render(pixels, moved.clip(0.01, 0.99), rng)

    return drawn


ROWS: dict[str, Render] = {
    "the published images": reduced,
    "the published images, scaled with greys": smooth,
    "large files with soft edges, as the demo reads them": scanned,
    "redrawn in place": in_place,
    "redrawn by the demo": as_in_the_demo,
    "simulated users of the page, in place": on_a_page(in_place),
    "simulated users of the page, redrawn by the demo": on_a_page(as_in_the_demo),
}


def main(given: Settings) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    weights, official = load_weights("omniglot-5way"), omniglot.official()
    names = sorted({name.rpartition("/rot")[0] for name in load_splits(weights.config.task).train.class_names})
    names = [names[i] for i in np.random.default_rng(0).permutation(len(names))[: given.classes]]
    files = [RemoteFile(f"{a.folder}.zip", f"{omniglot.URL}{a.folder}.zip", omniglot.MD5[a.folder])
             for a in official.archives]  # fmt: skip
    found: dict[str, Pixels] = {}
    for path, archive in zip(fetch("omniglot", files), official.archives, strict=True):
        found.update(omniglot.read_archive(path, archive, FULL))
    drawings = [[(pixels, thinned(pixels == 0)) for pixels in found[name][:OF_EACH]] for name in names]

    config = weights.config.replace(way=WAY, eval_batch=WAY, inner_batch=1, execution="auto")
    algorithm = build_algorithm(config, (1, SIDE, SIDE), torch.device("cpu"))
    labels = torch.arange(WAY)[None]
    for row, render in ROWS.items():
        rng, generator, scores = np.random.default_rng(1), torch.Generator().manual_seed(0), []
        for _ in range(given.tasks):
            chosen = [(drawings[c], rng.permutation(OF_EACH)) for c in rng.permutation(len(drawings))[:WAY]]
            shake = np.random.default_rng(len(scores))  # a separate generator, so that every row has the same tasks
            support, query = (
                torch.from_numpy(np.stack([render(*of[order[k]], shake) for of, order in chosen]))[None].float() / 255
                for k in (0, 1)
            )
            with torch.no_grad():
                adapted = algorithm.adapt(weights.state, support, labels, algorithm.draw(1, WAY, generator))
                scores.append((adapted.inductive(query).argmax(-1) == labels).float().mean().item())
        spread = 1.96 * np.std(scores, ddof=1) / len(scores) ** 0.5
        print(f"{row:55} {100 * np.mean(scores):.2f}% ± {100 * spread:.2f}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Settings))
