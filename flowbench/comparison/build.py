"""From stored scores to the view: who shares a table, cells over seeds, floors, best values."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from flowbench.comparison import fingerprint
from flowbench.comparison.fingerprint import OF_METRICS, Reader
from flowbench.comparison.naming import COUNTED, labelled, named, specs_of, traits
from flowbench.comparison.ranking import mark
from flowbench.comparison.view import Cell, Group, Key, Section, View, failure
from flowbench.records import Measured, Spec, Tried

Place = tuple[str, str, int, str, str]  # dataset, data, n, budget, conditioning
LEAST = "least"  # of a metric over noise streams, as EDM reports it


@dataclass(frozen=True)
class Context:
    """What the building of all sections shares."""

    labels: Mapping[str, str]  # by key of the run
    goals: Mapping[str, str]  # that metrics declare today
    reader: Reader
    keys: Mapping[int, str]  # of a Spec by its identity in memory
    runs: Mapping[str, Spec]  # all that are known, by key

    def key(self, row: Measured) -> str:
        """The key of a score's run, which takes long to hash."""
        return self.keys[id(row.spec)]


def build(
    measured: Sequence[Measured],
    tried: Iterable[Tried] = (),
    goals: Mapping[str, str] | None = None,
    environments: Mapping[str, Mapping[str, Any]] | None = None,
    labels: Mapping[str, str] | None = None,
    apart: bool = True,
    runs: Mapping[str, Spec] | None = None,
) -> View:
    """Sort scores into sections, group them over seeds, and mark the best of each column.

    `goals` are those that the metrics declare today (a score keeps its own for other metrics),
    `environments` the facts of machines by digest, `labels` those of rows by key of the run.
    Without `apart`, rows of another budget or conditioning share a section, but no ranking.
    `runs` are others that are stored, by key, which may have been teachers.
    """
    context = _context(measured, goals or {}, environments or {}, labels, runs or {})
    samples, others = _places(measured, apart)
    failed = _failed(tried)
    sections = []
    for place, rows in sorted(samples.items()):
        beside = others.get(place[:2], [])
        for section in _sections(place, rows, beside, context):
            section.failures = [failure(t) for t in failed if t.spec.dataset == section.dataset]
            sections.append(section)
    return View(sections, failed, context.labels)


def _places(
    measured: Iterable[Measured], apart: bool
) -> tuple[dict[Place, list[Measured]], dict[tuple[str, str], list[Measured]]]:
    """Scores of samples by their place; facts of runs and floors by data set and data."""
    samples: dict[Place, list[Measured]] = defaultdict(list)
    others: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    places: dict[tuple[int, int], Place] = {}
    for row in measured:
        if row.score.n and row.score.subject == "model":
            short = (id(row.spec), row.score.n)
            if short not in places:
                places[short] = _place(row, apart)
            samples[places[short]].append(row)
        else:
            others[row.spec.dataset, row.spec.data].append(row)
    return samples, others


def _context(measured, goals, environments, labels, runs) -> Context:
    specs = specs_of(measured)
    runs = {**runs, **specs}
    known = {id(spec): key for key, spec in specs.items()}
    for row in measured:
        if id(row.spec) not in known:
            known[id(row.spec)] = row.spec.key
    return Context(labels or labelled(specs, runs), goals, Reader(environments), known, runs)


def _place(row: Measured, apart: bool) -> Place:
    spec, n = row.spec, row.score.n
    if not apart:
        return spec.dataset, spec.data, n, "", ""
    facts = fingerprint.of_run(spec, n)
    return spec.dataset, spec.data, n, facts["budget"], facts["conditioning"]


def _sections(
    place: Place, rows: list[Measured], beside: list[Measured], context: Context
) -> list[Section]:
    """One section for each protocol of a metric that stands beside another."""
    classes = _classes(rows, context.reader)
    parts: dict[int, list[Measured]] = defaultdict(list)
    if all(len(kinds) == 1 for kinds in classes.values()):
        parts[0] = rows
    else:
        for row in rows:
            kinds = classes.get(row.score.name)
            parts[kinds.index(context.reader.kind(row)) if kinds else 0].append(row)
    floors = [r for r in beside if r.score.subject == "floor"]
    found, told = [], set[str]()
    for number, some in sorted(parts.items()):
        runs = {context.key(row) for row in some} - told  # once: their facts have no such classes
        facts = [r for r in beside if r.score.subject == "model" and context.key(r) in runs]
        told |= runs
        section = Section(*place, part=number, differs=_differs(classes, number))
        _fill(section, some + facts, context)
        section.floors, section.floor_n = _floors(floors, section, classes, context)
        section.cells = mark(section.cells, section.floors)
        found.append(section)
    return found


