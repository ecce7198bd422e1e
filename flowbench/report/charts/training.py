"""Loss against training images: a panel for each row, since losses of methods do not compare."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import altair as alt

from flowbench import training_log
from flowbench.comparison.view import Section
from flowbench.events import Point
from flowbench.report import files
from flowbench.report.charts import axes, style, words
from flowbench.report.document import Chart
from flowbench.report.layout import plain

WIDTH, HEIGHT, COLUMNS = 150, 100, 2  # pixels of a panel, and how many stand side by side
POINTS = 50  # of a line; more are averaged
LARGEST = 2**23  # bytes of a log

Logs = Mapping[str, Mapping[int, Sequence[Point]]]  # label -> training seed -> points


def read(store, section: Section, folder: Path) -> Logs:
    """The training logs of a section's rows from the folder of runs; those that are there."""
    logs = {}
    for group in section.groups:
        found = {seed: _log(store, run, folder) for seed, run in group.runs.items()}
        logs[group.label] = {seed: points for seed, points in found.items() if points}
    return logs


def _log(store, run: str, folder: Path) -> list[Point]:
    paths = files.found(store, run, folder, LARGEST).get("training-log")
    return training_log.read(paths[-1]) if paths else []


def training(section: Section, logs: Logs, labels: Sequence[str] = ()) -> Chart | None:
    """The loss of each seed, stage after stage; None where there are no finite losses.

    `labels` are all that occur in the document, so that each looks the same everywhere.
    """
    found = style.looks([*labels, *(group.label for group in section.groups)])
    order = [group.label for group in section.groups if logs.get(group.label)]
    rows = {label: list(_rows(logs[label])) for label in order}
    rows = {label: some for label, some in rows.items() if some}
    if not rows:
        return None
    every = [point for label in order for some in logs[label].values() for point in some]
    return Chart(
        "training",
        f"training loss: {words.place(section)}",
        _summary(rows, sum(not math.isfinite(point.loss) for point in every)),
        _spec(rows, found),
    )


def _rows(seeds: Mapping[int, Sequence[Point]]) -> Iterator[dict[str, Any]]:
    """The data of a panel; a stage goes on where the one before it ended."""
    for seed, points in sorted(seeds.items()):
        start = 0
        for stage, some in groupby(points, key=lambda point: point.stage):
            part = list(some)
            for images, loss in _thinned([p for p in part if math.isfinite(p.loss)]):
                place = {"images": start + images, "start": start, "loss": float(f"{loss:.4g}")}
                yield {"seed": seed, "stage": stage, "line": f"{seed} {start}"} | place
            start += part[-1].images


def _thinned(points: Sequence[Point]) -> Iterator[tuple[int, float]]:
    """At most POINTS (images, loss); neighbours are averaged."""
    size = -(-len(points) // POINTS) or 1
    for first in range(0, len(points), size):
        some = points[first : first + size]
        yield some[-1].images, math.fsum(point.loss for point in some) / len(some)


def _summary(rows: Mapping[str, Sequence[dict[str, Any]]], lost: int) -> str:
    ends = []
    for label, some in rows.items():
        last = {(row["stage"], row["seed"]): row["loss"] for row in some}
        stages = dict.fromkeys(row["stage"] for row in some)
        means = {stage: [v for (own, _), v in last.items() if own == stage] for stage in stages}
        parts = [f"{stage} {plain(math.fsum(v) / len(v))}" for stage, v in means.items()]
        ends.append(f"{label}: {', '.join(parts)}")
    return words.joined(
        (
            "Training loss by training images, a panel for each row and a line for each seed"
            " and stage",
            "Losses of different methods are different quantities and do not compare",
            f"Last loss of each stage, mean over seeds: {'; '.join(ends)}",
            words.left_out(lost),
        )
    )


def _spec(
    rows: Mapping[str, list[dict[str, Any]]], looks: Mapping[str, style.Look]
) -> dict[str, Any]:
    texts = words.short(list(rows))
    panels = [
        _panel(texts[label], some, looks[label], number % COLUMNS == 0)
        for number, (label, some) in enumerate(rows.items())
    ]
    return style.finished(alt.concat(*panels, columns=COLUMNS, spacing=14))


def _panel(title: str, rows: list[dict[str, Any]], look: style.Look, first: bool) -> Any:
    x = axes.fitted([0, *(row["images"] for row in rows)], WIDTH, log=False)
    y = axes.fitted([row["loss"] for row in rows], HEIGHT)
    across = x.channel(alt.X, "images", "training images", grid=False)
    base = alt.Chart(alt.Data(values=rows)).encode(x=across)
    lines = base.mark_line(strokeWidth=1.3, opacity=0.75, color=look.colour, clip=True)
    lines = lines.encode(y=y.channel(alt.Y, "loss", "loss" if first else None), detail="line:N")
    stages = _stages(rows, across)
    return alt.layer(*stages[:1], lines, *stages[1:]).properties(
        width=WIDTH, height=HEIGHT, title=alt.TitleParams(title, frame="group", offset=6)
    )


def _stages(rows: Sequence[dict[str, Any]], across: alt.X) -> list[alt.Chart]:
    """Lines where stages begin, and their names; nothing where there is one stage."""
    stages = {row["stage"]: row["start"] for row in reversed(rows)}
    if len(stages) == 1:
        return []
    marks = [{"stage": stage, "images": start} for stage, start in stages.items()]
    begin = alt.Chart(alt.Data(values=marks)).encode(x=across)
    form: dict[str, Any] = {"align": "left", "baseline": "bottom", "color": style.MUTED}
    names = begin.mark_text(fontSize=style.SIZE - 2, angle=90, dx=2, **form)
    rules = begin.mark_rule(color=style.MUTED, strokeDash=[2, 2])
    return [rules, names.encode(y=alt.value(0), text="stage:N")]
