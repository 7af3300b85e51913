"""Contact sheet of a data set: images of its classes as the network sees them, and tasks drawn from it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import torch

from torchreptile.core.errors import DataError
from torchreptile.data.image_store import ImageStore
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.data.splits import Split
from torchreptile.experiments.reports.episode_image import draw_episode, scaled, tile_for
from torchreptile.experiments.reports.image_layout import GAP, fitting, line, png, stacked
from torchreptile.experiments.reports.plot_style import LIGHT

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

CLASSES, IMAGES, TASKS = 6, 8, 2  # shown per split
# Pixels.
ROOM, NAME, LINE, HEAD = 84, 300, 40, 56
SEED = 3_000_017  # differs from the seeds of training, monitoring, evaluation and reports


def draw_sheet(stores: dict[Split, ImageStore], way: int, shots: int, queries: int) -> bytes:
    """Draw images of some classes of every split, and two tasks from each.

    Classes, and the images of a class, are picked at equal intervals.

    Args:
        stores: the image stores by split.
        way, shots, queries: size of the tasks; a split too small for one gets a note instead.

    Returns:
        A PNG file.
    """
    parts: list[Picture] = []
    for split, store in stores.items():
        parts += [line(f"{split}: {describe(store)}", HEAD), _classes(store)]
        parts.append(line(f"tasks from {split} classes: {way}-way, {shots}-shot, queries per class: {queries}", HEAD))
        parts.append(_tasks(store, way, shots, queries))
    return png(stacked(parts))


def describe(store: ImageStore) -> str:
    """Describe a store's size and images.

    Example:
        >>> images = torch.zeros(6, 1, 28, 28, dtype=torch.uint8)
        >>> describe(ImageStore(images, torch.tensor([3, 3]), ("a", "b"), "letters"))
        '2 classes, 6 images (3 per class), grey, 28 x 28'
    """
    smallest, largest = int(store.class_sizes.min()), int(store.class_sizes.max())
    each = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
    noun, (channels, *sides) = "class" if len(store) == 1 else "classes", store.image_shape
    what, kind = "images", {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    form = " x ".join(map(str, reversed(sides)))
    if len(sides) == 1:
        what, kind, form = "series", f"{channels} channel{'s' * (channels != 1)}", f"{form} points"
    return f"{len(store):,} {noun}, {len(store.images):,} {what} ({each} per class), {kind}, {form}"


def _spread(count: int, wanted: int) -> list[int]:
    """Return up to ``wanted`` of the numbers below ``count``, at equal intervals from the first to the last."""
    return torch.linspace(0, count - 1, min(count, wanted)).round().int().tolist()


def _classes(store: ImageStore) -> Picture:
    """Draw a row per class: its name, the number of its images and some of them."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = tile_for(store.image_shape[1:], ROOM)
    shown = _spread(len(store), CLASSES)
    row = max(height, LINE) + GAP
    canvas = Image.new("RGB", (NAME + IMAGES * (width + GAP), 1 + len(shown) * row), LIGHT.paper)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=20)
    starts, sizes = store.class_starts.tolist(), store.class_sizes.tolist()
    for place, index in enumerate(shown):
        size = sizes[index]
        name = fitting(store.class_names[index], NAME - GAP, font.getlength)
        pen.text((0, place * row), name, fill=LIGHT.text, font=font)
        pen.text((0, place * row + 24), f"{size:,} image{'s' * (size != 1)}", fill=LIGHT.frame, font=font)
        for column, image in enumerate(_spread(size, IMAGES)):
            x, y = NAME + column * (width + GAP), 1 + place * row  # 1: the frame
            canvas.paste(scaled(store.images[starts[index] + image] / 255, (width, height)), (x, y))
            pen.rectangle((x - 1, y - 1, x + width, y + height), outline=LIGHT.frame)
    return canvas


def _tasks(store: ImageStore, way: int, shots: int, queries: int) -> Picture:
    """Draw tasks side by side, or the reason why there are none."""
    from PIL import Image

    try:
        sampler = EpisodeSampler(store, way, shots, queries)
    except DataError as error:
        return line(f"none: {error}", LINE)
    drawn = sampler.sample(TASKS, torch.Generator().manual_seed(SEED))
    tasks = [Image.open(io.BytesIO(draw_episode(drawn, None, task))) for task in range(TASKS)]
    canvas = Image.new("RGB", (sum(task.width + 5 * GAP for task in tasks), tasks[0].height), LIGHT.paper)
    for number, task in enumerate(tasks):
        canvas.paste(task, (number * (task.width + 5 * GAP), 0))
    return canvas
