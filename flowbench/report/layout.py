"""Tables of texts that every format prints alike, and how a number is written."""

import math
from dataclasses import dataclass, field

from flowbench.comparison.view import Cell
from flowbench.records import RUN_LEVEL

MISSING = "not measured"


@dataclass(frozen=True)
class Text:
    """What stands in one cell."""

    words: str
    best: bool = False
    value: float | None = None  # what a reader may sort by; None: by the words


@dataclass
class Table:
    """A table that any format can print: the first `labels` columns say what a row is.

    `tags` say of each row, where there are any, what it may be filtered by: dataset, method, nfe.
    """

    title: str
    columns: list[str]
    rows: list[list[Text]]
    notes: list[str] = field(default_factory=list)
    labels: int = 1
    tags: list[dict[str, str]] = field(default_factory=list)


def heading(name: str, nfe: int) -> str:
    """A column of one metric at one number of evaluations: `fid @ 2`, `S`."""
    return name if nfe == RUN_LEVEL else f"{name} @ {nfe or 'auto'}"


def number(cell: Cell) -> str:
    """Mean ± standard deviation over training seeds, and in brackets that over noise streams."""
    words = plain(cell.mean)
    if math.isfinite(cell.mean):
        words += "" if cell.sd is None else f" ± {cell.sd:.2g}"
        words += "" if cell.sampling_sd is None else f" ({cell.sampling_sd:.2g})"
    return words


def plain(value: float) -> str:
    """Four significant digits, never in scientific notation from 0.0001 to a billion."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1000 <= abs(value) < 1e9 or (value == round(value) and 10 <= abs(value) < 1e9):
        return f"{value:.0f}"
    return f"{value:#.4g}" if 1e-4 <= abs(value) < 1000 else f"{value:.2e}"
