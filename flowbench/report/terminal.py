"""Tables on a terminal."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from flowbench.report.layout import Table


def show(tables: Iterable[Table], console: Console | None = None) -> None:
    """Print tables with the best of each column in bold, and the notes below."""
    console = console or Console(highlight=False, width=None if Console().is_terminal else 200)
    for table in tables:
        grid = RichTable(title=table.title, title_justify="left", title_style="bold")
        for i, column in enumerate(table.columns):
            grid.add_column(column, justify="right" if i else "left", overflow="fold")
        for row in table.rows:
            grid.add_row(
                *(Text(cell.words, style="bold green" if cell.best else "") for cell in row)
            )
        console.print(grid)
        for note in table.notes:
            console.print(Text(note), soft_wrap=True)
