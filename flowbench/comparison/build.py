"""From stored scores to the view: who shares a table, cells over seeds, floors, best values."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import attrgetter, itemgetter
from typing import Any

from flowbench.comparison import fingerprint
from flowbench.comparison.cells import Cells, Gathered, Maker, by_run
from flowbench.comparison.fingerprint import OF_METRICS, Reader
from flowbench.comparison.naming import labelled, named, traits
from flowbench.comparison.view import Cell, Group, Section, View, failure
from flowbench.records import Measured, Spec, Tried

Place = tuple[str, str, int, str, str]  # dataset, data, n, budget, conditioning
Rows = list[Measured]
Runs = list[tuple[Spec, Rows]]
Classes = Mapping[str, list[tuple[str, ...]]]  # by metric
Facts = dict[str, Rows]  # of runs, by key: what was not measured on samples
# Of a hundred thousand rows, so without a step of Python for each.
SCORE, SUBJECT_AND_N = attrgetter("score"), attrgetter("subject", "n")


@dataclass(frozen=True)
class Context:
    """What the building of all sections shares."""

    labels: Mapping[str, str]  # by key of the run
    maker: Maker
    runs: Mapping[str, Spec]  # all that are known, by key

    @property
    def reader(self) -> Reader:
        """What reads fingerprints."""
        return self.maker.reader


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
    found = list(by_run(measured))
    context = _context(found, goals or {}, environments or {}, labels, runs or {})
    samples, facts, floors = _places(found, apart)
    failed = _failed(tried)
    sections = []
    for place, some in sorted(samples.items(), key=itemgetter(0)):
        for section in _sections(place, some, facts, floors.get(place[:2], []), context):
            section.failures = [failure(t) for t in failed if t.spec.dataset == section.dataset]
            sections.append(section)
    return View(sections, failed, context.labels)


def _places(
    runs: Runs, apart: bool
) -> tuple[dict[Place, Runs], Facts, dict[tuple[str, str], Rows]]:
    """Scores of samples by their place, facts of runs by key, floors by data set and data."""
    samples: dict[Place, Runs] = defaultdict(list)
    facts: Facts = defaultdict(list)
    floors: dict[tuple[str, str], Rows] = defaultdict(list)
    for spec, rows in runs:
        for (subject, n), some in _kinds(rows).items():
            if subject == "floor":
                floors[spec.dataset, spec.data] += some
            elif subject == "model" and n:
                samples[_place(spec, n, apart)].append((spec, some))
            elif subject == "model":
                facts[spec.key] += some
    return samples, facts, floors


def _kinds(rows: Rows) -> dict[tuple[str, int], Rows]:
    """The scores of a run by subject and n, of which there are few."""
    kinds = [*map(SUBJECT_AND_N, map(SCORE, rows))]
    return {kind: [*compress(rows, map(kind.__eq__, kinds))] for kind in dict.fromkeys(kinds)}


def _context(found: Runs, goals, environments, labels, runs) -> Context:
    specs = {spec.key: spec for spec, _ in found}
    runs = {**runs, **specs}
    return Context(labels or labelled(specs, runs), Maker(goals, Reader(environments)), runs)


def _place(spec: Spec, n: int, apart: bool) -> Place:
    if not apart:
        return spec.dataset, spec.data, n, "", ""
    facts = fingerprint.of_run(spec, n)
    return spec.dataset, spec.data, n, facts["budget"], facts["conditioning"]


def _sections(
    place: Place, runs: Runs, facts: Facts, floors: Rows, context: Context
) -> list[Section]:
    """One section for each protocol of a metric that stands beside another."""
    classes = _classes(runs, context.reader)
    found, told = [], set[str]()
    for number, some in sorted(_parts(runs, classes, context.reader).items()):
        section = Section(*place, part=number, differs=_differs(classes, number))
        gathered = _gathered(section.n, some, facts, told, context)
        section.streams, section.protocols = tuple(sorted(gathered.streams)), gathered.protocols
        section.groups = [_group(*one, context) for one in sorted(gathered.members.items())]
        section.floors, section.floor_n = _floors(floors, section, classes, context)
        section.cells = Cells(gathered, context.maker, section.floors)
        found.append(section)
    return found


def _parts(runs: Runs, classes: Classes, reader: Reader) -> dict[int, Runs]:
    """The scores by the place of their protocol among those of their metric."""
    if all(len(kinds) == 1 for kinds in classes.values()):
        return {0: runs}
    found: dict[int, Runs] = defaultdict(list)
    for spec, rows in runs:
        mine: dict[int, Rows] = defaultdict(list)
        for row in rows:
            kinds = classes.get(row.score.name)
            mine[kinds.index(reader.kind(row)) if kinds else 0].append(row)
        for number, some in mine.items():
            found[number].append((spec, some))
    return found


def _gathered(n: int, runs: Runs, facts: Facts, told: set[str], context: Context) -> Gathered:
    """The scores of a section, and the facts of its runs unless they were `told` of before."""
    found, known = Gathered(n), {spec.key: spec for spec, _ in runs}
    for spec, rows in runs:
        found.add(context.labels[spec.key], spec, rows)
    for key, spec in known.items():
        if key in facts and key not in told:
            found.add(context.labels[key], spec, facts[key])
    told |= known.keys()
    return found


def _classes(runs: Runs, reader: Reader) -> Classes:
    """The protocols of each metric that has a goal, the most frequent first."""
    shared: dict[tuple[str, str, int], Measured] = {}
    sizes: Counter[tuple[str, str, int]] = Counter()
    for _, rows in runs:
        names, _, _, _, _, _, goals, protocols = zip(*map(SCORE, rows), strict=True)
        places = [*zip(names, goals, map(id, protocols), strict=True)]
        sizes.update(places)
        shared.update(zip(places, rows, strict=True))
    counts: dict[str, Counter] = defaultdict(Counter)
    for (name, goal, own), row in shared.items():
        if goal and not fingerprint.is_speed(name):
            counts[name][reader.kind(row)] += sizes[name, goal, own]
    return {
        name: sorted(some, key=lambda kind: (-some[kind], kind)) for name, some in counts.items()
    }


def _differs(classes: Classes, number: int) -> tuple[str, ...]:
    """In which fields of which metric this part differs from the first."""
    return tuple(
        f"{name}: {field} {own or 'none'} instead of {usual or 'none'}"
        for name, kinds in sorted(classes.items())
        if 0 < number < len(kinds)
        for field, own, usual in zip(OF_METRICS, kinds[number], kinds[0], strict=True)
        if own != usual
    )


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
    classes: Classes,
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
            context.maker.goals.get(row.score.name, row.score.goal),
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