def _classes(rows: list[Measured], reader: Reader) -> dict[str, list[tuple[str, ...]]]:
    """The protocols of each metric that has a goal, the most frequent first."""
    shared: dict[tuple[str, int], list[Measured]] = defaultdict(list)
    for row in rows:
        if row.score.goal:
            shared[row.score.name, id(row.score.protocol)].append(row)
    counts: dict[str, Counter] = defaultdict(Counter)
    for (name, _), some in shared.items():
        if not fingerprint.is_speed(name):
            counts[name][reader.kind(some[0])] += len(some)
    return {
        name: sorted(some, key=lambda kind: (-some[kind], kind)) for name, some in counts.items()
    }


def _differs(classes: Mapping[str, list[tuple[str, ...]]], number: int) -> tuple[str, ...]:
    """In which fields of which metric this part differs from the first."""
    return tuple(
        f"{name}: {field} {own or 'none'} instead of {usual or 'none'}"
        for name, kinds in sorted(classes.items())
        if 0 < number < len(kinds)
        for field, own, usual in zip(OF_METRICS, kinds[number], kinds[0], strict=True)
        if own != usual
    )


def _fill(section: Section, rows: list[Measured], context: Context) -> None:
    """Rows and cells of a section, the best not marked yet."""
    found: dict[Key, tuple[dict[int, dict[int, float]], dict[int, dict[str, str]], str]] = {}
    members: dict[str, dict[int, Measured]] = defaultdict(dict)
    streams = set()
    read, name_of, own = context.reader.fields, cache(named), dict[int, str]()
    for row in rows:
        score, spec = row.score, row.spec
        if id(spec) not in own:
            own[id(spec)] = context.labels[context.key(row)]
            members[own[id(spec)]].setdefault(spec.seed, row)
        key = (own[id(spec)], name_of(score.name, score.n), score.nfe)
        cell = found.get(key)
        if cell is None:
            cell = found[key] = ({}, {}, context.goals.get(score.name, score.goal))
        cell[0].setdefault(spec.seed, {})[score.seed] = score.value
        fields = read(row)
        cell[1][id(fields)] = fields
        if score.n:
            streams.add(score.seed)
            if "weights" in score.protocol:
                section.protocols[key[1]] = score.protocol
    section.streams = tuple(sorted(streams))
    section.groups = [_group(label, some, context) for label, some in sorted(members.items())]
    for key, (values, prints, goal) in found.items():
        section.cells[key] = Cell(values, goal, fingerprint.joined(list(prints.values())))
    _add_least(section)


def _add_least(section: Section) -> None:
    """Of metrics that are published so: the smallest value over noise streams."""
    if len(section.streams) < 2:
        return
    names = {named(name, section.n) for name in COUNTED}
    for (label, name, nfe), cell in list(section.cells.items()):
        if name in names and cell.streams == len(section.streams):
            least = {seed: {0: min(some.values())} for seed, some in cell.values.items()}
            section.cells[label, f"{name} {LEAST}", nfe] = replace(cell, values=least)


def _group(label: str, members: Mapping[int, Measured], context: Context) -> Group:
    rows = [members[seed] for seed in sorted(members)]
    return Group(
        label=label,
        spec=rows[0].spec,
        seeds=tuple(sorted(members)),
        runs={row.spec.seed: row.run for row in rows},
        specs={row.spec.seed: row.spec for row in rows},
        environments=tuple(sorted({row.environment for row in rows})),
        origins=tuple(sorted({row.origin for row in rows})),
        traits=traits(rows[0].spec, context.runs),
    )


def _floors(
    rows: list[Measured],
    section: Section,
    classes: Mapping[str, list[tuple[str, ...]]],
    context: Context,
) -> tuple[dict[str, Cell], int]:
    """Real data in the model's place, by the same protocol, nearest to the section in their n."""
    found: dict[str, Measured] = {}
    for row in rows:
        kinds = classes.get(row.score.name)
        if kinds and section.part < len(kinds):
            if _but_rows(context.reader.kind(row)) != _but_rows(kinds[section.part]):
                continue
        elif section.part:
            continue
        name = named(row.score.name, section.n)
        if name not in found or _far(row, section) < _far(found[name], section):
            found[name] = row
    cells = {
        name: Cell(
            {row.spec.seed: {row.score.seed: row.score.value}},
            context.goals.get(row.score.name, row.score.goal),
            context.reader.fields(row),
        )
        for name, row in found.items()
    }
    return cells, max((row.score.n for row in found.values()), default=0)


def _but_rows(kind: tuple[str, ...]) -> tuple[str, ...]:
    """The fields of a protocol without how many rows there were: fewer may be held out."""
    return tuple(re.sub(r"\brows=\d+ ?", "", word).rstrip() for word in kind)


def _far(row: Measured, section: Section) -> tuple[int, bool]:
    """How far a floor's n is from the section's; of equals, one of the section's noise stream."""
    return abs(row.score.n - section.n), row.score.seed not in section.streams


def _failed(tried: Iterable[Tried]) -> list[Tried]:
    """The last attempt of each run that did not end well."""
    last = {attempt.run: attempt for attempt in tried}
    return [t for t in last.values() if t.outcome not in ("ok", "running") and t.generation > 0]
