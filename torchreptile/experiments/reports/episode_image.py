"""One episode as a picture: what the learner was shown, what it was asked, and what it answered."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchreptile.data.episodes import Episodes

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw as Pen

PER_LINE = 5  # images side by side in a class's row; more of them go below
# Pixels; twice what a page shows, for sharp screens.
TILE, MANY_WAY, SMALL_TILE = 112, 10, 84
BORDER, THIN, GAP, LABEL, ANSWER, HEADER = 6, 3, 10, 52, 76, 44


@dataclass(frozen=True)
class _Ink:
    paper: str
    text: str
    frame: str
    right: str
    wrong: str


LIGHT = _Ink(paper="#ffffff", text="#1f2328", frame="#8a9099", right="#0072b2", wrong="#d55e00")
DARK = _Ink(paper="#171a1f", text="#e6e8eb", frame="#6b737d", right="#56b4e9", wrong="#f0a03c")


def draw_episode(episodes: Episodes, predicted: Tensor | None, task: int = 0, *, dark: bool = False) -> bytes:
    """One episode as a picture: a row per class, its support images on the left, its queries on the right.

    A right answer has a tick and a thin blue frame; a wrong one a cross, the letter of the class it was taken
    for, and a thick orange frame.

    Args:
        episodes: (T, way * shots, C, H, W) support and (T, way * queries, C, H, W) query images, pixels 0 to 1.
        predicted: (T, way * queries) int64 labels; None draws the queries without answers.
        task: which of the T tasks.
        dark: light ink on dark paper.

    Returns:
        A PNG file, twice as wide as it should be shown.
    """
    way = int(episodes.support_y[task].max()) + 1
    support, query = (_by_class(images[task], way) for images in (episodes.support_x, episodes.query_x))
    room = 0 if predicted is None else ANSWER
    sheet = _Sheet(way, support.shape[1], query.shape[1], support.shape[-2:], room, DARK if dark else LIGHT)
    answers = [[None] * query.shape[1]] * way if predicted is None else predicted[task].view(way, -1).tolist()
    for label in range(way):
        sheet.name(label)
        for shot, image in enumerate(support[label]):
            sheet.support(label, shot, image)
        for number, (image, answer) in enumerate(zip(query[label], answers[label], strict=True)):
            sheet.query(label, number, image, answer)
    return sheet.png()


def _by_class(images: Tensor, way: int) -> Tensor:
    """(way * n, C, H, W) -> (way, n, C, H, W)."""
    return images.view(way, -1, *images.shape[1:])


def letter(label: int) -> str:
    """What a class is called in the pictures: A to Z, then A2 to Z2, and so on."""
    return chr(ord("A") + label % 26) + (str(label // 26 + 1) if label >= 26 else "")


class _Sheet:
    """The paper an episode is drawn on: it knows where everything goes."""

    def __init__(self, way: int, shots: int, queries: int, size: tuple[int, ...], room: int, ink: _Ink) -> None:
        from PIL import Image, ImageDraw, ImageFont

        self.ink = ink
        self.tile = tile_for(size, TILE if way <= MANY_WAY else SMALL_TILE)
        self.step_x, self.step_y = (side + 2 * BORDER + GAP for side in self.tile)
        self.row = self.step_y * -(-max(shots, queries) // PER_LINE)
        self.query_step = self.step_x + room  # for the answer beside it
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
        """The class's letter, at the beginning of its row."""
        middle = HEADER + label * self.row + BORDER + self.tile[1] // 2
        self.pen.text((LABEL // 2, middle), letter(label), fill=self.ink.text, font=self.letters, anchor="mm")

    def support(self, label: int, shot: int, image: Tensor) -> None:
        """A support image, (C, H, W), in its class's row."""
        x = LABEL + shot % PER_LINE * self.step_x
        self._image(x, self._top(label, shot), image, self.ink.frame, 1)

    def query(self, label: int, number: int, image: Tensor, answer: int | None) -> None:
        """A query image, (C, H, W), in its true class's row, and what it was taken for, if anything."""
        x, y = self.queries_left + number % PER_LINE * self.query_step, self._top(label, number)
        left, middle = x + self.step_x, y + BORDER + self.tile[1] // 2
        if answer is None:
            self._image(x, y, image, self.ink.frame, 1)
            return
        if answer == label:
            self._image(x, y, image, self.ink.right, THIN)
            tick = [(left, middle + 2), (left + 10, middle + 14), (left + 30, middle - 14)]
            self.pen.line(tick, fill=self.ink.right, width=6, joint="curve")
            return
        self._image(x, y, image, self.ink.wrong, BORDER)
        for slope in (-1, 1):
            cross = [(left, middle - 20 - 12 * slope), (left + 24, middle - 20 + 12 * slope)]
            self.pen.line(cross, fill=self.ink.wrong, width=6)
        self.pen.text((left + 12, middle + 22), letter(answer), fill=self.ink.text, font=self.letters, anchor="mm")

    def png(self) -> bytes:
        """The sheet as a PNG file."""
        file = io.BytesIO()
        self.canvas.save(file, format="PNG", optimize=True)
        return file.getvalue()

    def _top(self, label: int, number: int) -> int:
        return HEADER + label * self.row + number // PER_LINE * self.step_y

    def _image(self, x: int, y: int, image: Tensor, color: str, thickness: int) -> None:
        """An image whose frame, ``thickness`` thick, lies within the BORDER around it."""
        out, (width, height) = BORDER - thickness, self.tile
        outer = (x + out, y + out, x + 2 * BORDER + width - 1 - out, y + 2 * BORDER + height - 1 - out)
        self.pen.rectangle(outer, outline=color, width=thickness)
        self.canvas.paste(scaled(image, self.tile), (x + BORDER, y + BORDER))


def tile_for(size: Sequence[int], room: int) -> tuple[int, int]:
    """(width, height) at which images of ``size`` (H, W) are drawn, in about ``room`` pixels.

    Small ones take a whole multiple of their size, so that every pixel stays square.
    """
    height, width = size
    times = max(1, room // max(size)) if max(size) <= 2 * room else room / max(size)
    return round(times * width), round(times * height)


def scaled(pixels: Tensor, size: tuple[int, int]) -> Picture:
    """(C, H, W) from 0 to 1 -> a picture of (width, height); three channels are colours, else the first is a grey."""
    from PIL import Image

    levels = pixels.mul(255).round().to(torch.uint8).cpu()
    array = (levels.permute(1, 2, 0).contiguous() if len(levels) == 3 else levels[0]).numpy()
    larger = size[0] >= array.shape[1]
    return Image.fromarray(array).resize(size, Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS)
