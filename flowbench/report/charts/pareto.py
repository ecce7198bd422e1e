"""Quality against cost: every row at every NFE, and the front of those that none beats in both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flowbench.comparison.ranking import distance
from flowbench.comparison.view import Cell, Section
from flowbench.records import RUN_LEVEL
from flowbench.report.charts import scatter, style, words
from flowbench.report.charts.scatter import Scatter
from flowbench.report.document import Chart
from flowbench.report.layout import number, plain


@dataclass(frozen=True)
class Point:
    """A row at one NFE; `far` is smaller for a better number, by the goal of the metric."""

    label: str
    nfe: int
    cell: Cell
    price: Cell
    far: float

    @property
    def finite(self) -> bool:
        """Whether it has a number and a cost."""
        return math.isfinite(self.cell.mean) and math.isfinite(self.price.mean)


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other point beats, from the cheapest.

    A point is beaten by one that is as good and as cheap, and better in one of both.
    """
    found: list[Point] = []
    for point in sorted(points, key=_rank):
        if not found or point.far < found[-1].far or _rank(point) == _rank(found[-1]):
            found.append(point)
    return found


def _rank(point: Point) -> tuple[float, float]:
    return point.price.mean, point.far


def pareto(
    section: Section, metric: str, cost: str, labels: Sequence[str] = (), nfe: int | None = None
) -> Chart | None:
    """A metric against `ms-per-sample`, `train-seconds` or `train-images`; None without both.

    Costs of whole runs, a teacher's included, are shown at one `nfe`: unless named, at that which
    most rows have, of several the least. `labels` are all that occur in the document.
    """
    whole = cost in section.facts
    nfe = usual(section, metric) if whole and nfe is None else nfe
    every = _points(section, metric, cost, nfe)
    points = [point for point in every if point.finite and point.price.mean > 0]
    if not points:
        return None
    best = _ranked(points)
    looks = style.looks([*labels, *(group.label for group in section.groups)])
    drawn = Scatter(section, metric, cost, whole, points, best)
    return Chart(
        words.slug("pareto", metric, cost),
        f"{metric}{drawn.at} by {words.COSTS.get(cost, cost)}: {words.place(section)}",
        _summary(section, drawn, every),
        scatter.spec(drawn, looks),
    )


def usual(section: Section, metric: str) -> int | None:
    """The NFE at which most rows have a metric, of several the least."""
    rows = [nfe for _, name, nfe in section.cells if name == metric and nfe != RUN_LEVEL]
    return max(section.nfes, key=rows.count, default=None)


def _points(section: Section, metric: str, cost: str, nfe: int | None) -> list[Point]:
    found, floor = [], section.floors.get(metric)
    for (label, name, at), cell in sorted(section.cells.items(), key=lambda pair: pair[0]):
        level = RUN_LEVEL if cost in section.facts else at
        price = section.cells.get((label, cost, level))
        if name == metric and at != RUN_LEVEL and nfe in (None, at) and price:
            found.append(Point(label, at, cell, price, distance(cell, floor)))
    return found


def _ranked(points: Sequence[Point]) -> list[Point]:
    """The front; nothing where numbers do not rank together, or nothing is better than another."""
    cells = [cell for point in points for cell in (point.cell, point.price)]
    ranks = all(point.cell.goal and math.isfinite(point.far) for point in points)
    return front(points) if ranks and all(cell.comparable for cell in cells) else []


def _summary(section: Section, drawn: Scatter, every: Sequence[Point]) -> str:
    free = sum(point.finite and point.price.mean <= 0 for point in every)
    goal = words.goal_of(section, drawn.metric)
    steps = "; ".join(
        f"{drawn.name(point.label, point.nfe)}: {number(point.cell)} at {plain(point.price.mean)}"
        for point in drawn.best
    )
    return words.joined(
        (
            f"{words.axis(drawn.metric, goal)} by {drawn.title}: {len(drawn.points)} points",
            f"The front, means that none beats in both, from the cheapest: {steps}"
            if drawn.best
            else "No front: these numbers do not rank together",
            words.of_floor(section, drawn.metric),
            words.left_out(sum(not point.finite for point in every)),
            f"Not drawn, since they cost nothing: {free}" if free else "",
        )
    )
