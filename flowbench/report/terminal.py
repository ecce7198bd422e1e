"""Tables on a terminal."""

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text as RichText

from flowbench.report.layout import Table

UNLIMITED = 10_000  # columns, where the output is no terminal


def show(tables: Iterable[Table], console: Console | None = None) -> None:
    """Print tables with the best of each column in bold, and the notes below.

    Where the terminal is too narrow, columns go on in a further table: no number is ever cut.
    """
    console = console or Console(highlight=False)
    for table in tables:
        console.print(RichText(table.title, style="bold"), soft_wrap=True)
        for columns in _parts(table, console.width if console.is_terminal else UNLIMITED):
            console.print(_grid(table, columns), no_wrap=True, crop=False, overflow="ignore")
        for note in table.notes:
            console.print(RichText(note), soft_wrap=True)


def _parts(table: Table, width: int) -> Iterator[list[int]]:
    """Groups of columns that fit into `width`, each with the labels first."""
    labels = list(range(table.labels))
    used = start = 1 + sum(_width(table, column) for column in labels)
    part: list[int] = []
    for column in range(table.labels, len(table.columns)):
        if part and used + _width(table, column) > width:
            yield labels + part
            part, used = [], start
        part.append(column)
        used += _width(table, column)
    yield labels + part


def _width(table: Table, column: int) -> int:
    """Characters that a column takes, its border included."""
    words = [table.columns[column], *(row[column].words for row in table.rows)]
    return max(map(len, words)) + 3


def _grid(table: Table, columns: list[int]) -> RichTable:
    grid = RichTable(width=1 + sum(_width(table, column) for column in columns))
    for column in columns:
        grid.add_column(table.columns[column], justify="right" if column else "left", no_wrap=True)
    for row in table.rows:
        cells = [row[column] for column in columns]
        grid.add_row(
            *(RichText(cell.words, style="bold green" if cell.best else "") for cell in cells)
        )
    return grid
