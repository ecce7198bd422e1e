"""How quality against cost is drawn: points, the front as steps, labels where they cover least."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import altair as alt

from flowbench.comparison.view import Section
from flowbench.report.charts import axes, marks, style, words
from flowbench.report.charts.axes import Axis
from flowbench.report.charts.placing import Spot, along, placed

if TYPE_CHECKING:
    from flowbench.report.charts.pareto import Point

ROOM = 0.12  # of the height that is left for labels above and below all points
Over = Callable[[Sequence[marks.Row]], alt.Chart]  # data to a chart with the axes


@dataclass(frozen=True)
class Scatter:
    """What is drawn: `points` at all NFE or, for costs of a `whole` run, at one; `best` of them."""

    section: Section
    metric: str
    cost: str
    whole: bool
    points: Sequence["Point"]
    best: Sequence["Point"]

    @property
    def title(self) -> str:
        """The cost in words."""
        return words.COSTS.get(self.cost, self.cost)

    @property
    def heading(self) -> list[str]:
        """The title of the axis, and what is to be seen."""
        front = "steps: the front" if self.best else ""
        numbers = "" if self.whole or not self.best else "; numbers: NFE"
        return [self.title, *([front + numbers] if front else [])]

    @property
    def at(self) -> str:
        """The number of evaluations where all points are drawn at one, else nothing."""
        nfes = {point.nfe for point in self.points}
        return words.at(nfes.pop()) if len(nfes) == 1 else ""

    def name(self, label: str, nfe: int) -> str:
        """How a point is called."""
        return label if self.whole else f"{label}{words.at(nfe)}"


def spec(drawn: Scatter, looks: Mapping[str, style.Look]) -> dict[str, Any]:
    """The specification of the chart, with a key of all rows below."""
    section, metric = drawn.section, drawn.metric
    present = {point.label for point in drawn.points}
    labels = [group.label for group in section.groups if group.label in present]
    rows = [_row(point) | {"front": point in drawn.best} for point in drawn.points]
    x = axes.fitted([row["cost"] for row in rows], style.WIDTH)
    y = marks.axis(section, metric, rows, style.HEIGHT, ROOM)
    title = words.axis(metric + drawn.at, words.goal_of(section, metric))
    channels = style.scales(labels, looks)
    across, value = x.channel(alt.X, "cost", drawn.heading), y.channel(alt.Y, "value", title)

    def over(some: Sequence[marks.Row]) -> alt.Chart:
        return alt.Chart(alt.Data(values=list(some))).encode(x=across, y=value)

    layers = [*marks.floor(section, metric, y, alt.Y, title), *_layers(over, rows, channels)]
    layers += [_names(over, drawn, rows, x, y)] if drawn.best else []
    chart = alt.layer(*layers).properties(width=style.WIDTH, height=style.HEIGHT)
    below = style.key(labels, channels, line=False)
    return style.finished(alt.vconcat(chart, below, spacing=12))


def _row(point: "Point") -> marks.Row:
    return marks.row(point.label, point.cell) | {"nfe": point.nfe, "cost": point.price.mean}


def _layers(over: Over, rows: Sequence[marks.Row], channels: Mapping[str, Any]) -> list[alt.Chart]:
    """Rows as thin lines, the front as steps, filled points on it and hollow ones elsewhere."""
    best = sorted((row for row in rows if row["front"]), key=lambda row: row["cost"])
    beaten = [row for row in rows if not row["front"]]
    look = {"color": channels["colour"], "shape": channels["shape"]}
    layers = []
    if len({row["nfe"] for row in rows}) > 1:
        thin = over(rows).mark_line(strokeWidth=1, opacity=0.35)
        layers.append(thin.encode(color=look["color"], detail="label:N"))
    if best:
        steps = over(best).mark_line(strokeWidth=1.5, interpolate="step-after", color=style.INK)
        layers.append(steps)
    hollow = over(beaten).mark_point(size=40, strokeWidth=1.3, opacity=0.9)
    filled = over(best).mark_point(size=60, filled=True, opacity=1)
    return [*layers, *(some.encode(**look) for some in (hollow, filled))]


def _names(over: Over, drawn: Scatter, rows: Sequence[marks.Row], x: Axis, y: Axis) -> alt.Chart:
    """The labels of the points on the front, where they cover least."""

    def spot(cost: float, value: float) -> Spot:
        return x.at(cost), y.length - y.at(value)

    spots = [spot(point.price.mean, point.cell.mean) for point in drawn.best]
    steps = [corner for one, other in pairwise(spots) for corner in (one, (other[0], one[1]))]
    taken = along([*steps, spots[-1]]) + [spot(row["cost"], row["value"]) for row in rows]
    floor = drawn.section.floors.get(drawn.metric)
    if floor and math.isfinite(floor.mean):
        level = y.length - y.at(floor.mean)
        taken += along([(0, level), (x.length, level)])
    size, letter = (x.length, y.length), (style.CHARACTER, style.SIZE + 1)
    data = [
        {"text": text, "cost": x.value(left), "value": y.value(y.length - top)}
        for text, (left, top) in placed(spots, _texts(drawn), taken, size, letter)
    ]
    form: dict[str, Any] = {"align": "left", "baseline": "middle", "color": style.INK}
    return over(data).mark_text(fontSize=style.SIZE, **form).encode(text="text:N")


def _texts(drawn: Scatter) -> list[list[str]]:
    """For each point of the front the row with its NFE; or, where there is no room, the NFE."""
    short = words.short(list(dict.fromkeys(point.label for point in drawn.best)))
    found = [[drawn.name(short[point.label], point.nfe)] for point in drawn.best]
    if not drawn.whole:
        for texts, point in zip(found, drawn.best, strict=True):
            texts.append(str(point.nfe or "auto"))
    return found
