"""A table for the page: its columns, and its rows as HTML (plain Python: there may be 100,000)."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from markupsafe import Markup, escape

from flowbench.report.layout import Table, Text

GOALS = {
    "min": ("↓", "lower is better"),
    "max": ("↑", "higher is better"),
    "floor": ("≈", "nearest to the floor is better"),
}
SENTENCE = 40  # characters from which the words of a cell may take several lines


@dataclass(frozen=True)
class Column:
    """A heading; `numeric` where its cells are sorted by their values."""

    title: str
    goal: tuple[str, str] | None  # a sign and its words
    numeric: bool
    long: bool  # sentences


@dataclass(frozen=True)
class Grid:
    """A table for the page; the rows of `fixed` stay below the others however they are sorted."""

    table: Table
    columns: list[Column]
    rows: list[Markup]
    fixed: list[Markup]


def grid(
    table: Table, goals: Mapping[str, str] | None = None, anchors: Mapping[str, str] | None = None
) -> Grid:
    """`goals` by metric; `anchors` by label: the place that says how a row was made."""
    columns = list(_columns(table, goals or {}))
    rows: list[Markup] = []
    fixed: list[Markup] = []
    for texts, tags in zip(table.rows, table.tags or [{}] * len(table.rows), strict=True):
        anchor = (anchors or {}).get(texts[0].words, "")
        line = _line(texts, tags, columns, table.labels, anchor)
        (fixed if "floor" in tags else rows).append(line)
    return Grid(table, columns, rows, fixed)


def tags_attribute(tags: Mapping[str, str]) -> Markup:
    """What the script filters an element by."""
    return Markup('data-tags="{}"').format(json.dumps(tags, sort_keys=True, ensure_ascii=False))


def _columns(table: Table, goals: Mapping[str, str]) -> Iterator[Column]:
    for index, title in enumerate(table.columns):
        goal = goals.get(title.partition(" @ ")[0], "")
        cells = [row[index] for row in table.rows]
        numeric = any(cell.value is not None for cell in cells)
        longest = max((len(cell.words) for cell in cells), default=0)
        yield Column(title, GOALS.get(goal), numeric, not numeric and longest > SENTENCE)


def _line(
    texts: list[Text], tags: Mapping[str, str], columns: list[Column], labels: int, anchor: str
) -> Markup:
    """A row, whose first `labels` cells are its headers; the first leads to `anchor`."""
    cells = []
    for index, (text, column) in enumerate(zip(texts, columns, strict=True)):
        head = index < labels and text.words
        words = str(escape(text.words)) if head else _number(text)
        if anchor and not index:
            words = f'<a class="how" href="#{quote(anchor)}">{words}</a>'
        opening, name = ('th scope="row"', "th") if head else ("td", "td")
        cells.append(f"<{opening}{_attributes(text, column)}>{words}</{name}>")
    return Markup(f"<tr {tags_attribute(tags)}>{''.join(cells)}</tr>\n")


def _number(text: Text) -> str:
    """The words of a cell, with the deviations after a mean set apart from it."""
    words = str(escape(text.words))
    if text.value is not None:
        words = re.sub(r" ([±(].*)", r" <small>\1</small>", words, count=1)
    if not text.best:
        return words
    return f'<strong title="best at its NFE">{words}<span class="sr">, best</span></strong>'


def _attributes(text: Text, column: Column) -> str:
    if not column.numeric:
        return ' class="words long"' if column.long else ' class="words"'
    value = text.value
    if value is None or math.isnan(value):
        return ""  # missing: last, whatever the order
    number = repr(value) if math.isfinite(value) else f"{'-' * (value < 0)}Infinity"
    return f' data-value="{number}"'
