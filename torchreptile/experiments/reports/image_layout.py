"""What pictures for people are put together from: lines of text, parts below one another, a PNG file."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from torchreptile.experiments.reports.episode_image import LIGHT

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

GAP, MARGIN = 8, 24  # pixels


def line(text: str, height: int) -> Picture:
    """One line of text, as wide as it is."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=26)
    canvas = Image.new("RGB", (int(font.getlength(text)) + 1, height), LIGHT.paper)
    ImageDraw.Draw(canvas).text((0, height - 12), text, fill=LIGHT.text, font=font, anchor="ls")
    return canvas


def fitting(text: str, width: int, length: Callable[[str], float]) -> str:
    """The text, its middle left out where it is wider than ``width`` pixels."""
    cut = len(text)
    shown = text
    while length(shown) > width:
        cut -= 1
        shown = f"{text[: cut // 2]}...{text[len(text) - (cut - cut // 2) :]}"
    return shown


def stacked(parts: list[Picture]) -> Picture:
    """One below the other, with a margin around and space between."""
    from PIL import Image

    size = max(part.width for part in parts), sum(part.height + 2 * GAP for part in parts)
    canvas = Image.new("RGB", (size[0] + 2 * MARGIN, size[1] + 2 * MARGIN), LIGHT.paper)
    y = MARGIN
    for part in parts:
        canvas.paste(part, (MARGIN, y))
        y += part.height + 2 * GAP
    return canvas


def png(picture: Picture) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()
