"""Layout of composed images: lines of text, parts stacked vertically, PNG files."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from torchreptile.experiments.reports.plot_style import LIGHT

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

GAP, MARGIN = 8, 24  # pixels


def line(text: str, height: int) -> Picture:
    """Draw a line of text on an image as wide as the text."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=26)
    canvas = Image.new("RGB", (int(font.getlength(text)) + 1, height), LIGHT.paper)
    ImageDraw.Draw(canvas).text((0, height - 12), text, fill=LIGHT.text, font=font, anchor="ls")
    return canvas


def fitting(text: str, width: int, length: Callable[[str], float]) -> str:
    """Shorten a text that is wider than ``width`` pixels by omitting its middle.

    Args:
        text: the text.
        width: available width in pixels.
        length: returns the width of a text in pixels.

    Example:
        >>> fitting("a-very-long-class-name", 11, length=len)
        'a-ve...name'
    """
    cut = len(text)
    shown = text
    while length(shown) > width:
        cut -= 1
        shown = f"{text[: cut // 2]}...{text[len(text) - (cut - cut // 2) :]}"
    return shown


def stacked(parts: list[Picture]) -> Picture:
    """Stack images vertically, with a margin around them and space between."""
    from PIL import Image

    size = max(part.width for part in parts), sum(part.height + 2 * GAP for part in parts)
    canvas = Image.new("RGB", (size[0] + 2 * MARGIN, size[1] + 2 * MARGIN), LIGHT.paper)
    y = MARGIN
    for part in parts:
        canvas.paste(part, (MARGIN, y))
        y += part.height + 2 * GAP
    return canvas


def png(picture: Picture) -> bytes:
    """Encode an image as a PNG file."""
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()
