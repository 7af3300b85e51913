"""Colours, resolution and axes that all figures and pictures share."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160


@dataclass(frozen=True)
class Palette:
    """The colours of a figure or picture.

    Attributes:
        paper: background.
        text: text and main lines.
        faint: grid lines and spines.
        frame: frames of images and secondary text.
        blue: training classes, right predictions.
        orange: validation classes, wrong predictions.
    """

    paper: str
    text: str
    faint: str
    frame: str
    blue: str
    orange: str


# Okabe and Ito's blue and orange, which colour-blind readers can distinguish; markers and line widths differ as well.
LIGHT = Palette("#ffffff", text="#1f2328", faint="#d5d9de", frame="#8a9099", blue="#0072b2", orange="#d55e00")
DARK = Palette("#171a1f", text="#e6e8eb", faint="#3a4048", frame="#6b737d", blue="#56b4e9", orange="#f0a03c")


def png_of(figure: Figure, ink: Palette, notes: dict[str, str] | None = None) -> bytes:
    """Render a figure as a PNG file, with ``notes`` as its text chunks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with io.BytesIO() as file:
        figure.savefig(file, format="png", facecolor=ink.paper, metadata=notes)
        return file.getvalue()


def style(axis: Axes, ink: Palette) -> None:
    """Apply the common style to axes."""
    axis.set_facecolor(ink.paper)
    axis.grid(color=ink.faint, linewidth=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(colors=ink.text, labelsize=10.5, length=0)
    for text in (axis.xaxis.label, axis.yaxis.label):
        text.set_color(ink.text)
        text.set_fontsize(11)
    for name, spine in axis.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(ink.faint)
