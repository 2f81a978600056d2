"""Drawing of charts as SVG and PNG: equal figures always give equal bytes.

Text stays text, in the reader's own sans-serif font. The colours are the palette of Okabe and Ito, which people with
any kind of colour vision can tell apart; markers differ too.
"""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GRID = "#E6E6E6"
_STYLE: Any = {  # the type of its keys differs between matplotlib's versions
    "svg.hashsalt": "secateur",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
_DRAWING = threading.Lock()
"""Lock that allows one chart at a time, because matplotlib's settings belong to the entire process."""


@contextmanager
def open_figure(size: tuple[float, float]) -> Iterator[Figure]:
    """Open a figure of this size in inches; it has to be drawn before the context ends."""
    with _DRAWING, matplotlib.rc_context(_STYLE):
        yield Figure(figsize=size, layout="constrained")


def dress(axes: Axes, title: str, x_label: str, y_label: str, *, x_is_share: bool = False) -> None:
    """Give axes their title, labels and grid."""
    axes.set_title(title, loc="left")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    if x_is_share:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def as_svg(figure: Figure, title: str) -> str:
    """Return the figure as SVG without a date, so that equal figures give equal bytes."""
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
    return target.getvalue()


def as_png(figure: Figure) -> bytes:
    """Return the figure as PNG in a resolution for slides."""
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=200, metadata={"Software": None})
    return target.getvalue()
