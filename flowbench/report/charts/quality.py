"""A metric against the number of evaluations: a line for each row, its spread, the floor."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from flowbench.comparison.view import Cell, Section
from flowbench.records import ADAPTIVE, RUN_LEVEL
from flowbench.report.charts import axes, marks, style, words
from flowbench.report.charts.dots import dots
from flowbench.report.document import Chart

Cells = dict[tuple[str, int], Cell]  # label, NFE


def quality(section: Section, metric: str, labels: Sequence[str] = ()) -> Chart | None:
    """A metric over NFE, or dots where there is one NFE; None where nothing is finite.

    `labels` are all that occur in the document, so that each looks the same everywhere.
    """
    every = {
        (label, nfe): cell
        for (label, name, nfe), cell in section.cells.items()
        if name == metric and nfe != RUN_LEVEL
    }
    finite = {place: cell for place, cell in every.items() if math.isfinite(cell.mean)}
    if len({nfe for _, nfe in every}) == 1:
        return dots(section, metric, next(iter(every))[1], labels, "quality")
    cells = {place: cell for place, cell in finite.items() if _spent(section, *place)}
    if not cells:
        return None
    looks = style.looks([*labels, *(group.label for group in section.groups)])
    return Chart(
        words.slug("quality", metric),
        f"{metric} by number of evaluations: {words.place(section)}",
        _summary(section, metric, every, finite, cells),
        _spec(section, metric, cells, looks),
    )


def _spent(section: Section, label: str, nfe: int) -> float | None:
    """How many evaluations a point stands at; an adaptive solver's were counted."""
    if nfe != ADAPTIVE:
        return nfe
    counted = section.cells.get((label, "nfe", nfe))
    return counted.mean if counted and math.isfinite(counted.mean) else None


def _summary(section: Section, metric: str, every: Cells, finite: Cells, shown: Cells) -> str:
    floor, goal = section.floors.get(metric), words.goal_of(section, metric)
    sentences = [f"{words.axis(metric, goal)} by number of evaluations (NFE)"]
    for nfe in section.nfes:
        some = [(label, cell) for (label, at), cell in shown.items() if at == nfe]
        if some:
            sentences.append(f"NFE {nfe or 'auto'}: {words.extremes(some, floor)}")
    sentences.append(words.of_floor(section, metric))
    sentences.append(words.left_out(len(every) - len(finite)))
    unknown = len(finite) - len(shown)
    if unknown:
        sentences.append(f"Not drawn, since its evaluations were not counted: {unknown}")
    return words.joined([*sentences, words.apart(every.values())])


def _spec(
    section: Section, metric: str, cells: Cells, looks: Mapping[str, style.Look]
) -> dict[str, Any]:
    present = {label for label, _ in cells}
    labels = [group.label for group in section.groups if group.label in present]
    rows = [
        marks.row(label, cell) | {"nfe": nfe, "x": _spent(section, label, nfe)}
        for (label, nfe), cell in sorted(cells.items())
    ]
    y = marks.axis(section, metric, rows, style.HEIGHT)
    x = axes.at(sorted({some["x"] for some in rows}), style.WIDTH)
    title = words.axis(metric, words.goal_of(section, metric))
    channels, floor = style.scales(labels, looks), marks.floor(section, metric, y, alt.Y, title)
    chart = alt.layer(*floor, *_layers(rows, x, y, title, channels))
    chart = chart.properties(width=style.WIDTH, height=style.HEIGHT)
    return style.finished(alt.vconcat(chart, style.key(labels, channels), spacing=12))


def _layers(
    rows: Sequence[marks.Row], x: axes.Axis, y: axes.Axis, title: str, channels: Mapping[str, Any]
) -> list[alt.Chart]:
    """Bands and lines over fixed NFE; bars where a row has one, or an adaptive solver's."""
    fixed = [some for some in rows if some["nfe"] != ADAPTIVE]
    count = [some["label"] for some in fixed]
    joined = [some for some in fixed if count.count(some["label"]) > 1]
    alone = [some for some in rows if some not in joined]
    across = x.channel(alt.X, "x", "number of evaluations (NFE)")
    low, value = (y.channel(alt.Y, field, title) for field in ("low", "value"))
    colour = channels["colour"]

    def over(some: Sequence[marks.Row]) -> alt.Chart:
        return alt.Chart(alt.Data(values=list(some))).encode(x=across, color=colour)

    spread = [some for some in joined if some["sd"] is not None]
    bands = over(spread).mark_area(opacity=0.15).encode(y=low, y2="high:Q")
    bars = over(alone).mark_rule(strokeWidth=2, opacity=0.6).encode(y=low, y2="high:Q")
    lines = over(joined).mark_line(strokeWidth=2)
    lines = lines.encode(y=value, strokeDash=channels["dash"])
    points = over(rows).mark_point(filled=True, size=45, opacity=1)
    points = points.encode(y=value, shape=channels["shape"])
    return [bands, bars, lines, points]
