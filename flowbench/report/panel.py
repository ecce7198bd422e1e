"""Pictures of runs: the panel of a table of methods, samples by evaluations, film strips."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from flowbench.checkpoints import write
from flowbench.records import FlowbenchError

DPI = 150
SIDE = 2.6  # inches of one square
NOISE, SAMPLES, DATA = "#0072B2", "#D55E00", "0.8"  # of Okabe and Ito: told apart by all readers
TIME, ARROWS = "viridis", "0.15"
HEADINGS = ("source", "samples over data", "trajectories", "field at the start")
LENGTH = 1.3  # of the long arrows of a typical row, in distances of the grid
ACROSS = 26  # characters of a line beside a row


@dataclass(frozen=True)
class Row:
    """What the panel shows of one method, all in the first two coordinates.

    `noise` (B, 2), `data` (N, 2), `samples` (M, 2) after so many `evaluations`; trajectories as
    `times` (T,) and `states` (T, B, 2); the field as `arrows` (G, 2) at `points` (G, 2), a square
    grid, and time `start`. What a method has not is None, and `words` stand in its place.
    """

    label: str
    noise: np.ndarray
    data: np.ndarray
    samples: np.ndarray | None = None
    evaluations: str = ""
    times: np.ndarray | None = None
    states: np.ndarray | None = None
    points: np.ndarray | None = None
    arrows: np.ndarray | None = None
    start: float = 0.0
    straightness: float | None = None
    words: str = "no field"


@dataclass(frozen=True)
class Column:
    """Samples of the same noise at one number of evaluations.

    `values` are (n, 2) points or (n, H, W, C) uint8 images.
    """

    title: str
    values: np.ndarray


def check(out: Path) -> None:
    """Raise FlowbenchError unless the name of `out` ends like a picture."""
    known = FigureCanvasBase.get_supported_filetypes()
    if out.suffix.lower().removeprefix(".") not in known:
        raise FlowbenchError(f"{out} is no picture: its name has to end in .png, .pdf or .svg")


def reach(*clouds: np.ndarray) -> float:
    """Half the side of a square around 0 that shows nearly all points (n, 2) of each cloud."""
    return 1.15 * max(float(np.quantile(np.abs(cloud), 0.995)) for cloud in clouds)


def draw(rows: Sequence[Row], out: Path) -> None:
    """Write the panel: a row of four squares for each method, all with the same limits."""
    check(out)
    figure = Figure((4 * SIDE + 1.3, SIDE * len(rows) + 0.5), DPI, layout="constrained")
    axes = figure.subplots(len(rows), 4, squeeze=False, sharex=True, sharey=True)
    limit = reach(*(cloud for row in rows for cloud in (row.noise, row.data)))
    scale = _scale(rows)
    for squares, row in zip(axes, rows, strict=True):
        _clouds(squares[0], squares[1], row, limit)
        _trajectories(squares[2], row)
        _field(squares[3], row, scale)
        squares[0].set_ylabel(fill(row.label.replace("$", r"\$"), ACROSS))
    for square, heading in zip(axes[0], HEADINGS, strict=True):
        square.set_title(heading)
    axes[0, 3].set_title(f"{HEADINGS[3]}: arrow = v / {scale:g}", fontsize="medium")
    for square in axes[:, 2:].flat:
        square.axhline(0, color=DATA, linewidth=0.6, zorder=0)
        square.axvline(0, color=DATA, linewidth=0.6, zorder=0)
    for square in axes.flat:
        square.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    bar = ScalarMappable(Normalize(0, 1), TIME)
    label = "time t: 0 noise, 1 data"
    figure.colorbar(bar, ax=axes, label=label, shrink=min(1.0, 2 / len(rows)), aspect=25)
    save(figure, out)


def _clouds(left: Axes, right: Axes, row: Row, limit: float) -> None:
    _dots(left, row.noise, NOISE)
    _dots(right, row.data, DATA)
    if row.samples is None:
        _note(right, "no samples")
        return
    _dots(right, row.samples, SAMPLES)
    _note(right, f"{row.evaluations}{_outside(row.samples, limit)}")


def _dots(square: Axes, points: np.ndarray, colour: Any, **style) -> None:
    look = {"s": 3, "linewidths": 0, "rasterized": True} | style
    square.scatter(points[:, 0], points[:, 1], c=colour, **look)


def _outside(points: np.ndarray, limit: float) -> str:
    """How many points lie beyond the limits or are not finite, in words."""
    count = int((~(np.abs(points) <= limit).all(1)).sum())
    return f", {count} of {len(points)} outside" if count else ""


def _note(square: Axes, words: str, **place) -> None:
    where: dict[str, Any] = {"x": 0.03, "y": 0.03, "va": "bottom", "fontsize": "small"} | place
    box = {"facecolor": "white", "alpha": 0.9, "linewidth": 0, "pad": 1.5}
    square.text(s=words, transform=square.transAxes, bbox=box, **where)


def _trajectories(square: Axes, row: Row) -> None:
    """Lines coloured by time, from blue dots to orange ones."""
    if row.states is None or row.times is None:
        _note(square, row.words, x=0.5, y=0.5, ha="center", va="center")
        return
    pieces = np.stack([row.states[:-1], row.states[1:]], axis=2)  # (T - 1, B, 2 ends, 2)
    lines = LineCollection(
        list(pieces.transpose(1, 0, 2, 3).reshape(-1, 2, 2)),
        array=np.tile((row.times[:-1] + row.times[1:]) / 2, row.states.shape[1]),
        norm=Normalize(0, 1),
        cmap=TIME,
        linewidths=0.7,
        alpha=0.7,
        rasterized=True,
    )
    square.add_collection(lines, autolim=False)
    _dots(square, row.states[0], NOISE, s=4, zorder=3)
    _dots(square, row.states[-1], SAMPLES, s=4, zorder=3)
    if row.straightness is not None:
        _note(square, f"S = {row.straightness:.3f}")


def _scale(rows: Sequence[Row]) -> float:
    """By what speeds are divided in all rows, to one digit; 1 where nothing moves."""
    speeds = [_speed(row) for row in rows if row.arrows is not None]
    return float(f"{np.median(speeds or [0]) / LENGTH:.1g}") or 1.0


def _speed(row: Row) -> float:
    """A high speed of the row's field, in distances of its grid."""
    assert row.arrows is not None and row.points is not None
    spacing = float(np.diff(np.unique(row.points[:, 0])).max())
    return float(np.quantile(np.linalg.norm(row.arrows, axis=1), 0.95)) / spacing


