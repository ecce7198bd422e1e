"""Tables on a terminal."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text as RichText

from flowbench.report.layout import Table, Text
from flowbench.report.text import printable

BETWEEN = "  "  # columns


def show(tables: Iterable[Table], console: Console | None = None) -> None:
    """Print tables with the best of each column in bold, and the notes below.

    Where the terminal is too narrow, columns go on in a further table: no number is ever cut.
    Elsewhere than on a terminal nothing is bold, and lines are as long as they are.
    """
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.file.write(plain(tables))
        return
    for table in map(_printable, tables):
        console.print(RichText(table.title, style="bold"), soft_wrap=True)
        for columns in _parts(table, console.width):
            for line in _lines(table, columns):
                console.print(line, no_wrap=True, crop=False, overflow="ignore")
            console.print()
        for note in table.notes:
            console.print(RichText(note), soft_wrap=True)
        console.print()


def plain(tables: Iterable[Table]) -> str:
    """The same as aligned columns of text, as wide as they are."""
    return "".join(line + "\n" for table in map(_printable, tables) for line in _plain(table))


def _printable(table: Table) -> Table:
    """Nothing of what a stranger wrote moves the cursor or changes colours."""
    return replace(
        table,
        title=printable(table.title),
        columns=[printable(column) for column in table.columns],
        rows=[[_shown(cell) for cell in row] for row in table.rows],
        notes=[printable(note) for note in table.notes],
    )


def _shown(cell: Text) -> Text:
    return cell if cell.words.isprintable() else replace(cell, words=printable(cell.words))


def _plain(table: Table) -> Iterator[str]:
    widths = [_width(table, column) for column in range(len(table.columns))]
    yield table.title
    yield BETWEEN.join(_padded(table.columns, widths, table.labels)).rstrip()
    yield BETWEEN.join("-" * width for width in widths)
    for row in table.rows:
        words = [cell.words for cell in row]
        yield BETWEEN.join(_padded(words, widths, table.labels)).rstrip()
    yield from table.notes
    yield ""


def _lines(table: Table, columns: Sequence[int]) -> Iterator[RichText]:
    """Heading, rule and rows of some columns, the best of each in bold."""
    widths = [_width(table, column) for column in columns]
    heading = [table.columns[column] for column in columns]
    yield RichText(BETWEEN.join(_padded(heading, widths, table.labels)))
    yield RichText(BETWEEN.join("-" * width for width in widths))
    for row in table.rows:
        cells = [row[column] for column in columns]
        words = _padded([cell.words for cell in cells], widths, table.labels)
        styles = ["bold green" if cell.best else "" for cell in cells]
        parts = [RichText(*part) for part in zip(words, styles, strict=True)]
        line = RichText(BETWEEN).join(parts)
        line.rstrip()
        yield line


def _padded(words: Sequence[str], widths: Sequence[int], labels: int) -> list[str]:
    """Labels to the left, numbers to the right."""
    found = []
    for column, (word, width) in enumerate(zip(words, widths, strict=True)):
        space = " " * (width - cell_len(word))
        found.append(word + space if column < labels else space + word)
    return found


def _parts(table: Table, width: int) -> Iterator[list[int]]:
    """Groups of columns that fit into `width`, each with the labels first."""
    labels = list(range(table.labels))
    used = start = sum(_width(table, column) + len(BETWEEN) for column in labels) - len(BETWEEN)
    part: list[int] = []
    for column in range(table.labels, len(table.columns)):
        more = _width(table, column) + len(BETWEEN)
        if part and used + more > width:
            yield labels + part
            part, used = [], start
        part.append(column)
        used += more
    yield labels + part


def _width(table: Table, column: int) -> int:
    """Characters that a column takes."""
    return max(map(cell_len, [table.columns[column], *(row[column].words for row in table.rows)]))
