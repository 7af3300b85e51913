"""Picture of a classifier's predictions: the support set, and below it the labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from torchreptile.experiments.reports.episode_image import scaled, tile_for
from torchreptile.experiments.reports.image_layout import GAP, fitting, line, png, stacked
from torchreptile.experiments.reports.plot_style import LIGHT

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SHOWN, SHOTS = 60, 6  # drawn queries, and drawn support images per class; the rest is only counted
# Pixels.
ROOM, COLUMN, COLUMNS, NAME, HEAD, TEXT, BAR = 112, 240, 5, 320, 56, 24, 12


def draw_predictions(
    support: dict[str, Tensor],
    queries: Tensor,
    predicted: Sequence[str],
    confidence: Sequence[float],
    truth: Sequence[str] | None,
) -> bytes:
    """Draw the support set with a row per class, and below it the queries with their predictions.

    Below each query are its predicted class and a bar that shows the confidence. If true classes are given, a wrong
    prediction has an orange frame and the true class in brackets.

    Args:
        support: images by class, (shot, C, H, W) from 0 to 1.
        queries: (N, C, H, W) from 0 to 1, as the network sees them.
        predicted: N class names.
        confidence: N probabilities from 0 to 1.
        truth: N true class names, or None.

    Returns:
        A PNG file.

    Example:
        >>> import torch
        >>> images = {"a": torch.zeros(1, 1, 28, 28), "b": torch.ones(1, 1, 28, 28)}
        >>> draw_predictions(images, torch.rand(1, 1, 28, 28), ["a"], [0.7], None)[1:4]
        b'PNG'
    """
    parts = [line("support", HEAD), _support(support)]
    shown = min(SHOWN, len(queries))
    more = f" (the first {shown} of {len(queries):,})" if shown < len(queries) else ""
    parts += [line(f"labelled{more}", HEAD), _queries(queries[:shown], predicted, confidence, truth)]
    return png(stacked(parts))


def _support(support: dict[str, Tensor]) -> Picture:
    """Draw the support set."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = tile_for(next(iter(support.values())).shape[2:], ROOM // 2)
    row = height + GAP
    font = ImageFont.load_default(size=TEXT)
    names = [fitting(name, NAME, font.getlength) for name in support]
    left = int(max(map(font.getlength, names))) + 3 * GAP
    canvas = Image.new("RGB", (left + SHOTS * (width + GAP) + 140, len(support) * row + 1), LIGHT.paper)
    pen = ImageDraw.Draw(canvas)
    for place, (name, images) in enumerate(zip(names, support.values(), strict=True)):
        middle = place * row + height // 2
        pen.text((0, middle), name, fill=LIGHT.text, font=font, anchor="lm")
        for column, image in enumerate(images[:SHOTS]):
            x, y = left + column * (width + GAP), 1 + place * row  # 1: the frame
            canvas.paste(scaled(image, (width, height)), (x, y))
            pen.rectangle((x - 1, y - 1, x + width, y + height), outline=LIGHT.frame)
        if len(images) > SHOTS:
            where = (left + SHOTS * (width + GAP), middle)
            pen.text(where, f"and {len(images) - SHOTS:,} more", fill=LIGHT.frame, font=font, anchor="lm")
    return canvas


def _queries(
    queries: Tensor, predicted: Sequence[str], confidence: Sequence[float], truth: Sequence[str] | None
) -> Picture:
    """Draw queries with their predictions."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = tile_for(queries.shape[2:], ROOM)
    row = height + 3 * TEXT + BAR + 3 * GAP
    rows = -(-len(queries) // COLUMNS)
    canvas = Image.new("RGB", (min(COLUMNS, len(queries)) * COLUMN, rows * row + 4), LIGHT.paper)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=TEXT)
    for number, image in enumerate(queries):
        x, y = number % COLUMNS * COLUMN + 4, number // COLUMNS * row + 4  # 4: the thickest frame
        wrong = truth is not None and predicted[number] != truth[number]
        canvas.paste(scaled(image, (width, height)), (x, y))
        frame, thickness = (LIGHT.orange, 4) if wrong else (LIGHT.frame, 1)
        corners = (x - thickness, y - thickness, x + width + thickness - 1, y + height + thickness - 1)
        pen.rectangle(corners, outline=frame, width=thickness)
        below = y + height + GAP
        bar = round((COLUMN - 4 * GAP) * confidence[number])
        pen.rectangle((x, below, x + COLUMN - 4 * GAP, below + BAR), outline=LIGHT.frame)
        pen.rectangle((x, below, x + bar, below + BAR), fill=LIGHT.orange if wrong else LIGHT.blue)
        words = [f"{predicted[number]} {100 * confidence[number]:.0f}%"]
        words += [f"({truth[number]})"] if truth is not None and wrong else []
        for place, text in enumerate(words):
            where = (x, below + BAR + 4 + place * TEXT)
            pen.text(where, fitting(text, COLUMN - 2 * GAP, font.getlength), fill=LIGHT.text, font=font)
    return canvas
