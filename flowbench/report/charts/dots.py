"""One number per row: a sorted dot with its standard deviation, and the floor beside it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from flowbench.comparison.ranking import ordered
from flowbench.comparison.view import Cell, Section
from flowbench.records import RUN_LEVEL
from flowbench.report.charts import marks, style, words
from flowbench.report.document import Chart

ROW = 20  # pixels from row to row
NARROW = 200  # pixels of the part inside the axes, at least


def dots(
    section: Section, metric: str, nfe: int, labels: Sequence[str] = (), name: str = "dots"
) -> Chart | None:
    """A metric at one number of evaluations, the best row on top; None where nothing is finite.

    `labels` are all that occur in the document, so that each looks the same everywhere.
    """
    order = [group.label for group in ordered(section, metric, nfe)]
    cells = {label: section.cells.get((label, metric, nfe)) for label in order}
    measured = {label: cell for label, cell in cells.items() if cell is not None}
    shown = {label: cell for label, cell in measured.items() if math.isfinite(cell.mean)}
    if not shown:
        return None
    goal = next(iter(shown.values())).goal
    sentences = (
        f"{words.axis(metric, goal)}{words.at(nfe)}, mean ± standard deviation over seeds",
        words.extremes(list(shown.items()), section.floors.get(metric)),
        words.of_floor(section, metric),
        words.left_out(len(measured) - len(shown)),
        words.apart(measured.values()),
    )
    return Chart(
        words.slug(name, metric),
        f"{metric}{words.at(nfe)}: {words.place(section)}",
        words.joined(sentences),
        _spec(section, metric, shown, style.looks([*labels, *order]), nfe),
    )


def straightness(section: Section, labels: Sequence[str] = ()) -> Chart | None:
    """S of each row, the straightest on top; None where no row has one."""
    return dots(section, "S", RUN_LEVEL, labels, "straightness")


def _spec(
    section: Section,
    metric: str,
    shown: Mapping[str, Cell],
    looks: Mapping[str, style.Look],
    nfe: int,
) -> dict[str, Any]:
    labels = list(shown)
    texts, channels = words.short(labels), style.scales(labels, looks)
    rows = [marks.row(label, shown[label]) | {"text": texts[label]} for label in labels]
    room = int(style.CHARACTER * max(map(len, texts.values())))
    width = max(NARROW, style.WIDTH + style.LEFT - room)
    axis = marks.axis(section, metric, rows, width)
    title = words.axis(metric + words.at(nfe), shown[labels[0]].goal)
    place = alt.Scale(domain=[texts[label] for label in labels])
    names = alt.Axis(ticks=False, domain=False, labelPadding=8, minExtent=room)
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("text:N", title=None, scale=place, axis=names), color=channels["colour"]
    )
    low, value = (axis.channel(alt.X, field, title) for field in ("low", "value"))
    bars = base.mark_rule(strokeWidth=2, opacity=0.6).encode(x=low, x2="high:Q")
    points = base.mark_point(filled=True, size=60, opacity=1)
    points = points.encode(x=value, shape=channels["shape"])
    chart = alt.layer(*marks.floor(section, metric, axis, alt.X, title), bars, points)
    return style.finished(chart.properties(width=width, height=ROW * len(rows)))
