"""Folders of made-up pictures, as people have them on disk."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The picture as a file's content."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(seed: int, side: int = 12, channels: int = 3) -> Image.Image:
    """A picture that no other seed has."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels == 3 else pixels[:, :, 0])


def colour_class(number: int, images: int, side: int = 12) -> list[Image.Image]:
    """Shaken pictures of one pattern."""
    rng = np.random.default_rng(number)
    pattern = np.kron(rng.integers(0, 256, (3, 3, 3)), np.ones((side // 3, side // 3, 1)))
    shaken = [pattern + rng.normal(0, 20, pattern.shape) for _ in range(images)]
    return [Image.fromarray(pixels.clip(0, 255).astype(np.uint8)) for pixels in shaken]


def make_classes(folder: Path, names: list[str], images: int = 6, side: int = 12, first: int = 0) -> Path:
    """Class folders of PNGs; the classes' patterns go by ``first`` and their place."""
    for number, name in enumerate(names, start=first):
        (folder / name).mkdir(parents=True)
        for index, image in enumerate(colour_class(number, images, side)):
            image.save(folder / name / f"{index:02d}.png")
    return folder


def make_divided(folder: Path, counts: dict[str, int], images: int = 6, side: int = 12) -> Path:
    """Split folders of class folders, no class in two of them."""
    first = 0
    for split, count in counts.items():
        make_classes(folder / split, [f"{split}{n:02d}" for n in range(count)], images, side, first)
        first += count
    return folder
