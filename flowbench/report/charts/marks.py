"""Marks that several charts share: numbers as data, and the line of the floor."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from flowbench.comparison.view import Cell, Section
from flowbench.report.charts import style
from flowbench.report.charts.axes import MARGIN, Axis, fitted
from flowbench.report.layout import plain

Row = dict[str, Any]


def row(label: str, cell: Cell) -> Row:
    """A number as the data of a mark; `low` and `high` are mean ± standard deviation."""
    sd = cell.sd or 0.0
    ends = {"low": cell.mean - sd, "high": cell.mean + sd}
    return {"label": label, "value": cell.mean, "sd": cell.sd, "seeds": cell.seeds} | ends


def axis(
    section: Section, metric: str, rows: Sequence[Row], length: int, margin: float = MARGIN
) -> Axis:
    """The axis for the values of `rows` and the floor; error bars are cut off at its low end."""
    values = [some["value"] for some in rows]
    values += [section.floors[metric].mean] if metric in section.floors else []
    ends = [end for some in rows for end in (some["low"], some["high"])]
    found = fitted(values, length, ends, margin=margin)
    for some in rows:
        some["low"] = max(some["low"], found.low)
    return found


def floor(section: Section, metric: str, axis: Axis, kind: type, title: str) -> list[alt.Chart]:
    """A dashed line with its number outside the axes: level for `alt.Y`, upright for `alt.X`."""
    cell = section.floors.get(metric)
    if cell is None or not axis.low <= cell.mean <= axis.high:
        return []
    level = kind is alt.Y
    words = ("floor\n" if level else "floor ") + plain(cell.mean)
    base = alt.Chart(alt.Data(values=[{"floor": cell.mean, "text": words}]))
    place = axis.channel(kind, "floor", title)
    form: dict[str, Any] = {"color": style.MUTED, "fontSize": style.SIZE, "lineBreak": "\n"}
    if level:
        text = base.mark_text(align="left", baseline="middle", dx=4, dy=-6, **form)
        text = text.encode(y=place, x=alt.value(style.WIDTH), text="text:N")
    else:
        text = base.mark_text(baseline="bottom", dy=-3, **form)
        text = text.encode(x=place, y=alt.value(0), text="text:N")
    line = base.mark_rule(color=style.MUTED, strokeDash=[4, 4])
    return [line.encode(y=place) if level else line.encode(x=place), text]
