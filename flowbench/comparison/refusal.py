"""Which of the rows that were asked for do not compare, and which field of the fingerprint says so.

Rows rank together only where all fields agree. `compare` refuses a column of which that is not
true, unless it is told to show the rows apart.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flowbench.comparison import fingerprint
from flowbench.comparison.naming import named
from flowbench.comparison.view import Cell, Section
from flowbench.records import RUN_LEVEL, FlowbenchError

SHOWN = 3  # labels of one value that a message names


class NotComparable(FlowbenchError):
    """Numbers that were asked for side by side do not compare."""

    exit_code = 5


@dataclass(frozen=True)
class Refusal:
    """A field in which the numbers of one metric differ: the labels of the rows by its value."""

    dataset: str
    metric: str
    field: str
    values: Mapping[str, tuple[str, ...]]

    @property
    def words(self) -> str:
        """One line with all values, each with the first rows that have it."""
        parts = []
        for value, labels in self.values.items():
            more = ", ..." if len(labels) > SHOWN else ""
            parts.append(f"{value or 'none'} ({', '.join(labels[:SHOWN])}{more})")
        what = f"{self.field} of {self.metric}" if self.metric else self.field
        return f"{self.dataset}: {what} differs: {'; '.join(parts)}"


def refusals(
    sections: Sequence[Section],
    metrics: Mapping[str, Sequence[str]],
    nfes: Sequence[int] | None = None,
    unasked: bool = False,
) -> list[Refusal]:
    """Every field in which the shown numbers of a data set differ.

    `metrics` are the names (without their n) that are shown of each data set, `nfes` the columns
    (None: all). What is `unasked` does not refuse by a protocol of facts of whole runs, such as
    the rows behind S: these get a mark.
    """
    found: list[Refusal] = []
    for dataset in dict.fromkeys(section.dataset for section in sections):
        mine = [section for section in sections if section.dataset == dataset]
        of_runs: dict[str, Refusal] = {}
        for metric in metrics[dataset]:
            for refusal in _of_metric(dataset, metric, mine, nfes):
                if refusal.field in fingerprint.OF_RUNS:  # the same for every metric: said once
                    of_runs.setdefault(refusal.field, refusal)
                elif not (unasked and all(metric in section.facts for section in mine)):
                    found.append(refusal)
        found[:0] = [Refusal(r.dataset, "", r.field, r.values) for r in of_runs.values()]
    return found


def _of_metric(
    dataset: str, metric: str, sections: Sequence[Section], nfes: Sequence[int] | None
) -> list[Refusal]:
    levels = None if nfes is None else {*nfes, RUN_LEVEL}
    cells: list[tuple[str, Cell]] = []
    for section in sections:
        name = named(metric, section.n)
        for (label, _, nfe), cell in section.some([name]):
            if cell.goal and (levels is None or nfe in levels):
                cells.append((label, cell))
    fields = fingerprint.differences([cell.fields for _, cell in cells])
    return [Refusal(dataset, metric, name, _values(name, cells)) for name in fields]


def _values(name: str, cells: Sequence[tuple[str, Cell]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for label, cell in cells:
        found.setdefault(cell.fields.get(name, ""), {})[label] = None
    return {value: tuple(sorted(labels)) for value, labels in sorted(found.items())}


def check(
    sections: Sequence[Section],
    metrics: Mapping[str, Sequence[str]],
    nfes: Sequence[int] | None = None,
    unasked: bool = False,
) -> None:
    """Raise NotComparable in one line where the shown numbers do not compare."""
    found = refusals(sections, metrics, nfes, unasked)
    if not found:
        return
    first = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    raise NotComparable(f"{first.words}{more}; {_advice(first, sections)}")


def _advice(refusal: Refusal, sections: Sequence[Section]) -> str:
    """What to type to see only rows that compare, or all of them apart."""
    apart = "--allow-mixed to show them apart"
    value = max(refusal.values, key=lambda value: len(refusal.values[value]))
    if refusal.field not in fingerprint.OF_RUNS or not value:
        return f"name other metrics with --metric, or take {apart}"
    words = ["--where", f"{refusal.field}={value.replace(' ', '')}"]
    if len({section.dataset for section in sections}) > 1:  # of which others may have no such rows
        words = ["--dataset", refusal.dataset, *words]
    return f"choose with {shlex.join(words)}, or {apart}"
