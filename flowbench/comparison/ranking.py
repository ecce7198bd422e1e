"""Which cell of a column is best, and where that cannot be said."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flowbench import options
from flowbench.comparison import fingerprint
from flowbench.comparison.naming import named
from flowbench.comparison.view import Cell, Group, Key, Section
from flowbench.records import ADAPTIVE, RUN_LEVEL, FlowbenchError


def distance(cell: Cell, floor: Cell | None) -> float:
    """What is smaller for a better cell, by the goal of its metric."""
    if cell.goal == "floor":
        return abs(cell.mean - floor.mean) if floor else math.inf
    return -cell.mean if cell.goal == "max" else cell.mean


def mark(cells: dict[Key, Cell], floors: Mapping[str, Cell]) -> dict[Key, Cell]:
    """Mark the best cell of each (metric, NFE); none where the fingerprints of a column differ."""
    columns: dict[tuple[str, int], list[Key]] = defaultdict(list)
    for key in cells:
        columns[key[1], key[2]].append(key)
    marked = dict(cells)
    for keys in columns.values():
        if len(keys) == 1 and not fingerprint.differences([cells[keys[0]].fields]):
            continue
        agree = not fingerprint.differences([cells[key].fields for key in keys])
        far = {key: distance(cells[key], floors.get(key[1])) for key in keys if cells[key].goal}
        top = min((d for d in far.values() if math.isfinite(d)), default=None)
        fair = agree and len(keys) > 1 and same_noise([cells[key] for key in keys])
        for key in keys:
            best = fair and top is not None and far.get(key) == top
            if best or not agree:
                marked[key] = replace(cells[key], best=best, comparable=agree)
    return marked


def same_noise(cells: Sequence[Cell]) -> bool:
    """Whether numbers of samples were all made from the same noise streams."""
    streams = {
        frozenset(some) for c in cells for some in c.values.values() if c.fields.get("n") != "0"
    }
    return len(streams) <= 1


def ordered(section: Section, name: str, nfe: int) -> list[Group]:
    """The rows with the best of one column first; those without a number in it last."""
    floor = section.floors.get(name)

    def place(group: Group) -> tuple[bool, float]:
        cell = section.cells.get((group.label, name, nfe))
        far = math.inf if cell is None else distance(cell, floor)
        return math.isnan(far) or cell is None, 0.0 if math.isnan(far) else far

    return sorted(section.groups, key=place)


def sorted_by(sections: Sequence[Section], word: str) -> list[list[Group]]:
    """The rows of each section in the order of a column, `METRIC` or `METRIC@NFE`.

    Without an NFE it is the lowest. A section that lacks the metric stays as it is. Raises
    FlowbenchError for a column that none has.
    """
    metric, _, level = word.partition("@")
    known = dict.fromkeys(name for s in sections for name in (*s.metrics, *s.facts))
    names = [named(metric.strip(), section.n) for section in sections]
    if not any(name in known for name in names):
        options.choose("metric of --sort", metric.strip(), known)
    places = zip(sections, names, strict=True)
    levels = [sorted(_levels(section, name), key=_last_adaptive) for section, name in places]
    if level.strip():
        asked = level.strip().replace("auto", str(ADAPTIVE))
        if not any(asked == str(nfe) for some in levels for nfe in some):
            nfes = sorted({nfe for some in levels for nfe in some}, key=_last_adaptive)
            found = ", ".join(str(nfe or "auto") for nfe in nfes if nfe != RUN_LEVEL)
            where = found or "no NFE, but for whole runs"
            raise FlowbenchError(f"--sort {word}: {metric.strip()} was measured at {where}")
        levels = [[nfe for nfe in some if str(nfe) == asked] for some in levels]
    return [
        ordered(section, name, some[0]) if some else section.groups
        for section, name, some in zip(sections, names, levels, strict=True)
    ]


def _levels(section: Section, name: str) -> set[int]:
    return {nfe for _, metric, nfe in section.cells if metric == name}


def _last_adaptive(nfe: int) -> float:
    return nfe or math.inf