def _field(square: Axes, row: Row, scale: float) -> None:
    """Arrows as long as the speed divided by `scale`."""
    if row.arrows is None or row.points is None:
        _note(square, row.words, x=0.5, y=0.5, ha="center", va="center")
        return
    form: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": scale, "width": 0.006}
    square.quiver(*row.points.T, *row.arrows.T, color=ARROWS, **form)
    _note(square, f"t = {row.start:.3f}")


def columns(title: str, noise: np.ndarray, found: Sequence[Column], data, out: Path) -> None:
    """Write samples as points over `data` (N, 2): a square for the noise and one for each column.

    The colour of a sample is the first coordinate of its noise (n, 2).
    """
    check(out)
    count = len(found) + 1
    figure = Figure((SIDE * count + 0.9, SIDE + 0.7), DPI, layout="constrained")
    axes = figure.subplots(1, count, squeeze=False, sharex=True, sharey=True)[0]
    limit, shades = reach(noise, data), Normalize(-2, 2)
    for square, column in zip(axes, [Column("noise", noise), *found], strict=True):
        if column.title != "noise":
            _dots(square, data, DATA)
            _note(square, _outside(column.values, limit).removeprefix(", "))
        colours = noise[: len(column.values), 0]
        _dots(square, column.values, colours, cmap="cividis", norm=shades, s=4)
        square.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", title=column.title)
    bar = ScalarMappable(shades, "cividis")
    figure.colorbar(bar, ax=axes, label="first coordinate of the noise", extend="both")
    figure.suptitle(title)
    save(figure, out)


def pictures(title: str, found: Sequence[Column], out: Path, across: int = 1) -> None:
    """Write images (n, H, W, C): a row of the same noise, `across` of them in each column."""
    check(out)
    rows = len(found[0].values) // across
    width = 0.62 * across * len(found) + 0.15 * (len(found) - 1)
    figure = Figure((max(width, 4) + 0.3, 0.62 * rows + 0.9), DPI, layout="constrained")
    figure.suptitle(title)
    parts = figure.subfigures(1, len(found), squeeze=False)[0]
    for part, column in zip(parts, found, strict=True):
        part.suptitle(column.title, fontsize="medium")
        for image, square in zip(
            column.values, part.subplots(rows, across, squeeze=False).flat, strict=False
        ):
            _image(square, image)
    save(figure, out)


def _image(square: Axes, image: np.ndarray) -> None:
    grey = image.shape[2] == 1
    square.imshow(image[:, :, 0] if grey else image, cmap="gray", vmin=0, vmax=255)
    square.axis("off")


def save(figure: Figure, out: Path) -> None:
    """Write a figure; raises FlowbenchError in one line where that fails."""
    content = BytesIO()
    figure.savefig(content, format=out.suffix.lower().removeprefix("."))
    try:
        write(out, content.getvalue())
    except OSError as error:
        raise FlowbenchError(f"{out} cannot be written: {error.strerror}") from error
