"""The words of charts: file names, what a direction means, summaries for those who cannot see."""

import math
import re
from collections.abc import Iterable, Sequence

from flowbench.comparison.ranking import distance
from flowbench.comparison.view import Cell, Section
from flowbench.records import RUN_LEVEL
from flowbench.report.layout import number

GOALS = {
    "min": "lower is better",
    "max": "higher is better",
    "floor": "nearer to the floor is better",
}
COSTS = {
    "ms-per-sample": "milliseconds per sample",
    "train-seconds": "training seconds, teacher included",
    "train-images": "training images, teacher included",
}
UNPRINTABLE = re.compile(
    "[^\\t\\n\\r\\x20-\\x7e\\xa0-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]"
)
WIDEST = 28  # characters of a label in a key or beside a point


def printable(text: str) -> str:
    """Text with a sign in the place of all characters that fonts and XML files cannot hold."""
    return UNPRINTABLE.sub("\ufffd", text)


def short(labels: Sequence[str], most: int = WIDEST) -> dict[str, str]:
    """Labels of at most so many characters: the middle is left out, and no two become one."""
    texts: dict[str, str] = {}
    for own in labels:
        label = printable(" ".join(own.split()))
        ending = most // 2 - 1
        text = label if len(label) <= most else f"{label[: most - ending - 1]}…{label[-ending:]}"
        again = 2
        while text in texts.values():
            text = f"{label[: most - 5]}… {again}"
            again += 1
        texts[own] = text
    return texts


def slug(*words: str) -> str:
    """Words as the name of a file: lower case, digits and dashes."""
    parts = (re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words)
    return "-".join(part for part in parts if part) or "chart"


def axis(metric: str, goal: str) -> str:
    """A metric as the title of an axis."""
    return f"{metric} ({GOALS[goal]})" if goal in GOALS else metric


def place(section: Section) -> str:
    """A section in a few words."""
    return f"{section.dataset}, {section.n} samples"


def at(nfe: int) -> str:
    """A number of evaluations, `auto` for an adaptive solver, nothing for a whole run."""
    return "" if nfe == RUN_LEVEL else f" @ {nfe or 'auto'}"


def goal_of(section: Section, metric: str) -> str:
    """What a metric of the section is to be."""
    return next((cell.goal for (_, name, _), cell in section.cells.items() if name == metric), "")


def extremes(cells: Sequence[tuple[str, Cell]], floor: Cell | None) -> str:
    """The best and the worst of (label, cell) in words; where they do not rank, least and most."""
    first = cells[0][1]
    ranked = bool(first.goal) and math.isfinite(distance(first, floor))
    ranked = ranked and all(cell.comparable for _, cell in cells)
    order = sorted(cells, key=lambda pair: distance(pair[1], floor) if ranked else pair[1].mean)
    ends = [f"{label} {number(cell)}" for label, cell in (order[0], order[-1])]
    if len(order) == 1:
        return ends[0]
    words = ("best", "worst") if ranked else ("least", "most")
    return f"{words[0]} {ends[0]}, {words[1]} {ends[1]}, of {len(order)}"


def joined(sentences: Iterable[str]) -> str:
    """Sentences in one line; empty ones are left out."""
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def of_floor(section: Section, metric: str) -> str:
    """The floor in words; nothing where there is none."""
    cell, real = section.floors.get(metric), "real held-out data in the model's place"
    return f"Floor, {real} (n = {section.floor_n}): {number(cell)}" if cell else ""


def left_out(count: int) -> str:
    """How many numbers a chart cannot show."""
    return f"Not drawn, since not finite: {count} number{'s' * (count > 1)}" if count else ""


def apart(cells: Iterable[Cell]) -> str:
    """A warning where numbers were made in ways that do not rank together."""
    mixed = any(cell.goal and not cell.comparable for cell in cells)
    return "Some of these numbers were made by different protocols and do not rank" if mixed else ""
