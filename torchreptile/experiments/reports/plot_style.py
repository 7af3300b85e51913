"""Colours, resolution and axes that all plots share."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160


@dataclass(frozen=True)
class Ink:
    """The colours of a picture."""

    paper: str
    text: str
    faint: str
    train: str
    val: str


# Okabe and Ito's blue and orange, which colour-blind readers tell apart; markers differ as well.
LIGHT = Ink(paper="#ffffff", text="#1f2328", faint="#d5d9de", train="#0072b2", val="#d55e00")
DARK = Ink(paper="#171a1f", text="#e6e8eb", faint="#3a4048", train="#56b4e9", val="#f0a03c")


def png_of(figure: Figure, ink: Ink, notes: dict[str, str] | None = None) -> bytes:
    """The finished figure as a PNG file, with ``notes`` as its text chunks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with io.BytesIO() as file:
        figure.savefig(file, format="png", facecolor=ink.paper, metadata=notes)
        return file.getvalue()


def style(axis: Axes, ink: Ink) -> None:
    """What all axes have in common."""
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
