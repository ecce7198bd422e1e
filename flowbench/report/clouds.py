"""Samples as a picture for a page: points over data by row and NFE."""

from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from flowbench.comparison.view import Section
from flowbench.report import media, samples
from flowbench.report.charts import words
from flowbench.report.document import Picture
from flowbench.report.panel import DATA, SAMPLES, reach
from flowbench.report.samples import Samples

DOTS = 1000  # points of a square
SIDE, DPI = 1.0, 100  # inches of a square
LABEL, HEAD = 2.0, 0.3  # inches left of the squares and above them
SHORT = 25  # characters of a label
INSIDE = 0.94  # of a square that is used
LOST = 0.005  # share of points outside from which it is said


def points(
    store: Any,
    section: Section,
    folder: Path,
    data: np.ndarray | None = None,
    limit: int = media.LARGEST,
) -> Picture | None:
    """Samples of the same noise in their first two coordinates: a line for each row.

    `data` (N, 2) lie below them in grey. None where samples are no vectors.
    """
    found = samples.read(store, section, folder, DOTS)
    if found is None or len(found.shape) != 1:
        return None
    content = media.png(_drawn(found, data), limit, exact=False)
    if content is None:
        return None
    below = " over data" if data is not None else ""
    what = f"{DOTS} samples at most{below}, of {media.place(found)}"
    title = f"samples: {words.place(section)}"
    return Picture("samples", title, f"{what}. {media.rows(found)}", content)


def _drawn(found: Samples, data: np.ndarray | None) -> Image.Image:
    rows, columns = len(found.labels), len(found.nfes)
    size = (LABEL + columns * SIDE, HEAD + rows * SIDE)
    figure = Figure(size, DPI)
    axes = figure.add_axes((LABEL / size[0], 0, columns * SIDE / size[0], rows * SIDE / size[1]))
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    axes.axis("off")
    half = _half(found, data)
    for row, label in enumerate(found.labels):
        for column, nfe in enumerate(found.nfes):
            if (label, nfe) in found.cells:
                _square(axes, (column, row), half, data, found.cells[label, nfe])
    _label(axes, found)
    canvas = FigureCanvasAgg(figure)
    with catch_warnings():
        simplefilter("ignore", UserWarning)  # of letters that the font does not have
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _square(
    axes: Axes,
    corner: tuple[int, int],
    half: float,
    data: np.ndarray | None,
    values: np.ndarray,
) -> None:
    """One row at one NFE, and how many points lie outside of what is shown."""
    left, top = (place + (1 - INSIDE) / 2 for place in corner)
    axes.add_patch(Rectangle((left, top), INSIDE, INSIDE, fill=False, ec=DATA, lw=0.5))
    middle, size = np.array(corner) + 0.5, dict[str, Any](s=1.5, linewidths=0)
    for cloud, colour in ((data, DATA), (values, SAMPLES)):
        if cloud is not None:
            x, y = _placed(cloud[:DOTS], half, middle).T
            axes.scatter(x, y, c=colour, **size)
    outside = 1 - len(x) / len(values)
    if outside >= LOST:
        axes.text(left + 0.03, top + INSIDE - 0.03, f"{outside:.0%} outside", fontsize=6)


def _half(found: Samples, data: np.ndarray | None) -> float:
    """Half the side of the square around 0 that is shown: of the data, or of a typical cell."""
    if data is not None:
        return reach(data)
    finite = [values[np.isfinite(values).all(1)] for values in found.cells.values()]
    return float(np.median([reach(values) for values in finite if len(values)] or [1.0])) or 1.0


def _placed(values: np.ndarray, half: float, middle: np.ndarray) -> np.ndarray:
    """Points within the square, where they are drawn; the second coordinate goes up."""
    inside = values[(np.abs(values) <= half).all(1)]
    return middle + inside * [0.5, -0.5] * INSIDE / half


def _label(axes: Axes, found: Samples) -> None:
    """Rows on the left, NFE above."""
    texts, look = words.short(found.labels, SHORT), dict[str, Any](fontsize=9, parse_math=False)
    for row, label in enumerate(found.labels):
        axes.text(-0.05, row + 0.5, texts[label], ha="right", va="center", **look)
    for column, nfe in enumerate(found.nfes):
        axes.text(column + 0.5, -0.05, f"NFE {nfe or 'auto'}", ha="center", va="bottom", **look)
