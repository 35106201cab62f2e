"""How figures look: colours that hold on light and dark ground, and figures as SVG text or PNG files.

Text, axes and gaps use four marker colours. In a PNG they are what they say; in an SVG they become CSS variables
of the page (--ink, --muted, --grid, --page), so one drawing serves the light and the dark page.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, MUTED, GRID, PAGE = "#20262e", "#68727f", "#d9dde4", "#fefefe"
_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", PAGE: "var(--page)"}

BLUE, ORANGE, GREEN, PURPLE = "#3f7fc9", "#d2772c", "#3a9a68", "#9467bd"
"""Series that are not classes: ground truth or test, pseudo-labels, detections or train, and the rest."""

STRONG = ("#3f7fc9", "#d2772c", "#3a9a68", "#c9526b", "#8a6fc4", "#a58a1f", "#2c9bab", "#c764a8", "#6f9130", "#a9694a")
LIGHT = ("#6aa3e0", "#e59a57", "#63b98b", "#e07f92", "#ab94dc", "#c4aa46", "#5bbac8", "#de8cc4", "#94b455", "#c69277")
PALETTE = (*STRONG, *LIGHT)
"""Of middling lightness, so that they stand out from white and from near-black; neighbours differ in hue."""
OTHER = "#8b939d"
"""A class that the dataset does not list."""

_STYLE: dict[str, object] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor"), "none"),
    **dict.fromkeys(("font.size", "axes.labelsize"), 10.0),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 9.0),
    **dict.fromkeys(("axes.grid", "axes.axisbelow", "path.simplify"), True),
    # Class names are not ours: a "$" is a "$".
    **dict.fromkeys(("legend.frameon", "axes.spines.top", "axes.spines.right", "text.parse_math"), False),
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
    "path.simplify_threshold": 0.3,
    "svg.fonttype": "none",
}


@contextmanager
def styled(**more: object) -> Iterator[None]:
    """matplotlib's settings while figures are drawn or written; they are put back afterwards."""
    with warnings.catch_warnings(), mpl.rc_context({**_STYLE, **more}):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the browser has more fonts
        yield


def figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure, sizes in inches, that lays itself out unless told not to; no pyplot, hence no global state."""
    drawn = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(drawn)
    return drawn


def _settle(drawn: Figure) -> None:
    """Lays the figure out for good: `savefig` would draw it twice, the first time for nothing but the layout."""
    if (engine := drawn.get_layout_engine()) is not None:
        engine.execute(drawn)
        drawn.set_layout_engine("none")


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """A colour for each class by its place in the dataset's list, the same in every figure of a run."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(classes)}


def plain(text: str, most: int = 28) -> str:
    """An untrusted name as one short line."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def svg(drawn: Figure, description: str) -> str:
    """The figure as an <svg> element to stand inside a page.

    Args:
        drawn: the figure.
        description: read out in place of the drawing, and the salt of its ids; different for each figure of a page.
    """
    buffer = io.StringIO()
    with styled(**{"svg.hashsalt": description}):
        _settle(drawn)
        drawn.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Group ids (axes_1, ...) would repeat on a page, nothing refers to them. Fonts come from the page.
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", text, count=1, flags=re.S)
    text = re.sub(r'font: ([^;"]*?px) [^;"]*', r"font-size: \1", text)
    for marker, variable in _VARIABLES.items():
        text = text.replace(marker, variable)
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path.group()), text)
    text = re.sub(r"\n\s*", "\n", text)
    widest = round(108 * drawn.get_figwidth())  # so that text has one size in all figures of a page
    head = f'<svg role="img" aria-label="{html.escape(description)}" style="max-width: {widest}px"'
    return text.replace("<svg", head, 1).strip()


def png(drawn: Figure, path: Path) -> Path:
    """The figure as a PNG file on white; folders are made. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with styled():
        _settle(drawn)
        drawn.savefig(path, format="png", dpi=110, facecolor="white")
    return path
