"""From stored scores to sections that may be compared: groups over seeds, floors, best values."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flowbench.records import RUN_LEVEL, Measured, Score, Spec, Tried, digest

COUNTED = ("fid", "sfid", "fid-clean", "fd-dinov2")  # biased by the number of samples
FULL = 50_000  # samples that a name without a number stands for
# What `compare` shows unasked.
HEADLINES = ("fid", "fd-clf", "memorised", "in-mode", "fd", "w2", "S")
OTHERWISE = ("sw2", "S")  # where there is none of them but S


def named(metric: str, n: int) -> str:
    """A metric as a table calls it: `fid` from 50 000 samples on, below that `fid5k`, `fid256`.

    The Fréchet distance falls with the number of samples, so the number is a part of its name.
    """
    if metric not in COUNTED or not 0 < n < FULL:
        return metric
    word, dash, rest = metric.partition("-")
    return f"{word}{f'{n // 1000}k' if n % 1000 == 0 else n}{dash}{rest}"


@dataclass(frozen=True)
class Cell:
    """One number over seeds: mean, standard deviation (n - 1), and how many seeds there were.

    `comparable` is false where other rows of the column were measured by another protocol.
    """

    mean: float
    sd: float | None
    seeds: int
    goal: str = ""
    fingerprint: str = ""
    best: bool = False
    comparable: bool = True


@dataclass(frozen=True)
class Group:
    """The runs of one method that differ in nothing but their seed: a row of a table."""

    label: str
    spec: Spec  # of one of them
    seeds: tuple[int, ...]


@dataclass
class Section:
    """All that is known on one data set under one protocol: the only rows that share a table.

    Metrics go by the names of `named`.
    """

    dataset: str
    data: str  # hash over the decoded data
    n: int
    sample_seed: int
    groups: list[Group] = field(default_factory=list)
    cells: dict[tuple[str, str, int], Cell] = field(default_factory=dict)  # label, metric, nfe
    floors: dict[str, Cell] = field(default_factory=dict)  # metric
    floor_n: int = 0
    failures: list[str] = field(default_factory=list)
    protocols: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # of extracted features
    streams: tuple[int, ...] = ()  # where numbers are taken over several noise streams

    @property
    def metrics(self) -> list[str]:
        """Every name that has a score at some NFE, in the order of their appearance."""
        return list(dict.fromkeys(metric for _, metric, nfe in self.cells if nfe != RUN_LEVEL))

    @property
    def facts(self) -> list[str]:
        """Every name that is a property of the whole run."""
        return list(dict.fromkeys(metric for _, metric, nfe in self.cells if nfe == RUN_LEVEL))

    @property
    def nfes(self) -> list[int]:
        """Every NFE that was asked for somewhere, ascending, adaptive last."""
        found = {nfe for _, _, nfe in self.cells if nfe != RUN_LEVEL}
        return sorted(found, key=lambda nfe: nfe or math.inf)


def sections(
    measured: Sequence[Measured],
    tried: Iterable[Tried] = (),
    goals: Mapping[str, str] | None = None,
) -> list[Section]:
    """Sort scores into sections, group them over seeds, and mark the best of each column.

    `goals` are those that the metrics declare today; a score keeps its own for other metrics.
    """
    labels = labelled(measured)
    parts: dict[tuple, list[Measured]] = defaultdict(list)
    for row in measured:
        if row.score.n and row.score.subject == "model":
            parts[_place(row)].append(row)
    sampled = {place: {row.run for row in rows} for place, rows in parts.items()}
    for row in measured:
        for place in parts:
            if row.run in sampled[place] and _goes_with(row, place):
                parts[place].append(row)
    found = [_section(place, rows, labels, goals or {}) for place, rows in sorted(parts.items())]
    failures = _failures(tried)
    for section in found:
        section.failures = failures.get(section.dataset, [])
    return found


def _goes_with(row: Measured, place: tuple) -> bool:
    """Whether a fact of the whole run, or a floor, belongs beside the scores of `place`."""
    if (row.spec.dataset, row.spec.data) != place[:2]:
        return False
    floor = row.score.subject == "floor" and row.score.seed == place[3]
    return floor or (row.score.subject == "model" and not row.score.n)


def _place(row: Measured) -> tuple[str, str, int, int]:
    return row.spec.dataset, row.spec.data, row.score.n, row.score.seed


def _identity(spec: Spec) -> str:
    """What the runs of one group share: all but the seed, and the teacher, which has that seed."""
    budget = [spec.budget.steps, spec.budget.batch]
    parts = [spec.method, dict(spec.options), dict(spec.changed), budget, spec.code, spec.data]
    return digest(parts)


def labelled(measured: Iterable[Measured]) -> dict[str, str]:
    """A label for the group of each run (by key): the variant, and more where it is ambiguous."""
    specs = {row.spec.key: row.spec for row in measured}
    variants: dict[tuple, list[Spec]] = defaultdict(list)
    seeds: dict[tuple[str, int], int] = defaultdict(int)
    for spec in specs.values():
        variants[spec.dataset, spec.variant].append(spec)
        seeds[_identity(spec), spec.seed] += 1
    doubled = {identity for (identity, _), count in seeds.items() if count > 1}
    labels = {}
    for key, spec in specs.items():
        same = variants[spec.dataset, spec.variant]
        label = spec.variant
        if len({other.budget for other in same}) > 1:
            label += f" [{spec.budget.steps} x {spec.budget.batch}]"
        if len({other.code for other in same if other.budget == spec.budget}) > 1:
            label += f" [code {spec.code[:6]}]"
        if _identity(spec) in doubled:  # one seed, two teachers: never two runs in one cell
            label += f" [teacher {(spec.teacher or 'none')[:8]}]"
        labels[key] = label
    return labels


def grouped(members: Mapping[str, Mapping[int, Spec]]) -> list[Group]:
    """Rows of a table from the runs of each label by seed."""
    return [
        Group(label, specs[min(specs)], tuple(sorted(specs)))
        for label, specs in sorted(members.items())
    ]


def _section(
    place: tuple, rows: list[Measured], labels: Mapping[str, str], goals: Mapping[str, str]
) -> Section:
    section = Section(*place)
    values: dict[tuple[str, str, int], list[Score]] = defaultdict(list)
    members: dict[str, dict[int, Spec]] = defaultdict(dict)
    floors: dict[str, Score] = {}
    for row in rows:
        if row.score.subject == "floor":
            name = named(row.score.name, section.n)
            closest = floors.get(name)
            if closest is None or abs(row.score.n - section.n) < abs(closest.n - section.n):
                floors[name] = row.score
            continue
        label, name = labels[row.spec.key], named(row.score.name, row.score.n)
        members[label][row.spec.seed] = row.spec
        values[label, name, row.score.nfe].append(row.score)
        if "weights" in row.score.protocol:
            section.protocols[name] = row.score.protocol
    section.groups = grouped(members)
    section.floors = {name: _cell([score], goals) for name, score in floors.items()}
    cells = {key: _cell(scores, goals) for key, scores in values.items()}
    section.cells = _mark(cells, section.floors)
    section.floor_n = max((score.n for score in floors.values()), default=0)
    return section


def _cell(scores: list[Score], goals: Mapping[str, str]) -> Cell:
    values, first = [score.value for score in scores], scores[0]
    prints = {score.fingerprint for score in scores}
    finite = all(math.isfinite(value) for value in values)
    return Cell(
        mean=statistics.fmean(values) if finite else sum(values),  # nan and inf stay visible
        sd=statistics.stdev(values) if finite and len(values) > 1 else None,
        seeds=len(values),
        goal=goals.get(first.name, first.goal),
        fingerprint=first.fingerprint if len(prints) == 1 else "",
        comparable=len(prints) == 1,
    )


def _distance(cell: Cell, floor: Cell | None) -> float:
    """What is smaller for a better cell, by the goal of its metric."""
    if cell.goal == "floor":
        return abs(cell.mean - floor.mean) if floor else math.inf
    return -cell.mean if cell.goal == "max" else cell.mean


def _mark(
    cells: dict[tuple[str, str, int], Cell], floors: Mapping[str, Cell]
) -> dict[tuple[str, str, int], Cell]:
    """Mark the best cell of each (metric, nfe); none where the protocols of a column differ."""
    columns: dict[tuple[str, int], list[tuple[str, str, int]]] = defaultdict(list)
    for key in cells:
        columns[key[1], key[2]].append(key)
    marked = dict(cells)
    for keys in columns.values():
        agree = len({cells[key].fingerprint for key in keys}) == 1 and cells[keys[0]].comparable
        far = {key: _distance(cells[key], floors.get(key[1])) for key in keys if cells[key].goal}
        top = min((d for d in far.values() if math.isfinite(d)), default=None)
        for key in keys:
            best = agree and len(keys) > 1 and top is not None and far.get(key) == top
            marked[key] = replace(cells[key], best=best, comparable=agree)
    return marked


def _failures(tried: Iterable[Tried]) -> dict[str, list[str]]:
    """One line for each run whose last attempt did not end well, by data set."""
    last = {attempt.run: attempt for attempt in tried}
    lines: dict[str, list[str]] = defaultdict(list)
    for attempt in last.values():
        if attempt.outcome not in ("ok", "running"):
            why = f": {attempt.error}" if attempt.error else ""
            name = f"{attempt.spec.variant}, seed {attempt.spec.seed} ({attempt.run})"
            line = f"{name}, attempt {attempt.number}: {attempt.outcome}{why}"
            lines[attempt.spec.dataset].append(line)
    return lines
