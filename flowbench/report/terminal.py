"""Tables on a terminal."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text as RichText

from flowbench.report.layout import Table
from flowbench.report.text import printable


def show(tables: Iterable[Table], console: Console | None = None) -> None:
    """Print tables with the best of each column in bold, and the notes below.

    Where the terminal is too narrow, columns go on in a further table: no number is ever cut.
    Elsewhere than on a terminal there are no lines and no colours.
    """
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.file.write(plain(tables))
        return
    for table in map(_printable, tables):
        console.print(RichText(table.title, style="bold"), soft_wrap=True)
        for columns in _parts(table, console.width):
            console.print(_grid(table, columns), no_wrap=True, crop=False, overflow="ignore")
        for note in table.notes:
            console.print(RichText(note), soft_wrap=True)


def plain(tables: Iterable[Table]) -> str:
    """The same as aligned columns of text, as wide as they are."""
    return "".join(line + "\n" for table in map(_printable, tables) for line in _plain(table))


def _printable(table: Table) -> Table:
    """Nothing of what a stranger wrote moves the cursor or changes colours."""
    return replace(
        table,
        title=printable(table.title),
        columns=[printable(column) for column in table.columns],
        rows=[[replace(cell, words=printable(cell.words)) for cell in row] for row in table.rows],
        notes=[printable(note) for note in table.notes],
    )


def _plain(table: Table) -> Iterator[str]:
    rows = [table.columns, *([cell.words for cell in row] for row in table.rows)]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    yield table.title
    for number, row in enumerate(rows):
        yield _aligned(row, widths, table.labels)
        if number == 0:
            yield "  ".join("-" * width for width in widths)
    yield from table.notes
    yield ""


def _aligned(words: Sequence[str], widths: Sequence[int], labels: int) -> str:
    """Labels to the left, numbers to the right."""
    parts = []
    for column, (word, width) in enumerate(zip(words, widths, strict=True)):
        space = " " * (width - cell_len(word))
        parts.append(word + space if column < labels else space + word)
    return "  ".join(parts).rstrip()


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
    return max(map(cell_len, words)) + 3


def _grid(table: Table, columns: list[int]) -> RichTable:
    grid = RichTable(width=1 + sum(_width(table, column) for column in columns))
    for column in columns:
        side: Literal["left", "right"] = "right" if column >= table.labels else "left"
        grid.add_column(RichText(table.columns[column]), justify=side, no_wrap=True)
    for row in table.rows:
        cells = [row[column] for column in columns]
        grid.add_row(
            *(RichText(cell.words, style="bold green" if cell.best else "") for cell in cells)
        )
    return grid
