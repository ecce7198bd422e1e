"""Verdicts on the rows of a section against a baseline: which pairs, and their table."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flowbench.comparison.naming import named
from flowbench.comparison.significance import INTERVAL, LEVEL, POWER, Difference, Pair, judge
from flowbench.comparison.view import Section
from flowbench.records import RUN_LEVEL, FlowbenchError
from flowbench.report.layout import Table, Text, heading, plain
from flowbench.report.sections import title

COLUMNS = (
    *("method", "metric", "direction", "verdict", "difference", "95 % interval", "p (Holm)"),
    *("smallest seen", "seeds", "noise streams"),
)
DIRECTIONS = {"min": "lower", "max": "higher", "floor": "nearer to the floor"}


@dataclass(frozen=True)
class Judged:
    """A row against the baseline in one column, and what is known of the difference."""

    label: str
    baseline: str
    metric: str
    nfe: int
    goal: str
    difference: Difference

    @property
    def words(self) -> str:
        """One line: `cfm is worse than edm in fd @ 2`."""
        why = f" ({self.difference.reason})" if self.difference.reason else ""
        column = heading(self.metric, self.nfe)
        return f"{self.label} against {self.baseline} in {column}: {self.difference.word}{why}"


def against(
    section: Section, baseline: str, metrics: Sequence[str], nfes: Sequence[int] | None = None
) -> list[Judged]:
    """A verdict on every other row in every column, as one family.

    `baseline` is a method or a row's label, `metrics` are names without their n. Raises
    FlowbenchError where no row or several rows are meant.
    """
    base = row(section, baseline)
    columns = list(_columns(section, base, metrics, nfes))
    places, pairs = [], []
    for group in section.groups:
        for name, nfe in columns:
            other = section.cells.get((group.label, name, nfe))
            own = section.cells[base, name, nfe]
            if group.label != base and other is not None:
                floor = section.floors.get(name)
                pairs.append(Pair(own, other, floor.mean if floor else None))
                places.append((group.label, base, name, nfe, own.goal))
    return [
        Judged(*place, difference) for place, difference in zip(places, judge(pairs), strict=True)
    ]


def meant(section: Section, word: str) -> list[str]:
    """The labels of the rows that a user may mean by a name or a method."""
    if any(group.label == word for group in section.groups):
        return [word]
    return [group.label for group in section.groups if group.spec.method == word]


def judging(sections: Sequence[Section], baseline: str | None, asked: bool) -> list[Section]:
    """The sections in which a baseline means one row: those in which the others are judged.

    Where a user `asked` for it by name, raises FlowbenchError if it is nowhere, or several rows.
    """
    if baseline is None:
        return []
    having = [section for section in sections if meant(section, baseline)]
    for section in (having or sections[:1]) if asked else ():
        row(section, baseline)
    return [section for section in having if len(meant(section, baseline)) == 1]


def row(section: Section, word: str) -> str:
    """The label of the one row that is meant; raises FlowbenchError for none or several."""
    found = meant(section, word)
    if len(found) == 1:
        return found[0]
    if found:
        raise FlowbenchError(f"--baseline {word} fits several rows: choose of {_quoted(found)}")
    known = _quoted([group.label for group in section.groups])
    raise FlowbenchError(f"{section.dataset} has no row {word} to compare with: choose of {known}")


def _quoted(labels: Sequence[str]) -> str:
    """Labels as they may be typed into a shell."""
    return ", ".join(shlex.quote(label) for label in labels)


def _columns(
    section: Section, base: str, metrics: Sequence[str], nfes: Sequence[int] | None
) -> Iterator[tuple[str, int]]:
    """The columns in which the baseline has a number and which has a better direction."""
    for metric in metrics:
        name = named(metric, section.n)
        levels = [RUN_LEVEL] if name in section.facts else (nfes or section.nfes)
        for nfe in levels:
            cell = section.cells.get((base, name, nfe))
            if cell is not None and cell.goal:
                yield name, nfe


def table(section: Section, judged: Sequence[Judged]) -> Table:
    """The verdicts, of which there is one at least, a line each, and how they were found."""
    base = judged[0].baseline
    found = Table(f"Against {base}: {title(section)}", list(COLUMNS), [], labels=4)
    for one in judged:
        found.rows.append([Text(word) for word in _words(one)])
    tested = sum(one.difference.p_holm is not None for one in judged)
    found.notes += [
        f"difference: row minus {base}, mean over training seeds that both have; interval:"
        f" {INTERVAL}, for the one difference",
        f"verdict: p at most {LEVEL:g} after Holm's correction over {tested} comparisons;"
        f" smallest seen: the true difference that would have been seen {POWER:.0%} of the time",
    ]
    if len(section.streams) == 1:
        found.notes.append(
            "one noise stream: what just this stream favours is in the difference and not in the"
            " interval; run with --sample-seed 0,1,2 for several"
        )
    reasons = dict.fromkeys(one.difference.reason for one in judged if one.difference.reason)
    found.notes += [f"{_reasoned(judged, reason)}: {reason}" for reason in reasons]
    return found


def _reasoned(judged: Sequence[Judged], reason: str) -> str:
    """The rows and columns that a reason holds for, the first of them."""
    places = [
        f"{one.label} in {heading(one.metric, one.nfe)}"
        for one in judged
        if one.difference.reason == reason
    ]
    return places[0] + (f" and {len(places) - 1} more" if len(places) > 1 else "")


def _words(one: Judged) -> list[str]:
    found = one.difference
    low_high = found.interval and f"{_signed(found.interval[0])} to {_signed(found.interval[1])}"
    return [
        one.label,
        heading(one.metric, one.nfe),
        DIRECTIONS.get(one.goal, ""),
        found.word,
        "" if found.mean is None else _signed(found.mean),
        low_high or "",
        "" if found.p_holm is None else _p(found.p_holm),
        "" if found.smallest is None else plain(found.smallest),
        str(found.seeds),
        str(found.streams),
    ]


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + plain(value)


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"
