"""Picture of an episode: support images, queries and predictions."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchreptile.data.episodes import Episodes
from torchreptile.experiments.reports.plot_style import DARK, LIGHT, Palette
from torchreptile.models.losses import NO_ANSWER

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw as Pen

PER_LINE = 5  # images per line of a class's row
# Pixels; twice the size on a page, for high-resolution screens.
TILE, MANY_WAY, SMALL_TILE = 112, 10, 84
BORDER, THIN, GAP, LABEL, ANSWER, HEADER = 6, 3, 10, 52, 76, 44


def draw_episode(episodes: Episodes, predicted: Tensor | None, task: int = 0, *, dark: bool = False) -> bytes:
    """Draw an episode with a row per class: support images on the left, queries on the right.

    A right prediction has a tick and a thin blue frame; a wrong one has a cross, the letter of the predicted class and
    a thick orange frame.

    Args:
        episodes: support images (task, way * shot, C, H, W) and query images (task, way * query, C, H, W), pixels from
            0 to 1.
        predicted: (task, way * query) int64 labels; None draws the queries without predictions.
        task: index of the task to draw.
        dark: use light ink on dark paper.

    Returns:
        A PNG file, at twice the size it should be shown at.

    Example:
        >>> import torchreptile as tr
        >>> from torchreptile.data.loading import load_splits
        >>> glyphs = load_splits(tr.preset("glyphs-1shot-5way").task).test
        >>> episodes = tr.EpisodeSampler(glyphs, way=5, shots=1, queries=2).sample(1, torch.Generator().manual_seed(0))
        >>> draw_episode(episodes, None)[1:4]
        b'PNG'
    """
    way = int(episodes.support_y[task].max()) + 1
    support, query = (_by_class(images[task], way) for images in (episodes.support_x, episodes.query_x))
    room = 0 if predicted is None else ANSWER
    sheet = _Sheet(way, support.shape[1], query.shape[1], support.shape[3:], room, DARK if dark else LIGHT)
    answers = [[None] * query.shape[1]] * way if predicted is None else predicted[task].view(way, -1).tolist()
    for label in range(way):
        sheet.name(label)
        for shot, image in enumerate(support[label]):
            sheet.support(label, shot, image)
        for number, (image, answer) in enumerate(zip(query[label], answers[label], strict=True)):
            sheet.query(label, number, image, answer)
    return sheet.png()


def _by_class(images: Tensor, way: int) -> Tensor:
    """Group images by class: (way * n, C, H, W) -> (way, n, C, H, W)."""
    return images.view(way, -1, *images.shape[1:])


def letter(label: int) -> str:
    """Return the letter that stands for a class in pictures: A to Z, then A2 to Z2, and so on; ? for no answer.

    Example:
        >>> letter(0), letter(27), letter(NO_ANSWER)
        ('A', 'B2', '?')
    """
    if label == NO_ANSWER:
        return "?"
    return chr(ord("A") + label % 26) + (str(label // 26 + 1) if label >= 26 else "")


class _Sheet:
    """The canvas of an episode, which computes every position."""

    def __init__(self, way: int, shots: int, queries: int, size: tuple[int, ...], room: int, ink: Palette) -> None:
        from PIL import Image, ImageDraw, ImageFont

        self.ink = ink
        self.tile = tile_for(size, TILE if way <= MANY_WAY else SMALL_TILE)
        self.step_x, self.step_y = (side + 2 * BORDER + GAP for side in self.tile)
        self.row = self.step_y * -(-max(shots, queries) // PER_LINE)
        self.query_step = self.step_x + room  # with room for the prediction
        self.queries_left = LABEL + max(self.step_x * min(shots, PER_LINE), 100) + 3 * GAP
        width = self.queries_left + max(self.query_step * min(queries, PER_LINE), 100)
        self.canvas = Image.new("RGB", (width, HEADER + way * self.row), ink.paper)
        self.pen: Pen = ImageDraw.Draw(self.canvas)
        self.letters = ImageFont.load_default(size=32)
        words = ImageFont.load_default(size=26)
        self.pen.text((LABEL, 2), "support", fill=ink.text, font=words)
        self.pen.text((self.queries_left, 2), "query", fill=ink.text, font=words)
        rule = self.queries_left - 2 * GAP
        self.pen.line([(rule, 0), (rule, HEADER + way * self.row)], fill=ink.frame, width=2)

    def name(self, label: int) -> None:
        """Draw the class's letter at the start of its row."""
        middle = HEADER + label * self.row + BORDER + self.tile[1] // 2
        self.pen.text((LABEL // 2, middle), letter(label), fill=self.ink.text, font=self.letters, anchor="mm")

    def support(self, label: int, shot: int, image: Tensor) -> None:
        """Draw a support image (C, H, W) in its class's row."""
        x = LABEL + shot % PER_LINE * self.step_x
        self._image(x, self._top(label, shot), image, self.ink.frame, 1)

    def query(self, label: int, number: int, image: Tensor, answer: int | None) -> None:
        """Draw a query image (C, H, W) in its true class's row, with its prediction if there is one."""
        x, y = self.queries_left + number % PER_LINE * self.query_step, self._top(label, number)
        left, middle = x + self.step_x, y + BORDER + self.tile[1] // 2
        if answer is None:
            self._image(x, y, image, self.ink.frame, 1)
            return
        if answer == label:
            self._image(x, y, image, self.ink.blue, THIN)
            tick = [(left, middle + 2), (left + 10, middle + 14), (left + 30, middle - 14)]
            self.pen.line(tick, fill=self.ink.blue, width=6, joint="curve")
            return
        self._image(x, y, image, self.ink.orange, BORDER)
        for slope in (-1, 1):
            cross = [(left, middle - 20 - 12 * slope), (left + 24, middle - 20 + 12 * slope)]
            self.pen.line(cross, fill=self.ink.orange, width=6)
        self.pen.text((left + 12, middle + 22), letter(answer), fill=self.ink.text, font=self.letters, anchor="mm")

    def png(self) -> bytes:
        """Encode the canvas as a PNG file."""
        file = io.BytesIO()
        self.canvas.save(file, format="PNG", optimize=True)
        return file.getvalue()

    def _top(self, label: int, number: int) -> int:
        """Return the y of the top edge of a class's image."""
        return HEADER + label * self.row + number // PER_LINE * self.step_y

    def _image(self, x: int, y: int, image: Tensor, color: str, thickness: int) -> None:
        """Draw an image with a frame of this thickness inside the BORDER around it."""
        out, (width, height) = BORDER - thickness, self.tile
        outer = (x + out, y + out, x + 2 * BORDER + width - 1 - out, y + 2 * BORDER + height - 1 - out)
        self.pen.rectangle(outer, outline=color, width=thickness)
        self.canvas.paste(scaled(image, self.tile), (x + BORDER, y + BORDER))


def tile_for(size: Sequence[int], room: int) -> tuple[int, int]:
    """Return the (width, height) in pixels at which an image is drawn.

    Small images are enlarged by an integer factor, so that every pixel stays square. Series, and images of a single
    row, are drawn as curves, twice as wide as high.

    Args:
        size: (H, W) of the image, or (L,) of the series.
        room: available width and height in pixels, approximately.

    Example:
        >>> tile_for((28, 28), 112)
        (112, 112)
    """
    if _is_curve(size):
        return room, room // 2
    height, width = size
    times = max(1, room // max(size)) if max(size) <= 2 * room else room / max(size)
    return max(1, round(times * width)), max(1, round(times * height))


def _is_curve(size: Sequence[int]) -> bool:
    """Return whether inputs with these sides are drawn as curves: series, and images of a single row."""
    return len(size) == 1 or size[0] == 1


def scaled(pixels: Tensor, size: tuple[int, int]) -> Picture:
    """Convert pixels to a picture; with other than three channels, the first is shown in grey.

    Args:
        pixels: (C, H, W) from 0 to 1, or (C, L) of a series, which becomes a curve per channel.
        size: (width, height) of the picture.
    """
    from PIL import Image

    if _is_curve(pixels.shape[1:]):
        return _curves(pixels.flatten(1), size)
    levels = pixels.mul(255).round().to(torch.uint8).cpu()
    array = (levels.permute(1, 2, 0).contiguous() if len(levels) == 3 else levels[0]).numpy()
    larger = size[0] >= array.shape[1]
    return Image.fromarray(array).resize(size, Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS)


def _curves(series: Tensor, size: tuple[int, int]) -> Picture:
    """Draw the channels of a series (C, L) over one another, from 0 at the bottom to 1 at the top."""
    from PIL import Image, ImageDraw

    width, height = size
    canvas = Image.new("L", size, 255)
    pen = ImageDraw.Draw(canvas)
    across = torch.linspace(0, width - 1, series.shape[1]).tolist()
    for number, channel in enumerate(series.cpu()):
        down = ((1 - channel) * (height - 1)).tolist()
        pen.line(list(zip(across, down, strict=True)), fill=round(160 * number / len(series)), width=2)
    return canvas
